//! A notebook as plain text for tools that compare lines: code and text, each cell under a line that does not
//! change when others come or go.

use crate::model::{CellKind, Notebook};

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
}
