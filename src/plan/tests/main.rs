//! Stories about pipeline files and about what a commit runs.

mod file;
mod keys;
mod support;
