//! A running kernel: started, connected over unix sockets, asked, interrupted, ended. Knows nothing of notebooks.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::driver::DriverJob;
use protocol::event::LogStream;
use protocol::units::Span;
use rustix::process::Signal;
use serde_json::{Map, Value, json};

use crate::kernelspec::KernelCommand;
use crate::process::{Child, End, Start};
use crate::relay::Relay;
use crate::signals::Signals;
use crate::sockets::{Folder, random_hex};
use crate::tail::Tail;
use crate::watch::{Happening, Watch};
use crate::wire::{Message, Signer, WireError};
use crate::zmtp::{Connection, Kind, ZmtpError};

/// Longest message taken from a kernel: it is held once.
pub(crate) const LONGEST_MESSAGE: u64 = 128 << 20;
/// Between two tries to connect to a socket that is not there yet.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);
/// Until the kernel is asked again who it is: its first words may have been said before it knew that we listen.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// A kernel that closed a channel has this long to be gone.
const CLOSED_GRACE: Duration = Duration::from_secs(1);
/// From so many messages in a row on, they are read in batches: waking for each one takes the kernel's time.
const FLOOD: u32 = 32;
/// How long a batch is gathered, and the pause that ends a flood.
const BATCH: Duration = Duration::from_millis(2);

/// The channels that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Requests and their replies.
    Shell,
    /// Requests that overtake the others.
    Control,
    /// What everybody may hear: outputs and states.
    Iopub,
    /// Requests to a person. We have none, and are there to say so.
    Stdin,
}

impl Channel {
    /// All, with the number that ends the socket's name.
    const ALL: [(Channel, u8); 4] = [
        (Channel::Shell, 1),
        (Channel::Iopub, 2),
        (Channel::Control, 4),
        (Channel::Stdin, 3),
    ];

    /// Whether a kernel can be worked with that has it not: some have no stdin.
    fn is_needed(self) -> bool {
        match self {
            Channel::Shell | Channel::Control | Channel::Iopub => true,
            Channel::Stdin => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Channel::Shell => "shell",
            Channel::Control => "control",
            Channel::Iopub => "iopub",
            Channel::Stdin => "stdin",
        }
    }
}

/// Why there is no kernel any more, other than that it ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelFault {
    /// No place for its sockets.
    #[error("no folder for the kernel's sockets can be made in {place}: {error}")]
    Folder {
        /// Where.
        place: String,
        /// The reason.
        error: io::Error,
    },
    /// It would not start.
    #[error("'{program}' cannot be started in {workdir}: {error}")]
    Spawn {
        /// The program.
        program: String,
        /// Where.
        workdir: String,
        /// The reason.
        error: io::Error,
    },
    /// It did not answer.
    #[error("the kernel did not answer within {0} of its start")]
    StartTimeout(Span),
    /// It was done with a cell, and did not say how it went.
    #[error("the kernel was done with the cell and did not answer within {0}")]
    NoReply(Span),
    /// It sent what no kernel sends.
    #[error("{} channel: {error}", channel.name())]
    Channel {
        /// On which channel.
        channel: Channel,
        /// What.
        error: ZmtpError,
    },
    /// It sent a message that cannot be believed or read.
    #[error("{} channel: {error}", channel.name())]
    Wire {
        /// On which channel.
        channel: Channel,
        /// What.
        error: WireError,
    },
    /// The system refuses to wait.
    #[error("waiting failed: {0}")]
    Wait(#[from] io::Error),
}

/// What a kernel says or does.
#[derive(Debug)]
pub(crate) enum Said {
    /// A message.
    Message(Channel, Message),
    /// Text beside the protocol.
    Text(LogStream, String),
    /// It ended.
    Ended(End),
    /// We were told to stop.
    Stop,
}

/// How a start ended that gave no kernel and is nobody's fault.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// A fault.
    Fault(KernelFault),
    /// It ended before it answered.
    Ended(End),
    /// We were told to stop.
    Stopped,
}

impl From<KernelFault> for NotStarted {
    fn from(fault: KernelFault) -> Self {
        NotStarted::Fault(fault)
    }
}

/// What a kernel says about itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct KernelInfo {
    /// Its language: name, version, file extension and so on.
    pub(crate) language: Map<String, Value>,
    /// Implementation and version.
    pub(crate) name: String,
}

