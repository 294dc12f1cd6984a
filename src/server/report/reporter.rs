//! Makes forges show what is desired. Rows remember what was accepted, so that a restart loses nothing
//! and says nothing twice; a job never waits for a forge, and no forge for another.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use protocol::{CommitId, Digest, PipelineId, ProjectId, Span, Timestamp};
use tokio::task::JoinSet;

use super::lane::Lane;
use super::link::{Link, May};
use super::{CommitView, RequestView, checks, comment, desired, view};
use crate::forge::{Forge, ForgeError, Forges, Shown, Update, bounded, comment_slot};
use crate::loops::words;
use crate::store::pipelines::Pipeline;
use crate::store::report::{self as rows, Report};
use crate::store::rows::id_before;
use crate::store::{Connection, Result, Store, projects, rests};

/// Most commits that are read at once.
const PAGE: u32 = 200;
/// Most pages of one pass; the next one goes on behind them.
const MOST_PAGES: usize = 5;
/// How often something is tried that only a person may mend, or time: a forge may be behind its own webhook.
const TRIES: u32 = 6;

/// How a reporter behaves. Time-outs are settings so that tests can shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportConfig {
    /// Where this server's pages are: links of statuses begin with it.
    pub pages: Option<String>,
    /// How long one call may take.
    pub call_timeout: Span,
    /// How long a pass waits for answers. What takes longer is under way while the next passes work.
    pub patience: Span,
    /// Time between an answer and the next write of all projects that speak alike; 0: none.
    pub write_gap: Span,
    /// Time between two updates of one slot that are not final.
    pub quiet: Span,
    /// Wait after the first call that failed; it doubles with each.
    pub retry_first: Span,
    /// Longest wait after a call that failed.
    pub retry_most: Span,
}

impl Default for ReportConfig {
    fn default() -> Self {
        Self {
            pages: None,
            call_timeout: Span::secs(10),
            patience: Span(250),
            write_gap: Span::secs(1),
            quiet: Span::secs(10),
            retry_first: Span::secs(2),
            retry_most: Span::secs(600),
        }
    }
}

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pass {
    /// Updates that forges took.
    pub accepted: usize,
    /// Updates that they did not take.
    pub refused: usize,
    /// Updates that were sent, by this pass or one before, and are not answered yet.
    pub under_way: usize,
    /// When a project that has more to say may be told; none: there is nothing, or it may be now.
    pub next: Option<Timestamp>,
}

/// Tells forges what stands in the rows.
#[derive(Debug)]
pub struct Reporter {
    store: Store,
    forges: Forges,
    config: ReportConfig,
    /// No pipeline older than this is left to look at.
    oldest: String,
    /// Where the next pass begins, because the last one did not get to the end; none: at the oldest.
    goes_on: Option<PipelineId>,
    links: BTreeMap<ProjectId, Link>,
    /// By whom a forge counts.
    lanes: BTreeMap<Digest, Lane>,
    under_way: JoinSet<Answer>,
}

impl Reporter {
    /// One that looks at everything once.
    #[must_use]
    pub fn new(store: Store, forges: Forges, config: ReportConfig) -> Self {
        Self {
            store,
            forges,
            config,
            oldest: String::new(),
            goes_on: None,
            links: BTreeMap::new(),
            lanes: BTreeMap::new(),
            under_way: JoinSet::new(),
        }
    }

    /// One pass: writes down what is desired, then sends at most one update for all projects that speak alike.
    ///
    /// # Errors
    /// The store's. What a forge answers is no error here: it stands in the row.
    pub async fn tick(&mut self, now: Timestamp) -> Result<Pass> {
        let begun = Instant::now();
        self.connect(now).await?;
        self.derive(now).await?;
        let mut pass = Pass {
            next: self.send(now).await?,
            ..Pass::default()
        };
        self.hear(&mut pass, now, begun).await?;
        Ok(pass)
    }

    /// Keeps one link for each project, and makes it anew where its settings changed, or its token after a refusal.
    async fn connect(&mut self, now: Timestamp) -> Result<()> {
        let mut db = self.store.read().await?;
        let all = projects::all(&mut db).await?;
        drop(db);
        self.links.retain(|id, link| {
            let same = |p: &projects::Project| p.id == *id && p.forge == link.config;
            all.iter().any(same)
        });
        let timeout = Duration::from(self.config.call_timeout);
        for project in all {
            if let Some(link) = self.links.get_mut(&project.id) {
                if link.has_another_token() {
                    let mut tx = self.store.begin().await?;
                    rows::try_now(&mut tx, &project.id, now).await?;
                    tx.commit().await?;
                }
                continue;
            }
            match self.forges.connect(&project.forge, timeout) {
                Ok(forge) => {
                    let link = Link::new(project.forge, forge.into());
                    self.links.insert(project.id, link);
                }
                Err(error) => {
                    let name = &project.name;
                    tracing::error!(project = name, %error, "the forge of project {name} cannot be used");
                }
            }
        }
        Ok(())
    }

