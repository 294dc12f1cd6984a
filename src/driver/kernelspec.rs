//! Which program a notebook's kernel is: the job's Python by our launcher, or what a kernelspec names
//! (<https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs>). Starts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::process::look_up;

/// Kept from dropping messages, see the file.
const LAUNCHER: &str = include_str!("launcher.py");
/// Longest `kernel.json` that is read.
const LONGEST_SPEC: u64 = 1 << 20;
/// Most kernelspecs of one folder that are looked at.
const MOST_SPECS: usize = 1_000;
/// From this likeness on (of 1) a name was probably meant.
const ALIKE: f64 = 0.8;

/// How a kernel is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelCommand {
    /// Name for people.
    pub(crate) name: String,
    /// Program and arguments; `{connection_file}` is still to be replaced.
    pub(crate) argv: Vec<String>,
    /// Added to the job's environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Whether it is interrupted by a message instead of SIGINT.
    pub(crate) interrupt_by_message: bool,
    /// Whether our launcher starts it.
    pub(crate) by_launcher: bool,
}

/// Why there is no such kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoKernel {
    /// The image has no Python.
    #[error("there is no python3 and no python on the PATH ({path})")]
    NoPython {
        /// The PATH.
        path: String,
    },
    /// No kernelspec has this name.
    #[error("there is no kernel '{name}'; there are: {}", there.join(", "))]
    Unknown {
        /// What the notebook asks for.
        name: String,
        /// What could be had.
        there: Vec<String>,
    },
    /// A kernelspec cannot be read.
    #[error("the kernelspec {path} cannot be used: {why}")]
    Unreadable {
        /// Its file.
        path: String,
        /// The reason.
        why: String,
    },
}

#[derive(Deserialize)]
struct Spec {
    argv: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    interrupt_mode: Option<String>,
}

/// Finds the kernel that a notebook asks for; without a name it is the job's Python.
///
/// # Errors
/// Where there is none of that name.
pub(crate) fn find(
    name: Option<&str>,
    env: &BTreeMap<String, String>,
) -> Result<KernelCommand, NoKernel> {
    let name = name.unwrap_or("python3");
    if matches!(name, "python3" | "python") {
        return Ok(by_launcher(name, python(env)?));
    }
    let specs = specs(env);
    match specs.iter().find(|spec| spec.is_named(name)) {
        Some(spec) => from_spec(name, &spec.file, env),
        None => Err(NoKernel::Unknown {
            name: name.chars().take(80).collect(),
            there: there(specs, env),
        }),
    }
}

fn python(env: &BTreeMap<String, String>) -> Result<String, NoKernel> {
    let path = env.get("PATH").map_or("", String::as_str);
    look_up("python3", path)
        .or_else(|| look_up("python", path))
        .ok_or_else(|| NoKernel::NoPython {
            path: path.to_owned(),
        })
}

fn by_launcher(name: &str, python: String) -> KernelCommand {
    let argv = [python.as_str(), "-c", LAUNCHER, "-f", "{connection_file}"];
    KernelCommand {
        name: name.to_owned(),
        argv: argv.map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        interrupt_by_message: false,
        by_launcher: true,
    }
}

/// The command of a Python kernel with our launcher in place of ipykernel's; Python's and the kernel's own options
/// stay. None: this is another program.
fn launched(argv: &[String]) -> Option<Vec<String>> {
    let module = argv.windows(2).position(|two| {
        two[0] == "-m" && matches!(two[1].as_str(), "ipykernel_launcher" | "ipykernel")
    })?;
    let ours = ["-c", LAUNCHER].map(str::to_owned);
    Some([&argv[..module], &ours, &argv[module + 2..]].concat())
}

