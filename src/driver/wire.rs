//! Messages of the Jupyter protocol 5.3 (<https://jupyter-client.readthedocs.io/en/stable/messaging.html>):
//! frames to a message and back, signed with HMAC-SHA256. Knows nothing of sockets.

use hmac::{Hmac, KeyInit as _, Mac as _};
use protocol::units::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::large::{mend_characters, mend_surrogates};
use crate::zmtp::Frames;

/// A longer output is read where it lies.
const LARGE: usize = 1 << 20;
/// Longest content of anything else.
pub(crate) const MOST_CONTENT: usize = 4 << 20;
/// Longest header.
const MOST_HEADER: usize = 64 << 10;
const DELIMITER: &[u8] = b"<IDS|MSG>";

/// A message that cannot be believed or read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// It has too few parts.
    #[error("a message without header, parent, metadata and content")]
    Incomplete,
    /// It was not signed with the key of the connection file.
    #[error("a message with a wrong signature")]
    WrongSignature,
    /// Its JSON is wrong.
    #[error("a message whose {part} cannot be read: {why}")]
    Unreadable {
        /// Which part.
        part: &'static str,
        /// What the parser said.
        why: String,
    },
}

/// A message from the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Its type: `stream`, `status`, `execute_reply`.
    pub(crate) kind: String,
    /// The id of the request that it answers, where it answers one.
    pub(crate) parent: Option<String>,
    content: Vec<u8>,
    buffers: Frames,
}

impl Message {
    /// The content.
    ///
    /// # Errors
    /// Where it is not what the type promises.
    pub(crate) fn content<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        match self.content.len() {
            // JSON of many small values takes many times its length once it is parsed.
            length if length > MOST_CONTENT => Err(WireError::Unreadable {
                part: "content",
                why: format!("it is {length} bytes long, of which at most {MOST_CONTENT} are read"),
            }),
            _ => read(&self.content, "content"),
        }
    }

    /// The content as it came, for what needs only a little of it.
    #[must_use]
    pub(crate) fn raw_content(&self) -> &[u8] {
        &self.content
    }

    /// The content as it came, where it is too large to be copied about.
    #[must_use]
    pub(crate) fn large_content(&self) -> Option<&str> {
        let large = self.content.len() > LARGE;
        large.then(|| std::str::from_utf8(&self.content).ok())?
    }

    /// Takes the binary parts behind the content: comm messages have them.
    pub(crate) fn take_buffers(&mut self) -> Frames {
        std::mem::take(&mut self.buffers)
    }

    /// The content as a JSON object to which `output_type` is added: what an output message is.
    ///
    /// # Errors
    /// Where it is not an object, or lacks what its type promises.
    pub(crate) fn into_output<T: DeserializeOwned>(self) -> Result<T, WireError> {
        let mut value: Value = self.content()?;
        // Outputs can be large: from here on there is one copy.
        drop(self.content);
        let display_id = value
            .pointer_mut("/transient/display_id")
            .map(Value::take)
            .filter(Value::is_string);
        if let Some(object) = value.as_object_mut() {
            object.remove("transient");
            object.insert("output_type".into(), self.kind.into());
            if let Some(id) = display_id {
                object.insert("display_id".into(), id);
            }
        }
        serde_json::from_value(value).map_err(|e| unreadable("content", &e))
    }
}

fn unreadable(part: &'static str, why: &serde_json::Error) -> WireError {
    WireError::Unreadable {
        part,
        why: why.to_string(),
    }
}

/// Python's client lets bytes through that are no UTF-8, where a program printed such.
fn read<T: DeserializeOwned>(bytes: &[u8], part: &'static str) -> Result<T, WireError> {
    let parsed = match String::from_utf8_lossy(bytes) {
        std::borrow::Cow::Borrowed(text) => serde_json::from_str(text),
        std::borrow::Cow::Owned(text) => serde_json::from_str(&text),
    };
    parsed.map_err(|e| unreadable(part, &e))
}

#[derive(Deserialize)]
struct Header {
    msg_type: String,
}

#[derive(Deserialize)]
struct Parent {
    msg_id: Option<String>,
}

/// Signs what we send and checks what we get.
#[derive(Clone)]
pub(crate) struct Signer {
    mac: Hmac<Sha256>,
    session: String,
    sent: u64,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// With the key of the connection file; `session` names us in every header.
    #[must_use]
    pub(crate) fn new(key: &str, session: &str) -> Self {
        Self {
            mac: Hmac::new_from_slice(key.as_bytes())
                .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length")),
            session: session.to_owned(),
            sent: 0,
        }
    }

