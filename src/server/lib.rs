//! The `server` crate: the server that owns queue, registry and pages. It knows no container and no GPU library.
#![forbid(unsafe_code)]

pub mod forge;
pub mod secret;
pub mod store;
