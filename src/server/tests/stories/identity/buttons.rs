//! Stories of the buttons at GitHub's check runs.

use std::time::Duration;

use protocol::job::{Block, Move, State};
use protocol::{AttemptId, Outcome, Timestamp, TriggerKind};
use server::config::Config;
use server::state::{Handle, Server};
use server::store::jobs::Job;
use server::store::pipelines::Pipeline;
use server::store::projects::{self, Project};
use server::store::{jobs, pipelines};
use tokio::time::Instant;

use super::Town;
use super::hook::told_as_app;
use crate::forge::{Face, MAIN};

const JOBS: &str = "\
jobs:
  a: {command: echo a, on: {push: [main], pull_request: true}, reuse: false}
  b: {command: echo b, on: {push: [main], pull_request: true}, reuse: false}
  nightly: {command: echo c, on: {schedule: '0 3 * * *'}}
";

/// A commit with checks, and who looks at them.
struct Checked {
    town: Town,
    handle: Handle,
    project: Project,
    commit: String,
}

impl Checked {
    async fn new() -> Self {
        let town = Town::new(Face::Github).await;
        let (handle, project) = told_as_app(&town).await;
        let commit = town.forge.push(MAIN, &[(".trainyard.yml", JOBS)]).await;
        Self {
            town,
            handle,
            project,
            commit,
        }
    }

