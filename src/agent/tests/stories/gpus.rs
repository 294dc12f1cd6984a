//! GPUs as the real wrapper of NVML reads them, from the fake library.

use agent::config::Config;
use agent::hardware::{GpuReading, Hardware, NvmlAbsent};
use agent::ledger::{Ledger, NotBooked};
use protocol::hardware::{GpuHealth, GpuKind};
use protocol::{AttemptId, ByteSize, Span};
use serde_json::json;

use crate::fake_gpus::FakeGpus;
use crate::support::until;

fn config(gpus: &FakeGpus) -> Config {
    let mut config = Config::default();
    config.gpus.library = gpus.library();
    config
}

fn hardware(gpus: &FakeGpus) -> Hardware {
    Hardware::open(&config(gpus))
}

fn groups(readings: &[GpuReading]) -> Vec<Option<u32>> {
    readings.iter().map(|r| r.gpu.nvlink_group).collect()
}

#[test]
fn a_workstation_has_one_gpu() {
    let fleet = FakeGpus::of("one");
    let hardware = hardware(&fleet);
    let found = hardware.gpus();
    assert_eq!(found.len(), 1);
    let gpu = &found[0].gpu;
    assert_eq!(gpu.model, "NVIDIA GeForce RTX 4090");
    assert_eq!(gpu.memory, ByteSize::mib(24_564));
    assert_eq!(gpu.compute_capability, "8.9");
    assert_eq!((&gpu.kind, gpu.nvlink_group), (&GpuKind::Whole, None));
    assert_eq!(gpu.pci.as_deref(), Some("0000:01:00.0"));
    let inventory = hardware.inventory(&config(&fleet), None, vec![]);
    let driver = inventory.driver.unwrap();
    assert_eq!(
        (driver.version.as_str(), driver.cuda.as_str()),
        ("550.54.14", "12.4")
    );
}

#[test]
fn switches_and_bridges_make_groups() {
    let eight = FakeGpus::of("eight-h100");
    assert_eq!(groups(&hardware(&eight).gpus()), [Some(0); 8]);
    // Where nobody tells what is at the other ends, the driver's word for each pair is taken.
    eight.change(|fleet| {
        for gpu in fleet["gpus"].as_array_mut().unwrap() {
            gpu["hides_link_ends"] = json!(true);
        }
    });
    assert_eq!(groups(&hardware(&eight).gpus()), [Some(0); 8]);
    let mixed = FakeGpus::of("mixed");
    let found = hardware(&mixed).gpus();
    assert_eq!(groups(&found), [Some(0), Some(0), None, None]);
    assert_eq!(found[3].gpu.numa_node, Some(1));
}

#[test]
fn slices_are_devices_of_their_own() {
    let fleet = FakeGpus::of("mig");
    let found = hardware(&fleet).gpus();
    let kinds: Vec<&GpuKind> = found.iter().map(|r| &r.gpu.kind).collect();
    let slice = |profile: &str| GpuKind::Slice {
        parent: found[0].gpu.uuid.clone(),
        profile: profile.into(),
    };
    assert_eq!(
        kinds,
        [
            &GpuKind::Sliced,
            &slice("3g.40gb"),
            &slice("1g.10gb"),
            &slice("1g.10gb"),
            &GpuKind::Whole
        ]
    );
    assert_eq!(found[1].gpu.memory, ByteSize::mib(40_448));
    assert!(found[1].gpu.uuid.starts_with("MIG-"));
    assert_eq!((found[1].node, found[1].utilization), (Some(0), None));
}

#[test]
fn broken_gpus_say_why_and_a_hot_one_only_notes_it() {
    let fleet = FakeGpus::of("broken");
    let hardware = hardware(&fleet);
    let found = hardware.gpus();
    let faults: Vec<&str> = found
        .iter()
        .map(|r| r.fault.as_deref().unwrap_or("none"))
        .collect();
    for (fault, begin) in faults.iter().zip([
        "none",
        "a memory row waits to be remapped",
        "3 memory errors",
        "none",
        "none",
        "a memory row could not be remapped",
    ]) {
        assert!(fault.starts_with(begin), "{faults:?}");
    }
    assert_eq!(found[4].notes.len(), 3, "{:?}", found[4].notes);
    fleet.change(|fleet| {
        for n in [0, 1] {
            fleet["gpus"][n]["lost"] = json!(true);
        }
    });
    let lost = hardware.gpus();
    assert_eq!(lost.len(), found.len(), "a lost GPU stays in the list");
    assert!(
        matches!(&lost[0].gpu.health, GpuHealth::Lost { error } if error.contains("fell off the bus")),
        "{:?}",
        lost[0]
    );
    assert_eq!(lost[0].gpu.uuid, found[0].gpu.uuid);
    let later = Hardware::open(&config(&fleet)).gpus();
    assert_eq!(
        later[0].gpu.uuid, "unknown-0",
        "one that was never seen has no name"
    );
}

