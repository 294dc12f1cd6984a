//! A notebook as plain text for tools that compare lines: code and text, each cell under a line that does not
//! change when others come or go.

use super::text::edits;
use crate::model::{CellKind, Notebook};
use crate::nbformat;

/// The text: kernel, then the cells, each under `# %%` as many editors write it. No outputs, counts or ids.
#[must_use]
pub fn plain_text(notebook: &Notebook) -> String {
    let mut out = String::new();
    if let Some(kernel) = notebook.kernel_name() {
        out.push_str(&format!("# kernel: {kernel}\n"));
    }
    for cell in &notebook.cells {
        let kind = match &cell.kind {
            CellKind::Code => String::new(),
            kind => format!(" [{}]", kind.word()),
        };
        let tags: Vec<&str> = cell.tags().collect();
        let tags = if tags.is_empty() {
            String::new()
        } else {
            format!(" tags: {}", tags.join(", "))
        };
        let end = if cell.source.is_empty() || cell.source.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        out.push_str(&format!("\n# %%{kind}{tags}\n{}{end}", cell.source));
    }
    out
}

/// The text of a file in which git left conflicts: where the [`plain_text`] of its sides differs, both stand between
/// git's markers. None: it has no conflict, or one of its sides is no notebook by itself.
#[must_use]
pub fn plain_conflict(text: &str) -> Option<String> {
    let (ours, theirs) = sides(text)?;
    let read = |side: String| Some(plain_text(&nbformat::read(side.as_bytes()).ok()?));
    let (ours, theirs) = (read(ours)?, read(theirs)?);
    let lines = |text| str::split_inclusive(text, '\n').collect::<Vec<&str>>();
    let (old, new) = (lines(&ours), lines(&theirs));
    let (mut out, mut at) = (String::new(), 0);
    for (mine, other) in edits(&old, &new) {
        out += &old[at..mine.start].concat();
        at = mine.end;
        let (mine, other) = (old[mine].concat(), new[other].concat());
        out += &format!("<<<<<<< ours\n{mine}=======\n{other}>>>>>>> theirs\n");
    }
    Some(out + &old[at..].concat())
}

/// Our and their side of a file with git's markers; of what was there before, neither has anything.
fn sides(text: &str) -> Option<(String, String)> {
    let (mut ours, mut theirs) = (String::new(), String::new());
    let (mut mine, mut other, mut any) = (true, true, false);
    for line in text.split_inclusive('\n') {
        (mine, other) = match line.get(..7) {
            Some("<<<<<<<") => (true, false),
            Some("|||||||") => (false, false),
            Some("=======") => (false, true),
            Some(">>>>>>>") => (true, true),
            Some(_) | None => {
                ours += if mine { line } else { "" };
                theirs += if other { line } else { "" };
                continue;
            }
        };
        any = true;
    }
    any.then_some((ours, theirs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Cell;
    use serde_json::json;

    #[test]
    fn cells_stand_under_lines_of_their_own() {
        let mut words = Cell::code("b", "# Title\n");
        words.kind = CellKind::Markdown;
        let mut cell = Cell::code("a", "x = 1");
        cell.metadata
            .insert("tags".into(), json!(["parameters", "a"]));
        let mut notebook = Notebook {
            cells: vec![cell, words, Cell::code("c", "")],
            ..Notebook::default()
        };
        notebook
            .metadata
            .insert("kernelspec".into(), json!({"name": "ir"}));
        assert_eq!(
            plain_text(&notebook),
            "# kernel: ir\n\n# %% tags: parameters, a\nx = 1\n\n# %% [markdown]\n# Title\n\n# %%\n"
        );
    }

    #[test]
    fn a_conflict_stands_where_the_text_differs() {
        let file = "{\"nbformat\": 4, \"nbformat_minor\": 5, \"metadata\": {}, \"cells\": [\n\
            {\"cell_type\": \"code\", \"id\": \"a\", \"metadata\": {}, \"source\": [\"a = 1\\n\",\n\
            <<<<<<< HEAD\n\"b = 2\"\n||||||| base\n\"b = 1\"\n=======\n\"b = 3\"\n>>>>>>> other\n\
            ], \"execution_count\": null, \"outputs\": []}]}";
        let told = "\n# %%\na = 1\n<<<<<<< ours\nb = 2\n=======\nb = 3\n>>>>>>> theirs\n";
        assert_eq!(plain_conflict(file).as_deref(), Some(told));
        assert_eq!(plain_conflict("{}"), None);
        assert_eq!(plain_conflict("<<<<<<< a\n{}\n=======\n>>>>>>> b\n"), None);
    }
}
