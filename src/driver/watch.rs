//! One place to wait: the job's first process, its two pipes, our signals, its way to the registry, and (for a kernel) its
//! sockets, all in one thread with one `poll`. A job that has used up all processes cannot hinder that. Judges nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use protocol::event::LogStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::process::{Child, End};
use crate::relay::Relay;
use crate::signals::Signals;
use crate::zmtp::{Connection, Frames, ZmtpError};

/// What is read from a pipe at once.
const CHUNK: usize = 64 << 10;
/// What is still read from a pipe or socket after the process has ended: more than any of them holds. A left-over
/// process that goes on writing is not listened to for ever.
const LAST_WORDS: usize = 4 << 20;

/// What happened. `T` names a connection.
#[derive(Debug)]
pub(crate) enum Happening<T> {
    /// Text on standard output or error, or a line of our own.
    Text(LogStream, String),
    /// A message on a connection.
    Frames(T, Frames),
    /// A connection is of no more use, and has been taken out.
    Broken(T, ZmtpError),
    /// The process has ended, and everything it said before stands before this.
    Ended(End),
    /// We were told to stop.
    Stop,
}

/// Watches a process.
#[derive(Debug)]
pub(crate) struct Watch<'a, T> {
    /// The process.
    pub(crate) child: Child,
    /// Its connections; taken out when they break.
    pub(crate) connections: Vec<(T, Connection)>,
    signals: &'a Signals,
    /// The way of its code to the registry.
    relay: Option<Relay>,
    stdout: Pipe,
    stderr: Pipe,
    ended: bool,
}

impl<'a, T: Copy> Watch<'a, T> {
    /// Begins to watch a process.
    #[must_use]
    pub(crate) fn new(mut child: Child, signals: &'a Signals, relay: Option<Relay>) -> Self {
        let (stdout, stderr) = child.take_pipes();
        Self {
            child,
            connections: Vec::new(),
            signals,
            relay,
            stdout: Pipe::new(LogStream::Stdout, stdout),
            stderr: Pipe::new(LogStream::Stderr, stderr),
            ended: false,
        }
    }

    /// Waits until something happens or the time has come, and says what happened, in order for each source.
    ///
    /// # Errors
    /// Where the system refuses to wait.
    pub(crate) fn wait(&mut self, until: Instant) -> io::Result<Vec<Happening<T>>> {
        let mut happenings = Vec::new();
        let ready = self.poll(until)?;
        if ready.signals {
            let arrived = self.signals.arrived();
            if arrived.stop {
                happenings.push(Happening::Stop);
            }
            if arrived.child {
                self.child.reap();
            }
        }
        let due = self.relay.as_ref().and_then(Relay::due);
        if let Some(relay) = &mut self.relay
            && (ready.relay || due.is_some_and(|due| due <= Instant::now()))
        {
            relay.step();
            let note = relay.take_note();
            happenings.extend(note.map(|note| Happening::Text(LogStream::Platform, note)));
        }
        let mut frames = Vec::new();
        let mut index = 0;
        self.connections.retain_mut(|(name, connection)| {
            let ready = ready.connections.get(index).copied().unwrap_or(false);
            index += 1;
            match serve(*name, connection, ready, &mut frames) {
                Ok(_) => true,
                Err(error) => {
                    frames.push(Happening::Broken(*name, error));
                    false
                }
            }
        });
        // What was written before a message was sent lies in the pipes by now, and stands before the message.
        for pipe in [&mut self.stdout, &mut self.stderr] {
            pipe.read(&mut happenings);
        }
        happenings.append(&mut frames);
        if let Some(end) = self.child.end().filter(|_| !self.ended) {
            self.ended = true;
            self.last_words(&mut happenings);
            happenings.push(Happening::Ended(end));
        }
        Ok(happenings)
    }

