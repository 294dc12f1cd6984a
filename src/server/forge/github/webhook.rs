//! GitHub's webhook: the raw body is proved first, then read. It stores nothing.

use hmac::{Hmac, KeyInit as _, Mac as _};
use protocol::CommitId;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::forge::ForgeEvent;

/// Header of the signature.
pub const SIGNATURE: &str = "x-hub-signature-256";
/// Header of the event's name.
pub const EVENT: &str = "x-github-event";
/// Header of the delivery's id; a redelivery by hand carries the same one.
pub const DELIVERY: &str = "x-github-delivery";

/// A body whose signature was right. Only [`verify`] makes one, and only it can be parsed.
#[derive(Debug, Clone, Copy)]
pub struct Verified<'a>(&'a [u8]);

/// The signature is missing, malformed or wrong. Which of the three is not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the signature is missing or wrong: the webhook's secret at GitHub must be the one that the project names"
)]
pub struct BadSignature;

/// A body that is not what its event's name says.
#[derive(Debug, thiserror::Error)]
#[error("the body is not a '{event}' event: {why}")]
pub struct Unreadable {
    event: String,
    why: String,
}

/// Checks `sha256=<hex>` against the HMAC-SHA256 of the body as it came, in constant time.
///
/// # Errors
/// [`BadSignature`].
pub fn verify<'a>(
    secret: &SecretString,
    signature: Option<&str>,
    body: &'a [u8],
) -> Result<Verified<'a>, BadSignature> {
    let mut given = [0_u8; 32];
    let well_formed = signature
        .and_then(|text| text.strip_prefix("sha256="))
        .is_some_and(|digits| hex::decode_to_slice(digits, &mut given).is_ok());
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
        .map_err(|_| BadSignature)?;
    mac.update(body);
    let right = bool::from(mac.finalize().into_bytes().as_slice().ct_eq(&given));
    if well_formed && right {
        Ok(Verified(body))
    } else {
        Err(BadSignature)
    }
}

/// Reads an event. The list of commits in a push is left where it is: git is asked.
///
/// # Errors
/// [`Unreadable`] where a push, pull request or ping lacks what its name promises.
pub fn parse(event: &str, body: Verified<'_>) -> Result<ForgeEvent, Unreadable> {
    let read = match event {
        "ping" => json::<serde_json::Map<_, _>>(body).map(|_| ForgeEvent::Ping),
        "push" => json::<Push>(body).and_then(Push::event),
        "pull_request" => json::<PullRequestEvent>(body).map(PullRequestEvent::event),
        other => json::<serde_json::Map<_, _>>(body).map(|_| ForgeEvent::Other {
            name: crate::forge::bounded(other, 60),
        }),
    };
    read.map_err(|why| Unreadable {
        event: crate::forge::bounded(event, 60),
        why,
    })
}

fn json<'a, T: Deserialize<'a>>(body: Verified<'a>) -> Result<T, String> {
    serde_json::from_slice(body.0).map_err(|e| e.to_string())
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    before: String,
    after: String,
    #[serde(default)]
    sender: Option<Account>,
}

#[derive(Deserialize)]
struct Account {
    login: String,
}

impl Push {
    fn event(self) -> Result<ForgeEvent, String> {
        if !self.reference.starts_with("refs/") || self.reference.len() > 1_024 {
            return Err("its ref is no full ref".into());
        }
        Ok(ForgeEvent::Push {
            before: commit_or_zeros(&self.before)?,
            after: commit_or_zeros(&self.after)?,
            reference: self.reference,
            by: self.sender.map(Account::name),
        })
    }
}

impl Account {
    fn name(self) -> String {
        crate::forge::bounded(&self.login, 100)
    }
}

/// All zeros is GitHub's word for "no commit".
fn commit_or_zeros(text: &str) -> Result<Option<CommitId>, String> {
    let commit: CommitId = text.parse().map_err(|e| format!("{e}"))?;
    let zeros = commit.as_str().bytes().all(|b| b == b'0');
    Ok((!zeros).then_some(commit))
}

#[derive(Deserialize)]
struct PullRequestEvent {
    action: String,
    number: u64,
    pull_request: PullRequest,
    #[serde(default)]
    sender: Option<Account>,
}

#[derive(Deserialize)]
struct PullRequest {
    head: Side,
    base: Side,
}

#[derive(Deserialize)]
struct Side {
    sha: CommitId,
    #[serde(rename = "ref")]
    branch: String,
    /// None where the fork was deleted.
    repo: Option<RepositoryName>,
}

#[derive(Deserialize, PartialEq)]
struct RepositoryName {
    full_name: String,
}

