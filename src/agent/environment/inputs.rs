//! What an environment is made from, as bytes: they name it. It installs nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use protocol::spec::PythonSource;
use protocol::{Digest, Failure, FailureKind};
use sha2::{Digest as _, Sha256};

use super::local;

/// Most files that one requirements file may lead to.
const MOST_FILES: usize = 64;
/// Largest of these files.
const MOST_BYTES: u64 = 32 << 20;

/// The files that say what is to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inputs {
    /// What is given to `uv`.
    pub(super) kind: Kind,
    /// Every file that has a say, by its path in the workspace.
    files: BTreeMap<String, Vec<u8>>,
    /// They lead to code of the repository, which has a say too.
    local: bool,
}

/// What is given to `uv`. Paths are relative to the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A requirements file, or a `pyproject.toml`.
    File(String),
    /// The folder of a `uv.lock`.
    Lock(String),
    /// The text of a PEP 723 block.
    Block(String),
}

impl Inputs {
    /// Reads them.
    ///
    /// # Errors
    /// A failure of the user's, where a file is missing or leads out of the workspace.
    pub(crate) fn read(source: &PythonSource, workspace: &Path) -> Result<Self, Failure> {
        let mut files = BTreeMap::new();
        let path = source.path();
        let kind = match source {
            PythonSource::Requirements(_) => {
                follow(workspace, path, &mut files)?;
                Kind::File(path.to_owned())
            }
            PythonSource::Pyproject(_) => {
                files.insert(path.to_owned(), load(workspace, path)?);
                Kind::File(path.to_owned())
            }
            PythonSource::UvLock(_) => {
                let folder = Path::new(path).parent().unwrap_or(Path::new(""));
                for file in [Path::new(path).to_owned(), folder.join("pyproject.toml")] {
                    let file = file.display().to_string();
                    files.insert(file.clone(), load(workspace, &file)?);
                }
                Kind::Lock(folder.display().to_string())
            }
            PythonSource::Script(_) => {
                let block = block_of(path, &load(workspace, path)?)?;
                files.insert("block".into(), block.clone().into_bytes());
                Kind::Block(block)
            }
        };
        let mut texts = files.values().map(|bytes| String::from_utf8_lossy(bytes));
        let local = match source {
            PythonSource::Requirements(_) => texts.any(|text| local::in_requirements(&text)),
            PythonSource::Pyproject(_) => texts.any(|text| local::in_project(&text)),
            PythonSource::UvLock(_) => {
                let lock = files.get(path).map(|bytes| String::from_utf8_lossy(bytes));
                lock.is_some_and(|text| local::in_lock(&text))
            }
            PythonSource::Script(_) => texts.any(|text| local::in_block(&text)),
        };
        Ok(Self { kind, files, local })
    }

    /// The environment's name: a hash of these bytes, of what Python they go on top of, and of the platform; and of
    /// `code`, the name of all that the workspace has, where they lead to code in it.
    pub(crate) fn key(&self, base: &str, platform: &str, code: &str) -> Digest {
        let kind = match &self.kind {
            Kind::File(path) => format!("file {path}"),
            Kind::Lock(folder) => format!("lock {folder}"),
            Kind::Block(_) => "block".to_owned(),
        };
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        // Raised when environments are built in another way.
        part(b"trainyard environment 1");
        for text in [&kind, base, platform] {
            part(text.as_bytes());
        }
        for (path, bytes) in &self.files {
            part(path.as_bytes());
            part(bytes);
        }
        if self.local {
            part(code.as_bytes());
        }
        Digest::from_hasher(hasher)
    }
}

fn wrong(message: String) -> Failure {
    Failure::new(FailureKind::RequirementsUnresolved, message)
}

fn load(workspace: &Path, path: &str) -> Result<Vec<u8>, Failure> {
    let relative = Path::new(path);
    let inside = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let real = workspace.join(relative).canonicalize().ok();
    let root = workspace.canonicalize().ok();
    let real = real.filter(|real| root.is_some_and(|root| real.starts_with(root)));
    let Some(real) = real.filter(|real| inside && real.is_file()) else {
        return Err(wrong(format!(
            "the requirements file '{path}' is not in the repository"
        ))
        .hint("Correct `python:` in .trainyard.yml, or commit the file."));
    };
    if fs::metadata(&real).is_ok_and(|meta| meta.len() > MOST_BYTES) {
        return Err(wrong(format!(
            "'{path}' has more than {} MiB",
            MOST_BYTES >> 20
        )));
    }
    fs::read(&real).map_err(|error| wrong(format!("'{path}' cannot be read: {error}")))
}

/// Reads a requirements file and those that it names (`-r`, `-c`).
fn follow(
    workspace: &Path,
    path: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), Failure> {
    if files.contains_key(path) {
        return Ok(());
    }
    if files.len() >= MOST_FILES {
        return Err(wrong(format!(
            "more than {MOST_FILES} requirements files lead to each other"
        )));
    }
    let bytes = load(workspace, path)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    files.insert(path.to_owned(), bytes);
    let folder = Path::new(path).parent().unwrap_or(Path::new("")).to_owned();
    for named in text.lines().filter_map(named_file) {
        follow(workspace, &plain(&folder.join(named)), files)?;
    }
    Ok(())
}

