//! What people do at a forge. Each deed returns when its hooks were answered, or waited for in vain.

use super::app::App;
use super::git::Repo;
use super::hooks::{self, Delivery, Hook, Way};
use super::payload::{self, CheckDeed, Deed};
use super::state::{Comment, MAIN, NAME, OWNER, Request, Source, State};
use super::{Face, ForgeWorld};

/// Files (path, text) of a commit.
pub(crate) type Files<'a> = &'a [(&'a str, &'a str)];

impl ForgeWorld {
    /// Does something under the lock, and sends what hooks have to hear of it.
    async fn told<T>(&self, deed: impl FnOnce(&mut State) -> T) -> T {
        let done = deed(&mut self.shared.lock());
        hooks::flush(&self.shared).await;
        done
    }

    /// The owner commits files to a branch, a new one begins at main, and pushes. Gives the commit.
    pub(crate) async fn push(&self, branch: &str, files: Files<'_>) -> String {
        self.push_commits(branch, &[files]).await
    }

    /// Several commits in one push. Gives the last.
    pub(crate) async fn push_commits(&self, branch: &str, commits: &[Files<'_>]) -> String {
        self.told(|state| {
            let mut tip = state.repo.id(&format!("refs/heads/{branch}"));
            for files in commits {
                let parent = tip.or_else(|| state.repo.id(MAIN));
                tip = Some(
                    state
                        .repo
                        .commit(branch, parent.as_deref(), "Change", files),
                );
            }
            state.settle(OWNER);
            tip.unwrap()
        })
        .await
    }

    /// Puts a branch onto another commit, with a new one of these files on top.
    pub(crate) async fn force_push(&self, branch: &str, onto: &str, files: Files<'_>) -> String {
        self.told(|state| {
            let commit = state.repo.commit(branch, Some(onto), "Change", files);
            state.settle(OWNER);
            commit
        })
        .await
    }

    /// Points refs (`refs/…`) to commits, all in one push.
    pub(crate) async fn push_refs(&self, refs: &[(&str, &str)]) {
        self.told(|state| {
            for (reference, commit) in refs {
                state.repo.set(reference, commit);
            }
            state.settle(OWNER);
        })
        .await;
    }

    pub(crate) async fn tag(&self, name: &str, commit: &str) {
        self.push_refs(&[(&format!("refs/tags/{name}"), commit)])
            .await;
    }

    pub(crate) async fn delete_branch(&self, branch: &str) {
        self.delete_ref(&format!("refs/heads/{branch}")).await;
    }

    pub(crate) async fn delete_tag(&self, name: &str) {
        self.delete_ref(&format!("refs/tags/{name}")).await;
    }

    async fn delete_ref(&self, reference: &str) {
        self.told(|state| {
            state.repo.delete(reference);
            state.settle(OWNER);
        })
        .await;
    }

    /// Asks to merge a branch into main. Gives the request's number.
    pub(crate) async fn open_request(&self, branch: &str, title: &str, by: &str) -> u64 {
        self.told(|state| state.open(Source::Own, branch, title, by, false))
            .await
    }

    /// The same, not ready yet.
    pub(crate) async fn open_draft(&self, branch: &str, title: &str, by: &str) -> u64 {
        self.told(|state| state.open(Source::Own, branch, title, by, true))
            .await
    }

    /// A person forks (once), commits files to a branch there, and asks to merge it. Gives the request's number.
    pub(crate) async fn open_from_fork(
        &self,
        by: &str,
        branch: &str,
        files: Files<'_>,
        title: &str,
    ) -> u64 {
        self.open_from_fork_of(by, by, branch, files, title).await
    }

    /// The same, and it is somebody else who asks to merge it.
    pub(crate) async fn open_from_fork_of(
        &self,
        owner: &str,
        by: &str,
        branch: &str,
        files: Files<'_>,
        title: &str,
    ) -> u64 {
        self.told(|state| {
            let parent = state.repo.id(MAIN);
            state
                .fork(owner)
                .commit(branch, parent.as_deref(), "Change", files);
            state.open(Source::Fork(owner.to_owned()), branch, title, by, false)
        })
        .await
    }

    /// Commits onto a request's head where its branch lies, and pushes. Gives the commit.
    pub(crate) async fn push_to_request(&self, number: u64, files: Files<'_>) -> String {
        let request = self.request(number);
        match &request.source {
            Source::Own => self.push(&request.branch, files).await,
            Source::Fork(owner) => {
                self.told(|state| {
                    let fork = state.fork(owner);
                    let head = fork.commit(&request.branch, Some(&request.head), "Change", files);
                    let fork = fork.clone();
                    state.take_over(&fork, &request);
                    state.head_moved(number, &head, owner);
                    head
                })
                .await
            }
            Source::Deleted(owner) => panic!("the fork of {owner} is deleted"),
        }
    }

    pub(crate) async fn close(&self, number: u64, by: &str) {
        self.told(|state| state.turn(number, false, Deed::Closed, by))
            .await;
    }

    pub(crate) async fn reopen(&self, number: u64, by: &str) {
        self.told(|state| state.turn(number, true, Deed::Reopened, by))
            .await;
    }

    /// A draft is ready for review.
    pub(crate) async fn ready(&self, number: u64, by: &str) {
        self.told(|state| {
            state.requests.get_mut(&number).unwrap().draft = false;
            state.tell(number, &Deed::Ready, by);
        })
        .await;
    }

    /// Gives the comment's id.
    pub(crate) async fn comment(&self, number: u64, by: &str, text: &str) -> u64 {
        self.told(|state| state.say(number, by, text)).await
    }

    /// The same, written then (RFC 3339): its message comes only now.
    pub(crate) async fn comment_of(&self, number: u64, by: &str, text: &str, at: &str) -> u64 {
        self.told(|state| state.say_at(number, by, text, at)).await
    }

    /// Somebody writes their comment anew.
    pub(crate) async fn edit_comment(&self, id: u64, by: &str, text: &str) {
        let edited = self.told(|state| state.edit(id, by, text.to_owned())).await;
        edited.expect("a comment of theirs");
    }

    /// No forge tells of it.
    pub(crate) fn delete_fork(&self, owner: &str) {
        let mut state = self.shared.lock();
        state.forks.remove(owner).unwrap().remove();
        for request in state.requests.values_mut() {
            if request.source == Source::Fork(owner.to_owned()) {
                request.source = Source::Deleted(owner.to_owned());
            }
        }
    }

    /// A person presses *Re-run* at a check run.
    pub(crate) async fn rerequest(&self, check: u64, by: &str) {
        self.checked(check, &CheckDeed::Rerequested, by).await;
    }

    /// A person presses one of the buttons that a check run has.
    pub(crate) async fn press(&self, check: u64, identifier: &str, by: &str) {
        let seen = self.seen();
        let actions = &seen.checks.iter().find(|c| c.id == check).unwrap().actions;
        let has = actions
            .iter()
            .any(|action| action["identifier"] == identifier);
        assert!(has, "no button {identifier} among {actions:?}");
        self.checked(check, &CheckDeed::Pressed(identifier.to_owned()), by)
            .await;
    }

    /// A person presses *Re-run all checks* of a commit.
    pub(crate) async fn rerequest_all(&self, commit: &str, by: &str) {
        self.told(|state| {
            let event = payload::github::check_suite(state, commit, by);
            state.outbox.push(event);
        })
        .await;
    }

    async fn checked(&self, check: u64, deed: &CheckDeed, by: &str) {
        self.told(|state| {
            let check = state
                .seen
                .checks
                .iter()
                .find(|c| c.id == check)
                .unwrap()
                .clone();
            let event = payload::check(state, &check, deed, by);
            state.outbox.push(event);
        })
        .await;
    }

    /// The App is installed in the repository; its key is [`super::PRIVATE_KEY`].
    pub(crate) async fn install_app(&self) {
        self.told(|state| {
            state.app = Some(App::new());
            let event = payload::github::installation(state, "created");
            state.outbox.push(event);
        })
        .await;
    }

    /// The App is not installed any more: its tokens end.
    pub(crate) async fn uninstall_app(&self) {
        self.told(|state| {
            state.tokens.retain(|_, token| token.ends.is_none());
            state.app = None;
            let event = payload::github::installation(state, "deleted");
            state.outbox.push(event);
        })
        .await;
    }

    /// The repository's owner suspends the App, or lets it work again.
    pub(crate) async fn suspend_app(&self, suspended: bool) {
        self.told(|state| {
            state.suspended = suspended;
            if suspended {
                state.tokens.retain(|_, token| token.ends.is_none());
            }
            let action = if suspended { "suspend" } else { "unsuspend" };
            let event = payload::github::installation(state, action);
            state.outbox.push(event);
        })
        .await;
    }

    /// Registers a hook of the repository by hand, for all events.
    pub(crate) fn hook(&self, url: &str, secret: &str) -> u64 {
        self.shared.lock().register(url, secret, false)
    }

    /// Sets the App's hook.
    pub(crate) fn app_hook(&self, url: &str, secret: &str) -> u64 {
        self.shared.lock().register(url, secret, true)
    }

    /// It is a GitLab of before keys that sign: it leaves them out and says nothing.
    pub(crate) fn cannot_sign(&self) {
        self.shared.lock().signs = false;
    }

    /// The hooks that are registered.
    pub(crate) fn hooks(&self) -> Vec<Hook> {
        self.shared.lock().hooks.clone()
    }

    /// All that hooks were told, or should have been.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.shared.lock().deliveries.clone()
    }

