//! What a forge remembers: everything behind one lock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::app::App;
use super::git::Repo;
use super::hooks::{Delivery, Event, Hook, Way};
use super::limits::Limiter;
use super::{Face, Outage};

/// `owner/name` of the one repository.
pub(crate) const OWNER: &str = "octo";
pub(crate) const NAME: &str = "hello";
/// Its branch that requests go to.
pub(crate) const MAIN: &str = "main";

/// How much a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    None,
    Read,
    Write,
    Admin,
}

/// Who a token stands for.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) login: String,
    /// In the forge's words.
    pub(super) scopes: Vec<String>,
    /// Of an App's installation: it alone may write check runs, and ends.
    pub(super) ends: Option<Duration>,
}

/// Where a request's commits come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Own,
    /// The fork of this person.
    Fork(String),
    /// A fork of this person that is no more.
    Deleted(String),
}

/// A pull or merge request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) title: String,
    pub(super) by: String,
    pub(super) source: Source,
    pub(super) branch: String,
    pub(super) head: String,
    pub(super) draft: bool,
    pub(super) open: bool,
    /// When something happened to it last, as payloads write it.
    pub(super) changed_at: String,
}

/// A status as a person sees it: the newest of its commit and context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) state: String,
    pub(crate) description: String,
    pub(crate) url: String,
    /// How many were written for this commit and context.
    pub(crate) written: u32,
}

/// A check run as a person sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    pub(crate) id: u64,
    pub(crate) commit: String,
    pub(crate) name: String,
    pub(crate) external_id: String,
    pub(crate) status: String,
    pub(crate) conclusion: Option<String>,
    pub(crate) details_url: String,
    pub(crate) title: String,
    pub(crate) summary: String,
    pub(crate) text: String,
    /// As sent, all of them.
    pub(crate) annotations: Vec<Value>,
    /// As sent; an update that says nothing of them leaves them.
    pub(crate) actions: Vec<Value>,
    pub(crate) started_at: Value,
    pub(crate) completed_at: Value,
}

/// A comment on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Comment {
    pub(crate) id: u64,
    pub(crate) request: u64,
    pub(crate) by: String,
    pub(crate) text: String,
    /// When it was written, as payloads write it.
    pub(crate) at: String,
    /// When it was written or edited last.
    pub(crate) changed_at: String,
    pub(crate) edits: u32,
    /// (who, what) in the forge's words.
    pub(crate) reactions: Vec<(String, String)>,
}

/// What a person would see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// By commit and context.
    pub(crate) statuses: BTreeMap<(String, String), Status>,
    pub(crate) checks: Vec<Check>,
    pub(crate) comments: Vec<Comment>,
    /// GitLab's pipelines of outer statuses: by commit, the ref of each.
    pub(crate) pipelines: Vec<(String, Option<String>)>,
}

impl Seen {
    /// The state of a commit's context, in the forge's word.
    pub(crate) fn state(&self, commit: &str, context: &str) -> Option<&str> {
        let key = (commit.to_owned(), context.to_owned());
        Some(self.statuses.get(&key)?.state.as_str())
    }

    /// Those that changed since then, as GitHub's and Gitea's API may be asked for; none: all.
    pub(super) fn on_since(&self, request: u64, since: Option<&str>) -> Vec<Comment> {
        let all = self.on(request).into_iter();
        let changed = all.filter(|comment| since.is_none_or(|since| *comment.changed_at >= *since));
        changed.cloned().collect()
    }

    /// The comments on a request, oldest first.
    pub(crate) fn on(&self, request: u64) -> Vec<&Comment> {
        self.comments
            .iter()
            .filter(|comment| comment.request == request)
            .collect()
    }
}

/// A call to the API, as it was answered.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Since the forge's start, by its clock.
    pub(crate) at: Duration,
    pub(crate) method: String,
    /// Behind the API's base, without the query.
    pub(crate) path: String,
    /// Whether it came with a token, good or not.
    pub(crate) with_token: bool,
    pub(crate) status: u16,
}

