//! What commands print: text, tables, JSON.

use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use protocol::Timestamp;
use serde::Serialize;

/// Prints a line. What comes from outside cannot move the cursor.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    raw(&clean(text))
}

/// Prints a text in the place of all that the terminal shows.
pub(crate) fn screen(text: &str) -> anyhow::Result<()> {
    raw(&format!("\u{1b}[H\u{1b}[2J{}", clean(text)))
}

/// Says a line on standard error, as [`say`] does. The terminal may be gone.
pub(crate) fn aside(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", clean(text));
}

/// Prints a line for programs, as it is; a reader that went away (`| head`) is no error.
pub(crate) fn raw(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    raw(&serde_json::to_string_pretty(value)?)
}

/// Prints aligned columns.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> anyhow::Result<()> {
    say(&drawn(header, rows))
}

/// Aligned columns. What comes from outside cannot move the cursor.
pub(crate) fn drawn<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    for row in rows {
        table.add_row(row.map(|text| clean(&text)));
    }
    table.trim_fmt()
}

/// Sections of labelled facts, the labels in one column, wrapped at `width`.
pub(crate) fn sections(sections: &[(&str, Vec<[String; 2]>)], width: usize) -> String {
    let mut table = within(width);
    for (title, rows) in sections.iter().filter(|(_, rows)| !rows.is_empty()) {
        if !table.is_empty() {
            table.add_row([""]);
        }
        table.add_row([*title]);
        for [label, text] in rows {
            table.add_row([format!("  {}", clean(label)), clean(text)]);
        }
    }
    flush_left(table)
}

/// A sentence in lines of at most `width`.
pub(crate) fn paragraph(text: &str, width: usize) -> String {
    let mut table = within(width);
    table.add_row([clean(text)]);
    flush_left(table)
}

fn within(width: usize) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table
}

fn flush_left(mut table: Table) -> String {
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    let text = table.trim_fmt();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

pub(crate) fn clean(text: &str) -> String {
    render::terminal::clean(text, false)
}

/// Columns of the terminal: what `COLUMNS` says, else the terminal itself; 100 where there is none.
pub(crate) fn width() -> usize {
    let said = std::env::var("COLUMNS").ok();
    let said = said.and_then(|text| text.parse().ok());
    said.or_else(|| Table::new().width().map(usize::from))
        .unwrap_or(100)
}

/// `just now`, `12 min ago`, `3 h ago`, `5 days ago`.
pub(crate) fn ago(at: Timestamp) -> String {
    let minutes = Timestamp::now().since(at).0 / 60_000;
    match minutes {
        0 => "just now".to_owned(),
        1..60 => format!("{minutes} min ago"),
        60..2_880 => format!("{} h ago", minutes / 60),
        _ => format!("{} days ago", minutes / 1_440),
    }
}
