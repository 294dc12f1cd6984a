//! What went wrong, in the words of `protocol::outcome`: kinds, sentences, hints. Does nothing itself.

use protocol::driver::RunAs;
use protocol::outcome::{Failure, FailureKind, LimitReached};
use protocol::text::without_colours;
use protocol::units::{ByteSize, Span};

use crate::clock::SaidBy;
use crate::kernel::KernelFault;
use crate::kernelspec::NoKernel;
use crate::process::End;
use crate::reply::InputRequest;
use crate::story::StoryError;
use crate::tail::Tail;
use crate::zmtp::ZmtpError;

const NO_MEMORY: &str = "SIGKILL mostly means that memory ran out: ask for more (`resources: {memory: ...}`) or use less.";

const NO_INPUT: &str = "Nobody can answer input() here; make the value a parameter.";
const NO_PASSWORD: &str = "Nobody can type a password here; name it under `secrets` in .trainyard.yml and read it from the environment.";

/// Of an exception that a cell shows and does not raise.
pub(crate) const SHOWN: &str = "The cell showed this and went on, as `%run` does; where that is well, tag it `raises-exception`.";

/// An exception, as a kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raised {
    /// Class.
    pub(crate) ename: String,
    /// Message.
    pub(crate) evalue: String,
    /// Lines with ANSI colours.
    pub(crate) traceback: Vec<String>,
}

impl Raised {
    /// `sys.exit()` and `sys.exit(0)` end a notebook early and well; what else is zero to Python does, too.
    #[must_use]
    pub(crate) fn is_clean_exit(&self) -> bool {
        self.ename == "SystemExit" && matches!(self.evalue.as_str(), "" | "0" | "None" | "False")
    }

    /// The line of the cell with this count at which it raised, from 1: the first frame of the traceback.
    #[must_use]
    pub(crate) fn line(&self, execution_count: u64) -> Option<u32> {
        let text: String = self
            .traceback
            .iter()
            .map(|line| without_colours(line) + "\n")
            .collect();
        let marks = [
            format!("Cell In[{execution_count}], line "),
            format!("Input In [{execution_count}], line "),
        ];
        marks.iter().find_map(|mark| {
            let (_, after) = text.split_once(mark)?;
            let digits = after
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(after.len());
            after[..digits].parse().ok().filter(|line| *line > 0)
        })
    }
}

/// The first line, bounded: a message is one sentence.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(300) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line.to_owned(),
    }
}

/// A cell raised. `installs`: whether the notebook installs packages by itself.
#[must_use]
pub(crate) fn raised(raised: &Raised, installs: bool, user: Option<RunAs>) -> Failure {
    let evalue = without_colours(&raised.evalue);
    // Not every kernel has classes of exceptions.
    let message = match (raised.ename.as_str(), short(&evalue)) {
        ("", evalue) if evalue.parse::<i64>().is_ok() => {
            format!("The cell ended with exit code {evalue}.")
        }
        ("", evalue) => format!("The cell failed: {evalue}"),
        (ename, evalue) if evalue.is_empty() => ename.to_owned(),
        (ename, evalue) => format!("{ename}: {evalue}"),
    };
    let everything = without_colours(&raised.traceback.join("\n"));
    let mut failure = Failure::new(kind_of(&raised.ename, &evalue, &everything), message);
    if !raised.traceback.is_empty() {
        failure = failure.detail(raised.traceback.join("\n"));
    }
    failure.hint = hint(&raised.ename, &evalue, installs, failure.kind);
    if let (FailureKind::ProcessLimit, Some(user)) = (failure.kind, user) {
        failure = failure.limit(LimitReached::Processes {
            limit: user.processes,
        });
    }
    failure
}

/// Some exceptions are a limit's.
fn kind_of(ename: &str, evalue: &str, traceback: &str) -> FailureKind {
    let no_process = evalue.contains("can't start new thread")
        || (evalue.contains("[Errno 11]")
            && (traceback.contains("fork") || traceback.contains("subprocess")));
    if no_process {
        FailureKind::ProcessLimit
    } else if evalue.contains("[Errno 28]") || evalue.contains("[Errno 122]") {
        FailureKind::DiskLimit
    } else if evalue.contains("CUDA out of memory")
        || (ename == "OutOfMemoryError" && evalue.contains("CUDA"))
    {
        FailureKind::GpuOutOfMemory
    } else {
        FailureKind::CellRaised
    }
}

