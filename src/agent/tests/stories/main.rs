//! Stories of attempts on this host: the real driver, the real engine, a folder of their own.

extern crate trainyard_agent as agent;

mod checkouts;
mod checkpoints;
mod debug;
mod engine_away;
mod environments;
mod full_disk;
mod gpus;
mod hostile;
mod lint;
mod lives;
mod ordinary;
mod samples;
mod support;

#[path = "../../../../tests/support/built.rs"]
mod built;
#[path = "../../../../tests/support/disk.rs"]
mod disk;
#[path = "../../../../tests/support/gpus.rs"]
mod fake_gpus;
