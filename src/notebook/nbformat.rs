//! Notebook files: reads nbformat 3 to 4.5 (and newer minors of 4), writes 4.5 as Jupyter would.
//! Must not know what a notebook means.

mod ids;
mod output;
mod read;
mod upgrade;
mod write;

pub use read::{MAX_BYTES, MAX_CELLS, ReadError, read, read_in_pieces};
pub use write::{Elsewhere, Whole, write, write_from};

pub(crate) use ids::derive as derive_id;
pub(crate) use ids::is_derived;
pub(crate) use output::read as read_output;
pub(crate) use read::{parse_error, text};
