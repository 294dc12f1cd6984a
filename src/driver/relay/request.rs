//! One HTTP/1.1 request as the job's code sends it: where it ends (RFC 9112, sections 6 and 7), and how it goes on to the
//! agent. Connects to nobody.

use std::io;
use std::path::Path;

use protocol::Digest;
use protocol::driver::REQUEST_HEADER;
use sha2::{Digest as _, Sha256};

use super::spool::Spool;

/// Longest head, and longest line of a chunked body.
const LONGEST_HEAD: usize = 64 << 10;
const LONGEST_LINE: usize = 8 << 10;
/// Headers that are of one connection, or that we say ourselves.
const NOT_PASSED_ON: [&str; 6] = [
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "expect",
    REQUEST_HEADER,
];

/// Why a request is not taken: the status, and a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) u16, pub(super) &'static str);

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more to come.
    More,
    /// The client waits for our leave to send the body.
    Continue,
    /// It is whole.
    Whole,
}

/// What of the body is to come.
#[derive(Debug)]
enum Framing {
    /// So many bytes.
    Length(u64),
    /// The line with the size of a chunk.
    Size(Vec<u8>),
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd(Vec<u8>),
    /// Lines after the last chunk, until an empty one.
    Trailer(Vec<u8>),
}

/// A request.
#[derive(Debug, Default)]
pub(super) struct Request {
    head: Vec<u8>,
    /// None: the head is not whole.
    framing: Option<Framing>,
    body: Spool,
    hasher: Sha256,
}

impl Request {
    /// Takes bytes of it; what lies behind its end is passed over. A long body goes to a file in `folder`.
    pub(super) fn take(&mut self, bytes: &[u8], folder: &Path) -> Result<Step, Refusal> {
        if self.framing.is_some() {
            return self.take_body(bytes, folder);
        }
        let known = self.head.len().saturating_sub(3);
        self.head.extend_from_slice(bytes);
        let end = self.head[known..]
            .windows(4)
            .position(|window| window == b"\r\n\r\n");
        let Some(end) = end.map(|end| known + end + 4) else {
            return match self.head.len() > LONGEST_HEAD {
                true => Err(Refusal(431, "the head of the request is too long")),
                false => Ok(Step::More),
            };
        };
        let rest = self.head.split_off(end);
        self.framing = Some(self.read_head()?);
        let first = self.head.split(|byte| *byte == b'\r').next();
        self.hasher.update(first.unwrap_or_default());
        self.hasher.update(b"\n");
        match self.take_body(&rest, folder)? {
            Step::More if self.expects() => Ok(Step::Continue),
            step => Ok(step),
        }
    }

