//! What makes an agent a service of its host: a configuration, a systemd unit, a data folder. It starts nothing,
//! makes no user, and never changes a configuration that is there.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::client;
use crate::config::Config;

/// The unit that people copy; what differs from host to host is put in its place.
const UNIT: &str = include_str!("../../runner-configs/systemd/trainyard-agent.service");
/// Where the unit goes.
const UNIT_FILE: &str = "etc/systemd/system/trainyard-agent.service";
/// Where the configuration goes.
const CONFIG_FILE: &str = "etc/trainyard/agent.toml";

/// What is to be installed.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where files are written; `/` but for an image or a test.
    pub root: PathBuf,
    /// The program that the service starts.
    pub program: PathBuf,
    /// Whose service it is.
    pub user: String,
    /// URL of the server.
    pub server: Option<String>,
    /// The agent's name; the host's where it is left out.
    pub name: Option<String>,
    /// The data folder; the usual one where it is left out.
    pub data: Option<PathBuf>,
    /// Labels.
    pub labels: Vec<String>,
}

/// What stands between a file and what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It is not there, and is made.
    Make,
    /// It is another one, and is replaced.
    Replace,
    /// It is as wanted.
    Leave,
    /// It is its owner's, and stays as it is.
    Keep,
}

/// One file, or a folder where there is no text.
#[derive(Debug, Clone)]
pub struct Step {
    /// Where, below the root.
    pub path: PathBuf,
    /// Its text.
    pub text: Option<String>,
    /// What is done.
    pub deed: Deed,
}

/// Why nothing is installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A setting that makes no sense.
    #[error("{0}")]
    Wrong(String),
    /// The disk says no.
    #[error("cannot write {}: {source}; is this root?", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A whole installation.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The files, in the order in which they are made.
    pub steps: Vec<Step>,
    /// The configuration that the agent will have.
    pub config: Config,
    /// What a person has to do then, as commands.
    pub next: Vec<String>,
    owner: Option<(u32, u32)>,
}

/// Looks at what is there, and says what has to be done. Changes nothing.
///
/// # Errors
/// [`InstallError::Wrong`], also for a configuration that is there and cannot be read, or says otherwise.
pub fn plan(wanted: &Wanted) -> Result<Installation, InstallError> {
    if let Some(url) = &wanted.server {
        client::address(url).map_err(|error| InstallError::Wrong(error.to_string()))?;
    }
    let config_file = wanted.root.join(CONFIG_FILE);
    let there = read(&config_file)?;
    let text = there.clone().unwrap_or_else(|| configuration(wanted));
    let config = Config::parse(&text)
        .map_err(|why| InstallError::Wrong(format!("{}: {why}", config_file.display())))?;
    if there.is_some() {
        check_kept(wanted, &config, &config_file)?;
    }
    let unit_file = wanted.root.join(UNIT_FILE);
    let unit = unit(wanted)?;
    let unit_deed = match read(&unit_file)? {
        None => Deed::Make,
        Some(there) if there == unit => Deed::Leave,
        Some(_) => Deed::Replace,
    };
    let relative = config.data.strip_prefix("/").unwrap_or(&config.data);
    let data = wanted.root.join(relative);
    let data_deed = match data.is_dir() {
        true => Deed::Leave,
        false => Deed::Make,
    };
    let owner = owner(&wanted.root, &wanted.user);
    let steps = vec![
        Step {
            path: config_file,
            text: Some(text),
            deed: match there {
                Some(_) => Deed::Keep,
                None => Deed::Make,
            },
        },
        Step {
            path: unit_file,
            text: Some(unit),
            deed: unit_deed,
        },
        Step {
            path: data,
            text: None,
            deed: data_deed,
        },
    ];
    Ok(Installation {
        next: next(wanted, &config, owner, unit_deed),
        steps,
        config,
        owner,
    })
}

