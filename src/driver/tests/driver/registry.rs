//! What the job's code says to the registry on its way over the driver, with an agent that does what a story tells it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use protocol::Digest;
use protocol::driver::{AGENT_SOCKET, REQUEST_HEADER, RegistryDoor};
use protocol::event::LogStream;
use sha2::{Digest as _, Sha256};

use crate::support::World;

/// No condition of a story takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the code's Python begins with: `ask` says what is answered.
const ASK: &str = r#"
import http.client, os, socket, sys, threading
from urllib.parse import urlsplit
place = urlsplit(os.environ["MLFLOW_TRACKING_URI"])
def ask(method, path, body=None, timeout=60, **headers):
    call = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
    call.request(method, path, body=body, headers=headers)
    answer = call.getresponse()
    return f"{answer.status} {answer.read().decode()}"
"#;

/// A job of this Python, with a way to the registry.
fn python(text: &str) -> World {
    let mut world = World::command("exec python ../code.py");
    fs::write(world.path("code.py"), format!("{ASK}{text}")).unwrap();
    fs::create_dir(world.path("agent")).unwrap();
    let socket = world.path("agent").join(AGENT_SOCKET);
    world.job.registry = Some(RegistryDoor {
        socket: socket.display().to_string(),
        env: [("MLFLOW_RUN_ID".to_owned(), "0123".to_owned())].into(),
    });
    world
}

/// The agent's end of the socket.
struct Agent(UnixListener);