    /// The lines of the head: the first one, and headers with their names.
    fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = std::str::from_utf8(&self.head).unwrap_or_default();
        let lines = text.trim_end_matches("\r\n").split("\r\n").skip(1);
        lines.map(|line| (line.split(':').next().unwrap_or_default(), line))
    }

    fn header(&self, wanted: &str) -> impl Iterator<Item = &str> {
        let named =
            move |(name, line): (&str, _)| name.eq_ignore_ascii_case(wanted).then_some(line);
        let lines = self.lines().filter_map(named);
        lines.map(|line| line.split_once(':').map_or("", |(_, value)| value.trim()))
    }

    fn expects(&self) -> bool {
        self.header("expect")
            .any(|value| value.eq_ignore_ascii_case("100-continue"))
    }

    fn read_head(&self) -> Result<Framing, Refusal> {
        let wrong = |why| Refusal(400, why);
        let text = std::str::from_utf8(&self.head);
        let text = text.map_err(|_| wrong("the head of the request is no text"))?;
        let first = text.split("\r\n").next().unwrap_or_default();
        let mut words = first.split(' ');
        let shape = (words.next(), words.next(), words.next(), words.next());
        let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) = shape else {
            return Err(wrong("the first line of the request is none of HTTP/1.1"));
        };
        if method.is_empty() || !target.starts_with('/') {
            return Err(wrong("the first line of the request is none of HTTP/1.1"));
        }
        // A line that is folded, or has blanks before its colon, is read by others as something else.
        let odd = |(name, line): (&str, &str)| {
            name.len() == line.len() || name.is_empty() || name.contains([' ', '\t'])
        };
        if self.lines().any(odd) {
            return Err(wrong("a header of the request is none"));
        }
        // They stand in no header (RFC 9110, section 5.5), and nobody takes such a request.
        let controls = |line: &str| line.bytes().any(|b| b.is_ascii_control() && b != b'\t');
        if text.trim_end_matches("\r\n").split("\r\n").any(controls) {
            return Err(wrong("the head of the request has a control character"));
        }
        let mut lengths = self.header("content-length");
        let length = lengths.next().map(str::parse::<u64>);
        let another = lengths.next().is_some();
        let codings: Vec<&str> = self.header("transfer-encoding").collect();
        let framing = match (length, codings.as_slice()) {
            (None, []) => Framing::Length(0),
            (Some(Ok(length)), []) if !another => Framing::Length(length),
            (None, [coding]) if coding.eq_ignore_ascii_case("chunked") => Framing::Size(Vec::new()),
            _ => return Err(wrong("where the request ends cannot be told")),
        };
        Ok(framing)
    }

    fn take_body(&mut self, mut bytes: &[u8], folder: &Path) -> Result<Step, Refusal> {
        let wrong = Refusal(400, "the chunks of the request's body cannot be read");
        loop {
            let framing = self.framing.as_mut().ok_or(wrong)?;
            match framing {
                Framing::Length(left) | Framing::Chunk(left) => {
                    let n = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    *left -= n as u64;
                    let is_over = *left == 0;
                    let of_chunks = matches!(framing, Framing::Chunk(_));
                    self.keep(&bytes[..n], folder)?;
                    bytes = &bytes[n..];
                    match (is_over, of_chunks) {
                        (false, _) => return Ok(Step::More),
                        (true, false) => return Ok(Step::Whole),
                        (true, true) => self.framing = Some(Framing::ChunkEnd(Vec::new())),
                    }
                }
                Framing::Size(line) => {
                    let Some(line) = take_line(line, &mut bytes)? else {
                        return Ok(Step::More);
                    };
                    let digits = line.split(';').next().unwrap_or_default().trim();
                    let size = u64::from_str_radix(digits, 16).map_err(|_| wrong)?;
                    self.framing = Some(match size {
                        0 => Framing::Trailer(Vec::new()),
                        size => Framing::Chunk(size),
                    });
                }
                Framing::ChunkEnd(line) => match take_line(line, &mut bytes)? {
                    None => return Ok(Step::More),
                    Some(line) if line.is_empty() => self.framing = Some(Framing::Size(Vec::new())),
                    Some(_) => return Err(wrong),
                },
                Framing::Trailer(line) => match take_line(line, &mut bytes)? {
                    None => return Ok(Step::More),
                    Some(line) if line.is_empty() => return Ok(Step::Whole),
                    Some(_) => self.framing = Some(Framing::Trailer(Vec::new())),
                },
            }
        }
    }

    fn keep(&mut self, bytes: &[u8], folder: &Path) -> Result<(), Refusal> {
        self.hasher.update(bytes);
        self.body
            .push(bytes, folder)
            // The client tries again: there may be room then.
            .map_err(|_| {
                Refusal(
                    503,
                    "the body of the request cannot be kept. Is the disk full?",
                )
            })
    }

    /// Hash of what it asks for: of its first line and its body.
    pub(super) fn digest(&self) -> Digest {
        Digest::from_hasher(self.hasher.clone())
    }

    /// Whether it changes nothing.
    pub(super) fn only_reads(&self) -> bool {
        self.head.starts_with(b"GET ") || self.head.starts_with(b"HEAD ")
    }

    /// As it goes to the agent, from byte `at` of head and body: fills the buffer as far as there is more.
    pub(super) fn read_at(&self, head: &[u8], at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let of_head = head.len() as u64;
        if at < of_head {
            let rest = &head[at as usize..];
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            return Ok(n);
        }
        self.body.read_at(at - of_head, buffer)
    }

    /// Its head as it goes to the agent, with its number. One request is one connection.
    pub(super) fn head(&self, number: &str) -> Vec<u8> {
        let text = std::str::from_utf8(&self.head).unwrap_or_default();
        let first = text.split("\r\n").next().unwrap_or_default();
        let first = first.replace("HTTP/1.0", "HTTP/1.1");
        let passed = |(name, line): (&str, &str)| {
            let ours = NOT_PASSED_ON
                .iter()
                .any(|not| name.eq_ignore_ascii_case(not));
            (!ours).then(|| format!("{line}\r\n"))
        };
        let headers: String = self.lines().filter_map(passed).collect();
        let length = self.body.len();
        format!(
            "{first}\r\n{headers}Connection: close\r\n{REQUEST_HEADER}: {number}\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes()
    }
}

