//! End-to-end tests: stories told to the real binaries, and the walls between the crates.

mod agent;
mod commits;
mod faults;
mod forge_world;
mod forges;
mod gpu_jobs;
mod gpus;
mod hosts;
mod models;
mod notebooks;
mod plan;
mod registry;
mod render;
mod runner_configs;
mod upkeep;
mod walls;
mod webhooks;

#[path = "../faults/mod.rs"]
mod fault_suite;
#[path = "../support/mod.rs"]
mod support;
