//! Notebook files that a command is given.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{Read as _, stdin};
use std::path::Path;

use anyhow::{Context as _, bail};
use notebook::Notebook;
use notebook::nbformat::{self, MAX_BYTES, ReadError};
use protocol::cell_time;
use serde::Serialize;

/// Stands for standard input.
pub(crate) const STDIN: &str = "-";

/// Refuses a file that is too long before it is read. `name` is what the error calls it.
pub(crate) fn check_size(about: &Metadata, name: &str) -> anyhow::Result<()> {
    if about.len() > MAX_BYTES as u64 {
        return Err(ReadError::TooLarge { most: MAX_BYTES }).context(name.to_owned());
    }
    Ok(())
}

/// Reads a notebook; `-` is standard input. A file that is too long is refused before it is read.
pub(crate) fn read(path: &Path) -> anyhow::Result<Notebook> {
    let most = MAX_BYTES as u64;
    let mut bytes = Vec::new();
    if path == Path::new(STDIN) {
        stdin()
            .take(most + 1)
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
        return nbformat::read(&bytes).context("standard input");
    }
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot open '{name}'"))?;
    let about = file.metadata()?;
    if about.is_dir() {
        bail!("'{name}' is a folder; give the notebooks in it");
    }
    check_size(&about, &name.to_string())?;
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read '{name}'"))?;
    nbformat::read(&bytes).with_context(|| format!("{name}"))
}

/// Why a notebook cannot be run as it is.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// The cell, counted from 1; none: the notebook's own metadata.
    cell: Option<usize>,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cell {
            Some(cell) => write!(f, "cell {cell}: {}", self.message),
            None => write!(f, "{}", self.message),
        }
    }
}

/// What its options and the tags of its cells say and cannot mean; nothing of its code.
pub(super) fn problems(notebook: &Notebook) -> Vec<Problem> {
    let options = notebook.execution().err().map(|why| Problem {
        cell: None,
        message: why.to_string(),
    });
    let tags = notebook.code_cells().filter_map(|(index, cell)| {
        Some(Problem {
            cell: Some(index + 1),
            message: cell_time::of_tags(cell).err()?,
        })
    });
    options.into_iter().chain(tags).collect()
}
