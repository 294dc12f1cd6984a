//! What a job reads: its notebook, its requirements, the files it depends on. Read from a tree of files,
//! each at most once.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use mirror::{FileMode, Tree};
use notebook::Notebook;
use protocol::Digest;
use protocol::spec::PythonSource;

use crate::PlanError;
use crate::file::FILE_NAME;
use crate::globs::Globs;
use crate::key::digest_of;
use crate::planned::Dep;

/// Largest notebook of a commit, in bytes: less than a command reads, as a server plans for many.
const MAX_NOTEBOOK_BYTES: u64 = 100 << 20;
/// Largest file of requirements that is read, in bytes.
const MAX_LOCK_BYTES: u64 = 20 << 20;
/// Most files that a `requirements.txt` may include, directly or not.
const MAX_INCLUDES: usize = 50;

/// A notebook of the tree.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) notebook: Notebook,
    pub(crate) fingerprint: Digest,
}

/// Reads the files of one tree.
pub(crate) struct Inputs<'a> {
    tree: &'a dyn Tree,
    notebooks: RefCell<HashMap<String, Rc<Read>>>,
}

/// What says which packages a job needs.
#[derive(Debug)]
pub(crate) struct Lock {
    pub(crate) source: PythonSource,
    pub(crate) digest: Digest,
    /// The files that it was read from: the files of the job need not count them again.
    pub(crate) paths: Vec<String>,
}

impl<'a> Inputs<'a> {
    pub(crate) fn new(tree: &'a dyn Tree) -> Self {
        Self {
            tree,
            notebooks: RefCell::default(),
        }
    }

