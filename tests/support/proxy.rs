//! A network between agent and server that fails on demand. It passes bytes on, and knows no more of HTTP than
//! words to look for: a message begins with a read of its own, because neither side sends a second one before the
//! first is answered.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Whose bytes are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// The message never arrives, and its connection is cut.
    Lose,
    /// The message waits for [`Proxy::release`].
    Hold,
    /// The message comes a second time, so much later, on a connection of its own.
    Repeat(Duration),
}

/// What goes wrong once, when bytes with these words come by.
#[derive(Debug)]
struct Fault {
    direction: Direction,
    words: &'static str,
    /// So many pass before.
    passes: u32,
    deed: Deed,
}

#[derive(Default)]
struct State {
    target: Option<SocketAddr>,
    faults: Vec<Fault>,
    /// Messages that are lost or were held.
    met: u32,
    holding: bool,
    /// Until then there is no way through.
    down_until: Option<Instant>,
    /// Until then every message comes so much later.
    slow_until: Option<(Instant, Duration)>,
    streams: Vec<TcpStream>,
    over: bool,
}

#[derive(Clone, Default)]
struct Shared(Arc<(Mutex<State>, Condvar)>);

/// The network.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Shared,
}

impl Proxy {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            shared: Shared::default(),
        };
        let shared = proxy.shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.lock().over {
                    return;
                }
                // A server that is down is a connection that is refused soon after.
                let _ = stream.and_then(|stream| shared.connect(stream));
            }
        });
        proxy
    }

    /// Where the agent finds its server.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Leads to a server's address from now on.
    pub(super) fn lead_to(&self, url: &str) {
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        self.shared.lock().target = Some(address);
    }

    /// Loses one answer with these words.
    pub(crate) fn lose_answer(&self, words: &'static str) {
        self.arm(Direction::Answer, words, 0, Deed::Lose);
    }

    /// Holds one request with these words, after `passes` of them.
    pub(crate) fn hold_request(&self, words: &'static str, passes: u32) {
        self.arm(Direction::Request, words, passes, Deed::Hold);
    }

    /// The request with these words comes twice.
    pub(crate) fn repeat_request(&self, words: &'static str, later: Duration) {
        self.arm(Direction::Request, words, 0, Deed::Repeat(later));
    }

    /// Cuts all connections, and lets none through for a time.
    pub(crate) fn cut(&self, time: Duration) {
        let mut state = self.shared.lock();
        state.down_until = Some(Instant::now() + time);
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Holds every message up for `each`, for a time.
    pub(crate) fn delay(&self, each: Duration, time: Duration) {
        self.shared.lock().slow_until = Some((Instant::now() + time, each));
    }

    fn arm(&self, direction: Direction, words: &'static str, passes: u32, deed: Deed) {
        let mut state = self.shared.lock();
        state.holding |= deed == Deed::Hold;
        state.faults.push(Fault {
            direction,
            words,
            passes,
            deed,
        });
    }

    /// How many messages met a fault.
    pub(crate) fn met(&self) -> u32 {
        self.shared.lock().met
    }

    /// Ends a hold. Where agent or server is gone meanwhile, the message goes nowhere.
    pub(crate) fn release(&self) {
        self.shared.lock().holding = false;
        self.shared.0.1.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.over = true;
        state.holding = false;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.0.1.notify_all();
        // The listener looks whether it is over when somebody comes.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    fn connect(&self, agent: TcpStream) -> io::Result<()> {
        let target = {
            let state = self.lock();
            let down = state.down_until.is_some_and(|end| Instant::now() < end);
            state.target.filter(|_| !down)
        };
        let target = target.ok_or(io::ErrorKind::NotConnected)?;
        let server = TcpStream::connect(target)?;
        let ends = [agent.try_clone()?, server.try_clone()?];
        self.lock().streams.extend(ends);
        let (to_server, to_agent) = ((agent.try_clone()?, server.try_clone()?), (server, agent));
        for (direction, (from, to)) in [
            (Direction::Request, to_server),
            (Direction::Answer, to_agent),
        ] {
            let shared = self.clone();
            std::thread::spawn(move || {
                let _ = shared.pump(direction, &from, &to);
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            });
        }
        Ok(())
    }

    fn pump(
        &self,
        direction: Direction,
        mut from: &TcpStream,
        mut to: &TcpStream,
    ) -> io::Result<()> {
        let mut bytes = vec![0; 64 << 10];
        let mut message = Message::default();
        loop {
            let n = from.read(&mut bytes)?;
            let slow = self
                .lock()
                .slow_until
                .filter(|(end, _)| Instant::now() < *end);
            if let Some((_, each)) = slow {
                std::thread::sleep(each);
            }
            if direction == Direction::Request {
                message = message.and(&bytes[..n]);
            }
            if n == 0 || !self.passes(direction, &bytes[..n], &message) {
                return Ok(());
            }
            to.write_all(&bytes[..n])?;
        }
    }

    /// Whether bytes go on, after a hold perhaps.
    fn passes(&self, direction: Direction, bytes: &[u8], message: &Message) -> bool {
        let mut state = self.lock();
        let comes_by = |fault: &Fault| {
            let words = fault.words.as_bytes();
            fault.direction == direction && bytes.windows(words.len()).any(|some| some == words)
        };
        let Some(place) = state.faults.iter().position(comes_by) else {
            return true;
        };
        let fault = &mut state.faults[place];
        if fault.passes > 0 {
            fault.passes -= 1;
            return true;
        }
        let deed = fault.deed;
        state.faults.remove(place);
        state.met += 1;
        match deed {
            Deed::Lose => false,
            Deed::Hold => {
                drop(self.0.1.wait_while(state, |state| state.holding));
                true
            }
            Deed::Repeat(later) => {
                message.again(state.target, later);
                true
            }
        }
    }
}

/// A request as far as it has come by.
#[derive(Default, Clone)]
struct Message(Arc<Mutex<Vec<u8>>>);

impl Message {
    /// The request that bytes belong to: they begin one, or go on with this.
    fn and(self, bytes: &[u8]) -> Self {
        let methods = ["GET ", "HEAD ", "POST ", "PATCH "];
        let begins = methods
            .iter()
            .any(|method| bytes.starts_with(method.as_bytes()));
        let message = if begins { Self::default() } else { self };
        message.0.lock().unwrap().extend_from_slice(bytes);
        message
    }

    /// Sends what will have come by then once more; nobody hears the answer.
    fn again(&self, target: Option<SocketAddr>, later: Duration) {
        let message = self.clone();
        std::thread::spawn(move || -> io::Result<()> {
            std::thread::sleep(later);
            let mut server = TcpStream::connect(target.ok_or(io::ErrorKind::NotConnected)?)?;
            server.write_all(&message.0.lock().unwrap())?;
            server.set_read_timeout(Some(Duration::from_secs(5)))?;
            server.read(&mut [0; 4096]).map(drop)
        });
    }
}
