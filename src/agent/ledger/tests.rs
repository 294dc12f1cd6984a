//! Stories of GPUs that are booked, dirty, lost and clean again.

use std::path::Path;

use super::*;
use crate::hardware::{GpuProcess, example};
use protocol::Span;

fn busy(uuid: &str, name: &str) -> GpuReading {
    GpuReading {
        used: ByteSize::gib(3),
        processes: vec![GpuProcess {
            pid: 42,
            name: name.into(),
            user: None,
            container: Some("c".repeat(64)),
            memory: None,
        }],
        ..example(uuid)
    }
}

fn config(data: &Path) -> Config {
    let mut config = Config {
        data: data.to_owned(),
        ..Config::default()
    };
    config.gpus.ignore = vec!["Xorg".into()];
    config
}

struct World {
    dir: tempfile::TempDir,
    ledger: Ledger,
    attempt: AttemptId,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&config(dir.path())).unwrap();
        Self {
            dir,
            ledger,
            attempt: AttemptId::generate(),
        }
    }

    fn restart(&mut self) {
        self.ledger = Ledger::open(&config(self.dir.path())).unwrap();
    }

    fn book(&self, readings: &[GpuReading]) -> Result<(), NotBooked> {
        let uuids: Vec<String> = readings.iter().map(|r| r.gpu.uuid.clone()).collect();
        self.ledger.book(&self.attempt, &uuids, readings)
    }

    /// Why they are not booked, where that is a failure.
    fn refused(&self, readings: &[GpuReading]) -> Failure {
        failure(self.book(readings))
    }
}

fn failure(booked: Result<(), NotBooked>) -> Failure {
    match booked {
        Err(NotBooked::Failed(failure)) => *failure,
        other => panic!("not a failure: {other:?}"),
    }
}

#[test]
fn a_booking_survives_a_restart_and_keeps_others_out() {
    let mut world = World::new();
    world.book(&[example("GPU-1")]).unwrap();
    world.restart();
    world
        .book(&[busy("GPU-1", "python3")])
        .expect("the attempt's own process does not disturb it");
    let other = AttemptId::generate();
    let refused = failure(
        world
            .ledger
            .book(&other, &["GPU-1".into()], &[example("GPU-1")]),
    );
    assert_eq!(refused.kind, FailureKind::GpuUnclean);
    assert!(
        refused.message.contains(world.attempt.as_str()),
        "{}",
        refused.message
    );
    world.ledger.give_back(&world.attempt, &[]).unwrap();
    world.restart();
    world
        .ledger
        .book(&other, &["GPU-1".into()], &[example("GPU-1")])
        .unwrap();
}

#[test]
fn all_gpus_are_booked_or_none() {
    let world = World::new();
    let refused = world.refused(&[example("GPU-1"), busy("GPU-2", "python3")]);
    assert!(
        refused.message.contains("python3 (pid 42)"),
        "{}",
        refused.message
    );
    assert!(world.ledger.bookings().is_empty());
    let gone = failure(world.ledger.book(&world.attempt, &["GPU-9".into()], &[]));
    assert_eq!(gone.kind, FailureKind::GpuLost);
}

#[test]
fn a_person_on_a_gpu_is_no_sickness_and_a_desktop_no_person() {
    let world = World::new();
    let judged = world
        .ledger
        .judged(&[busy("GPU-1", "python3"), busy("GPU-2", "Xorg")]);
    assert!(
        matches!(&judged[0].health, GpuHealth::InUseOutside { by } if by == "python3 (pid 42)")
    );
    assert_eq!(judged[1].health, GpuHealth::Healthy);
    let hidden = GpuReading {
        used: ByteSize::gib(3),
        ..example("GPU-3")
    };
    assert!(matches!(
        world.ledger.judged(&[hidden])[0].health,
        GpuHealth::InUseOutside { .. }
    ));
}

#[test]
fn a_gpu_that_stays_dirty_is_quarantined_until_it_is_clean() {
    let mut world = World::new();
    world.book(&[example("GPU-1")]).unwrap();
    let dirty = [busy("GPU-1", "python3")];
    let why = world.ledger.unclean(&world.attempt, &dirty);
    assert!(why[0].1.contains("still on it"), "{why:?}");
    world.ledger.give_back(&world.attempt, &why).unwrap();
    world.restart();
    assert!(world.ledger.bookings().is_empty());
    assert!(matches!(
        world.ledger.judged(&[example("GPU-1")])[0].health,
        GpuHealth::Quarantined { .. }
    ));
    world.ledger.notice(&[], &dirty).unwrap();
    assert_eq!(
        world.refused(&[example("GPU-1")]).kind,
        FailureKind::GpuUnclean
    );
    world.ledger.notice(&[], &[example("GPU-1")]).unwrap();
    world.book(&[example("GPU-1")]).unwrap();
}

