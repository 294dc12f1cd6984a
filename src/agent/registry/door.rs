//! The agent's socket: takes what the driver brings, answers what can be answered here, and asks the server for the rest.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use protocol::driver::AGENT_SOCKET;
use protocol::{ByteSize, Digest};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::net::{UnixListener, UnixStream};

use super::calls::{Answer, Call, Kind, is_file};
use super::desk::Desk;
use super::http::{self, Head};
use crate::client::Download;

/// Longest body that is no file: the server's limit.
const LONGEST_BODY: u64 = 20 << 20;
/// Most connections at once: the driver has no more.
const MOST: usize = 64;
/// Between two tries to open the socket.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// What the server says to a call that changes nothing.
#[derive(Debug)]
pub(crate) enum Reading {
    /// All of it.
    Whole(Answer),
    /// As it comes.
    Stream(Download),
}

/// Who answers calls that change nothing.
pub(crate) trait Upstream: Sync {
    /// The answer, however long it takes: who asks gives up by itself.
    fn read(&self, call: &Call, range: Option<&str>) -> impl Future<Output = Reading> + Send;

    /// Hears, once, that this host cannot keep what the code writes.
    fn cannot_keep(&self, why: &io::Error);
}

/// Serves the socket in `folder` until it is dropped. What an agent before this one left there is replaced.
pub(crate) async fn serve(folder: &Path, desk: &Desk, upstream: &impl Upstream) {
    let listener = loop {
        match open(folder) {
            Ok(listener) => break listener,
            Err(error) => tracing::error!("{}: {error}; trying again", folder.display()),
        }
        tokio::time::sleep(OPEN_AGAIN).await;
    };
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if running.len() < MOST => match accepted {
                Ok((stream, _)) => running.push(handle(stream, desk, upstream)),
                Err(error) => {
                    tracing::warn!("a connection of a job was not taken: {error}");
                    tokio::time::sleep(OPEN_AGAIN).await;
                }
            },
            Some(handled) = running.next(), if !running.is_empty() => {
                if let Err(error) = handled {
                    tracing::debug!("a call of a job's code broke off: {error}");
                }
            }
        }
    }
}

/// Opens the socket, by its folder: the path of a socket is at most 107 bytes long.
pub(crate) fn open(folder: &Path) -> io::Result<UnixListener> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    let opened = fs::File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{AGENT_SOCKET}", opened.as_raw_fd());
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn handle(mut stream: UnixStream, desk: &Desk, upstream: &impl Upstream) -> io::Result<()> {
    let (head, rest) = http::read_head(&mut stream).await?;
    let path = head.address.split('?').next().unwrap_or_default();
    let received = match is_file(&head.method, path) {
        // Its client gave up and asks again: the content came whole before.
        true if desk.knows(&head.request) => {
            return http::write_answer(&mut stream, &Answer::empty()).await;
        }
        true => receive_file(&mut stream, &head, rest, desk).await,
        false => receive(&mut stream, &head, rest)
            .await
            .map(|call| (call, None)),
    };
    let (call, content) = match received {
        Ok(received) => received,
        Err(NotTaken::Left(error)) => return Err(error),
        Err(NotTaken::Wrong(why)) => {
            let answer = Answer::error(400, "INVALID_PARAMETER_VALUE", &why);
            return http::write_answer(&mut stream, &answer).await;
        }
        Err(NotTaken::Full(error)) => {
            let answer = full(&error, desk, upstream);
            return http::write_answer(&mut stream, &answer).await;
        }
    };
    let reading = tokio::select! {
        // What came whole is taken, though its client has gone meanwhile: it asks again.
        biased;
        reading = answer(call, content, head.range.as_deref(), desk, upstream) => reading,
        () = http::left(&stream) => return Ok(()),
    };
    match reading {
        Reading::Whole(answer) => http::write_answer(&mut stream, &answer).await,
        Reading::Stream(download) => pass_on(&mut stream, download).await,
    }
}

/// Why a call did not come whole.
enum NotTaken {
    /// Who asked has gone, or is silent.
    Left(io::Error),
    /// It is none.
    Wrong(String),
    /// This host cannot keep it; who asked is there still.
    Full(io::Error),
}

