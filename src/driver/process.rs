//! The job's processes: start one without privileges, reap all, end all. Knows nothing of notebooks and events.
#![allow(
    unsafe_code,
    reason = "what happens between fork and exec can only be said in `pre_exec`"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use protocol::driver::RunAs;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};
use rustix::{process, thread};

use crate::signals;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl End {
    /// The code, where there is one.
    #[must_use]
    pub(crate) fn code(self) -> Option<i32> {
        match self {
            End::Code(code) => Some(code),
            End::Signal(_) => None,
        }
    }

    /// The signal, where there is one.
    #[must_use]
    pub(crate) fn signal(self) -> Option<i32> {
        match self {
            End::Code(_) => None,
            End::Signal(signal) => Some(signal),
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Code(code) => write!(f, "exit code {code}"),
            End::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

/// What is started, and as whom.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// Program and arguments; the program is looked up on the `PATH` of `env`.
    pub(crate) argv: &'a [String],
    /// The complete environment.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// Where.
    pub(crate) workdir: &'a Path,
    /// As whom; none: as the driver.
    pub(crate) user: Option<RunAs>,
}

/// The job's first process, leader of a session of its own.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    end: Option<End>,
    /// Its end is that of its whole process group.
    with_group: bool,
    pipes: (Option<OwnedFd>, Option<OwnedFd>),
}

impl Child {
    /// Starts it.
    ///
    /// # Errors
    /// Where the program does not exist, or the user cannot be taken on.
    pub(crate) fn start(start: &Start<'_>) -> io::Result<Self> {
        let Some((program, arguments)) = start.argv.split_first() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no program was named",
            ));
        };
        let (stdout, stdout_theirs) = pipe()?;
        let (stderr, stderr_theirs) = pipe()?;
        let user = start.user;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(start.env)
            .current_dir(start.workdir)
            .stdin(Stdio::null())
            .stdout(stdout_theirs)
            .stderr(stderr_theirs);
        // SAFETY: the driver has one thread, so that nothing is held by another one at the fork.
        unsafe {
            command.pre_exec(move || become_the_job(user));
        }
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self {
            pid: pid.ok_or_else(|| io::Error::other("the child has no pid"))?,
            end: None,
            with_group: false,
            pipes: (Some(stdout), Some(stderr)),
        })
    }

    /// Its standard output and standard error, not blocking; once.
    pub(crate) fn take_pipes(&mut self) -> (Option<OwnedFd>, Option<OwnedFd>) {
        std::mem::take(&mut self.pipes)
    }

    /// How it ended, once it has.
    #[must_use]
    pub(crate) fn end(&self) -> Option<End> {
        self.end.filter(|_| {
            let group_is_left =
                || self.with_group && process::test_kill_process_group(self.pid).is_ok();
            !group_is_left()
        })
    }

    /// Asks its whole process group to end, and has it ended only when all of the group has: a shell dies at once, and
    /// the program that it started may still have something to save.
    pub(crate) fn ask_to_end(&mut self) {
        self.with_group = true;
        self.signal(Signal::TERM);
    }

    /// Reaps every child that has ended, this one and those that came to us as their init.
    pub(crate) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = process::wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                self.end = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Some(End::Code(code)),
                    (None, Some(signal)) => Some(End::Signal(signal)),
                    (None, None) => self.end,
                };
            }
        }
    }

    /// Signals its whole process group.
    pub(crate) fn signal(&self, signal: Signal) {
        // ESRCH: it has ended in the meantime, which is what every signal of ours is for.
        let _ = process::kill_process_group(self.pid, signal);
    }
}

/// A pipe of which we read one end; that end does not block.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = io::pipe()?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours.into(), theirs.into()))
}

/// Between fork and exec: a session of its own, first in line for the out-of-memory killer, ended with the driver,
/// and as an ordinary user with nothing to gain.
fn become_the_job(user: Option<RunAs>) -> io::Result<()> {
    process::setsid()?;
    signals::unblock_all()?;
    // Not everywhere is /proc writable; without it the job is merely an equal candidate.
    let _ = fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/oom_score_adj")
        .and_then(|mut file| file.write_all(b"1000"));
    if let Some(user) = user {
        drop_privileges(user)?;
    }
    process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

fn drop_privileges(user: RunAs) -> io::Result<()> {
    // Refused without SETPCAP; with no-new-privileges the bounding set gives nothing anyway.
    for capability in CapabilitySet::all().iter() {
        let _ = thread::remove_capability_from_bounding_set(capability);
    }
    let (uid, gid) = (
        thread::Uid::from_raw(user.uid),
        thread::Gid::from_raw(user.gid),
    );
    let (uid, gid) = (Some(uid), Some(gid));
    thread::set_thread_groups(&[])?;
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)?;
    let _ = thread::clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    thread::set_no_new_privs(true)?;
    Ok(())
}

/// Has orphans of the job come to the driver, wherever it runs.
pub(crate) fn adopt_orphans() {
    // Refused by no kernel that runs containers; PID 1 has orphans anyway.
    let _ = process::set_child_subreaper(Some(process::getpid()));
}

/// Ends every process of the job that is left, and reaps it. As PID 1 those are all but us; else all descendants,
/// which come to us as their subreaper when their parents end. Gives up after `patience`; says whether none is left.
pub(crate) fn end_all(patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if process::getpid().as_raw_nonzero().get() == 1 {
            kill_everybody();
        } else {
            for pid in children_of_ours() {
                let _ = process::kill_process_group(pid, Signal::KILL);
                let _ = process::kill_process(pid, Signal::KILL);
            }
        }
        // Everything left is a child of ours, or will be once its parent has ended.
        loop {
            match process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `kill(-1)`: everything in our PID namespace but ourselves.
fn kill_everybody() {
    // SAFETY: kill has no memory to be unsafe with; -1 is meant, and only PID 1 comes here.
    unsafe {
        libc::kill(-1, libc::SIGKILL);
    }
}

/// Processes whose parent we are.
fn children_of_ours() -> Vec<Pid> {
    let us = process::getpid().as_raw_nonzero().get();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| parent_of(*pid) == Some(us))
        .filter_map(Pid::from_raw)
        .collect()
}

/// Field 4 of `/proc/PID/stat`; the name before it may hold anything, so that it is looked for behind the last bracket.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// The file that `name` means on `path`, as a shell would look for it.
#[must_use]
pub(crate) fn look_up(name: &str, path: &str) -> Option<String> {
    if name.contains('/') {
        return Some(name.to_owned());
    }
    path.split(':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| format!("{folder}/{name}"))
        .find(|file| {
            let executable = |m: fs::Metadata| {
                use std::os::unix::fs::PermissionsExt as _;
                m.is_file() && m.permissions().mode() & 0o111 != 0
            };
            fs::metadata(file).is_ok_and(executable)
        })
}