fn hint(ename: &str, evalue: &str, installs: bool, kind: FailureKind) -> Option<String> {
    const NO_NETWORK: [&str; 6] = [
        "Temporary failure in name resolution",
        "Name or service not known",
        "Network is unreachable",
        "NameResolutionError",
        "Failed to establish a new connection",
        "getaddrinfo failed",
    ];
    const REQUIREMENTS: &str =
        "the file that `python:` names in .trainyard.yml (such as requirements.txt)";
    if ename == "ModuleNotFoundError"
        || ename == "ImportError" && evalue.starts_with("No module named")
    {
        let module = evalue.split('\'').nth(1).unwrap_or(evalue);
        let package = module.split('.').next().unwrap_or(module);
        let installing = match installs {
            true => {
                " A package that the notebook installs by itself needs network, and is installed again each time."
            }
            false => "",
        };
        return Some(format!(
            "Add the package that has '{package}' to {REQUIREMENTS}, or to the image.{installing}"
        ));
    }
    if NO_NETWORK.iter().any(|words| evalue.contains(words)) {
        return Some(format!(
            "The network was not reached. Jobs of untrusted commits and those with `network: none` have none. \
             Packages belong into {REQUIREMENTS}; data into a volume."
        ));
    }
    match kind {
        FailureKind::ProcessLimit => Some(
            "Start fewer processes and threads (DataLoader workers, joblib, OMP_NUM_THREADS)."
                .into(),
        ),
        FailureKind::DiskLimit => Some(
            "The disk that the job may use is full; remove what is not needed any more.".into(),
        ),
        FailureKind::GpuOutOfMemory => {
            Some("Ask for a GPU with more memory (`gpu_memory`), or make the batch smaller.".into())
        }
        _ if evalue.contains("getpass was called") => Some(NO_PASSWORD.into()),
        _ if evalue.contains("raw_input was called") || ename == "StdinNotImplementedError" => {
            Some(NO_INPUT.into())
        }
        _ => None,
    }
}

/// There is no such kernel.
#[must_use]
pub(crate) fn no_kernel(error: &NoKernel) -> Failure {
    match error {
        NoKernel::NoPython { .. } => Failure::new(FailureKind::ImageUnusable, error.to_string())
            .hint("The image needs Python and ipykernel; trainyard/notebook has both."),
        NoKernel::Unknown { .. } => {
            let meant = error.nearest().map(|name| format!("Is '{name}' meant? "));
            Failure::new(FailureKind::NotebookInvalid, format!("The notebook asks for a kernel that is not here: {error}"))
                .hint(format!("{}Choose a kernel that the image has (metadata.kernelspec.name), or an image that has this one.", meant.unwrap_or_default()))
        }
        NoKernel::Unreadable { .. } => Failure::new(FailureKind::ImageUnusable, error.to_string()),
    }
}

/// A program would not start. `kind`: where the program or the folder is to blame.
#[must_use]
pub(crate) fn not_spawned(
    kind: FailureKind,
    program: &str,
    workdir: &str,
    error: &std::io::Error,
) -> Failure {
    let theirs = [
        libc::ENOENT,
        libc::EACCES,
        libc::ENOEXEC,
        libc::ENOTDIR,
        libc::E2BIG,
        libc::ELOOP,
        libc::EINVAL,
    ];
    let message = format!("'{program}' cannot be started in {workdir}: {error}");
    match error.raw_os_error() {
        Some(code) if theirs.contains(&code) => Failure::new(kind, message),
        Some(_) | None => Failure::new(FailureKind::ExecutorFailed, message),
    }
}

