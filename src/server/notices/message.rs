//! The message itself: what a chat shows, and beside it what a program reads. Pure. Its fields are promised in
//! `docs/notifications.md`: they may become more, and mean what they mean.

use protocol::outcome::Failure;
use protocol::report::MetricValue;
use protocol::{CommitId, Outcome, PipelineId, Timestamp, TriggerKind};
use serde::Serialize;

use super::story::{Event, State};
use crate::forge::bounded;
use crate::report::{JobView, PipelineView, blame, change, figure};
use crate::store::pipelines::Pipeline;

/// Most failed jobs that are named.
const MOST_JOBS: usize = 20;
/// Most metrics.
const MOST_METRICS: usize = 40;
/// Most lines of jobs, and of metrics, in the text.
const MOST_LINES: usize = 8;
/// Most bytes of a message.
const MOST_BYTES: usize = 32 << 10;
/// Most characters of a name, and of a sentence.
const NAME: usize = 120;
const SENTENCE: usize = 300;

/// What is known of a pipeline that is over.
pub(super) struct Ended<'a> {
    pub(super) project: &'a str,
    pub(super) row: &'a Pipeline,
    pub(super) view: &'a PipelineView,
    pub(super) branch: Option<&'a str>,
    pub(super) state: State,
    pub(super) event: Event,
    pub(super) finished_at: Timestamp,
    /// Where this server's pages are.
    pub(super) pages: Option<&'a str>,
}