    pub(crate) fn tree(&self) -> &'a dyn Tree {
        self.tree
    }

    /// A notebook, with what it means.
    pub(crate) fn notebook(&self, path: &str) -> Result<Rc<Read>, PlanError> {
        if let Some(read) = self.notebooks.borrow().get(path) {
            return Ok(Rc::clone(read));
        }
        let wrong = |message: String| PlanError::Notebook {
            path: path.to_owned(),
            message,
        };
        let entry = self
            .tree
            .get(path)
            .ok_or_else(|| wrong("there is no such file".to_owned()))?;
        match entry.mode {
            FileMode::Plain | FileMode::Executable => {}
            FileMode::Link => {
                return Err(wrong("a link is not followed: name its target".to_owned()));
            }
            FileMode::Submodule => return Err(wrong("it is another repository".to_owned())),
        }
        if entry.size > MAX_NOTEBOOK_BYTES {
            let most = MAX_NOTEBOOK_BYTES as usize;
            return Err(wrong(notebook::ReadError::TooLarge { most }.to_string()));
        }
        let notebook = notebook::read(&self.tree.read(path)?).map_err(|e| wrong(e.to_string()))?;
        let hex = notebook::fingerprint::hex(&notebook);
        let fingerprint = hex
            .parse()
            .map_err(|_| wrong(format!("odd fingerprint {hex}")))?;
        let read = Rc::new(Read {
            notebook,
            fingerprint,
        });
        self.notebooks
            .borrow_mut()
            .insert(path.to_owned(), Rc::clone(&read));
        Ok(read)
    }

    /// The requirements in a file; the error is a sentence.
    pub(crate) fn lock(&self, path: &str) -> Result<Lock, String> {
        let source =
            python_source(path).ok_or_else(|| format!("'{path}' says nothing about packages"))?;
        let mut parts: Vec<(String, String)> = Vec::new();
        match &source {
            PythonSource::Requirements(path) => self.requirements(path, &mut parts)?,
            PythonSource::UvLock(path) => {
                let beside =
                    join(path, "pyproject.toml").unwrap_or_else(|| "pyproject.toml".to_owned());
                parts.push((path.clone(), self.text(path)?));
                parts.push((beside.clone(), self.text(&beside)?));
            }
            PythonSource::Pyproject(path) => parts.push((path.clone(), self.text(path)?)),
            PythonSource::Script(path) => {
                let missing = || format!("'{path}' has no PEP 723 block (`# /// script`)");
                let block = self.script_block(path)?.ok_or_else(missing)?;
                let digest = digest_of([path.as_str(), block.as_str()]);
                return Ok(Lock {
                    digest,
                    paths: Vec::new(),
                    source,
                });
            }
        }
        let digest = digest_of(
            parts
                .iter()
                .flat_map(|(path, text)| [path.as_str(), text.as_str()]),
        );
        let paths = parts.into_iter().map(|(path, _)| path).collect();
        Ok(Lock {
            source,
            digest,
            paths,
        })
    }

    /// The PEP 723 block of a script, or of a notebook's first code cell.
    fn script_block(&self, path: &str) -> Result<Option<String>, String> {
        if path.ends_with(".ipynb") {
            let read = self.notebook(path).map_err(|error| error.to_string())?;
            return Ok(notebook_block(&read.notebook));
        }
        Ok(pep723(&self.text(path)?))
    }

    /// A requirements file with those that it includes by `-r` and `-c`.
    fn requirements(&self, path: &str, parts: &mut Vec<(String, String)>) -> Result<(), String> {
        let mut waiting = vec![path.to_owned()];
        while let Some(path) = waiting.pop() {
            if parts.iter().any(|(seen, _)| *seen == path) {
                continue;
            }
            if parts.len() == MAX_INCLUDES {
                return Err(format!(
                    "'{path}': more than {MAX_INCLUDES} files of requirements"
                ));
            }
            let text = self.text(&path)?;
            for included in includes(&text) {
                let outside =
                    || format!("'{path}' includes '{included}', which is not in the repository");
                let target = join(&path, included).ok_or_else(outside)?;
                if self.tree.get(&target).is_none() {
                    return Err(outside());
                }
                waiting.push(target);
            }
            parts.push((path, text));
        }
        Ok(())
    }

    fn text(&self, path: &str) -> Result<String, String> {
        let entry = self
            .tree
            .get(path)
            .ok_or_else(|| format!("there is no file '{path}'"))?;
        if entry.size > MAX_LOCK_BYTES {
            return Err(format!(
                "'{path}' is larger than {}",
                protocol::ByteSize(MAX_LOCK_BYTES)
            ));
        }
        let bytes = self.tree.read(path).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map_err(|_| format!("'{path}' is not UTF-8 text"))
    }

    /// The files that match globs; of a notebook what it means.
    pub(crate) fn matching(&self, globs: &Globs, not: &[&str]) -> Vec<Dep> {
        let files = self.tree.files().iter();
        let wanted =
            files.filter(|file| globs.matches(&file.path) && !not.contains(&file.path.as_str()));
        wanted.map(|file| self.dep(&file.path, &file.id)).collect()
    }

    /// Every file that may change a result: all but documents, files that only tools read, and the
    /// notebooks that `code` does not name.
    pub(crate) fn every(&self, code: &str, not: &[&str]) -> Vec<Dep> {
        let named = self.named_notebooks(code);
        let counts = |path: &str| {
            if not.contains(&path) {
                return false;
            }
            if path.ends_with(".ipynb") {
                named.contains(path)
            } else {
                !is_document(path)
            }
        };
        let files = self.tree.files().iter().filter(|file| counts(&file.path));
        files.map(|file| self.dep(&file.path, &file.id)).collect()
    }

    fn dep(&self, path: &str, id: &str) -> Dep {
        let means = path
            .ends_with(".ipynb")
            .then(|| self.notebook(path).ok())
            .flatten();
        let id = means.map_or_else(|| id.to_owned(), |read| read.fingerprint.to_string());
        Dep {
            path: path.to_owned(),
            id,
        }
    }

    /// Notebooks that code names (`%run other.ipynb`), and those that these name.
    fn named_notebooks(&self, code: &str) -> BTreeSet<String> {
        let all: Vec<&str> = self.tree.files().iter().map(|f| f.path.as_str()).collect();
        let notebooks: Vec<&str> = all.into_iter().filter(|p| p.ends_with(".ipynb")).collect();
        let mut named = BTreeSet::new();
        let mut texts = vec![code.to_owned()];
        while let Some(text) = texts.pop() {
            if !text.contains(".ipynb") {
                continue;
            }
            for path in &notebooks {
                let name = path.rsplit('/').next().unwrap_or(path);
                if text.contains(name)
                    && !path.contains(".ipynb_checkpoints/")
                    && named.insert((*path).to_owned())
                    && let Ok(read) = self.notebook(path)
                {
                    texts.push(code_of(&read.notebook));
                }
            }
        }
        named
    }
}

