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
    let folders = folders(env);
    let file = folders
        .iter()
        .flat_map(|folder| [name.to_owned(), name.to_lowercase()].map(|name| folder.join(name)))
        // A name with a slash could leave the folder.
        .filter(|folder| {
            folder
                .file_name()
                .is_some_and(|last| last.eq_ignore_ascii_case(name))
        })
        .map(|folder| folder.join("kernel.json"))
        .find(|file| file.is_file());
    match file {
        Some(file) => from_spec(name, &file, env),
        None => Err(NoKernel::Unknown {
            name: name.chars().take(80).collect(),
            there: there(&folders, env),
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
    }
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
    let Some(program) = argv.first() else {
        return Err(unreadable("argv is empty".to_owned()));
    };
    // A Python kernel of another interpreter is started by our launcher as well.
    let mut command = match argv.get(1..3) {
        Some([m, module])
            if m == "-m" && matches!(module.as_str(), "ipykernel_launcher" | "ipykernel") =>
        {
            by_launcher(name, program.clone())
        }
        _ => KernelCommand {
            name: name.to_owned(),
            argv,
            env: BTreeMap::new(),
            interrupt_by_message: spec.interrupt_mode.as_deref() == Some("message"),
        },
    };
    command.env = spec
        .env
        .into_iter()
        .map(|(key, value)| (key, expand(&value, env)))
        .collect();
    Ok(command)
}

/// Replaces `${NAME}` by what the job's environment has.
fn expand(value: &str, env: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else {
            break;
        };
        expanded.push_str(before);
        expanded.push_str(env.get(name).map_or("", String::as_str));
        rest = behind;
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

/// Names of the kernels that could be had.
fn there(folders: &[PathBuf], env: &BTreeMap<String, String>) -> Vec<String> {
    let specs = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .flatten();
    let mut names: BTreeSet<String> = specs
        .filter(|entry| entry.path().join("kernel.json").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .take(50)
        .collect();
    if python(env).is_ok() {
        names.insert("python3".to_owned());
    }
    names.into_iter().collect()
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
                "ir",
                r#"{"argv": ["R", "{resource_dir}/x", "{connection_file}"], "env": {"A": "${HOME}/r$"}, "interrupt_mode": "message"}"#,
            ),
            (
                "torch",
                r#"{"argv": ["/opt/torch/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]}"#,
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
        let command = find(Some("IR"), &env).unwrap();
        let resources = folder
            .path()
            .join("share/jupyter/kernels/ir")
            .display()
            .to_string();
        assert_eq!(
            command.argv,
            ["R", &format!("{resources}/x"), "{connection_file}"]
        );
        assert_eq!(command.env["A"], "/home/x/r$");
        assert!(command.interrupt_by_message);
    }

    #[test]
    fn another_python_is_started_by_our_launcher_too() {
        let (_folder, env) = world();
        let command = find(Some("torch"), &env).unwrap();
        assert_eq!(command.argv[0], "/opt/torch/bin/python");
        assert!(command.argv[2].contains("XPUB_NODROP"));
    }

    #[test]
    fn an_unknown_name_lists_those_that_are_there() {
        let (_folder, env) = world();
        for name in ["julia-1.10", "../kernels/ir", ""] {
            let NoKernel::Unknown { there, .. } = find(Some(name), &env).unwrap_err() else {
                panic!("{name}")
            };
            assert!(
                ["broken", "ir", "python3", "torch"]
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
