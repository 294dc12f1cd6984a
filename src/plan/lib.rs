//! `.trainyard.yml`, and what a commit runs: (files, trigger, file) -> jobs, each with the key that tells
//! whether an earlier result may stand for it. It knows no network and no store, and runs nothing.
#![forbid(unsafe_code)]

mod documents;
mod error;
mod expand;
mod explain;
pub mod file;
mod globs;
mod here;
mod init;
mod inputs;
mod key;
mod lint;
mod make;
mod needs;
mod parameters;
mod placeholders;
mod planned;
mod schema;
mod select;
mod verdict;

pub use error::PlanError;
pub use explain::explain;
pub use file::{FILE_NAME, FileError, PipelineFile, Schedule};
pub use globs::Globs;
pub use here::{definition_of, plan_notebook};
pub use init::{FirstFile, NothingToRun, first_file};
pub use lint::{lint_here, lint_tool};
pub use make::{Context, DEFAULT_IMAGE, Parents, asked_parents, plan};
pub use needs::needs;
pub use parameters::{check_parameters, written};
pub use planned::{Dep, Ignored, KeyPart, MAX_DEPS, Plan, PlannedJob};
pub use schema::schema;
pub use verdict::{Decision, Verdict, verdicts};
