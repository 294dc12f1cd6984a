//! The fingerprint: a hash of what a notebook means. It must never ignore what might change a result.

use sha2::{Digest as _, Sha256};

use crate::model::Notebook;

/// Tags that change what is executed, or what follows from it.
pub const TAGS: [&str; 4] = [
    "injected-parameters",
    "parameters",
    "raises-exception",
    "skip-execution",
];

/// SHA-256 over kernel name and language, the options of `metadata.execution` that are heeded and, for each code
/// cell, its tags of [`TAGS`], its tags `timeout=…` and its source with line ends normalised and trailing blank space
/// of each line dropped. Outputs, counts, ids, Markdown, other metadata and code cells that hold only blank space
/// have no part in it.
#[must_use]
pub fn fingerprint(notebook: &Notebook) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"trainyard notebook 1\n");
    // What is absent means Jupyter's default: a first execution, which writes it down, changes nothing.
    put(&mut hash, notebook.kernel_name().unwrap_or("python3"));
    put(&mut hash, &notebook.language().unwrap_or_default());
    // Only what is said has a part, so that a notebook that says nothing kept its fingerprint when these came.
    for (name, value) in notebook.execution_options() {
        put(&mut hash, "execution");
        put(&mut hash, name);
        put(&mut hash, &value.to_string());
    }
    for (_, cell) in notebook.code_cells() {
        let tags: Vec<&str> = TAGS.into_iter().filter(|tag| cell.has_tag(tag)).collect();
        if cell.is_blank() && tags.is_empty() {
            continue;
        }
        for timeout in cell.timeout_tags() {
            put(&mut hash, "timeout");
            put(&mut hash, timeout);
        }
        put(&mut hash, "code");
        put(&mut hash, &tags.join(","));
        put(&mut hash, &normal(&cell.source));
    }
    hash.finalize().into()
}

/// [`fingerprint`] as 64 lower-case hex digits.
#[must_use]
pub fn hex(notebook: &Notebook) -> String {
    hex::encode(fingerprint(notebook))
}

/// A part with its length before it: no two lists of parts give the same bytes.
fn put(hash: &mut Sha256, part: &str) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

fn normal(source: &str) -> String {
    let text = source.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text
        .split('\n')
        .map(|line| line.trim_end_matches([' ', '\t']))
        .collect();
    lines.join("\n")
}
