//! Stories of the server as its agents, its repositories and its people see it: real HTTP, real git.

extern crate trainyard_server as server;

mod agents;
mod bucket;
mod checkpoints;
mod commits;
#[path = "../../../../tests/support/disk.rs"]
mod disk;
#[path = "../../../../tests/support/forge/mod.rs"]
mod forge;
mod full_disk;
mod hosts;
mod identity;
mod lineage;
mod metrics;
mod mlflow;
mod notices;
mod outsiders;
mod queue;
mod replay;
mod requests;
mod support;
mod upkeep;
mod verdicts;
mod web;
