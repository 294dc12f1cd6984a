//! What a forge should show of a commit. [`desired`], [`checks`] and [`comment`] are pure: rows in, statuses, check runs
//! and the one comment of a pull request out. [`Reporter`] makes the forge match it, and remembers what was accepted. [`Differ`] compares
//! notebooks before.

mod checks;
mod comment;
mod desired;
mod differ;
mod lane;
mod link;
mod reporter;
mod run;
#[cfg(test)]
mod stories;
mod view;
mod words;

#[cfg(test)]
mod tests;

pub use checks::checks;
pub use comment::{RequestView, comment};
pub use desired::{CommitView, JobView, ModelView, PipelineView, Reused, desired};
pub use differ::Differ;
pub use reporter::{Pass, ReportConfig, Reporter};
pub use run::run;
pub(crate) use view::of_pipeline;
pub(crate) use words::{blame, change, figure};
