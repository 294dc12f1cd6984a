//! One hardened call of the `git` program: no prompt, no foreign configuration, no hooks, only the
//! protocol of the URL, credentials by environment alone, a deadline that ends its whole process group.
//! It knows no repository layout.

use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group, prlimit, waitid,
};

use crate::remote::Remote;
use crate::{Deadline, MirrorError};

/// Most bytes that are kept of an answer; a listing of a million refs fits.
const STDOUT_BYTES: u64 = 128 << 20;
/// Most bytes that are kept of git's complaints.
const STDERR_BYTES: u64 = 64 << 10;
/// Most characters of git's complaints in an error.
const MESSAGE_CHARS: usize = 600;

/// One call of git: where it goes, as whom, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// What git calls [`ORIGIN`].
    pub(crate) remote: &'a Remote,
    /// Value of an `Authorization` header.
    pub(crate) auth: Option<&'a str>,
    /// The repository that it works in.
    pub(crate) folder: Option<&'a Path>,
    /// What is being done, for errors.
    pub(crate) what: &'a str,
    pub(crate) deadline: &'a Deadline,
    /// Most bytes of a file that it may write: of the one pack that a fetch brings.
    pub(crate) most_bytes: Option<u64>,
}

/// Name of the remote in arguments. Its address is a setting of the call, where git-lfs finds it too.
pub(crate) const ORIGIN: &str = "origin";

/// How a credential is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// With each request, and no redirect is followed: git would take it along to another host.
    AsHeader,
    /// When it is asked for, by a helper that speaks to one server only: redirects are followed.
    WhenAsked,
}

/// A credential helper of git's whose words stand in its environment.
const HELPER: &str = r#"!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$TRAINYARD_GIT_USER" "$TRAINYARD_GIT_PASSWORD"; }; f"#;

/// Settings of one call: pairs for `GIT_CONFIG_KEY_n` and `GIT_CONFIG_VALUE_n`.
fn settings(remote: &Remote, auth: Option<&str>, shown: Shown) -> Vec<(String, String)> {
    let mut settings = vec![
        (format!("remote.{ORIGIN}.url"), remote.url.clone()),
        ("core.hooksPath".to_owned(), "/dev/null".to_owned()),
        ("core.fsmonitor".to_owned(), "false".to_owned()),
        ("protocol.allow".to_owned(), "never".to_owned()),
        (
            format!("protocol.{}.allow", remote.scheme()),
            "always".to_owned(),
        ),
        ("credential.helper".to_owned(), String::new()),
        ("fetch.recurseSubmodules".to_owned(), "false".to_owned()),
        // A detached process would outlive its deadline.
        ("gc.autoDetach".to_owned(), "false".to_owned()),
        ("maintenance.autoDetach".to_owned(), "false".to_owned()),
        // A fetch that is ended leaves all of what it brought, or nothing: never a commit without its files.
        ("transfer.unpackLimit".to_owned(), "1".to_owned()),
        // Each leaves a pack, then: they are put together after so many.
        ("gc.autoPackLimit".to_owned(), "200".to_owned()),
        // Objects may be missing that the remote has; none is fetched unasked.
        (format!("remote.{ORIGIN}.promisor"), "true".to_owned()),
        // Stalled for a minute below 1 KB/s: give up before the deadline does.
        ("http.lowSpeedLimit".to_owned(), "1000".to_owned()),
        ("http.lowSpeedTime".to_owned(), "60".to_owned()),
    ];
    let auth = auth.filter(|_| !remote.is_in_clear());
    if let (Some(auth), Some(origin)) = (auth, remote.origin()) {
        match shown {
            Shown::AsHeader => {
                settings.push(("http.followRedirects".to_owned(), "false".to_owned()));
                settings.push((
                    format!("http.{origin}.extraHeader"),
                    format!("Authorization: {auth}"),
                ));
            }
            Shown::WhenAsked => {
                let server = origin.trim_end_matches('/');
                settings.push((format!("credential.{server}.helper"), HELPER.to_owned()));
            }
        }
    }
    settings
}

