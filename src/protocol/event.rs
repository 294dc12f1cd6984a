//! Events: the numbered lines of an attempt's story, one JSON object a line.
//!
//! The driver writes them without numbers ([`Unnumbered`]), the agent numbers them ([`Event`]); a
//! number is never used twice. Kinds that this version does not know are kept and passed on.

use notebook::message::OutputMessage;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::outcome::Outcome;
use crate::spec::LintLevel;
use crate::units::{ByteSize, Span, Timestamp};

/// A numbered event. `seq` starts at 1 for each attempt and has no gaps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The agent's number.
    pub seq: u64,
    /// When it happened, by the clock of the host.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// An event as the driver writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unnumbered {
    /// When it happened, by the clock of the host.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

impl Unnumbered {
    /// `body`, now.
    #[must_use]
    pub fn now(body: EventBody) -> Self {
        Self {
            at: Timestamp::now(),
            body,
        }
    }

    /// The event with its number.
    #[must_use]
    pub fn number(self, seq: u64) -> Event {
        Event {
            seq,
            at: self.at,
            body: self.body,
        }
    }
}

/// What happened: a kind that is known, or one of a newer version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventBody {
    /// A kind of this version.
    Known(EventKind),
    /// Anything else: kept as it came.
    Unknown(Map<String, Value>),
}

impl From<EventKind> for EventBody {
    fn from(kind: EventKind) -> Self {
        EventBody::Known(kind)
    }
}

impl EventBody {
    /// The kind, where this version knows it.
    #[must_use]
    pub fn known(&self) -> Option<&EventKind> {
        match self {
            EventBody::Known(kind) => Some(kind),
            EventBody::Unknown(_) => None,
        }
    }
}

/// The kinds of this version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The attempt entered a phase.
    Phase {
        /// Which.
        phase: Phase,
        /// One line for people: what is being done, and whether a cache was hit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// Text of a command, a lint tool, or of the platform itself; at most 64 KiB, whole characters.
    Log {
        /// Whose text.
        stream: LogStream,
        /// With line ends as they came.
        text: String,
    },
    /// A lint tool found something.
    Finding(Finding),
    /// A lint tool ended, and what it said was read.
    ToolFinished(ToolRun),
    /// The kernel's life: `starting`, `ready`, `died`, `ended`.
    Kernel {
        /// One of those words.
        status: String,
        /// The kernel's name and version, or why it died.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A cell began, or was passed over.
    CellStarted {
        /// Index among all cells of the notebook that is executed, from 0.
        cell: u32,
        /// Number of code cells that will run, for progress.
        of: u32,
        /// Which cell of the repository's notebook it is; none: an older driver did not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<CellSource>,
    },
    /// A cell said something.
    Output {
        /// Index of the cell.
        cell: u32,
        /// What, or where it lies.
        #[serde(flatten)]
        content: OutputContent,
    },
    /// A cell ended.
    CellFinished {
        /// Index of the cell.
        cell: u32,
        /// How.
        status: CellStatus,
        /// How long it ran.
        duration: Span,
        /// The kernel's count (`In [n]`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        execution_count: Option<u64>,
    },
    /// A measured value.
    Metric {
        /// Its name.
        name: String,
        /// Its value; not finite ones are `"NaN"`, `"Infinity"`, `"-Infinity"`.
        #[serde(with = "float")]
        value: f64,
        /// Step, for curves.
        #[serde(default)]
        step: i64,
    },
    /// A setting that the job used.
    Param {
        /// Its name.
        name: String,
        /// Its value as text.
        value: String,
    },
    /// Use of the host at one moment.
    Sample(Sample),
    /// A file was kept.
    Artifact(Artifact),
    /// The last event of an attempt.
    Finished {
        /// How it ended. Not flattened: a failure has a `kind` of its own.
        outcome: Outcome,
    },
}

/// Which cell of the repository's notebook an executed cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellSource {
    /// The one with this number, counted from 1 among all cells.
    Number(u32),
    /// None: it holds the values that the run was given.
    Injected,
}

/// The phases of an attempt, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The commit is fetched and checked out.
    Workspace,
    /// The Python environment is built or found.
    Environment,
    /// The job's code runs.
    Run,
    /// What it left is gathered.
    Collect,
    /// What was gathered goes to the server.
    Upload,
    /// Nothing is left to do.
    Finished,
}

