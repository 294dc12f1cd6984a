//! How a job ended, and whose it is. Whoever reads a failure learns its owner first.

use serde::{Deserialize, Serialize};

use crate::ids::JobId;
use crate::units::{ByteSize, Span};

/// The end of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It ran and did what it was asked.
    Succeeded,
    /// An equal job succeeded before; nothing ran.
    Reused {
        /// The job whose result stands for this one.
        of: JobId,
    },
    /// It never ran, because something that it needs did not succeed, or nothing asks for it.
    Skipped {
        /// One sentence for people.
        why: String,
    },
    /// Somebody or something ended it.
    Cancelled {
        /// A person's or a rule's name.
        by: String,
    },
    /// It failed; the failure says whose it is.
    Failed(Failure),
}

impl Outcome {
    /// Whether jobs that need this one may go on.
    #[must_use]
    pub fn is_success(&self) -> bool {
        match self {
            Outcome::Succeeded | Outcome::Reused { .. } => true,
            Outcome::Skipped { .. } | Outcome::Cancelled { .. } | Outcome::Failed(_) => false,
        }
    }

    /// The word for tables: `succeeded`, `reused`, `skipped`, `cancelled`, `failed`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Succeeded => "succeeded",
            Outcome::Reused { .. } => "reused",
            Outcome::Skipped { .. } => "skipped",
            Outcome::Cancelled { .. } => "cancelled",
            Outcome::Failed(_) => "failed",
        }
    }
}

/// Who has to act on a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The code, its requirements or its pipeline file.
    User,
    /// A limit that the job asked for or that the host set.
    Limit,
    /// Trainyard, its hosts, or the network between. Only these are retried.
    Platform,
}

impl Owner {
    /// `user`, `limit` or `platform`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Owner::User => "user",
            Owner::Limit => "limit",
            Owner::Platform => "platform",
        }
    }
}

macro_rules! failure_kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal, $owner:ident;)+) => {
        /// What went wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum FailureKind {
            $($(#[$doc])* #[serde(rename = $word)] $kind,)+
        }

        impl FailureKind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &'static [FailureKind] = &[$(FailureKind::$kind,)+];

            /// The kind's word in JSON, tables and documentation.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(FailureKind::$kind => $word,)+ }
            }

            /// Whose failure it is.
            #[must_use]
            pub fn owner(self) -> Owner {
                match self { $(FailureKind::$kind => Owner::$owner,)+ }
            }
        }
    };
}

failure_kinds! {
    /// A lint tool found something at error level.
    LintFailed = "lint_failed", User;
    /// A notebook cell raised.
    CellRaised = "cell_raised", User;
    /// A command ended with a non-zero code or by a signal of its own.
    CommandFailed = "command_failed", User;
    /// The kernel ended by itself, not by a limit.
    KernelDied = "kernel_died", User;
    /// The requirements cannot be resolved or built.
    RequirementsUnresolved = "requirements_unresolved", User;
    /// The job declares a model and left none.
    ModelMissing = "model_missing", User;
    /// A metric is worse than its declared tolerance allows.
    MetricRegressed = "metric_regressed", User;
    /// `.trainyard.yml` is wrong.
    PipelineFileWrong = "pipeline_file_wrong", User;
    /// A notebook is not JSON, not nbformat, or names a kernel that the image does not have.
    NotebookInvalid = "notebook_invalid", User;
    /// The commit's files cannot be used: too many, too large, or at paths that lead elsewhere.
    CommitUnusable = "commit_unusable", User;
    /// The image named does not exist or cannot run the job.
    ImageUnusable = "image_unusable", User;

    /// Memory asked for was used up.
    OutOfMemory = "out_of_memory", Limit;
    /// GPU memory was used up.
    GpuOutOfMemory = "gpu_out_of_memory", Limit;
    /// A cell ran longer than `cell_timeout`.
    CellTimeout = "cell_timeout", Limit;
    /// The job ran longer than `timeout`.
    JobTimeout = "job_timeout", Limit;
    /// Nothing was said for `silence_timeout`.
    SilenceTimeout = "silence_timeout", Limit;
    /// The job's GPUs were hardly used for `gpu_idle_timeout`.
    GpuIdle = "gpu_idle", Limit;
    /// More output than is kept.
    OutputLimit = "output_limit", Limit;
    /// More disk than the job may use.
    DiskLimit = "disk_limit", Limit;
    /// More processes or threads than the job may have.
    ProcessLimit = "process_limit", Limit;

    /// The commit could not be fetched or checked out.
    CheckoutFailed = "checkout_failed", Platform;
    /// The package index does not answer.
    IndexUnreachable = "index_unreachable", Platform;
    /// The executor could not start the job, or lost it.
    ExecutorFailed = "executor_failed", Platform;
    /// A GPU disappeared or reported a hardware error.
    GpuLost = "gpu_lost", Platform;
    /// A GPU was not free before, or not clean after.
    GpuUnclean = "gpu_unclean", Platform;
    /// The agent was not seen for `lost_after`.
    AgentLost = "agent_lost", Platform;
    /// What the job left could not be uploaded.
    UploadFailed = "upload_failed", Platform;
    /// A fault of Trainyard's own.
    Internal = "internal", Platform;
}

