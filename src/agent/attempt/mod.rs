//! One attempt, from its order to its report. It knows neither the server nor the queue.

mod control;
mod dir;

pub use control::{Control, StopReason};
pub use dir::AttemptDir;
pub(crate) use dir::{read_json, write_json};
