//! What differs between notebooks, as people and programs see it: terminal, Markdown for a comment, an HTML
//! page, JSON. What notebooks say is foreign: nothing of it acts, and everything is bounded. Must not know
//! where the notebooks come from.

mod html;
mod json;
mod markdown;
mod story;
mod terminal;
mod words;

use notebook::Notebook;
use notebook::diff::{Diff, View};

pub use html::page;
pub use json::document;
pub use markdown::comment;
pub use terminal::text;

/// Two notebooks and what differs between them.
#[derive(Debug, Clone, Copy)]
pub struct Compared<'a> {
    /// What people call it: its path.
    pub name: &'a str,
    /// The earlier one; an empty one where there was none.
    pub before: &'a Notebook,
    /// The later one; an empty one where it is gone.
    pub after: &'a Notebook,
    /// What differs.
    pub diff: &'a Diff<'a>,
    /// Whether it is new, gone, or in both.
    pub file: File,
}

/// What became of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// It is on both sides.
    Kept,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

/// Two versions of a notebook.
#[derive(Debug)]
pub struct Pair {
    name: String,
    before: Notebook,
    after: Notebook,
    file: File,
}

impl Pair {
    /// Of a version that is not there: none. `name` is what people call it.
    #[must_use]
    pub fn new(name: String, before: Option<Notebook>, after: Option<Notebook>) -> Self {
        let file = match (&before, &after) {
            (None, Some(_)) => File::Added,
            (Some(_), None) => File::Removed,
            (Some(_), Some(_)) | (None, None) => File::Kept,
        };
        // A file that is not there must not differ by its version, too.
        let minor = before
            .as_ref()
            .or(after.as_ref())
            .map_or(5, |one| one.minor);
        let nothing = || Notebook {
            minor,
            ..Notebook::default()
        };
        let before = before.unwrap_or_else(nothing);
        let after = after.unwrap_or_else(nothing);
        Self {
            name,
            before,
            after,
            file,
        }
    }

    /// What differs.
    #[must_use]
    pub fn diff(&self) -> Diff<'_> {
        notebook::diff::diff(&self.before, &self.after)
    }

    /// What a text is made of: a pair and its [`Pair::diff`].
    #[must_use]
    pub fn compared<'a>((pair, diff): (&'a Self, &'a Diff<'a>)) -> Compared<'a> {
        Compared {
            name: &pair.name,
            before: &pair.before,
            after: &pair.after,
            diff,
            file: pair.file,
        }
    }
}

/// What is shown, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What is looked at.
    pub view: View,
    /// Unchanged lines around changed ones.
    pub context: usize,
    /// Colours of a terminal.
    pub colour: bool,
    /// Whether the words that differ within a line are looked for; only where they are shown.
    pub words: bool,
    /// Most cells of one notebook; further ones are counted.
    pub max_cells: usize,
    /// Most lines of one source or one output; further ones are counted.
    pub max_lines: usize,
    /// Most bytes of a comment or a page; cells beyond it are counted.
    pub max_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            view: View::default(),
            context: 3,
            colour: false,
            words: true,
            max_cells: 1_000,
            max_lines: 500,
            max_bytes: 48 << 20,
        }
    }
}

/// What a comment of a forge holds: GitHub takes 65,536 characters.
pub const COMMENT_BYTES: usize = 60_000;

/// Whether anything differs that is looked at.
#[must_use]
pub fn differs(compared: &Compared<'_>, view: View) -> bool {
    compared.file != File::Kept || !compared.diff.summary(view).is_same()
}

#[cfg(test)]
mod tests;