pub(super) struct State {
    pub(super) face: Face,
    /// Where it listens.
    pub(super) url: String,
    /// Where repositories lie: `OWNER/NAME.git` and the forks.
    pub(super) root: PathBuf,
    started: Instant,
    /// How far the clock was put forward.
    pub(super) forward: Duration,
    last_id: u64,
    pub(super) private: bool,
    pub(super) repo: Repo,
    pub(super) forks: BTreeMap<String, Repo>,
    /// Branches and tags as they were last announced.
    pub(super) known: BTreeMap<String, String>,
    pub(super) requests: BTreeMap<u64, Request>,
    /// Numeric ids of people, by name.
    pub(super) users: BTreeMap<String, u64>,
    pub(super) levels: BTreeMap<String, Level>,
    pub(super) tokens: BTreeMap<String, Token>,
    pub(super) app: Option<App>,
    /// Whether the App's installation is.
    pub(super) suspended: bool,
    pub(super) hooks: Vec<Hook>,
    /// Whether its GitLab is new enough to sign what hooks are told.
    pub(super) signs: bool,
    /// What has to be told to hooks, and was not yet.
    pub(super) outbox: Vec<Event>,
    /// Deliveries that are to be sent once more.
    pub(super) again: Vec<String>,
    /// What Git LFS has, by its hash.
    pub(super) large: BTreeMap<String, Vec<u8>>,
    /// What of it was fetched, in order.
    pub(super) fetched: Vec<String>,
    pub(super) way: Way,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) seen: Seen,
    pub(super) calls: Vec<Call>,
    pub(super) violations: Vec<String>,
    pub(super) limiter: Limiter,
    pub(super) outage: Option<Outage>,
    /// How much longer each call takes.
    pub(super) slow: Duration,
}

impl State {
    pub(super) fn new(face: Face, url: String, root: PathBuf) -> Self {
        Self {
            face,
            url,
            repo: Repo::create(&root, &format!("{OWNER}/{NAME}")),
            root,
            started: Instant::now(),
            forward: Duration::ZERO,
            last_id: 1000,
            private: false,
            forks: BTreeMap::new(),
            known: BTreeMap::new(),
            requests: BTreeMap::new(),
            users: BTreeMap::new(),
            levels: BTreeMap::from([(OWNER.to_owned(), Level::Admin)]),
            tokens: BTreeMap::new(),
            app: None,
            suspended: false,
            hooks: Vec::new(),
            signs: true,
            outbox: Vec::new(),
            again: Vec::new(),
            large: BTreeMap::new(),
            fetched: Vec::new(),
            way: Way::Open,
            deliveries: Vec::new(),
            seen: Seen::default(),
            calls: Vec::new(),
            violations: Vec::new(),
            limiter: Limiter::default(),
            outage: None,
            slow: Duration::ZERO,
        }
    }

    pub(super) fn full_name(&self) -> String {
        format!("{OWNER}/{NAME}")
    }

    /// Since the start, by the forge's clock.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed() + self.forward
    }

    /// Seconds since 1970, by the forge's clock.
    pub(super) fn unix(&self) -> u64 {
        let now = SystemTime::now() + self.forward;
        now.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs()
    }

    /// The same, as payloads write it.
    pub(super) fn iso(&self) -> String {
        iso(self.unix())
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A person's numeric id; a new person gets one.
    pub(super) fn user(&mut self, login: &str) -> u64 {
        if let Some(id) = self.users.get(login) {
            return *id;
        }
        let id = self.next_id();
        self.users.insert(login.to_owned(), id);
        id
    }

    /// A token that is known and has not ended.
    pub(super) fn good_token(&self, text: &str) -> Option<Token> {
        let token = self.tokens.get(text)?;
        let ended = token.ends.is_some_and(|end| end <= self.now());
        (!ended).then(|| token.clone())
    }

    /// What a person may do: everybody reads a public repository.
    pub(super) fn level(&self, login: &str) -> Level {
        let least = if self.private {
            Level::None
        } else {
            Level::Read
        };
        self.levels.get(login).copied().unwrap_or(least)
    }

    /// Whether somebody sees that there is a repository.
    pub(super) fn sees(&self, who: Option<&Token>) -> bool {
        let member = |token: &Token| token.ends.is_some() || self.level(&token.login) > Level::None;
        !self.private || who.is_some_and(member)
    }

    pub(super) fn violated(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }
}

/// Seconds since 1970 as `2026-01-31T12:00:00Z`.
pub(super) fn iso(unix: u64) -> String {
    let (year, month, day) = date(unix);
    let second = unix % 86_400;
    format!(
        "{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The same as HTTP writes it: `Sat, 31 Jan 2026 12:00:00 GMT`.
pub(super) fn http_date(unix: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (year, month, day) = date(unix);
    let second = unix % 86_400;
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[(unix / 86_400 % 7) as usize],
        MONTHS[month as usize - 1],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of seconds since 1970.
fn date(unix: u64) -> (u64, u64, u64) {
    let days = unix / 86_400;
    // Days and years are counted from a first of March: a leap day is then the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + turn, month, day)
}
