//! Presses of buttons whose message nobody took. No list has them, but GitHub lists what it sent to the App, and sends it
//! again on demand, under its id (REST API, "Redeliver a delivery for an app webhook").

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use protocol::Timestamp;
use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::{App, MOST_BYTES, read};
use crate::forge::answer;
use crate::forge::api::{About, Api};
use crate::forge::hook::moment;
use crate::forge::{ForgeError, ForgeKind, Repository};

/// Tries of a page.
const PAGE: &str = "100";
/// Most pages of one list.
const MOST_PAGES: usize = 10;
/// Most messages that are sent again at a time.
const MOST: usize = 20;
/// GitHub wants a second between two writes.
const GAP: Duration = Duration::from_secs(1);

/// A try to send a message.
#[derive(Debug, Clone, Deserialize)]
struct Try {
    id: u64,
    /// The message's id.
    guid: String,
    delivered_at: String,
    /// How it was answered; 0: not at all.
    #[serde(default)]
    status_code: i64,
    event: String,
    #[serde(default)]
    action: Option<String>,
}

impl Try {
    /// Whether somebody pressed a button.
    fn is_press(&self) -> bool {
        let action = self.action.as_deref();
        matches!(self.event.as_str(), "check_run" | "check_suite")
            && matches!(action, Some("requested_action" | "rerequested"))
    }

    fn is_older_than(&self, since: Timestamp) -> bool {
        moment(Some(&self.delivered_at)).is_some_and(|at| at < since)
    }
}

/// A part of the list of what GitHub sent, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it begins; none: at the newest.
    pub from: Option<String>,
    /// What was sent earlier is none of it.
    pub since: Timestamp,
}

/// What came of a part.
#[derive(Debug)]
pub struct Again {
    /// The ids of the messages that are sent again.
    pub sent: Vec<String>,
    /// Whether there are more in it than are sent again at a time.
    pub left: bool,
    /// What of it is too long to be read at once.
    pub rest: Option<Part>,
}

impl App {
    /// Has GitHub send messages of pressed buttons again that nobody took, but for those of `given_up`. `repository` is
    /// one of those where the App is installed.
    ///
    /// # Errors
    /// Those of the calls; what was sent again before is.
    pub async fn send_again(
        self: &Arc<Self>,
        repository: &Repository,
        part: Part,
        given_up: &BTreeSet<String>,
    ) -> Result<Again, ForgeError> {
        let api = self.itself(repository)?;
        let (tries, rest) = tries(&api, part).await?;
        let missed = missed(&tries, given_up);
        let left = missed.len() > MOST;
        let mut sent = Vec::new();
        for missed in missed.into_iter().take(MOST) {
            if !sent.is_empty() {
                tokio::time::sleep(GAP).await;
            }
            let id = missed.id.to_string();
            let path = ["app", "hook", "deliveries", &id, "attempts"];
            let request = api.request(Method::POST, &path)?;
            api.send(request, About::Hooks).await?;
            sent.push(missed.guid.clone());
        }
        Ok(Again { sent, left, rest })
    }
}

/// What GitHub tried to send, the newest first, and the part that is left.
async fn tries(api: &Api, part: Part) -> Result<(Vec<Try>, Option<Part>), ForgeError> {
    let Part { from, since } = part;
    let (mut all, mut cursor) = (Vec::new(), from);
    for _ in 0..MOST_PAGES {
        let mut query = vec![("per_page", PAGE.to_owned())];
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        let path = ["app", "hook", "deliveries"];
        let request = api.asked(Method::GET, &path, &query)?;
        let response = api.send(request, About::Hooks).await?;
        cursor = next(response.headers());
        let github = ForgeKind::Github;
        let body = answer::body(response, MOST_BYTES, github).await?;
        let page: Vec<Try> = read(&body).map_err(|message| answer::unreadable(github, message))?;
        let is_last = page.last().is_none_or(|last| last.is_older_than(since));
        all.extend(page.into_iter().filter(|one| !one.is_older_than(since)));
        if is_last || cursor.is_none() {
            return Ok((all, None));
        }
    }
    let from = cursor;
    Ok((all, Some(Part { from, since })))
}

/// Where the next page begins.
fn next(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let next = links
        .split(',')
        .find(|link| link.contains("rel=\"next\""))?;
    let (_, url) = next.split_once('<')?;
    let (url, _) = url.split_once('>')?;
    let url = Url::parse(url).ok()?;
    let mut query = url.query_pairs();
    let (_, cursor) = query.find(|(name, _)| name == "cursor")?;
    Some(cursor.into_owned())
}

/// The last try of each message of a press that nobody took, the oldest first.
fn missed<'a>(tries: &'a [Try], given_up: &BTreeSet<String>) -> Vec<&'a Try> {
    let taken = tries
        .iter()
        .filter(|one| (200..300).contains(&one.status_code));
    let taken: BTreeSet<&str> = taken.map(|one| &*one.guid).collect();
    let mut seen = BTreeSet::new();
    let mut missed: Vec<&Try> = tries
        .iter()
        .filter(|one| one.is_press() && !taken.contains(&*one.guid))
        .filter(|one| !given_up.contains(&one.guid) && seen.insert(&*one.guid))
        .collect();
    missed.reverse();
    missed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(id: u64, guid: &str, code: i64, event: &str, action: Option<&str>) -> Try {
        Try {
            id,
            guid: guid.to_owned(),
            delivered_at: "2026-01-31T12:00:00Z".to_owned(),
            status_code: code,
            event: event.to_owned(),
            action: action.map(str::to_owned),
        }
    }

    #[test]
    fn only_presses_that_nobody_took_are_missed() {
        let pressed = Some("requested_action");
        let tries = [
            tried(9, "again", 0, "check_run", pressed),
            tried(8, "taken", 202, "check_run", pressed),
            tried(7, "all", 502, "check_suite", Some("rerequested")),
            tried(6, "push", 0, "push", None),
            tried(5, "made", 0, "check_run", Some("created")),
            tried(4, "taken", 0, "check_run", pressed),
            tried(3, "again", 0, "check_run", pressed),
            tried(2, "given up", 0, "check_run", pressed),
        ];
        let given_up = BTreeSet::from(["given up".to_owned()]);
        let ids = missed(&tries, &given_up).into_iter().map(|one| one.id);
        assert_eq!(ids.collect::<Vec<_>>(), [7, 9]);
        let then = moment(Some("2026-01-31T12:00:00Z")).unwrap();
        assert!(!tries[0].is_older_than(then) && tries[0].is_older_than(then + protocol::Span(1)));
    }

    #[test]
    fn a_list_goes_on_at_its_cursor() {
        let of = |link: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, link.parse().unwrap());
            next(&headers)
        };
        let link =
            "<https://api.github.com/app/hook/deliveries?per_page=100&cursor=v1_12>; rel=\"next\"";
        assert_eq!(of(link).as_deref(), Some("v1_12"));
        assert_eq!(of(&link.replace("next", "prev")), None);
        assert_eq!(of("nonsense; rel=\"next\""), None);
        assert_eq!(next(&HeaderMap::new()), None);
    }
}
