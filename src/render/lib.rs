//! A notebook as people see it: HTML, Markdown, terminal. Pure: text in, text out. What a notebook says
//! is foreign: nothing here trusts it, and every text is bounded.
#![forbid(unsafe_code)]

mod ansi;
pub mod diff;
pub mod html;
pub mod markdown;
pub mod terminal;
mod text;

pub use text::{straight, visible};
