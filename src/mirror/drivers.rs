//! A diff driver and a filter of git for notebooks, in a repository's or a person's own configuration. The one
//! place that writes git's settings; it writes through the `git` program, with that person's configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::git::wait;
use crate::{Deadline, MirrorError};

/// The name of driver and filter.
const NAME: &str = "trainyard";
/// Files that they are for.
const PATTERN: &str = "*.ipynb";

/// Where settings are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// To the repository that a folder lies in, and to the `.gitattributes` at its root.
    Repository(PathBuf),
    /// To the person's own configuration and attributes, for all repositories.
    Global,
}

/// What is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drivers {
    /// The program that git calls: an absolute path.
    pub program: String,
    /// Whether outputs are stripped when a notebook is added.
    pub strip: bool,
}

/// What was written, a line for each setting: `FILE: SETTING`. Empty: it was there already.
pub type Written = Vec<String>;

/// Sets up. What is there already stays.
///
/// # Errors
/// [`MirrorError::NoRepository`], or where git refuses, or the disk does.
pub fn install(
    scope: &Scope,
    drivers: &Drivers,
    deadline: &Deadline,
) -> Result<Written, MirrorError> {
    let places = Places::find(scope, deadline)?;
    let mut written = Vec::new();
    for (key, value) in settings(drivers) {
        if places.get(&key, deadline)?.as_deref() != Some(&value) {
            places.git(&["--replace-all", &key, &value], deadline)?;
            written.push(format!("{}: {key} = {value}", places.config));
        }
    }
    let old = read(&places.attributes)?;
    let strip = drivers.strip || lines(&old).any(|line| line == attribute(true));
    let line = attribute(strip);
    let new = with_line(&old, &line);
    if new != old {
        write(&places.attributes, &new)?;
        written.push(format!("{}: {line}", places.attributes.display()));
    }
    Ok(written)
}

/// Takes away what [`install`] wrote, and nothing else.
///
/// # Errors
/// As [`install`].
pub fn remove(scope: &Scope, deadline: &Deadline) -> Result<Written, MirrorError> {
    let places = Places::find(scope, deadline)?;
    let everything = Drivers {
        program: String::new(),
        strip: true,
    };
    let mut removed = Vec::new();
    for (key, _) in settings(&everything) {
        if places.get(&key, deadline)?.is_some() {
            places.git(&["--unset-all", &key], deadline)?;
            removed.push(format!("{}: {key}", places.config));
        }
    }
    let old = read(&places.attributes)?;
    let new = without_lines(&old);
    if new != old {
        if new.is_empty() {
            fs::remove_file(&places.attributes).map_err(MirrorError::io(&places.attributes))?;
        } else {
            write(&places.attributes, &new)?;
        }
        let line = lines(&old).find(|line| is_ours(line)).unwrap_or_default();
        removed.push(format!("{}: {line}", places.attributes.display()));
    }
    Ok(removed)
}

/// Keys and values. `command` is what `git diff` calls; `git log -p` and `git show` never call one, and take
/// the text of `textconv` instead.
fn settings(drivers: &Drivers) -> Vec<(String, String)> {
    let program = quoted(&drivers.program);
    let mut settings = vec![
        (
            format!("diff.{NAME}.command"),
            format!("{program} diff --git-driver"),
        ),
        (
            format!("diff.{NAME}.textconv"),
            format!("{program} diff --git-textconv"),
        ),
        (format!("diff.{NAME}.xfuncname"), "^# %%.*$".to_owned()),
    ];
    if drivers.strip {
        settings.push((
            format!("filter.{NAME}.clean"),
            format!("{program} strip --name %f -"),
        ));
        // Where the program went away, files are added as they are.
        settings.push((format!("filter.{NAME}.required"), "false".to_owned()));
    }
    settings
}

/// A word of the shell, through which git calls programs.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn attribute(strip: bool) -> String {
    let filter = if strip {
        format!(" filter={NAME}")
    } else {
        String::new()
    };
    format!("{PATTERN} diff={NAME}{filter}")
}

fn is_ours(line: &str) -> bool {
    line == attribute(true) || line == attribute(false)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
}

/// `line` in place of one of ours, else at the end.
fn with_line(text: &str, line: &str) -> String {
    if lines(text).any(is_ours) {
        let new = lines(text).map(|old| if is_ours(old) { line } else { old });
        return new.collect::<Vec<_>>().join("\n");
    }
    // A text without an end of its last line gets one back when the line is taken away.
    match text.is_empty() || text.ends_with('\n') {
        true => format!("{text}{line}\n"),
        false => format!("{text}\n{line}"),
    }
}

fn without_lines(text: &str) -> String {
    let kept = lines(text).filter(|line| !is_ours(line));
    kept.collect::<Vec<_>>().join("\n")
}

