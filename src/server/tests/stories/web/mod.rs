//! The server as people and programs see it.

mod access;
mod files;
mod live;
mod models;
mod pages;
mod runs;
mod site;
mod usage;
mod writes;
