//! The `agent` crate: owns a host and carries out attempts on it. It knows no forge and no database.

pub mod journal;
