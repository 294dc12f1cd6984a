//! The way of the job's code to the registry: what it asks on loopback goes to the agent's socket, and the answer back. The
//! code never sees that an agent is away: its request is held and handed over when the socket is there again, under the
//! same number where it may have arrived before. Reads no word of what is asked.

mod exchange;
mod request;
mod spool;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use protocol::{Digest, Timestamp};
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};

use self::exchange::{Exchange, State};
use self::request::Refusal;
use crate::sockets::try_connect;

/// Most requests at once; more wait to be accepted.
const MOST: usize = 32;
/// Requests of whose fate their client did not hear: so many are remembered.
const MOST_LOST: usize = 256;

/// Listens for the job's code.
#[derive(Debug)]
pub(crate) struct Relay {
    listener: TcpListener,
    exchanges: Vec<Exchange>,
    way: Way,
}

/// What the exchanges share.
#[derive(Debug)]
struct Way {
    /// The agent's socket.
    socket: PathBuf,
    /// Where long bodies are kept.
    folder: PathBuf,
    /// Tells this driver's numbers from those of one before it.
    start: Timestamp,
    last: u64,
    /// Requests that may have arrived and whose clients have gone: what each asked for, and its number. A client that asks
    /// for the same again means the same.
    lost: VecDeque<(Digest, String)>,
    note: Note,
}

/// That what the code says cannot be kept: told once.
#[derive(Debug)]
enum Note {
    Nothing,
    Due(&'static str),
    Told,
}

impl Way {
    /// The number of a request that asks for this.
    fn number(&mut self, asked: &Digest) -> String {
        let known = self.lost.iter().position(|(lost, _)| lost == asked);
        if let Some((_, number)) = known.and_then(|at| self.lost.remove(at)) {
            return number;
        }
        self.last += 1;
        format!("{}-{}", self.start.0, self.last)
    }

    fn lose(&mut self, asked: Digest, number: String) {
        if self.lost.len() == MOST_LOST {
            self.lost.pop_front();
        }
        self.lost.push_back((asked, number));
    }

    /// Notes a refusal that is not the code's fault.
    fn note(&mut self, Refusal(status, why): Refusal) {
        if status == 503 && matches!(self.note, Note::Nothing) {
            self.note = Note::Due(why);
        }
    }

    /// Connects to the agent; none where it is away. By its folder: the path of a socket is at most 107 bytes long.
    fn connect(&self) -> Option<UnixStream> {
        let name = self.socket.file_name()?.to_str()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(self.socket.parent()?, flags, Mode::empty()).ok()?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&folder);
        try_connect(Path::new(&format!("/proc/self/fd/{fd}/{name}"))).ok()?
    }
}

impl Relay {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// Where the system gives none.
    pub(crate) fn open(socket: &str, folder: PathBuf) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            exchanges: Vec::new(),
            way: Way {
                socket: socket.into(),
                folder,
                start: Timestamp::now(),
                last: 0,
                lost: VecDeque::new(),
                note: Note::Nothing,
            },
        })
    }

    /// Where it is found.
    ///
    /// # Errors
    /// Where the system does not say.
    pub(crate) fn url(&self) -> io::Result<String> {
        Ok(format!("http://{}", self.listener.local_addr()?))
    }

    /// What is to be polled, and for what.
    pub(crate) fn interests(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let mut all = Vec::new();
        if self.exchanges.len() < MOST {
            all.push((self.listener.as_fd(), PollFlags::IN));
        }
        for exchange in &self.exchanges {
            exchange.interests(&mut all);
        }
        all
    }

    /// When something is to be done though nothing is ready.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waits = |exchange: &Exchange| match exchange.state {
            State::Waiting { until } | State::Refused { until } => Some(until),
            State::Reading | State::Sending { .. } | State::Answering { .. } => None,
        };
        self.exchanges.iter().filter_map(waits).min()
    }

    /// What the job's readers are to hear of it now, in a line.
    pub(crate) fn take_note(&mut self) -> Option<String> {
        let Note::Due(why) = self.way.note else {
            return None;
        };
        self.way.note = Note::Told;
        Some(format!(
            "the driver cannot take what the code writes to the registry: {why} The code is told to try again, and fails where \
             that goes on.\n"
        ))
    }

    /// Does what can be done without waiting.
    pub(crate) fn step(&mut self) {
        while self.exchanges.len() < MOST {
            match self.listener.accept() {
                Ok((client, _)) => self.exchanges.extend(Exchange::new(client)),
                // Of no more descriptors, or a client that has gone already, the next look tells.
                Err(_) => break,
            }
        }
        let way = &mut self.way;
        self.exchanges.retain_mut(|exchange| exchange.step(way));
    }
}
