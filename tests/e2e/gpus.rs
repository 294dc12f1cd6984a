//! `trainyard gpus` of the real binary, over GPUs that a fake library shows.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::engine::{FakeEngine, Manner};
use crate::support::gpus::FakeGpus;

/// A host of its own: GPUs and an agent's data folder.
struct Host {
    gpus: FakeGpus,
    data: tempfile::TempDir,
}

impl Host {
    fn of(fleet: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = format!("data = \"{}\"\n", data.path().join("agent").display());
        std::fs::write(data.path().join("agent.toml"), config).unwrap();
        Self {
            gpus: FakeGpus::of(fleet),
            data,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(arguments)
            .env("LD_LIBRARY_PATH", self.gpus.folder())
            .env(
                "TRAINYARD_AGENT_CONFIG",
                self.data.path().join("agent.toml"),
            )
            .env_remove("FAKE_NVML")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(&[&["gpus"], arguments].concat())
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The table without the spaces at the ends of lines.
    fn table(&self) -> String {
        let lines = self.ok(&[]);
        let lines: Vec<&str> = lines.lines().map(str::trim_end).collect();
        format!("\n{}\n", lines.join("\n"))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.ok(&["--json"])).unwrap()
    }
}

#[test]
fn a_workstation() {
    assert_eq!(Host::of("one").table(), "
 driver 550.54.14, CUDA 12.4
 GPU  MODEL                    MEMORY    USED   USE  NVLINK  STATE  UUID
 0    NVIDIA GeForce RTX 4090  24.0 GiB  2 MiB  0 %          free   GPU-0a1b2c3d-0000-4000-8000-000000000001
");
}

#[test]
fn a_node_of_eight() {
    assert_eq!(Host::of("eight-h100").table(), "
 driver 570.86.15, CUDA 12.8
 GPU  MODEL                  MEMORY    USED   USE  NVLINK  STATE  UUID
 0    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %  0       free   GPU-00000000-1111-4222-8333-444444440000
 1    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %  0       free   GPU-00000001-1111-4222-8333-444444440001
 2    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %  0       free   GPU-00000002-1111-4222-8333-444444440002
 3    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %  0       free   GPU-00000003-1111-4222-8333-444444440003
 4    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %  0       free   GPU-00000004-1111-4222-8333-444444440004
 5    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %  0       free   GPU-00000005-1111-4222-8333-444444440005
 6    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %  0       free   GPU-00000006-1111-4222-8333-444444440006
 7    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %  0       free   GPU-00000007-1111-4222-8333-444444440007
");
}

#[test]
fn slices() {
    let host = Host::of("mig");
    assert_eq!(host.table(), "
 driver 570.86.15, CUDA 12.8
 GPU  MODEL                        MEMORY    USED    USE  NVLINK  STATE            UUID
 0    NVIDIA H100 80GB HBM3 (MIG)  79.6 GiB  80 MiB               cut into slices  GPU-00000000-1111-4222-8333-444444440000
 0    MIG 3g.40gb                  39.5 GiB  38 MiB               free             MIG-00000000-aaaa-4bbb-8ccc-dddddddd0000
 0    MIG 1g.10gb                  9.6 GiB   12 MiB               free             MIG-00000000-aaaa-4bbb-8ccc-dddddddd0001
 0    MIG 1g.10gb                  9.6 GiB   12 MiB               free             MIG-00000000-aaaa-4bbb-8ccc-dddddddd0003
 1    NVIDIA H100 80GB HBM3        79.6 GiB  4 MiB   0 %          free             GPU-00000001-1111-4222-8333-444444440001
");
    assert_eq!(
        host.json()[1],
        json!({
            "uuid": "MIG-00000000-aaaa-4bbb-8ccc-dddddddd0000",
            "index": 0,
            "model": "NVIDIA H100 80GB HBM3",
            "memory": 42_412_802_048_u64,
            "compute_capability": "9.0",
            "kind": {"slice": {"parent": "GPU-00000000-1111-4222-8333-444444440000", "profile": "3g.40gb"}},
            "pci": "0000:1b:00.0",
            "numa_node": 0,
            "nvlink_group": null,
            "health": {"health": "healthy"},
            "used": 39_845_888,
            "utilization_percent": null,
            "attempt": null,
            "processes": [],
            "notes": [],
            "driver": {"version": "570.86.15", "cuda": "12.8"},
        })
    );
}

#[test]
fn different_ones_in_one_host() {
    assert_eq!(Host::of("mixed").table(), "
 driver 535.183.01, CUDA 12.2
 GPU  MODEL                  MEMORY  USED   USE  NVLINK  STATE  UUID
 0    NVIDIA A100-SXM4-40GB  40 GiB  3 MiB  0 %  0       free   GPU-a1000000-0000-4000-8000-000000000000
 1    NVIDIA A100-SXM4-40GB  40 GiB  3 MiB  0 %  0       free   GPU-a1000000-0000-4000-8000-000000000001
 2    Tesla T4               15 GiB  2 MiB  0 %          free   GPU-74000000-0000-4000-8000-000000000002
 3    Tesla T4               15 GiB  2 MiB  0 %          free   GPU-74000000-0000-4000-8000-000000000003
");
}

#[test]
fn broken_ones() {
    let host = Host::of("broken");
    host.gpus
        .change(|fleet| fleet["gpus"][3]["lost"] = json!(true));
    assert_eq!(
        host.table(),
        "
 driver 570.86.15, CUDA 12.8
 GPU  MODEL                  MEMORY    USED   USE    NVLINK  STATE                                                                                                      UUID
 0    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %            free                                                                                                       GPU-00000000-1111-4222-8333-444444440000
 1    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %            quarantined: a memory row waits to be remapped; reset the GPU · 1 memory row was remapped                  GPU-00000001-1111-4222-8333-444444440001
 2    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %            quarantined: 3 memory errors that ECC could not correct since its last reset; reset the GPU                GPU-00000002-1111-4222-8333-444444440002
 3    unknown                0 B       0 B                   lost: it fell off the bus; restart the host                                                                unknown-3
 4    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  100 %          free · slowed down: it is too hot · slowed down: the power supply brakes it · 2 memory rows were remapped  GPU-00000004-1111-4222-8333-444444440004
 5    NVIDIA H100 80GB HBM3  79.6 GiB  4 MiB  0 %            quarantined: a memory row could not be remapped; the GPU wants to be replaced                              GPU-00000005-1111-4222-8333-444444440005
"
    );
}

#[test]
fn shared_with_people() {
    let host = Host::of("shared");
    assert_eq!(host.table(), "
 driver 570.86.15, CUDA 12.8
 GPU  MODEL                    MEMORY    USED     USE   NVLINK  STATE                                               UUID
 0    NVIDIA H100 80GB HBM3    79.6 GiB  21 GiB   87 %          in use outside Trainyard: pid 4194301               GPU-00000000-1111-4222-8333-444444440000
 1    NVIDIA H100 80GB HBM3    79.6 GiB  4 MiB    0 %           free                                                GPU-00000001-1111-4222-8333-444444440001
 2    NVIDIA GeForce RTX 4090  24.0 GiB  412 MiB  3 %           in use outside Trainyard: pid 4194302, pid 4194303  GPU-0a1b2c3d-0000-4000-8000-000000000001
");
    // A process that is there is named, with its user.
    let own = std::process::id();
    host.gpus
        .change(|fleet| fleet["gpus"][0]["processes"][0]["pid"] = json!(own));
    let process = &host.json()[0]["processes"][0];
    assert_eq!(
        (&process["pid"], &process["memory"]),
        (&json!(own), &json!(22_544_384_000_u64))
    );
    assert!(
        process["user"].is_string() && process["name"].as_str().unwrap().starts_with("e2e"),
        "{process}"
    );
}

#[test]
fn a_host_without_gpus_says_so() {
    let host = Host::of("one");
    std::fs::remove_file(host.gpus.library()).unwrap();
    assert_eq!(
        host.ok(&[]),
        "no GPUs: no NVIDIA driver (libnvidia-ml.so.1 was not found)\n"
    );
    assert_eq!(host.json(), json!([]));
    let lent = host.run(&["reserve", "3", "--for", "ada", "--until", "1h"]);
    let said = String::from_utf8_lossy(&lent.stderr);
    assert!(said.contains("there are: none: no NVIDIA driver"), "{said}");
    // A variable that is set and empty names no configuration.
    let mut command = host.command(&["gpus"]);
    let shown = command.env("TRAINYARD_AGENT_CONFIG", "").output().unwrap();
    assert!(shown.status.success(), "{shown:?}");
}

#[test]
fn a_gpu_is_lent_taken_back_and_cleared() {
    let host = Host::of("eight-h100");
    let said = host.ok(&["reserve", "3", "--for", "ada", "--until", "2199-12-24"]);
    assert!(
        said.starts_with("GPU 3 (GPU-00000003-1111-4222-8333-444444440003) is lent to ada, "),
        "{said}"
    );
    assert_eq!(host.json()[3]["health"]["health"], "reserved");
    assert_eq!(host.json()[3]["health"]["by"], "ada");
    assert!(host.table().contains("reserved for ada, "));
    assert!(
        host.ok(&["release", "GPU-00000003"])
            .contains("is for jobs again")
    );
    assert!(host.ok(&["release", "3"]).contains("was not lent"));
    assert_eq!(host.json()[3]["health"]["health"], "healthy");
    assert!(
        host.ok(&["clear", "3"])
            .contains("there is nothing to clear")
    );
    host.ok(&["reserve", "3", "--for", "ada", "--until", "2199-12-24"]);
    let bob = ["reserve", "3", "--for", "bob", "--until", "8h"];
    for (arguments, why) in [
        (&["release", "9"][..], "there is no GPU '9' on this host"),
        (&["release", "GPU-0"], "begins the UUIDs of 8 GPUs"),
        (
            &["reserve", "3", "--for", "ada", "--until", "yesterday"],
            "is no time ahead",
        ),
        (&bob, "is lent to ada until 2199-12-25 00:00"),
        (
            &["reserve", "3", "--for", "a\nb", "--until", "8h"],
            "'a\\nb' is no name",
        ),
        (
            &["--fleet", "release", "3"],
            "'release' is about one of this host",
        ),
    ] {
        let refused = host.run(arguments);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let said = host.ok(&[&bob[..], &["--force"]].concat());
    assert!(said.contains("is lent to bob, 8h00m from now"), "{said}");
}

#[test]
fn a_lost_gpu_is_not_lent_and_a_fault_is_no_quarantine_to_clear() {
    let host = Host::of("broken");
    host.gpus
        .change(|fleet| fleet["gpus"][3]["lost"] = json!(true));
    let refused = host.run(&["reserve", "3", "--for", "ada", "--until", "8h"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("GPU 3 does not answer"), "{said}");
    let said = host.ok(&["clear", "1"]);
    let words = "has no quarantine that a person could end: it is quarantined: a memory row waits";
    assert!(said.contains(words), "{said}");
}

#[test]
fn a_gpu_whose_file_is_damaged_is_not_shown_as_free() {
    let host = Host::of("one");
    let bookings = host.data.path().join("agent/bookings");
    std::fs::create_dir_all(&bookings).unwrap();
    let file = bookings.join("GPU-0a1b2c3d-0000-4000-8000-000000000001.json");
    std::fs::write(&file, "{").unwrap();
    let shown = host.run(&[]);
    assert!(shown.status.success());
    let (table, said) = (
        String::from_utf8_lossy(&shown.stdout),
        String::from_utf8_lossy(&shown.stderr),
    );
    assert!(table.contains("quarantined: cannot use"), "{table}");
    assert!(said.contains("nobody gets this GPU"), "{said}");
    assert_eq!(host.json()[0]["health"]["health"], "quarantined");
}

/// A folder with a job that wants GPUs, and waits for its gate.
struct Desk<'a> {
    host: &'a Host,
    folder: tempfile::TempDir,
}

impl<'a> Desk<'a> {
    fn new(host: &'a Host, resources: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = format!(
            "jobs:\n  train:\n    command: 'cd {}; until [ -e gate ]; do touch beat; sleep 0.05; done'\n    resources: {{{resources}}}\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join(".trainyard.yml"), file).unwrap();
        Self { host, folder }
    }

    fn run(&self, by: &str) -> Command {
        let mut command = self.host.command(&["run", "train", "--executor", "shell"]);
        command
            .current_dir(self.folder.path())
            .env("TRAINYARD_DATA", self.host.data.path().join("local"))
            .env("USER", by)
            .env_remove("SUDO_USER");
        command
    }

    fn refused(&self, by: &str) -> String {
        let output = self.run(by).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Returns when the job has gone on after this call.
    fn beats(&self) {
        let beat = self.folder.path().join("beat");
        let _ = std::fs::remove_file(&beat);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !beat.exists() {
            assert!(Instant::now() < deadline, "the job does not run");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether a process of the job is left.
    fn runs(&self) -> bool {
        let here = self.folder.path().display().to_string();
        let lines = std::fs::read_dir("/proc").unwrap().flatten();
        let mut lines =
            lines.filter_map(|one| std::fs::read_to_string(one.path().join("cmdline")).ok());
        lines.any(|line| line.contains(&format!("cd {here}; until")))
    }

    fn open_gate(&self) {
        std::fs::write(self.folder.path().join("gate"), "").unwrap();
    }
}

#[test]
fn a_run_beside_the_agent_books_what_it_wants_in_the_agents_ledger() {
    let host = Host::of("shared");
    std::fs::create_dir(host.data.path().join("agent")).unwrap();
    let state = |index: usize, state: &str| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !host.table().lines().nth(3 + index).unwrap().contains(state) {
            assert!(Instant::now() < deadline, "{state}: {}", host.table());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let desk = Desk::new(&host, "gpus: 1, gpu_model: H100, cuda: '>=12.1'");
    let mut first = desk.run("ada").spawn().unwrap();
    state(1, "in use outside Trainyard: `trainyard run` of ada");
    let said = desk.refused("bob");
    for words in [
        "'train' cannot run on this host: needs 1 GPU (H100); 0 of 2 such GPUs are free",
        "GPU 0: in use outside Trainyard: pid 4194301",
        "GPU 1: in use outside Trainyard: `trainyard run` of ada",
    ] {
        assert!(said.contains(words), "{said}");
    }
    desk.beats();
    // Killed, its job runs on: that has the GPU until the next run has ended it.
    first.kill().unwrap();
    first.wait().unwrap();
    desk.beats();
    state(1, "in use outside Trainyard: `trainyard run` of ada");
    host.ok(&["reserve", "1", "--for", "ada", "--until", "1h"]);
    let said = desk.refused("bob");
    assert!(said.contains("GPU 1: reserved for ada"), "{said}");
    assert!(!desk.runs());
    desk.open_gate();
    assert!(desk.run("ada").status().unwrap().success());
    state(1, "reserved for ada");
}

#[test]
fn a_run_whose_terminal_is_closed_takes_its_job_along() {
    let host = Host::of("one");
    std::fs::create_dir(host.data.path().join("agent")).unwrap();
    for (signal, who) in [("HUP", "a terminal that was closed"), ("TERM", "SIGTERM")] {
        let desk = Desk::new(&host, "gpus: 1");
        let run = desk.run("ada").arg("--json").stdout(Stdio::piped()).spawn();
        let run = run.unwrap();
        desk.beats();
        let pid = run.id().to_string();
        let told = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(told.unwrap().success());
        let output = run.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(who), "{said}");
        assert!(!desk.runs());
        let left = std::fs::read_dir(host.data.path().join("agent/bookings")).unwrap();
        assert_eq!(left.count(), 0, "nothing is booked");
    }
}

#[test]
fn a_run_says_what_its_host_lacks() {
    let host = Host::of("mixed");
    for (wants, words) in [
        (
            "gpus: 1, gpu_model: H100",
            "has no GPU of the model 'H100'; there are NVIDIA A100-SXM4-40GB, Tesla T4",
        ),
        (
            "gpus: 1, mig: 1g.10gb",
            "has no MIG slice of the profile 1g.10gb",
        ),
        (
            "gpus: 1, compute_capability: '>=9.0'",
            "needs a GPU of compute capability 9.0 or higher",
        ),
        (
            "gpus: 1, cuda: '>=12.8'",
            "needs CUDA 12.8 or newer; the driver of",
        ),
        (
            "gpus: 3, gpu_model: A100",
            "needs 3 GPUs (A100) on one host",
        ),
    ] {
        let said = Desk::new(&host, wants).refused("ada");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn doctor_tries_to_give_a_gpu() {
    for (manner, level, words) in [
        (
            Manner::Gives,
            "ok",
            "GPU 0 was given to a container, and no other",
        ),
        (Manner::GivesNone, "fail", "the container has no GPU"),
        (
            Manner::GivesAll,
            "fail",
            "/dev/nvidia7, and was to have /dev/nvidia0",
        ),
    ] {
        let host = Host::of("eight-h100");
        let engine = FakeEngine::start(host.data.path(), &host.gpus, manner);
        let file = host.data.path().join("agent.toml");
        let config = std::fs::read_to_string(&file).unwrap();
        let engine = format!("{config}[executors]\ndocker_host = \"{}\"\n", engine.host());
        std::fs::write(&file, engine).unwrap();
        let doctor = host.command(&["doctor", "--json"]).output().unwrap();
        let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
        let check = found
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == "gpu in a container");
        let check = check.unwrap_or_else(|| panic!("{found:#}"));
        assert_eq!(check["level"], level, "{check}");
        assert!(check["found"].as_str().unwrap().contains(words), "{check}");
    }
}

#[tokio::test]
async fn a_watch_shows_what_changes() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    let host = Host::of("one");
    let watch = host.command(&["gpus", "--watch", "--json", "--interval", "100ms"]);
    let mut watch = tokio::process::Command::from(watch)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || -> Value {
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line());
        serde_json::from_str(&line.await.expect("a line in time").unwrap().unwrap()).unwrap()
    };
    let first = next().await;
    assert_eq!(first["gpus"][0]["utilization_percent"], 0);
    host.gpus
        .change(|fleet| fleet["gpus"][0]["utilization"] = json!(97));
    let changed = loop {
        let line = next().await;
        if line["gpus"][0]["utilization_percent"] != 0 {
            break line;
        }
    };
    assert_eq!(changed["gpus"][0]["utilization_percent"], 97);
    assert!(changed["at"].as_i64() > first["at"].as_i64());
}
