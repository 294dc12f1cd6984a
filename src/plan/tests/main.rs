//! Stories about pipeline files and about what a commit runs.

mod documents;
mod file;
mod init;
mod keys;
mod support;
mod wants;
