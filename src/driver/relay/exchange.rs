//! One request and its answer: read whole from the code, handed to the agent, the answer passed back as it comes.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::Way;
use super::request::{Refusal, Request, Step};

/// What is read or written at once.
const CHUNK: usize = 64 << 10;
/// So many chunks at most before others have their turn.
const TURN: usize = 16;
/// Between two tries to reach the agent.
const RETRY: Duration = Duration::from_millis(100);
/// So long a client that was refused may go on sending. Many read no answer before all is sent, and hear of a reset in its
/// place where we close before (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(300);

/// How far an exchange has come.
#[derive(Debug)]
pub(super) enum State {
    /// The request is being read.
    Reading,
    /// It is whole, and the agent is to be reached.
    Waiting { until: Instant },
    /// So many bytes have gone to the agent.
    Sending { agent: UnixStream, sent: u64 },
    /// The answer is passed back; `chunk` is what the code has not taken yet.
    Answering {
        agent: UnixStream,
        chunk: Vec<u8>,
        begun: bool,
    },
    /// It was refused: what the code still sends of it is thrown away.
    Refused { until: Instant },
}

/// A request of the job's code.
#[derive(Debug)]
pub(super) struct Exchange {
    client: TcpStream,
    request: Request,
    /// Its number and its head as the agent gets it, once it is whole.
    numbered: Option<(String, Vec<u8>)>,
    /// Whether the agent may have got it.
    tried: bool,
    pub(super) state: State,
}

/// What becomes of an exchange.
enum Next {
    /// It waits for something.
    Waits,
    /// It may go on at once.
    Goes(State),
    /// It is over.
    Over,
    /// The code has gone without an answer.
    Left,
}

impl Exchange {
    /// A new one; none where the client cannot be served without waiting.
    pub(super) fn new(client: TcpStream) -> Option<Self> {
        client.set_nonblocking(true).ok()?;
        // An answer that comes in two writes must not wait for the client's word on the first.
        let _ = client.set_nodelay(true);
        Some(Self {
            client,
            request: Request::default(),
            numbered: None,
            tried: false,
            state: State::Reading,
        })
    }