    fn poll(&self, until: Instant) -> io::Result<Ready> {
        let pipes = [&self.stdout, &self.stderr];
        let pipes = pipes.iter().filter_map(|pipe| pipe.fd.as_ref());
        let mut fds = vec![PollFd::from_borrowed_fd(self.signals.fd(), PollFlags::IN)];
        fds.extend(pipes.map(|fd| PollFd::new(fd, PollFlags::IN)));
        let first = fds.len();
        for (_, connection) in &self.connections {
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, connection.wants_to_write());
            fds.push(PollFd::from_borrowed_fd(connection.fd(), wanted));
        }
        let of_relay = fds.len();
        let interests = self
            .relay
            .as_ref()
            .map(Relay::interests)
            .unwrap_or_default();
        for (fd, wanted) in interests {
            fds.push(PollFd::from_borrowed_fd(fd, wanted));
        }
        let due = self.relay.as_ref().and_then(Relay::due);
        let until = due.map_or(until, |due| due.min(until));
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::Error::from(Errno::INVAL))?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ok(Ready {
            signals: ready(&fds[0]),
            connections: fds[first..of_relay].iter().map(ready).collect(),
            relay: fds[of_relay..].iter().any(ready),
        })
    }

    /// What lies in pipes and sockets when the process is gone.
    fn last_words(&mut self, happenings: &mut Vec<Happening<T>>) {
        for pipe in [&mut self.stdout, &mut self.stderr] {
            let mut left = LAST_WORDS;
            while left > 0 {
                match pipe.read(happenings) {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            pipe.end(happenings);
        }
        for (name, connection) in &mut self.connections {
            for _ in 0..LAST_WORDS / CHUNK {
                // That it is closed is no news now.
                match serve(*name, connection, true, happenings) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => break,
                }
            }
        }
    }
}

struct Ready {
    signals: bool,
    connections: Vec<bool>,
    relay: bool,
}

/// Reads once and writes what goes; says whether bytes came. Messages that came before an error are kept.
fn serve<T: Copy>(
    name: T,
    connection: &mut Connection,
    ready: bool,
    happenings: &mut Vec<Happening<T>>,
) -> Result<bool, ZmtpError> {
    let mut messages = Vec::new();
    let received = if ready {
        connection.receive(&mut messages)
    } else {
        Ok(false)
    };
    happenings.extend(
        messages
            .into_iter()
            .map(|frames| Happening::Frames(name, frames)),
    );
    let received = received?;
    connection.flush()?;
    Ok(received)
}

/// One of the process's pipes; text leaves it at whole characters.
#[derive(Debug)]
struct Pipe {
    stream: LogStream,
    fd: Option<OwnedFd>,
    /// Bytes of a character that has not come whole.
    carry: Vec<u8>,
    chunk: Vec<u8>,
}

impl Pipe {
    fn new(stream: LogStream, fd: Option<OwnedFd>) -> Self {
        Self {
            stream,
            fd,
            carry: Vec::new(),
            chunk: vec![0; CHUNK],
        }
    }

    /// Reads once; says how many bytes came.
    fn read<T>(&mut self, happenings: &mut Vec<Happening<T>>) -> usize {
        let Some(fd) = &self.fd else { return 0 };
        match rustix::io::read(fd, &mut self.chunk[..]) {
            Ok(n) if n > 0 => {
                self.carry.extend_from_slice(&self.chunk[..n]);
                let whole = whole_characters(&self.carry);
                let rest = self.carry.split_off(whole);
                let text = std::mem::replace(&mut self.carry, rest);
                if !text.is_empty() {
                    happenings.push(Happening::Text(self.stream, lossy(text)));
                }
                n
            }
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Ok(_) | Err(_) => {
                self.end(happenings);
                0
            }
        }
    }

    fn end<T>(&mut self, happenings: &mut Vec<Happening<T>>) {
        self.fd = None;
        let text = std::mem::take(&mut self.carry);
        if !text.is_empty() {
            happenings.push(Happening::Text(self.stream, lossy(text)));
        }
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Where to cut so that a character whose bytes have not all come stays whole.
fn whole_characters(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    for (at, byte) in bytes.iter().enumerate().skip(from).rev() {
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => 1,
        };
        return if at + length > bytes.len() {
            at
        } else {
            bytes.len()
        };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_never_cut() {
        for text in ["aé", "a€", "a𝄞", "abc"] {
            for cut in 0..=text.len() {
                let whole = whole_characters(&text.as_bytes()[..cut]);
                assert!(text.is_char_boundary(whole), "{text} {cut}");
                assert!(cut - whole < 4);
            }
            assert_eq!(whole_characters(text.as_bytes()), text.len());
        }
        // What is no UTF-8 does not wait for more.
        assert_eq!(whole_characters(&[0xff; 5]), 5);
        assert_eq!(whole_characters(&[0x80; 5]), 5);
    }
}
