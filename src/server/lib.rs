//! The `server` crate: the server that owns queue, registry and pages. It knows no container and no GPU library.

pub mod forge;
pub mod secret;
