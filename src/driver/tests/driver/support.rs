//! A contract's folder, a notebook, and what the driver made of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use notebook::message::{OutputMessage, StreamName};
use notebook::{Fold, Notebook};
use protocol::driver::{DriverJob, DriverResult, DriverWork, OutputLimits, Verdict};
use protocol::event::{CellStatus, EventBody, EventKind, LogStream, OutputContent, Unnumbered};
use protocol::outcome::Failure;
use protocol::spec::{Limits, Parameters};
use protocol::units::Span;
use serde_json::{Value, json};
use tempfile::TempDir;

/// No story takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The Python with ipykernel that the stories use.
pub(crate) fn python() -> PathBuf {
    let place = std::env::var_os("TRAINYARD_TEST_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.trainyard/test-python/bin/python"),
        PathBuf::from,
    );
    assert!(
        place.exists(),
        "{} is missing: run scripts/setup",
        place.display()
    );
    place
}

/// One attempt.
pub(crate) struct World {
    folder: TempDir,
    pub(crate) job: DriverJob,
}

impl World {
    /// A notebook of code cells, each with its tags.
    pub(crate) fn notebook(cells: &[(&str, &[&str])]) -> Self {
        let world = Self::with(DriverWork::Notebook {
            path: "nb.ipynb".into(),
            parameters: Parameters::new(),
        });
        let cells: Vec<Value> = cells
            .iter()
            .enumerate()
            .map(|(index, (source, tags))| {
                json!({"cell_type": "code", "id": format!("c{index}"), "metadata": {"tags": tags},
                       "source": source, "outputs": [], "execution_count": null})
            })
            .collect();
        world.write("nb.ipynb", &notebook_of(&json!(cells)).to_string());
        world
    }

    /// A notebook of one cell.
    pub(crate) fn cell(source: &str) -> Self {
        Self::notebook(&[(source, &[])])
    }

    /// A command for `sh`.
    pub(crate) fn command(text: &str) -> Self {
        Self::with(DriverWork::Command {
            argv: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
        })
    }

    fn with(work: DriverWork) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let python = python();
        let bin = python.parent().unwrap().display();
        let env = BTreeMap::from([
            ("PATH".to_owned(), format!("{bin}:/usr/bin:/bin")),
            ("HOME".to_owned(), at("home")),
        ]);
        let job = DriverJob {
            work,
            workdir: at("work"),
            env,
            limits: Limits::default(),
            kernel_start_timeout: Span::secs(60),
            grace: Span::secs(15),
            output: OutputLimits::default(),
            user: None,
            hand_over: None,
            gpus: None,
            registry: None,
        };
        Self { folder, job }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path("work").join(name), text).unwrap();
    }

    /// Sets a field of the notebook's metadata.
    pub(crate) fn metadata(&self, key: &str, value: Value) {
        let path = self.path("work/nb.ipynb");
        let mut notebook: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        notebook["metadata"][key] = value;
        fs::write(path, notebook.to_string()).unwrap();
    }

    /// Puts a program before the test Python on the job's PATH.
    pub(crate) fn program(&mut self, name: &str, text: &str) {
        let bin = self.path("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join(name), text).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", bin.display());
        self.job.env.insert("PATH".into(), path);
    }

    /// Starts the driver.
    pub(crate) fn start(self) -> Running {
        fs::write(
            self.path("job.json"),
            serde_json::to_vec(&self.job).unwrap(),
        )
        .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_trainyard-driver"))
            .args(["run", "--dir"])
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Running { world: self, child }
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Told {
        self.start().end()
    }
}