    /// Writes down what should stand at the forges, for every commit that is not settled: page by page, so that those
    /// which stay open for long hold up no newer one.
    async fn derive(&mut self, now: Timestamp) -> Result<()> {
        for _ in 0..MOST_PAGES {
            let after = self.goes_on.take();
            let mut db = self.store.read().await?;
            let waiting = rows::unreported(&mut db, &self.oldest, after.as_ref(), PAGE).await?;
            drop(db);
            if let (None, Some(first)) = (&after, waiting.first()) {
                self.oldest = id_before(first.id.as_str());
            }
            let is_last = waiting.len() < PAGE as usize;
            let last = waiting.last().map(|pipeline| pipeline.id.clone());
            self.derive_all(waiting, now).await?;
            if is_last {
                return Ok(());
            }
            self.goes_on = last;
        }
        Ok(())
    }

    async fn derive_all(&self, waiting: Vec<Pipeline>, now: Timestamp) -> Result<()> {
        let mut commits: BTreeMap<(ProjectId, CommitId), Vec<PipelineId>> = BTreeMap::new();
        for pipeline in waiting {
            let of = (pipeline.project, pipeline.trigger.commit);
            commits.entry(of).or_default().push(pipeline.id);
        }
        for (of, waiting) in commits {
            self.derive_one(&of, &waiting, now).await?;
        }
        Ok(())
    }

