//! What a forge's answer means.

use chrono::DateTime;
use protocol::{CommitId, Span, Timestamp};
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::place::{ForgeKind, Repository};
use super::{Access, ForgeError, bounded};
use crate::outgoing;

/// Most bytes of an answer that are read.
const MOST_BYTES: usize = 64 << 10;
/// How long to wait where a forge says "too fast" and no more.
const UNSAID_WAIT: Span = Span::secs(60);
/// A header that asks for more is not believed.
const LONGEST_WAIT: Span = Span::secs(2 * 3_600);

/// What a call was about: a refusal means what it means by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About<'a> {
    /// A commit's status.
    Status(&'a CommitId),
    /// A commit's check.
    Check(&'a CommitId),
    /// What people say under a pull request.
    Request,
    /// Its webhooks.
    Hooks,
    /// What people may do.
    People,
    /// Nothing is written.
    Look,
}

impl<'a> About<'a> {
    fn commit(self) -> Option<&'a CommitId> {
        match self {
            About::Status(commit) | About::Check(commit) => Some(commit),
            About::Request | About::Hooks | About::People | About::Look => None,
        }
    }

    fn needs(self) -> Access {
        match self {
            About::Status(_) => Access::Statuses,
            About::Check(_) => Access::Checks,
            About::Request => Access::Comments,
            About::Hooks => Access::Hooks,
            About::People => Access::People,
            About::Look => Access::Read,
        }
    }
}

/// Judges an answer: a success is given back unread.
pub(super) async fn judge(
    response: reqwest::Response,
    kind: ForgeKind,
    repository: &Repository,
    about: About<'_>,
) -> Result<reqwest::Response, ForgeError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let headers = response.headers().clone();
    let body = outgoing::beginning(response, MOST_BYTES).await;
    let answer = Answer {
        kind,
        status: status.as_u16(),
        message: message(&body),
    };
    Err(answer.fault(&headers, repository, about))
}

/// The whole body of an answer, of at most so many bytes. One that the network tore is as no answer at all: asked for
/// again, it may come whole.
///
/// # Errors
/// [`ForgeError::Transport`], and [`ForgeError::Unreadable`] of one that is longer.
pub(super) async fn body(
    mut response: reqwest::Response,
    most: usize,
    kind: ForgeKind,
) -> Result<Vec<u8>, ForgeError> {
    let mut body = Vec::new();
    let torn = |error: reqwest::Error| ForgeError::Transport {
        forge: kind.name(),
        message: outgoing::causes(&error.without_url()),
    };
    while let Some(chunk) = response.chunk().await.map_err(torn)? {
        body.extend_from_slice(&chunk);
        if body.len() > most {
            return Err(unreadable(kind, format!("it has more than {most} bytes")));
        }
    }
    Ok(body)
}

/// The error of an answer that is not what it should be.
pub(super) fn unreadable(kind: ForgeKind, message: String) -> ForgeError {
    ForgeError::Unreadable {
        forge: kind.name(),
        message,
    }
}

/// An answer that is no success.
struct Answer {
    kind: ForgeKind,
    status: u16,
    message: String,
}

impl Answer {
    fn fault(self, headers: &HeaderMap, repository: &Repository, about: About<'_>) -> ForgeError {
        let unknown = about.commit().filter(|_| self.is_of_an_unknown_commit());
        let Answer {
            kind,
            status,
            message,
        } = self;
        let (forge, repository) = (kind.name(), repository.as_str().to_owned());
        if matches!(status, 403 | 429)
            && let Some(wait) = asked_to_wait(status, headers, &message)
        {
            return ForgeError::RateLimited { forge, wait };
        }
        if let Some(commit) = unknown {
            return ForgeError::UnknownCommit {
                forge,
                status,
                repository,
                commit: commit.clone(),
                message,
            };
        }
        match status {
            // A comment may be gone; that its repository is hidden from the token, the statuses say.
            404 if about == About::Request => ForgeError::Refused {
                forge,
                status,
                message,
            },
            // A repository that the token may not see is "not found".
            401 | 403 | 404 => ForgeError::Unauthorized {
                forge,
                status,
                repository,
                needs: about.needs(),
                message,
            },
            301..=308 => ForgeError::Moved {
                forge,
                status,
                repository,
            },
            408 | 409 | 425 | 500.. => ForgeError::Transport {
                forge,
                message: format!("answer {status}: {message}"),
            },
            _ => ForgeError::Refused {
                forge,
                status,
                message,
            },
        }
    }

    /// Each forge has its own way to say it.
    fn is_of_an_unknown_commit(&self) -> bool {
        let words = self.message.to_ascii_lowercase();
        match self.kind {
            ForgeKind::Github => self.status == 422 && words.contains("no commit found"),
            ForgeKind::Gitlab => self.status == 404 && words.contains("commit"),
            ForgeKind::Gitea => self.status == 404 && words.contains("does not exist"),
        }
    }
}

