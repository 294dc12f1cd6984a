//! Stories of agent, server, driver and network that fail while a job runs: nothing is lost, nothing is believed
//! twice, and each failure has its right owner.

use protocol::event::EventKind;
use protocol::job::State;
use protocol::{AttemptId, Event, FailureKind, JobId, Outcome, Owner};

use crate::support::api::said;
use crate::support::project::{GATE, ONE_NOTEBOOK, notebook};
use crate::support::{HOST, INNER, World, docker, until, whole};

/// A world with one job whose second cell waits, with the job in it.
async fn waiting() -> (World, JobId) {
    waiting_in(World::new().await).await
}

async fn waiting_in(world: World) -> (World, JobId) {
    let notebook = notebook(&["print('first')", GATE, "print('last')"]);
    let files = [(".trainyard.yml", ONE_NOTEBOOK), ("train.ipynb", &notebook)];
    world.project.commit(&files);
    world.watch(&[]);
    let job = world.waiting(&world.project.head(), 1).await;
    (world, job)
}

/// The job succeeds, after one attempt that executed each of its cells once.
async fn succeeds_at_once(world: &World, job: &JobId) -> Vec<Event> {
    let pipeline = world.finished(&world.project.head()).await;
    assert_eq!(pipeline.jobs.len(), 1);
    assert_eq!(
        pipeline.jobs[0].state.outcome(),
        Some(&Outcome::Succeeded),
        "{pipeline:#?}"
    );
    let attempts = world.api().job(job).await.attempts;
    assert_eq!(attempts.len(), 1, "{attempts:#?}");
    assert_eq!(
        attempts[0].report.as_ref().unwrap().outcome,
        Outcome::Succeeded
    );
    let events = world.api().events(job, None).await;
    whole(&events, &Outcome::Succeeded);
    events
}

