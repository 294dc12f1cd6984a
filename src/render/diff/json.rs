//! A diff for programs. The words are stable: fields may be added, none changes its meaning.

use notebook::diff::{self, Entry};
use serde::Serialize;
use serde_json::Value;

use super::story::{self, Line, Shown, What};
use super::{Compared, File, Options, words};

/// What `--format json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// Whether anything differs that is looked at, in any notebook.
    pub differs: bool,
    /// The notebooks that differ in anything at all.
    pub notebooks: Vec<NotebookDiff>,
}

/// One notebook.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NotebookDiff {
    /// Its path, as it was given.
    pub name: String,
    /// `kept`, `added` or `removed`.
    pub file: &'static str,
    /// Whether anything differs that is looked at.
    pub differs: bool,
    /// Whether the fingerprints differ: what runs is not the same.
    pub meaning_changed: bool,
    /// How much differs.
    pub summary: Summary,
    /// The kernel, where another one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// The notebook's metadata that differs and is looked at.
    pub metadata: Vec<Metadata>,
    /// Cells that differ in what is looked at, in the later order.
    pub cells: Vec<Cell>,
    /// How many more cells differ than are listed.
    pub more_cells: usize,
}

/// Numbers of cells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// New ones.
    pub added: usize,
    /// Those that are gone.
    pub removed: usize,
    /// Those that differ in what is looked at.
    pub changed: usize,
    /// Those that passed others.
    pub moved: usize,
    /// Those whose outputs differ, looked at or not.
    pub outputs: usize,
    /// Those that differ only in what is not looked at.
    pub hidden: usize,
}

/// The kernel's name before and after; null where there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kernel {
    /// In the earlier notebook.
    pub before: Option<String>,
    /// In the later one.
    pub after: Option<String>,
}

/// A value of metadata.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metadata {
    /// The keys that lead to it.
    pub path: Vec<String>,
    /// Null also where it was not there.
    pub before: Option<Value>,
    /// Null also where it is gone.
    pub after: Option<Value>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// `added`, `removed`, `changed`, `moved` or `moved_and_changed`.
    pub change: &'static str,
    /// Its number in the earlier notebook, from 1.
    pub before: Option<usize>,
    /// Its number in the later one, from 1.
    pub after: Option<usize>,
    /// Its id in the later one, else in the earlier one.
    pub id: String,
    /// `code`, `markdown`, `raw`, or a kind of a newer nbformat.
    pub kind: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Lines of its source that differ.
    pub source: Lines,
    /// Its metadata that differs and is looked at.
    pub metadata: Vec<Metadata>,
    /// Its outputs that differ, where they are looked at.
    pub outputs: Vec<OutputChange>,
}

/// Lines of a text that differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lines {
    /// How many came.
    pub added: usize,
    /// How many are gone.
    pub removed: usize,
    /// Where.
    pub edits: Vec<Edit>,
    /// How many lines differ that are not listed.
    pub more: usize,
}

/// Neighbouring lines that differ.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Edit {
    /// Those that are gone.
    pub removed: Vec<CellLine>,
    /// Those that came.
    pub added: Vec<CellLine>,
}

/// A line of a text. Control characters are replaced by their pictures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellLine {
    /// From 1, within the cell's source or the output.
    pub line: usize,
    /// Without its end.
    pub text: String,
    /// The parts of it that differ from its counterpart; none: it has none, or nothing in common with it, or is a
    /// line of an output.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputChange {
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// Its number among the cell's later outputs, else among the earlier ones, from 1.
    pub number: usize,
    /// `stdout`, `stderr`, `error`, or MIME types.
    pub kind: String,
    /// Lines of its text that differ.
    pub text: Lines,
}

/// Most lines of an output that are listed.
const OUTPUT_LINES: usize = 40;

