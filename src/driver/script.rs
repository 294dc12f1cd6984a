//! What is to be run: the notebook read, its parameters injected, its code cells in order. Runs nothing.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path};

use notebook::options::{CellTime, Execution};
use notebook::parameters::inject;
use notebook::{Cell, LineMap, Notebook, nbformat};
use protocol::cell_time;
use protocol::event::CellSource;
use protocol::outcome::{CellPlace, Failure, FailureKind};
use protocol::spec::Parameters;
use protocol::units::Span;

use crate::clock::{CellLimit, SaidBy};

/// A code cell.
#[derive(Debug, Clone)]
pub(crate) struct ScriptCell {
    /// Index among all cells of the notebook that is executed.
    pub(crate) index: u32,
    /// Its text.
    pub(crate) source: String,
    /// Whether it is executed at all.
    pub(crate) runs: bool,
    /// Whether an exception of it is expected.
    pub(crate) may_raise: bool,
    /// How long it may take, where it or the notebook says so.
    pub(crate) limit: Option<CellLimit>,
}

/// A notebook made ready.
#[derive(Debug)]
pub(crate) struct Script {
    path: String,
    /// Name of the kernel that it asks for.
    pub(crate) kernel: Option<String>,
    /// The notebook with its parameters.
    pub(crate) notebook: Notebook,
    /// Its code cells.
    pub(crate) cells: Vec<ScriptCell>,
    /// Whether a cell installs packages.
    pub(crate) installs: bool,
    /// Parameters that the notebook does not know.
    pub(crate) unknown: Vec<String>,
    /// For each cell its index in the repository's notebook.
    origin: Vec<Option<usize>>,
    lines: Option<LineMap>,
}

impl Script {
    /// Reads the notebook and injects the parameters.
    ///
    /// # Errors
    /// Where there is no such notebook, it is none, or its language cannot say the parameters.
    pub(crate) fn read(
        workdir: &Path,
        path: &str,
        parameters: &Parameters,
    ) -> Result<Self, Box<Failure>> {
        let invalid = |why: &dyn std::fmt::Display| {
            Box::new(Failure::new(
                FailureKind::NotebookInvalid,
                format!("{path}: {why}"),
            ))
        };
        let bytes = read_file(workdir, path).map_err(|e| invalid(&e))?;
        let source = nbformat::read(&bytes).map_err(|e| invalid(&e))?;
        let injected = inject(&source, parameters).map_err(|e| invalid(&e))?;
        let notebook = injected.notebook;
        let options = notebook.execution().map_err(|e| invalid(&e))?;
        // Places are those of the repository's notebook, counted from 1.
        let place = |index: usize| {
            injected
                .origin
                .get(index)
                .copied()
                .flatten()
                .unwrap_or(index)
                + 1
        };
        let cells = notebook
            .code_cells()
            .map(|(index, cell)| {
                Ok(ScriptCell {
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    source: cell.source.clone(),
                    runs: cell.runs(),
                    may_raise: cell.may_raise() || options.allow_errors,
                    limit: limit(cell, &options)
                        .map_err(|why| invalid(&format!("cell {}: {why}", place(index))))?,
                })
            })
            .collect::<Result<Vec<_>, Box<Failure>>>()?;
        Ok(Self {
            path: path.to_owned(),
            kernel: notebook.kernel_name().map(str::to_owned),
            installs: cells.iter().any(|cell| cell.source.contains("pip install")),
            unknown: injected.unknown.unwrap_or_default(),
            origin: injected.origin,
            lines: LineMap::read(&bytes).ok(),
            cells,
            notebook,
        })
    }

    /// Which cell of the repository's notebook it is.
    pub(crate) fn source(&self, cell: u32) -> CellSource {
        let index = self.origin.get(cell as usize).copied().flatten();
        index.map_or(CellSource::Injected, |index| {
            CellSource::Number(u32::try_from(index + 1).unwrap_or(u32::MAX))
        })
    }

    /// Adds the place in the repository's notebook to a failure; the injected cell is not in it.
    pub(crate) fn placed(&self, failure: Failure, cell: Option<u32>, line: Option<u32>) -> Failure {
        let Some(cell) = cell.and_then(|cell| usize::try_from(cell).ok()) else {
            return failure;
        };
        let Some(index) = self.origin.get(cell).copied().flatten() else {
            let hint = failure.hint.clone();
            return failure.hint(
                hint.unwrap_or_else(|| "It happened in the injected parameters.".to_owned()),
            );
        };
        let raw_line = self
            .lines
            .as_ref()
            .and_then(|lines| lines.raw_line(index, usize::try_from(line.unwrap_or(1)).ok()?));
        failure.cell(CellPlace {
            path: self.path.clone(),
            index: u32::try_from(index).unwrap_or(u32::MAX),
            line,
            raw_line,
        })
    }
}

/// How long a cell may take: its tag counts before what the notebook says for all.
fn limit(cell: &Cell, notebook: &Execution) -> Result<Option<CellLimit>, String> {
    if let Some(span) = cell_time::of_tags(cell)? {
        let said_by = SaidBy::Tag;
        return Ok(Some(CellLimit { span, said_by }));
    }
    Ok(notebook.timeout.map(|time| CellLimit {
        span: match time {
            CellTime::Unlimited => None,
            // At least a millisecond, at most what a span can hold.
            CellTime::Seconds(seconds) => Some(Span((seconds * 1_000.0).ceil() as u64)),
        },
        said_by: SaidBy::Notebook,
    }))
}

/// A plain file below the folder; anything else could keep us waiting or lead out of it.
fn read_file(workdir: &Path, path: &str) -> io::Result<Vec<u8>> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let relative = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !relative {
        return Err(invalid("the path leaves the workspace".to_owned()));
    }
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(workdir.join(path))?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(invalid("this is not a file".to_owned()));
    }
    let most = nbformat::MAX_BYTES as u64;
    let too_long = |bytes: u64| {
        invalid(format!(
            "the file has {bytes} bytes, more than the {most} that are read; clear its outputs"
        ))
    };
    // Said before it is read: nobody waits for what is refused.
    if about.len() > most {
        return Err(too_long(about.len()));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        length if length > most => Err(too_long(length)),
        _ => Ok(bytes),
    }
}
