//! Stories of the socket: what is answered at once, what waits for the server, and what an agent that starts again knows.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::driver::{AGENT_SOCKET, REQUEST_HEADER};
use protocol::{ByteSize, Digest};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::{Answer, Call, Desk, MOST_WAITING, Reading, Upstream, serve};

/// No condition of a story takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that tells of every read what was asked; and what is said of what could not be kept.
#[derive(Default)]
struct Echo {
    told: Mutex<Vec<String>>,
}

impl Upstream for Echo {
    async fn read(&self, call: &Call, range: Option<&str>) -> Reading {
        let body = format!("{} {}", call.words(), range.unwrap_or("whole"));
        Reading::Whole(Answer { status: 200, body })
    }

    fn cannot_keep(&self, why: &std::io::Error) {
        self.told.lock().unwrap().push(why.to_string());
    }
}

/// An agent of which only the socket is there.
struct World {
    folder: TempDir,
    desk: Arc<Desk>,
    echo: Arc<Echo>,
    serving: JoinHandle<()>,
}

impl World {
    fn start() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), MOST_WAITING)
    }

    fn in_folder(folder: TempDir, most: u64) -> Self {
        let desk = Desk::open(folder.path().join("registry"), most, ByteSize(0));
        let (desk, echo) = (Arc::new(desk.unwrap()), Arc::<Echo>::default());
        let (here, at) = (Arc::clone(&desk), folder.path().join("agent"));
        let says = Arc::clone(&echo);
        let serving = tokio::spawn(async move { serve(&at, &here, &*says).await });
        Self {
            folder,
            desk,
            echo,
            serving,
        }
    }

    /// The agent is killed and started again.
    async fn restart(self) -> Self {
        self.serving.abort();
        let _ = self.serving.await;
        Self::in_folder(self.folder, MOST_WAITING)
    }

    /// What the driver is answered.
    async fn ask(&self, request: &str, line: &str, body: &str) -> String {
        ask(self.folder.path(), request, line, body).await
    }

    /// Delivers the next call, which is to come in time.
    async fn deliver(&self, body: &str) -> Call {
        let mut taken = self.desk.watch();
        let next = async {
            loop {
                taken.borrow_and_update();
                if let Some(entry) = self.desk.next().unwrap() {
                    return entry;
                }
                taken.changed().await.unwrap();
            }
        };
        let entry = tokio::time::timeout(PATIENCE, next).await.unwrap();
        let answer = Answer {
            status: 200,
            body: body.to_owned(),
        };
        self.desk.deliver(&entry, answer).unwrap();
        entry.call
    }
}

async fn connect(folder: &Path) -> UnixStream {
    let path = folder.join("agent").join(AGENT_SOCKET);
    let connect = async {
        loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, connect).await.unwrap()
}

