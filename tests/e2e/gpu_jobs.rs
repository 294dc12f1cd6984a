//! Stories of jobs that have GPUs: server, agent, driver and containers are the real ones, the GPUs are not there.

use protocol::job::State;
use protocol::{FailureKind, JobId, Outcome, Owner};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::said;
use crate::support::engine::Manner;
use crate::support::gpus::FakeGpus;
use crate::support::project::{GATE, notebook};
use crate::support::{HOST, World, docker, until, whole};

/// What the job sees of GPUs.
const LOOK: &str = "import glob\nprint(sorted(glob.glob('/dev/nvidia*')))";

/// Commits a notebook with these cells, which wants so many GPUs, to a project that is watched from now on.
fn commit(world: &World, gpus: u32, cells: &[&str]) -> String {
    let head = push(world, gpus, cells);
    world.watch(&[]);
    head
}

/// The same to a project that is watched.
fn push(world: &World, gpus: u32, cells: &[&str]) -> String {
    let pipeline = format!(
        "jobs:\n  train:\n    notebook: train.ipynb\n    retries: 0\n    resources: {{cpus: 0.5, memory: 512MiB, gpus: {gpus}}}\n"
    );
    let files = [
        (".trainyard.yml", &*pipeline),
        ("train.ipynb", &notebook(cells)),
    ];
    world.project.commit(&files)
}

/// The failure of a commit's only job.
async fn failure(world: &World, commit: &str) -> (JobId, protocol::Failure) {
    let job = world.finished(commit).await.jobs.remove(0);
    match job.state.outcome() {
        Some(Outcome::Failed(failure)) => (job.id, failure.clone()),
        other => panic!("it did not fail: {other:?}"),
    }
}

/// The GPUs of the fleet, as `trainyard gpus --fleet` shows them.
fn fleet(world: &World) -> Vec<Value> {
    serde_json::from_str(&world.shown(&["gpus", "--fleet", "--json"])).unwrap()
}