    async fn until<T>(&self, what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(held) = holds().await {
                return held;
            }
            assert!(Instant::now() < deadline, "in vain: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The pipelines of the commit, oldest first.
    async fn pipelines(&self) -> Vec<Pipeline> {
        let mut db = self.handle.server.store.read().await.unwrap();
        let commit = self.commit.parse().unwrap();
        let all = pipelines::of_commit(&mut db, &self.project.id, &commit);
        all.await.unwrap()
    }

    /// The newest job of each name.
    async fn jobs(&self) -> Vec<Job> {
        let mut db = self.handle.server.store.read().await.unwrap();
        let commit = self.commit.parse().unwrap();
        let all = jobs::newest_of_commit(&mut db, &self.project.id, &commit);
        all.await.unwrap()
    }

    /// Waits until the newest jobs stand so.
    async fn stand(&self, words: &[&str]) {
        let what = format!("jobs are {words:?}");
        self.until(&what, async || {
            let jobs = self.jobs().await;
            let stand = jobs.iter().map(|job| job.state.word());
            stand.eq(words.iter().copied()).then_some(())
        })
        .await;
    }

    /// The id of a check, once GitHub shows it.
    async fn check(&self, name: &str) -> u64 {
        self.until(name, async || {
            let seen = self.town.forge.seen();
            let mut of_it = seen.checks.iter().filter(|c| c.commit == self.commit);
            Some(of_it.rfind(|check| check.name == name)?.id)
        })
        .await
    }

    /// The id of the newest run of a check, as soon as it has a button.
    async fn with_button(&self, name: &str, button: &str) -> u64 {
        self.until(button, async || {
            let seen = self.town.forge.seen();
            let mut of_it = seen.checks.iter().filter(|c| c.commit == self.commit);
            let check = of_it.rfind(|check| check.name == name)?;
            let mut actions = check.actions.iter();
            let has = actions.any(|action| action["identifier"] == button);
            has.then_some(check.id)
        })
        .await
    }

    /// Presses a button as soon as the newest run of a check has it.
    async fn press(&self, name: &str, button: &str) {
        let id = self.with_button(name, button).await;
        self.town.forge.press(id, button, "octo").await;
    }

    /// The server's end, what happens then, and its start at the same address.
    async fn while_it_is_down(self, happens: impl AsyncFnOnce(&Town)) -> Self {
        let address = self.handle.address;
        self.handle.stop().await.unwrap();
        happens(&self.town).await;
        let config = Config {
            listen: address,
            ..self.town.config()
        };
        Self {
            handle: Server::start(config).await.unwrap(),
            ..self
        }
    }

    /// Waits until all that people asked for is done, or refused.
    async fn obeyed(&self) {
        self.until("all is obeyed", async || {
            let mut db = self.handle.server.store.read().await.unwrap();
            let all = projects::asked(&mut db, Timestamp(i64::MAX), 1).await;
            let open = all.unwrap();
            open.is_empty().then_some(())
        })
        .await;
    }

    /// All queued jobs succeed.
    async fn succeed(&self) {
        for job in self.jobs().await {
            let attempt = AttemptId::generate();
            let at = Timestamp::now();
            let lease = Move::Lease {
                attempt: attempt.clone(),
            };
            let finish = Move::Finish {
                attempt,
                outcome: Outcome::Succeeded,
            };
            let mut tx = self.handle.server.store.begin().await.unwrap();
            let job = jobs::advance(&mut tx, &job, lease, None, at).await.unwrap();
            jobs::advance(&mut tx, &job, finish, None, at)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn buttons_of_a_job_and_of_the_whole_do_what_they_say() {
    let checked = Checked::new().await;
    checked.stand(&["queued", "queued"]).await;
    checked.press("trainyard/a", "cancel").await;
    checked.stand(&["cancelled", "queued"]).await;
    let (a, whole) = (
        checked.check("trainyard/a").await,
        checked.check("trainyard").await,
    );
    let forge = &checked.town.forge;
    forge.rerequest(a, "eve").await;
    checked.obeyed().await;
    checked.stand(&["cancelled", "queued"]).await;
    forge.rerequest(a, "octo").await;
    checked.stand(&["queued", "queued"]).await;
    forge.rerequest(whole, "octo").await;
    checked.obeyed().await;
    assert_eq!(checked.pipelines().await.len(), 2, "it is not over");

    checked.press("trainyard", "cancel").await;
    checked.stand(&["cancelled", "cancelled"]).await;
    forge.rerequest(whole, "octo").await;
    checked.stand(&["queued", "queued"]).await;
    assert_eq!(checked.pipelines().await.len(), 3, "both in one");
    // Green: whoever asks again wants all of it.
    checked.succeed().await;
    forge.rerequest(whole, "octo").await;
    checked.stand(&["queued", "queued"]).await;
    checked.succeed().await;
    forge.rerequest_all(&checked.commit, "octo").await;
    checked.stand(&["queued", "queued"]).await;
    let all = checked.pipelines().await;
    assert_eq!(all.len(), 5);
    // What ran, and not what the file starts at other times.
    let by_a_person = |pipeline: &Pipeline| {
        let kind = &pipeline.trigger.kind;
        matches!(kind, TriggerKind::Person { definitions, .. } if *definitions == ["a", "b"])
    };
    assert!(all[3..].iter().all(by_a_person), "{all:?}");

    // Of a commit that nobody knows there is nothing to run again.
    forge.rerequest_all(&"e".repeat(40), "octo").await;
    checked.obeyed().await;
    assert_eq!(checked.pipelines().await.len(), 5);
    checked.handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_check_is_approved_and_its_whole_runs_again_from_the_base_branchs_file() {
    let mut checked = Checked::new().await;
    checked.stand(&["queued", "queued"]).await;
    let evil = "jobs: {steal: {command: env, on: {pull_request: true}}}";
    let files = [("x", "1"), (".trainyard.yml", evil)];
    let forge = &checked.town.forge;
    let number = forge.open_from_fork("eve", "patch", &files, "Please").await;
    checked.commit = forge.head(number);
    checked.stand(&["blocked", "blocked"]).await;
    checked.press("trainyard/a", "approve").await;
    checked.stand(&["queued", "queued"]).await;
    checked.succeed().await;
    let whole = checked.check("trainyard").await;
    checked.town.forge.rerequest(whole, "octo").await;
    checked.stand(&["queued", "queued"]).await;
    let jobs = checked.jobs().await;
    let names: Vec<&str> = jobs.iter().map(|job| job.spec.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let on = Block::Approval;
    assert!(
        jobs.iter()
            .all(|job| job.state != State::Blocked { on: on.clone() })
    );
    checked.handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_that_was_pressed_while_the_server_was_down_is_heard_of_once() {
    let checked = Checked::new().await;
    checked.stand(&["queued", "queued"]).await;
    let a = checked.with_button("trainyard/a", "cancel").await;
    let mut before = 0;
    let checked = checked
        .while_it_is_down(async |town| {
            before = town.forge.deliveries().len();
            town.forge.press(a, "cancel", "octo").await;
            town.forge.push("side", &[("x", "1")]).await;
        })
        .await;
    checked.stand(&["cancelled", "queued"]).await;
    let answers = |of: usize| {
        let told = &checked.town.forge.deliveries()[before + of];
        let answers = told.answers.iter().map(|answer| answer.status);
        answers.collect::<Vec<_>>()
    };
    checked
        .until("it is noted", async || (answers(0).len() > 1).then_some(()))
        .await;
    assert_eq!(answers(0), [None, Some(202)]);
    assert_eq!(answers(1), [None], "git tells of a push");

    // Another start finds that it was taken.
    let checked = checked.while_it_is_down(async |_| ()).await;
    let listed = || {
        let calls = checked.town.forge.calls().into_iter();
        let lists = calls.filter(|call| call.path == "/app/hook/deliveries");
        lists.count()
    };
    checked
        .until("it is listed again", async || (listed() > 1).then_some(()))
        .await;
    checked.obeyed().await;
    let told = &checked.town.forge.deliveries()[before];
    assert_eq!(told.answers.len(), 2);
    assert_eq!(checked.town.forge.violations(), Vec::<String>::new());
    checked.handle.stop().await.unwrap();
}
