//! The GPUs of this host for people: reading, ledger and containers in one view. It prints nothing and changes nothing.

use std::collections::BTreeMap;

use protocol::hardware::Gpu;
use protocol::{AttemptId, ByteSize, Timestamp};
use serde::Serialize;

use crate::attempt::ATTEMPT_LABEL;
use crate::config::Config;
use crate::executor::Engine;
use crate::hardware::{GpuProcess, GpuReading};
use crate::ledger::Ledger;

/// One GPU or slice, and who is on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuView {
    /// What it is, and whether jobs may use it.
    #[serde(flatten)]
    pub gpu: Gpu,
    /// Memory in use.
    pub used: ByteSize,
    /// Use; NVML tells none of slices.
    pub utilization_percent: Option<u32>,
    /// The attempt that has it.
    pub attempt: Option<AttemptId>,
    /// Who is on it.
    pub processes: Vec<ProcessView>,
    /// What is worth knowing and keeps no job away.
    pub notes: Vec<String>,
}

/// A process on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessView {
    /// Its id.
    pub pid: u32,
    /// Its name, where it can be seen.
    pub name: String,
    /// Whose it is, where that can be seen.
    pub user: Option<String>,
    /// What it uses of the GPU's memory, where that is known.
    pub memory: Option<ByteSize>,
    /// The attempt in whose container it runs; none: it is foreign to Trainyard.
    pub attempt: Option<AttemptId>,
}

/// Which container is whose attempt's.
#[derive(Debug, Default)]
pub struct Containers(BTreeMap<String, AttemptId>);

impl Containers {
    /// Asks the engine; where there is none, nothing is known.
    pub async fn ask(config: &Config) -> Self {
        if !config.executors.docker {
            return Self::default();
        }
        let ask = async {
            let engine = Engine::connect(config).await?;
            engine.find_any(ATTEMPT_LABEL).await
        };
        let found = ask.await.unwrap_or_default();
        let attempt = |labels: &std::collections::HashMap<String, String>| {
            labels.get(ATTEMPT_LABEL)?.parse().ok()
        };
        Self(
            found
                .into_iter()
                .filter_map(|found| Some((found.container.id, attempt(&found.labels)?)))
                .collect(),
        )
    }
}

/// Puts together what each knows. The ledger's files are as they were last read.
#[must_use]
pub fn view(readings: &[GpuReading], ledger: &Ledger, containers: &Containers) -> Vec<GpuView> {
    let booked = ledger.bookings();
    let one = |(reading, gpu): (&GpuReading, Gpu)| GpuView {
        used: reading.used,
        utilization_percent: reading.utilization,
        attempt: booked
            .get(&gpu.uuid)
            .filter(|booking| booking.run.is_none())
            .map(|booking| booking.attempt.clone()),
        processes: reading
            .processes
            .iter()
            .map(|process| process_view(process, containers))
            .collect(),
        notes: notes(reading, ledger),
        gpu,
    };
    readings
        .iter()
        .zip(ledger.judged(readings))
        .map(one)
        .collect()
}

fn notes(reading: &GpuReading, ledger: &Ledger) -> Vec<String> {
    let beside = ledger.beside(reading);
    let beside = (!beside.is_empty()).then(|| format!("also on it: {beside}"));
    beside.into_iter().chain(reading.notes.clone()).collect()
}

fn process_view(process: &GpuProcess, containers: &Containers) -> ProcessView {
    let container = process.container.as_ref();
    ProcessView {
        pid: process.pid,
        name: process.name.clone(),
        user: process.user.clone(),
        memory: process.memory,
        attempt: container.and_then(|id| containers.0.get(id)).cloned(),
    }
}

impl GpuView {
    /// How it stands, in one line.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> String {
        let sliced = self.gpu.kind == protocol::hardware::GpuKind::Sliced;
        let mut parts: Vec<String> = match (&self.attempt, self.gpu.health.hindrance(now)) {
            (Some(attempt), None) => vec![format!("attempt {attempt}")],
            (Some(attempt), Some(why)) => vec![format!("attempt {attempt}"), why],
            (None, Some(why)) => vec![why],
            (None, None) if sliced => vec!["cut into slices".to_owned()],
            (None, None) => vec!["free".to_owned()],
        };
        parts.extend(self.notes.iter().cloned());
        parts.join(" · ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::example;

    #[test]
    fn a_process_is_its_attempts_by_its_container() {
        let data = tempfile::tempdir().unwrap();
        let config = Config {
            data: data.path().to_owned(),
            ..Config::default()
        };
        let ledger = Ledger::open(&config).unwrap();
        let attempt = AttemptId::generate();
        let containers = Containers([("c1".to_owned(), attempt.clone())].into());
        let mut reading = example("GPU-1");
        ledger
            .book(&attempt, &["GPU-1".into()], &[reading.clone()])
            .unwrap();
        let process = |container: Option<&str>| GpuProcess {
            pid: 7,
            name: "python3".into(),
            user: Some("ada".into()),
            container: container.map(str::to_owned),
            memory: None,
        };
        reading.processes = vec![process(Some("c1")), process(Some("c2")), process(None)];
        reading.notes = vec!["slowed down: it is too hot".into()];
        let view = view(&[reading], &ledger, &containers).remove(0);
        let whose: Vec<_> = view.processes.iter().map(|p| p.attempt.clone()).collect();
        assert_eq!(whose, [Some(attempt.clone()), None, None]);
        assert_eq!(
            view.state(Timestamp::now()),
            format!(
                "attempt {attempt} · also on it: python3 of ada (pid 7) · slowed down: it is too hot"
            )
        );
    }
}
