//! Stories of the real driver with a real IPython kernel, each in a folder of its own.

mod commands;
mod endings;
mod hostile;
mod kinds;
mod languages;
mod limits;
mod notebooks;
mod registry;
mod support;
mod volume;
