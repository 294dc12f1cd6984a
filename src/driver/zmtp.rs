//! The client half of ZMTP 3.0 (<https://rfc.zeromq.org/spec/23/>) with the NULL mechanism, over a unix socket
//! that never blocks. Frames are bounded: the peer is foreign code. Knows nothing of Jupyter.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Frames of one message, without envelope.
pub(crate) type Frames = Vec<Vec<u8>>;

/// More parts than any message of a kernel has.
const MOST_FRAMES: usize = 1024;
/// What is read at once. Large, so that a flood of small messages costs few calls.
const CHUNK: usize = 256 << 10;
const GREETING: usize = 64;
/// Longest context of a PING, by the specification.
const LONGEST_CONTEXT: usize = 16;
/// More pieces that wait to be sent than we ever have, answers to PINGs of a peer that reads included.
const MOST_UNSENT: usize = 16 << 10;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// What a client socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Asks a ROUTER, in any order.
    Dealer,
    /// Listens to everything that a PUB or XPUB says.
    Sub,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Dealer => "DEALER",
            Kind::Sub => "SUB",
        }
    }

    fn accepts(self, peer: &[u8]) -> bool {
        match self {
            Kind::Dealer => matches!(peer, b"ROUTER" | b"REP" | b"DEALER"),
            Kind::Sub => matches!(peer, b"PUB" | b"XPUB"),
        }
    }
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ZmtpError {
    /// The other side does not follow the protocol.
    #[error("the other side does not speak ZMTP 3: {0}")]
    Garbage(String),
    /// A message is longer than we take.
    #[error("a message of {announced} bytes was announced; the limit is {limit}")]
    TooLarge {
        /// Its length so far, with the frame announced.
        announced: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// The other side closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
}

fn garbage<T>(what: impl Into<String>) -> Result<T, ZmtpError> {
    Err(ZmtpError::Garbage(what.into()))
}

/// One connection. Nothing blocks: the caller polls [`Connection::fd`].
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    /// What is said once the other side has said its greeting, and its READY: libzmq hangs up on a client that says
    /// all at once.
    ready: Vec<u8>,
    held: Vec<Vec<u8>>,
    /// Bytes to send, and how many of the first piece are gone.
    unsent: VecDeque<Vec<u8>>,
    sent: usize,
    chunk: Vec<u8>,
}

impl Connection {
    /// Takes a connected stream and queues the greeting; a SUB subscribes to everything.
    /// `identity` is how a ROUTER tells its peers apart; `limit` is the longest message taken, in bytes.
    ///
    /// # Errors
    /// Where the stream cannot be made non-blocking.
    pub(crate) fn new(
        stream: UnixStream,
        kind: Kind,
        identity: &[u8],
        limit: u64,
    ) -> Result<Self, ZmtpError> {
        stream.set_nonblocking(true)?;
        let mut held = Vec::new();
        if kind == Kind::Sub {
            let mut subscription = Vec::new();
            put_frame(&mut subscription, 0, b"\x01");
            held.push(subscription);
        }
        Ok(Self {
            stream,
            decoder: Decoder::new(kind, limit),
            ready: ready(kind, identity),
            held,
            unsent: VecDeque::from([greeting()]),
            sent: 0,
            chunk: vec![0; CHUNK],
        })
    }

