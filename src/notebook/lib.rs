//! What a notebook means: the nbformat model, fingerprint, parameters, line map, and the fold of
//! output messages into a notebook. Pure: no IO, no runtime, light enough for the driver.
#![forbid(unsafe_code)]

mod captured;
pub mod diff;
pub mod fingerprint;
pub mod fold;
mod json;
pub mod line_map;
pub mod message;
mod model;
pub mod nbformat;
pub mod options;
pub mod parameters;
pub mod patch;
mod sources;
pub mod strip;

pub use fingerprint::fingerprint;
pub use fold::Fold;
pub use line_map::LineMap;
pub use model::{Cell, CellKind, Notebook, Output};
pub use nbformat::{ReadError, read};
pub use sources::with_sources;
