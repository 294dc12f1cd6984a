//! GPUs as the real wrapper of NVML reads them, from the fake library.

use agent::config::Config;
use agent::hardware::{GpuReading, Hardware};
use protocol::ByteSize;
use protocol::hardware::{GpuHealth, GpuKind};
use serde_json::json;

use crate::fake_gpus::FakeGpus;
use crate::support::until;

pub(crate) fn config(gpus: &FakeGpus) -> Config {
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
