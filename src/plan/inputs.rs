//! What a job reads: its notebook, its requirements, the files it depends on. Read from a tree of files,
//! each at most once.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use mirror::{FileMode, Tree};
use notebook::{CellKind, Notebook};
use protocol::Digest;
use protocol::spec::PythonSource;

use crate::PlanError;
use crate::documents::is_document;
use crate::globs::Globs;
use crate::key::digest_of;
use crate::planned::Dep;

/// Largest notebook of a commit, in bytes: less than a command reads, as a server plans for many.
const MAX_NOTEBOOK_BYTES: u64 = 100 << 20;
/// Largest file of requirements that is read, in bytes.
const MAX_LOCK_BYTES: u64 = 20 << 20;
/// Most bytes that are read of one tree: one content may have thousands of names in a commit.
const MAX_TOTAL_BYTES: u64 = 256 << 20;
/// Metadata of a notebook that a plan asks for.
const METADATA: [&str; 3] = ["kernelspec", "language_info", "execution"];
/// Longer names of files no disk takes, in bytes.
const MAX_NAME: usize = 255;
/// Most files that a `requirements.txt` may include, directly or not.
const MAX_INCLUDES: usize = 50;

/// A notebook of the tree.
#[derive(Debug)]
pub(crate) struct Read {
    /// Its code, with the tags and the metadata that say how it is executed.
    pub(crate) notebook: Notebook,
    pub(crate) fingerprint: Digest,
}

/// Reads the files of one tree.
pub(crate) struct Inputs<'a> {
    tree: &'a dyn Tree,
    notebooks: RefCell<HashMap<String, Rc<Read>>>,
    locks: RefCell<HashMap<String, Lock>>,
    /// Bytes that may still be read.
    room: Cell<u64>,
    /// The first file that there was no room for.
    over: OnceCell<String>,
}

/// What says which packages a job needs.
#[derive(Debug, Clone)]
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
            locks: RefCell::default(),
            room: Cell::new(MAX_TOTAL_BYTES),
            over: OnceCell::new(),
        }
    }

    pub(crate) fn tree(&self) -> &'a dyn Tree {
        self.tree
    }

    /// Takes of what may still be read; the error is a sentence.
    fn take(&self, path: &str, bytes: u64) -> Result<(), String> {
        match self.room.get().checked_sub(bytes) {
            Some(left) => {
                self.room.set(left);
                Ok(())
            }
            None => {
                self.over.get_or_init(|| path.to_owned());
                Err(over())
            }
        }
    }

    /// Whether all that was asked for could be read.
    ///
    /// # Errors
    /// There was too much; names the first file that was left.
    pub(crate) fn whole(&self) -> Result<(), PlanError> {
        match self.over.get() {
            None => Ok(()),
            Some(path) => Err(PlanError::Notebook {
                path: path.clone(),
                message: over(),
            }),
        }
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
        self.take(path, entry.size).map_err(wrong)?;
        let notebook = notebook::read(&self.tree.read(path)?).map_err(|e| wrong(e.to_string()))?;
        let hex = notebook::fingerprint::hex(&notebook);
        let fingerprint = hex
            .parse()
            .map_err(|_| wrong(format!("odd fingerprint {hex}")))?;
        let read = Rc::new(Read {
            notebook: code_only(notebook),
            fingerprint,
        });
        self.notebooks
            .borrow_mut()
            .insert(path.to_owned(), Rc::clone(&read));
        Ok(read)
    }

    /// The requirements in a file; the error is a sentence.
    pub(crate) fn lock(&self, path: &str) -> Result<Lock, String> {
        if let Some(lock) = self.locks.borrow().get(path) {
            return Ok(lock.clone());
        }
        let lock = self.read_lock(path)?;
        let known = lock.clone();
        self.locks.borrow_mut().insert(path.to_owned(), known);
        Ok(lock)
    }

    fn read_lock(&self, path: &str) -> Result<Lock, String> {
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
            let text = self.text(&path)?;
            for included in includes(&text) {
                let outside =
                    || format!("'{path}' includes '{included}', which is not in the repository");
                let target = join(&path, included).ok_or_else(outside)?;
                if self.tree.get(&target).is_none() {
                    return Err(outside());
                }
                if target == path || parts.iter().any(|(seen, _)| *seen == target) {
                    continue;
                }
                waiting.retain(|other| *other != target);
                waiting.push(target);
                if parts.len() + waiting.len() >= MAX_INCLUDES {
                    return Err(format!(
                        "'{path}': more than {MAX_INCLUDES} files of requirements"
                    ));
                }
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
        self.take(path, entry.size)
            .map_err(|message| format!("'{path}': {message}"))?;
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
        let mut names = Names::of(self.tree);
        let mut waiting = names.take(code);
        let mut named = BTreeSet::new();
        while let Some(path) = waiting.pop() {
            named.insert(path.to_owned());
            if let Ok(read) = self.notebook(path) {
                waiting.extend(names.take(&code_of(&read.notebook)));
            }
        }
        named
    }
}

/// The notebooks of a tree that nobody has named yet, by the names of their files.
struct Names<'a> {
    paths: HashMap<&'a str, Vec<&'a str>>,
    lengths: BTreeSet<usize>,
}

impl<'a> Names<'a> {
    fn of(tree: &'a dyn Tree) -> Self {
        let paths = tree.files().iter().map(|file| file.path.as_str());
        let mut names = Self {
            paths: HashMap::new(),
            lengths: BTreeSet::new(),
        };
        for path in paths.filter(|path| !path.contains(".ipynb_checkpoints/")) {
            let name = path.rsplit('/').next().unwrap_or(path);
            if name.ends_with(".ipynb") && name.len() <= MAX_NAME {
                names.paths.entry(name).or_default().push(path);
                names.lengths.insert(name.len());
            }
        }
        names
    }

    /// Takes out those whose names a text has. A name stands where its end does.
    fn take(&mut self, text: &str) -> Vec<&'a str> {
        let mut found = Vec::new();
        for (at, end) in text.match_indices(".ipynb") {
            let end = at + end.len();
            for length in &self.lengths {
                let from = end.checked_sub(*length);
                let name = from.and_then(|from| text.get(from..end));
                let paths = name.and_then(|name| self.paths.remove(name));
                found.extend(paths.into_iter().flatten());
            }
        }
        found
    }
}

fn over() -> String {
    format!(
        "with it more than {} are read to plan: take the outputs out of the notebooks (`trainyard strip`), or let \
         the jobs name fewer",
        protocol::ByteSize(MAX_TOTAL_BYTES)
    )
}

/// What a plan needs of a notebook that has been understood: it is kept until all is planned.
fn code_only(mut notebook: Notebook) -> Notebook {
    notebook
        .metadata
        .retain(|key, _| METADATA.contains(&key.as_str()));
    notebook.cells.retain(|cell| cell.kind == CellKind::Code);
    for cell in &mut notebook.cells {
        cell.metadata.retain(|key, _| key == "tags");
        cell.outputs = Vec::new();
        cell.extra.clear();
    }
    notebook
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

#[cfg(test)]
mod tests {
    use super::*;

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
