//! A diff for programs. The words are stable: fields may be added, none changes its meaning.

use std::borrow::Cow;

use notebook::diff::Entry;
use serde::Serialize;
use serde::ser::{SerializeSeq as _, Serializer};
use serde_json::Value;

use super::story::{self, Line, Piece, Shown, ShownOutput, What};
use super::{Compared, File, Options, words};

/// What `--format json` prints.
#[derive(Serialize)]
struct Document<'a> {
    /// Whether anything differs that is looked at, in any notebook.
    differs: bool,
    /// The notebooks that differ in anything at all.
    notebooks: Vec<NotebookDiff<'a>>,
}

/// One notebook.
#[derive(Serialize)]
struct NotebookDiff<'a> {
    /// Its path, as it was given.
    name: &'a str,
    /// `kept`, `added` or `removed`.
    file: &'static str,
    /// Whether anything differs that is looked at.
    differs: bool,
    /// Whether the fingerprints differ: what runs is not the same.
    meaning_changed: bool,
    /// How much differs.
    summary: Summary,
    /// The kernel, where another one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<Kernel<'a>>,
    /// The notebook's metadata that differs and is looked at.
    metadata: Vec<Metadata<'a>>,
    /// Cells that differ in what is looked at, in the later order.
    cells: Cells<'a>,
    /// How many more cells differ than are listed.
    more_cells: usize,
}

/// Numbers of cells.
#[derive(Serialize)]
struct Summary {
    /// New ones.
    added: usize,
    /// Those that are gone.
    removed: usize,
    /// Those that differ in what is looked at.
    changed: usize,
    /// Those that passed others.
    moved: usize,
    /// Those whose outputs differ, looked at or not.
    outputs: usize,
    /// Those that differ only in what is not looked at.
    hidden: usize,
}

/// The kernel's name before and after; null where there is none.
#[derive(Serialize)]
struct Kernel<'a> {
    /// In the earlier notebook.
    before: Option<&'a str>,
    /// In the later one.
    after: Option<&'a str>,
}

/// A value of metadata.
#[derive(Serialize)]
struct Metadata<'a> {
    /// The keys that lead to it.
    path: &'a [String],
    /// Null also where it was not there.
    before: Option<&'a Value>,
    /// Null also where it is gone.
    after: Option<&'a Value>,
}

/// A list of [`Cell`]. Each is made when it is written: memory holds one.
struct Cells<'a> {
    compared: &'a Compared<'a>,
    options: Options,
}

/// A cell.
#[derive(Serialize)]
struct Cell<'a> {
    /// `added`, `removed`, `changed`, `moved` or `moved_and_changed`.
    change: &'static str,
    /// Its number in the earlier notebook, from 1.
    before: Option<usize>,
    /// Its number in the later one, from 1.
    after: Option<usize>,
    /// Its id in the later one, else in the earlier one; null where that stands in no file.
    id: Option<&'a str>,
    /// `code`, `markdown`, `raw`, or a kind of a newer nbformat.
    kind: &'a str,
    /// Its tags.
    tags: Vec<&'a str>,
    /// Lines of its source that differ.
    source: Lines<'a>,
    /// Its metadata that differs and is looked at.
    metadata: Vec<Metadata<'a>>,
    /// Its outputs that differ, where they are looked at.
    outputs: Vec<OutputChange<'a>>,
}

/// Lines of a text that differ.
#[derive(Serialize, Default)]
struct Lines<'a> {
    /// How many came.
    added: usize,
    /// How many are gone.
    removed: usize,
    /// Where.
    edits: Vec<Edit<'a>>,
    /// How many lines differ that are not listed.
    more: usize,
}

/// Neighbouring lines that differ.
#[derive(Serialize, Default)]
struct Edit<'a> {
    /// Those that are gone.
    removed: Vec<CellLine<'a>>,
    /// Those that came.
    added: Vec<CellLine<'a>>,
}

/// A line of a text. Control characters are replaced by their pictures.
#[derive(Serialize)]
struct CellLine<'a> {
    /// From 1, within the cell's source or the output.
    line: usize,
    /// Without its end.
    text: Cow<'a, str>,
    /// The parts of it that differ from its counterpart; none: it has none, or nothing in common with it, or is a
    /// line of an output.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    words: Vec<Cow<'a, str>>,
}

