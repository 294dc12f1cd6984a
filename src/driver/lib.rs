//! The `driver` crate.
