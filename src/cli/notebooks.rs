//! Notebook files that a command is given.

use std::fs::File;
use std::io::{Read as _, stdin};
use std::path::Path;

use anyhow::{Context as _, bail};
use notebook::{Notebook, nbformat};

/// Stands for standard input.
pub(crate) const STDIN: &str = "-";

/// Reads a notebook; `-` is standard input. A file that is too long is refused before it is read.
pub(crate) fn read(path: &Path) -> anyhow::Result<Notebook> {
    let most = nbformat::MAX_BYTES as u64;
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
    if about.len() > most {
        let bytes = usize::try_from(about.len()).unwrap_or(usize::MAX);
        return Err(nbformat::ReadError::TooLarge { bytes }).context(format!("{name}"));
    }
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read '{name}'"))?;
    nbformat::read(&bytes).with_context(|| format!("{name}"))
}