#[test]
fn memory_that_nobody_holds_is_dirt() {
    let world = World::new();
    world.book(&[example("GPU-1")]).unwrap();
    let leaked = GpuReading {
        used: ByteSize::gib(20),
        ..example("GPU-1")
    };
    assert!(
        world.ledger.unclean(&world.attempt, &[leaked])[0]
            .1
            .contains("20 GiB")
    );
    assert!(
        world
            .ledger
            .unclean(&world.attempt, &[example("GPU-1")])
            .is_empty()
    );
    assert!(
        world.ledger.unclean(&world.attempt, &[])[0]
            .1
            .contains("fell off the bus")
    );
}

#[test]
fn a_person_beside_a_job_is_no_dirt_of_it() {
    let world = World::new();
    world.book(&[example("GPU-1")]).unwrap();
    let mut person = busy("GPU-1", "jupyter-lab");
    person.processes[0].container = None;
    person.processes[0].user = Some("ada".into());
    assert!(
        world
            .ledger
            .unclean(&world.attempt, &[person.clone()])
            .is_empty()
    );
    world.ledger.give_back(&world.attempt, &[]).unwrap();
    let health = &world.ledger.judged(&[person])[0].health;
    assert!(
        matches!(health, GpuHealth::InUseOutside { by } if by == "jupyter-lab of ada (pid 42)"),
        "{health:?}"
    );
}

#[test]
fn a_reported_fault_stays_until_somebody_clears_it() {
    let mut world = World::new();
    world.book(&[example("GPU-1")]).unwrap();
    assert_eq!(
        world.ledger.broken(&world.attempt, &[example("GPU-1")]),
        None
    );
    let fault = GpuFault {
        uuid: "GPU-1".into(),
        reason: "XID 79".into(),
    };
    world.ledger.notice(&[fault], &[example("GPU-1")]).unwrap();
    let broken = world.ledger.broken(&world.attempt, &[example("GPU-1")]);
    assert!(broken.unwrap().contains("XID 79"));
    world.ledger.give_back(&world.attempt, &[]).unwrap();
    world.restart();
    world.ledger.notice(&[], &[example("GPU-1")]).unwrap();
    let refused = world.refused(&[example("GPU-1")]);
    assert!(
        refused.message.contains("quarantined: XID 79"),
        "{}",
        refused.message
    );
    let person = Ledger::look(&config(world.dir.path())).unwrap();
    assert!(person.clear("GPU-1").unwrap());
    assert!(!person.clear("GPU-1").unwrap(), "there is none any more");
    world
        .book(&[example("GPU-1")])
        .expect("a running agent notices");
}

#[test]
fn a_lent_gpu_is_no_jobs_until_its_time_is_over() {
    let world = World::new();
    let person = Ledger::look(&config(world.dir.path())).unwrap();
    let later = Timestamp::now() + Span::hours(8);
    let lend = |by: &str, until: Timestamp, force: bool| {
        person.reserve(&example("GPU-1").gpu, by, until, force)
    };
    lend("ada", later, false).unwrap();
    let judged = world.book(&[busy("GPU-1", "python3")]).unwrap_err();
    assert_eq!(
        judged,
        NotBooked::Withdrawn("ada, to whom GPU 0 (GPU-1) is lent".into())
    );
    assert!(person.release("GPU-1").unwrap());
    world.book(&[example("GPU-1")]).unwrap();
    // One that has it keeps it.
    lend("ada", later, false).unwrap();
    world.ledger.refresh().unwrap();
    let health = |world: &World| world.ledger.judged(&[example("GPU-1")])[0].health.clone();
    assert_eq!(health(&world), GpuHealth::Healthy);
    world.ledger.give_back(&world.attempt, &[]).unwrap();
    assert!(matches!(health(&world), GpuHealth::Reserved { .. }));
    lend("ada", Timestamp::now(), false).unwrap();
    world.book(&[example("GPU-1")]).expect("its time is over");
}

