//! What a kernel may send, without a kernel: the door for the fuzz target `message`. The job does not use it.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use hmac::{Hmac, KeyInit as _, Mac as _};
use notebook::message::OutputMessage;
use sha2::Sha256;

use crate::large::Large;
use crate::wire::Signer;
use crate::zmtp::{Connection, Frames, Kind};

const KEY: &str = "key";

/// What was heard on a connection, and why it ended early, where it did.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard {
    /// Complete messages, as frames.
    pub messages: Vec<Vec<Vec<u8>>>,
    /// Why nothing more could be read.
    pub error: Option<String>,
}

/// Hears `bytes` as the iopub socket's, at most `piece` of them at a time, with messages of up to `limit` bytes.
#[must_use]
pub fn connection(bytes: &[u8], piece: usize, limit: u64) -> Heard {
    let mut messages: Vec<Frames> = Vec::new();
    let hear = |messages: &mut Vec<Frames>| -> Result<(), String> {
        let (ours, mut theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        let mut connection =
            Connection::new(ours, Kind::Sub, b"", limit).map_err(|error| error.to_string())?;
        for piece in bytes.chunks(piece.max(1)) {
            theirs.write_all(piece).map_err(|error| error.to_string())?;
            while connection
                .receive(messages)
                .map_err(|error| error.to_string())?
            {}
        }
        Ok(())
    };
    let error = hear(&mut messages).err();
    Heard { messages, error }
}

/// Signs the parts of a message (header, parent, metadata, content) as the kernel would, and reads it.
/// Gives the output that it is, where it is one.
#[must_use]
pub fn message(parts: &[&[u8]]) -> Option<OutputMessage> {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).ok()?;
    for part in parts.iter().take(4) {
        mac.update(part);
    }
    let signature = hex::encode(mac.finalize().into_bytes());
    let mut frames = vec![b"<IDS|MSG>".to_vec(), signature.into_bytes()];
    frames.extend(parts.iter().map(|part| part.to_vec()));
    let message = Signer::new(KEY, "session").read(frames).ok()?;
    message.into_output().ok()
}

/// Reads the content of an output of this kind as a large one is read, where it lies. None: it is no such output.
///
/// # Panics
/// Where what such an output becomes in a file cannot be read again.
#[must_use]
pub fn large(kind: &str, content: &str) -> Option<OutputMessage> {
    match Large::read(kind, content).ok()? {
        Large::Message(message) => Some(message),
        Large::Text(name, text) => {
            let text = text.pieces().collect::<Result<String, _>>().ok()?;
            Some(OutputMessage::Stream { name, text })
        }
        Large::Bundle(bundle) => {
            let mut json = Vec::new();
            let (from, length) = bundle.write(&mut json).expect("memory takes everything");
            let data = &json[usize::try_from(from).ok()?..][..usize::try_from(length).ok()?];
            assert!(
                data.starts_with(b"{") && data.ends_with(b"}"),
                "the data is where it is said to be"
            );
            serde_json::from_slice(&json).ok()
        }
    }
}
