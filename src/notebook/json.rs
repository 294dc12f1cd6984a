//! JSON as Jupyter writes it: a reader that keeps places and exact floats, and a writer with Python's
//! formatting. Knows nothing of notebooks.
//!
//! Why not `serde_json` alone: it gives no places of values, refuses the `NaN` that Python writes, may
//! be one digit off in a float, and writes `1e16` where Python writes `1e+16`.

mod pieces;
mod read;
mod write;

pub(crate) use read::{Fault, Reader, place};
pub(crate) use write::{Node, Put, float, write};
