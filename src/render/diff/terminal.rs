//! A diff for a terminal, or for whoever reads plain text.

use std::fmt::Write as _;

use super::story::{self, Line, Piece, Shown, What};
use super::{Compared, Options, words};

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";
const DIM: &str = "2";

/// The notebooks that differ, one after the other; nothing for those that do not.
#[must_use]
pub fn text(compared: &[Compared<'_>], options: &Options) -> String {
    // Without colours there is no mark for a word.
    let options = &Options {
        words: options.words && options.colour,
        ..options.clone()
    };
    let mut out = String::new();
    for one in compared
        .iter()
        .filter(|one| !one.diff.is_empty() || super::differs(one, options.view))
    {
        put_notebook(&mut out, one, options);
    }
    out
}

fn put_notebook(out: &mut String, compared: &Compared<'_>, options: &Options) {
    let paint = Paint(options.colour);
    let name = story::plain(compared.name, 400);
    if !out.is_empty() {
        out.push('\n');
    }
    if !super::differs(compared, options.view) {
        let hidden = words::hidden(compared, options).unwrap_or_else(|| "details".to_owned());
        put(
            out,
            format_args!(
                "{name}: the same but for {hidden}; {}\n",
                words::meaning(compared)
            ),
        );
        return;
    }
    let headline = format!("{name}: {}", words::headline(compared, options));
    put(out, format_args!("{}\n", paint.text(BOLD, &headline)));
    let notes = words::notebook_notes(compared, options);
    if !notes.is_empty() {
        put(
            out,
            format_args!("\n{}\n", paint.text(CYAN, "notebook changed")),
        );
        put_notes(out, &notes);
    }
    let (cells, more) = story::cells(compared, options);
    for shown in cells {
        put_cell(out, &shown, options);
    }
    if let Some(more) = words::more_cells(more) {
        put(out, format_args!("\n{}\n", paint.text(CYAN, &more)));
    }
    if let Some(hidden) = words::hidden(compared, options) {
        let note = format!("not shown: {hidden} (--outputs, --metadata)");
        put(out, format_args!("\n{}\n", paint.text(DIM, &note)));
    }
}

fn put_cell(out: &mut String, shown: &Shown<'_>, options: &Options) {
    let paint = Paint(options.colour);
    put(
        out,
        format_args!("\n{}\n", paint.text(CYAN, &words::title(shown))),
    );
    put_notes(out, &words::notes(shown, options));
    put_lines(out, &shown.source, paint);
    for output in &shown.outputs {
        let what = words::word(output.what());
        let title = format!("  output {} ({}) {what}", output.number, output.kind());
        put(out, format_args!("{}\n", paint.text(CYAN, &title)));
        let texts = output.texts();
        let lines = texts.lines(options);
        if lines.is_empty() && output.what() == What::Changed {
            out.push_str("    what a terminal shows of it is the same; --format html shows it\n");
        }
        put_lines(out, &lines, paint);
    }
}

fn put_notes(out: &mut String, notes: &[String]) {
    for note in notes {
        put(out, format_args!("  {note}\n"));
    }
}

fn put_lines(out: &mut String, lines: &[Line<'_>], paint: Paint) {
    let largest = lines.iter().map(|line| match line {
        Line::Same(before, after, _) => *before.max(after),
        Line::Removed(number, _) | Line::Added(number, _) => *number,
        Line::Fold(_) | Line::More(_) => 0,
    });
    let width = largest.max().unwrap_or(0).to_string().len().max(3);
    for line in lines {
        match line {
            Line::Same(before, after, text) => {
                put(
                    out,
                    format_args!("{before:>width$} {after:>width$}   {text}"),
                );
            }
            Line::Removed(number, pieces) => {
                put(out, format_args!("{number:>width$} {:>width$} ", ""));
                put_pieces(out, "- ", pieces, RED, paint);
            }
            Line::Added(number, pieces) => {
                put(out, format_args!("{:>width$} {number:>width$} ", ""));
                put_pieces(out, "+ ", pieces, GREEN, paint);
            }
            Line::Fold(_) | Line::More(_) => {
                let words = words::left_out(line).unwrap_or_default();
                let words = format!("{:>width$} {:>width$}   {words}", "...", "...");
                out.push_str(&paint.text(DIM, &words));
            }
        }
        // What was blank at the end of a line that is the same says nothing; of a changed one it may.
        out.push('\n');
    }
}

fn put_pieces(out: &mut String, sign: &str, pieces: &[Piece<'_>], colour: &str, paint: Paint) {
    if !paint.0 {
        out.push_str(sign);
        pieces.iter().for_each(|piece| out.push_str(&piece.text));
        return;
    }
    put(out, format_args!("\u{1b}[{colour}m{sign}"));
    for piece in pieces {
        if piece.marked {
            put(out, format_args!("\u{1b}[7m{}\u{1b}[27m", piece.text));
        } else {
            out.push_str(&piece.text);
        }
    }
    out.push_str("\u{1b}[0m");
}

/// Whether there are colours.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn text(self, colour: &str, text: &str) -> String {
        if self.0 {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Writing to a string cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}
