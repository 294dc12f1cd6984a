//! HTTP/1.1 as the driver speaks it on the agent's socket: one request a connection, its length in its head. The driver has
//! read what the job's code said, and says it anew; what is not in that form is refused all the same.

use std::io;
use std::time::Duration;

use protocol::driver::REQUEST_HEADER;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::calls::Answer;

/// Longest head: the driver's limit and what it adds.
const LONGEST_HEAD: usize = 80 << 10;
/// How long the driver may be silent within a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// The head of a request.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) method: String,
    /// Path and query.
    pub(super) address: String,
    /// The driver's number.
    pub(super) request: String,
    pub(super) content_type: Option<String>,
    pub(super) range: Option<String>,
    pub(super) length: u64,
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Reads as much as comes at once; an end is an error.
pub(super) async fn read_some(stream: &mut UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    match tokio::time::timeout(PATIENCE, stream.read(buffer)).await {
        Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(read) => read,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Reads a head; gives what of the body came with it.
pub(super) async fn read_head(stream: &mut UnixStream) -> io::Result<(Head, Vec<u8>)> {
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        let n = read_some(stream, &mut chunk).await?;
        let known = bytes.len().saturating_sub(3);
        bytes.extend_from_slice(&chunk[..n]);
        let end = bytes[known..]
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let rest = bytes.split_off(known + end + 4);
            let text = String::from_utf8(bytes).map_err(|_| wrong("a head that is no text"))?;
            return Ok((parse(&text)?, rest));
        }
        if bytes.len() > LONGEST_HEAD {
            return Err(wrong("a head that is too long"));
        }
    }
}

fn parse(text: &str) -> io::Result<Head> {
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let mut head = Head {
        method: first.next().unwrap_or_default().to_owned(),
        address: first.next().unwrap_or_default().to_owned(),
        ..Head::default()
    };
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| wrong("a header that is none"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                head.length = value.parse().map_err(|_| wrong("a length that is none"))?;
            }
            "content-type" => head.content_type = Some(value.to_owned()),
            "range" => head.range = Some(value.to_owned()),
            REQUEST_HEADER => value.clone_into(&mut head.request),
            _ => {}
        }
    }
    if head.request.is_empty() || !head.address.starts_with('/') {
        return Err(wrong("a request that is not the driver's"));
    }
    Ok(head)
}

/// Writes an answer that is whole.
pub(super) async fn write_answer(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let headers = [("content-type", "application/json".to_owned())];
    write_head(
        stream,
        answer.status,
        &headers,
        Some(answer.body.len() as u64),
    )
    .await?;
    stream.write_all(answer.body.as_bytes()).await
}

/// Writes the head of an answer; without a length it goes on to the end of the connection.
pub(super) async fn write_head(
    stream: &mut UnixStream,
    status: u16,
    headers: &[(&'static str, String)],
    length: Option<u64>,
) -> io::Result<()> {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = length.map_or_else(String::new, |length| {
        format!("content-length: {length}\r\n")
    });
    let head = format!("HTTP/1.1 {status} Answer\r\n{headers}{length}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await
}

/// Waits until the driver has gone: the code has given up, or has its answer.
pub(super) async fn left(stream: &UnixStream) {
    let mut rest = [0; 64];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut rest) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
