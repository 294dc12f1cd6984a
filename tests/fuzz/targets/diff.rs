//! Two notebooks: their difference applied to one gives the other, and of equal ones there is none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use notebook::diff::{apply, diff};
use notebook::{Cell, CellKind, Notebook, nbformat};
use serde_json::json;

const LINES: [&str; 16] = [
    "x = 1",
    "x = 2",
    "",
    "import os",
    "print(x)",
    "def f():",
    "    return x",
    "    pass",
    "# é",
    "a\tb",
    "}",
    "y = x\r",
    "long = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]",
    "long = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]",
    "\u{2028}",
    "\"",
];

/// A notebook of few words, so that two of them have much in common.
fn small(bytes: &[u8]) -> Notebook {
    let mut notebook = Notebook {
        minor: 5,
        ..Notebook::default()
    };
    for (index, bytes) in bytes.split(|&byte| byte == 0).take(40).enumerate() {
        let (&head, lines) = bytes.split_first().unwrap_or((&0, &[]));
        let lines: Vec<&str> = lines.iter().map(|&b| LINES[usize::from(b & 15)]).collect();
        let mut cell = Cell::code(format!("{}-{index}", head & 7), lines.join("\n"));
        if head & 8 != 0 {
            cell.id = format!("same-{}", head >> 4);
        }
        match head >> 6 {
            0 => cell.kind = CellKind::Markdown,
            1 => {
                cell.execution_count = Some(index as u64);
                let text = lines.first().copied().unwrap_or("x");
                let said = json!({"output_type": "stream", "name": "stdout", "text": text});
                cell.outputs.push(notebook::Output::from(
                    serde_json::from_value::<notebook::message::OutputMessage>(said)
                        .expect("a stream"),
                ));
            }
            2 => drop(
                cell.metadata
                    .insert("tags".into(), json!([LINES[usize::from(head & 15)]])),
            ),
            _ => {}
        }
        // Ids are unique, as the reader makes them.
        if notebook
            .cells
            .iter()
            .all(|other: &Cell| other.id != cell.id)
        {
            notebook.cells.push(cell);
        }
    }
    notebook
}

fn both(bytes: &[u8]) -> Option<(Notebook, Notebook)> {
    let mut parts = bytes.splitn(2, |&byte| byte == 0xff);
    let (before, after) = (parts.next()?, parts.next()?);
    if before.starts_with(b"{") {
        Some((nbformat::read(before).ok()?, nbformat::read(after).ok()?))
    } else {
        Some((small(before), small(after)))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((before, after)) = both(bytes) else {
        return;
    };
    assert_eq!(apply(&before, &diff(&before, &after)), after);
    assert_eq!(apply(&after, &diff(&after, &before)), before);
    assert!(diff(&before, &before).is_empty());
});
