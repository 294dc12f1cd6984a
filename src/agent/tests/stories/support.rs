//! A host in a temporary folder, and orders for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::attempt::{self, AttemptDir, Control};
use agent::config::Config;
use agent::executor::Engine;
use agent::hardware::Hardware;
use agent::host::Host;
use agent::journal::Journal;
use protocol::agent_api::{AttemptOrder, Source};
use protocol::event::EventKind;
use protocol::report::AttemptReport;
use protocol::spec::{Limits, Network, Resources};
use protocol::{
    AttemptId, ByteSize, Failure, JobId, JobSpec, Outcome, PipelineId, ProjectId, Span, Trust, Work,
};
use serde_json::{Value, json};

pub(crate) const IMAGE: &str = "trainyard/notebook";

/// One host and one project folder.
pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) host: Host,
    pub(crate) project: ProjectId,
}

pub(crate) fn config(data: &Path) -> Config {
    let mut config = Config {
        data: data.to_owned(),
        ..Config::default()
    };
    config.jobs.grace = Span::secs(2);
    config.jobs.offline = true;
    config.disk.watermark = ByteSize(0);
    config
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(folder.path().join("project")).unwrap();
        let mut config = config(&data);
        change(&mut config);
        let hardware = Arc::new(Hardware::open(&config));
        let inventory = hardware.inventory(&config, None, Vec::new());
        Self {
            host: Host::open(config, inventory, hardware).unwrap(),
            folder,
            project: ProjectId::generate(),
        }
    }

    /// The same disk, another process: what an agent is after its restart.
    pub(crate) fn again(&self) -> Host {
        let host = &self.host;
        let hardware = Arc::clone(&host.hardware);
        Host::open(host.config.clone(), host.inventory.clone(), hardware).unwrap()
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.folder.path().join("project").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub(crate) fn notebook(&self, path: &str, cells: &[&str]) -> &Self {
        let cell = |(n, source): (usize, &&str)| json!({"cell_type": "code", "id": format!("c{n}"), "metadata": {}, "outputs": [], "execution_count": null, "source": source});
        let cells: Vec<Value> = cells.iter().enumerate().map(cell).collect();
        let kernel = json!({"name": "python3", "display_name": "Python 3", "language": "python"});
        let text = json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells});
        self.write(path, &serde_json::to_string_pretty(&text).unwrap())
    }

    pub(crate) fn order(&self, work: Work) -> AttemptOrder {
        AttemptOrder {
            attempt: AttemptId::generate(),
            generation: 1,
            job: JobId::generate(),
            number: 1,
            pipeline: PipelineId::generate(),
            project: self.project.clone(),
            project_name: "story".into(),
            source: Source::Folder {
                path: self.folder.path().join("project").display().to_string(),
            },
            trust: Trust::Trusted,
            spec: JobSpec {
                name: "train".into(),
                definition: "train".into(),
                work,
                parameters: protocol::spec::Parameters::new(),
                checkout: Default::default(),
                image: IMAGE.into(),
                python: None,
                env: BTreeMap::new(),
                secrets: Vec::new(),
                network: Network::None,
                resources: Resources {
                    cpu_millis: 1_000,
                    memory: ByteSize::mib(512),
                    ..Resources::default()
                },
                runs_on: Vec::new(),
                volumes: BTreeMap::new(),
                turn: protocol::spec::Turn::default(),
                needs: Vec::new(),
                artifacts: Vec::new(),
                limits: Limits {
                    timeout: Span::secs(120),
                    ..Limits::default()
                },
                checkpoints: Default::default(),
                model: None,
                metrics: BTreeMap::new(),
                first_metric: None,
                parent: None,
                retries: 0,
                reuse: true,
            },
            secrets: BTreeMap::new(),
            gpus: Vec::new(),
            needs: BTreeMap::new(),
            parent: None,
            checkpoint: None,
            run: None,
        }
    }

    pub(crate) fn command(&self, text: &str) -> AttemptOrder {
        self.order(Work::Command { text: text.into() })
    }

    /// A command whose text is a Python program.
    pub(crate) fn python(&self, program: &str) -> AttemptOrder {
        self.write("main.py", program);
        self.command("python3 main.py")
    }

    pub(crate) fn dir(&self, order: &AttemptOrder) -> AttemptDir {
        AttemptDir::create(self.host.data(), order).unwrap()
    }

    pub(crate) async fn run(&self, order: &AttemptOrder) -> Done {
        let dir = self.dir(order);
        let journal = Journal::open(&dir.journal()).unwrap();
        let report = attempt::run(&self.host, dir.clone(), &journal, Control::new()).await;
        let said = text(&journal);
        Done {
            report,
            dir,
            journal,
            said,
        }
    }

    /// Containers of an attempt, running or not.
    pub(crate) fn containers(&self, order: &AttemptOrder) -> Vec<String> {
        let output = std::process::Command::new("docker")
            .args(["ps", "--all", "--quiet", "--filter"])
            .arg(format!("label=trainyard.attempt={}", order.attempt))
            .output()
            .unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

/// An attempt that ended.
pub(crate) struct Done {
    pub(crate) report: AttemptReport,
    pub(crate) dir: AttemptDir,
    pub(crate) journal: Journal,
    /// What the job itself said.
    pub(crate) said: String,
}

impl Done {
    pub(crate) fn failure(&self) -> &Failure {
        match &self.report.outcome {
            Outcome::Failed(failure) => failure,
            other => panic!("it did not fail: {other:?}"),
        }
    }

    pub(crate) fn succeeded(&self) -> &Self {
        assert_eq!(self.report.outcome, Outcome::Succeeded);
        self
    }

    pub(crate) fn events(&self) -> Vec<EventKind> {
        events(&self.journal)
    }

    pub(crate) fn text(&self) -> &str {
        &self.said
    }

    pub(crate) fn blob(&self, path: &str) -> Vec<u8> {
        let artifact = self
            .report
            .artifacts
            .iter()
            .find(|artifact| artifact.path == path);
        let artifact =
            artifact.unwrap_or_else(|| panic!("no artifact {path} in {:?}", self.report.artifacts));
        std::fs::read(self.dir.blobs().join(artifact.blob.as_str())).unwrap()
    }
}

pub(crate) fn events(journal: &Journal) -> Vec<EventKind> {
    let events = journal.read(1, 64 << 20).unwrap();
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    let expected: Vec<u64> = (1..=events.len() as u64).collect();
    assert_eq!(numbers, expected, "numbers have no gap and no repeat");
    events
        .into_iter()
        .filter_map(|event| event.body.known().cloned())
        .collect()
}

/// What the job itself said.
pub(crate) fn text(journal: &Journal) -> String {
    let mut text = String::new();
    for event in events(journal) {
        if let EventKind::Log { text: said, stream } = event
            && stream != protocol::event::LogStream::Platform
        {
            text.push_str(&said);
        }
    }
    text
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "waited 60 s in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether an engine and the job image are here. Stories in containers are told only then; scripts/test sets
/// `TRAINYARD_TEST_DOCKER=required`, so that they cannot be skipped silently where it counts.
pub(crate) async fn engine() -> bool {
    let answers = Engine::connect(&config(&PathBuf::from("/nowhere")))
        .await
        .is_ok();
    let image = std::process::Command::new("docker")
        .args(["image", "inspect", IMAGE])
        .output();
    let ready = answers && image.is_ok_and(|output| output.status.success());
    let required = std::env::var_os("TRAINYARD_TEST_DOCKER").is_some_and(|word| word == "required");
    assert!(
        ready || !required,
        "Docker with the image {IMAGE} is required; run scripts/setup"
    );
    if !ready {
        eprintln!("not told: Docker or the image {IMAGE} is not here");
    }
    ready
}
