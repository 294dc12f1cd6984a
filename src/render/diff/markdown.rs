//! A diff for a comment of a forge: a line for each cell, its lines folded behind it.

use super::story::{self, Line, Shown, What};
use super::{Compared, Options, words};
use crate::html::escape;
use crate::markdown;

/// Most bytes of one cell's block.
const MAX_BLOCK: usize = 16_000;
/// Room for what is said of cells that are left out.
const RESERVE: usize = 200;

/// The comment, of at most [`Options::max_bytes`]; empty where nothing differs.
#[must_use]
pub fn comment(compared: &[Compared<'_>], options: &Options) -> String {
    // A fenced block has no mark for a word.
    let options = &Options {
        words: false,
        ..options.clone()
    };
    let mut out = String::new();
    let mut left = 0;
    for one in compared
        .iter()
        .filter(|one| !one.diff.is_empty() || super::differs(one, options.view))
    {
        if out.len() + 4 * RESERVE > options.max_bytes {
            left += 1;
            continue;
        }
        put_notebook(&mut out, one, options);
    }
    if left > 0 {
        out.push_str(&format!("\nand {left} more notebooks\n"));
    }
    out
}

fn put_notebook(out: &mut String, compared: &Compared<'_>, options: &Options) {
    let name = markdown::code_span(&story::plain(compared.name, 200), 200);
    let hidden = words::hidden(compared, options);
    if !super::differs(compared, options.view) {
        let hidden = hidden.unwrap_or_else(|| "details".to_owned());
        let meaning = words::meaning(compared);
        out.push_str(&format!(
            "**{name}**: the same but for {hidden}; {meaning}\n\n"
        ));
        return;
    }
    out.push_str(&format!(
        "**{name}**: {}\n\n",
        words::headline(compared, options)
    ));
    let notes = words::notebook_notes(compared, options);
    for note in notes.iter().take(20) {
        out.push_str(&format!("- {}\n", markdown::escape(note, 200)));
    }
    if !notes.is_empty() {
        out.push('\n');
    }
    let (cells, mut more) = story::cells(compared, options);
    let all = cells.len();
    for (at, shown) in cells.enumerate() {
        let block = cell(&shown, options);
        if out.len() + block.len() + RESERVE > options.max_bytes {
            more += all - at;
            break;
        }
        out.push_str(&block);
    }
    if let Some(more) = words::more_cells(more) {
        out.push_str(&format!("{more}\n\n"));
    }
    if let Some(hidden) = hidden {
        out.push_str(&format!("Not shown: {hidden}\n\n"));
    }
}

/// One cell, folded. Between the tags stand blank lines: forges read Markdown there again.
fn cell(shown: &Shown<'_>, options: &Options) -> String {
    let (come, gone) = shown.line_counts();
    let mut title = escape(&words::place(shown));
    for tag in words::tags(shown.cell) {
        title.push_str(&format!(" <code>{}</code>", defused(&tag)));
    }
    title.push_str(&format!(" {}", words::what(shown)));
    if come + gone > 0 {
        title.push_str(&format!(" (+{come} −{gone})"));
    }
    let mut body = String::new();
    for note in words::notes(shown, options) {
        body.push_str(&format!("- {}\n", markdown::escape(&note, 200)));
    }
    body.push_str(&block(&shown.source));
    for output in &shown.outputs {
        let kind = markdown::escape(&output.kind(), 100);
        let what = words::word(output.what());
        body.push_str(&format!("\noutput {} ({kind}) {what}\n", output.number));
        let texts = output.texts();
        let lines = texts.lines(options);
        if lines.is_empty() && output.what() == What::Changed {
            body.push_str("\nIts text is the same.\n");
        }
        body.push_str(&block(&lines));
    }
    if body.is_empty() {
        return format!("- {title}\n\n");
    }
    format!("<details><summary>{title}</summary>\n\n{body}\n</details>\n\n")
}

/// Text in HTML that a forge makes no mention or reference of.
fn defused(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        out.push(c);
        if "@#!~%$:".contains(c) {
            out.push('\u{200b}');
        }
    }
    escape(&out)
}

fn block(lines: &[Line<'_>]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    for line in lines {
        let (sign, words) = match line {
            Line::Same(_, _, text) => (' ', text.clone()),
            Line::Removed(_, pieces) => ('-', story::joined(pieces)),
            Line::Added(_, pieces) => ('+', story::joined(pieces)),
            Line::Fold(_) | Line::More(_) => {
                ('@', words::left_out(line).unwrap_or_default().into())
            }
        };
        match sign {
            '@' => text.push_str(&format!("@@ {words} @@\n")),
            sign => text.push_str(&format!("{sign}{words}\n")),
        }
    }
    format!("\n{}", markdown::code_block(&text, "diff", MAX_BLOCK))
}
