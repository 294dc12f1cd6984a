//! One hardened call of the `git` program: no prompt, no foreign configuration, no hooks, only the
//! protocol of the URL, credentials by environment alone, a deadline that ends its whole process group.
//! It knows no repository layout.

use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::{Deadline, MirrorError};

/// Most bytes that are kept of an answer; a listing of a million refs fits.
const STDOUT_BYTES: u64 = 128 << 20;
/// Most bytes that are kept of git's complaints.
const STDERR_BYTES: u64 = 64 << 10;
/// Most characters of git's complaints in an error.
const MESSAGE_CHARS: usize = 600;

/// Where a repository is, checked.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) url: String,
    scheme: &'static str,
}

impl Remote {
    /// Takes what people write: https, http, ssh, `user@host:path`, `file://`, an absolute path.
    pub(crate) fn parse(url: &str) -> Result<Self, MirrorError> {
        let scheme = match url.split_once("://") {
            Some(("https", _)) => "https",
            Some(("http", _)) => "http",
            Some(("ssh", _)) => "ssh",
            Some(("file", _)) => "file",
            Some(_) => {
                return Err(MirrorError::Url {
                    url: url.to_owned(),
                });
            }
            None if url.starts_with('/') => "file",
            None if is_scp_like(url) => "ssh",
            None => {
                return Err(MirrorError::Url {
                    url: url.to_owned(),
                });
            }
        };
        if url.chars().any(char::is_control) {
            return Err(MirrorError::Url {
                url: url.escape_debug().to_string(),
            });
        }
        if let Some((_, rest)) = url.split_once("://") {
            let authority = rest.split('/').next().unwrap_or_default();
            if let Some((user, host)) = authority.rsplit_once('@')
                && (user.contains(':') || scheme.starts_with("http"))
            {
                return Err(MirrorError::UrlPassword {
                    host: host.to_owned(),
                });
            }
            if scheme != "file" && (authority.is_empty() || authority.starts_with('-')) {
                return Err(MirrorError::Url {
                    url: url.to_owned(),
                });
            }
        }
        Ok(Self {
            url: url.to_owned(),
            scheme,
        })
    }

    /// `https://host:port/`, to which an authorisation header is bound.
    fn origin(&self) -> Option<String> {
        let (scheme, rest) = self.url.split_once("://")?;
        let authority = rest.split('/').next()?;
        scheme
            .starts_with("http")
            .then(|| format!("{scheme}://{authority}/"))
    }

    /// The folder, where the repository is one of this host.
    fn local_path(&self) -> Option<&str> {
        match self.scheme {
            "file" => Some(self.url.strip_prefix("file://").unwrap_or(&self.url)),
            _ => None,
        }
    }
}

/// `git@host:path`: a colon before the first slash, and no dash in front that ssh would take as an option.
fn is_scp_like(url: &str) -> bool {
    url.split_once(':').is_some_and(|(host, path)| {
        // `ext::command` is git's own way to run anything at all.
        let path_is_path = !path.is_empty() && !path.starts_with(':');
        !host.is_empty() && !host.contains('/') && !host.starts_with('-') && path_is_path
    })
}

/// Settings of one call: pairs for `GIT_CONFIG_KEY_n` and `GIT_CONFIG_VALUE_n`.
fn settings(remote: &Remote, auth: Option<&str>) -> Vec<(String, String)> {
    let mut settings = vec![
        ("core.hooksPath".to_owned(), "/dev/null".to_owned()),
        ("core.fsmonitor".to_owned(), "false".to_owned()),
        ("protocol.allow".to_owned(), "never".to_owned()),
        (
            format!("protocol.{}.allow", remote.scheme),
            "always".to_owned(),
        ),
        ("credential.helper".to_owned(), String::new()),
        ("fetch.recurseSubmodules".to_owned(), "false".to_owned()),
        // A detached process would outlive its deadline.
        ("gc.autoDetach".to_owned(), "false".to_owned()),
        ("maintenance.autoDetach".to_owned(), "false".to_owned()),
        // Stalled for a minute below 1 KB/s: give up before the deadline does.
        ("http.lowSpeedLimit".to_owned(), "1000".to_owned()),
        ("http.lowSpeedTime".to_owned(), "60".to_owned()),
    ];
    if let (Some(auth), Some(origin)) = (auth, remote.origin()) {
        // Bound to the host, so that a redirect cannot carry it elsewhere.
        settings.push((
            format!("http.{origin}.extraHeader"),
            format!("Authorization: {auth}"),
        ));
    }
    settings
}

/// `git` with nothing of this process's git settings but how to reach the network.
fn command(arguments: &[&str], settings: &[(String, String)]) -> Command {
    let mut command = Command::new("git");
    let keep = [
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
        "GIT_SSH_COMMAND",
        "GIT_EXEC_PATH",
    ];
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("GIT_") && !keep.contains(&name.as_str()) {
            command.env_remove(&name);
        }
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "")
        .env("SSH_ASKPASS", "")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_COUNT", settings.len().to_string());
    if std::env::var_os("GIT_SSH_COMMAND").is_none() {
        command.env(
            "GIT_SSH_COMMAND",
            "ssh -o BatchMode=yes -o ConnectTimeout=30",
        );
    }
    if std::env::var_os("GIT_SSL_CAINFO").is_none()
        && let Some(bundle) = std::env::var_os("SSL_CERT_FILE")
    {
        command.env("GIT_SSL_CAINFO", bundle);
    }
    for (n, (key, value)) in settings.iter().enumerate() {
        command
            .env(format!("GIT_CONFIG_KEY_{n}"), key)
            .env(format!("GIT_CONFIG_VALUE_{n}"), value);
    }
    command.args(arguments);
    command
}