/// A client asks again later where this host cannot keep what it says.
fn full(error: &io::Error, desk: &Desk, upstream: &impl Upstream) -> Answer {
    tracing::error!("a call of a job's code cannot be kept: {error}");
    if desk.complain() {
        upstream.cannot_keep(error);
    }
    let words = format!("the job's host cannot keep this now: {error}");
    Answer::error(503, "TEMPORARILY_UNAVAILABLE", &words)
}

async fn answer(
    call: Call,
    content: Option<NamedTempFile>,
    range: Option<&str>,
    desk: &Desk,
    upstream: &impl Upstream,
) -> Reading {
    let take = |call| tokio::task::block_in_place(|| desk.take(call, content));
    Reading::Whole(match call.kind() {
        Kind::Read => {
            desk.flushed().await;
            return upstream.read(&call, range).await;
        }
        Kind::Write(done) => match take(call) {
            Ok(_) => done,
            Err(error) => full(&error, desk, upstream),
        },
        Kind::Awaited => match take(call) {
            Ok(number) => desk.answered(number).await.unwrap_or_else(|| {
                let words = "this call was carried out, and its answer is not known any more";
                Answer::error(400, "INVALID_STATE", words)
            }),
            Err(error) => full(&error, desk, upstream),
        },
    })
}

fn call_of(head: &Head) -> Call {
    Call {
        request: head.request.clone(),
        method: head.method.clone(),
        address: head.address.clone(),
        content_type: head.content_type.clone(),
        body: String::new(),
        file: None,
    }
}

async fn receive(
    stream: &mut UnixStream,
    head: &Head,
    mut body: Vec<u8>,
) -> Result<Call, NotTaken> {
    let is_too_long = head.length > LONGEST_BODY;
    let mut chunk = vec![0; 64 << 10];
    let mut came = body.len() as u64;
    while came < head.length {
        let read = http::read_some(stream, &mut chunk).await;
        let n = read.map_err(NotTaken::Left)?;
        came += n as u64;
        if !is_too_long {
            body.extend_from_slice(&chunk[..n]);
        }
    }
    if is_too_long {
        let most = ByteSize(LONGEST_BODY);
        return Err(NotTaken::Wrong(format!("a body has at most {most}")));
    }
    body.truncate(usize::try_from(head.length).unwrap_or(usize::MAX));
    let body = String::from_utf8(body).map_err(|_| NotTaken::Wrong("a body is JSON".to_owned()))?;
    Ok(Call {
        body,
        ..call_of(head)
    })
}

/// Takes the bytes of a file to the disk, in bounded memory. They are there when this returns.
async fn receive_file(
    stream: &mut UnixStream,
    head: &Head,
    first: Vec<u8>,
    desk: &Desk,
) -> Result<(Call, Option<NamedTempFile>), NotTaken> {
    let mut part = desk.begin_file(head.length).map_err(NotTaken::Full)?;
    let mut hasher = Sha256::new();
    let mut left = head.length;
    let (mut chunk, mut n) = (first, 0);
    chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
    if !chunk.is_empty() {
        n = chunk.len();
    }
    loop {
        if n > 0 {
            hasher.update(&chunk[..n]);
            let written = tokio::task::block_in_place(|| part.write_all(&chunk[..n]));
            written.map_err(NotTaken::Full)?;
            left -= n as u64;
        }
        if left == 0 {
            break;
        }
        chunk.resize(256 << 10, 0);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let read = http::read_some(stream, &mut chunk[..most]).await;
        n = read.map_err(NotTaken::Left)?;
    }
    // It may take minutes, and the attempt that this is a part of goes on meanwhile.
    let synced =
        tokio::task::spawn_blocking(move || part.as_file().sync_all().map(|()| part)).await;
    let part = synced.map_err(io::Error::other).flatten();
    let part = part.map_err(NotTaken::Full)?;
    let digest = Digest::from_hasher(hasher);
    let call = Call {
        file: Some((digest, ByteSize(head.length))),
        ..call_of(head)
    };
    Ok((call, Some(part)))
}

async fn pass_on(stream: &mut UnixStream, mut download: Download) -> io::Result<()> {
    let head = (download.status(), download.headers(), download.length());
    http::write_head(stream, head.0, &head.1, head.2).await?;
    while let Some(chunk) = download.chunk().await? {
        tokio::io::AsyncWriteExt::write_all(stream, &chunk).await?;
    }
    Ok(())
}
