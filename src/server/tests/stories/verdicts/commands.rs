//! Stories of what people ask for in comments, at commits with several jobs.

mod once;

use protocol::job::{Block, State};
use protocol::{Failure, FailureKind};
use server::store::jobs::Job;
use server::store::{jobs, projects as rows};
use server::{fleet::hosts, inbox};
use tokio::task::JoinSet;

use super::*;

/// Two jobs that need a third.
const JOBS: &str = "\
defaults: {reuse: false}
jobs:
  prep: {command: echo, on: {pull_request: true}}
  a: {command: python a.py, on: {pull_request: true}, needs: [prep], parameters: {lr: 1}}
  b: {command: python b.py, on: {pull_request: true}, needs: [prep]}
";

fn red() -> Outcome {
    Outcome::Failed(Failure::new(FailureKind::CommandFailed, "exit code 1"))
}

impl Town<'_> {
    /// A request of a branch with these files; gives its number and head.
    async fn request(&self, files: &[(&str, &str)]) -> (u64, String) {
        let head = self.forge.push("better", files).await;
        let number = self.forge.open_request("better", "Better", "ana").await;
        self.look().await;
        (number, head)
    }

    /// Waits until what people asked for is done, or answered.
    async fn obeyed(&self) {
        let server = self.world.server();
        let quiet = || async {
            let mut db = server.store.read().await.unwrap();
            let all = rows::asked(&mut db, Timestamp(i64::MAX), 1).await;
            all.unwrap().is_empty()
        };
        self.world.until("all is obeyed", quiet).await;
    }

    /// The owner comments, and what they want is done.
    async fn ask(&self, number: u64, text: &str) {
        self.forge.comment(number, "octo", text).await;
        self.obeyed().await;
    }

    /// The last that is said under a request.
    async fn last_word(&mut self, number: u64) -> String {
        self.settle().await;
        let seen = self.forge.seen();
        seen.on(number).pop().unwrap().text.clone()
    }

    /// How many comments of the owner have a reaction.
    async fn thumbs(&mut self, number: u64) -> usize {
        self.settle().await;
        let seen = self.forge.seen();
        let on = seen.on(number).into_iter();
        on.filter(|c| c.text.contains("/trainyard ") && !c.reactions.is_empty())
            .count()
    }

    /// The pipelines of a commit that have jobs, oldest first, each with its jobs' names and words.
    async fn told(&self, commit: &str) -> Vec<Vec<(String, &'static str)>> {
        let all = self.all_jobs(commit).await.into_iter();
        let words = |jobs: Vec<Job>| {
            let words = jobs.into_iter();
            words
                .map(|job| (job.spec.name, job.state.word()))
                .collect::<Vec<_>>()
        };
        all.map(words).collect()
    }

    async fn all_jobs(&self, commit: &str) -> Vec<Vec<Job>> {
        let mut db = self.world.server().store.read().await.unwrap();
        let commit = commit.parse().unwrap();
        let all = server::store::pipelines::of_commit(&mut db, &self.project.id, &commit);
        let mut told = Vec::new();
        for pipeline in all.await.unwrap() {
            let jobs = jobs::of_pipeline(&mut db, &pipeline.id).await.unwrap();
            if !jobs.is_empty() {
                told.push(jobs);
            }
        }
        told
    }
}

/// Obeys for as long as it is held.
fn obeying(world: &World) -> JoinSet<()> {
    let mut loops = JoinSet::new();
    loops.spawn(inbox::run(world.server().clone()));
    loops
}

