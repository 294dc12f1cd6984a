//! Stories of what waits: why, for how long, and what is refused at once.

use std::collections::BTreeMap;

use plan::{Plan, PlannedJob};
use protocol::api::Quota;
use protocol::fit::{FitQuestion, Needs};
use protocol::hardware::{Gpu, GpuDriver, GpuHealth, GpuKind, VolumeGrant};
use protocol::job::State;
use protocol::spec::Concurrency;
use protocol::{ByteSize, CommitId, Outcome, Span, Timestamp, TriggerKind, Trust};
use server::pipelines::{self, Planned, Words};
use server::store::jobs::Job;
use server::store::projects::{self, Project};
use server::store::{jobs, queue, testing};

use crate::support::{Agent, Times, World, on_both, report, running};

/// A host with so many A100 of 80 GB.
async fn gpu_host(world: &World, name: &str, gpus: u32) -> Agent {
    let mut agent = world.agent(name).await;
    agent.inventory.driver = Some(GpuDriver {
        version: "570.86.15".into(),
        cuda: "12.8".into(),
    });
    agent.inventory.gpus = (0..gpus)
        .map(|index| Gpu {
            uuid: format!("GPU-{name}-{index}"),
            index,
            model: "NVIDIA A100-SXM4-80GB".into(),
            memory: ByteSize::mib(81_920),
            compute_capability: "8.0".into(),
            kind: GpuKind::Whole,
            pci: None,
            numa_node: None,
            nvlink_group: None,
            health: GpuHealth::Healthy,
        })
        .collect();
    agent.tell().await;
    agent
}

async fn project(world: &World, name: &str) -> Project {
    let project = testing::project(name);
    let mut tx = world.server().store.begin().await.unwrap();
    projects::insert(&mut tx, &project).await.unwrap();
    tx.commit().await.unwrap();
    project
}

fn planned(name: &str, change: impl FnOnce(&mut protocol::JobSpec)) -> PlannedJob {
    let pipeline = testing::pipeline(&testing::project("any"), 1);
    let mut spec = testing::job(&pipeline, name).spec;
    spec.reuse = false;
    change(&mut spec);
    PlannedJob {
        key: protocol::Digest::of(name),
        spec,
        key_parts: Vec::new(),
        fingerprint: None,
        deps: Vec::new(),
        volumes: BTreeMap::new(),
        lock: None,
        pipeline_file: None,
        trust: Trust::Trusted,
        unversioned: Vec::new(),
        given: false,
    }
}

/// The jobs of a new pipeline at a commit made of `number`, `train` before `test`.
async fn create(
    world: &World,
    project: &Project,
    number: u64,
    kind: TriggerKind,
    plan: Vec<PlannedJob>,
    supersede_running: bool,
) -> Vec<Job> {
    let mut trigger = testing::pipeline(project, number).trigger;
    trigger.kind = kind;
    let commit: CommitId = format!("{number:040x}").parse().unwrap();
    trigger.commit = commit;
    let plan = Planned::Jobs(Plan {
        jobs: plan,
        ignored: Vec::new(),
        notes: Vec::new(),
        supersede_running,
    });
    let words = Words {
        subject: "Change".into(),
        author: "Ana".into(),
    };
    let made = pipelines::create(world.server(), &project.id, &trigger, &words, plan)
        .await
        .unwrap();
    let mut db = world.server().store.read().await.unwrap();
    let mut jobs = jobs::of_pipeline(&mut db, &made.id).await.unwrap();
    jobs.sort_by(|a, b| b.spec.name.cmp(&a.spec.name));
    jobs
}

