//! MLflow's REST API over the registry: its words on the wire, its rules for what may be written, its language of searches.
//! What is said here of MLflow was read from, and is compared with, the stock client and server 3.17.2.
//!
//! The way of a call: a body or a query is read ([`ask`]), its caller's rights are looked at ([`caller`]), it is checked ([`check`], [`place`], [`source`], [`filter`]), carried
//! out in one transaction ([`experiments`], [`runs`], [`logging`], [`models`], [`versions`], [`logged_models`], [`files`]),
//! and told ([`told`]). What cannot be done is a [`Fault`]; nothing is then changed.

pub mod ask;
mod caller;
mod check;
pub mod experiments;
mod fault;
pub mod files;
mod filter;
pub mod logged_models;
pub mod logging;
pub mod models;
mod page;
mod place;
mod registering;
pub mod runs;
mod search;
pub(super) mod source;
pub mod told;
pub mod versions;

pub use caller::{Caller, JobCaller};
pub use fault::{Code, Fault};
pub use place::{Owner, Place};
pub use search::{run_conditions, run_orders};

/// The version of MLflow whose API this is.
pub const VERSION: &str = "3.17.2";

/// What a call gives.
pub type Answer<T> = Result<T, Fault>;
