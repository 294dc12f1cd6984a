//! End-to-end tests: stories told to the real binaries, and the walls between the crates.

mod agent;
mod commits;
mod faults;
mod hosts;
mod notebooks;
mod plan;
mod render;
mod runner_configs;
mod walls;
mod webhooks;

#[path = "../support/mod.rs"]
mod support;
