//! Who sends a message is proved by a secret that forge and server share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::{Span, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::forge::ForgeKind;
use crate::secret::hmac;

/// A signed time further away than this, before or after, is refused (Standard Webhooks, "Verifying signatures").
const WINDOW: Span = Span::secs(300);
/// A secret of this form signs messages in the form of Standard Webhooks.
pub(in crate::forge) const SIGNING_SECRET: &str = "whsec_";
/// Most signatures of one message that are looked at: a secret that is being changed has two.
const MOST_SIGNATURES: usize = 8;

/// A body whose proof was right. Only [`Proof::check`] makes one, and only it can be read.
#[derive(Debug, Clone, Copy)]
pub struct Verified<'a>(&'a [u8]);

impl<'a> Verified<'a> {
    /// The body as it came.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }

    #[cfg(test)]
    pub(super) fn in_a_test(body: &'a [u8]) -> Self {
        Self(body)
    }
}

/// The proof is missing, malformed, wrong or too old. Which of them is not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "its proof is missing or wrong: the webhook's secret at the forge must be the one that the project names"
)]
pub struct BadProof;

/// What the headers give as proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// Hex of the HMAC-SHA256 of the body; none: it is missing or no hex.
    Hmac(Option<[u8; 32]>),
    /// GitLab's: the secret itself, or a signature over id, time and body.
    Gitlab {
        token: Option<String>,
        signed: Option<Signed>,
    },
}

/// The headers of a message in the form of Standard Webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    id: String,
    timestamp: String,
    signatures: String,
}

impl Proof {
    pub(super) fn of<'a>(kind: ForgeKind, header: impl Fn(&str) -> Option<&'a str>) -> Self {
        let github = || header("x-hub-signature-256")?.strip_prefix("sha256=");
        let text = |name: &str| header(name).map(str::to_owned);
        match kind {
            ForgeKind::Github => Proof::Hmac(github().and_then(hex)),
            ForgeKind::Gitea => {
                Proof::Hmac(header("x-gitea-signature").or_else(github).and_then(hex))
            }
            ForgeKind::Gitlab => Proof::Gitlab {
                token: text("x-gitlab-token"),
                signed: (|| {
                    Some(Signed {
                        id: text("webhook-id")?,
                        timestamp: text("webhook-timestamp")?,
                        signatures: text("webhook-signature")?,
                    })
                })(),
            },
        }
    }

    /// Whether the headers gave any.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Proof::Hmac(given) => given.is_some(),
            Proof::Gitlab { token, signed } => token.is_some() || signed.is_some(),
        }
    }

    /// Checks it in constant time. A secret that signs takes no other proof: its value never goes over the wire.
    pub(super) fn check<'a>(
        &self,
        secret: &SecretString,
        body: &'a [u8],
        now: Timestamp,
    ) -> Result<Verified<'a>, BadProof> {
        let secret = secret.expose_secret();
        let right = match self {
            Proof::Hmac(given) => {
                let made = hmac(secret.as_bytes(), &[body]);
                given.is_some_and(|given| equal(&made, &given))
            }
            Proof::Gitlab { token, signed } => match secret.strip_prefix(SIGNING_SECRET) {
                Some(key) => signed
                    .as_ref()
                    .is_some_and(|signed| signed.is_right(key, body, now)),
                // Digests, so that the comparison does not tell the length.
                None => token.as_ref().is_some_and(|token| {
                    let digest = |text: &str| protocol::Digest::of(text);
                    let (given, wanted) = (digest(token), digest(secret));
                    equal(given.as_str().as_bytes(), wanted.as_str().as_bytes())
                }),
            },
        };
        if right {
            Ok(Verified(body))
        } else {
            Err(BadProof)
        }
    }
}

impl Signed {
    /// `v1,<base64>` of the HMAC of `id.timestamp.body`; several are separated by blanks.
    fn is_right(&self, key: &str, body: &[u8], now: Timestamp) -> bool {
        let Some(at) = self.timestamp.parse::<i64>().ok() else {
            return false;
        };
        let at = Timestamp(at.saturating_mul(1_000));
        if at.since(now).max(now.since(at)) > WINDOW {
            return false;
        }
        let head = format!("{}.{}.", self.id, self.timestamp);
        let Ok(key) = STANDARD.decode(key) else {
            return false;
        };
        let made = hmac(&key, &[head.as_bytes(), body]);
        let given = self.signatures.split(' ').take(MOST_SIGNATURES);
        let given = given.filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok());
        given.fold(false, |right, one| right | equal(&made, &one))
    }
}

fn hex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

fn equal(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}
