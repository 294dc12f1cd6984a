//! Stories of the server as its agents and its repositories see it: real HTTP, real git, both databases.

extern crate trainyard_server as server;

mod agents;
mod commits;
mod metrics;
mod support;
