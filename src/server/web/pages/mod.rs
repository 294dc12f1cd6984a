//! The pages: rendered on the server, working without JavaScript, live with it.

mod agents;
mod escape;
pub(super) mod files;
mod frame;
pub(super) mod job;
pub(super) mod login;
pub(super) mod models;
pub(super) mod notebook;
pub(super) mod pipelines;
pub(super) mod runs;
mod verdict;
pub(super) mod versions;
mod words;

pub(super) use agents::page as agents;
pub(super) use escape::InPage;
pub(super) use frame::Sorry;
