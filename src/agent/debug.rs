//! A shell where a job failed: the kept files of an attempt, and a container like the job's, without the driver. It
//! looks at this host's disk only, knows no server, and starts nothing itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use notebook::nbformat;
use protocol::agent_api::AttemptOrder;
use protocol::driver::{DriverJob, DriverWork, JOB_FILE, MOUNT, NOTEBOOK_FILE, OUT_DIR};
use protocol::{Span, Timestamp, Work};

use crate::attempt::job::DRIVER;
use crate::attempt::{AttemptDir, kept_until, read_json};
use crate::command;
use crate::config::Config;
use crate::executor::{ContainerSpec, Engine, EngineError};

/// Opens bash where the image has it.
const SHELL: &str = "command -v bash >/dev/null && exec bash || exec sh";
/// The failed notebook as a program, in the job's `/tmp`.
const PROGRAM: &str = "again.ipy";
/// Where a lint job's script lies there.
const LINT: &str = "trainyard-lint.sh";

/// What a shell is opened with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A person sits before a terminal.
    pub terminal: bool,
    /// Give it the job's GPUs too, which are booked no more.
    pub gpus: bool,
}

/// What to start, and what to say before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its environment, complete; none: that of whoever asks.
    pub env: Option<BTreeMap<String, String>>,
    /// Where it starts.
    pub folder: PathBuf,
    /// Sentences for the person.
    pub words: Vec<String>,
}

impl Room {
    /// The whole as one line for a shell.
    #[must_use]
    pub fn line(&self) -> String {
        let mut words = vec![
            "cd".to_owned(),
            command::quote(&self.folder.display().to_string()),
            "&&".into(),
        ];
        if let Some(env) = &self.env {
            words.extend(["env", "--ignore-environment"].map(str::to_owned));
            words.extend(
                env.iter()
                    .map(|(name, value)| command::quote(&format!("{name}={value}"))),
            );
        }
        words.extend(self.argv.iter().map(|word| command::quote(word)));
        words.join(" ")
    }
}

/// There is nothing to enter.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    /// Nothing here has this id.
    #[error(
        "nothing of '{id}' is kept in {}: it ran on another host, it did not fail, or its time is over (`jobs.keep_failed`)",
        data.display()
    )]
    NotHere {
        /// What was asked for.
        id: String,
        /// Where was looked.
        data: PathBuf,
    },
    /// It has not ended.
    #[error("attempt {attempt} has not ended: it can be entered once it has failed")]
    NotOver {
        /// Which.
        attempt: String,
    },
    /// It was kept.
    #[error(
        "the time of attempt {attempt}'s files was over {ago} ago, and they are being removed: run the job again"
    )]
    NotKept {
        /// Which.
        attempt: String,
        /// Since when.
        ago: Span,
    },
    /// It failed before its code began.
    #[error("the job of attempt {attempt} never began, so there is nothing to enter; its files are in {}", workspace.display())]
    NeverBegan {
        /// Which.
        attempt: String,
        /// Its checkout.
        workspace: PathBuf,
    },
    /// Something that it ran with was removed.
    #[error("{} is gone, which the job had at {at}: run the job again", path.display())]
    Gone {
        /// On this host.
        path: PathBuf,
        /// For the job.
        at: String,
    },
    /// Its image was removed.
    #[error(
        "the image {name} ({id}) that the job ran in is not on this host any more: run the job again"
    )]
    ImageGone {
        /// As the job named it.
        name: String,
        /// Its id.
        id: String,
    },
    /// The disk refuses.
    #[error("cannot read {}: {source}; run this as root or as the agent's user", path.display())]
    Disk {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine does not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Finds a kept attempt below an agent's data folder by its own id or its job's: of several the one that is kept longest.
///
/// # Errors
/// Where none is kept, with the reason.
pub fn find(data: &Path, id: &str) -> Result<AttemptDir, DebugError> {
    let not_here = || DebugError::NotHere {
        id: id.to_owned(),
        data: data.to_owned(),
    };
    let attempts = data.join("attempts");
    let entries = match std::fs::read_dir(&attempts) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_here()),
        Err(source) => {
            return Err(DebugError::Disk {
                path: attempts,
                source,
            });
        }
    };
    let mut found = None;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let dir = AttemptDir::open(&path);
        // Rubbish and what an older version left: no attempt of ours.
        let Ok(order) = dir.order() else { continue };
        if order.attempt.as_str() != id && order.job.as_str() != id {
            continue;
        }
        let until = kept_until(&dir).map_err(|source| DebugError::Disk { path, source })?;
        if found.as_ref().is_none_or(|(best, _)| until > *best) {
            found = Some((until, dir));
        }
    }
    let (until, dir) = found.ok_or_else(not_here)?;
    let attempt = || name(&dir);
    match until {
        None => Err(DebugError::NotOver { attempt: attempt() }),
        Some(until) if until <= Timestamp::now() => Err(DebugError::NotKept {
            attempt: attempt(),
            ago: Timestamp::now().since(until),
        }),
        Some(_) => Ok(dir),
    }
}

