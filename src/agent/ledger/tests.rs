//! Stories of GPUs that are booked, dirty, lost and clean again.

use super::*;
use crate::hardware::example;

fn busy(uuid: &str, name: &str) -> GpuReading {
    GpuReading {
        used: ByteSize::gib(3),
        processes: vec![GpuProcess {
            pid: 42,
            name: name.into(),
            user: None,
            container: None,
            memory: None,
        }],
        ..example(uuid)
    }
}

struct World {
    dir: tempfile::TempDir,
    ledger: Ledger,
    attempt: AttemptId,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path(), &["Xorg".into()]).unwrap();
        Self {
            dir,
            ledger,
            attempt: AttemptId::generate(),
        }
    }

    fn restart(&mut self) {
        self.ledger = Ledger::open(self.dir.path(), &["Xorg".into()]).unwrap();
    }

    fn book(&self, readings: &[GpuReading]) -> Result<(), Box<Failure>> {
        let uuids: Vec<String> = readings.iter().map(|r| r.gpu.uuid.clone()).collect();
        self.ledger.book(&self.attempt, &uuids, readings)
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
    let refused = world
        .ledger
        .book(&other, &["GPU-1".into()], &[example("GPU-1")])
        .unwrap_err();
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
    let refused = world
        .book(&[example("GPU-1"), busy("GPU-2", "python3")])
        .unwrap_err();
    assert!(
        refused.message.contains("python3 (pid 42)"),
        "{}",
        refused.message
    );
    assert!(world.ledger.bookings().is_empty());
    let gone = world
        .ledger
        .book(&world.attempt, &["GPU-9".into()], &[])
        .unwrap_err();
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
    world.ledger.clear_quarantines(&dirty).unwrap();
    assert_eq!(
        world.book(&[example("GPU-1")]).unwrap_err().kind,
        FailureKind::GpuUnclean
    );
    world.ledger.clear_quarantines(&[example("GPU-1")]).unwrap();
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