    /// A request, and its id.
    pub(crate) fn request(&mut self, kind: &str, content: &Value) -> (String, Frames) {
        self.sent += 1;
        let id = format!("{}-{}", self.session, self.sent);
        let header = json!({
            "msg_id": id, "msg_type": kind, "session": self.session, "username": "trainyard",
            "date": rfc3339(Timestamp::now()), "version": "5.3",
        });
        let parts = [
            header.to_string(),
            "{}".into(),
            "{}".into(),
            content.to_string(),
        ];
        let mut mac = self.mac.clone();
        for part in &parts {
            mac.update(part.as_bytes());
        }
        let mut frames = vec![
            DELIMITER.to_vec(),
            hex::encode(mac.finalize().into_bytes()).into_bytes(),
        ];
        frames.extend(parts.map(String::into_bytes));
        (id, frames)
    }

    /// Checks and reads a message. Of a message other than a comm's the binary buffers are dropped: outputs have none.
    ///
    /// # Errors
    /// Where it is incomplete, wrongly signed, or not JSON.
    pub(crate) fn read(&self, frames: Frames) -> Result<Message, WireError> {
        let mut parts = frames
            .into_iter()
            .skip_while(|frame| frame != DELIMITER)
            .skip(1);
        let mut next = || parts.next().ok_or(WireError::Incomplete);
        let (signature, header, parent, metadata, mut content) =
            (next()?, next()?, next()?, next()?, next()?);
        let mut mac = self.mac.clone();
        if header.len().max(parent.len()) > MOST_HEADER {
            return Err(WireError::Unreadable {
                part: "header",
                why: format!("it is longer than {MOST_HEADER} bytes"),
            });
        }
        for part in [&header, &parent, &metadata, &content] {
            mac.update(part);
        }
        let signature = hex::decode(signature).map_err(|_| WireError::WrongSignature)?;
        mac.verify_slice(&signature)
            .map_err(|_| WireError::WrongSignature)?;
        let header: Header = read(&header, "header")?;
        mend_surrogates(&mut content);
        if content.len() > LARGE {
            mend_characters(&mut content);
        }
        // Some kernels say null where there is none.
        let parent: Option<Parent> = read(&parent, "parent header")?;
        let buffers = match header.msg_type.starts_with("comm_") {
            true => parts.collect(),
            false => Frames::new(),
        };
        Ok(Message {
            kind: header.msg_type,
            parent: parent.and_then(|parent| parent.msg_id),
            content,
            buffers,
        })
    }
}

/// `2026-01-31T12:00:00.000Z`, by the civil calendar (days_from_civil turned around).
fn rfc3339(time: Timestamp) -> String {
    let (days, ms) = (time.0.div_euclid(86_400_000), time.0.rem_euclid(86_400_000));
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s, ms) = (
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1_000 % 60,
        ms % 1_000,
    );
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_read_back_and_nothing_else() {
        let mut signer = Signer::new("secret", "s");
        let (id, frames) = signer.request("execute_request", &json!({"code": "1"}));
        assert_eq!(id, "s-1");
        let mut with_topic = vec![b"kernel.iopub".to_vec()];
        with_topic.extend(frames.clone());
        let message = signer.read(with_topic).unwrap();
        assert_eq!(message.kind, "execute_request");
        assert_eq!(message.content::<Value>().unwrap(), json!({"code": "1"}));

        let mut forged = frames.clone();
        *forged.last_mut().unwrap() = b"{\"code\": \"2\"}".to_vec();
        assert_eq!(signer.read(forged).unwrap_err(), WireError::WrongSignature);
        assert_eq!(
            Signer::new("other", "s").read(frames.clone()).unwrap_err(),
            WireError::WrongSignature
        );
        assert_eq!(
            signer.read(frames[..4].to_vec()).unwrap_err(),
            WireError::Incomplete
        );
        assert_eq!(
            signer.read(vec![vec![1; 100]]).unwrap_err(),
            WireError::Incomplete
        );
    }

    #[test]
    fn an_output_takes_its_display_id_from_transient() {
        let message = Message {
            kind: "display_data".into(),
            parent: None,
            content: br#"{"data": {"text/plain": "a"}, "metadata": {}, "transient": {"display_id": "d"}}"#.to_vec(),
            buffers: Vec::new(),
        };
        let value: Value = message.into_output().unwrap();
        assert_eq!(value["output_type"], "display_data");
        assert_eq!(value["display_id"], "d");
        assert!(value.get("transient").is_none());
    }

    #[test]
    fn bytes_that_are_no_utf8_are_replaced() {
        let message = Message {
            kind: "stream".into(),
            parent: None,
            content: b"{\"name\": \"stdout\", \"text\": \"\xff\"}".to_vec(),
            buffers: Vec::new(),
        };
        assert_eq!(message.into_output::<Value>().unwrap()["text"], "\u{fffd}");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            rfc3339(Timestamp(951_827_696_789)),
            "2000-02-29T12:34:56.789Z"
        );
        assert_eq!(
            rfc3339(Timestamp(1_767_225_599_999)),
            "2025-12-31T23:59:59.999Z"
        );
    }
}