pub(crate) fn notebook_of(cells: &Value) -> Value {
    json!({"nbformat": 4, "nbformat_minor": 5, "cells": cells,
           "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}})
}

/// A driver that runs.
pub(crate) struct Running {
    pub(crate) world: World,
    pub(crate) child: Child,
}

impl Running {
    /// Waits for a condition.
    pub(crate) fn until(&mut self, what: &str, mut condition: impl FnMut(&World) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.world) {
            assert!(Instant::now() < deadline, "in vain for {what}");
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "it ended before {what}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until an output holds the text.
    pub(crate) fn until_said(&mut self, text: &str) {
        self.until(text, |world| {
            fs::read_to_string(world.path("out/events.ndjson"))
                .is_ok_and(|events| events.contains(text))
        });
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.unwrap(), signal).unwrap();
    }

    /// Waits for its end and reads what it told.
    pub(crate) fn end(mut self) -> Told {
        let deadline = Instant::now() + PATIENCE;
        let mut peak = 0;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            peak = peak_memory(self.child.id()).unwrap_or(peak);
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("the driver did not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(status.success(), "{status}");
        Told::read(self.world, peak)
    }
}

/// What the driver told.
pub(crate) struct Told {
    pub(crate) world: World,
    pub(crate) events: Vec<EventKind>,
    pub(crate) result: DriverResult,
    /// Most memory that the driver had, in bytes.
    pub(crate) peak_memory: u64,
}

impl Told {
    fn read(world: World, peak_memory: u64) -> Self {
        let events = fs::read_to_string(world.path("out/events.ndjson")).unwrap();
        let events = events
            .lines()
            .map(
                |line| match serde_json::from_str::<Unnumbered>(line).unwrap().body {
                    EventBody::Known(kind) => kind,
                    EventBody::Unknown(other) => panic!("{other:?}"),
                },
            )
            .collect();
        let result =
            serde_json::from_slice(&fs::read(world.path("out/result.json")).unwrap()).unwrap();
        Self {
            world,
            events,
            result,
            peak_memory,
        }
    }

    pub(crate) fn failure(&self) -> &Failure {
        match &self.result.verdict {
            Verdict::Failed { failure } => failure,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn succeeded(&self) {
        assert_eq!(self.result.verdict, Verdict::Succeeded);
    }

    /// Outputs of a cell as the events say, blobs included.
    pub(crate) fn outputs(&self, of: u32) -> Vec<OutputMessage> {
        let output = |event: &EventKind| match event {
            EventKind::Output { cell, content } if *cell == of => Some(self.message(content)),
            _ => None,
        };
        self.events.iter().filter_map(output).collect()
    }

    /// Standard output of a cell.
    pub(crate) fn stdout(&self, of: u32) -> String {
        self.stream(of, StreamName::Stdout)
    }

    /// A stream of a cell.
    pub(crate) fn stream(&self, of: u32, stream: StreamName) -> String {
        let text = |output| match output {
            OutputMessage::Stream { name, text } if name == stream => Some(text),
            _ => None,
        };
        self.outputs(of).into_iter().filter_map(text).collect()
    }

    /// Text of a log stream.
    pub(crate) fn log(&self, of: LogStream) -> String {
        let text = |event: &EventKind| match event {
            EventKind::Log { stream, text } if *stream == of => Some(text.clone()),
            _ => None,
        };
        self.events.iter().filter_map(text).collect()
    }

    /// Cells that ended, in order.
    pub(crate) fn statuses(&self) -> Vec<(u32, CellStatus)> {
        let status = |event: &EventKind| match event {
            EventKind::CellFinished { cell, status, .. } => Some((*cell, *status)),
            _ => None,
        };
        self.events.iter().filter_map(status).collect()
    }

    /// The notebook that the events alone make, as the agent and the server fold it.
    pub(crate) fn folded(&self) -> Notebook {
        let source = fs::read(self.world.path("work/nb.ipynb")).unwrap();
        let mut fold = Fold::new(notebook::nbformat::read(&source).unwrap());
        for event in &self.events {
            match event {
                EventKind::CellStarted { cell, .. } => {
                    fold.cell_started(*cell as usize, 0).unwrap()
                }
                EventKind::Output { cell, content } => {
                    fold.output(*cell as usize, &self.message(content)).unwrap();
                }
                _ => {}
            }
        }
        fold.into_notebook()
    }

    fn message(&self, content: &OutputContent) -> OutputMessage {
        match content {
            OutputContent::Inline { output } => output.clone(),
            OutputContent::Stored { blob, .. } => {
                let path = self.world.path("out/blobs").join(blob.as_str());
                serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
            }
        }
    }

    /// The executed notebook.
    pub(crate) fn executed(&self) -> Value {
        serde_json::from_slice(&fs::read(self.world.path("out/executed.ipynb")).unwrap()).unwrap()
    }
}

/// Most memory that a living process has had, in bytes.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// Whether a process lives (a zombie does not).
pub(crate) fn lives(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
    })
}
