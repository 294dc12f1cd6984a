//! What a forge should show of a commit. [`desired`] is pure: rows in, statuses out. [`Reporter`] makes
//! the forge match it, and remembers what was accepted.

mod desired;
mod reporter;
mod run;
#[cfg(test)]
mod stories;
mod view;
mod words;

#[cfg(test)]
mod tests;

pub use desired::{CommitView, JobView, PipelineView, Reused, desired};
pub use reporter::{Pass, ReportConfig, Reporter};
pub use run::run;
pub(crate) use words::figure;