impl PullRequestEvent {
    fn event(self) -> ForgeEvent {
        match self.action.as_str() {
            "opened" | "reopened" | "synchronize" => {
                let PullRequest { head, base } = self.pull_request;
                ForgeEvent::PullRequest {
                    number: self.number,
                    fork: head.repo.is_none() || head.repo != base.repo,
                    head: head.sha,
                    base: base.sha,
                    base_branch: base.branch,
                    by: self.sender.map(Account::name),
                }
            }
            action => ForgeEvent::Other {
                name: crate::forge::bounded(&format!("pull_request.{action}"), 60),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: &[u8] = include_bytes!("../../tests/data/github/push.branch-new-1commit.json");
    const TAG_GONE: &[u8] = include_bytes!("../../tests/data/github/push.tag-deleted.json");
    const PING: &[u8] = include_bytes!("../../tests/data/github/ping.repo.json");
    const PULL: &[u8] = include_bytes!("../../tests/data/github/pull_request.synchronize.json");
    const CLOSED: &[u8] = include_bytes!("../../tests/data/github/pull_request.closed.json");

    fn secret() -> SecretString {
        SecretString::from("It's a Secret to Everybody")
    }

    fn commit(text: &str) -> CommitId {
        text.parse().unwrap()
    }

    #[test]
    fn githubs_own_example_verifies() {
        // From GitHub's documentation, "Validating webhook deliveries".
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        verify(&secret(), Some(signature), b"Hello, World!").unwrap();
        let upper = signature.to_uppercase().replace("SHA256", "sha256");
        verify(&secret(), Some(&upper), b"Hello, World!").unwrap();
    }

    #[test]
    fn anything_else_does_not() {
        let right = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let body = b"Hello, World!".as_slice();
        let signed = format!("sha256={right}");
        for (signature, body) in [
            (None, body),
            (Some(""), body),
            (Some(right), body),
            (Some("sha256="), body),
            (Some("sha256=757107"), body),
            (Some("sha1=757107ea0eb2509fc211221cce984b8a37570b6d"), body),
            (Some(signed.as_str()), b"Hello, World?".as_slice()),
            (Some(signed.as_str()), b"".as_slice()),
        ] {
            assert_eq!(
                verify(&secret(), signature, body).unwrap_err(),
                BadSignature
            );
        }
        let zeros = format!("sha256={}", "0".repeat(64));
        assert!(verify(&secret(), Some(&zeros), body).is_err());
        assert!(verify(&SecretString::from("other"), Some(&signed), body).is_err());
    }

    #[test]
    fn real_payloads_become_events() {
        let read = |event, body| parse(event, Verified(body)).unwrap();
        assert_eq!(
            read("push", PUSH),
            ForgeEvent::Push {
                reference: "refs/heads/master".into(),
                before: None,
                after: Some(commit("6113728f27ae82c7b1a177c8d03f9e96e0adf246")),
                by: Some("Codertocat".into()),
            }
        );
        assert_eq!(
            read("push", TAG_GONE),
            ForgeEvent::Push {
                reference: "refs/tags/simple-tag".into(),
                before: Some(commit("6113728f27ae82c7b1a177c8d03f9e96e0adf246")),
                after: None,
                by: Some("Codertocat".into()),
            }
        );
        assert_eq!(read("ping", PING), ForgeEvent::Ping);
        assert_eq!(
            read("pull_request", PULL),
            ForgeEvent::PullRequest {
                number: 2,
                head: commit("ec26c3e57ca3a959ca5aad62de7213c562f8c821"),
                base: commit("f95f852bd8fca8fcc58a9a2d6c842781e32a215e"),
                base_branch: "master".into(),
                fork: false,
                by: Some("Codertocat".into()),
            }
        );
        let closed = read("pull_request", CLOSED);
        assert_eq!(
            closed,
            ForgeEvent::Other {
                name: "pull_request.closed".into()
            }
        );
        assert!(!closed.moves_something());
    }

    #[test]
    fn a_deleted_fork_is_a_fork() {
        let mut payload: serde_json::Value = serde_json::from_slice(PULL).unwrap();
        payload["pull_request"]["head"]["repo"] = serde_json::Value::Null;
        let body = serde_json::to_vec(&payload).unwrap();
        let ForgeEvent::PullRequest { fork, .. } = parse("pull_request", Verified(&body)).unwrap()
        else {
            panic!("no pull request")
        };
        assert!(fork);
    }

    #[test]
    fn bodies_that_lie_are_refused_in_words() {
        for (event, body) in [
            ("push", "[]"),
            ("push", r#"{"ref":"main","before":"0","after":"0"}"#),
            (
                "push",
                r#"{"ref":"refs/heads/x","before":"../../etc","after":"0"}"#,
            ),
            ("pull_request", r#"{"action":"opened"}"#),
            ("ping", "payload=%7B%7D"),
            ("star", "\u{0}"),
        ] {
            let error = parse(event, Verified(body.as_bytes()))
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(&format!("the body is not a '{event}' event: ")),
                "{error}"
            );
        }
    }
}
