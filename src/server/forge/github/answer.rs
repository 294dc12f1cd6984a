//! What GitHub's answer to a write means.

use protocol::{CommitId, Span, Timestamp};
use reqwest::header::HeaderMap;
use serde::Deserialize;

use super::{NAME, Repository};
use crate::forge::{ForgeError, bounded};

/// Most bytes of an answer that are read.
const MOST_BYTES: usize = 64 << 10;
/// How long to wait where GitHub says "too fast" and no more.
const UNSAID_WAIT: Span = Span::secs(60);
/// A header that asks for more is not believed.
const LONGEST_WAIT: Span = Span::secs(2 * 3_600);

/// Judges an answer.
pub(super) async fn judge(
    mut response: reqwest::Response,
    repository: &Repository,
    commit: &CommitId,
    now: Timestamp,
) -> Result<(), ForgeError> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_BYTES {
            break;
        }
    }
    let (headers, message) = (response.headers(), message(&body));
    Err(fault(
        status.as_u16(),
        headers,
        message,
        repository,
        commit,
        now,
    ))
}

fn fault(
    status: u16,
    headers: &HeaderMap,
    message: String,
    repository: &Repository,
    commit: &CommitId,
    now: Timestamp,
) -> ForgeError {
    let repository = repository.as_str().to_owned();
    if matches!(status, 403 | 429)
        && let Some(wait) = asked_to_wait(status, headers, &message, now)
    {
        return ForgeError::RateLimited {
            forge: NAME,
            until: now + wait,
        };
    }
    match status {
        // A repository that the token may not see is "not found".
        401 | 403 | 404 => ForgeError::Unauthorized {
            forge: NAME,
            status,
            repository,
            message,
        },
        422 if message.to_ascii_lowercase().contains("no commit found") => {
            ForgeError::UnknownCommit {
                forge: NAME,
                status,
                repository,
                commit: commit.clone(),
                message,
            }
        }
        301..=308 => ForgeError::Refused {
            forge: NAME,
            status,
            message: format!("{repository} has moved: give the project its new name"),
        },
        408 | 409 | 425 | 500.. => ForgeError::Transport {
            forge: NAME,
            message: format!("answer {status}: {message}"),
        },
        _ => ForgeError::Refused {
            forge: NAME,
            status,
            message,
        },
    }
}

/// How long GitHub asks to wait, where it does: a 403 is also its word for "you may not".
fn asked_to_wait(status: u16, headers: &HeaderMap, message: &str, now: Timestamp) -> Option<Span> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let seconds = |s: i64| Span(u64::try_from(s).unwrap_or(0).saturating_mul(1_000));
    let wait = if let Some(after) = number("retry-after") {
        Some(seconds(after))
    } else if number("x-ratelimit-remaining") == Some(0) {
        let reset = number("x-ratelimit-reset").map(|s| Timestamp(s.saturating_mul(1_000)));
        Some(reset.map_or(UNSAID_WAIT, |at| at.since(now)))
    } else {
        let words = message.to_ascii_lowercase();
        let said = words.contains("rate limit") || words.contains("abuse");
        (status == 429 || said || headers.contains_key("retry-after")).then_some(UNSAID_WAIT)
    };
    wait.map(|wait| wait.clamp(Span::secs(1), LONGEST_WAIT))
}

/// GitHub's own words: its `message`, and those of its `errors`.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        message: String,
        #[serde(default)]
        errors: Vec<Detail>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Detail {
        Full { message: String },
        Text(String),
        Other(serde_json::Value),
    }
    let text = match serde_json::from_slice::<Body>(body) {
        Ok(body) => {
            body.errors
                .into_iter()
                .take(5)
                .fold(body.message, |text, detail| match detail {
                    Detail::Full { message } | Detail::Text(message) => {
                        format!("{text}; {message}")
                    }
                    Detail::Other(value) => format!("{text}; {value}"),
                })
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    bounded(&text, 300)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    fn of(status: u16, headers: &[(&'static str, &str)], body: &str) -> ForgeError {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let repository = Repository::try_from("octo/hello".to_owned()).unwrap();
        let commit = "a".repeat(40).parse().unwrap();
        fault(
            status,
            &map,
            message(body.as_bytes()),
            &repository,
            &commit,
            NOW,
        )
    }

    #[test]
    fn a_limit_is_told_from_a_refusal() {
        let limited = |seconds: u64| ForgeError::RateLimited {
            forge: NAME,
            until: NOW + Span::secs(seconds),
        };
        assert_eq!(of(403, &[("retry-after", "7")], "{}"), limited(7));
        assert_eq!(of(429, &[], "slow down"), limited(60));
        let exhausted = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1000000090"),
        ];
        assert_eq!(of(403, &exhausted, "{}"), limited(90));
        let secondary = r#"{"message":"You have exceeded a secondary rate limit."}"#;
        assert_eq!(
            of(403, &[("x-ratelimit-remaining", "12")], secondary),
            limited(60)
        );
        let past = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "5")];
        assert_eq!(of(403, &past, "{}"), limited(1));
        assert_eq!(
            of(429, &[("retry-after", "99999999999")], ""),
            limited(7_200)
        );
        let forbidden = of(
            403,
            &[],
            r#"{"message":"Resource not accessible by integration"}"#,
        );
        assert!(matches!(&forbidden, ForgeError::Unauthorized { .. }));
        assert_eq!(
            forbidden.to_string(),
            "GitHub refuses the token (403): Resource not accessible by integration. It needs write access to commit statuses of octo/hello"
        );
    }

    #[test]
    fn every_answer_has_its_error() {
        let gone = r#"{"message":"No commit found for SHA: aaaa"}"#;
        assert!(matches!(
            of(422, &[], gone),
            ForgeError::UnknownCommit { .. }
        ));
        let many = r#"{"message":"Validation Failed","errors":[{"resource":"Status","code":"custom","message":"This SHA and context has reached the maximum number of statuses."},"x",{"code":1}]}"#;
        let refused = of(422, &[], many);
        assert!(
            refused.to_string().contains("maximum number of statuses"),
            "{refused}"
        );
        assert!(refused.is_permanent() && !refused.concerns_project());
        for status in [401, 404] {
            assert!(of(status, &[], "{}").concerns_project());
        }
        for status in [408, 409, 500, 502, 503] {
            let error = of(status, &[], "<html>\u{1b}[1mBad gateway</html>");
            assert!(matches!(&error, ForgeError::Transport { .. }) && !error.is_permanent());
        }
        assert!(of(307, &[], "").to_string().contains("has moved"));
    }
}