    /// Sends a delivery again under its id. Gives the status of the answer; none: there was no answer.
    pub(crate) async fn redeliver(&self, id: &str) -> Option<u16> {
        hooks::send(&self.shared, id).await
    }

    /// From now on hooks wait for [`ForgeWorld::release_hooks`].
    pub(crate) fn hold_hooks(&self) {
        self.shared.lock().way = Way::Held;
    }

    /// From now on hooks are lost on their way.
    pub(crate) fn lose_hooks(&self) {
        self.shared.lock().way = Way::Lost;
    }

    /// From now on each hook comes twice at once under one id, as Gitea's do at times.
    pub(crate) fn repeat_hooks(&self) {
        self.shared.lock().way = Way::Twice;
    }

    /// Hooks get through again, those that were held first.
    pub(crate) async fn release_hooks(&self) {
        let held = {
            let mut state = self.shared.lock();
            state.way = Way::Open;
            state.released()
        };
        for id in held {
            hooks::send(&self.shared, &id).await;
        }
    }

    fn request(&self, number: u64) -> Request {
        self.shared.lock().requests[&number].clone()
    }

    /// The head of a request.
    pub(crate) fn head(&self, number: u64) -> String {
        self.request(number).head
    }
}

impl State {
    fn fork(&mut self, owner: &str) -> &Repo {
        let (repo, root) = (&self.repo, &self.root);
        let fork = || repo.fork(root, &format!("{owner}/{NAME}"));
        self.forks.entry(owner.to_owned()).or_insert_with(fork)
    }