/// The words of a `Basic` credential.
fn user_and_password(auth: &str) -> Option<(String, String)> {
    let pair = STANDARD.decode(auth.strip_prefix("Basic ")?).ok()?;
    let (user, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
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

/// Runs `git` and gives what it printed. `extra` are settings of this call alone.
///
/// A repository that was renamed, and GitLab's by its name without `.git`, leads to another address: there git asks
/// again, and the credential is shown to its own server only.
pub(crate) fn run(
    call: &Call<'_>,
    arguments: &[&str],
    extra: &[(String, String)],
) -> Result<String, MirrorError> {
    match once(call, arguments, extra, Shown::AsHeader) {
        Err(MirrorError::Git { message, .. }) if call.auth.is_some() && redirected(&message) => {
            once(call, arguments, extra, Shown::WhenAsked)
        }
        done => done,
    }
}

fn once(
    call: &Call<'_>,
    arguments: &[&str],
    extra: &[(String, String)],
    shown: Shown,
) -> Result<String, MirrorError> {
    let Call { remote, auth, .. } = *call;
    call.deadline.check(call.what)?;
    let mut settings = settings(remote, auth, shown);
    settings.extend_from_slice(extra);
    let mut command = command(arguments, &settings);
    command.current_dir(call.folder.unwrap_or(Path::new("/")));
    if let (Shown::WhenAsked, Some((user, password))) = (shown, auth.and_then(user_and_password)) {
        command
            .env("TRAINYARD_GIT_USER", user)
            .env("TRAINYARD_GIT_PASSWORD", password);
    }
    // A repository of this host may belong to somebody else. Its address was given by hand, and git
    // reads this one setting from a file only: what the other end runs does not get the environment.
    let trusted = remote.local_path().map(safe_directory).transpose()?;
    if let Some(trusted) = &trusted {
        command.env("GIT_CONFIG_GLOBAL", trusted.path());
    }
    let (status, stdout, stderr) = wait(command, call.what, call.deadline, call.most_bytes)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let mut message = message(&String::from_utf8_lossy(&stderr), auth);
    if auth.is_some() && remote.is_in_clear() {
        message.push_str(
            "; the credential was not shown: http:// would carry it in clear, use https://",
        );
    }
    Err(MirrorError::Git {
        what: call.what.to_owned(),
        message,
    })
}

/// Whether git was told to go elsewhere and did not.
fn redirected(message: &str) -> bool {
    ["301", "302", "303", "307", "308"]
        .iter()
        .any(|code| message.ends_with(&format!("returned error: {code}")))
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

/// Waits for the end of the process, or ends its whole group at the deadline. Neither it nor what it starts writes a
/// file of more than `most_bytes`.
pub(crate) fn wait(
    mut command: Command,
    what: &str,
    deadline: &Deadline,
    most_bytes: Option<u64>,
) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), MirrorError> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|reason| MirrorError::NoGit { reason })?;
    if let (Some(most), Some(pid)) = (most_bytes, pid(&child)) {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        // What it starts later has the same limit. An error says that it is over already.
        let _ = prlimit(Some(pid), Resource::Fsize, limit);
    }
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
    fn the_header_is_bound_to_the_host_and_never_an_argument() {
        let remote = Remote::parse("https://forge.example:8443/team/churn").unwrap();
        let settings = settings(&remote, Some("Bearer abc"), Shown::AsHeader);
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
    fn a_credential_is_shown_to_nobody_in_clear() {
        for (url, clear) in [
            ("http://forge.example/x", true),
            ("http://10.0.0.1:3000/x", true),
            ("http://localhost.example/x", true),
            ("http://127.0.0.1?.example/x", true),
            ("http://localhost:3000/x", false),
            ("http://127.0.0.1:3000/x", false),
            ("http://[::1]:3000/x", false),
            ("https://forge.example/x", false),
        ] {
            let remote = Remote::parse(url).unwrap();
            assert_eq!(remote.is_in_clear(), clear, "{url}");
            for shown in [Shown::AsHeader, Shown::WhenAsked] {
                let settings = settings(&remote, Some("Basic abc"), shown);
                let header = settings.iter().any(|(key, _)| key.ends_with("extraHeader"));
                let helper = settings.iter().any(|(_, value)| value == HELPER);
                assert_eq!(header || helper, !clear, "{url}");
            }
        }
    }

    #[test]
    fn a_process_that_hangs_is_ended_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $!; wait"]);
        let deadline = Deadline::within(Duration::from_millis(200));
        let began = std::time::Instant::now();
        let error = wait(command, "waiting", &deadline, None).unwrap_err();
        assert!(matches!(error, MirrorError::TimedOut { .. }), "{error}");
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the pipes were closed with the group"
        );
    }
}