#[test]
fn a_loan_is_replaced_by_its_borrower_or_expressly() {
    let world = World::new();
    let mut slice = example("MIG-1").gpu;
    slice.kind = GpuKind::Slice {
        parent: "GPU-1".into(),
        profile: "1g.10gb".into(),
    };
    let whole = example("GPU-1").gpu;
    let (soon, later) = (Span::hours(1), Span::hours(2));
    let lend = |gpu: &Gpu, by: &str, span, force| {
        let until = Timestamp::now() + span;
        let refused = world.ledger.reserve(gpu, by, until, force).err();
        refused.map(|why| why.to_string())
    };
    assert_eq!(lend(&whole, "ada", soon, false), None);
    assert_eq!(
        lend(&whole, "ada", later, false),
        None,
        "she keeps it longer"
    );
    for gpu in [&whole, &slice] {
        let refused = lend(gpu, "bob", soon, false).unwrap();
        for word in ["is lent to ada until 2", "2h00m more", "--force"] {
            assert!(refused.contains(word), "{refused}");
        }
    }
    assert_eq!(lend(&whole, "bob", soon, true), None);
    let lost = Gpu {
        health: GpuHealth::Lost { error: "x".into() },
        ..example("unknown-3").gpu
    };
    let refused = lend(&lost, "ada", soon, true).unwrap();
    assert!(refused.contains("does not answer: x"), "{refused}");
    assert_eq!(borrower(" ada "), Ok("ada"));
    for wrong in ["", " ", "a\nb", "\u{1b}[2J", &"a".repeat(65)] {
        assert!(borrower(wrong).unwrap_err().contains("at most 64"));
    }
}

#[test]
fn a_gpu_whose_file_cannot_be_read_is_nobodys_and_the_others_go_on() {
    let mut world = World::new();
    world.book(&[example("GPU-1")]).unwrap();
    let file = world.dir.path().join("bookings/GPU-2.reserved.json");
    fs::write(&file, "{").unwrap();
    let gpus = ["GPU-1", "GPU-2", "GPU-3"].map(example);
    world.restart();
    let judged = world.ledger.judged(&gpus);
    let reason = |gpu: &Gpu| match &gpu.health {
        GpuHealth::Quarantined { reason } => reason.clone(),
        other => panic!("{other:?}"),
    };
    let why = reason(&judged[1]);
    assert!(why.contains("GPU-2.reserved.json"), "{why}");
    assert_eq!(judged[2].health, GpuHealth::Healthy);
    let until = Timestamp::now() + Span::hours(1);
    let refused = world.ledger.reserve(&gpus[1].gpu, "bob", until, false);
    assert!(refused.unwrap_err().to_string().contains("--force"));
    assert_eq!(world.refused(&gpus[1..2]).kind, FailureKind::GpuUnclean);
    world.ledger.release("GPU-2").unwrap();
    assert_eq!(world.ledger.judged(&gpus)[1].health, GpuHealth::Healthy);
    // What was known of a file stays while it cannot be read.
    fs::write(world.dir.path().join("bookings/GPU-1.json"), "{").unwrap();
    world.ledger.refresh().unwrap();
    assert_eq!(world.ledger.bookings()["GPU-1"].attempt, world.attempt);
}

#[test]
fn of_a_folder_that_cannot_be_read_no_gpu_is_shown_as_free() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bookings"), "no folder").unwrap();
    let (ledger, why) = Ledger::shown(&config(dir.path()));
    assert!(why.unwrap().to_string().contains("bookings"));
    let judged = ledger.judged(&[example("GPU-1")]);
    assert!(matches!(judged[0].health, GpuHealth::Quarantined { .. }));
}

#[test]
fn slices_are_booked_and_the_gpu_that_they_are_cut_from_is_not() {
    let world = World::new();
    let mut whole = example("GPU-1");
    whole.gpu.kind = GpuKind::Sliced;
    let mut slice = example("MIG-1");
    slice.gpu.kind = GpuKind::Slice {
        parent: "GPU-1".into(),
        profile: "1g.10gb".into(),
    };
    let readings = [whole.clone(), slice.clone()];
    let refused = world.refused(&readings);
    assert!(
        refused.message.contains("in MIG mode"),
        "{}",
        refused.message
    );
    world.book(&[slice.clone()]).unwrap();
    world.ledger.give_back(&world.attempt, &[]).unwrap();
    let fault = GpuFault {
        uuid: "GPU-1".into(),
        reason: "XID 95".into(),
    };
    world.ledger.notice(&[fault], &readings).unwrap();
    let refused = world.refused(&[slice]);
    assert!(refused.message.contains("XID 95"), "{}", refused.message);
}

