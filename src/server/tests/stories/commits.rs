//! Stories of commits: what runs, what an earlier result stands for, and what is joined. Real git.

use std::path::{Path, PathBuf};
use std::process::Command;

use protocol::api::{self, Page};
use protocol::job::{Block, State};
use protocol::{Failure, FailureKind, JobId, Outcome, Span, Timestamp, Trust};
use server::pipelines::{self, SUPERSEDED};
use server::store::jobs::Job;
use server::store::pipelines::Pipeline;
use server::store::projects::{self, Project};
use server::store::{jobs, testing};
use server::{housekeeping, project, timetable, watch};

use crate::support::{Agent, Times, World, on_both};

const FILE: &str = "\
jobs:
  train:
    command: python train.py
    on: {push: true, schedule: \"0 3 * * *\"}
    deps: [src/**, train.py]
";

/// A repository and the project that watches it.
pub(crate) struct Repository {
    pub(crate) path: PathBuf,
    pub(crate) project: Project,
}

impl Repository {
    pub(crate) async fn new(world: &World) -> Self {
        let path = world.folder.path().join("repository");
        std::fs::create_dir_all(&path).unwrap();
        git(&path, &["init", "--quiet", "--initial-branch=main"]);
        let url = path.to_str().unwrap();
        let project = project::add(world.server(), "digits", url).await.unwrap();
        let repository = Self { path, project };
        repository.commit(&[(".trainyard.yml", FILE), ("train.py", "print(1)")]);
        repository
    }

    pub(crate) fn commit(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = self.path.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        git(&self.path, &["add", "--all"]);
        git(&self.path, &["commit", "--quiet", "--message=Change"]);
    }

    /// Looks at the remote now; gives the one pipeline that this led to.
    pub(crate) async fn look(&self, world: &World) -> Pipeline {
        let mut made = self.look_all(world).await;
        assert_eq!(made.len(), 1);
        made.remove(0)
    }

    pub(crate) async fn look_all(&self, world: &World) -> Vec<Pipeline> {
        watch::look(world.server(), &self.now(world).await)
            .await
            .unwrap()
    }

    /// The project as it is now.
    async fn now(&self, world: &World) -> Project {
        let mut db = world.server().store.read().await.unwrap();
        let project = projects::find(&mut db, &self.project.id).await.unwrap();
        project.unwrap()
    }
}

pub(crate) fn git(folder: &Path, arguments: &[&str]) {
    let done = Command::new("git")
        .args(["-c", "user.name=Ana", "-c", "user.email=ana@example.org"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

pub(crate) async fn jobs_of(world: &World, pipeline: &Pipeline) -> Vec<Job> {
    let mut db = world.server().store.read().await.unwrap();
    jobs::of_pipeline(&mut db, &pipeline.id).await.unwrap()
}

pub(crate) async fn only_job(world: &World, pipeline: &Pipeline) -> Job {
    let mut all = jobs_of(world, pipeline).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn reused(of: &JobId) -> State {
    State::Finished {
        outcome: Outcome::Reused { of: of.clone() },
    }
}

fn raised() -> Outcome {
    Outcome::Failed(Failure::new(FailureKind::CommandFailed, "exit code 1"))
}

/// The first commit's job, run to this end by an agent that stays.
async fn first(world: &World, outcome: Outcome) -> (Repository, Job, Agent) {
    let repository = Repository::new(world).await;
    let pipeline = repository.look(world).await;
    let job = only_job(world, &pipeline).await;
    let agent = world.agent("a").await;
    let order = agent.run(outcome).await;
    assert_eq!(order.job, job.id);
    (repository, job, agent)
}

#[tokio::test]
async fn a_commit_is_planned_once() {
    on_both(Times::default(), |world| async move {
        let repository = Repository::new(&world).await;
        let pipeline = repository.look(&world).await;
        assert_eq!((pipeline.number, pipeline.subject.as_str()), (1, "Change"));
        assert!(repository.look_all(&world).await.is_empty());
        let (project, trigger) = (&repository.project, &pipeline.trigger);
        let again = watch::plan_and_create(world.server(), project, trigger, None)
            .await
            .unwrap();
        assert_eq!(again.id, pipeline.id);
    })
    .await;
}

#[tokio::test]
async fn a_person_who_names_no_branch_gets_the_default_one_of_today() {
    on_both(Times::default(), |world| async move {
        let repository = Repository::new(&world).await;
        repository.look(&world).await;
        git(&repository.path, &["checkout", "--quiet", "-b", "trunk"]);
        repository.commit(&[("train.py", "print(2)")]);
        let pushed = repository.look(&world).await;
        let project = repository.now(&world).await;
        let (all, values) = (Vec::new(), Default::default());
        let made = watch::by_hand(world.server(), &project, None, all, values, Some("ana"))
            .await
            .unwrap();
        assert_eq!(made.trigger.reference.as_deref(), Some("refs/heads/trunk"));
        assert_eq!(made.trigger.commit, pushed.trigger.commit);
    })
    .await;
}

#[tokio::test]
async fn a_credential_never_crosses_a_network_in_clear() {
    on_both(Times::default(), |world| async move {
        let in_clear = "http://forge.example/team/churn";
        let of = |url: &str, api: Option<&str>| api::NewProject {
            credential: Some("env:TOKEN".to_owned()),
            api: api.map(str::to_owned),
            ..api::NewProject::new("clear", url)
        };
        let clone = of(in_clear, None);
        let calls = of("git@forge.example:team/churn", Some(in_clear));
        for wanted in [clone, calls] {
            let error = project::add_for(world.server(), wanted, "ana").await;
            let error = error.unwrap_err().to_string();
            assert!(error.contains("use https"), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_changes_nothing_that_counts_runs_nothing() {
    on_both(Times::default(), |world| async move {
        let (repository, job, _agent) = first(&world, Outcome::Succeeded).await;
        repository.commit(&[("README.md", "Hello")]);
        let second = only_job(&world, &repository.look(&world).await).await;
        assert_eq!(second.state, reused(&job.id));
        repository.commit(&[("README.md", "Hello again")]);
        let third = only_job(&world, &repository.look(&world).await).await;
        assert_eq!(third.state, reused(&job.id), "the one that ran, not a copy");
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_changes_what_counts_runs_and_says_why() {
    on_both(Times::default(), |world| async move {
        let (repository, _, _agent) = first(&world, Outcome::Succeeded).await;
        repository.commit(&[("src/model.py", "x = 1")]);
        let job = only_job(&world, &repository.look(&world).await).await;
        assert!(job.state.outcome().is_none(), "{:?}", job.state);
        let why = job.lineage.changed.join("; ");
        assert!(why.contains("src/model.py"), "{why}");
    })
    .await;
}

#[tokio::test]
async fn what_failed_before_runs_again_and_what_succeeded_does_not() {
    on_both(Times::default(), |world| async move {
        let (repository, _, agent) = first(&world, raised()).await;
        repository.commit(&[("README.md", "Hello")]);
        let second = only_job(&world, &repository.look(&world).await).await;
        assert!(second.state.outcome().is_none(), "it never succeeded");
        agent.run(Outcome::Succeeded).await;
        repository.commit(&[("README.md", "Bye")]);
        let third = only_job(&world, &repository.look(&world).await).await;
        assert_eq!(third.state, reused(&second.id));
    })
    .await;
}

#[tokio::test]
async fn a_newer_push_supersedes_what_is_queued_and_that_counts_as_nothing() {
    on_both(Times::default(), |world| async move {
        let repository = Repository::new(&world).await;
        let old = only_job(&world, &repository.look(&world).await).await;
        repository.commit(&[("README.md", "Hello")]);
        let new = only_job(&world, &repository.look(&world).await).await;
        assert_eq!(
            world.outcome(&old.id).await,
            Outcome::Cancelled {
                by: SUPERSEDED.into()
            }
        );
        assert_eq!(new.state, State::Queued);
    })
    .await;
}

#[tokio::test]
async fn an_equal_job_that_runs_is_joined_and_its_end_decides() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        for (outcome, then) in [(Outcome::Succeeded, "reused"), (raised(), "queued")] {
            let repository = Repository {
                path: world.folder.path().join(then),
                project: testing::project("unused"),
            };
            std::fs::create_dir_all(&repository.path).unwrap();
            git(
                &repository.path,
                &["init", "--quiet", "--initial-branch=main"],
            );
            let url = repository.path.to_str().unwrap();
            let project = project::add(world.server(), then, url).await.unwrap();
            let repository = Repository {
                project,
                ..repository
            };
            repository.commit(&[(".trainyard.yml", FILE), ("train.py", then)]);
            let running = only_job(&world, &repository.look(&world).await).await;
            let order = agent.begin().await;
            assert_eq!(order.job, running.id);

            repository.commit(&[("README.md", "Hello")]);
            let joined = only_job(&world, &repository.look(&world).await).await;
            let equal = Block::Equal {
                job: running.id.clone(),
            };
            assert_eq!(joined.state, State::Blocked { on: equal });
            let report = crate::support::report(outcome);
            agent.finish(&order, &report).await.unwrap();
            let word = world.word(&joined.id).await;
            // It may have been given to the agent already.
            let word = if word == "leased" { "queued" } else { word };
            assert_eq!(word, then);
            if then == "queued" {
                pipelines::cancel_by_hand(world.server(), &joined.id, "the end")
                    .await
                    .unwrap();
            } else {
                let clean = crate::support::released(&order.attempt, order.generation);
                agent.poll(vec![clean], protocol::Span(0)).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn schedules_and_people_always_run() {
    on_both(Times::default(), |world| async move {
        let (repository, job, agent) = first(&world, Outcome::Succeeded).await;
        let night = |hour: i64, minute: i64| Timestamp((hour * 60 + minute) * 60_000);
        let quiet = timetable::tick(world.server(), night(1, 0), night(2, 59)).await;
        assert!(quiet.unwrap().is_empty(), "not yet");
        let due = timetable::tick(world.server(), night(2, 59), night(3, 0)).await;
        let due = due.unwrap();
        let scheduled = only_job(&world, &due[0]).await;
        assert!(scheduled.state.outcome().is_none());
        assert_eq!(scheduled.key, job.key);
        let again = timetable::tick(world.server(), night(2, 59), night(3, 0)).await;
        assert_eq!(again.unwrap()[0].id, due[0].id, "once");
        agent.run(Outcome::Succeeded).await;

        let rerun = pipelines::rerun(world.server(), &job.id, Some("ana"), Timestamp::now())
            .await
            .unwrap();
        let rerun = only_job(&world, &rerun).await;
        assert!(rerun.state.outcome().is_none());
        let refused = pipelines::rerun(world.server(), &rerun.id, None, Timestamp::now()).await;
        assert!(refused.is_err(), "it is not over");
        agent.run(Outcome::Succeeded).await;

        let by_hand = watch::by_hand(
            world.server(),
            &repository.project,
            None,
            vec!["train".into()],
            Default::default(),
            Some("ana"),
        );
        let by_hand = only_job(&world, &by_hand.await.unwrap()).await;
        assert!(by_hand.state.outcome().is_none());
    })
    .await;
}

#[tokio::test]
async fn what_ran_with_values_of_a_person_is_known_by_that_when_it_is_asked_for_again() {
    on_both(Times::default(), |world| async move {
        let repository = Repository::new(&world).await;
        repository.commit(&[(
            ".trainyard.yml",
            "jobs:\n  prepare: {command: 'echo ${x}', parameters: {x: 1}}\n  \
             train: {command: python train.py, needs: [prepare]}\n",
        )]);
        let pushed = repository.look(&world).await;
        let given = async |pipeline: &Pipeline| {
            let mut given = Vec::new();
            for job in jobs_of(&world, pipeline).await {
                let mut db = world.server().store.read().await.unwrap();
                given.push(jobs::plan(&mut db, &job.id).await.unwrap().unwrap().given);
            }
            given
        };
        assert_eq!(given(&pushed).await, [false, false]);
        let agent = world.agent("a").await;
        for _ in 0..2 {
            agent.run(Outcome::Succeeded).await;
        }
        let values = serde_json::Map::from_iter([("x".to_owned(), 2.into())]);
        let (server, project) = (world.server(), &repository.project);
        let by_hand = watch::by_hand(server, project, None, vec!["train".into()], values, None);
        let by_hand = by_hand.await.unwrap();
        assert_eq!(given(&by_hand).await, [true, true]);
        for _ in 0..2 {
            agent.run(Outcome::Succeeded).await;
        }
        for (first, expected) in [(&pushed, false), (&by_hand, true)] {
            let train = jobs_of(&world, first).await.remove(1);
            for _ in 0..2 {
                let again = pipelines::rerun(server, &train.id, Some("ana"), Timestamp::now());
                let again = again.await.unwrap();
                assert_eq!(given(&again).await, [expected, expected]);
                agent.run(Outcome::Succeeded).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_untrusted_result_never_stands_for_a_trusted_job() {
    on_both(Times::default(), |world| async move {
        let (repository, job, _agent) = first(&world, Outcome::Succeeded).await;
        // The same result, as if it had come from a fork: in a project of its own.
        let mut tx = world.server().store.begin().await.unwrap();
        let fork = testing::project("fork");
        projects::insert(&mut tx, &fork).await.unwrap();
        let pipeline = testing::pipeline(&fork, 1);
        server::store::pipelines::insert(&mut tx, &pipeline)
            .await
            .unwrap();
        let untrusted = Job {
            id: JobId::generate(),
            pipeline: pipeline.id.clone(),
            project: fork.id.clone(),
            trust: Trust::Untrusted,
            ..world.job(&job.id).await
        };
        jobs::insert(&mut tx, &untrusted).await.unwrap();
        let plan = jobs::plan(&mut tx, &job.id).await.unwrap().unwrap();
        tx.commit().await.unwrap();

        for (trust, runs) in [(Trust::Trusted, true), (Trust::Untrusted, false)] {
            let planned = plan::PlannedJob {
                trust,
                ..plan.clone()
            };
            let mut trigger = testing::pipeline(&fork, 2 + u64::from(runs)).trigger;
            trigger.trust = trust;
            let words = pipelines::Words {
                subject: "Change".into(),
                author: "Ana".into(),
            };
            let planned = pipelines::Planned::Jobs(plan::Plan {
                jobs: vec![planned],
                ignored: Vec::new(),
                notes: Vec::new(),
                supersede_running: false,
            });
            let made = pipelines::create(world.server(), &fork.id, &trigger, &words, planned)
                .await
                .unwrap();
            let made = only_job(&world, &made).await;
            assert_eq!(made.state.outcome().is_none(), runs, "{trust:?}");
            if runs {
                pipelines::cancel_by_hand(world.server(), &made.id, "the test")
                    .await
                    .unwrap();
            }
        }
        drop(repository);
    })
    .await;
}

#[tokio::test]
async fn what_a_job_needs_decides_whether_it_runs() {
    on_both(Times::default(), |world| async move {
        let repository = Repository::new(&world).await;
        repository.commit(&[(
            ".trainyard.yml",
            "jobs:\n  prepare: {command: echo}\n  train: {command: python train.py, needs: [prepare]}\n",
        )]);
        let pipeline = repository.look(&world).await;
        let agent = world.agent("a").await;
        let words = || async {
            let all = jobs_of(&world, &pipeline).await;
            all.iter().map(|job| job.state.word()).collect::<Vec<_>>()
        };
        let order = agent.begin().await;
        assert_eq!(order.spec.definition, "prepare");
        assert_eq!(words().await, ["running", "blocked"]);
        agent
            .finish(&order, &crate::support::report(raised()))
            .await
            .unwrap();
        assert_eq!(words().await, ["failed", "skipped"]);
        let train = jobs_of(&world, &pipeline).await.remove(1);
        let Some(Outcome::Skipped { why }) = train.state.outcome() else {
            panic!("{:?}", train.state)
        };
        assert_eq!(why, "it needs 'prepare', which failed");

        let again = pipelines::rerun(world.server(), &train.id, None, Timestamp::now()).await.unwrap();
        let all = jobs_of(&world, &again).await;
        assert_eq!(all.len(), 2, "what it needs never succeeded");
        agent
            .poll(
                vec![crate::support::released(&order.attempt, order.generation)],
                protocol::Span(0),
            )
            .await;
        agent.run(Outcome::Succeeded).await;
        agent.run(Outcome::Succeeded).await;
        let ends: Vec<_> = jobs_of(&world, &again).await;
        assert!(ends.iter().all(|job| job.state.word() == "succeeded"));
    })
    .await;
}

#[tokio::test]
async fn a_wrong_pipeline_file_queues_nothing_and_says_where() {
    on_both(Times::default(), |world| async move {
        let repository = Repository::new(&world).await;
        repository.commit(&[(
            ".trainyard.yml",
            "jobs:\n  train:\n    comand: python train.py\n",
        )]);
        let pipeline = repository.look(&world).await;
        let problem = pipeline.problem.clone().unwrap();
        assert_eq!(problem.kind, FailureKind::PipelineFileWrong);
        assert!(problem.message.contains("command"), "{}", problem.message);
        assert!(jobs_of(&world, &pipeline).await.is_empty());
        std::fs::remove_file(repository.path.join(".trainyard.yml")).unwrap();
        repository.commit(&[]);
        let without = repository.look(&world).await;
        assert!(without.problem.is_none() && without.notes[0].contains("trainyard init"));

        // It is neither green nor red, and everywhere says what to do.
        let get = |path: String| {
            let url = format!("{}{path}", world.url);
            async move { reqwest::get(url).await.unwrap().text().await.unwrap() }
        };
        let list: Page<api::Pipeline> =
            serde_json::from_str(&get("/api/v1/pipelines".to_owned()).await).unwrap();
        let states: Vec<_> = list.items.iter().map(|item| item.state.as_str()).collect();
        assert_eq!(states, ["neutral", "failed"]);
        assert!(list.items[0].finished_at.is_some());
        for path in ["/".to_owned(), format!("/pipelines/{}", without.id)] {
            let page = get(path).await;
            assert!(page.contains(">neutral<"), "{page}");
            assert!(page.contains("trainyard init"), "{page}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_look_handles_the_deliveries_that_came_before_it() {
    on_both(Times::default(), |world| async move {
        let repository = Repository::new(&world).await;
        repository.look(&world).await;
        let now = Timestamp::now();
        let later = now + Span::hours(1);
        let mut tx = world.server().store.begin().await.unwrap();
        for (id, received_at) in [("one", now), ("two", later)] {
            let row = projects::Delivery {
                project: repository.project.id.clone(),
                delivery: id.to_owned(),
                event: "push".to_owned(),
                body: "{}".to_owned(),
                asks: false,
                comment: None,
                received_at,
            };
            assert!(projects::insert_delivery(&mut tx, &row).await.unwrap());
        }
        tx.commit().await.unwrap();
        // Nothing moved: the deliveries are looked after all the same.
        assert!(repository.look_all(&world).await.is_empty());
        let mut db = world.server().store.read().await.unwrap();
        let open = projects::unhandled_deliveries(&mut db, 9).await.unwrap();
        let ids: Vec<_> = open.iter().map(|open| open.delivery.as_str()).collect();
        assert_eq!(ids, ["two"], "the one of later is not seen yet");
        // A month later both are forgotten.
        let month = later + Span::hours(31 * 24);
        housekeeping::tick(world.server(), month).await.unwrap();
        let open = projects::unhandled_deliveries(&mut db, 9).await.unwrap();
        assert!(open.is_empty(), "{open:?}");
    })
    .await;
}