/// The file that a line like `-r base.txt` names, where it is one of the repository.
pub(super) fn named_file(line: &str) -> Option<&str> {
    let line = line.split(" #").next()?.trim();
    let flags = ["--requirement", "--constraint", "-r", "-c"];
    let rest = flags.iter().find_map(|flag| line.strip_prefix(flag))?;
    let file = rest.trim_start_matches([' ', '=', '\t']);
    (!file.is_empty() && !file.contains("://")).then_some(file)
}

/// Without `.` and, where it stays inside, without `..`.
fn plain(path: &Path) -> String {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if out.file_name().is_some_and(|name| name != "..") => {
                out.pop();
            }
            Component::CurDir => {}
            Component::ParentDir
            | Component::Normal(_)
            | Component::RootDir
            | Component::Prefix(_) => {
                out.push(part);
            }
        }
    }
    out.display().to_string()
}

/// The PEP 723 block of a script, or of a notebook's first code cell.
fn block_of(path: &str, bytes: &[u8]) -> Result<String, Failure> {
    let text = if path.ends_with(".ipynb") {
        let read = notebook::nbformat::read(bytes).map_err(|error| {
            Failure::new(FailureKind::NotebookInvalid, format!("{path}: {error}"))
        })?;
        read.code_cells()
            .next()
            .map(|(_, cell)| cell.source.clone())
            .unwrap_or_default()
    } else {
        String::from_utf8_lossy(bytes).into_owned()
    };
    let mut lines = text
        .lines()
        .map(str::trim_end)
        .skip_while(|line| *line != "# /// script");
    let mut block: Vec<&str> = lines.next().into_iter().collect();
    for line in lines {
        block.push(line);
        if line == "# ///" {
            return Ok(block.join("\n") + "\n");
        }
        if line != "#" && !line.starts_with("# ") {
            break;
        }
    }
    Err(wrong(format!("'{path}' has no complete `# /// script` block (PEP 723)"))
        .hint("It begins with `# /// script` and ends with `# ///`; in a notebook it stands in the first code cell."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn key(folder: &Path, base: &str) -> Digest {
        let source = PythonSource::Requirements("ml/requirements.txt".into());
        Inputs::read(&source, folder)
            .unwrap()
            .key(base, "linux/amd64", "project commit-1")
    }

    #[test]
    fn code_of_the_repository_that_is_installed_has_a_say() {
        let source = PythonSource::Requirements("requirements.txt".into());
        let keys = |requirements: &str| {
            let folder = repository(&[("requirements.txt", requirements), ("base.txt", "./lib\n")]);
            let inputs = Inputs::read(&source, folder.path()).unwrap();
            ["project commit-1", "project commit-2", "other commit-1"]
                .map(|code| inputs.key("image", "linux/amd64", code))
        };
        let [first, second, other] = keys("six\n");
        assert!(first == second && first == other);
        let [first, second, other] = keys("six\n-r base.txt\n");
        assert!(first != second && first != other && second != other);
    }

    #[test]
    fn every_file_that_has_a_say_names_the_environment() {
        let files = [
            ("ml/requirements.txt", "six\n-r ../base.txt\n"),
            ("base.txt", "idna # x\n-c ml/pins.txt\n"),
            ("ml/pins.txt", "idna==3\n"),
        ];
        let folder = repository(&files);
        let first = key(folder.path(), "image-1");
        assert_eq!(first, key(folder.path(), "image-1"));
        assert_ne!(first, key(folder.path(), "image-2"));
        fs::write(folder.path().join("ml/pins.txt"), "idna==4\n").unwrap();
        assert_ne!(first, key(folder.path(), "image-1"));
    }

    #[test]
    fn a_file_that_is_missing_or_outside_is_the_users_fault() {
        let folder = repository(&[("requirements.txt", "-r ../../etc/passwd\n")]);
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link.txt")).unwrap();
        for path in ["requirements.txt", "missing.txt", "link.txt"] {
            let failure =
                Inputs::read(&PythonSource::Requirements(path.into()), folder.path()).unwrap_err();
            assert_eq!(failure.kind, FailureKind::RequirementsUnresolved, "{path}");
        }
    }

    #[test]
    fn a_block_is_read_from_a_script() {
        let script =
            "#!/usr/bin/env python\n# /// script\n# dependencies = [\"six\"]\n# ///\nimport six\n";
        assert_eq!(
            block_of("a.py", script.as_bytes()).unwrap(),
            "# /// script\n# dependencies = [\"six\"]\n# ///\n"
        );
        assert!(block_of("a.py", b"# /// script\nimport six\n").is_err());
    }
}
