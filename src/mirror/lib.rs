//! The `mirror` crate.