impl Phase {
    /// The phase's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Phase::Workspace => "workspace",
            Phase::Environment => "environment",
            Phase::Run => "run",
            Phase::Collect => "collect",
            Phase::Upload => "upload",
            Phase::Finished => "finished",
        }
    }
}

/// Whose text a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// The job's standard output.
    Stdout,
    /// The job's standard error.
    Stderr,
    /// Trainyard's own words.
    Platform,
}

/// An output: inline, or a blob where it is above 64 KiB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OutputContent {
    /// The message as the kernel sent it.
    Inline {
        /// The message.
        output: OutputMessage,
    },
    /// The JSON of the message lies in a blob.
    Stored {
        /// The blob; in the driver's folder it is the file `blobs/<digest>`.
        blob: Digest,
        /// Its length.
        bytes: ByteSize,
    },
}

/// How a cell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellStatus {
    /// It ran to its end.
    Ok,
    /// It raised.
    Error,
    /// It raised, and its tag `raises-exception` or the notebook's `execution.allow_errors` allows that.
    ErrorAllowed,
    /// It is tagged `skip-execution`, or is empty.
    Skipped,
    /// It was ended: time-out, cancel, or the kernel died.
    Interrupted,
}

impl CellStatus {
    /// Its word in JSON and in a notebook's metadata.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            CellStatus::Ok => "ok",
            CellStatus::Error => "error",
            CellStatus::ErrorAllowed => "error_allowed",
            CellStatus::Skipped => "skipped",
            CellStatus::Interrupted => "interrupted",
        }
    }
}

/// What a lint tool found, at the place where a person looks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The tool.
    pub tool: String,
    /// How much it weighs.
    pub level: LintLevel,
    /// Path in the repository.
    pub path: String,
    /// Cell as a person counts: among all cells, from 1. None for a `.py` or the whole notebook.
    pub cell: Option<u32>,
    /// The same cell as nbQA counts: among code cells, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_cell: Option<u32>,
    /// Line within the cell (or file), from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// Line of the raw `.ipynb`, from 1.
    pub raw_line: Option<u32>,
    /// The tool's code, such as `F841`.
    pub code: Option<String>,
    /// The tool's sentence.
    pub message: String,
    /// What a formatter would do: a unified diff of the cell's source without file names, at most 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// One tool's part of a lint job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolRun {
    /// The tool.
    pub tool: String,
    /// Its exit code; none: it had not ended when the job was.
    pub code: Option<i32>,
    /// It did not do its work: its words are in the log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Findings that are kept.
    pub findings: u32,
    /// How long it ran.
    pub took: Span,
    /// How long Trainyard took to read what it said, in microseconds.
    pub read_us: u64,
}

/// Use of the host by one attempt at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// CPUs in use, in thousandths.
    pub cpu_millis: u64,
    /// Memory in use.
    pub memory: ByteSize,
    /// GPUs by UUID.
    #[serde(default)]
    pub gpus: Vec<GpuSample>,
}

/// Use of one GPU at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuSample {
    /// Its UUID.
    pub uuid: String,
    /// Utilisation in percent; none of a MIG slice, of which NVML tells none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<u32>,
    /// Memory in use.
    pub memory: ByteSize,
}

impl Sample {
    /// `1.8 CPUs, 3.2 GiB, GPU 87 % and 40 GiB`; several GPUs as one, by mean and sum.
    #[must_use]
    pub fn words(&self) -> String {
        let cpus = self.cpu_millis as f64 / 1_000.0;
        let mut words = format!("{cpus:.1} CPUs, {}", self.memory);
        let name = match self.gpus.len() {
            0 => return words,
            1 => "GPU".to_owned(),
            n => format!("{n} GPUs"),
        };
        let known: Vec<u32> = self.gpus.iter().filter_map(|gpu| gpu.utilization).collect();
        let memory = ByteSize(self.gpus.iter().map(|gpu| gpu.memory.0).sum());
        words += &match known.len() {
            0 => format!(", {name} {memory}"),
            n => format!(
                ", {name} {} % and {memory}",
                known.iter().sum::<u32>() / n as u32
            ),
        };
        words
    }
}