    /// To be polled for reading, and for writing while [`Connection::wants_to_write`].
    #[must_use]
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether bytes wait to be sent.
    #[must_use]
    pub(crate) fn wants_to_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) {
        let mut bytes = Vec::with_capacity(frames.iter().map(|f| f.len() + 9).sum());
        for (index, frame) in frames.iter().enumerate() {
            let more = if index + 1 < frames.len() { MORE } else { 0 };
            put_frame(&mut bytes, more, frame);
        }
        match self.decoder.stage {
            Stage::Open => self.unsent.push_back(bytes),
            Stage::Greeting | Stage::Ready => self.held.push(bytes),
        }
    }

    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// Where the other side has gone.
    pub(crate) fn flush(&mut self) -> Result<(), ZmtpError> {
        while let Some(bytes) = self.unsent.front() {
            match self.stream.write(&bytes[self.sent..]) {
                Ok(0) => return Err(ZmtpError::Closed),
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if gone(&e) => return Err(ZmtpError::Closed),
                Err(e) => return Err(e.into()),
            }
            if self.sent == bytes.len() {
                self.unsent.pop_front();
                self.sent = 0;
            }
        }
        Ok(())
    }

    /// Reads once, and adds the messages that became complete to `messages`. Says whether bytes came.
    ///
    /// # Errors
    /// Where the other side has gone, speaks something else, or announces more than the limit.
    pub(crate) fn receive(&mut self, messages: &mut Vec<Frames>) -> Result<bool, ZmtpError> {
        let n = loop {
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return Err(ZmtpError::Closed),
                Ok(n) => break n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if gone(&e) => return Err(ZmtpError::Closed),
                Err(e) => return Err(e.into()),
            }
        };
        let mut pongs = Vec::new();
        self.decoder.feed(&self.chunk[..n], messages, &mut pongs)?;
        if self.decoder.stage != Stage::Greeting && !self.ready.is_empty() {
            self.unsent.push_back(std::mem::take(&mut self.ready));
        }
        if self.decoder.stage == Stage::Open {
            self.unsent.extend(self.held.drain(..));
        }
        self.unsent.extend(pongs);
        if self.unsent.len() > MOST_UNSENT {
            return garbage("it asks whether we live, and does not read the answers");
        }
        Ok(true)
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

fn greeting() -> Vec<u8> {
    let mut bytes = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0];
    bytes.extend(b"NULL");
    bytes.resize(GREETING, 0);
    bytes
}

fn ready(kind: Kind, identity: &[u8]) -> Vec<u8> {
    let mut body = b"\x05READY".to_vec();
    put_property(&mut body, "Socket-Type", kind.name().as_bytes());
    if kind == Kind::Dealer {
        put_property(&mut body, "Identity", identity);
    }
    let mut frame = Vec::new();
    put_frame(&mut frame, COMMAND, &body);
    frame
}

fn put_property(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.push(name.len() as u8);
    bytes.extend(name.as_bytes());
    bytes.extend((value.len() as u32).to_be_bytes());
    bytes.extend(value);
}

fn put_frame(bytes: &mut Vec<u8>, flags: u8, body: &[u8]) {
    if let Ok(length) = u8::try_from(body.len()) {
        bytes.extend([flags, length]);
    } else {
        bytes.push(flags | LONG);
        bytes.extend((body.len() as u64).to_be_bytes());
    }
    bytes.extend(body);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Ready,
    Open,
}

/// Bytes in, messages out. Memory grows with what has arrived, never with what was announced.
#[derive(Debug)]
struct Decoder {
    kind: Kind,
    limit: u64,
    stage: Stage,
    /// Greeting or frame header, as far as it has come.
    head: Vec<u8>,
    /// The frame that is arriving: flags, what is missing, what is there.
    frame: Option<(u8, u64, Vec<u8>)>,
    /// Frames of the message that is arriving, and their length.
    message: Frames,
    length: u64,
}

impl Decoder {
    fn new(kind: Kind, limit: u64) -> Self {
        Self {
            kind,
            limit,
            stage: Stage::Greeting,
            head: Vec::with_capacity(GREETING),
            frame: None,
            message: Vec::new(),
            length: 0,
        }
    }

    fn feed(
        &mut self,
        mut bytes: &[u8],
        messages: &mut Vec<Frames>,
        pongs: &mut Vec<Vec<u8>>,
    ) -> Result<(), ZmtpError> {
        while !bytes.is_empty() {
            if self.stage == Stage::Greeting {
                take(&mut bytes, GREETING, &mut self.head);
                if self.head.first() != Some(&0xff) {
                    return garbage("the greeting does not begin with 0xFF");
                }
                if self.head.len() == GREETING {
                    check_greeting(&self.head)?;
                    self.head.clear();
                    self.stage = Stage::Ready;
                }
            } else if let Some((flags, missing, mut body)) = self.frame.take() {
                let n = usize::try_from(missing).map_or(bytes.len(), |m| m.min(bytes.len()));
                body.extend_from_slice(&bytes[..n]);
                bytes = &bytes[n..];
                self.frame = Some((flags, missing - n as u64, body));
            } else {
                take(&mut bytes, 2, &mut self.head);
                if self.head[0] & LONG != 0 {
                    take(&mut bytes, 9, &mut self.head);
                }
                self.begin_frame()?;
            }
            if let Some((flags, 0, _)) = self.frame
                && let Some((_, _, body)) = self.frame.take()
            {
                self.end_frame(flags, body, messages, pongs)?;
            }
        }
        Ok(())
    }