/// The kernel ended by itself. `before_ready`: it never answered.
#[must_use]
pub(crate) fn kernel_ended(end: End, stderr: &Tail, before_ready: bool) -> Failure {
    // Python's own words about a crash begin with the reason.
    let mut lines = stderr.as_str().lines();
    let fatal = lines.find(|line| line.starts_with("Fatal Python error: "));
    let said = fatal
        .or_else(|| stderr.last_line())
        .map(|line| format!(": {}", short(&without_colours(line))))
        .unwrap_or_default();
    let without_ipykernel = before_ready
        && ["ipykernel", "zmq"].iter().any(|name| {
            stderr
                .as_str()
                .contains(&format!("No module named '{name}"))
        });
    let mut failure = if without_ipykernel {
        Failure::new(FailureKind::ImageUnusable, format!("The job's Python cannot run notebooks{said}"))
            .hint("Add ipykernel to the requirements, or use an image that has it, such as trainyard/notebook.")
    } else if before_ready {
        Failure::new(
            FailureKind::KernelDied,
            format!("The kernel ended with {end} before it answered{said}"),
        )
    } else {
        Failure::new(
            FailureKind::KernelDied,
            format!("The kernel died with {end}{said}"),
        )
    };
    if end == End::Signal(libc::SIGKILL) {
        failure = failure.hint(NO_MEMORY);
    } else if end == End::Signal(libc::SIGSEGV) || end == End::Signal(libc::SIGBUS) {
        failure = failure.hint(
            "A native library crashed; a full /dev/shm (`shm_size`) ends a process with SIGBUS.",
        );
    } else if end.code().is_some() && !before_ready {
        failure = failure.hint(
            "Something ended the kernel's process, such as os._exit() or a library; sys.exit() would have ended the notebook alone.",
        );
    }
    match stderr.as_str().is_empty() {
        true => failure,
        false => failure.detail(stderr.as_str()),
    }
}

/// There is no kernel any more, and it is not that it ended.
#[must_use]
pub(crate) fn kernel_fault(fault: &KernelFault, stderr: &Tail) -> Failure {
    let failure = match fault {
        KernelFault::Folder { .. } | KernelFault::Wait(_) => Failure::new(FailureKind::ExecutorFailed, capital(fault)),
        KernelFault::Spawn { program, workdir, error } => {
            not_spawned(FailureKind::ImageUnusable, program, workdir, error)
        }
        KernelFault::StartTimeout(_) | KernelFault::NoReply(_) => Failure::new(FailureKind::KernelDied, format!("{}.", capital(fault))),
        KernelFault::Channel { error: ZmtpError::Closed, .. } => {
            Failure::new(FailureKind::KernelDied, format!("The kernel closed its connections ({fault}) while its process went on, and was ended."))
                .hint("A cell that replaces the kernel's process (os.exec) or restarts the kernel does that.")
        }
        KernelFault::Channel { error: ZmtpError::TooLarge { announced, limit }, .. } => {
            Failure::new(FailureKind::OutputLimit, format!("The kernel announced one message of {announced} bytes and was ended; at most {limit} are taken."))
                .limit(LimitReached::Bytes { limit: ByteSize(*limit), used: Some(ByteSize(*announced)) })
                .hint("Write large results to a file and show a part of them.")
        }
        KernelFault::Channel { .. } | KernelFault::Wire { .. } => {
            Failure::new(FailureKind::KernelDied, format!("The kernel broke the protocol and was ended: {fault}"))
        }
    };
    match stderr.as_str().is_empty() {
        true => failure,
        false => failure.detail(stderr.as_str()),
    }
}

/// The story cannot go on.
#[must_use]
pub(crate) fn story(error: &StoryError) -> Failure {
    match error {
        StoryError::TooLong(limit) => Failure::new(
            FailureKind::OutputLimit,
            format!("The job said more than {limit} bytes and was ended."),
        )
        .limit(LimitReached::Bytes {
            limit: ByteSize(*limit),
            used: None,
        })
        .hint("Print less, or write to a file and declare it under `artifacts`."),
        StoryError::Io(e) if matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => {
            Failure::new(
                FailureKind::DiskLimit,
                format!("The disk of the agent is full: {e}"),
            )
        }
        StoryError::Io(_) => Failure::new(FailureKind::Internal, capital(error)),
    }
}