fn from_spec(
    name: &str,
    file: &Path,
    env: &BTreeMap<String, String>,
) -> Result<KernelCommand, NoKernel> {
    let unreadable = |why: String| NoKernel::Unreadable {
        path: file.display().to_string(),
        why,
    };
    let mut text = String::new();
    File::open(file)
        .and_then(|file| file.take(LONGEST_SPEC).read_to_string(&mut text))
        .map_err(|e| unreadable(e.to_string()))?;
    let spec: Spec = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    let resources = file
        .parent()
        .unwrap_or(Path::new("/"))
        .display()
        .to_string();
    let argv: Vec<String> = spec
        .argv
        .iter()
        .map(|part| part.replace("{resource_dir}", &resources))
        .collect();
    if argv.is_empty() {
        return Err(unreadable("argv is empty".to_owned()));
    }
    // A Python kernel of another interpreter is started by our launcher as well.
    let launched = launched(&argv);
    let mut command = KernelCommand {
        name: name.to_owned(),
        by_launcher: launched.is_some(),
        argv: launched.unwrap_or(argv),
        env: BTreeMap::new(),
        interrupt_by_message: spec.interrupt_mode.as_deref() == Some("message"),
    };
    command.env = spec
        .env
        .into_iter()
        .map(|(key, value)| (key, expand(&value, env)))
        .collect();
    Ok(command)
}

/// Replaces `$NAME` and `${NAME}` by what the job's environment has, and `$$` by a dollar, as Python's
/// `Template.safe_substitute` does: anything else stays.
fn expand(value: &str, env: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let letters = |text: &str| {
            let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            end.unwrap_or(text.len())
        };
        let (name, length) = match after.strip_prefix('{') {
            Some(braced) if braced[letters(braced)..].starts_with('}') => {
                (&braced[..letters(braced)], letters(braced) + 2)
            }
            Some(_) => ("", 0),
            None => (&after[..letters(after)], letters(after)),
        };
        rest = &after[length..];
        match env.get(name) {
            Some(known) => expanded.push_str(known),
            None if after.starts_with('$') => {
                expanded.push('$');
                rest = &after[1..];
            }
            None => {
                expanded.push('$');
                expanded.push_str(&after[..length]);
            }
        }
    }
    expanded + rest
}

/// Where Jupyter looks for kernelspecs, in its order.
fn folders(env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let var = |name: &str| env.get(name).filter(|value| !value.is_empty());
    let mut data: Vec<PathBuf> = var("JUPYTER_PATH")
        .map(|path| path.split(':').map(PathBuf::from).collect())
        .unwrap_or_default();
    data.extend(
        var("JUPYTER_DATA_DIR")
            .map(PathBuf::from)
            .or_else(|| var("XDG_DATA_HOME").map(|home| Path::new(home).join("jupyter")))
            .or_else(|| var("HOME").map(|home| Path::new(home).join(".local/share/jupyter"))),
    );
    let path = var("PATH").map_or("", String::as_str);
    data.extend(
        path.split(':')
            .filter_map(|folder| Path::new(folder).parent())
            .map(|prefix| prefix.join("share/jupyter")),
    );
    data.extend(["/usr/local/share/jupyter", "/usr/share/jupyter"].map(PathBuf::from));
    data.iter().map(|folder| folder.join("kernels")).collect()
}

/// A kernelspec that is there.
struct Found {
    name: String,
    file: PathBuf,
}

impl Found {
    /// Jupyter does not tell capital letters apart.
    fn is_named(&self, name: &str) -> bool {
        self.name.to_lowercase() == name.to_lowercase()
    }
}

/// The kernelspecs that are there, in the order in which they count.
fn specs(env: &BTreeMap<String, String>) -> Vec<Found> {
    let entries = folders(env)
        .into_iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().take(MOST_SPECS));
    entries
        .map(|entry| Found {
            name: entry.file_name().to_string_lossy().into_owned(),
            file: entry.path().join("kernel.json"),
        })
        .filter(|spec| spec.file.is_file())
        .collect()
}

/// Names of the kernels that could be had.
fn there(specs: Vec<Found>, env: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: BTreeSet<String> = specs.into_iter().map(|spec| spec.name).take(50).collect();
    if python(env).is_ok() {
        names.insert("python3".to_owned());
    }
    names.into_iter().collect()
}

