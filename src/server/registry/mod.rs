//! The embedded registry: runs, models, versions, candidates, aliases, lineage. It loads no model and
//! trusts no name that a job gave.

mod catalog;
mod compare;
mod derive;
pub mod mlflow;
mod regression;
#[cfg(test)]
mod stories;
mod tick;

pub use catalog::{
    RegistryError, compare_versions, list, model, promote, roll_back, set_alias, version,
};
pub use compare::compare;
pub use derive::run_id;
pub use mlflow::runs::new_id as new_run_id;
pub use regression::{Regression, judge, regression};
pub use tick::{Registrar, begin_run, valid_name};