impl Installation {
    /// Writes what has to be written. Once more, it writes nothing.
    ///
    /// # Errors
    /// [`InstallError::Disk`]; what was written before stays.
    pub fn carry_out(&self) -> Result<(), InstallError> {
        for step in &self.steps {
            let disk = |source| InstallError::Disk {
                path: step.path.clone(),
                source,
            };
            match (step.deed, &step.text) {
                (Deed::Leave | Deed::Keep, _) => {}
                (Deed::Make | Deed::Replace, Some(text)) => {
                    write(&step.path, text).map_err(disk)?;
                }
                (Deed::Make | Deed::Replace, None) => {
                    self.make_folder(&step.path).map_err(disk)?;
                }
            }
        }
        Ok(())
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::DirBuilder::new().mode(0o700).create(path)?;
        match self.owner {
            Some((uid, gid)) if rustix::process::geteuid().is_root() => {
                std::os::unix::fs::chown(path, Some(uid), Some(gid))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A configuration that is there is its owner's: what was asked for otherwise is refused, not passed over.
fn check_kept(wanted: &Wanted, config: &Config, file: &Path) -> Result<(), InstallError> {
    let bare = |url: &str| url.trim_end_matches('/').to_owned();
    let labels = Some(&wanted.labels).filter(|labels| !labels.is_empty());
    let others = [
        (
            "server",
            wanted
                .server
                .as_deref()
                .is_some_and(|url| config.server.as_deref().map(bare) != Some(bare(url))),
        ),
        ("name", wanted.name.is_some() && wanted.name != config.name),
        (
            "data",
            wanted
                .data
                .as_ref()
                .is_some_and(|data| *data != config.data),
        ),
        (
            "labels",
            labels.is_some_and(|labels| *labels != config.labels),
        ),
    ];
    let others: Vec<&str> = others
        .iter()
        .filter_map(|(key, differs)| differs.then_some(*key))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(InstallError::Wrong(format!(
        "{} is there, is never changed, and says otherwise of `{}`: change it there, or leave that out",
        file.display(),
        others.join("`, `")
    )))
}

/// The program is there, below the root or on this host, and can be started.
fn check_program(wanted: &Wanted) -> Result<(), InstallError> {
    let relative = wanted.program.strip_prefix("/").unwrap_or(&wanted.program);
    let is_program = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if is_program(&wanted.root.join(relative)) || is_program(&wanted.program) {
        return Ok(());
    }
    Err(InstallError::Wrong(format!(
        "{} is no program that can be started: put the release there first, or name another one with --program",
        wanted.program.display()
    )))
}

fn configuration(wanted: &Wanted) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = "# Every key may be left out; docs/agent.md has them all.\n".to_owned();
    let mut line = |key: &str, value: String| text += &format!("{key} = {value}\n");
    if let Some(name) = &wanted.name {
        line("name", quoted(name));
    }
    if let Some(server) = &wanted.server {
        line("server", quoted(server));
    }
    if let Some(data) = &wanted.data {
        line("data", quoted(&data.display().to_string()));
    }
    if !wanted.labels.is_empty() {
        let labels = wanted.labels.iter().map(|label| quoted(label));
        line(
            "labels",
            format!("[{}]", labels.collect::<Vec<_>>().join(", ")),
        );
    }
    text
}

fn unit(wanted: &Wanted) -> Result<String, InstallError> {
    let program = wanted.program.display().to_string();
    let odd = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '%' | '\\' | '$');
    if !wanted.program.is_absolute() || program.contains(odd) {
        return Err(InstallError::Wrong(format!(
            "'{program}' cannot stand in a unit: put the program at a plain path such as /opt/trainyard/bin/trainyard"
        )));
    }
    check_program(wanted)?;
    let ordinary = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if wanted.user.is_empty() || !wanted.user.chars().all(ordinary) {
        return Err(InstallError::Wrong(format!(
            "'{}' is not the name of a user",
            wanted.user
        )));
    }
    let mut text =
        "# Written by 'trainyard agent install'. What is your own: systemctl edit trainyard-agent\n"
            .to_owned();
    // How to copy it is no longer of interest.
    for line in UNIT.lines().skip_while(|line| line.starts_with('#')) {
        text += &match line.split_once('=') {
            Some(("User", _)) => format!("User={}", wanted.user),
            Some(("ExecStart", _)) => {
                format!("ExecStart={program} agent --config /{CONFIG_FILE}")
            }
            Some(_) | None => line.to_owned(),
        };
        text.push('\n');
    }
    Ok(text)
}

/// Ids of a user, where the root has one of this name.
fn owner(root: &Path, user: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string(root.join("etc/passwd")).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let mut ids = fields.skip(1).map(|field| field.parse().ok());
        (name == user).then_some((ids.next()??, ids.next()??))
    })
}