#[test]
fn containers_correct_what_the_files_say() {
    let world = World::new();
    let (runs, gone) = (AttemptId::generate(), AttemptId::generate());
    let readings = [example("GPU-1"), busy("GPU-2", "python3"), example("GPU-3")];
    world
        .ledger
        .book(&gone, &["GPU-3".into()], &readings)
        .unwrap();
    let containers = [(runs.clone(), vec!["GPU-1".to_owned(), "GPU-2".to_owned()])];
    world
        .ledger
        .correct(&containers, |_| false, &readings)
        .unwrap();
    let booked: Vec<(String, AttemptId)> = world
        .ledger
        .bookings()
        .into_iter()
        .map(|(uuid, booking)| (uuid, booking.attempt))
        .collect();
    assert_eq!(
        booked,
        [
            ("GPU-1".to_owned(), runs.clone()),
            ("GPU-2".to_owned(), runs.clone())
        ]
    );
    // Its container is gone too, and a process of it is not.
    world.ledger.correct(&[], |_| false, &readings).unwrap();
    let judged = world.ledger.judged(&readings);
    assert_eq!(judged[0].health, GpuHealth::Healthy);
    assert!(
        matches!(&judged[1].health, GpuHealth::Quarantined { reason } if reason.contains("still on it"))
    );
}

#[test]
fn a_dead_container_takes_no_gpu_from_whom_it_was_given_to() {
    let world = World::new();
    let (dead, runs) = (AttemptId::generate(), AttemptId::generate());
    let readings = [example("GPU-1")];
    let gpu = ["GPU-1".to_owned()];
    world.ledger.book(&runs, &gpu, &readings).unwrap();
    let containers = [(dead, gpu.to_vec())];
    let goes_on = |attempt: &AttemptId| *attempt == runs;
    world
        .ledger
        .correct(&containers, goes_on, &readings)
        .unwrap();
    let bookings = world.ledger.bookings();
    let booked: Vec<_> = bookings.values().map(|booking| &booking.attempt).collect();
    assert_eq!(booked, [&runs]);
}

#[test]
fn what_a_killed_agent_half_made_is_removed_and_a_persons_file_in_the_making_is_not() {
    let mut world = World::new();
    world.book(&[example("GPU-1")]).unwrap();
    let bookings = world.dir.path().join("bookings");
    let half_made = [".GPU-1.json.Xq3", ".GPU-2.quarantine.json.b7"];
    let in_the_making = ".GPU-2.reserved.json.k2";
    for name in half_made.into_iter().chain([in_the_making]) {
        fs::write(bookings.join(name), "{").unwrap();
    }
    world.restart();
    let mut left: Vec<String> = fs::read_dir(&bookings)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [in_the_making, "GPU-1.json"]);
    assert_eq!(world.ledger.bookings()["GPU-1"].attempt, world.attempt);
}

#[test]
fn gpus_are_taken_back_of_an_attempt_that_is_gone_and_of_no_other() {
    let world = World::new();
    let ids = [(); 3].map(|()| AttemptId::generate());
    let uuids = ["GPU-1", "GPU-2", "GPU-3"];
    let readings = uuids.map(example);
    for (id, uuid) in ids.iter().zip(uuids) {
        world.ledger.book(id, &[uuid.into()], &readings).unwrap();
    }
    let [begins, stays, gone] = &ids;
    let containers = [(stays.clone(), vec!["GPU-2".to_owned()])];
    let ledger = &world.ledger;
    ledger
        .take_back(&containers, |id| id == begins, &readings)
        .unwrap();
    let booked: Vec<AttemptId> = ledger.bookings().into_values().map(|b| b.attempt).collect();
    assert_eq!(booked, [begins.clone(), stays.clone()]);
    assert!(!booked.contains(gone));
}

#[test]
fn a_fault_that_the_disk_refuses_counts_and_is_written_when_it_takes_it() {
    let mut world = World::new();
    let fault = GpuFault {
        uuid: "GPU-1".into(),
        reason: "XID 79".into(),
    };
    let now = [example("GPU-1"), example("GPU-2")];
    let health = |world: &World| world.ledger.judged(&now).remove(0).health;
    let quarantined = |health: GpuHealth| matches!(health, GpuHealth::Quarantined { reason } if reason == "XID 79");
    let bookings = world.dir.path().join("bookings");
    // A folder that is none takes nothing.
    fs::remove_dir(&bookings).unwrap();
    fs::write(&bookings, "").unwrap();
    assert!(world.ledger.notice(&[fault], &now).is_err());
    assert!(quarantined(health(&world)));
    fs::remove_file(&bookings).unwrap();
    fs::create_dir(&bookings).unwrap();
    // The next look, which heard nothing.
    world.ledger.notice(&[], &now).unwrap();
    world.restart();
    assert!(quarantined(health(&world)));
    assert_eq!(world.ledger.judged(&now)[1].health, GpuHealth::Healthy);
}