/// A kernel.
#[derive(Debug)]
pub(crate) struct Kernel<'a> {
    watch: Watch<'a, Channel>,
    folder: Folder,
    signer: Signer,
    session: String,
    interrupt_by_message: bool,
    /// Whether its standard error is its cells', and it does not say itself what is written there.
    pub(crate) leaves_stderr: bool,
    /// What stops the next wait.
    fault: Option<KernelFault>,
    closed: Option<(Instant, Channel, ZmtpError)>,
    end: Option<End>,
    /// Waits in a row that brought outputs, and when the last one did.
    flood: (u32, Instant),
    /// The end of what it said on standard error.
    pub(crate) stderr: Tail,
}

impl<'a> Kernel<'a> {
    /// Starts the process. It answers nothing yet.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn spawn(
        command: &KernelCommand,
        job: &DriverJob,
        signals: &'a Signals,
        relay: Option<Relay>,
    ) -> Result<Self, KernelFault> {
        let session = random_hex(8);
        let key = random_hex(32);
        let no_folder = |(place, error)| KernelFault::Folder { place, error };
        let folder = Folder::make(&job.env, job.user).map_err(no_folder)?;
        let connection_file = folder.connection_file(&key, job.user).map_err(no_folder)?;
        let argv: Vec<String> = command
            .argv
            .iter()
            .map(|part| part.replace("{connection_file}", &connection_file.display().to_string()))
            .collect();
        let mut env = job.env.clone();
        env.extend(command.env.clone());
        // A warning of the debugger's about frozen modules, in every notebook, for nobody.
        env.entry("PYDEVD_DISABLE_FILE_VALIDATION".into())
            .or_insert_with(|| "1".into());
        let start = Start {
            argv: &argv,
            env: &env,
            workdir: Path::new(&job.workdir),
            user: job.user,
        };
        let child = Child::start(&start).map_err(|error| KernelFault::Spawn {
            program: argv.first().cloned().unwrap_or_default(),
            workdir: job.workdir.clone(),
            error,
        })?;
        Ok(Self {
            watch: Watch::new(child, signals, relay),
            folder,
            signer: Signer::new(&key, &session),
            session,
            interrupt_by_message: command.interrupt_by_message,
            leaves_stderr: command.by_launcher,
            fault: None,
            closed: None,
            end: None,
            flood: (0, Instant::now()),
            stderr: Tail::default(),
        })
    }

    /// Connects and waits for its first answer, and until it is sure that we hear what it says. Text that comes
    /// meanwhile goes to `text`.
    ///
    /// # Errors
    /// Where it ends, does not answer in time, or is stopped.
    pub(crate) fn connect(
        &mut self,
        within: Span,
        mut text: impl FnMut(LogStream, &str),
    ) -> Result<KernelInfo, NotStarted> {
        let deadline = Instant::now() + Duration::from(within);
        let mut asked: Vec<String> = Vec::new();
        let mut ask_at = Instant::now();
        let (mut info, mut heard) = (None, false);
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Err(KernelFault::StartTimeout(within).into());
            }
            let connected = self.connect_missing()?;
            if connected && now >= ask_at {
                asked.push(self.ask(Channel::Shell, "kernel_info_request", &json!({})));
                // A kernel that has not answered at all is starting: asking twice does not help it.
                ask_at = now
                    + if info.is_some() {
                        ASK_AGAIN
                    } else {
                        ASK_AGAIN * 10
                    };
            }
            let pause = if connected {
                ask_at
            } else {
                now + CONNECT_PAUSE
            };
            for said in self.wait(deadline.min(pause))? {
                match said {
                    Said::Message(_, message)
                        if !message.parent.as_ref().is_some_and(|id| asked.contains(id)) => {}
                    Said::Message(Channel::Shell, message) if info.is_none() => {
                        info = Some(kernel_info(&message));
                        ask_at = Instant::now() + ASK_AGAIN;
                    }
                    Said::Message(Channel::Iopub, message) => heard |= message.kind == "status",
                    Said::Message(..) => {}
                    Said::Text(stream, said) => text(stream, &said),
                    Said::Ended(end) => return Err(NotStarted::Ended(end)),
                    Said::Stop => return Err(NotStarted::Stopped),
                }
            }
            if let Some(info) = info.clone().filter(|_| heard) {
                return Ok(info);
            }
        }
    }

    /// Sends a request; its id is what the answers' parent will be.
    pub(crate) fn ask(&mut self, channel: Channel, kind: &str, content: &Value) -> String {
        let (id, frames) = self.signer.request(kind, content);
        if let Some((_, connection)) = self
            .watch
            .connections
            .iter_mut()
            .find(|(name, _)| *name == channel)
        {
            connection.send(&frames);
        }
        id
    }

    /// Waits for the kernel to say something, until then.
    ///
    /// # Errors
    /// Where it broke the protocol; what it said before was given out before.
    pub(crate) fn wait(&mut self, until: Instant) -> Result<Vec<Said>, KernelFault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let until = match &self.closed {
            Some((since, ..)) => until.min(*since + CLOSED_GRACE),
            None => until,
        };
        if self.flood.0 > FLOOD {
            std::thread::sleep(BATCH);
        }
        let mut all = Vec::new();
        let happenings = self.watch.wait(until)?;
        self.note_flood(&happenings);
        for happening in happenings {
            match happening {
                Happening::Text(stream, text) => {
                    if stream == LogStream::Stderr {
                        self.stderr.push(&text);
                    }
                    all.push(Said::Text(stream, text));
                }
                Happening::Frames(channel, frames) => match self.signer.read(frames) {
                    Ok(message) => all.push(Said::Message(channel, message)),
                    Err(error) => {
                        self.fault
                            .get_or_insert(KernelFault::Wire { channel, error });
                    }
                },
                Happening::Broken(channel, ZmtpError::Closed | ZmtpError::Io(_))
                    if !channel.is_needed() => {}
                Happening::Broken(channel, error @ (ZmtpError::Closed | ZmtpError::Io(_))) => {
                    self.closed.get_or_insert((Instant::now(), channel, error));
                }
                Happening::Broken(channel, error) => {
                    self.fault
                        .get_or_insert(KernelFault::Channel { channel, error });
                }
                Happening::Ended(end) => {
                    self.end = Some(end);
                    all.push(Said::Ended(end));
                }
                Happening::Stop => all.push(Said::Stop),
            }
        }
        let lives = self.end.is_none();
        let overdue = |since: &Instant| lives && since.elapsed() >= CLOSED_GRACE;
        if let Some((_, channel, error)) = self.closed.take_if(|(since, ..)| overdue(since)) {
            self.fault
                .get_or_insert(KernelFault::Channel { channel, error });
        }
        Ok(all)
    }

    /// A reply ends a flood, and so does a pause: a short cell never waits.
    fn note_flood(&mut self, happenings: &[Happening<Channel>]) {
        let on = |channel| {
            happenings
                .iter()
                .any(|h| matches!(h, Happening::Frames(on, _) if *on == channel))
        };
        let (count, last) = self.flood;
        let goes_on = on(Channel::Iopub) && !on(Channel::Shell) && last.elapsed() < 2 * BATCH;
        self.flood = (
            if goes_on { count.saturating_add(1) } else { 0 },
            Instant::now(),
        );
    }

    /// How its process ended, once it has.
    #[must_use]
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// Asks it to leave what it does.
    pub(crate) fn interrupt(&mut self) {
        if self.interrupt_by_message {
            self.ask(Channel::Control, "interrupt_request", &json!({}));
        } else {
            self.watch.child.signal(Signal::INT);
        }
    }

    /// Asks it to end.
    pub(crate) fn shut_down(&mut self) {
        self.ask(
            Channel::Control,
            "shutdown_request",
            &json!({"restart": false}),
        );
    }

    /// Ends it, now.
    pub(crate) fn kill(&self) {
        self.watch.child.signal(Signal::KILL);
    }

    /// Connects to the sockets that are there; true once all are that are needed.
    fn connect_missing(&mut self) -> Result<bool, KernelFault> {
        for (channel, number) in Channel::ALL {
            let known = self
                .watch
                .connections
                .iter()
                .any(|(name, _)| *name == channel);
            if known || self.closed.is_some() {
                continue;
            }
            let broken = |error| KernelFault::Channel { channel, error };
            let connected = self.folder.connect(number);
            let Some(stream) = connected.map_err(|e| broken(e.into()))? else {
                if channel.is_needed() {
                    return Ok(false);
                }
                continue;
            };
            let kind = match channel {
                Channel::Iopub => Kind::Sub,
                Channel::Shell | Channel::Control | Channel::Stdin => Kind::Dealer,
            };
            let connection =
                Connection::new(stream, kind, self.session.as_bytes(), LONGEST_MESSAGE)
                    .map_err(broken)?;
            self.watch.connections.push((channel, connection));
        }
        Ok(true)
    }
}

fn kernel_info(message: &Message) -> KernelInfo {
    let content: Value = message.content().unwrap_or_default();
    let text = |key: &str| {
        content[key]
            .as_str()
            .unwrap_or_default()
            .chars()
            .take(80)
            .collect::<String>()
    };
    let language = content["language_info"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let version = language
        .get("version")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let name = format!(
        "{} {} ({} {version})",
        text("implementation"),
        text("implementation_version"),
        language
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
    );
    KernelInfo { language, name }
}