/// Moves bytes to a line until it is whole; gives it without its end.
fn take_line(line: &mut Vec<u8>, bytes: &mut &[u8]) -> Result<Option<String>, Refusal> {
    while let Some((&byte, rest)) = bytes.split_first() {
        *bytes = rest;
        line.push(byte);
        if line.ends_with(b"\r\n") {
            line.truncate(line.len() - 2);
            return Ok(Some(String::from_utf8_lossy(line).into_owned()));
        }
        if line.len() > LONGEST_LINE {
            return Err(Refusal(400, "a line of the request's body is too long"));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a request in pieces of `size` bytes; gives what goes to the agent.
    fn pass(text: &str, size: usize) -> Result<Option<String>, Refusal> {
        let folder = tempfile::tempdir().unwrap();
        let mut request = Request::default();
        for piece in text.as_bytes().chunks(size) {
            match request.take(piece, folder.path())? {
                Step::More | Step::Continue => {}
                Step::Whole => {
                    let head = request.head("7");
                    let (mut passed, mut buffer) = (Vec::new(), [0; 5]);
                    loop {
                        match request
                            .read_at(&head, passed.len() as u64, &mut buffer)
                            .unwrap()
                        {
                            0 => return Ok(Some(String::from_utf8(passed).unwrap())),
                            n => passed.extend_from_slice(&buffer[..n]),
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn a_request_ends_where_its_head_says_in_whatever_pieces_it_comes() {
        let plain = "POST /a?b HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello";
        let chunked = "POST /a?b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                       2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n";
        let expected = "POST /a?b HTTP/1.1\r\nHost: x\r\nConnection: close\r\ntrainyard-request: 7\r\n\
                        Content-Length: 5\r\n\r\nhello";
        for text in [plain, chunked] {
            for size in [1, 2, 3, 7, 1_000] {
                assert_eq!(
                    pass(text, size).unwrap().as_deref(),
                    Some(expected),
                    "{size}"
                );
            }
            assert_eq!(pass(&text[..text.len() - 1], 9), Ok(None));
        }
        let next = format!("{plain}GET /next");
        assert_eq!(pass(&next, 1_000).unwrap().as_deref(), Some(expected));
        let empty = pass("GET / HTTP/1.1\r\n\r\n", 1).unwrap().unwrap();
        assert!(empty.ends_with("Content-Length: 0\r\n\r\n"), "{empty}");
    }

    #[test]
    fn a_request_whose_end_could_be_told_in_two_ways_is_refused() {
        for (text, status) in [
            (
                "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                400,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                400,
            ),
            ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                400,
            ),
            ("POST / HTTP/1.1\r\nContent-Length : 5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n", 400),
            ("POST http://x/ HTTP/1.1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Type: a\u{1}\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nA: b\nContent-Length: 5\r\n\r\n", 400),
            ("hello\r\n\r\n", 400),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                400,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
                400,
            ),
        ] {
            assert_eq!(pass(text, 1_000).unwrap_err().0, status, "{text}");
        }
        let long = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(LONGEST_HEAD));
        assert_eq!(pass(&long, 4_096).unwrap_err().0, 431);
    }

    #[test]
    fn the_same_request_has_the_same_digest() {
        let folder = tempfile::tempdir().unwrap();
        let digest = |text: &str| {
            let mut request = Request::default();
            request.take(text.as_bytes(), folder.path()).unwrap();
            request.digest()
        };
        let one = digest("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(
            one,
            digest("POST /a HTTP/1.1\r\nX: y\r\nContent-Length: 2\r\n\r\nhi")
        );
        assert_ne!(
            one,
            digest("POST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        );
        assert_ne!(
            one,
            digest("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nho")
        );
    }
}
