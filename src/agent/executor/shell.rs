//! The driver as a process of this host: nothing is isolated. A process is known by its id and start time,
//! so that an agent that was restarted does not take another one for it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::{Exit, LOOK_AGAIN};

/// Says to which attempt a process belongs; children inherit it.
pub(crate) const ATTEMPT_VARIABLE: &str = "TRAINYARD_ATTEMPT_ID";

/// How often processes are looked for until none is left.
const MOST_SWEEPS: u32 = 100;
/// A process that is just being executed has its environment after so long.
const BEGINNING: Duration = Duration::from_millis(10);
/// How often that is waited for: on a busy host some process is always beginning.
const MOST_WAITED: u32 = 5;

/// A driver on this host.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks after boot at which it began.
    pub(crate) started: u64,
    attempt: String,
    /// Ours to reap, unless the agent was restarted.
    child: Option<Mutex<std::process::Child>>,
}

impl Process {
    /// Starts the driver on its contract folder, in a process group of its own.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn start(driver: &Path, contract: &Path, attempt: &str) -> io::Result<Self> {
        let log = fs::File::create(contract.join("driver.log"))?;
        let mut child = Command::new(driver)
            .args(["run", "--dir"])
            .arg(contract)
            .env_clear()
            .env(ATTEMPT_VARIABLE, attempt)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let pid = child.id();
        let Some(started) = start_time(pid) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::other("the driver ended at once"));
        };
        Ok(Self {
            pid,
            started,
            attempt: attempt.to_owned(),
            child: Some(Mutex::new(child)),
        })
    }

    /// A driver that an earlier agent started.
    pub(crate) fn known(pid: u32, started: u64, attempt: &str) -> Self {
        Self {
            pid,
            started,
            attempt: attempt.to_owned(),
            child: None,
        }
    }

    fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Exit {
        loop {
            if let Some(child) = &self.child {
                let mut child = child
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Ok(Some(status)) = child.try_wait() {
                    use std::os::unix::process::ExitStatusExt as _;
                    let code = status.code().or(status.signal().map(|signal| 128 + signal));
                    return Exit {
                        code: code.map(i64::from),
                        ..Exit::default()
                    };
                }
            } else if !self.is_alive() {
                return Exit::default();
            }
            tokio::time::sleep(LOOK_AGAIN / 10).await;
        }
    }

    pub(crate) fn terminate(&self) {
        if self.is_alive()
            && let Some(pid) = pid(self.pid)
        {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
    }

    pub(crate) fn kill(&self) {
        if self.is_alive()
            && let Some(pid) = pid(self.pid)
        {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        self.sweep();
    }

    /// Ends what the attempt left behind: processes that carry its id in their environment. One that makes
    /// others meanwhile is outrun by looking again. Answers whether none is left.
    pub(crate) fn sweep(&self) -> bool {
        let (mut bare, mut waited) = (BTreeSet::new(), 0);
        for _ in 0..MOST_SWEEPS {
            let seen = self.sweep_once();
            if !seen.found && (seen.bare.is_subset(&bare) || waited == MOST_WAITED) {
                return true;
            }
            if !seen.found {
                waited += 1;
                std::thread::sleep(BEGINNING);
            }
            bare = seen.bare;
        }
        tracing::warn!(
            attempt = self.attempt,
            "some of the attempt's processes may be left on this host"
        );
        false
    }

    fn sweep_once(&self) -> Seen {
        let mut seen = Seen::default();
        let mark = format!("{ATTEMPT_VARIABLE}={}", self.attempt);
        let Ok(processes) = fs::read_dir("/proc") else {
            return seen;
        };
        for entry in processes.flatten() {
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let ours = environment
                .split(|&byte| byte == 0)
                .any(|line| line == mark.as_bytes());
            if ours
                && id != std::process::id()
                && let Some(pid) = pid(id)
            {
                seen.found |= rustix::process::kill_process(pid, Signal::KILL).is_ok();
            }
            // The kernel's own threads, and what waits to be reaped, have no program.
            if environment.is_empty() && fs::read_link(entry.path().join("exe")).is_ok() {
                seen.bare.insert(id);
            }
        }
        seen
    }
}

/// What one look at the host's processes saw.
#[derive(Debug, Default)]
struct Seen {
    /// Some of the attempt, which were killed.
    found: bool,
    /// Those without an environment: some have none, and one that is just being executed has none yet.
    bare: BTreeSet<u32>,
}

fn pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Field 22 of `/proc/PID/stat`; none where the process is not there or is only waiting to be reaped.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, brackets and spaces too.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if fields.next() == Some("Z") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = std::process::id();
        let started = start_time(own).unwrap();
        assert!(Process::known(own, started, "x").is_alive());
        assert!(!Process::known(own, started + 1, "x").is_alive());
    }

    #[tokio::test]
    async fn what_an_attempt_left_is_swept_by_its_mark() {
        let attempt = format!("sweep-{}", std::process::id());
        let mut left = Command::new("sleep")
            .arg("600")
            .env(ATTEMPT_VARIABLE, &attempt)
            .spawn()
            .unwrap();
        // One that has no environment at all holds nobody up.
        let mut bare = Command::new("sleep")
            .arg("600")
            .env_clear()
            .spawn()
            .unwrap();
        assert!(Process::known(1, 0, &attempt).sweep());
        assert!(bare.try_wait().unwrap().is_none());
        bare.kill().unwrap();
        bare.wait().unwrap();
        let ended = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while left.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < ended, "the process still runs");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}
