//! What jobs use, measured: CPUs and memory by the host, GPUs by the fake library through the real wrapper.

use agent::attempt::{self, Control};
use agent::journal::Journal;
use protocol::agent_api::AttemptOrder;
use protocol::event::{EventKind, Sample};
use protocol::hardware::GpuKind;
use protocol::outcome::LimitReached;
use protocol::{ByteSize, FailureKind, Owner, Span};
use serde_json::json;

use crate::fake_gpus::FakeGpus;
use crate::support::{Done, World, engine, events, text, until};

/// A host with these GPUs that looks often, without containers: the fake library is all that it has of them.
fn host(gpus: &FakeGpus) -> World {
    World::with(|config| {
        config.executors.docker = false;
        config.executors.shell = true;
        config.gpus.library = gpus.library();
        config.gpus.idle_warning = Span(400);
        config.timing.sample = Span(100);
    })
}

/// Gives the order all GPUs of its host; of one in MIG mode the slices.
fn give(world: &World, order: &mut AttemptOrder) {
    let readings = world.host.hardware.gpus();
    let gpus = readings.iter().map(|reading| &reading.gpu);
    let bookable = gpus.filter(|gpu| gpu.kind != GpuKind::Sliced);
    order.gpus = bookable.map(|gpu| gpu.uuid.clone()).collect();
    let given = world.dir(order).give_gpus(&order.gpus, &readings);
    given.unwrap();
}

fn use_of(gpus: &FakeGpus, index: usize, utilization: u32, used: u32) {
    gpus.change(|fleet| {
        fleet["gpus"][index]["utilization"] = json!(utilization);
        fleet["gpus"][index]["used"] = json!(used);
    });
}

fn samples(events: &[EventKind]) -> Vec<Sample> {
    let sample = |event: &EventKind| match event {
        EventKind::Sample(sample) => Some(sample.clone()),
        _ => None,
    };
    events.iter().filter_map(sample).collect()
}

fn warnings(done: &Done) -> Vec<String> {
    let warning = |event: EventKind| match event {
        EventKind::Log { text, .. } if text.starts_with("warning: ") => Some(text),
        _ => None,
    };
    done.events().into_iter().filter_map(warning).collect()
}