/// The notebooks that differ in anything.
#[must_use]
pub fn document(compared: &[Compared<'_>], options: &Options) -> Document {
    let options = Options {
        context: 0,
        ..options.clone()
    };
    let all = compared.iter();
    let different = all.filter(|one| !one.diff.is_empty() || one.file != File::Kept);
    let notebooks: Vec<NotebookDiff> = different.map(|one| notebook(one, &options)).collect();
    Document {
        differs: notebooks.iter().any(|one| one.differs),
        notebooks,
    }
}

fn notebook(compared: &Compared<'_>, options: &Options) -> NotebookDiff {
    let diff = compared.diff;
    let summary = diff.summary(options.view);
    let (cells, more_cells) = story::cells(compared, options);
    let entries = diff.metadata.iter().chain(&diff.extra);
    NotebookDiff {
        name: compared.name.to_owned(),
        file: match compared.file {
            File::Kept => "kept",
            File::Added => "added",
            File::Removed => "removed",
        },
        differs: super::differs(compared, options.view),
        meaning_changed: diff.meaning_changed,
        summary: Summary {
            added: summary.added,
            removed: summary.removed,
            changed: summary.changed,
            moved: summary.moved,
            outputs: summary.outputs,
            hidden: summary.hidden,
        },
        kernel: diff.kernel.as_ref().map(|kernel| Kernel {
            before: kernel.before.clone(),
            after: kernel.after.clone(),
        }),
        metadata: entries
            .filter(|entry| entry.is_seen(options.view))
            .map(metadata)
            .collect(),
        cells: cells.iter().map(|shown| cell(shown, options)).collect(),
        more_cells,
    }
}

fn cell(shown: &Shown<'_>, options: &Options) -> Cell {
    // Outputs may be long, words of theirs help nobody, and who wants them whole has the notebooks.
    let of_outputs = Options {
        words: false,
        max_lines: options.max_lines.min(OUTPUT_LINES),
        ..options.clone()
    };
    Cell {
        change: word(shown.what),
        before: shown.before,
        after: shown.after,
        id: shown.cell.id.clone(),
        kind: shown.cell.kind.word().to_owned(),
        tags: shown.cell.tags().map(str::to_owned).collect(),
        source: lines(&shown.source),
        metadata: shown.entries(options.view).map(metadata).collect(),
        outputs: shown
            .outputs
            .iter()
            .map(|output| OutputChange {
                change: word(output.what()),
                number: output.number,
                kind: output.kind(),
                text: lines(&output.lines(&of_outputs)),
            })
            .collect(),
    }
}

fn word(what: What) -> &'static str {
    match what {
        What::MovedAndChanged => "moved_and_changed",
        What::Added | What::Removed | What::Changed | What::Moved => words::word(what),
    }
}

fn metadata(entry: &Entry) -> Metadata {
    let diff::Entry {
        path,
        before,
        after,
    } = entry.clone();
    Metadata {
        path,
        before,
        after,
    }
}

fn lines(told: &[Line]) -> Lines {
    let mut out = Lines {
        added: 0,
        removed: 0,
        edits: Vec::new(),
        more: 0,
    };
    // A removed line behind an added one begins a new edit, and so does what stands between.
    let mut open: Option<Edit> = None;
    for line in told {
        match line {
            Line::Removed(number, pieces) => {
                let over = open.take_if(|edit| !edit.added.is_empty());
                out.edits.extend(over);
                let edit = open.get_or_insert_default();
                edit.removed.push(cell_line(*number, pieces));
                out.removed += 1;
            }
            Line::Added(number, pieces) => {
                let edit = open.get_or_insert_default();
                edit.added.push(cell_line(*number, pieces));
                out.added += 1;
            }
            Line::Same(..) | Line::Fold(_) => out.edits.extend(open.take()),
            Line::More(more) => out.more += more,
        }
    }
    out.edits.extend(open);
    out
}

fn cell_line(line: usize, pieces: &[story::Piece]) -> CellLine {
    CellLine {
        line,
        text: pieces.iter().map(|piece| piece.text.as_str()).collect(),
        words: pieces
            .iter()
            .filter(|piece| piece.marked)
            .map(|piece| piece.text.clone())
            .collect(),
    }
}
