//! Notebooks as files: what Python's nbformat writes and reads, what a change means, where a line stands.

// The name by which the other crates know it.
extern crate trainyard_notebook as notebook;

mod files;
mod fingerprints;
mod lines;
mod values;