async fn state_of(world: &World, index: usize, state: &str) {
    until(state, async || {
        let found = fleet(world).get(index)?["state"].as_str()?.contains(state);
        found.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_its_gpus_and_no_other_and_gives_them_back() {
    let gpus = FakeGpus::of("shared");
    let mut world = World::with_gpus(&gpus, Some(Manner::Gives)).await;
    // One is a person's, on another a desktop runs: the one between is free.
    state_of(&world, 0, "in use outside Trainyard: pid 4194301").await;
    let head = commit(&world, 1, &[LOOK, GATE]);
    let job = world.waiting(&head, 1).await;
    let attempt = world.api().job(&job).await.attempts.remove(0).id;
    let shown = &fleet(&world)[1];
    assert_eq!(
        (&shown["state"], &shown["attempt"]),
        (&json!("booked"), &json!(attempt))
    );
    assert_eq!(shown["host"], HOST);
    let table = world.shown(&["gpus", "--fleet"]);
    assert!(table.starts_with(" host: driver "), "{table}");
    let row = table.lines().nth(3).unwrap().trim_end();
    let expected = " 1    NVIDIA H100 80GB HBM3    79.6 GiB  booked ";
    assert!(
        row.starts_with(expected) && row.ends_with(attempt.as_str()),
        "{table}"
    );
    // Its processes on the GPU are told from a person's by their container.
    let [container] = &world.containers(HOST)[..] else {
        panic!("one container runs");
    };
    let pid = docker::first_process(container).expect("it runs");
    gpus.change(|fleet| fleet["gpus"][1]["processes"] = json!([{"pid": pid, "memory": 512}]));
    let config = world.path("host.toml").display().to_string();
    let host = world.shown(&["gpus", "--json", "--config", &config]);
    let host: Value = serde_json::from_str(&host).unwrap();
    assert_eq!(host[1]["attempt"], json!(attempt));
    assert_eq!(host[1]["processes"][0]["attempt"], json!(attempt));
    assert_eq!(host[0]["processes"][0]["attempt"], Value::Null);
    // A restart of the agent changes nothing of it, even where the ledger lost its file: the container's label says
    // whose the GPU is, and the process on it is no stranger's.
    world.kill_agent(HOST).await;
    let booking = format!("host/bookings/{}.json", shown["uuid"].as_str().unwrap());
    std::fs::remove_file(world.path(&booking)).unwrap();
    world.start_agent(HOST);
    until("the booking is there again", async || {
        world.path(&booking).exists().then_some(())
    })
    .await;
    gpus.change(|fleet| fleet["gpus"][1]["processes"] = json!([]));
    world.open_gate(HOST);
    let pipeline = world.finished(&head).await;
    assert_eq!(pipeline.jobs[0].state.outcome(), Some(&Outcome::Succeeded));
    let events = world.api().events(&job, None).await;
    whole(&events, &Outcome::Succeeded);
    assert_eq!(said(&events), "['/dev/nvidia1']\nwaiting\nthrough\n");
    let report = world
        .api()
        .job(&job)
        .await
        .attempts
        .remove(0)
        .report
        .unwrap();
    assert_eq!(report.setting.gpus[0].model, "NVIDIA H100 80GB HBM3");
    state_of(&world, 1, "free").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_gives_no_gpus_is_found_out_before_any_is_offered() {
    let none = "the container has no GPU, and was to have /dev/nvidia0:";
    for (manner, whys) in [
        (Some(Manner::Forgets), [none; 2]),
        (Some(Manner::GivesNone), [none; 2]),
        (
            Some(Manner::GivesAll),
            ["has /dev/nvidia0, /dev/nvidia1, /dev/nvidia2, /dev/nvidia3, "; 2],
        ),
        // The real one has no driver for them, or a hook that gives nothing.
        (None, ["could not select device driver", none]),
    ] {
        let gpus = FakeGpus::of("eight-h100");
        let world = World::with_gpus(&gpus, manner).await;
        let words = "quarantined: the container engine does not give it to a container: ";
        state_of(&world, 7, words).await;
        let state = fleet(&world)[7]["state"].to_string();
        let said_why = whys.iter().any(|why| state.contains(why));
        assert!(said_why, "{manner:?}: {state}");
        // The host's own words are the same, and jobs without GPUs run.
        let config = world.path("host.toml").display().to_string();
        let shown = world.ok(&["gpus", "--config", &config]);
        assert!(shown.contains(words), "{shown}");
        let head = commit(&world, 0, &["print('it runs')"]);
        let pipeline = world.finished(&head).await;
        assert_eq!(pipeline.jobs[0].state.outcome(), Some(&Outcome::Succeeded));
        // One that was mended is found well.
        if let Some(engine) = &world.engine {
            engine.change(Manner::Gives);
            state_of(&world, 7, "free").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_does_not_do_as_asked_any_more_starts_nothing() {
    let gpus = FakeGpus::of("eight-h100");
    let world = World::with_gpus(&gpus, Some(Manner::Gives)).await;
    state_of(&world, 7, "free").await;
    let engine = world.engine.as_ref().unwrap();
    world.project.commit(&[("README.md", "GPUs")]);
    world.watch(&[]);
    for (manner, why) in [
        (Manner::Forgets, "and gives {}"),
        (
            Manner::GivesNone,
            "the container has no GPU, and was to have /dev/nvidia0:",
        ),
    ] {
        engine.change(manner);
        let head = push(&world, 1, &[&format!("print('{manner:?}')")]);
        let (job, failure) = failure(&world, &head).await;
        assert_eq!(failure.kind, FailureKind::ExecutorFailed, "{failure:?}");
        assert!(failure.message.contains(why), "{}", failure.message);
        assert_eq!(said(&world.api().events(&job, None).await), "");
    }
    // After three in a row the agent tries for itself.
    engine.change(Manner::GivesAll);
    let head = push(&world, 1, &["print('the third')"]);
    let (_, failure) = failure(&world, &head).await;
    let why = "has /dev/nvidia0, /dev/nvidia1, /dev/nvidia2, /dev/nvidia3, ";
    assert!(failure.message.contains(why), "{}", failure.message);
    state_of(&world, 0, "the container engine does not give it").await;
    engine.change(Manner::Gives);
    state_of(&world, 0, "free").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_engine_starts_nothing_is_closed_until_it_does() {
    let gpus = FakeGpus::of("one");
    let world = World::with_gpus(&gpus, Some(Manner::Gives)).await;
    state_of(&world, 0, "free").await;
    let engine = world.engine.as_ref().unwrap();
    engine.change(Manner::StartsNothing);
    let pipeline = "jobs:\n  train:\n    notebook: train.ipynb\n    retries: 2\n    resources: {cpus: 0.5, memory: 512MiB}\n";
    let files = [
        (".trainyard.yml", pipeline),
        ("train.ipynb", &notebook(&["print('it ran')"])),
    ];
    world.project.commit(&files);
    world.watch(&[]);
    let (_, failure) = failure(&world, &world.project.head()).await;
    assert_eq!(failure.kind, FailureKind::ExecutorFailed, "{failure:?}");
    let words =
        "the container engine starts nothing, neither jobs nor a container of the agent's own";
    until("the host is closed", async || {
        let shown = world.shown(&["agents"]);
        (shown.contains(words) && shown.contains("no space left on device")).then_some(())
    })
    .await;
    engine.change(Manner::Gives);
    let files = [("train.ipynb", &*notebook(&["print('it runs again')"]))];
    world.project.commit(&files);
    let pipeline = world.finished(&world.project.head()).await;
    assert_eq!(pipeline.jobs[0].state.outcome(), Some(&Outcome::Succeeded));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_is_given_by_its_own_files() {
    let gpus = FakeGpus::of("mig");
    gpus.change(|fleet| {
        fleet["gpus"].as_array_mut().unwrap().truncate(1);
        let slots = fleet["gpus"][0]["mig"].as_array_mut().unwrap();
        slots
            .iter_mut()
            .skip(1)
            .for_each(|slot| *slot = Value::Null);
    });
    let world = World::with_gpus(&gpus, Some(Manner::Gives)).await;
    let look = "import glob\nprint(sorted(glob.glob('/dev/nvidia*/*')))";
    let pipeline = "jobs:\n  train:\n    notebook: train.ipynb\n    resources: {cpus: 0.5, memory: 512MiB, gpus: 1, mig: 3g.40gb}\n";
    let files = [
        (".trainyard.yml", pipeline),
        ("train.ipynb", &notebook(&[LOOK, look])),
    ];
    world.project.commit(&files);
    world.watch(&[]);
    let job = world.finished(&world.project.head()).await.jobs.remove(0);
    assert_eq!(job.state.outcome(), Some(&Outcome::Succeeded));
    assert_eq!(
        said(&world.api().events(&job.id, None).await),
        "['/dev/nvidia-caps', '/dev/nvidia0']\n['/dev/nvidia-caps/nvidia-cap10', '/dev/nvidia-caps/nvidia-cap11']\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_breaks_under_a_job_is_the_platforms_fault() {
    let gpus = FakeGpus::of("one");
    let world = World::with_gpus(&gpus, Some(Manner::Gives)).await;
    let head = commit(
        &world,
        1,
        &[
            GATE,
            "raise RuntimeError('CUDA error: unspecified launch failure')",
        ],
    );
    world.waiting(&head, 1).await;
    gpus.change(|fleet| fleet["gpus"][0]["xids"] = json!([79]));
    state_of(&world, 0, "quarantined: XID 79").await;
    world.open_gate(HOST);
    let (_, failure) = failure(&world, &head).await;
    assert_eq!(
        (failure.kind, failure.kind.owner()),
        (FailureKind::GpuLost, Owner::Platform)
    );
    for part in ["XID 79", "The job ended with: ", "CUDA error"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    // It is nobody's until somebody says that it is well.
    let config = world.path("host.toml").display().to_string();
    let said = world.shown(&["gpus", "clear", "0", "--config", &config]);
    assert!(said.contains("is in quarantine no more"), "{said}");
    state_of(&world, 0, "free").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_stays_dirty_is_quarantined_until_it_is_clean() {
    let gpus = FakeGpus::of("one");
    let world = World::with_gpus(&gpus, Some(Manner::Gives)).await;
    let head = commit(&world, 1, &[GATE]);
    world.waiting(&head, 1).await;
    gpus.change(|fleet| fleet["gpus"][0]["used"] = json!(20_480));
    world.open_gate(HOST);
    let pipeline = world.finished(&head).await;
    assert_eq!(pipeline.jobs[0].state.outcome(), Some(&Outcome::Succeeded));
    state_of(&world, 0, "quarantined: 20 GiB of its memory stay in use").await;
    gpus.change(|fleet| fleet["gpus"][0]["used"] = json!(2));
    state_of(&world, 0, "free").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_driver_hangs_goes_on_without_gpus_until_it_answers() {
    let gpus = FakeGpus::of("one");
    gpus.change(|fleet| fleet["hangs"] = json!(true));
    let world = World::with_gpus(&gpus, Some(Manner::Gives)).await;
    let config = world.path("host.toml").display().to_string();
    let shown = world.ok(&["gpus", "--config", &config]);
    let words = "no GPUs: the NVIDIA driver has not answered within 2.0s";
    assert!(shown.starts_with(words), "{shown}");
    let head = commit(&world, 0, &["print('it runs')"]);
    let pipeline = world.finished(&head).await;
    assert_eq!(pipeline.jobs[0].state.outcome(), Some(&Outcome::Succeeded));
    assert!(fleet(&world).is_empty());
    gpus.change(|fleet| fleet["hangs"] = json!(false));
    state_of(&world, 0, "free").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_is_lent_to_a_person_while_the_agent_runs() {
    let gpus = FakeGpus::of("one");
    let world = World::with_gpus(&gpus, Some(Manner::Gives)).await;
    let config = world.path("host.toml").display().to_string();
    state_of(&world, 0, "free").await;
    world.shown(&[
        "gpus", "reserve", "0", "--for", "ada", "--until", "8h", "--config", &config,
    ]);
    state_of(&world, 0, "reserved for ada").await;
    let head = commit(&world, 1, &[LOOK]);
    until("the job waits for the GPU", async || {
        let job = world.pipeline(&head).await.jobs.remove(0);
        assert!(matches!(job.state, State::Queued), "{:?}", job.state);
        job.reason
    })
    .await;
    world.shown(&["gpus", "release", "0", "--config", &config]);
    let pipeline = world.finished(&head).await;
    assert_eq!(pipeline.jobs[0].state.outcome(), Some(&Outcome::Succeeded));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_leaves_its_gpu_idle_is_ended_as_it_asked_and_counts_all_the_same() {
    let gpus = FakeGpus::of("one");
    let world = World::with_gpus(&gpus, Some(Manner::Gives)).await;
    gpus.change(|fleet| fleet["gpus"][0]["utilization"] = json!(64));
    let pipeline = "jobs:\n  train:\n    notebook: train.ipynb\n    gpu_idle_timeout: 1s\n    \
        resources: {cpus: 0.5, memory: 512MiB, gpus: 1}\n";
    let files = [
        (".trainyard.yml", pipeline),
        ("train.ipynb", &notebook(&[GATE])),
    ];
    world.project.commit(&files);
    world.watch(&[]);
    let head = world.project.head();
    let job = world.waiting(&head, 1).await;
    let path = format!("jobs/{job}");
    let page = async || {
        let answer = world.api().request(Method::GET, &path).send().await;
        answer.unwrap().text().await.unwrap()
    };
    until("the page says what the job uses", async || {
        page().await.contains("GPU 64 % and 2 MiB").then_some(())
    })
    .await;
    gpus.change(|fleet| fleet["gpus"][0]["utilization"] = json!(1));
    let (_, failure) = failure(&world, &head).await;
    assert_eq!(
        (failure.kind, failure.kind.owner()),
        (FailureKind::GpuIdle, Owner::Limit)
    );
    let words = "the job's GPU stayed under 5 % of use for 1.0s";
    assert!(failure.message.starts_with(words), "{}", failure.message);
    let page = page().await;
    for part in ["Ended by a limit", "GPU used", "peak 64 %"] {
        assert!(page.contains(part), "no '{part}' in {page}");
    }
    let logs = world.shown(&["logs", &job.to_string()]);
    assert!(
        logs.contains("GPU used") && logs.contains("peak 64 %"),
        "{logs}"
    );
    let usage = world.shown(&["usage", "--since", "1d", "--by", "branch", "--json"]);
    let usage: Value = serde_json::from_str(&usage).unwrap();
    let row = &usage["items"][0];
    assert_eq!(
        (&row["project"], &row["name"], &row["jobs"]),
        (&json!("story"), &json!("main"), &json!(1))
    );
    assert!(row["gpu_hours"].as_f64().unwrap() > 0.0, "{row}");
    let table = world.shown(&["usage"]);
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["PROJECT", "GPU-HOURS", "CPU-HOURS", "JOBS"]);
    assert_eq!((lines[1][0], lines[1][3]), ("story", "1"));
}