/// A file that an attempt leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// What it is.
    pub role: ArtifactRole,
    /// Path that people see, with `/`, relative and without `..`.
    pub path: String,
    /// Its content.
    pub blob: Digest,
    /// Its length.
    pub size: ByteSize,
}

/// What an artifact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactRole {
    /// The executed notebook.
    Notebook,
    /// A file of the model; the path is relative to the model's folder.
    Model,
    /// A file that the job declared.
    Declared,
    /// An output above 64 KiB, or what a cell said past its limit.
    Output,
}

/// Floats as JSON numbers, and those that JSON lacks as MLflow's words.
pub mod float {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use serde_json::Value;

    /// Writes a float.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            serializer.serialize_f64(*value)
        } else if value.is_nan() {
            serializer.serialize_str("NaN")
        } else {
            serializer.serialize_str(if *value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            })
        }
    }

    /// Reads a float.
    ///
    /// # Errors
    /// Where it is neither a number nor one of the three words.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(number) => number
                .as_f64()
                .ok_or_else(|| D::Error::custom("not a float")),
            Value::String(word) => match word.as_str() {
                "NaN" => Ok(f64::NAN),
                "Infinity" => Ok(f64::INFINITY),
                "-Infinity" => Ok(f64::NEG_INFINITY),
                _ => Err(D::Error::custom("not a number, NaN, Infinity or -Infinity")),
            },
            _ => Err(D::Error::custom("not a number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notebook::message::StreamName;

    #[test]
    fn an_event_is_one_flat_object() {
        let event = Unnumbered {
            at: Timestamp(7),
            body: EventKind::Output {
                cell: 3,
                content: OutputContent::Inline {
                    output: OutputMessage::Stream {
                        name: StreamName::Stdout,
                        text: "hi\n".into(),
                    },
                },
            }
            .into(),
        }
        .number(12);
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(
            json,
            r#"{"seq":12,"at":7,"kind":"output","cell":3,"output":{"output_type":"stream","name":"stdout","text":"hi\n"}}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }

    #[test]
    fn a_failure_does_not_hide_the_kind_of_its_event() {
        use crate::outcome::{Failure, FailureKind};
        let outcome = Outcome::Failed(Failure::new(FailureKind::CommandFailed, "exit code 3"));
        let event = Unnumbered::now(EventKind::Finished { outcome }.into());
        let json = serde_json::to_string(&event).unwrap();
        let read: Unnumbered = serde_json::from_str(&json).unwrap();
        assert!(read.body.known().is_some(), "{json}");
        assert_eq!(read, event);
    }

    #[test]
    fn a_sample_is_one_line_for_people() {
        let gpu = |utilization| GpuSample {
            uuid: "GPU-1".into(),
            utilization,
            memory: ByteSize::gib(20),
        };
        let mut sample = Sample {
            cpu_millis: 1_840,
            memory: ByteSize::gib(3),
            gpus: vec![],
        };
        assert_eq!(sample.words(), "1.8 CPUs, 3 GiB");
        sample.gpus = vec![gpu(Some(90)), gpu(Some(30))];
        assert_eq!(sample.words(), "1.8 CPUs, 3 GiB, 2 GPUs 60 % and 40 GiB");
        sample.gpus = vec![gpu(None)];
        assert_eq!(sample.words(), "1.8 CPUs, 3 GiB, GPU 20 GiB");
    }

    #[test]
    fn kinds_of_a_newer_version_are_passed_on() {
        let json = r#"{"seq":1,"at":2,"kind":"hologram","depth":3}"#;
        let event: Event = serde_json::from_str(json).unwrap();
        assert!(event.body.known().is_none());
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
    }

    #[test]
    fn metrics_that_json_lacks_survive() {
        let metric = EventKind::Metric {
            name: "loss".into(),
            value: f64::NAN,
            step: 2,
        };
        let json = serde_json::to_string(&metric).unwrap();
        assert!(json.contains(r#""value":"NaN""#), "{json}");
        let EventKind::Metric { value, .. } = serde_json::from_str(&json).unwrap() else {
            panic!("{json}")
        };
        assert!(value.is_nan());
    }
}