/// How long a forge asks to wait, where it does: a 403 is also a word for "you may not".
fn asked_to_wait(status: u16, headers: &HeaderMap, message: &str) -> Option<Span> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    // GitLab writes them without the x.
    let of_limit = |name: &str| number(&format!("x-{name}")).or_else(|| number(name));
    let seconds = |s: i64| Span(u64::try_from(s).unwrap_or(0).saturating_mul(1_000));
    let wait = if let Some(after) = number("retry-after") {
        Some(seconds(after))
    } else if of_limit("ratelimit-remaining") == Some(0) {
        let reset = of_limit("ratelimit-reset").map(|s| Timestamp(s.saturating_mul(1_000)));
        Some(reset.map_or(UNSAID_WAIT, |at| at.since(said_at(headers))))
    } else {
        let words = message.to_ascii_lowercase();
        let said = words.contains("rate limit") || words.contains("abuse");
        (status == 429 || said || headers.contains_key("retry-after")).then_some(UNSAID_WAIT)
    };
    wait.map(|wait| wait.clamp(Span::secs(1), LONGEST_WAIT))
}

/// When an answer was given, by the clock of who gave it: only beside that its times say how long something lasts.
fn said_at(headers: &HeaderMap) -> Timestamp {
    let date = headers.get("date").and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok());
    date.map_or_else(Timestamp::now, |date| Timestamp(date.timestamp_millis()))
}

/// The forge's own words: its `message` (which is no text in some of GitLab's) or `error`, and those of its `errors`.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        #[serde(alias = "error")]
        message: Value,
        #[serde(default)]
        errors: Option<Vec<Value>>,
    }
    let words = |value: &Value| match value.get("message") {
        Some(message) => words_of(message),
        None => words_of(value),
    };
    let text = match serde_json::from_slice::<Body>(body) {
        Ok(body) => {
            let details = body.errors.unwrap_or_default();
            let details = details.iter().take(5).map(words);
            let all: Vec<String> = std::iter::once(words(&body.message))
                .chain(details)
                .collect();
            all.join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    bounded(&text, 300)
}

/// A text, or a value as JSON.
fn words_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000000000 seconds since 1970.
    const NOW: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

    fn at(
        kind: ForgeKind,
        status: u16,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> ForgeError {
        let mut map = HeaderMap::new();
        map.insert("date", NOW.parse().unwrap());
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let repository = Repository::try_from("octo/hello".to_owned()).unwrap();
        let commit = "a".repeat(40).parse().unwrap();
        let answer = Answer {
            kind,
            status,
            message: message(body.as_bytes()),
        };
        answer.fault(&map, &repository, About::Status(&commit))
    }

    fn of(status: u16, headers: &[(&'static str, &str)], body: &str) -> ForgeError {
        at(ForgeKind::Github, status, headers, body)
    }

    #[test]
    fn a_limit_is_told_from_a_refusal() {
        let limited = |seconds: u64| ForgeError::RateLimited {
            forge: "GitHub",
            wait: Span::secs(seconds),
        };
        assert_eq!(of(403, &[("retry-after", "7")], "{}"), limited(7));
        assert_eq!(of(429, &[], "slow down"), limited(60));
        let exhausted = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1000000090"),
        ];
        assert_eq!(of(403, &exhausted, "{}"), limited(90));
        let gitlabs = [
            ("ratelimit-remaining", "0"),
            ("ratelimit-reset", "1000000090"),
        ];
        assert_eq!(of(429, &gitlabs, "{}"), limited(90));
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
        for status in [301, 307, 308] {
            let moved = of(status, &[], "{}");
            assert!(
                moved.to_string().contains("octo/hello has moved"),
                "{moved}"
            );
            assert!(moved.is_permanent() && moved.concerns_project());
        }
    }

    #[test]
    fn each_forge_says_in_its_own_way_that_it_knows_no_such_commit() {
        for (kind, status, body) in [
            (
                ForgeKind::Github,
                422,
                r#"{"message":"No commit found for SHA: aaaa"}"#,
            ),
            (
                ForgeKind::Gitlab,
                404,
                r#"{"message":"404 Commit Not Found"}"#,
            ),
            (
                ForgeKind::Gitea,
                404,
                r#"{"message":"object does not exist [id: aaaa, rel_path: ]"}"#,
            ),
        ] {
            let error = at(kind, status, &[], body);
            assert!(matches!(error, ForgeError::UnknownCommit { .. }), "{error}");
        }
        let project = at(
            ForgeKind::Gitlab,
            404,
            &[],
            r#"{"message":"404 Project Not Found"}"#,
        );
        assert!(matches!(project, ForgeError::Unauthorized { .. }));
        let odd = at(
            ForgeKind::Gitlab,
            400,
            &[],
            r#"{"message":{"name":["is too long"]}}"#,
        );
        assert!(odd.to_string().contains("is too long"), "{odd}");
        let scope = at(
            ForgeKind::Gitlab,
            403,
            &[],
            r#"{"error":"insufficient_scope"}"#,
        );
        assert!(scope.to_string().contains("insufficient_scope"), "{scope}");
    }
}
