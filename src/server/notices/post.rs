//! Sends one message to its receiver, signed, and says what its answer means.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Span, Timestamp};
use reqwest::Url;
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};

use super::address::{self, PublicOnly};
use super::rule::{Place, Rule};
use crate::forge::bounded;
use crate::{outgoing, secret};

/// How long a receiver has for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an answer that are read.
const MOST_BYTES: usize = 4 << 10;
/// A header that asks for a longer wait is not believed.
const LONGEST_WAIT: Span = Span::secs(3_600);

/// Why a message was not taken. It says the receiver's host at most, never its address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PostError {
    /// It may be taken another time.
    #[error("{why}")]
    Later {
        /// What went wrong.
        why: String,
        /// How long the receiver asks to wait.
        wait: Option<Span>,
    },
    /// It never will be.
    #[error("{0}")]
    Never(String),
}

fn later(why: impl Into<String>) -> PostError {
    PostError::Later {
        why: why.into(),
        wait: None,
    }
}

/// A receiver's host, where all is there that a message to it needs.
///
/// # Errors
/// A sentence: its address or key cannot be read, or nothing may be sent there.
pub(crate) fn receiver(rule: &Rule) -> Result<String, String> {
    let url = url(rule)?;
    key(rule)?;
    Ok(url.host_str().unwrap_or_default().to_owned())
}

/// The address, as it is now.
fn url(rule: &Rule) -> Result<Url, String> {
    match &rule.url {
        Place::Plain(url) => Ok(url.clone()),
        Place::Secret(reference) => {
            let text = reference.read().map_err(|error| error.to_string())?;
            let url = address::read(text.expose_secret().trim(), rule.private);
            url.map_err(|error| format!("the address {reference}: {error}"))
        }
    }
}

/// The key that signs.
fn key(rule: &Rule) -> Result<Option<SecretString>, String> {
    let secret = rule.secret.as_ref();
    let key = secret.map(|secret| secret.read().map_err(|error| error.to_string()));
    key.transpose()
}

/// Sends a message. What is signed is `timestamp.body`, so that neither can be replaced.
///
/// # Errors
/// [`PostError`].
pub(super) async fn post(
    rule: &Rule,
    delivery: &str,
    body: String,
    now: Timestamp,
) -> Result<(), PostError> {
    let (url, key) = (url(rule).map_err(later)?, key(rule).map_err(later)?);
    let mut client = outgoing::client(&url, PATIENCE);
    if !rule.private {
        client = client.dns_resolver(Arc::new(PublicOnly::new()));
    }
    let client = client.build().map_err(|error| later(error.to_string()))?;
    let timestamp = now.0.div_euclid(1_000).to_string();
    let mut request = client
        .post(url)
        .header("content-type", "application/json")
        .header("x-trainyard-delivery", delivery)
        .header("x-trainyard-timestamp", &timestamp);
    if let Some(key) = key {
        let signature = sign(&key, &timestamp, &body);
        request = request.header("x-trainyard-signature-256", signature);
    }
    let answer = request.body(body).send().await;
    let answer = answer.map_err(|error| later(outgoing::causes(&error.without_url())))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let wait = asked_to_wait(answer.headers());
    let said = outgoing::beginning(answer, MOST_BYTES).await;
    let said = bounded(&String::from_utf8_lossy(&said), 200);
    Err(judge(status.as_u16(), wait, &said))
}

/// `sha256=` and the hex of the HMAC.
fn sign(key: &SecretString, timestamp: &str, body: &str) -> String {
    let parts = [timestamp, ".", body].map(str::as_bytes);
    let made = secret::hmac(key.expose_secret().as_bytes(), &parts);
    format!("sha256={}", hex::encode(made))
}

fn judge(status: u16, wait: Option<Span>, said: &str) -> PostError {
    let why = match said {
        "" => format!("answer {status}"),
        said => format!("answer {status}: {said}"),
    };
    match status {
        408 | 429 | 500.. => PostError::Later { why, wait },
        301..=308 => PostError::Never(format!(
            "answer {status}: name the address that it leads to"
        )),
        _ => PostError::Never(why),
    }
}

fn asked_to_wait(headers: &HeaderMap) -> Option<Span> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.trim();
    let seconds: u64 = seconds.parse().ok()?;
    Some(Span(seconds.saturating_mul(1_000)).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_over_time_and_body() {
        // printf '1700000000.{"text":"hi"}' | openssl dgst -sha256 -hmac key
        let key = SecretString::from("key");
        let signed = sign(&key, "1700000000", r#"{"text":"hi"}"#);
        assert_eq!(signed, EXPECTED);
        assert_ne!(signed, sign(&key, "1700000001", r#"{"text":"hi"}"#));
    }

    const EXPECTED: &str =
        "sha256=e0fb27bbd98eedf3b560379f4c21ed82331fa6f39b2c39ccf439a53c12cd1485";

    #[test]
    fn what_the_receiver_refuses_is_given_up_and_what_it_cannot_do_now_is_not() {
        for status in [408, 429, 500, 502, 503] {
            assert!(matches!(judge(status, None, ""), PostError::Later { .. }));
        }
        for status in [301, 400, 401, 403, 404, 410, 413] {
            assert!(matches!(judge(status, None, ""), PostError::Never(_)));
        }
        let said = judge(404, None, "no_service").to_string();
        assert_eq!(said, "answer 404: no_service");
    }
}