fn read(path: &Path) -> Result<String, MirrorError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(MirrorError::io(path)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), MirrorError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(MirrorError::io(folder))?;
    }
    fs::write(path, text).map_err(MirrorError::io(path))
}

/// Where settings and attributes lie.
struct Places {
    /// `--local` or `--global`.
    level: &'static str,
    folder: PathBuf,
    /// The configuration, as a person would call it.
    config: String,
    attributes: PathBuf,
}

impl Places {
    fn find(scope: &Scope, deadline: &Deadline) -> Result<Self, MirrorError> {
        match scope {
            Scope::Repository(folder) => {
                if !folder.is_dir() {
                    return Err(MirrorError::NoFolder {
                        path: folder.clone(),
                    });
                }
                let root = match call(folder, &["rev-parse", "--show-toplevel"], deadline) {
                    Ok(Some(root)) => root,
                    Err(MirrorError::Git { what, message })
                        if !message.contains("not a git repository") =>
                    {
                        return Err(MirrorError::Git { what, message });
                    }
                    Ok(None) | Err(_) => {
                        return Err(MirrorError::NoRepository {
                            path: folder.canonicalize().unwrap_or_else(|_| folder.clone()),
                        });
                    }
                };
                Ok(Self {
                    level: "--local",
                    config: "git config --local".to_owned(),
                    attributes: Path::new(&root).join(".gitattributes"),
                    folder: root.into(),
                })
            }
            Scope::Global => {
                let folder = PathBuf::from("/");
                let asked = ["config", "--global", "--type=path", "core.attributesFile"];
                let named = call(&folder, &asked, deadline)?;
                let attributes = named.map(PathBuf::from).or_else(default_attributes);
                Ok(Self {
                    level: "--global",
                    config: "git config --global".to_owned(),
                    attributes: attributes.ok_or_else(|| MirrorError::Git {
                        what: "finding your git attributes".to_owned(),
                        message: "HOME is not set".to_owned(),
                    })?,
                    folder,
                })
            }
        }
    }

    fn get(&self, key: &str, deadline: &Deadline) -> Result<Option<String>, MirrorError> {
        call(
            &self.folder,
            &["config", self.level, "--get", key],
            deadline,
        )
    }

    fn git(&self, arguments: &[&str], deadline: &Deadline) -> Result<(), MirrorError> {
        let all = [&["config", self.level], arguments].concat();
        match call(&self.folder, &all, deadline)? {
            Some(_) => Ok(()),
            None => Err(MirrorError::Git {
                what: format!("git {}", all.join(" ")),
                message: "git would not write the setting".to_owned(),
            }),
        }
    }
}

/// Where git looks for a person's attributes when nothing names them.
fn default_attributes() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = match set("XDG_CONFIG_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&set("HOME")?).join(".config"),
    };
    Some(folder.join("git/attributes"))
}

/// Calls git with the person's own configuration. None: it has no such setting (exit code 1).
fn call(
    folder: &Path,
    arguments: &[&str],
    deadline: &Deadline,
) -> Result<Option<String>, MirrorError> {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .current_dir(folder)
        .env("LC_ALL", "C");
    let what = "git config";
    let (status, stdout, stderr) = wait(command, what, deadline, None)?;
    match status.code() {
        Some(0) => Ok(Some(
            String::from_utf8_lossy(&stdout)
                .trim_end_matches('\n')
                .to_owned(),
        )),
        Some(1) => Ok(None),
        Some(_) | None => Err(MirrorError::Git {
            what: format!("git {}", arguments.join(" ")),
            message: String::from_utf8_lossy(&stderr)
                .trim()
                .chars()
                .take(600)
                .collect(),
        }),
    }
}

/// Whether `git diff` would have colours on a terminal, or into a pager that it started.
///
/// # Errors
/// Where git cannot be asked.
pub fn colours(terminal: bool, deadline: &Deadline) -> Result<bool, MirrorError> {
    let word = if terminal { "true" } else { "false" };
    let asked = ["config", "--get-colorbool", "color.diff", word];
    Ok(call(Path::new("."), &asked, deadline)?.as_deref() == Some("true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_added_once_and_taken_away_exactly() {
        for before in ["", "*.csv text\n", "*.csv text", "a\n\n# end\n", "\n"] {
            let once = with_line(before, &attribute(false));
            assert_eq!(with_line(&once, &attribute(false)), once);
            let twice = with_line(&once, &attribute(true));
            assert_eq!(lines(&twice).filter(|line| is_ours(line)).count(), 1);
            assert!(twice.contains("*.ipynb diff=trainyard filter=trainyard"));
            assert_eq!(without_lines(&twice), before);
        }
    }

    #[test]
    fn a_program_with_blanks_is_one_word() {
        assert_eq!(quoted("/opt/trainyard"), "/opt/trainyard");
        assert_eq!(
            quoted("/my tools/it's/trainyard"),
            "'/my tools/it'\\''s/trainyard'"
        );
    }
}