    async fn derive_one(
        &self,
        (project, commit): &(ProjectId, CommitId),
        waiting: &[PipelineId],
        now: Timestamp,
    ) -> Result<()> {
        // Without one it waits: certificates of this host may be missing, or it was added just now.
        let Some(link) = self.links.get(project) else {
            return Ok(());
        };
        // One transaction: what is read cannot change before it is written down as settled.
        let mut tx = self.store.begin().await?;
        let project = projects::find(&mut tx, project).await?;
        let Some(project) = project.filter(|_| link.forge.listens()) else {
            for id in waiting {
                rows::mark_reported(&mut tx, id).await?;
            }
            tx.commit().await?;
            return Ok(());
        };
        let pages = self.config.pages.as_deref();
        let Some(seen) = view::of_commit(&mut tx, &project, commit, pages, now).await? else {
            return Ok(());
        };
        for update in of_commit(&seen.commit, link.forge.as_ref()) {
            rows::put(&mut tx, &project.id, &update, now).await?;
        }
        for request in &seen.requests {
            put_comment(&mut tx, &project.id, request, now).await?;
        }
        for id in &seen.settled {
            rows::mark_reported(&mut tx, id).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Begins to send, for each caller that may write now, the update that matters most of all its projects. Gives when
    /// the next one may that has something to say.
    async fn send(&mut self, now: Timestamp) -> Result<Option<Timestamp>> {
        let mut db = self.store.read().await?;
        self.lanes.retain(|_, lane| lane.matters(now));
        let mut turns: BTreeMap<Digest, (Report, Arc<dyn Forge>)> = BTreeMap::new();
        let mut soonest: Option<Timestamp> = None;
        for project in rows::open_projects(&mut db).await? {
            let Some(link) = self.links.get(&project).filter(|l| l.forge.listens()) else {
                continue;
            };
            // Who has no token waits for nobody: its calls reach no forge.
            let caller = link.config.caller();
            let caller = caller.unwrap_or_else(|| Digest::of(project.as_str()));
            let lane = self.lanes.entry(caller.clone()).or_default();
            if lane.busy {
                continue;
            }
            // What it asked for before this server's start counts too.
            let rests = rests::until(&mut db, &caller, now).await?;
            let may = match rests.or(lane.waits(now)) {
                Some(until) => May::At(until),
                None => link.may(now),
            };
            match may {
                May::Now => {}
                May::At(at) => {
                    soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
                    continue;
                }
                May::OnChangeSince(at) => {
                    if !rows::changed_since(&mut db, &project, at).await? {
                        continue;
                    }
                }
            }
            let quiet = self.config.quiet;
            let Some(row) = rows::due(&mut db, &project, now, quiet, 1).await?.pop() else {
                continue;
            };
            let turn = turns.get(&caller);
            if turn.is_none_or(|(other, _)| goes_before(&row, other)) {
                turns.insert(caller, (row, Arc::clone(&link.forge)));
            }
        }
        drop(db);
        for (caller, (row, forge)) in turns {
            self.lanes.entry(caller.clone()).or_default().busy = true;
            self.under_way.spawn(call(caller, row, forge));
        }
        Ok(soonest)
    }

    /// Notes answers, until all are there or the pass has no more patience. `begun` is when `now` was.
    async fn hear(&mut self, pass: &mut Pass, now: Timestamp, begun: Instant) -> Result<()> {
        let until = tokio::time::Instant::now() + Duration::from(self.config.patience);
        while let Ok(Some(answer)) =
            tokio::time::timeout_at(until, self.under_way.join_next()).await
        {
            // A call catches what breaks in it, and none is ended.
            let Ok(answer) = answer else { continue };
            match &answer.said {
                Ok(_) => pass.accepted += 1,
                Err(_) => pass.refused += 1,
            }
            let took = Span::from(begun.elapsed());
            self.note(answer, now, took).await?;
        }
        pass.under_way = self.under_way.len();
        Ok(())
    }

    async fn note(&mut self, answer: Answer, now: Timestamp, took: Span) -> Result<()> {
        let Answer { caller, row, said } = answer;
        let (project, sent) = (&row.project, &row.desired);
        let outcome = said.as_ref().map(drop);
        let lane = self.lanes.entry(caller.clone()).or_default();
        lane.done(outcome, &self.config, caller.as_str(), (now, took));
        if let Some(link) = self.links.get_mut(project) {
            link.heard(outcome, &self.config, project.as_str(), now);
        }
        let mut tx = self.store.begin().await?;
        match &said {
            Ok(shown) => match (shown.goes_on, &shown.remembered) {
                (true, Some(remembered)) => {
                    rows::went_on(&mut tx, project, sent, remembered).await?;
                }
                _ => rows::accepted(&mut tx, project, sent, shown, now).await?,
            },
            Err(error) => {
                let slot = sent.slot();
                let soon = now + self.config.wait(row.tries, &slot);
                let next = next_try(error, row.tries, soon, now + took);
                let text = bounded(&error.to_string(), 1_000);
                if row.problem.as_ref() != Some(&text) {
                    tracing::warn!(%project, slot, error = text, "a forge did not take an update");
                }
                rows::not_accepted(&mut tx, project, sent, &text, next).await?;
                if let ForgeError::RateLimited { wait, .. } = error {
                    rests::set(&mut tx, &caller, now + took + *wait, now).await?;
                }
            }
        }
        tx.commit().await?;
        Ok(())
    }
}

/// Final states first, then what waits longest.
fn goes_before(one: &Report, other: &Report) -> bool {
    let rank = |row: &Report| (!row.desired.is_final(), row.changed_at);
    rank(one) < rank(other)
}

/// What a forge should show at a commit: checks where it has them, else statuses.
fn of_commit(view: &CommitView, forge: &dyn Forge) -> Vec<Update> {
    if forge.checks() {
        return checks(view).into_iter().map(Update::Check).collect();
    }
    let statuses = desired(view, forge.description_limit()).into_iter();
    statuses.map(Update::Status).collect()
}

/// A request of which there is nothing to say gets no comment; one that has a comment is not left with an older text.
async fn put_comment(
    db: &mut Connection,
    project: &ProjectId,
    request: &RequestView,
    now: Timestamp,
) -> Result<()> {
    let slot = comment_slot(request.number);
    if request.says_nothing() && !rows::is_known(db, project, &slot).await? {
        return Ok(());
    }
    rows::put(db, project, &Update::Comment(comment(request)), now).await?;
    Ok(())
}

/// What a forge said to a row that was sent.
#[derive(Debug)]
struct Answer {
    /// As whom.
    caller: Digest,
    row: Report,
    said: std::result::Result<Shown, ForgeError>,
}

/// Sends a row. A panic is an answer that cannot be read: the row is left alone until it changes.
async fn call(caller: Digest, row: Report, forge: Arc<dyn Forge>) -> Answer {
    let shown = forge.show(&row.desired, row.remembered.as_deref());
    let said = match AssertUnwindSafe(shown).catch_unwind().await {
        Ok(said) => said,
        Err(panic) => Err(ForgeError::Unreadable {
            forge: forge.name(),
            message: format!("a fault of Trainyard: {}", words(panic.as_ref())),
        }),
    };
    Answer { caller, row, said }
}

/// When an update that was not taken is sent again; none: not before it changes.
fn next_try(
    error: &ForgeError,
    tries: u32,
    soon: Timestamp,
    answered: Timestamp,
) -> Option<Timestamp> {
    match error {
        ForgeError::RateLimited { wait, .. } => Some(answered + *wait),
        ForgeError::Transport { .. } | ForgeError::Credential(_) | ForgeError::App { .. } => {
            Some(soon)
        }
        // The link knows when to leave the forge alone.
        ForgeError::Moved { .. } => Some(soon),
        ForgeError::Unauthorized { .. } if error.concerns_project() => Some(soon),
        ForgeError::Unauthorized { .. } | ForgeError::UnknownCommit { .. } => {
            (tries < TRIES).then_some(soon)
        }
        ForgeError::Refused { .. } | ForgeError::Unreadable { .. } => None,
    }
}