    pub(super) fn interests<'a>(&'a self, all: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        let client = self.client.as_fd();
        match &self.state {
            State::Reading | State::Refused { .. } => all.push((client, PollFlags::IN)),
            State::Waiting { .. } => all.push((client, PollFlags::RDHUP)),
            State::Sending { agent, .. } => {
                all.push((client, PollFlags::RDHUP));
                all.push((agent.as_fd(), PollFlags::OUT));
            }
            State::Answering { agent, chunk, .. } if chunk.is_empty() => {
                all.push((client, PollFlags::RDHUP));
                all.push((agent.as_fd(), PollFlags::IN));
            }
            State::Answering { .. } => all.push((client, PollFlags::OUT)),
        }
    }

    /// Goes on as far as it can; false: it is over.
    pub(super) fn step(&mut self, way: &mut Way) -> bool {
        loop {
            let state = std::mem::replace(&mut self.state, State::Reading);
            let next = match state {
                State::Reading => self.read(way),
                _ if self.has_left() => Next::Left,
                State::Waiting { until } if until > Instant::now() => {
                    self.state = State::Waiting { until };
                    Next::Waits
                }
                State::Waiting { .. } => match way.connect() {
                    Some(agent) => Next::Goes(State::Sending { agent, sent: 0 }),
                    None => {
                        let until = Instant::now() + RETRY;
                        self.state = State::Waiting { until };
                        Next::Waits
                    }
                },
                State::Sending { agent, sent } => self.send(agent, sent),
                State::Answering {
                    agent,
                    chunk,
                    begun,
                } => self.answer(agent, chunk, begun),
                State::Refused { until } if until > Instant::now() => {
                    self.state = State::Refused { until };
                    Next::Waits
                }
                State::Refused { .. } => Next::Over,
            };
            match next {
                Next::Waits => return true,
                Next::Goes(state) => self.state = state,
                Next::Over => return false,
                Next::Left => {
                    if let Some((number, _)) = self.numbered.take()
                        && self.tried
                        && !self.request.only_reads()
                    {
                        way.lose(self.request.digest(), number);
                    }
                    return false;
                }
            }
        }
    }

    /// Whether the client has gone. What it says behind its request is passed over: an answer ends the connection.
    fn has_left(&mut self) -> bool {
        let mut rest = [0; 4_096];
        for _ in 0..TURN {
            match self.client.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return !is_to_wait(&error),
            }
        }
        false
    }

    fn read(&mut self, way: &mut Way) -> Next {
        let mut chunk = vec![0; CHUNK];
        for _ in 0..TURN {
            let n = match self.client.read(&mut chunk) {
                Ok(0) => return Next::Over,
                Ok(n) => n,
                Err(error) if is_to_wait(&error) => return Next::Waits,
                Err(_) => return Next::Over,
            };
            match self.request.take(&chunk[..n], &way.folder) {
                Ok(Step::More) => {}
                Ok(Step::Continue) => {
                    // So short that it fits; where not, the client sends after a while by itself.
                    let _ = self.client.write(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                Ok(Step::Whole) => {
                    let number = way.number(&self.request.digest());
                    let head = self.request.head(&number);
                    self.numbered = Some((number, head));
                    let until = Instant::now();
                    return Next::Goes(State::Waiting { until });
                }
                Err(refusal) => {
                    way.note(refusal);
                    let _ = self.client.write(&refused(refusal));
                    let _ = self.client.shutdown(Shutdown::Write);
                    let until = Instant::now() + LINGER;
                    return Next::Goes(State::Refused { until });
                }
            }
        }
        Next::Waits
    }

    fn send(&mut self, mut agent: UnixStream, mut sent: u64) -> Next {
        let Some((_, head)) = &self.numbered else {
            return Next::Over;
        };
        self.tried = true;
        let mut chunk = vec![0; CHUNK];
        for _ in 0..TURN {
            let n = match self.request.read_at(head, sent, &mut chunk) {
                Ok(0) => {
                    return Next::Goes(State::Answering {
                        agent,
                        chunk: Vec::new(),
                        begun: false,
                    });
                }
                Ok(n) => n,
                Err(_) => {
                    let lost = Refusal(500, "the body of the request cannot be read any more");
                    let _ = self.client.write(&refused(lost));
                    return Next::Over;
                }
            };
            match agent.write(&chunk[..n]) {
                Ok(n) => sent += n as u64,
                Err(error) if is_to_wait(&error) => break,
                // It takes no more: it may have answered before it read all.
                Err(_) => {
                    return Next::Goes(State::Answering {
                        agent,
                        chunk: Vec::new(),
                        begun: false,
                    });
                }
            }
        }
        self.state = State::Sending { agent, sent };
        Next::Waits
    }

    fn answer(&mut self, mut agent: UnixStream, mut chunk: Vec<u8>, mut begun: bool) -> Next {
        let mut buffer = vec![0; CHUNK];
        for _ in 0..TURN {
            if !chunk.is_empty() {
                match self.client.write(&chunk) {
                    Ok(n) => drop(chunk.drain(..n)),
                    Err(error) if is_to_wait(&error) => break,
                    Err(_) => return Next::Left,
                }
                continue;
            }
            match agent.read(&mut buffer) {
                Ok(n) if n > 0 => {
                    chunk.extend_from_slice(&buffer[..n]);
                    begun = true;
                }
                Err(error) if is_to_wait(&error) => break,
                // The end of the answer; before its beginning, that of the agent.
                Ok(_) | Err(_) if begun => return Next::Over,
                Ok(_) | Err(_) => {
                    let until = Instant::now() + RETRY;
                    return Next::Goes(State::Waiting { until });
                }
            }
        }
        self.state = State::Answering {
            agent,
            chunk,
            begun,
        };
        Next::Waits
    }
}

fn is_to_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// An error as MLflow's clients read it.
fn refused(Refusal(status, why): Refusal) -> Vec<u8> {
    let code = match status {
        503 => "TEMPORARILY_UNAVAILABLE",
        500 => "INTERNAL_ERROR",
        _ => "INVALID_PARAMETER_VALUE",
    };
    let body = format!("{{\"error_code\":\"{code}\",\"message\":\"{why}\"}}");
    format!(
        "HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