fn named(words: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    let words = words.iter();
    words
        .map(|(name, word)| ((*name).to_owned(), *word))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_runs_again_in_one_pipeline_with_what_it_needs_once() {
    on_both(Times::default(), |world| async move {
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        let mut town = Town::new(&world, &agent, Face::Github).await;
        let (number, head) = town.request(&[(".trainyard.yml", JOBS)]).await;
        agent.run(red()).await;
        let skipped = [("prep", "failed"), ("a", "skipped"), ("b", "skipped")];
        assert_eq!(town.told(&head).await, [named(&skipped)]);

        town.ask(number, "/trainyard retry").await;
        let told = town.told(&head).await;
        assert_eq!(told.len(), 2, "one pipeline for all: {told:?}");
        let names: Vec<&str> = told[1].iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["prep", "a", "b"], "each once");
        for outcome in [Outcome::Succeeded, red(), red()] {
            agent.run(outcome).await;
        }
        town.ask(number, "/trainyard retry").await;
        let told = town.told(&head).await;
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(told[2][0], ("prep".to_owned(), "reused"));
        for outcome in [Outcome::Succeeded, red()] {
            agent.run(outcome).await;
        }
        town.settle().await;
        assert_eq!(town.headline(number), "### ❌ 1 of 3 jobs failed");
        let seen = town.forge.seen();
        assert_eq!(seen.state(&head, "trainyard"), Some("failure"));
        assert_eq!(town.thumbs(number).await, 2);
        assert_eq!(town.forge.violations(), [""; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_runs_again_on_what_its_own_plan_made() {
    const FILE: &str = "\
defaults: {reuse: false}
jobs:
  prep: {command: echo, on: {pull_request: true}, parameters: {rows: 1}}
  train: {command: python a.py, on: {pull_request: true}, needs: [prep]}
  test: {command: python b.py, on: {pull_request: true}, needs: [prep]}
";
    on_both(Times::default(), |world| async move {
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        let mut town = Town::new(&world, &agent, Face::Gitea).await;
        let (number, head) = town.request(&[(".trainyard.yml", FILE)]).await;
        let run = async |outcomes: &[Outcome]| {
            for outcome in outcomes {
                agent.run(outcome.clone()).await;
            }
        };
        run(&[Outcome::Succeeded, red(), red()]).await;
        town.ask(number, "/trainyard rerun prep rows=1000").await;
        run(&[Outcome::Succeeded]).await;
        town.ask(number, "/trainyard retry").await;
        let all = town.all_jobs(&head).await;
        let [first, given, again] = &all[..] else {
            panic!("{all:?}")
        };
        let of = first[0].id.clone();
        let outcome = Outcome::Reused { of };
        assert_eq!(again[0].state, State::Finished { outcome });
        assert_ne!(given[0].key, first[0].key);
        let keys = |jobs: &[Job]| jobs.iter().map(|job| job.key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(again), keys(first));
        run(&[red(), red()]).await;

        // Two plans with other values fall together: of what rests on the other's, the key does not hold.
        town.ask(number, "/trainyard rerun test rows=2").await;
        run(&[Outcome::Succeeded, red()]).await;
        town.ask(number, "/trainyard retry").await;
        let mut all = town.all_jobs(&head).await;
        let (last, given) = (all.pop().unwrap(), all.pop().unwrap());
        assert_eq!(last[0].state.word(), "reused");
        assert_eq!(last[0].spec.parameters["rows"], 2);
        let (prep, test) = (given[0].key.clone(), given[1].key.clone());
        assert_eq!(keys(&last), [prep, None, test], "{last:?}");
        assert_eq!(town.thumbs(number).await, 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_a_comment_is_done_and_cancel_leaves_nothing() {
    on_both(Times::default(), |world| async move {
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        let mut town = Town::new(&world, &agent, Face::Github).await;
        // What is queued from now on stays so.
        hosts::drain(world.server(), "gpu-1", false, "ana")
            .await
            .unwrap();
        let (number, head) = town.request(&[(".trainyard.yml", JOBS)]).await;
        let twice =
            "/trainyard rerun a lr=0.1\n/trainyard rerun a lr=0.2\n/trainyard rerun a lr=0.2";
        town.ask(number, twice).await;
        let all = town.all_jobs(&head).await;
        let values: Vec<_> = all[1..]
            .iter()
            .map(|jobs| {
                let a = jobs.iter().find(|job| job.spec.definition == "a").unwrap();
                a.spec.parameters["lr"].clone()
            })
            .collect();
        assert_eq!(values, [0.1, 0.2, 0.2], "each command has its pipeline");

        town.ask(number, "/trainyard cancel a").await;
        let is_open = |job: &&Job| job.state.outcome().is_none();
        let open = town.all_jobs(&head).await.concat();
        let open: Vec<&Job> = open.iter().filter(is_open).collect();
        assert!(!open.is_empty());
        assert!(
            open.iter().all(|job| job.spec.definition != "a"),
            "{open:?}"
        );
        town.ask(number, "/trainyard cancel").await;
        let all = town.all_jobs(&head).await.concat();
        assert_eq!(all.iter().filter(is_open).count(), 0, "{all:?}");
        assert_eq!(town.thumbs(number).await, 3);
        town.ask(number, "/trainyard cancel").await;
        let said = town.last_word(number).await;
        assert!(said.contains("nothing is waiting or running"), "{said}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_of_the_head_that_was_seen() {
    on_both(Times::default(), |world| async move {
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        for face in FACES {
            let mut town = Town::new(&world, &agent, face).await;
            hosts::drain(world.server(), "gpu-1", false, "ana")
                .await
                .unwrap();
            let number = town
                .forge
                .open_from_fork("eve", "patch", &[("train.py", "print(4)")], "Please")
                .await;
            town.look().await;
            let first = town.forge.head(number);
            let is_held = async |town: &Town<'_>, head: &str| {
                let jobs = town.all_jobs(head).await.concat();
                assert_eq!(jobs.len(), 1);
                let on = Block::Approval;
                jobs[0].state == State::Blocked { on }
            };
            town.settle().await;
            let offered = format!("`/trainyard approve {first}`");
            assert!(town.comment(number).text.contains(&offered));

            // It was written when another head stood there, and comes only now.
            let long_ago = "2020-02-02T02:02:02Z";
            town.forge
                .comment_of(number, "octo", "/trainyard approve", long_ago)
                .await;
            town.obeyed().await;
            assert!(is_held(&town, &first).await, "{face:?}");
            let said = town.last_word(number).await;
            let whole = format!("comment '/trainyard approve {first}'");
            assert!(said.contains(&whole), "{face:?}: {said}");

            let beginning = format!("/trainyard approve {}", &first[..12]);
            town.ask(number, &beginning).await;
            assert!(is_held(&town, &first).await, "{face:?}");
            let said = town.last_word(number).await;
            assert!(said.contains("by its whole id"), "{face:?}: {said}");

            // A second head; the first one's name does not approve it.
            town.forge
                .push_to_request(number, &[("train.py", "print(5)")])
                .await;
            town.look().await;
            let second = town.forge.head(number);
            town.ask(number, &format!("/trainyard approve {first}"))
                .await;
            assert!(is_held(&town, &second).await, "{face:?}");
            town.ask(number, &format!("/trainyard approve {second}"))
                .await;
            assert!(!is_held(&town, &second).await, "{face:?}");

            // Without a name it must have been there for a while, by a clock that is not ahead of ours.
            town.forge
                .push_to_request(number, &[("train.py", "print(6)")])
                .await;
            town.look().await;
            let third = town.forge.head(number);
            let later = Timestamp::now() + Span::hours(1);
            let later = chrono::DateTime::from_timestamp_millis(later.0).unwrap();
            let later = later.format("%Y-%m-%dT%H:%M:%SZ").to_string();
            town.forge
                .comment_of(number, "octo", "/trainyard approve", &later)
                .await;
            town.obeyed().await;
            assert!(is_held(&town, &third).await, "{face:?}");
            // Nothing of it is left for the next one.
            town.ask(number, "/trainyard cancel").await;
            hosts::undrain(world.server(), "gpu-1", "ana")
                .await
                .unwrap();
            town.settle().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_the_mirror_let_go_of_is_fetched_to_run_again() {
    on_both(Times::default(), |world| async move {
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        let mut town = Town::new(&world, &agent, Face::Gitea).await;
        let (number, head) = town.request(&[("train.py", "print(2)")]).await;
        agent.run(Outcome::Succeeded).await;
        town.forge.close(number, "ana").await;
        town.look().await;
        std::fs::remove_dir_all(world.server().config.mirrors()).unwrap();
        town.ask(number, "/trainyard rerun train").await;
        assert_eq!(town.told(&head).await.len(), 2);
        assert_eq!(town.thumbs(number).await, 1);
    })
    .await;
}