#[tokio::test]
async fn a_fault_is_heard_and_an_applications_own_is_not() {
    let fleet = FakeGpus::of("broken");
    let hardware = hardware(&fleet);
    hardware.listen();
    fleet.change(|fleet| {
        fleet["gpus"][0]["xids"] = json!([13, 79]);
        fleet["gpus"][3]["xids"] = json!([31, 43]);
    });
    let mut heard = Vec::new();
    until("the fault", || {
        heard.extend(hardware.take_faults());
        !heard.is_empty()
    })
    .await;
    assert_eq!(heard[0].uuid, hardware.gpus()[0].gpu.uuid);
    assert!(heard[0].reason.starts_with("XID 79"), "{heard:?}");
    fleet.change(|fleet| fleet["gpus"][4]["xids"] = json!([48]));
    until("the next fault", || {
        heard.extend(hardware.take_faults());
        heard.len() > 1
    })
    .await;
    assert_eq!(heard[1].uuid, hardware.gpus()[4].gpu.uuid, "{heard:?}");
}

#[tokio::test]
async fn a_gpu_that_was_lost_at_first_is_heard_when_it_is_back() {
    let fleet = FakeGpus::of("eight-h100");
    fleet.change(|fleet| fleet["gpus"][2]["lost"] = json!(true));
    let hardware = hardware(&fleet);
    hardware.listen();
    fleet.change(|fleet| fleet["gpus"][2]["lost"] = json!(false));
    let mut xids = Vec::new();
    let mut heard = Vec::new();
    until("a fault of the GPU that came back", || {
        // Each is told once, to whoever listens then.
        xids.push(79);
        fleet.change(|fleet| fleet["gpus"][2]["xids"] = json!(xids));
        heard.extend(hardware.take_faults());
        !heard.is_empty()
    })
    .await;
    assert_eq!(heard[0].uuid, hardware.gpus()[2].gpu.uuid, "{heard:?}");
}

