//! The server as people and programs see it.

mod access;
mod live;
mod models;
mod pages;
mod site;
mod usage;
mod writes;
