//! `.trainyard.yml`: read, checked, and refused with a place where something is wrong. It looks at no
//! other file of the repository.

mod check;
mod error;
mod group;
mod scalar;
mod types;
mod wants;

use protocol::Timestamp;

pub(crate) use check::lint_tool as lint_tool_fault;
pub use error::{FILE_NAME, FileError};
pub(crate) use error::{nearest, unknown};
pub use group::Group;
pub use scalar::{Branches, Cpus, Cron, Duration, Image, LintEntry, OneOrMore, Size, Table, Word};
pub use types::{
    Checkout, Defaults, Goal, Job, Metric, Model, Network, On, PipelineFile, Resources, Supersede,
    UnknownParameters,
};
pub(crate) use wants::{demands, mounts, turn_of};

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 256 << 10;
/// Most definitions of a file.
pub const MAX_DEFINITIONS: usize = 200;
/// Most jobs of a pipeline, members of matrices and globs counted.
pub const MAX_JOBS: usize = 500;
/// Most jobs of one matrix.
pub const MAX_MATRIX: usize = 256;
/// Tools of the lint job whose words are known in every detail; nbQA runs any other.
pub const LINT_TOOLS: [&str; 7] = [
    "ruff",
    "ruff-format",
    "black",
    "isort",
    "flake8",
    "mypy",
    "pylint",
];
/// Most tools of the lint job.
pub const MAX_LINT_TOOLS: usize = 20;
/// Name of the lint job; no definition may have it.
pub const LINT: &str = "lint";

/// A definition's time table.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Which definition.
    pub definition: String,
    /// When.
    pub cron: Cron,
}

impl Schedule {
    /// The first time after `after`, in UTC; none: never again.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = chrono::DateTime::<chrono::Utc>::from_timestamp_millis(after.0)?;
        let next = self.cron.cron.find_next_occurrence(&after, false).ok()?;
        Some(Timestamp(next.timestamp_millis()))
    }
}

impl PipelineFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(bytes: &[u8]) -> Result<Self, FileError> {
        if bytes.len() > MAX_FILE_BYTES {
            let size = bytes.len();
            return Err(FileError::whole(format!(
                "the file has {size} bytes, more than the {MAX_FILE_BYTES} that are read"
            )));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| FileError::whole("the file is not UTF-8 text"))?;
        if text.trim().is_empty() {
            return Err(FileError::whole(
                "the file is empty; `trainyard init` writes a first one",
            ));
        }
        let file: PipelineFile = serde_saphyr::from_str_with_options(text, options())
            .map_err(|error| FileError::from_yaml(&error))?;
        check::file(&file)?;
        Ok(file)
    }

    /// A definition by name.
    #[must_use]
    pub fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.get(name)
    }

    /// When a definition runs: its own `on`, else the default's; none: pushes and pull requests.
    #[must_use]
    pub fn on<'a>(&'a self, job: &'a Job) -> Option<&'a On> {
        job.on.as_ref().or(self.defaults.on.as_ref())
    }

    /// All time tables.
    #[must_use]
    pub fn schedules(&self) -> Vec<Schedule> {
        let of = |(name, job): (&str, &Job)| {
            let crons = self.on(job).and_then(|on| on.schedule.clone());
            let crons = crons.map_or_else(Vec::new, |crons| crons.0);
            let name = name.to_owned();
            crons.into_iter().map(move |cron| Schedule {
                definition: name.clone(),
                cron,
            })
        };
        self.jobs.iter().flat_map(of).collect()
    }
}

fn options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_depth: 16,
        max_nodes: 20_000,
        max_events: 80_000,
        max_documents: 1,
        max_aliases: 200,
        max_anchors: 200,
        max_merge_keys: 200,
    };
    serde_saphyr::options! {
        budget: budget,
        strict_booleans: true,
        with_snippet: false,
    }
}