async fn reason(world: &World, job: &Job, words: &str) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let reason = world.job(&job.id).await.reason.unwrap_or_default();
        if reason.contains(words) {
            return;
        }
        assert!(
            std::time::Instant::now() < until,
            "'{reason}' is not '{words}'"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_driver_at_fault_makes_no_job_impossible() {
    on_both(Times::default(), |world| async move {
        let digits = project(&world, "digits").await;
        let wants = || {
            vec![planned("train", |spec| {
                spec.resources.gpus = 2;
                spec.resources.cuda = Some(">=12.4".parse().unwrap());
            })]
        };
        let mut agent = gpu_host(&world, "gpu-1", 2).await;
        let gpus = agent.inventory.gpus.clone();
        // After an upgrade of the driver NVML does not answer; then it shows one GPU, and the other as lost.
        let driver = agent.inventory.driver.take();
        agent.inventory.gpus.clear();
        agent.tell().await;
        let waits = create(&world, &digits, 1, TriggerKind::Push, wants(), false).await;
        assert_eq!(waits[0].state, State::Queued);
        agent.inventory.driver = driver;
        agent.inventory.gpus = gpus.clone();
        agent.inventory.gpus[1].uuid = "unknown-1".into();
        agent.inventory.gpus[1].memory = ByteSize(0);
        agent.inventory.gpus[1].health = GpuHealth::Lost {
            error: "GPU is lost".into(),
        };
        agent.tell().await;
        let waits = create(&world, &digits, 2, TriggerKind::Push, wants(), false).await;
        assert_eq!(waits[0].state, State::Queued);
        // Somebody took it out.
        agent.inventory.gpus.truncate(1);
        agent.tell().await;
        let made = create(&world, &digits, 3, TriggerKind::Push, wants(), false).await;
        assert!(matches!(made[0].state.outcome(), Some(Outcome::Failed(_))));
    })
    .await;
}

#[tokio::test]
async fn a_request_that_no_host_could_ever_fulfil_fails_at_once_and_takes_what_needs_it_along() {
    on_both(Times::default(), |world| async move {
        let digits = project(&world, "digits").await;
        let wants = |n: u64| {
            let train = planned("train", |spec| {
                spec.resources.gpus = 4;
                spec.resources.gpu_models = vec!["A100".parse().unwrap()];
            });
            let test = planned("test", |spec| spec.needs = vec!["train".into()]);
            (n, vec![train, test])
        };
        let (n, plan) = wants(1);
        let waits = create(&world, &digits, n, TriggerKind::Push, plan, false).await;
        assert_eq!(
            waits[0].state,
            State::Queued,
            "no agent is registered: nobody knows yet"
        );

        let _agent = gpu_host(&world, "gpu-1", 2).await;
        let (n, plan) = wants(2);
        let made = create(&world, &digits, n, TriggerKind::Push, plan, false).await;
        let Some(Outcome::Failed(failure)) = made[0].state.outcome() else {
            panic!("{:?}", made[0].state)
        };
        assert_eq!(failure.owner(), protocol::Owner::User);
        let words = "needs 4 GPUs (A100) on one host; the nearest, gpu-1, has 2";
        assert_eq!(failure.message, words);
        assert!(matches!(
            made[1].state.outcome(),
            Some(Outcome::Skipped { .. })
        ));
    })
    .await;
}

#[tokio::test]
async fn a_job_that_waits_says_for_what_and_until_when() {
    on_both(Times::default(), |world| async move {
        let digits = project(&world, "digits").await;
        let agent = gpu_host(&world, "gpu-1", 1).await;
        let train = || {
            vec![planned("train", |spec| {
                spec.resources.gpus = 1;
                spec.limits.timeout = Span::hours(2);
            })]
        };
        let mut tags = (1..).map(|n| (n, TriggerKind::PullRequest { number: n }));
        let mut next = || tags.next().unwrap();
        let (n, kind) = next();
        create(&world, &digits, n, kind, train(), false).await;
        let order = agent.begin().await;
        assert_eq!(order.gpus, ["GPU-gpu-1-0"]);
        let (n, kind) = next();
        let second = create(&world, &digits, n + 100, kind, train(), false).await;
        reason(
            &world,
            &second[0],
            "needs 1 GPU, 1 CPU and 2 GiB; gpu-1 has 0 of 1 such GPUs",
        )
        .await;
        reason(&world, &second[0], "; it starts about ").await;

        let quota = Quota {
            gpus: Some(0),
            gpu_hours: None,
        };
        server::project::set_quota(world.server(), &digits, quota, "the test")
            .await
            .unwrap();
        reason(
            &world,
            &second[0],
            "needs 1 GPU, and the quota of digits is 0 at once",
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_gpu_that_is_lent_is_told_whom_it_was_lent_to() {
    on_both(Times::default(), |world| async move {
        let digits = project(&world, "digits").await;
        let mut agent = gpu_host(&world, "gpu-1", 1).await;
        agent.inventory.gpus[0].health = GpuHealth::Reserved {
            by: "ada".into(),
            until: Timestamp::now() + Span::hours(2),
        };
        agent.tell().await;
        let train = vec![planned("train", |spec| spec.resources.gpus = 1)];
        let job = create(&world, &digits, 1, TriggerKind::Push, train, false).await;
        reason(&world, &job[0], "gpu-1 has 0 of 1 such GPUs").await;
        reason(&world, &job[0], " free (1 reserved by ada until ").await;
        reason(&world, &job[0], " UTC); it starts about ").await;
        agent.inventory.gpus[0].health = GpuHealth::Healthy;
        agent.tell().await;
        assert_eq!(agent.begin().await.job, job[0].id);
    })
    .await;
}

#[tokio::test]
async fn a_job_waits_for_room_on_a_disk_that_others_fill() {
    on_both(Times::default(), |world| async move {
        let digits = project(&world, "digits").await;
        let mut agent = gpu_host(&world, "gpu-1", 1).await;
        agent.inventory.disk_room = Some(ByteSize::gib(30));
        agent.tell().await;
        let wants = |spec: &mut protocol::JobSpec| spec.resources.disk = Some(ByteSize::gib(300));
        let train = vec![planned("train", wants)];
        let job = create(&world, &digits, 1, TriggerKind::Push, train, false).await;
        reason(&world, &job[0], "300 GiB of disk; gpu-1 has ").await;
        reason(&world, &job[0], ", 30 GiB of disk free").await;
        agent.inventory.disk_room = Some(ByteSize::gib(400));
        agent.tell().await;
        assert_eq!(agent.begin().await.job, job[0].id);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_yet_can_be_asked_for() {
    on_both(Times::default(), |world| async move {
        let needs = |change: &dyn Fn(&mut Needs)| {
            let mut needs = Needs::of(&planned("train", |_| ()).spec);
            change(&mut needs);
            needs
        };
        let mut question = FitQuestion {
            repositories: vec!["/elsewhere".into()],
            jobs: vec![
                needs(&|_| ()),
                needs(&|of| of.resources.gpus = 4),
                needs(&|of| of.volumes = vec!["imagenet".into()]),
                needs(&|of| of.resources.gpus = 1),
            ],
        };
        let ask = async |question: &FitQuestion| {
            let mut db = world.server().store.read().await.unwrap();
            let answer = server::offers::asked(&mut db, question).await.unwrap();
            let words = |refusal: Option<protocol::Failure>| refusal.map(|failure| failure.message);
            let said: Vec<_> = answer.refusals.into_iter().map(words).collect();
            (answer.hosts, answer.project, said)
        };
        let nobody_knows = ask(&question).await;
        assert_eq!(nobody_knows, (0, None, vec![None; 4]));

        let mut agent = gpu_host(&world, "gpu-1", 2).await;
        agent.inventory.volumes = BTreeMap::from([("imagenet".to_owned(), None)]);
        let grant = VolumeGrant {
            public: false,
            projects: Some(vec!["digits".into()]),
        };
        agent.inventory.volume_grants = BTreeMap::from([("imagenet".to_owned(), grant)]);
        agent.tell().await;
        let four = Some("needs 4 GPUs on one host; the nearest, gpu-1, has 2".to_owned());
        let (hosts, project_name, said) = ask(&question).await;
        assert_eq!((hosts, project_name), (1, None));
        assert_eq!(said[0], None);
        assert_eq!(said[1], four);
        assert!(
            said[2]
                .as_ref()
                .unwrap()
                .contains("is not for this project")
        );

        let digits = project(&world, "digits").await;
        let quota = Quota {
            gpus: Some(0),
            gpu_hours: None,
        };
        server::project::set_quota(world.server(), &digits, quota, "the test")
            .await
            .unwrap();
        question.repositories.push(digits.url.clone());
        let (_, project_name, said) = ask(&question).await;
        assert_eq!(project_name.as_deref(), Some("digits"));
        assert_eq!((&said[0], &said[2]), (&None, &None));
        let over = "needs 1 GPU at once, and the quota of digits is 0";
        assert_eq!(said[3].as_deref(), Some(over));
    })
    .await;
}

#[tokio::test]
async fn of_a_group_one_runs_at_a_time_and_the_newest_may_win() {
    on_both(Times::default(), |world| async move {
        let digits = project(&world, "digits").await;
        let deploy = |newest| {
            vec![planned("deploy", |spec| {
                spec.turn.concurrency = Some(Concurrency {
                    group: "production".into(),
                    cancel_queued: newest,
                });
            })]
        };
        let agent = world.agent("a").await;
        // By hand: a newer commit of a branch supersedes the older ones anyway.
        let job = |n: u64, newest| {
            let (world, digits) = (&world, &digits);
            async move {
                let kind = TriggerKind::Person {
                    definitions: vec![n.to_string()],
                    parameters: Default::default(),
                };
                create(world, digits, n, kind, deploy(newest), false)
                    .await
                    .remove(0)
            }
        };
        let first = job(1, false).await;
        let order = agent.begin().await;
        assert_eq!(order.job, first.id);
        let second = job(2, false).await;
        let words =
            "of the concurrency group 'production' one job runs at a time: it waits for deploy";
        reason(&world, &second, words).await;
        reason(&world, &second, "; it starts about ").await;
        let third = job(3, true).await;
        assert_eq!(world.word(&second.id).await, "cancelled");
        assert_eq!(world.word(&first.id).await, "running");
        agent
            .finish(&order, &report(Outcome::Succeeded))
            .await
            .unwrap();
        assert_eq!(agent.begin().await.job, third.id);
    })
    .await;
}

#[tokio::test]
async fn a_newer_commit_ends_what_runs_of_its_pull_request_only_where_the_file_says_so() {
    on_both(Times::default(), |world| async move {
        let digits = project(&world, "digits").await;
        let agent = world.agent("a").await;
        let pull = || TriggerKind::PullRequest { number: 7 };
        let train = || vec![planned("train", |_| ())];
        let first = create(&world, &digits, 1, pull(), train(), true)
            .await
            .remove(0);
        let order = agent.begin().await;
        assert_eq!(order.job, first.id);
        create(&world, &digits, 2, pull(), train(), false).await;
        assert_eq!(world.word(&first.id).await, "running");
        create(&world, &digits, 3, TriggerKind::Push, train(), true).await;
        assert_eq!(
            world.word(&first.id).await,
            "running",
            "a push is no pull request"
        );
        create(&world, &digits, 4, pull(), train(), true).await;
        let answer = agent.poll(vec![running(&order)], Span::secs(5)).await;
        assert_eq!(answer.stop[0].attempt, order.attempt);
        assert_eq!(answer.stop[0].by, pipelines::SUPERSEDED);
    })
    .await;
}

#[tokio::test]
async fn history_says_how_long_a_job_takes_and_what_a_project_used() {
    on_both(Times::default(), |world| async move {
        let agent = gpu_host(&world, "gpu-1", 2).await;
        let digits = project(&world, "digits").await;
        let train = vec![planned("train", |spec| spec.resources.gpus = 2)];
        let job = create(&world, &digits, 1, TriggerKind::Push, train, false)
            .await
            .remove(0);
        let order = agent.begin().await;
        let report = report(Outcome::Succeeded);
        agent.finish(&order, &report).await.unwrap();
        let took = report.finished_at.since(report.started_at);
        let mut db = world.server().store.read().await.unwrap();
        let usual = queue::usual(&mut db, &digits.id, "train").await.unwrap();
        assert_eq!(usual, Some(took));
        assert_eq!(
            queue::usual(&mut db, &digits.id, "other").await.unwrap(),
            None
        );
        let used = queue::used(&mut db, report.started_at).await.unwrap();
        assert_eq!((used.len(), used[0].gpu_ms), (1, 2 * took.0));
        // Only what lies after it counts.
        let half = report.started_at + Span(took.0 / 2);
        let used = queue::used(&mut db, half).await.unwrap();
        assert_eq!(used[0].gpu_ms, 2 * report.finished_at.since(half).0);
        assert!(used[0].gpu_ms < 2 * took.0);
        let warm = queue::warm(&mut db, report.finished_at).await.unwrap();
        assert_eq!(warm.len(), 1, "{warm:?}");
        assert_eq!(world.word(&job.id).await, "succeeded");
    })
    .await;
}

#[tokio::test]
async fn volumes_have_the_version_that_all_agents_declare() {
    on_both(Times::default(), |world| async move {
        for (name, version) in [("a", "2012"), ("b", "2013")] {
            let mut agent = world.agent(name).await;
            let volumes = [
                ("imagenet", Some(version)),
                ("same", Some("1")),
                ("none", None),
            ];
            agent.inventory.volumes = volumes
                .map(|(name, version)| (name.to_owned(), version.map(str::to_owned)))
                .into();
            agent.inventory.volume_grants =
                BTreeMap::from([("same".to_owned(), VolumeGrant::default())]);
            agent.tell().await;
        }
        let mut db = world.server().store.read().await.unwrap();
        let volumes = server::offers::volumes(&mut db).await.unwrap();
        let version = |name: &str| volumes[name].as_deref();
        assert_eq!(
            (version("imagenet"), version("same"), version("none")),
            (None, Some("1"), None)
        );
    })
    .await;
}