/// All code of a notebook.
pub(crate) fn code_of(notebook: &Notebook) -> String {
    let sources: Vec<&str> = notebook
        .code_cells()
        .map(|(_, cell)| cell.source.as_str())
        .collect();
    sources.join("\n")
}

/// The PEP 723 block of a notebook's first code cell.
pub(crate) fn notebook_block(notebook: &Notebook) -> Option<String> {
    let (_, first) = notebook.code_cells().next()?;
    pep723(&first.source)
}

/// The text between `# /// script` and `# ///`, by <https://packaging.python.org/en/latest/specifications/inline-script-metadata/>.
fn pep723(text: &str) -> Option<String> {
    let mut lines = text
        .lines()
        .skip_while(|line| line.trim_end() != "# /// script");
    lines.next()?;
    let mut block = Vec::new();
    for line in lines {
        if line.trim_end() == "# ///" {
            return Some(block.join("\n"));
        }
        match line.strip_prefix('#') {
            Some(rest) => block.push(rest.strip_prefix(' ').unwrap_or(rest)),
            None => return None,
        }
    }
    None
}

/// What kind of file it is, by its name.
pub(crate) fn python_source(path: &str) -> Option<PythonSource> {
    let path = path.strip_prefix("./").unwrap_or(path).to_owned();
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    match (name.as_str(), extension) {
        ("uv.lock", _) => Some(PythonSource::UvLock(path)),
        ("pyproject.toml", _) => Some(PythonSource::Pyproject(path)),
        (_, Some("txt" | "in")) => Some(PythonSource::Requirements(path)),
        (_, Some("py" | "ipynb")) => Some(PythonSource::Script(path)),
        _ => None,
    }
}

/// Files named by `-r` and `-c` in a file of requirements; URLs are pip's own business.
fn includes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let rest = ["--requirement", "--constraint", "-r", "-c"]
            .iter()
            .find_map(|option| line.strip_prefix(option))?;
        let long = line.starts_with("--");
        if long && !rest.starts_with([' ', '\t', '=']) {
            return None;
        }
        let path = rest.trim_start_matches([' ', '\t', '=']);
        let path = path.split(" #").next().unwrap_or_default().trim();
        (!path.is_empty() && !path.contains("://")).then_some(path)
    })
}

/// `path` as seen from the folder of `from`; none where it leaves the repository.
fn join(from: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

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

    #[test]
    fn included_requirements_are_found() {
        let text = "numpy==2\n-r base.txt # the rest\n--constraint=../c.txt\n-c https://x/y.txt\n-rnear.txt\n--require-hashes\n";
        assert_eq!(
            includes(text).collect::<Vec<_>>(),
            ["base.txt", "../c.txt", "near.txt"]
        );
        assert_eq!(join("a/b.txt", "../c.txt").as_deref(), Some("c.txt"));
        assert_eq!(join("b.txt", "../c.txt"), None);
    }

    #[test]
    fn a_pep_723_block_is_read() {
        let text = "import x\n# /// script\n# dependencies = [\"a\"]\n#\n# ///\nx()";
        assert_eq!(pep723(text).as_deref(), Some("dependencies = [\"a\"]\n"));
        assert_eq!(pep723("# /// script\n# a\nx = 1\n# ///"), None);
        assert_eq!(pep723("# /// script\n# a"), None);
    }
}
