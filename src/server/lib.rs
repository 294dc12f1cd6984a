//! The `server` crate: the server that owns queue, registry and pages. It knows no container and no GPU library.
#![forbid(unsafe_code)]

pub mod blobs;
pub mod config;
pub mod credential;
mod disk;
pub mod dispatch;
pub mod fleet;
pub mod forge;
pub mod housekeeping;
pub mod inbox;
pub mod live;
mod loops;
mod members;
pub mod names;
mod notebooks;
pub mod notices;
pub mod offers;
mod outgoing;
pub mod pipelines;
pub mod project;
pub mod registry;
pub mod report;
mod rest;
pub mod schedule;
pub mod secret;
pub mod settle;
pub mod state;
pub mod store;
pub mod timetable;
pub mod tokens;
pub mod trigger;
pub mod upkeep;
pub mod watch;
pub mod web;
