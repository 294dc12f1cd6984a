//! The process on a host: it carries out attempts and owns what they run on. It knows no forge and no
//! database. Inside, `executor` has the only bollard, `hardware` the only NVML, `client` the only HTTP.

pub mod attempt;
mod checkpoints;
pub mod client;
mod collect;
mod command;
pub mod config;
pub mod debug;
pub mod doctor;
mod environment;
pub mod executor;
pub mod gpus;
pub mod hardware;
pub mod host;
pub mod identity;
pub mod install;
pub mod journal;
pub mod ledger;
mod leftover;
pub mod lint;
pub mod local;
mod manifest;
mod registry;
pub mod service;
mod trial;
pub mod wish;
mod workspace;