    /// Looks at a header once it is complete.
    fn begin_frame(&mut self) -> Result<(), ZmtpError> {
        let flags = self.head[0];
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
            return garbage(format!("a frame with the flags {flags:#04x}"));
        }
        let length = match (flags & LONG != 0, self.head.get(1..)) {
            (false, Some(&[length])) => u64::from(length),
            (true, Some(bytes)) => match <[u8; 8]>::try_from(bytes) {
                Ok(bytes) => u64::from_be_bytes(bytes),
                Err(_) => return Ok(()),
            },
            _ => return Ok(()),
        };
        let announced = self.length.saturating_add(length);
        if announced > self.limit {
            return Err(ZmtpError::TooLarge {
                announced,
                limit: self.limit,
            });
        }
        if self.message.len() >= MOST_FRAMES {
            return garbage(format!("a message of more than {MOST_FRAMES} frames"));
        }
        self.head.clear();
        self.frame = Some((flags, length, Vec::new()));
        Ok(())
    }

    fn end_frame(
        &mut self,
        flags: u8,
        body: Vec<u8>,
        messages: &mut Vec<Frames>,
        pongs: &mut Vec<Vec<u8>>,
    ) -> Result<(), ZmtpError> {
        match (flags & COMMAND != 0, self.stage) {
            (true, Stage::Ready) => {
                check_ready(self.kind, &body)?;
                self.stage = Stage::Open;
            }
            (true, _) => {
                if let Some(context) = body
                    .strip_prefix(b"\x04PING")
                    .and_then(|rest| rest.get(2..))
                {
                    if context.len() > LONGEST_CONTEXT {
                        return garbage(format!("a PING with {} bytes", context.len()));
                    }
                    let mut pong = Vec::new();
                    put_frame(&mut pong, COMMAND, &[b"\x04PONG", context].concat());
                    pongs.push(pong);
                } else if body.starts_with(b"\x05ERROR") {
                    return garbage(format!("it said {:?}", String::from_utf8_lossy(&body[6..])));
                }
            }
            (false, Stage::Open) => {
                self.length += body.len() as u64;
                self.message.push(body);
                if flags & MORE == 0 {
                    self.length = 0;
                    messages.push(std::mem::take(&mut self.message));
                }
            }
            (false, _) => return garbage("a message before READY"),
        }
        Ok(())
    }
}

/// Moves bytes until `head` has `want`.
fn take(bytes: &mut &[u8], want: usize, head: &mut Vec<u8>) {
    let n = want.saturating_sub(head.len()).min(bytes.len());
    head.extend_from_slice(&bytes[..n]);
    *bytes = &bytes[n..];
}

fn check_greeting(greeting: &[u8]) -> Result<(), ZmtpError> {
    if greeting[9] & 1 == 0 {
        return garbage("the greeting has no signature");
    }
    if greeting[10] < 3 {
        return garbage(format!("it speaks version {}", greeting[10]));
    }
    let mechanism = &greeting[12..32];
    if mechanism
        .strip_prefix(b"NULL")
        .is_none_or(|rest| rest.iter().any(|b| *b != 0))
    {
        return garbage(format!(
            "it wants the mechanism {:?}",
            String::from_utf8_lossy(mechanism)
        ));
    }
    Ok(())
}

fn check_ready(kind: Kind, body: &[u8]) -> Result<(), ZmtpError> {
    let Some(mut rest) = body.strip_prefix(b"\x05READY") else {
        return garbage("the first command is not READY");
    };
    while let Some((name, value, after)) = property(rest) {
        if name.eq_ignore_ascii_case(b"socket-type") {
            if kind.accepts(value) {
                return Ok(());
            }
            let peer = String::from_utf8_lossy(value).into_owned();
            return garbage(format!("a {} cannot talk to a {peer:?}", kind.name()));
        }
        rest = after;
    }
    garbage("READY names no socket type")
}

/// First property of a READY command, and the rest.
fn property(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(length.into())?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((name, value, rest))
}

#[cfg(test)]
mod tests;