/// Runs `git` against `remote` and gives what it printed. `what` is for the error.
pub(crate) fn run(
    folder: Option<&Path>,
    remote: &Remote,
    auth: Option<&str>,
    arguments: &[&str],
    what: &str,
    deadline: &Deadline,
) -> Result<String, MirrorError> {
    deadline.check(what)?;
    let mut command = command(arguments, &settings(remote, auth));
    command.current_dir(folder.unwrap_or(Path::new("/")));
    // A repository of this host may belong to somebody else. Its address was given by hand, and git
    // reads this one setting from a file only: what the other end runs does not get the environment.
    let trusted = remote.local_path().map(safe_directory).transpose()?;
    if let Some(trusted) = &trusted {
        command.env("GIT_CONFIG_GLOBAL", trusted.path());
    }
    let (status, stdout, stderr) = wait(command, what, deadline)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let message = message(&String::from_utf8_lossy(&stderr), auth);
    Err(MirrorError::Git {
        what: what.to_owned(),
        message,
    })
}

/// Git's last words in one line, without the credential, bounded.
fn message(stderr: &str, auth: Option<&str>) -> String {
    let mut text = stderr
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    if let Some(auth) = auth {
        text = text.replace(auth, "***");
    }
    if text.is_empty() {
        "git said nothing".clone_into(&mut text);
    }
    text.chars().take(MESSAGE_CHARS).collect()
}

/// A git configuration file that allows one folder of another owner; removed when dropped.
fn safe_directory(path: &str) -> Result<tempfile::NamedTempFile, MirrorError> {
    let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let (whole, bare) = (quote(path), quote(path.trim_end_matches('/')));
    let text = format!("[safe]\n\tdirectory = \"{whole}\"\n\tdirectory = \"{bare}/.git\"\n");
    let wrong = || MirrorError::io(std::env::temp_dir());
    let mut file = tempfile::NamedTempFile::new().map_err(wrong())?;
    file.write_all(text.as_bytes()).map_err(wrong())?;
    Ok(file)
}

/// Waits for the end of the process, or ends its whole group at the deadline.
pub(crate) fn wait(
    mut command: Command,
    what: &str,
    deadline: &Deadline,
) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), MirrorError> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|reason| MirrorError::NoGit { reason })?;
    let stdout = child.stdout.take().map(|pipe| drain(pipe, STDOUT_BYTES));
    let stderr = child.stderr.take().map(|pipe| drain(pipe, STDERR_BYTES));
    let ended = until_exit(&child, what, deadline);
    // Before it is reaped, so that the number of its group is still its own: helpers of git that are
    // left would hold the pipes open.
    end_group(&child);
    let status = child
        .wait()
        .map_err(|reason| MirrorError::NoGit { reason })?;
    let collect = |reader: Option<JoinHandle<Vec<u8>>>| {
        reader
            .and_then(|handle| handle.join().ok())
            .unwrap_or_default()
    };
    let (stdout, stderr) = (collect(stdout), collect(stderr));
    ended.map(|()| (status, stdout, stderr))
}

/// Waits until the process has exited, without reaping it.
fn until_exit(child: &Child, what: &str, deadline: &Deadline) -> Result<(), MirrorError> {
    let Some(pid) = pid(child) else { return Ok(()) };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let mut nap = Duration::from_millis(1);
    while let Ok(None) = waitid(WaitId::Pid(pid), look) {
        deadline.check(what)?;
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(25));
    }
    Ok(())
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn end_group(child: &Child) {
    if let Some(pid) = pid(child) {
        // An error says that the group is gone already, which is what is wanted.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Reads a pipe to its end and keeps the first `limit` bytes.
fn drain(mut pipe: impl Read + Send + 'static, limit: u64) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        // A broken pipe is an end like any other: the exit status tells whether it matters.
        let _ = pipe.by_ref().take(limit).read_to_end(&mut kept);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for good in [
            "https://forge.example/team/churn.git",
            "http://localhost:3000/team/churn",
            "ssh://git@forge.example/team/churn",
            "git@forge.example:team/churn.git",
            "file:///srv/git/churn",
            "/srv/git/churn.git",
        ] {
            assert!(Remote::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "churn",
            "ext::sh -c touch% /tmp/x",
            "ftp://forge.example/x",
            "--upload-pack=touch",
            "ssh://-oProxyCommand=touch/x",
            "https:///x",
            "/srv/a\nb",
        ] {
            assert!(Remote::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let error = Remote::parse("https://me:hunter2@forge.example/x").unwrap_err();
        assert!(matches!(error, MirrorError::UrlPassword { .. }));
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn the_header_is_bound_to_the_host_and_never_an_argument() {
        let remote = Remote::parse("https://forge.example:8443/team/churn").unwrap();
        let settings = settings(&remote, Some("Bearer abc"));
        assert!(settings.contains(&(
            "http.https://forge.example:8443/.extraHeader".to_owned(),
            "Authorization: Bearer abc".to_owned()
        )));
        let command = command(&["fetch", "origin"], &settings);
        assert!(
            command
                .get_args()
                .all(|a| !a.to_string_lossy().contains("abc"))
        );
        assert_eq!(
            message("fatal: Bearer abc was refused", Some("Bearer abc")),
            "fatal: *** was refused"
        );
    }

    #[test]
    fn a_process_that_hangs_is_ended_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $!; wait"]);
        let deadline = Deadline::within(Duration::from_millis(200));
        let began = std::time::Instant::now();
        let error = wait(command, "waiting", &deadline).unwrap_err();
        assert!(matches!(error, MirrorError::TimedOut { .. }), "{error}");
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the pipes were closed with the group"
        );
    }
}