/// An output.
#[derive(Serialize)]
struct OutputChange<'a> {
    /// `added`, `removed` or `changed`.
    change: &'static str,
    /// Its number among the cell's later outputs, else among the earlier ones, from 1.
    number: usize,
    /// `stdout`, `stderr`, `error`, or MIME types.
    kind: String,
    /// Lines of its text that differ.
    text: OutputText<'a>,
}

/// [`Lines`] of an output, looked for when they are written.
struct OutputText<'a> {
    output: &'a ShownOutput<'a>,
    options: &'a Options,
}

/// Most lines of an output that are listed.
const OUTPUT_LINES: usize = 40;

/// The notebooks that differ in anything. What is written of a cell is made then.
#[must_use]
pub fn document<'a>(compared: &'a [Compared<'a>], options: &Options) -> impl Serialize + use<'a> {
    let options = Options {
        context: 0,
        ..options.clone()
    };
    let all = compared.iter();
    let different = all.filter(|one| !one.diff.is_empty() || one.file != File::Kept);
    let notebooks: Vec<NotebookDiff<'_>> = different.map(|one| notebook(one, &options)).collect();
    Document {
        differs: notebooks.iter().any(|one| one.differs),
        notebooks,
    }
}

fn notebook<'a>(compared: &'a Compared<'a>, options: &Options) -> NotebookDiff<'a> {
    let diff = compared.diff;
    let summary = diff.summary(options.view);
    let entries = diff.metadata.iter().chain(&diff.extra);
    NotebookDiff {
        name: compared.name,
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
            before: kernel.before.as_deref(),
            after: kernel.after.as_deref(),
        }),
        metadata: entries
            .filter(|entry| entry.is_seen(options.view))
            .map(metadata)
            .collect(),
        cells: Cells {
            compared,
            options: options.clone(),
        },
        more_cells: story::cells(compared, options).1,
    }
}

impl Serialize for Cells<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Outputs may be long, words of theirs help nobody, and who wants them whole has the notebooks.
        let of_outputs = Options {
            words: false,
            max_lines: self.options.max_lines.min(OUTPUT_LINES),
            ..self.options.clone()
        };
        let (cells, _) = story::cells(self.compared, &self.options);
        let mut list = serializer.serialize_seq(Some(cells.len()))?;
        for shown in cells {
            list.serialize_element(&cell(&shown, &of_outputs))?;
        }
        list.end()
    }
}

fn cell<'a>(shown: &'a Shown<'_>, of_outputs: &'a Options) -> Cell<'a> {
    let output = |output: &'a ShownOutput<'_>| OutputChange {
        change: word(output.what()),
        number: output.number,
        kind: output.kind(),
        text: OutputText {
            output,
            options: of_outputs,
        },
    };
    Cell {
        change: word(shown.what),
        before: shown.before,
        after: shown.after,
        id: shown.cell.own_id(),
        kind: shown.cell.kind.word(),
        tags: shown.cell.tags().collect(),
        source: lines(&shown.source),
        metadata: shown.entries(of_outputs.view).map(metadata).collect(),
        outputs: shown.outputs.iter().map(output).collect(),
    }
}

impl Serialize for OutputText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts = self.output.texts();
        lines(&texts.lines(self.options)).serialize(serializer)
    }
}

fn word(what: What) -> &'static str {
    match what {
        What::MovedAndChanged => "moved_and_changed",
        What::Added | What::Removed | What::Changed | What::Moved => words::word(what),
    }
}

fn metadata(entry: &Entry) -> Metadata<'_> {
    Metadata {
        path: &entry.path,
        before: entry.before.as_ref(),
        after: entry.after.as_ref(),
    }
}

fn lines<'a>(told: &[Line<'a>]) -> Lines<'a> {
    let mut out = Lines::default();
    // A removed line behind an added one begins a new edit, and so does what stands between.
    let mut open: Option<Edit<'a>> = None;
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

fn cell_line<'a>(line: usize, pieces: &[Piece<'a>]) -> CellLine<'a> {
    let marked = pieces.iter().filter(|piece| piece.marked);
    CellLine {
        line,
        text: story::joined(pieces),
        words: marked.map(|piece| piece.text.clone()).collect(),
    }
}