/// A program that keeps one CPU and 200 MiB busy until the file `go` is there.
const BUSY: &str = "import os\nkept = bytearray(200 << 20)\nprint('busy', flush=True)\n\
    while not os.path.exists('go'): sum(range(10_000))\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_job_is_measured_with_all_that_came_from_it() {
    let fleet = FakeGpus::of("one");
    let world = host(&fleet);
    use_of(&fleet, 0, 87, 20_000);
    // The shell's child is what uses something.
    let mut order = world.python(BUSY);
    give(&world, &mut order);
    let dir = world.dir(&order);
    let journal = Journal::open(&dir.journal()).unwrap();
    let run = attempt::run(&world.host, dir.clone(), &journal, Control::new());
    let story = async {
        let busy = |sample: &Sample| sample.cpu_millis > 300 && sample.memory > ByteSize::mib(200);
        until("a sample of the busy program", || {
            samples(&events(&journal)).iter().any(busy)
        })
        .await;
        std::fs::write(dir.workspace().join("go"), "").unwrap();
    };
    let (report, ()) = tokio::join!(run, story);
    assert!(report.outcome.is_success(), "{:?}", report.outcome);
    let last = samples(&events(&journal)).pop().unwrap();
    let [gpu] = &last.gpus[..] else {
        panic!("{last:?}")
    };
    assert_eq!(
        (&gpu.uuid, gpu.utilization, gpu.memory),
        (&order.gpus[0], Some(87), ByteSize::mib(20_000))
    );
    let usage = report.usage;
    assert!(usage.memory_peak > Some(ByteSize::mib(200)), "{usage:?}");
    assert!(usage.memory_mean > Some(ByteSize(0)) && usage.memory_mean <= usage.memory_peak);
    assert!(usage.cpu_time > Some(Span(0)) && usage.cpu_millis_peak > Some(300));
    assert_eq!(usage.gpus[0].utilization_mean, Some(87));
    assert_eq!(usage.gpus[0].memory_peak, ByteSize::mib(20_000));
    assert!(usage.notes.is_empty(), "{:?}", usage.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_a_container_is_measured() {
    if !engine().await {
        return;
    }
    let world = World::with(|config| config.timing.sample = Span(100));
    let mut order = world.python(BUSY);
    order.spec.resources.cpu_millis = 500;
    let dir = world.dir(&order);
    let journal = Journal::open(&dir.journal()).unwrap();
    let run = attempt::run(&world.host, dir.clone(), &journal, Control::new());
    let story = async {
        until("a sample of the busy program", || {
            let busy = |sample: &Sample| sample.memory > ByteSize::mib(200);
            samples(&events(&journal)).iter().any(busy)
        })
        .await;
        std::fs::write(dir.workspace().join("go"), "").unwrap();
    };
    let (report, ()) = tokio::join!(run, story);
    assert!(report.outcome.is_success(), "{:?}", report.outcome);
    let usage = report.usage;
    assert!(usage.memory_mean > Some(ByteSize(0)) && usage.cpu_millis_mean > Some(0));
    assert!(usage.gpus.is_empty(), "a job without GPUs has none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_is_hardly_used_is_said_once() {
    let fleet = FakeGpus::of("one");
    let world = host(&fleet);
    use_of(&fleet, 0, 4, 2);
    let mut order = world.command("sleep 2");
    give(&world, &mut order);
    let done = world.run(&order).await;
    done.succeeded();
    let note = format!(
        "the job's GPU stayed under 5 % of use for 400ms ({}); `gpu_idle_timeout` ends such a job",
        order.gpus[0]
    );
    assert_eq!(warnings(&done), [format!("warning: {note}\n")]);
    assert_eq!(done.report.usage.notes, [note]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_says_so_is_ended_when_all_of_its_gpus_idle() {
    let fleet = FakeGpus::of("mixed");
    fleet.change(|fleet| fleet["gpus"].as_array_mut().unwrap().truncate(2));
    let world = host(&fleet);
    use_of(&fleet, 0, 0, 100);
    use_of(&fleet, 1, 60, 100);
    let mut order = world
        .command("trap 'echo checkpoint; exit 0' TERM; echo began; while :; do sleep 0.1; done");
    order.spec.limits.gpu_idle_timeout = Some(Span(700));
    give(&world, &mut order);
    let dir = world.dir(&order);
    let journal = Journal::open(&dir.journal()).unwrap();
    let run = attempt::run(&world.host, dir.clone(), &journal, Control::new());
    let story = async {
        // One of two is busy: that is worth a word, and no more.
        until("the warning", || {
            events(&journal).iter().any(|event| {
                matches!(event, EventKind::Log { text, .. } if text.contains("1 of the job's 2 GPUs"))
            })
        })
        .await;
        use_of(&fleet, 1, 3, 2_048);
    };
    let (report, ()) = tokio::join!(run, story);
    let done = Done {
        report,
        dir,
        said: text(&journal),
        journal,
    };
    let failure = done.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::GpuIdle, Owner::Limit)
    );
    let words = "all 2 GPUs of the job stayed under 5 % of use for 700ms, and the job was ended; \
        the most seen in that time was 3 %, with 2 GiB of memory in use";
    assert_eq!(failure.message, words);
    assert_eq!(failure.limit, Some(LimitReached::Time { limit: Span(700) }));
    assert_eq!(warnings(&done).len(), 1, "{:?}", warnings(&done));
    // It had its grace.
    assert!(done.text().contains("checkpoint\n"), "{}", done.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_gpu_and_a_slice_end_nothing() {
    for name in ["one", "mig"] {
        let fleet = FakeGpus::of(name);
        fleet.change(|fleet| fleet["gpus"].as_array_mut().unwrap().truncate(1));
        let world = host(&fleet);
        use_of(&fleet, 0, 5, 2);
        let mut order = world.command("sleep 2");
        order.spec.limits.gpu_idle_timeout = Some(Span(300));
        give(&world, &mut order);
        let done = world.run(&order).await;
        done.succeeded();
        assert_eq!(warnings(&done), [""; 0]);
        let usage = &done.report.usage.gpus;
        assert_eq!(usage.len(), order.gpus.len());
        let told = usage.iter().all(|gpu| gpu.utilization_mean.is_some());
        assert_eq!(told, name == "one", "{usage:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gpu_memory_that_is_used_up_is_told_with_what_was_asked_and_seen() {
    let fleet = FakeGpus::of("one");
    let world = host(&fleet);
    use_of(&fleet, 0, 99, 23_552);
    let mut order = world.command(
        "sleep 1; echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB' >&2; exit 1",
    );
    order.spec.resources.gpu_memory = Some(ByteSize::gib(16));
    give(&world, &mut order);
    let done = world.run(&order).await;
    let failure = done.failure();
    assert_eq!(failure.kind, FailureKind::GpuOutOfMemory);
    for part in [
        "CUDA out of memory",
        "the GPU has 24.0 GiB",
        "the job asked for 16 GiB",
        "the most seen in use was 23 GiB",
    ] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    assert_eq!(
        failure.limit,
        Some(LimitReached::Bytes {
            limit: ByteSize::mib(24_564),
            used: Some(ByteSize::mib(23_552))
        })
    );
    let hint = failure.hint.as_deref().unwrap();
    assert!(hint.contains("gpu_memory: 36GiB"), "{hint}");
}