/// One failure: what, whose, where, and what to do next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong; it fixes the owner.
    pub kind: FailureKind,
    /// One sentence: what happened, with the names and numbers that matter.
    pub message: String,
    /// What to do next, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The cell, where one is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellPlace>,
    /// The limit, for failures that a limit owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitReached>,
    /// The tool's own words (traceback, uv's message), at most 16 KiB, ANSI colours kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Where in a notebook something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellPlace {
    /// Path of the notebook in the repository.
    pub path: String,
    /// Index among all cells of the notebook in the repository, from 0.
    pub index: u32,
    /// Line within the cell, from 1, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Line in the raw `.ipynb`, from 1, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_line: Option<u32>,
}

/// A limit, what was used of it, and what would fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum LimitReached {
    /// Bytes of memory, GPU memory, disk or output.
    Bytes {
        /// What the job asked for or was given.
        limit: ByteSize,
        /// The peak that was measured, where it was.
        used: Option<ByteSize>,
    },
    /// Time.
    Time {
        /// The time allowed.
        limit: Span,
    },
    /// Processes and threads.
    Processes {
        /// How many were allowed.
        limit: u64,
    },
}

impl Failure {
    /// A failure with a message and nothing else yet.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            cell: None,
            limit: None,
            detail: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the tool's own words, keeping the last 16 KiB: an error stands at the end.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        const MOST: usize = 16 << 10;
        let detail = detail.into();
        let cut = detail.len().saturating_sub(MOST);
        let cut = (cut..=detail.len())
            .find(|&i| detail.is_char_boundary(i))
            .unwrap_or(0);
        self.detail = Some(if cut == 0 {
            detail
        } else {
            format!("[…]{}", &detail[cut..])
        });
        self
    }

    /// Adds the limit that was reached.
    #[must_use]
    pub fn limit(mut self, limit: LimitReached) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Adds the cell to blame.
    #[must_use]
    pub fn cell(mut self, cell: CellPlace) -> Self {
        self.cell = Some(cell);
        self
    }

    /// Whose failure it is.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.kind.owner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_words_are_the_table_words() {
        for kind in FailureKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
    }

    #[test]
    fn detail_keeps_the_end_and_cuts_at_a_character() {
        let failure = Failure::new(FailureKind::CellRaised, "x").detail("é".repeat(20_000) + "end");
        let detail = failure.detail.unwrap();
        assert!(detail.starts_with("[…]é") && detail.ends_with("éend") && detail.len() < 17_000);
    }

    #[test]
    fn outcome_reads_back() {
        let outcome = Outcome::Failed(Failure::new(FailureKind::OutOfMemory, "used 16 GiB"));
        let json = serde_json::to_string(&outcome).unwrap();
        assert!(
            json.starts_with(r#"{"outcome":"failed","kind":"out_of_memory""#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome);
    }
}