fn name(dir: &AttemptDir) -> String {
    dir.path()
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Says what to start for a shell in a kept attempt.
///
/// # Errors
/// Where something that the job ran with is gone.
pub async fn open(config: &Config, dir: &AttemptDir, options: Options) -> Result<Room, DebugError> {
    let disk = |path: PathBuf| move |source| DebugError::Disk { path, source };
    let order = dir.order().map_err(disk(dir.path().to_owned()))?;
    let told = dir.contract().join(JOB_FILE);
    let job: Option<DriverJob> = read_json(&told).map_err(disk(told))?;
    let record = dir.container_file();
    let spec: Option<ContainerSpec> = read_json(&record).map_err(disk(record))?;
    let never = || DebugError::NeverBegan {
        attempt: name(dir),
        workspace: dir.workspace(),
    };
    let job = job.ok_or_else(never)?;
    let mut words = vec![format!(
        "attempt {} of {} in {}",
        name(dir),
        order.spec.name,
        dir.workspace().display()
    )];
    if let Ok(Some(until)) = kept_until(dir) {
        words.push(format!(
            "its files are kept for another {}",
            until.since(Timestamp::now())
        ));
    }
    if !order.spec.secrets.is_empty() {
        words.push(format!(
            "secrets are not kept, so these are not set: {}",
            order.spec.secrets.join(", ")
        ));
    }
    let room = match (spec, job.user) {
        (Some(spec), Some(user)) => {
            let user = format!("{}:{}", user.uid, user.gid);
            contained(config, &order, &job, spec, user, options, &mut words).await?
        }
        (None, None) => bare(dir, &job, options, &mut words),
        (Some(_), None) | (None, Some(_)) => return Err(never()),
    };
    words.extend(again(dir, &order, &job));
    words.push(
        "leave with `exit`; what you change in the workspace stays as long as it is kept".into(),
    );
    Ok(Room { words, ..room })
}

/// A container like the job's: the same but for the driver, as the job's user.
async fn contained(
    config: &Config,
    order: &AttemptOrder,
    job: &DriverJob,
    mut spec: ContainerSpec,
    user: String,
    options: Options,
    words: &mut Vec<String>,
) -> Result<Room, DebugError> {
    spec.mounts
        .retain(|mount| mount.at != DRIVER && !Path::new(&mount.at).starts_with(MOUNT));
    if let Some(mount) = spec.mounts.iter().find(|mount| !mount.from.exists()) {
        return Err(DebugError::Gone {
            path: mount.from.clone(),
            at: mount.at.clone(),
        });
    }
    let engine = Engine::connect(config).await?;
    let image = match engine.image(&spec.image, None).await {
        Ok(image) => image,
        Err(EngineError::NoImage { .. }) => {
            return Err(DebugError::ImageGone {
                name: order.spec.image.clone(),
                id: spec.image,
            });
        }
        Err(error) => return Err(error.into()),
    };
    if !options.gpus && !spec.gpus.is_empty() {
        spec.gpus.clear();
        words.push("the job's GPUs are not here, since others may have them now: --gpus takes them all the same".into());
    }
    spec.argv = ["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec();
    spec.user = user;
    spec.workdir.clone_from(&job.workdir);
    // Not the job's own labels: an agent would take this for its job.
    spec.labels = [("trainyard.debug".to_owned(), order.attempt.to_string())].into();
    spec.env = difference(&job.env, &image.env);
    if options.terminal {
        let terminal = std::env::var("TERM").unwrap_or_else(|_| "xterm".into());
        spec.env.insert("TERM".into(), terminal);
    }
    words.push(format!(
        "in a container of {}, as user {}, network {}",
        order.spec.image,
        spec.user,
        network(&spec)
    ));
    let mut argv = vec!["docker".to_owned()];
    argv.extend(
        config
            .executors
            .docker_host
            .iter()
            .map(|host| format!("--host={host}")),
    );
    argv.extend(spec.run_arguments(options.terminal));
    Ok(Room {
        argv,
        env: None,
        folder: "/".into(),
        words: Vec::new(),
    })
}

fn network(spec: &ContainerSpec) -> &'static str {
    match spec.network {
        protocol::spec::Network::None => "none",
        protocol::spec::Network::Full => "full",
    }
}

/// What has to be set so that a container of the image has the job's variables; one that the job had not is empty.
fn difference(
    job: &BTreeMap<String, String>,
    image: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let hidden = image.keys().filter(|name| !job.contains_key(*name));
    let set = job
        .iter()
        .filter(|(name, value)| image.get(*name) != Some(value));
    hidden
        .map(|name| (name.clone(), String::new()))
        .chain(set.map(|(name, value)| (name.clone(), value.clone())))
        // The container's own words for these come with it.
        .filter(|(name, _)| name != "NVIDIA_VISIBLE_DEVICES" && name != "LD_PRELOAD")
        .collect()
}

/// The shell executor isolates nothing: a shell of this host.
fn bare(dir: &AttemptDir, job: &DriverJob, options: Options, words: &mut Vec<String>) -> Room {
    let mut env = job.env.clone();
    if options.terminal
        && let Ok(terminal) = std::env::var("TERM")
    {
        env.insert("TERM".into(), terminal);
    }
    words.push("a shell of this host, NOT isolated at all, as the job was".into());
    let shell = std::env::var("SHELL")
        .ok()
        .filter(|shell| !shell.is_empty());
    Room {
        argv: vec![shell.unwrap_or_else(|| "/bin/sh".into())],
        env: Some(env),
        folder: dir.workspace(),
        words: Vec::new(),
    }
}

/// How the job's work is started again there.
fn again(dir: &AttemptDir, order: &AttemptOrder, job: &DriverJob) -> Option<String> {
    match (&order.spec.work, &job.work) {
        (Work::Notebook { .. }, _) => {
            write_program(dir).ok().flatten()?;
            let tmp = job.env.get("TMPDIR").map_or("/tmp", String::as_str);
            Some(format!(
                "run its cells again, and stay with their variables: ipython -i {}",
                command::quote(&format!("{tmp}/{PROGRAM}"))
            ))
        }
        (Work::Lint { .. }, DriverWork::Command { argv }) => {
            // Its script is long, and the notebooks are its arguments.
            let [_, _, script, _, notebooks @ ..] = argv.as_slice() else {
                return None;
            };
            write_aside(dir, LINT, script).ok()?;
            let tmp = job.env.get("TMPDIR").map_or("/tmp", String::as_str);
            let paths: Vec<String> = notebooks.iter().map(|path| command::quote(path)).collect();
            Some(format!(
                "run it again, and see {tmp}/{}: sh {} {}",
                crate::lint::FOLDER,
                command::quote(&format!("{tmp}/{LINT}")),
                paths.join(" ")
            ))
        }
        (Work::Command { .. }, DriverWork::Command { argv }) => {
            let line: Vec<String> = argv.iter().map(|word| command::quote(word)).collect();
            Some(format!("run it again: {}", line.join(" ")))
        }
        (Work::Command { .. } | Work::Lint { .. }, DriverWork::Notebook { .. }) => None,
    }
}

/// The executed notebook's code, parameters and all, as a program; none where nothing was executed.
fn write_program(dir: &AttemptDir) -> io::Result<Option<()>> {
    let executed = dir.contract().join(OUT_DIR).join(NOTEBOOK_FILE);
    let Ok(notebook) = nbformat::read(&std::fs::read(executed)?) else {
        return Ok(None);
    };
    let mut program = String::new();
    for (index, cell) in notebook.code_cells() {
        if !cell.is_skipped() {
            program.push_str(&format!("# cell {}\n{}\n\n", index + 1, cell.source));
        }
    }
    write_aside(dir, PROGRAM, &program).map(Some)
}

/// Puts a file into the job's `/tmp`: made aside and put in place, so that what the job may have left under this name
/// is not written through.
fn write_aside(dir: &AttemptDir, name: &str, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let mut file = tempfile::NamedTempFile::new_in(dir.tmp())?;
    file.write_all(text.as_bytes())?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.persist(dir.tmp().join(name))?;
    Ok(())
}
