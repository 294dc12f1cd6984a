//! The pages of experiments and runs: the list, the table of an experiment's runs, one run, several side by side.

mod asked;
mod chart;
mod compare;
mod curves;
mod fold;
mod list;
mod one;
mod shown;
mod table;
mod ticks;

pub(in super::super) use compare::page as compare;
pub(in super::super) use list::list;
pub(in super::super) use one::page as one;
pub(super) use shown::{cut, is_id};
pub(in super::super) use table::page as table;