impl Agent {
    /// Opens the socket, anew where it was there.
    fn open(world: &World) -> Self {
        let socket = world.path("agent").join(AGENT_SOCKET);
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    /// The next request, whole.
    fn next(&self) -> Asked {
        Asked::read(self.next_head())
    }

    /// The head of the next request, and where its body is to come.
    fn next_head(&self) -> (UnixStream, String) {
        let deadline = Instant::now() + PATIENCE;
        let mut stream = loop {
            match self.0.accept() {
                Ok((stream, _)) => break stream,
                Err(_) => assert!(Instant::now() < deadline, "nobody asks"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        (stream, String::from_utf8(head).unwrap())
    }
}

/// A request as the agent gets it.
struct Asked {
    stream: UnixStream,
    head: String,
    length: u64,
    body: Digest,
}

impl Asked {
    fn read((mut stream, head): (UnixStream, String)) -> Self {
        let length = field(&head, "Content-Length").parse().unwrap();
        let (mut left, mut hasher, mut chunk) = (length, Sha256::new(), vec![0; 1 << 16]);
        while left > 0 {
            let n = stream.read(&mut chunk).unwrap();
            assert!(n > 0, "{left} bytes are missing");
            hasher.update(&chunk[..n]);
            left -= n as u64;
        }
        Self {
            stream,
            head,
            length,
            body: Digest::from_hasher(hasher),
        }
    }

    fn number(&self) -> &str {
        field(&self.head, REQUEST_HEADER)
    }

    fn answer(mut self, body: &str) {
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
        write!(self.stream, "{head} {}\r\n\r\n{body}", body.len()).unwrap();
    }
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("{name}: {head}"))
}

#[test]
fn what_the_code_asks_reaches_the_agent_and_the_answer_the_code() {
    let world = python(
        r#"
print(os.environ["MLFLOW_RUN_ID"], place.hostname)
print(ask("POST", "/api/2.0/mlflow/runs/log-metric?x=%2e", '{"a": 1}', **{"Content-Type": "application/json"}))
print(ask("PUT", "/file", iter([b"he", b"llo"])))
"#,
    );
    let agent = Agent::open(&world);
    let running = world.start();
    let asked = agent.next();
    assert!(
        asked
            .head
            .starts_with("POST /api/2.0/mlflow/runs/log-metric?x=%2e HTTP/1.1\r\n"),
        "{}",
        asked.head
    );
    assert_eq!(field(&asked.head, "Content-Type"), "application/json");
    assert_eq!(asked.body, Digest::of(r#"{"a": 1}"#));
    let first = asked.number().to_owned();
    asked.answer("{}");
    let asked = agent.next();
    assert_eq!((asked.length, &asked.body), (5, &Digest::of("hello")));
    assert_ne!(asked.number(), first);
    asked.answer("kept");
    let told = running.end();
    told.succeeded();
    assert_eq!(
        told.log(LogStream::Stdout),
        "0123 127.0.0.1\n200 {}\n200 kept\n"
    );
}

#[test]
fn an_agent_that_is_away_is_waited_for_and_gets_under_the_same_number_what_it_did_not_answer() {
    let world = python("print(ask('POST', '/runs/create', 'a run'))");
    let socket = world.path("agent").join(AGENT_SOCKET);
    let mut running = world.start();
    running.until("the code to run", |world| {
        fs::read_to_string(world.path("out/events.ndjson")).is_ok()
    });
    let agent = Agent::open(&running.world);
    let asked = agent.next();
    let number = asked.number().to_owned();
    // It has the request, and is killed before it says so.
    drop((asked, agent));
    fs::remove_file(&socket).unwrap();
    let agent = Agent::open(&running.world);
    let again = agent.next();
    assert_eq!(
        (again.number(), &again.body),
        (&*number, &Digest::of("a run"))
    );
    again.answer("made");
    let told = running.end();
    told.succeeded();
    assert_eq!(told.log(LogStream::Stdout), "200 made\n");
}

#[test]
fn a_client_that_gave_up_and_asks_again_means_the_same() {
    let world = python(
        r#"
try:
    ask("POST", "/runs/create", "a run", timeout=0.3)
except TimeoutError:
    print("gave up", flush=True)
print(ask("POST", "/runs/create", "a run"))
print(ask("POST", "/runs/create", "a run"))
"#,
    );
    let agent = Agent::open(&world);
    let mut running = world.start();
    let first = agent.next();
    running.until_said("gave up");
    let again = agent.next();
    assert_eq!(again.number(), first.number());
    again.answer("made");
    let another = agent.next();
    assert_ne!(
        another.number(),
        first.number(),
        "what was answered is over"
    );
    another.answer("another");
    let told = running.end();
    assert_eq!(
        told.log(LogStream::Stdout),
        "gave up\n200 made\n200 another\n"
    );
}

#[test]
fn much_that_is_said_at_once_takes_no_memory() {
    const MIB: usize = 192;
    let world = python(&format!(
        r#"
chunk = bytes(range(256)) * 4096
def put():
    print(ask("PUT", "/large", iter([chunk] * {MIB})), flush=True)
large = threading.Thread(target=put)
large.start()
many = [threading.Thread(target=ask, args=("POST", "/many", "x" * 1000)) for _ in range(100)]
for one in many: one.start()
open("asked", "w").close()
for one in many + [large]: one.join()
"#
    ));
    let mut running = world.start();
    running.until("all to be asked", |world| world.path("work/asked").exists());
    let kept = |world: &World| -> u64 {
        let bodies = fs::read_dir(world.path("out/bodies")).unwrap().flatten();
        bodies
            .map(|entry| entry.metadata().map_or(0, |file| file.len()))
            .sum()
    };
    running.until("the large one to be kept", |world| {
        kept(world) == (MIB as u64) << 20
    });
    let agent = Agent::open(&running.world);
    let mut numbers = Vec::new();
    let mut hasher = Sha256::new();
    let chunk: Vec<u8> = (0..4096).flat_map(|_| 0..=255u8).collect();
    for _ in 0..MIB {
        hasher.update(&chunk);
    }
    let large = Digest::from_hasher(hasher);
    for _ in 0..=100 {
        let asked = agent.next();
        match asked.length {
            1_000 => assert!(asked.head.starts_with("POST /many ")),
            _ => assert_eq!(asked.body, large),
        }
        numbers.push(asked.number().to_owned());
        asked.answer("{}");
    }
    let told = running.end();
    told.succeeded();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), 101);
    assert!(told.peak_memory < 48 << 20, "{}", told.peak_memory);
    assert_eq!(kept(&told.world), 0, "what was passed on is gone");
}

#[test]
fn an_agent_that_answers_before_it_has_all_is_heard() {
    let world = python("print(ask('PUT', '/file', bytes(64 << 20)))");
    let agent = Agent::open(&world);
    let running = world.start();
    let (mut stream, head) = agent.next_head();
    assert_eq!(field(&head, "Content-Length"), (64 << 20).to_string());
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nknown").unwrap();
    drop(stream);
    let told = running.end();
    told.succeeded();
    assert_eq!(told.log(LogStream::Stdout), "200 known\n");
}

#[test]
fn what_cannot_be_kept_is_refused_in_words_though_the_code_sends_on_and_told_once() {
    let world = python(
        r#"
os.rename("../out", "../aside")
for _ in range(2):
    print(ask("PUT", "/file", bytes(64 << 20))[:3])
os.rename("../aside", "../out")
print(ask("PUT", "/file", bytes(1 << 20)))
"#,
    );
    let agent = Agent::open(&world);
    let running = world.start();
    agent.next().answer("kept");
    let told = running.end();
    told.succeeded();
    assert_eq!(told.log(LogStream::Stdout), "503\n503\n200 kept\n");
    let log = told.log(LogStream::Platform);
    assert_eq!(log.matches("Is the disk full?").count(), 1, "{log}");
}

#[test]
fn what_is_no_request_is_refused_and_harms_nobody() {
    let world = python(
        r#"
def raw(text):
    with socket.create_connection((place.hostname, place.port), timeout=60) as line:
        line.sendall(text.encode())
        return line.recv(100).decode().split("\r\n")[0]
print(raw("nonsense\r\n\r\n"))
print(raw("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"))
print(raw("POST / HTTP/1.1\r\nContent-Type: a\x01\r\n\r\n"))
print(raw("GET / HTTP/1.1\r\nA: " + "x" * 70000))
half = socket.create_connection((place.hostname, place.port))
half.sendall(b"POST / HTTP/1.1\r\nContent-Le")
print(raw("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"))
print(ask("GET", "/"))
"#,
    );
    let agent = Agent::open(&world);
    let running = world.start();
    agent.next().answer("here");
    let told = running.end();
    assert_eq!(
        told.log(LogStream::Stdout),
        "HTTP/1.1 400 Refused\nHTTP/1.1 400 Refused\nHTTP/1.1 400 Refused\nHTTP/1.1 431 Refused\nHTTP/1.1 100 Continue\n200 here\n"
    );
}

#[test]
fn the_code_of_a_notebook_has_the_same_way() {
    let mut world = World::cell(
        "import urllib.request, os; print(urllib.request.urlopen(os.environ['MLFLOW_TRACKING_URI'] + '/health').read())",
    );
    fs::create_dir(world.path("agent")).unwrap();
    let socket = world.path("agent").join(AGENT_SOCKET);
    world.job.registry = Some(RegistryDoor {
        socket: socket.display().to_string(),
        env: Default::default(),
    });
    let agent = Agent::open(&world);
    let running = world.start();
    agent.next().answer("OK");
    let told = running.end();
    told.succeeded();
    assert_eq!(told.stdout(0), "b'OK'\n");
}