fn next(wanted: &Wanted, config: &Config, owner: Option<(u32, u32)>, unit: Deed) -> Vec<String> {
    let (user, data) = (&wanted.user, config.data.display());
    let relative = config.data.strip_prefix("/").unwrap_or(&config.data);
    let folder = wanted.root.join(relative);
    let identity = folder.join("agent.json");
    let mut next = Vec::new();
    if owner.is_none() {
        next.push(format!(
            "useradd --system --home-dir {data} --shell /usr/sbin/nologin --groups docker {user}"
        ));
    }
    // Who registered the agent as root left files that its user cannot read.
    let theirs = |path: &Path| {
        let there = fs::metadata(path).ok().map(|there| there.uid());
        there.is_none() || there == owner.map(|(uid, _)| uid)
    };
    if owner.is_none() || !theirs(&folder) || !theirs(&identity) {
        next.push(format!("chown -R {user}: {data}"));
    }
    if !identity.exists() {
        let url = config.server.as_deref().unwrap_or("URL");
        next.push(format!(
            "sudo -u {user} {} agent register {url} --config /{CONFIG_FILE} --token-file -    # 'trainyard agents token' on the server makes one",
            wanted.program.display()
        ));
    }
    if unit != Deed::Leave {
        next.push("systemctl daemon-reload".to_owned());
    }
    next.push("systemctl enable --now trainyard-agent".to_owned());
    if unit == Deed::Replace {
        next.push("systemctl restart trainyard-agent    # its jobs run on".to_owned());
    }
    next
}

fn read(path: &Path) -> Result<Option<String>, InstallError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(InstallError::Wrong(format!(
            "cannot read {}: {error}",
            path.display()
        ))),
    }
}