async fn ask(folder: &Path, request: &str, line: &str, body: &str) -> String {
    let mut stream = connect(folder).await;
    let head = format!(
        "{line} HTTP/1.1\r\n{REQUEST_HEADER}: {request}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    format!("{status} {body}")
}

const LOG: &str = "POST /api/2.0/mlflow/runs/log-metric";
const PUT: &str = "PUT /api/2.0/mlflow-artifacts/artifacts/0/x/artifacts/a.bin";
const CREATE: &str = "POST /api/2.0/mlflow/runs/create";

#[tokio::test(flavor = "multi_thread")]
async fn what_only_writes_is_answered_while_the_server_is_away_and_known_after_a_restart() {
    let world = World::start();
    assert_eq!(world.ask("1-1", LOG, "first").await, "200 {}");
    let world = world.restart().await;
    assert_eq!(
        world.ask("1-1", LOG, "first").await,
        "200 {}",
        "it had no answer: it asks again"
    );
    assert_eq!(world.ask("1-2", LOG, "second").await, "200 {}");
    let world = world.restart().await;
    assert_eq!(world.deliver("{}").await.body, "first");
    assert_eq!(world.deliver("{}").await.body, "second");
    assert_eq!(world.desk.next().unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_an_id_waits_behind_what_was_written_and_is_answered_again_alike() {
    let world = World::start();
    world.ask("1-1", LOG, "first").await;
    let folder = world.folder.path().to_owned();
    let asking = tokio::spawn(async move { ask(&folder, "1-2", CREATE, "a run").await });
    assert_eq!(world.deliver("{}").await.body, "first");
    assert_eq!(world.deliver("made").await.body, "a run");
    assert_eq!(asking.await.unwrap(), "200 made");
    let world = world.restart().await;
    assert_eq!(world.ask("1-2", CREATE, "a run").await, "200 made");
    assert_eq!(world.desk.next().unwrap(), None, "it is carried out once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reads_sees_what_was_written_before() {
    let world = World::start();
    world.ask("1-1", LOG, "first").await;
    let folder = world.folder.path().to_owned();
    let reading = "GET /api/2.0/mlflow/runs/get?run_id=x";
    let asking = tokio::spawn(async move { ask(&folder, "1-2", reading, "").await });
    tokio::task::yield_now().await;
    assert!(!asking.is_finished());
    world.deliver("{}").await;
    assert_eq!(asking.await.unwrap(), "200 GET runs/get whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_kept_by_its_hash_until_the_server_has_it() {
    let world = World::start();
    let content = "x".repeat(300_000);
    assert_eq!(world.ask("1-1", PUT, &content).await, "200 {}");
    let world = world.restart().await;
    let place = world.desk.files().join(Digest::of(&content).as_str());
    assert_eq!(std::fs::read_to_string(&place).unwrap(), content);
    let call = world.deliver("{}").await;
    assert_eq!(call.file.unwrap().0, Digest::of(&content));
    assert!(!place.exists());
    let told = announce(world.folder.path(), "1-1", 300_000).await;
    assert!(told.ends_with("{}"), "{told}");
    assert!(!place.exists(), "a call that was brought needs no file");
    let left = std::fs::read_dir(world.desk.files()).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_is_refused() {
    let world = World::start();
    let large = "x".repeat((20 << 20) + 1);
    let told = world.ask("1-1", LOG, &large).await;
    assert!(
        told.starts_with("400 ") && told.contains("at most"),
        "{told}"
    );
    assert_eq!(world.desk.next().unwrap(), None);
    assert_eq!(world.ask("1-2", LOG, "").await, "200 {}");
}

/// What is answered to the head of a file of this length, before anything of the file is sent.
async fn announce(folder: &Path, request: &str, length: u64) -> String {
    let mut stream = connect(folder).await;
    let head = format!(
        "{PUT} HTTP/1.1\r\n{REQUEST_HEADER}: {request}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_came_whole_before_or_has_no_room_is_answered_by_its_head() {
    let world = World::start();
    assert_eq!(world.ask("1-1", PUT, "content").await, "200 {}");
    let told = announce(world.folder.path(), "1-1", 7).await;
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    let told = announce(world.folder.path(), "1-2", 1 << 60).await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(told.contains("a file of 1048576 TiB"), "{told}");
    assert_eq!(world.echo.told.lock().unwrap().len(), 1);
    let left = std::fs::read_dir(world.desk.files()).unwrap().count();
    assert_eq!(left, 1, "the first one alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_no_full_host() {
    let world = World::in_folder(tempfile::tempdir().unwrap(), 300);
    for line in [PUT, LOG] {
        let mut stream = connect(world.folder.path()).await;
        let head =
            format!("{line} HTTP/1.1\r\n{REQUEST_HEADER}: 1-1\r\nContent-Length: 9\r\n\r\nhalf");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        assert_eq!(answer, "", "{line}");
    }
    // The word on a full host is there still.
    let told = world.ask("1-2", LOG, &"x".repeat(300)).await;
    assert!(told.starts_with("503 "), "{told}");
    let told = world.echo.told.lock().unwrap();
    assert!(
        told.len() == 1 && told[0].contains("more waits"),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_host_cannot_keep_is_asked_for_again_and_told_once() {
    let world = World::in_folder(tempfile::tempdir().unwrap(), 500);
    let long = "x".repeat(300);
    assert_eq!(world.ask("1-1", LOG, &long).await, "200 {}");
    for request in ["1-2", "1-3"] {
        let told = world.ask(request, LOG, &long).await;
        assert!(told.starts_with("503 "), "{told}");
        assert!(told.contains("more waits for the server"), "{told}");
    }
    assert_eq!(world.echo.told.lock().unwrap().len(), 1);
    world.deliver("{}").await;
    assert_eq!(world.ask("1-2", LOG, &long).await, "200 {}");
}