/// A message, in the form that Slack's incoming webhooks take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Message {
    text: String,
    /// Chats would fetch our pages, which want a login.
    unfurl_links: bool,
    unfurl_media: bool,
    /// The same when it is sent again; other messages have others.
    delivery: String,
    event: Event,
    project: String,
    state: State,
    branch: Option<String>,
    commit: Commit,
    pipeline: Told,
    links: Links,
    /// Those that failed.
    jobs: Vec<Failed>,
    metrics: Vec<Metric>,
    left_out: LeftOut,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Commit {
    id: CommitId,
    subject: String,
    author: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Told {
    id: PipelineId,
    number: u64,
    trigger: &'static str,
    created_at: Timestamp,
    finished_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Links {
    pipeline: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Failed {
    name: String,
    /// Whose it is: `user`, `limit` or `platform`.
    owner: &'static str,
    kind: &'static str,
    cause: String,
    link: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Metric {
    job: String,
    name: String,
    #[serde(with = "protocol::event::float")]
    value: f64,
    /// Its difference to the last success that it is compared with.
    change: Option<f64>,
}

/// How many had no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
struct LeftOut {
    jobs: usize,
    metrics: usize,
}

impl Message {
    /// The message of a pipeline's end.
    pub(super) fn of(ended: &Ended<'_>) -> Self {
        let (row, view) = (ended.row, ended.view);
        let mut jobs = failed(ended);
        let mut metrics: Vec<Metric> = view.jobs.iter().flat_map(metrics_of).collect();
        let left_out = LeftOut {
            jobs: jobs.len().saturating_sub(MOST_JOBS),
            metrics: metrics.len().saturating_sub(MOST_METRICS),
        };
        jobs.truncate(MOST_JOBS);
        metrics.truncate(MOST_METRICS);
        // A commit's author comes with an address: a chat is not the place for it.
        let author = row.author.split(" <").next().unwrap_or_default();
        let mut message = Self {
            text: String::new(),
            unfurl_links: false,
            unfurl_media: false,
            delivery: String::new(),
            event: ended.event,
            project: ended.project.to_owned(),
            state: ended.state,
            branch: ended.branch.map(|branch| bounded(branch, NAME)),
            commit: Commit {
                id: row.trigger.commit.clone(),
                subject: bounded(&row.subject, SENTENCE),
                author: bounded(author, NAME),
            },
            pipeline: Told {
                id: row.id.clone(),
                number: row.number,
                trigger: trigger_word(&row.trigger.kind),
                created_at: row.created_at,
                finished_at: ended.finished_at,
            },
            links: Links {
                pipeline: page(ended.pages, &format!("/pipelines/{}", row.id)),
            },
            jobs,
            metrics,
            left_out,
        };
        message.text = text(&message);
        message
    }

    /// The message under this id; the last metrics and jobs go where it would be too long.
    pub(super) fn to(&self, delivery: &str) -> Self {
        let mut message = self.clone();
        delivery.clone_into(&mut message.delivery);
        while message.size() > MOST_BYTES {
            if message.metrics.pop().is_some() {
                message.left_out.metrics += 1;
            } else if message.jobs.pop().is_some() {
                message.left_out.jobs += 1;
            } else {
                break;
            }
        }
        message
    }

    fn size(&self) -> usize {
        serde_json::to_vec(self).map_or(0, |json| json.len())
    }
}

fn trigger_word(kind: &TriggerKind) -> &'static str {
    match kind {
        TriggerKind::Push => "push",
        TriggerKind::PullRequest { .. } => "pull_request",
        TriggerKind::Schedule { .. } => "schedule",
        TriggerKind::Rerun { .. } => "rerun",
        TriggerKind::Reproduction { .. } => "reproduction",
        TriggerKind::Person { .. } => "person",
    }
}

fn page(pages: Option<&str>, path: &str) -> Option<String> {
    pages.map(|pages| format!("{}{path}", pages.trim_end_matches('/')))
}

/// The jobs that failed; where nothing could be planned, that.
fn failed(ended: &Ended<'_>) -> Vec<Failed> {
    let of = |name: &str, failure: &Failure, path: &str| Failed {
        name: bounded(name, NAME),
        owner: failure.owner().word(),
        kind: failure.kind.word(),
        cause: bounded(&blame(failure), SENTENCE),
        link: page(ended.pages, path),
    };
    let planning = ended.view.problem.iter();
    let planning = planning.map(|failure| {
        let path = format!("/pipelines/{}", ended.row.id);
        of(plan::FILE_NAME, failure, &path)
    });
    let jobs = ended.view.jobs.iter().filter_map(|job| {
        let failure = match job.state.outcome()? {
            Outcome::Failed(failure) => failure,
            Outcome::Succeeded
            | Outcome::Reused { .. }
            | Outcome::Skipped { .. }
            | Outcome::Cancelled { .. } => return None,
        };
        Some(of(&job.name, failure, &format!("/jobs/{}", job.id)))
    });
    planning.chain(jobs).collect()
}

/// The metrics of a job that the pipeline file names; where it names none, all that it reported.
fn metrics_of(job: &JobView) -> impl Iterator<Item = Metric> {
    let reported = job.report.iter().flat_map(|report| &report.metrics);
    let wanted = move |metric: &&MetricValue| {
        job.metrics.is_empty() || job.metrics.contains_key(&metric.name)
    };
    reported.filter(wanted).map(move |metric| {
        let mut base = job.base.iter().flat_map(|base| &base.metrics);
        let base = base.find(|base| base.name == metric.name);
        let change = base.map(|base| metric.value - base.value);
        Metric {
            job: bounded(&job.name, NAME),
            name: bounded(&metric.name, NAME),
            value: metric.value,
            change: change.filter(|change| change.is_finite()),
        }
    })
}

/// What a chat shows, in Slack's mrkdwn: a few lines.
fn text(message: &Message) -> String {
    let mut lines = vec![headline(message)];
    let Commit {
        id,
        subject,
        author,
    } = &message.commit;
    lines.push(format!(
        "{} {} ({})",
        id.short(),
        plain(subject),
        plain(author)
    ));
    for job in message.jobs.iter().take(MOST_LINES) {
        let name = link(job.link.as_deref(), &plain(&job.name));
        let whose = match job.owner {
            "platform" => "platform fault, not the commit's: ",
            "limit" => "limit: ",
            _ => "",
        };
        lines.push(format!("• {name}: {whose}{}", plain(&job.cause)));
    }
    let unsaid = message.jobs.len().saturating_sub(MOST_LINES) + message.left_out.jobs;
    if unsaid > 0 {
        lines.push(format!("• and {unsaid} more"));
    }
    let metrics: Vec<String> = message
        .metrics
        .iter()
        .take(MOST_LINES)
        .map(measured)
        .collect();
    if !metrics.is_empty() {
        lines.push(metrics.join(" · "));
    }
    lines.join("\n")
}

/// `🔴 digits: the schedule failed on main (#12)`.
fn headline(message: &Message) -> String {
    let (sign, what) = match (message.event, message.state) {
        (Event::Failed, _) | (Event::Finished, State::Failed) => ("🔴", "failed"),
        (Event::Recovered, _) => ("🟢", "works again"),
        (Event::Finished, State::Succeeded) => ("🟢", "succeeded"),
        (Event::Finished, State::Cancelled) => ("⚪", "was cancelled"),
    };
    let who = match message.pipeline.trigger {
        "schedule" => "the schedule ",
        "pull_request" => "the pull request ",
        _ => "",
    };
    let branch = message.branch.as_deref();
    let branch = branch.map_or(String::new(), |branch| format!(" on {}", plain(branch)));
    let number = format!("#{}", message.pipeline.number);
    let number = link(message.links.pipeline.as_deref(), &number);
    format!("{sign} {}: {who}{what}{branch} ({number})", message.project)
}

fn measured(metric: &Metric) -> String {
    let now = format!("{} {}", plain(&metric.name), figure(metric.value));
    match metric.change {
        Some(by) => format!("{now} ({})", change(by)),
        None => now,
    }
}

/// Words that lead to a page. A page's address has none of the characters that end it.
fn link(page: Option<&str>, words: &str) -> String {
    match page {
        Some(page) => format!("<{page}|{words}>"),
        None => words.to_owned(),
    }
}

/// Foreign text in mrkdwn. Slack reads `<…>` as links and mentions and wants these three characters escaped
/// (api.slack.com, "Formatting text for app surfaces"); a chat that speaks its form takes a bare `@name` for a mention.
fn plain(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    let text = text.replace('<', "&lt;").replace('>', "&gt;");
    // It would part the words of a link.
    text.replace('|', "¦").replace('@', "@\u{200b}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(jobs: usize, metrics: usize, words: &str) -> Message {
        let job = Failed {
            name: bounded(words, NAME),
            owner: "user",
            kind: "cell_raised",
            cause: bounded(words, SENTENCE),
            link: Some(format!("https://ci.example.com/jobs/{jobs}")),
        };
        let metric = Metric {
            job: bounded(words, NAME),
            name: bounded(words, NAME),
            value: f64::NAN,
            change: None,
        };
        let mut message = Message {
            text: String::new(),
            unfurl_links: false,
            unfurl_media: false,
            delivery: String::new(),
            event: Event::Failed,
            project: "digits".to_owned(),
            state: State::Failed,
            branch: Some(bounded(words, NAME)),
            commit: Commit {
                id: "4".repeat(40).parse().unwrap(),
                subject: bounded(words, SENTENCE),
                author: bounded(words, NAME),
            },
            pipeline: Told {
                id: PipelineId::generate(),
                number: 12,
                trigger: "push",
                created_at: Timestamp(1),
                finished_at: Timestamp(2),
            },
            links: Links { pipeline: None },
            jobs: vec![job; jobs],
            metrics: vec![metric; metrics],
            left_out: LeftOut::default(),
        };
        message.text = text(&message);
        message
    }

    #[test]
    fn a_message_has_room_for_what_matters_and_says_what_had_none() {
        for words in ["&<>@".repeat(500), "🔥".repeat(2_000), "x".repeat(2_000)] {
            let full = message(MOST_JOBS, MOST_METRICS, &words);
            let sent = full.to("a delivery");
            assert!(sent.size() <= MOST_BYTES, "{}", sent.size());
            assert_eq!(sent.jobs.len() + sent.left_out.jobs, MOST_JOBS);
            assert_eq!(sent.metrics.len() + sent.left_out.metrics, MOST_METRICS);
            assert!(sent.jobs.len() >= 5, "{}", sent.jobs.len());
            assert!(sent.text.contains("• and 12 more"), "{}", sent.text);
        }
    }

    #[test]
    fn what_comes_from_outside_is_shown_as_text() {
        let said = message(1, 1, "<!channel> <http://x|here> @all & more").text;
        assert!(
            !said.contains("<!") && !said.contains("<http:") && !said.contains("@all"),
            "{said}"
        );
        assert!(
            said.contains("&lt;!channel&gt;") && said.contains("&amp; more"),
            "{said}"
        );
    }
}