    pub(super) fn open(
        &mut self,
        source: Source,
        branch: &str,
        title: &str,
        by: &str,
        draft: bool,
    ) -> u64 {
        let number = self.requests.len() as u64 + 1;
        let from = match &source {
            Source::Own => self.repo.clone(),
            Source::Fork(owner) => self.fork(owner).clone(),
            Source::Deleted(owner) => panic!("the fork of {owner} is deleted"),
        };
        let request = Request {
            number,
            title: title.to_owned(),
            by: by.to_owned(),
            source,
            branch: branch.to_owned(),
            head: from.id(&format!("refs/heads/{branch}")).unwrap(),
            draft,
            open: true,
            changed_at: self.iso(),
        };
        self.take_over(&from, &request);
        self.requests.insert(number, request);
        self.tell(number, &Deed::Opened, by);
        number
    }

    /// Brings a request's commits into the repository, under the ref of its head.
    fn take_over(&self, from: &Repo, request: &Request) {
        let theirs = format!("refs/heads/{}", request.branch);
        self.repo
            .fetch(from, &theirs, &self.face.head_ref(request.number));
    }

    /// Writes a comment and tells of it.
    pub(super) fn say(&mut self, request: u64, by: &str, text: &str) -> u64 {
        let now = self.iso();
        self.say_at(request, by, text, &now)
    }

    fn say_at(&mut self, request: u64, by: &str, text: &str, at: &str) -> u64 {
        let now = self.iso();
        if let Some(of) = self.requests.get_mut(&request) {
            of.changed_at = now;
        }
        let comment = Comment {
            id: self.next_id(),
            request,
            by: by.to_owned(),
            text: text.to_owned(),
            at: at.to_owned(),
            changed_at: at.to_owned(),
            edits: 0,
            reactions: Vec::new(),
        };
        self.seen.comments.push(comment.clone());
        self.tell_comment(&comment);
        comment.id
    }

    /// Tells of a comment that is new or was edited.
    pub(super) fn tell_comment(&mut self, comment: &Comment) {
        let request = self.requests[&comment.request].clone();
        let event = payload::comment(self, &request, comment);
        self.outbox.push(event);
    }

    pub(super) fn register(&mut self, url: &str, secret: &str, app: bool) -> u64 {
        let id = self.next_id();
        self.hooks.push(Hook {
            id,
            url: url.to_owned(),
            secret: secret.to_owned(),
            events: vec!["*".to_owned()],
            active: true,
            form: false,
            app,
        });
        id
    }

    /// A new hook of GitHub's hears a ping.
    pub(super) fn ping(&mut self, id: u64) {
        if let (Face::Github, Some(hook)) = (self.face, self.hooks.iter().find(|h| h.id == id)) {
            let hook = hook.clone();
            let event = payload::github::ping(self, &hook);
            self.outbox.push(event);
        }
    }
}