/// A time limit was reached. `said_by`: whose limit the cell's is.
#[must_use]
pub(crate) fn time_limit(kind: FailureKind, limit: Span, said_by: SaidBy) -> Failure {
    let (message, remedy) = match kind {
        FailureKind::CellTimeout => {
            let remedy = match said_by {
                SaidBy::PipelineFile => {
                    "raise `cell_timeout` in .trainyard.yml, or give this cell a tag such as `timeout=30m`"
                }
                SaidBy::Notebook => {
                    "raise `execution.timeout` in the notebook's metadata, or give this cell a tag such as `timeout=30m`"
                }
                SaidBy::Tag => "raise the cell's tag `timeout=…`",
            };
            (format!("The cell ran longer than {limit}."), remedy)
        }
        FailureKind::SilenceTimeout => (
            format!("Nothing was said for {limit}."),
            "raise `silence_timeout` in .trainyard.yml, or print something now and then",
        ),
        _ => (
            format!("The job ran longer than {limit}."),
            "raise `timeout` in .trainyard.yml",
        ),
    };
    Failure::new(kind, message)
        .limit(LimitReached::Time { limit })
        .hint(format!("Where that is too short, {remedy}."))
}

/// The kernel wants a person to type something.
#[must_use]
pub(crate) fn asks(request: &InputRequest) -> Failure {
    let prompt = short(request.prompt.trim());
    let message = match (request.password, prompt.as_str()) {
        (true, _) => "The cell asks for a password, and nobody can answer here.".to_owned(),
        (false, "") => "The cell asks for input, and nobody can answer here.".to_owned(),
        (false, prompt) => {
            format!("The cell asks for input (\"{prompt}\"), and nobody can answer here.")
        }
    };
    let hint = if request.password {
        NO_PASSWORD
    } else {
        NO_INPUT
    };
    Failure::new(FailureKind::CellRaised, message).hint(hint)
}

/// Adds what the cell raised when it was interrupted.
#[must_use]
pub(crate) fn interrupted(failure: Failure, raised: &Raised) -> Failure {
    match raised.traceback.is_empty() {
        true => failure,
        false => failure.detail(raised.traceback.join("\n")),
    }
}

/// Adds that an interrupt did not help.
#[must_use]
pub(crate) fn unmoved(failure: Failure, grace: Span) -> Failure {
    let message = format!(
        "{} An interrupt did not end it within {grace}; the kernel was killed.",
        failure.message
    );
    Failure { message, ..failure }
}

/// A command ended badly.
#[must_use]
pub(crate) fn command_ended(
    end: End,
    program: &str,
    stderr: &Tail,
    user: Option<RunAs>,
) -> Failure {
    let kind = command_kind(stderr);
    let mut failure = Failure::new(
        kind,
        format!("The command ended with {end}{}.", last_words(kind, stderr)),
    );
    failure.hint = match end {
        _ if kind != FailureKind::CommandFailed => hint("", "", false, kind),
        End::Signal(libc::SIGKILL) | End::Code(137) => Some(NO_MEMORY.to_owned()),
        End::Code(127) => Some(format!(
            "127 is what a shell ends with when a program is not there; was it one that '{program}' calls?"
        )),
        End::Code(_) | End::Signal(_) => None,
    };
    if let (FailureKind::ProcessLimit, Some(user)) = (kind, user) {
        failure = failure.limit(LimitReached::Processes {
            limit: user.processes,
        });
    }
    match stderr.as_str().is_empty() {
        true => failure,
        false => failure.detail(stderr.as_str()),
    }
}

/// What the last lines on standard error say: a limit has its own words in every program.
fn command_kind(stderr: &Tail) -> FailureKind {
    const LINES: usize = 20;
    let lines: Vec<&str> = stderr.as_str().lines().rev().take(LINES).collect();
    let said = |words: &[&str]| {
        lines
            .iter()
            .any(|line| words.iter().any(|word| line.contains(word)))
    };
    if said(&[
        "Cannot fork",
        "fork: retry",
        "fork: Resource temporarily unavailable",
        "can't start new thread",
    ]) || said(&["BlockingIOError: [Errno 11]"]) && stderr.as_str().contains("fork")
    {
        FailureKind::ProcessLimit
    } else if said(&["No space left on device", "Disk quota exceeded"]) {
        FailureKind::DiskLimit
    } else if said(&["CUDA out of memory"]) {
        FailureKind::GpuOutOfMemory
    } else {
        FailureKind::CommandFailed
    }
}

/// A limit is better understood with the words that told it.
fn last_words(kind: FailureKind, stderr: &Tail) -> String {
    match stderr.last_line() {
        Some(line) if kind != FailureKind::CommandFailed => {
            format!(": {}", short(&without_colours(line)))
        }
        Some(_) | None => String::new(),
    }
}

/// An error as a sentence of its own.
pub(crate) fn capital(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