#[tokio::test]
async fn a_driver_that_hangs_is_gone_on_without_until_it_answers() {
    let fleet = FakeGpus::of("one");
    fleet.change(|fleet| fleet["hangs"] = json!(true));
    let mut config = config(&fleet);
    config.gpus.driver_timeout = Span(50);
    let hardware = Hardware::open(&config);
    assert_eq!(hardware.absent(), Some(NvmlAbsent::Silent(Span(50))));
    assert!(hardware.gpus().is_empty() && hardware.driver().is_none());
    hardware.listen();
    fleet.change(|fleet| fleet["hangs"] = json!(false));
    until("the driver", || hardware.absent().is_none()).await;
    assert_eq!(hardware.gpus().len(), 1);
    let mut xids = Vec::new();
    let mut heard = Vec::new();
    until("a fault: it listens from then on", || {
        xids.push(79);
        fleet.change(|fleet| fleet["gpus"][0]["xids"] = json!(xids));
        heard.extend(hardware.take_faults());
        !heard.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_process_is_named_with_its_user() {
    let fleet = FakeGpus::of("shared");
    let mut child = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    let pid = child.id();
    fleet.change(|fleet| fleet["gpus"][0]["processes"][0]["pid"] = json!(pid));
    let hardware = hardware(&fleet);
    // A process is called as its parent until it has begun its program.
    until("the process to be itself", || {
        hardware.gpus()[0].processes[0].name == "sleep"
    })
    .await;
    let found = hardware.gpus();
    let process = &found[0].processes[0];
    assert_eq!(process.memory, Some(ByteSize::mib(21_500)));
    assert!(process.user.is_some());
    let desktop: Vec<_> = found[2].processes.iter().map(|p| p.memory).collect();
    assert_eq!(desktop, [Some(ByteSize::mib(180)), None]);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A ledger over what the fake library shows.
struct Booked {
    fleet: FakeGpus,
    hardware: Hardware,
    config: Config,
    ledger: Ledger,
    attempt: AttemptId,
    _data: tempfile::TempDir,
}

impl Booked {
    fn of(fleet: &str) -> Self {
        let (fleet, data) = (FakeGpus::of(fleet), tempfile::tempdir().unwrap());
        let config = Config {
            data: data.path().to_owned(),
            ..config(&fleet)
        };
        let hardware = Hardware::open(&config);
        hardware.listen();
        Self {
            ledger: Ledger::open(&config).unwrap(),
            hardware,
            fleet,
            config,
            attempt: AttemptId::generate(),
            _data: data,
        }
    }

    /// A look, as the service has one.
    fn look(&self) -> Vec<GpuReading> {
        let readings = self.hardware.gpus();
        self.ledger
            .notice(&self.hardware.take_faults(), &readings)
            .unwrap();
        readings
    }

    fn book(&self, indexes: &[usize]) -> Result<(), String> {
        let now = self.look();
        let uuids: Vec<String> = indexes.iter().map(|&i| now[i].gpu.uuid.clone()).collect();
        let booked = self.ledger.book(&self.attempt, &uuids, &now);
        booked.map_err(|why| match why {
            NotBooked::Withdrawn(by) => by,
            NotBooked::Failed(failure) => failure.message,
        })
    }

    fn health(&self, index: usize) -> GpuHealth {
        self.ledger.judged(&self.look())[index].health.clone()
    }
}

#[test]
fn only_healthy_and_free_gpus_are_booked() {
    let broken = Booked::of("broken");
    for (index, why) in [
        (1, "a memory row waits to be remapped"),
        (2, "3 memory errors"),
        (5, "could not be remapped"),
    ] {
        let refused = broken.book(&[index]).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    broken.book(&[0, 3, 4]).expect("heat is no fault");
    let shared = Booked::of("shared");
    let refused = shared.book(&[1, 0]).unwrap_err();
    assert!(
        refused.contains("in use outside Trainyard: pid 4194301"),
        "{refused}"
    );
    assert!(shared.ledger.bookings().is_empty(), "all or none");
    shared.book(&[1]).unwrap();
    // The person goes, and nobody has to say so.
    shared.fleet.change(|fleet| {
        fleet["gpus"][0]["processes"] = json!([]);
        fleet["gpus"][0]["used"] = json!(4);
    });
    assert_eq!(shared.health(0), GpuHealth::Healthy);
}

#[test]
fn a_known_process_disturbs_nobody() {
    let mut shared = Booked::of("shared");
    let own = std::fs::read_to_string("/proc/self/comm").unwrap();
    shared.fleet.change(|fleet| {
        fleet["gpus"][2]["graphics"] = json!([{"pid": std::process::id(), "memory": 180}]);
    });
    assert!(matches!(shared.health(2), GpuHealth::InUseOutside { .. }));
    shared.config.gpus.ignore = vec![own.trim_end().to_owned()];
    shared.ledger = Ledger::open(&shared.config).unwrap();
    shared.book(&[2]).unwrap();
}

#[tokio::test]
async fn a_fault_of_a_sliced_gpu_is_one_of_all_its_slices() {
    let mig = Booked::of("mig");
    let refused = mig.book(&[0]).unwrap_err();
    assert!(
        refused.contains("in MIG mode: its slices are booked"),
        "{refused}"
    );
    mig.book(&[1]).unwrap();
    mig.fleet
        .change(|fleet| fleet["gpus"][0]["xids"] = json!([31, 95]));
    until("the fault", || {
        matches!(mig.health(2), GpuHealth::Quarantined { .. })
    })
    .await;
    for index in 0..=3 {
        let health = mig.health(index);
        assert!(
            matches!(&health, GpuHealth::Quarantined { reason } if reason.starts_with("XID 95")),
            "{health:?}"
        );
    }
    assert_eq!(mig.health(4), GpuHealth::Healthy);
    let why = mig.ledger.broken(&mig.attempt, &mig.look()).unwrap();
    assert!(why.contains("XID 95"), "{why}");
    // It holds over a restart, until somebody says that the GPU is well.
    mig.ledger.give_back(&mig.attempt, &[]).unwrap();
    let again = Ledger::open(&mig.config).unwrap();
    again.notice(&[], &mig.look()).unwrap();
    assert!(matches!(
        again.judged(&mig.look())[1].health,
        GpuHealth::Quarantined { .. }
    ));
    assert!(again.clear(&mig.look()[0].gpu.uuid).unwrap());
    mig.book(&[1, 2, 3]).unwrap();
}

#[test]
fn a_gpu_that_is_lost_under_a_job_is_back_after_a_reset() {
    let one = Booked::of("one");
    one.book(&[0]).unwrap();
    one.fleet
        .change(|fleet| fleet["gpus"][0]["lost"] = json!(true));
    let why = one.ledger.broken(&one.attempt, &one.look()).unwrap();
    assert!(why.contains("fell off the bus"), "{why}");
    let unclean = one.ledger.unclean(&one.attempt, &one.look());
    one.ledger.give_back(&one.attempt, &unclean).unwrap();
    assert!(matches!(one.health(0), GpuHealth::Lost { .. }));
    assert!(one.book(&[0]).unwrap_err().contains("does not answer"));
    one.fleet
        .change(|fleet| fleet["gpus"][0]["lost"] = json!(false));
    one.book(&[0]).unwrap();
}
