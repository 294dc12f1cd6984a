//! One of two notebooks that are named one by one: a file, standard input, or a file as a commit has it.

use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use mirror::{Repository, Tree as _};
use notebook::Notebook;
use notebook::nbformat::{self, MAX_BYTES};

use super::super::notebooks::{self, STDIN};
use super::within;

/// One of two notebooks that are named one by one.
pub(super) enum Side {
    /// Standard input.
    Input,
    /// A file, or /dev/null.
    File(String),
    /// A file as a commit has it: `HEAD~1:train.ipynb`, the path from the root as git takes it.
    Committed { name: String, bytes: Vec<u8> },
}

impl Side {
    /// The side that a word names; none: it names none.
    pub(super) fn of(word: &str) -> anyhow::Result<Option<Self>> {
        if word == STDIN {
            return Ok(Some(Side::Input));
        }
        if is_file(word) {
            return Ok(Some(Side::File(word.to_owned())));
        }
        let Some((revision, path)) = word.split_once(':') else {
            return Ok(None);
        };
        let Some(repository) = Repository::discover(Path::new("."))? else {
            return Ok(None);
        };
        let Ok(commit) = repository.resolve(revision) else {
            return Ok(None);
        };
        let path = match path.starts_with("./") || path.starts_with("../") {
            true => within(&repository, path)?,
            false => path.to_owned(),
        };
        let bytes = repository.tree(&commit)?.read(&path);
        Ok(Some(Side::Committed {
            bytes: bytes.with_context(|| format!("'{revision}' has no such file"))?,
            name: word.to_owned(),
        }))
    }

    /// The notebook; none: /dev/null.
    pub(super) fn read(&self) -> anyhow::Result<Option<Notebook>> {
        match self {
            Side::Input => notebooks::read(Path::new(STDIN)).map(Some),
            Side::File(path) => file(path),
            Side::Committed { name, bytes } => {
                Ok(Some(notebook::read(bytes).with_context(|| name.clone())?))
            }
        }
    }
}

pub(super) fn is_file(path: &str) -> bool {
    // A pipe (`<(git show …)`) and /dev/null are as good as a file.
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}

/// The notebook in a file; none: /dev/null.
pub(super) fn file(path: &str) -> anyhow::Result<Option<Notebook>> {
    if path == "/dev/null" {
        return Ok(None);
    }
    if let Some(notebook) = in_pieces(path) {
        return Ok(Some(notebook));
    }
    let bytes = bytes(path)?;
    let read = notebook::read(&bytes);
    Ok(Some(read.with_context(|| path.to_owned())?))
}

/// The notebook in a file that may be read twice, where it can be read without holding all of it.
fn in_pieces(path: &str) -> Option<Notebook> {
    let mut file = File::open(path).ok()?;
    let about = file.metadata().ok()?;
    let fits = about.is_file() && about.len() <= MAX_BYTES as u64;
    fits.then(|| nbformat::read_in_pieces(&mut file))?
}

pub(super) fn bytes(path: &str) -> anyhow::Result<Vec<u8>> {
    let wrong = || format!("cannot read '{path}'");
    notebooks::check_size(&std::fs::metadata(path).with_context(wrong)?, path)?;
    std::fs::read(path).with_context(wrong)
}