fn started(events: &[Event]) -> Vec<u32> {
    let cell = |event: &Event| match event.body.known()? {
        EventKind::CellStarted { cell, .. } => Some(*cell),
        _ => None,
    };
    events.iter().filter_map(cell).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_and_server_are_killed_while_a_cell_runs_and_the_job_goes_on() {
    let (mut world, job) = waiting().await;
    world.kill_agent(HOST).await;
    world.start_agent(HOST);
    world.kill_server().await;
    world.start_server().await;
    // Both at once, and the cell goes on while nobody looks.
    world.kill_agent(HOST).await;
    world.kill_server().await;
    world.open_gate(HOST);
    world.start_server().await;
    world.start_agent(HOST);
    let events = succeeds_at_once(&world, &job).await;
    assert_eq!(started(&events), [0, 1, 2]);
    assert_eq!(said(&events), "first\nwaiting\nthrough\nlast\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_after_each_event_leaves_one_whole_story() {
    let mut world = World::new().await;
    let pipeline = format!("{ONE_NOTEBOOK}    artifacts: [left.txt]\n");
    let cells = [
        "print('one')",
        "open('left.txt', 'w').write('two')",
        "print('three')",
    ];
    let files = [
        (".trainyard.yml", &*pipeline),
        ("train.ipynb", &notebook(&cells)),
    ];
    world.project.commit(&files);
    world.watch(&[]);
    let id = world.pipeline(&world.project.head()).await.pipeline.id;
    let job = world.api().pipeline(&id).await.jobs.remove(0).id;
    let mut seen = 0;
    loop {
        let over = until("the story goes on", async || {
            let over = world
                .api()
                .pipeline(&id)
                .await
                .pipeline
                .finished_at
                .is_some();
            let events = world.api().events(&job, None).await.len();
            let more = events > seen;
            seen = events;
            (over || more).then_some(over)
        })
        .await;
        if over {
            break;
        }
        if seen % 2 == 0 {
            world.kill_server().await;
            world.start_server().await;
        } else {
            world.kill_agent(HOST).await;
            world.start_agent(HOST);
        }
    }
    let events = succeeds_at_once(&world, &job).await;
    assert_eq!(started(&events), [0, 1, 2]);
    assert_eq!(said(&events), "one\nthree\n");
    let attempt = world.api().job(&job).await.attempts.remove(0);
    assert_eq!(world.api().artifact(&attempt.id, "left.txt").await, b"two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_up_goes_on_where_it_was() {
    let notebook = notebook(&["print('first')", GATE, "print('last')"]);
    let files = [(".trainyard.yml", ONE_NOTEBOOK), ("train.ipynb", &notebook)];
    let mut world = World::up(&files).await;
    let job = world.waiting(&world.project.head(), 1).await;
    world.kill_server().await;
    world.open_gate(INNER);
    world.start_up().await;
    let events = succeeds_at_once(&world, &job).await;
    assert_eq!(said(&events), "first\nwaiting\nthrough\nlast\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_driver_is_the_platforms_failure_and_the_job_runs_again() {
    let (world, job) = waiting().await;
    let containers = world.containers(HOST);
    assert_eq!(containers.len(), 1);
    assert!(docker::kill_first_process(&containers[0]), "it runs");
    world.waiting(&world.project.head(), 2).await;
    world.open_gate(HOST);
    let pipeline = world.finished(&world.project.head()).await;
    assert_eq!(
        pipeline.jobs[0].state.outcome(),
        Some(&Outcome::Succeeded),
        "{pipeline:#?}"
    );

    let attempts = world.api().job(&job).await.attempts;
    assert_eq!(attempts.len(), 2);
    let first = attempts[0].report.as_ref().unwrap();
    let Outcome::Failed(failure) = &first.outcome else {
        panic!("its driver was killed: {first:?}")
    };
    assert_eq!(
        (failure.kind, failure.kind.owner()),
        (FailureKind::ExecutorFailed, Owner::Platform)
    );
    for attempt in &attempts {
        let events = world.api().events(&job, Some(&attempt.id)).await;
        whole(&events, &attempt.report.as_ref().unwrap().outcome);
        assert!(said(&events).starts_with("first\nwaiting\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_and_server_are_killed_while_a_file_is_uploaded() {
    const FILE: &str = "open('large.bin', 'wb').write(bytes(range(256)) * 80_000)";
    let pipeline = format!("{ONE_NOTEBOOK}    artifacts: [large.bin]\n");
    let mut world = World::new().await;
    let notebook = notebook(&[FILE]);
    world
        .project
        .commit(&[(".trainyard.yml", &pipeline), ("train.ipynb", &notebook)]);
    world.proxy.hold_request("PATCH /agent/v1/blobs/", 1);
    world.watch(&[]);
    held(&world, 1).await;
    world.kill_agent(HOST).await;
    world.proxy.release();
    world.proxy.hold_request("PATCH /agent/v1/blobs/", 0);
    world.start_agent(HOST);
    held(&world, 2).await;
    world.kill_server().await;
    world.proxy.release();
    world.start_server().await;

    let pipeline = world.finished(&world.project.head()).await;
    let job = &pipeline.jobs[0].id;
    let events = succeeds_at_once(&world, job).await;
    assert_eq!(started(&events), [0]);
    let attempt = world.api().job(job).await.attempts.remove(0);
    let bytes = world.api().artifact(&attempt.id, "large.bin").await;
    assert_eq!(bytes.len(), 256 * 80_000);
    assert!(
        bytes
            .chunks(256)
            .all(|chunk| chunk.iter().copied().eq(0..=255))
    );
}

async fn held(world: &World, times: u32) {
    until("an upload is held", async || {
        (world.proxy.met() == times).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_poll_starts_its_job_once() {
    let world = World::new().await;
    world.project.commit(&[
        (".trainyard.yml", ONE_NOTEBOOK),
        ("train.ipynb", &notebook(&["print('once')"])),
    ]);
    world.proxy.lose_answer("\"start\":[{");
    world.watch(&[]);
    let pipeline = world.finished(&world.project.head()).await;
    assert_eq!(world.proxy.met(), 1, "an answer was lost");
    let events = succeeds_at_once(&world, &pipeline.jobs[0].id).await;
    assert_eq!(said(&events), "once\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_get_lost_repeat_nothing() {
    let world = World::new().await;
    let notebook = notebook(&["print('once')"]);
    world
        .project
        .commit(&[(".trainyard.yml", ONE_NOTEBOOK), ("train.ipynb", &notebook)]);
    // Of events, twice; of a blob's last piece; of the report.
    let lost = ["\"next\":", "\"next\":", "HTTP/1.1 201", "\"accepted\":"];
    for words in lost {
        world.proxy.lose_answer(words);
    }
    world.watch(&[]);
    let pipeline = world.finished(&world.project.head()).await;
    let events = succeeds_at_once(&world, &pipeline.jobs[0].id).await;
    assert_eq!(said(&events), "once\n");
    // The report may be repeated after the pipeline's end.
    held(&world, lost.len() as u32).await;
}

/// A server that believes an agent to be lost after a few seconds.
async fn impatient() -> World {
    let settings = "poll_interval_local = \"100ms\"\npoll_hold = \"500ms\"\n\
        unreachable_after = \"2s\"\nlost_after = \"4s\"";
    World::with_settings(settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_agent_that_comes_back_before_its_job_was_replaced_keeps_it() {
    let (mut world, job) = waiting_in(impatient().await).await;
    world.kill_agent(HOST).await;
    until("the job waits for another host", async || {
        let state = world.api().job(&job).await.job.state;
        (state == State::Queued).then_some(())
    })
    .await;
    world.open_gate(HOST);
    world.start_agent(HOST);
    let pipeline = world.finished(&world.project.head()).await;
    assert_eq!(pipeline.jobs[0].state.outcome(), Some(&Outcome::Succeeded));
    let attempts = world.api().job(&job).await.attempts;
    assert_eq!(
        attempts[0].report.as_ref().unwrap().outcome,
        Outcome::Succeeded
    );
    let events = world.api().events(&job, Some(&attempts[0].id)).await;
    whole(&events, &Outcome::Succeeded);
    assert_eq!(said(&events), "first\nwaiting\nthrough\nlast\n");
    assert!(
        attempts[1..].iter().all(|attempt| attempt.report.is_none()),
        "{attempts:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_agent_that_comes_back_after_its_job_was_replaced_ends_it() {
    let (mut world, job) = waiting_in(impatient().await).await;
    world.kill_agent(HOST).await;
    world.add_agent("other");
    world.waiting(&world.project.head(), 2).await;
    assert_eq!(
        world.containers(HOST).len(),
        1,
        "it goes on, and nobody knows"
    );
    world.start_agent(HOST);
    until("what is not believed any more is ended", async || {
        world.containers(HOST).is_empty().then_some(())
    })
    .await;
    world.open_gate("other");
    let pipeline = world.finished(&world.project.head()).await;
    assert_eq!(pipeline.jobs[0].state.outcome(), Some(&Outcome::Succeeded));
    let attempts = world.api().job(&job).await.attempts;
    let agents: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt.agent.as_str())
        .collect();
    assert_eq!(agents, [HOST, "other"]);
    assert!(attempts[0].report.is_none(), "{:#?}", attempts[0]);
    let Some(Outcome::Failed(failure)) = &attempts[0].outcome else {
        panic!("its agent was lost: {:#?}", attempts[0])
    };
    assert_eq!(failure.kind, FailureKind::AgentLost);
    let events = world.api().events(&job, Some(&attempts[1].id)).await;
    whole(&events, &Outcome::Succeeded);
    let events = world.api().events(&job, Some(&attempts[0].id)).await;
    assert!(!said(&events).contains("through"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_a_cell_and_leaves_no_container() {
    let (world, job) = waiting().await;
    assert_eq!(world.containers(HOST).len(), 1);
    world.api().cancel(&job).await;
    let pipeline = world.finished(&world.project.head()).await;
    let Some(outcome @ Outcome::Cancelled { .. }) = pipeline.jobs[0].state.outcome() else {
        panic!("it was cancelled: {pipeline:#?}")
    };
    assert_eq!(pipeline.pipeline.state, "cancelled");
    let events = world.api().events(&job, None).await;
    whole(&events, outcome);
    assert!(!said(&events).contains("through"));
    until("its container is gone", async || {
        world.containers(HOST).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_made_for_a_killed_agent_after_the_next_one_looked_is_removed() {
    // An agent looks between two polls.
    let settings = "poll_interval_local = \"100ms\"\npoll_hold = \"500ms\"";
    let (world, job) = waiting_in(World::with_settings(settings).await).await;
    let gone = AttemptId::generate();
    world.add_container(HOST, &gone);
    until(
        "only the container of the job that runs is left",
        async || {
            let left = world.containers(HOST);
            let gone = docker::labelled(&format!("trainyard.attempt={gone}"));
            (left.len() == 1 && gone.is_empty()).then_some(())
        },
    )
    .await;
    world.open_gate(HOST);
    succeeds_at_once(&world, &job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_disk_somebody_else_filled_runs_again_when_there_is_room() {
    const COMMAND: &str = "echo waiting; until [ -e go ]; do sleep 0.05; done; head -c 3000000 /dev/zero > large; echo through";
    let settings = "poll_interval_local = \"100ms\"\nretry_delay = \"100ms\"";
    let mut world = World::bare(settings).await;
    world.add_disk(HOST);
    if world.disk(HOST).is_none() {
        eprintln!("not told: only root may mount a disk");
        return;
    }
    world.add_agent(HOST);
    let pipeline = format!("jobs:\n  write:\n    command: \"set -e; {COMMAND}\"\n");
    world.project.commit(&[(".trainyard.yml", &pipeline)]);
    world.watch(&[]);
    let job = world
        .pipeline(&world.project.head())
        .await
        .jobs
        .remove(0)
        .id;
    let waits = async |number| {
        until("the job waits", async || {
            let attempts = world.api().job(&job).await.attempts;
            let attempt = attempts.into_iter().find(|a| a.number == number)?;
            let events = world.api().events(&job, Some(&attempt.id)).await;
            logged(&events).contains("waiting").then_some(())
        })
        .await;
    };
    waits(1).await;
    world.disk(HOST).unwrap().fill();
    world.open_gate(HOST);
    // Its report needs room.
    until("the job has ended", async || {
        world.containers(HOST).is_empty().then_some(())
    })
    .await;
    world.disk(HOST).unwrap().free();
    waits(2).await;
    world.open_gate(HOST);
    let pipeline = world.finished(&world.project.head()).await;
    assert_eq!(pipeline.jobs[0].state.outcome(), Some(&Outcome::Succeeded));
    let attempts = world.api().job(&job).await.attempts;
    assert_eq!(attempts.len(), 2, "{attempts:#?}");
    let first = &attempts[0].report.as_ref().unwrap().outcome;
    let Outcome::Failed(failure) = first else {
        panic!("it could not write: {first:?}")
    };
    assert_eq!(failure.kind.owner(), Owner::Platform, "{failure:#?}");
    assert!(failure.message.contains("ran full"), "{failure:#?}");
    for attempt in &attempts {
        let events = world.api().events(&job, Some(&attempt.id)).await;
        whole(&events, &attempt.report.as_ref().unwrap().outcome);
    }
}

fn logged(events: &[Event]) -> String {
    let log = |event: &Event| match event.body.known()? {
        EventKind::Log { text, .. } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(log).collect()
}
