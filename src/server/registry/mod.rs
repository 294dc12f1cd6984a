//! The embedded registry: runs, models, versions, candidates, aliases, lineage. It loads no model and
//! trusts no name that a job gave.

mod best;
mod catalog;
mod compare;
mod derive;
mod flavour;
mod here;
pub mod mlflow;
mod parent;
mod recognise;
mod regression;
mod removal;
mod reproduce;
#[cfg(test)]
mod stories;
mod tick;
mod why;

pub(crate) use best::best;
pub use catalog::{
    RegistryError, compare_versions, file, list, model, promote, roll_back, set_alias, version,
};
pub use compare::compare;
pub use derive::run_id;
pub(crate) use derive::{MODEL_FOLDER, params, tags};
pub use here::{Here, lineage_here};
pub use mlflow::runs::new_id as new_run_id;
pub use parent::{files as parent_files, parents};
pub use recognise::Recogniser;
pub use regression::{Regression, judge, regression};
pub use removal::{Retention, empty, remove, retain};
pub use reproduce::{reproduce, reproduction};
pub use tick::{Registrar, begin_run};