/// Replaces a file whole; everybody may read it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    fs::write(file.path(), text)?;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "opt/trainyard/bin/trainyard";

    fn put_program(root: &Path, place: &str) {
        let path = root.join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn wanted(root: &Path) -> Wanted {
        put_program(root, PROGRAM);
        Wanted {
            root: root.to_owned(),
            program: Path::new("/").join(PROGRAM),
            user: "trainyard".into(),
            server: Some("https://trainyard.example".into()),
            name: Some("gpu-1".into()),
            data: Some("/raid/trainyard".into()),
            labels: vec!["a".into(), "b".into()],
        }
    }

    fn deeds(installation: &Installation) -> Vec<Deed> {
        installation.steps.iter().map(|step| step.deed).collect()
    }

    #[test]
    fn what_is_installed_once_is_not_written_again_and_an_owners_file_never() {
        let root = tempfile::tempdir().unwrap();
        let first = plan(&wanted(root.path())).unwrap();
        assert_eq!(deeds(&first), [Deed::Make, Deed::Make, Deed::Make]);
        assert!(!root.path().join("etc").exists(), "a plan changes nothing");
        first.carry_out().unwrap();
        assert_eq!(first.config.labels, ["a", "b"]);
        assert!(root.path().join("raid/trainyard").is_dir());
        let again = plan(&wanted(root.path())).unwrap();
        assert_eq!(deeds(&again), [Deed::Keep, Deed::Leave, Deed::Leave]);

        let config = root.path().join(CONFIG_FILE);
        fs::write(&config, "name = \"mine\"\n").unwrap();
        put_program(root.path(), "usr/local/bin/trainyard");
        let moved = Wanted {
            program: "/usr/local/bin/trainyard".into(),
            server: None,
            name: None,
            data: None,
            labels: vec![],
            ..wanted(root.path())
        };
        let upgrade = plan(&moved).unwrap();
        assert_eq!(deeds(&upgrade), [Deed::Keep, Deed::Replace, Deed::Make]);
        upgrade.carry_out().unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), "name = \"mine\"\n");
        let unit = fs::read_to_string(root.path().join(UNIT_FILE)).unwrap();
        assert!(unit.contains("ExecStart=/usr/local/bin/trainyard agent --config /etc/"));
        assert!(upgrade.next.iter().any(|line| line.contains("restart")));
    }

    #[test]
    fn what_an_owners_file_says_otherwise_is_refused() {
        let root = tempfile::tempdir().unwrap();
        plan(&wanted(root.path())).unwrap().carry_out().unwrap();
        let same = Wanted {
            server: Some("https://trainyard.example/".into()),
            ..wanted(root.path())
        };
        plan(&same).unwrap();
        let other = Wanted {
            server: Some("https://other.example".into()),
            labels: vec!["c".into()],
            ..wanted(root.path())
        };
        let said = plan(&other).unwrap_err().to_string();
        assert!(
            said.contains("says otherwise of `server`, `labels`"),
            "{said}"
        );
    }

    #[test]
    fn a_wrong_url_and_a_program_that_is_not_there_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let odd = Wanted {
            server: Some("notaurl".into()),
            ..wanted(root.path())
        };
        let said = plan(&odd).unwrap_err().to_string();
        assert!(said.contains("'notaurl' is no server's URL"), "{said}");
        for program in ["/no/such/program", "/etc"] {
            let odd = Wanted {
                program: program.into(),
                ..wanted(root.path())
            };
            let said = plan(&odd).unwrap_err().to_string();
            assert!(said.contains("is no program"), "{said}");
        }
    }

    #[test]
    fn the_unit_lets_jobs_outlive_the_agent() {
        let root = tempfile::tempdir().unwrap();
        let unit = unit(&wanted(root.path())).unwrap();
        for line in ["KillMode=process", "User=trainyard", "Restart=on-failure"] {
            assert!(unit.lines().any(|have| have == line), "{line}: {unit}");
        }
        assert!(!unit.contains("Copy to"));
    }

    #[test]
    fn what_cannot_stand_in_a_unit_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let mut odd = wanted(root.path());
        odd.program = "/home/eva/my programs/trainyard".into();
        assert!(plan(&odd).unwrap_err().to_string().contains("plain path"));
        let mut odd = wanted(root.path());
        odd.user = "a\nExecStart=/bin/sh".into();
        assert!(plan(&odd).unwrap_err().to_string().contains("user"));
    }

    #[test]
    fn a_user_that_is_there_is_not_made() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let without = plan(&wanted(root.path())).unwrap();
        assert!(without.next[0].starts_with("useradd"), "{:?}", without.next);
        fs::write(
            root.path().join("etc/passwd"),
            "trainyard:x:990:980::/var/lib/trainyard:/usr/sbin/nologin\n",
        )
        .unwrap();
        let with = plan(&wanted(root.path())).unwrap();
        assert_eq!(with.owner, Some((990, 980)));
        assert!(with.next[0].contains("agent register https://trainyard.example"));
    }

    #[test]
    fn a_folder_that_another_user_filled_is_handed_over() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("raid/trainyard");
        fs::create_dir_all(&data).unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let me = fs::metadata(&data).unwrap().uid();
        for (uid, handed_over) in [(me, false), (me + 1, true)] {
            let user = format!("trainyard:x:{uid}:980::/:/usr/sbin/nologin\n");
            fs::write(root.path().join("etc/passwd"), user).unwrap();
            let next = plan(&wanted(root.path())).unwrap().next;
            let said = next.contains(&"chown -R trainyard: /raid/trainyard".to_owned());
            assert_eq!(said, handed_over, "{next:?}");
        }
    }
}
