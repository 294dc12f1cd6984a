//! The pages: rendered on the server, working without JavaScript, live with it.

mod agents;
mod frame;
pub(super) mod job;
pub(super) mod login;
pub(super) mod models;
pub(super) mod notebook;
pub(super) mod pipelines;
mod verdict;
mod words;

pub(super) use agents::page as agents;
pub(super) use frame::Sorry;