impl NoKernel {
    /// Of the kernels that are there the one whose name was probably meant.
    pub(crate) fn nearest(&self) -> Option<&str> {
        let NoKernel::Unknown { name, there } = self else {
            return None;
        };
        let name = name.to_lowercase();
        let near = there.iter().map(|there| {
            let likeness = strsim::jaro_winkler(&name, &there.to_lowercase());
            (likeness, there.as_str())
        });
        let near = near.filter(|(likeness, _)| *likeness >= ALIKE);
        near.max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, there)| there)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn world() -> (tempfile::TempDir, BTreeMap<String, String>) {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("bin")).unwrap();
        fs::write(at("bin/python3"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(at("bin/python3"), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, json) in [
            (
                "IR",
                r#"{"argv": ["R", "{resource_dir}/x", "{connection_file}"], "env": {"A": "${HOME}/r$ $HOME-$$x ${NOT} $NOT ${"}, "interrupt_mode": "message"}"#,
            ),
            (
                "torch",
                r#"{"argv": ["/opt/torch/bin/python", "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}", "--pylab=inline"]}"#,
            ),
            ("broken", "{"),
        ] {
            fs::create_dir_all(at("share/jupyter/kernels").join(name)).unwrap();
            fs::write(
                at("share/jupyter/kernels").join(name).join("kernel.json"),
                json,
            )
            .unwrap();
        }
        let bin = at("bin").display().to_string();
        let env = BTreeMap::from([
            ("PATH".to_owned(), bin),
            ("HOME".to_owned(), "/home/x".to_owned()),
        ]);
        (folder, env)
    }

    #[test]
    fn python_is_the_first_on_the_jobs_path() {
        let (folder, env) = world();
        let command = find(None, &env).unwrap();
        assert_eq!(
            command.argv[0],
            folder.path().join("bin/python3").display().to_string()
        );
        assert!(command.argv[2].contains("XPUB_NODROP"));
        let none = BTreeMap::from([("PATH".to_owned(), "/nowhere".to_owned())]);
        assert_eq!(
            find(Some("python3"), &none).unwrap_err(),
            NoKernel::NoPython {
                path: "/nowhere".into()
            }
        );
    }

    #[test]
    fn a_kernelspec_is_found_and_its_places_filled_in() {
        let (folder, env) = world();
        let command = find(Some("ir"), &env).unwrap();
        let resources = folder
            .path()
            .join("share/jupyter/kernels/IR")
            .display()
            .to_string();
        assert_eq!(
            command.argv,
            ["R", &format!("{resources}/x"), "{connection_file}"]
        );
        assert_eq!(command.env["A"], "/home/x/r$ /home/x-$x ${NOT} $NOT ${");
        assert!(command.interrupt_by_message);
    }

    #[test]
    fn another_python_is_started_by_our_launcher_too() {
        let (_folder, env) = world();
        let command = find(Some("torch"), &env).unwrap();
        let expected = [
            "/opt/torch/bin/python",
            "-Xfrozen_modules=off",
            "-c",
            LAUNCHER,
            "-f",
            "{connection_file}",
            "--pylab=inline",
        ];
        assert_eq!(command.argv, expected);
    }

    #[test]
    fn an_unknown_name_lists_those_that_are_there() {
        let (_folder, env) = world();
        for (name, meant) in [
            ("julia-1.10", None),
            ("../kernels/IR", None),
            ("", None),
            ("pyhton3", Some("python3")),
            ("Torch2", Some("torch")),
        ] {
            let error = find(Some(name), &env).unwrap_err();
            assert_eq!(error.nearest(), meant, "{name}");
            let NoKernel::Unknown { there, .. } = error else {
                panic!("{name}")
            };
            assert!(
                ["IR", "broken", "python3", "torch"]
                    .iter()
                    .all(|name| there.iter().any(|t| t == name))
            );
        }
        assert!(matches!(
            find(Some("broken"), &env),
            Err(NoKernel::Unreadable { .. })
        ));
    }
}
