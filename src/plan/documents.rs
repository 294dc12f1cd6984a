//! Files that no result depends on, by their names.

use crate::file::FILE_NAME;

/// Whether a file is for people or for other tools: no result depends on it unless a job names it in `deps`.
pub(crate) fn is_document(path: &str) -> bool {
    const EXTENSIONS: [&str; 6] = ["md", "markdown", "rst", "adoc", "asciidoc", "ipynb"];
    const NAMES: [&str; 12] = [
        "license",
        "licence",
        "copying",
        "notice",
        "authors",
        "contributors",
        "changelog",
        "changes",
        "readme",
        "contributing",
        "codeowners",
        "citation",
    ];
    const TOOLS: [&str; 7] = [
        FILE_NAME,
        ".gitignore",
        ".gitattributes",
        ".gitmodules",
        ".mailmap",
        ".editorconfig",
        ".pre-commit-config.yaml",
    ];
    const FOLDERS: [&str; 6] = [
        ".github",
        ".gitlab",
        ".gitea",
        ".forgejo",
        ".ipynb_checkpoints",
        ".vscode",
    ];
    let mut folders = path.split('/');
    let name = folders.next_back().unwrap_or_default();
    if folders.any(|folder| FOLDERS.contains(&folder)) || TOOLS.contains(&name) {
        return true;
    }
    let lower = name.to_lowercase();
    let (stem, extension) = lower.split_once('.').unwrap_or((&lower, ""));
    let last = lower.rsplit('.').next().unwrap_or_default();
    // `license.py` may be imported; `LICENSE`, `LICENSE-MIT`, `README.txt` and `CITATION.cff` may not.
    let begins = NAMES.iter().any(|n| {
        stem.strip_prefix(n)
            .is_some_and(|r| r.is_empty() || r.starts_with('-'))
    });
    let plain = matches!(extension, "" | "txt" | "cff");
    EXTENSIONS.contains(&last) && lower.contains('.') || begins && plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_known_by_their_names() {
        for document in [
            "README.md",
            "docs/guide.rst",
            "LICENSE",
            "LICENSE-MIT",
            "sub/README.txt",
            "CITATION.cff",
            ".github/workflows/x.yml",
            ".trainyard.yml",
            "a/.ipynb_checkpoints/x.py",
        ] {
            assert!(is_document(document), "{document}");
        }
        for counts in [
            "train.py",
            "requirements.txt",
            "data/corpus.txt",
            "license.py",
            "changes/a.csv",
            "md",
            "pyproject.toml",
            "Makefile",
            "readmes/x.json",
            ".env",
        ] {
            assert!(!is_document(counts), "{counts}");
        }
    }
}
