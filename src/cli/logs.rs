//! `trainyard logs`: a job's story on this terminal, as `trainyard run` shows it.

use std::time::Duration;

use clap::Args as ClapArgs;
use futures_util::StreamExt as _;
use protocol::api::JobDetail;
use protocol::job::State;
use protocol::{AttemptId, Event, JobId, Outcome};

use super::client::{Client, ServerArgs};
use super::live::Live;
use super::run::exit_of;
use super::{Exit, job, out};

/// A stream that was cut off is opened again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// So many times in a row without a new line.
const MOST_TRIES: u32 = 30;
/// Longest line of a stream; outputs above 64 KiB are not in it.
const LONGEST: usize = 16 << 20;

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard logs -f digits/train
  trainyard logs 01jd3v5n2q8k4h6s7t9w0x1y2z --json | jq 'select(.kind == \"metric\")'

With -f the exit code is the job's: 0 succeeded, 1 failed, 3 platform fault, 130 cancelled.")]
pub(crate) struct Args {
    /// The job: its id, or PROJECT/NAME for the newest of that name
    job: String,
    /// Go on until the job ends
    #[arg(short, long)]
    follow: bool,
    /// Print every event as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    let id = job::find(&client, &args.job).await?;
    let mut live = Live::elsewhere(args.json);
    if args.follow {
        follow(&client, &id, &mut live).await?;
    } else {
        so_far(&client, &id, &mut live).await?;
    }
    let detail = job::detail(&client, &id).await?;
    if !args.json {
        ending(&detail, &mut live)?;
    }
    Ok(match (args.follow, detail.job.state.outcome()) {
        (true, Some(outcome)) => exit_of(outcome),
        (true, None) | (false, _) => Exit::Done,
    })
}

/// What was said until now, piece by piece. The attempt is fixed: a retry in between begins anew.
async fn so_far(client: &Client, id: &JobId, live: &mut Live) -> anyhow::Result<()> {
    let detail = job::detail(client, id).await?;
    let Some(attempt) = detail.attempts.last() else {
        return Ok(());
    };
    let mut next = 1;
    loop {
        let path = format!("jobs/{id}/events?attempt={}&from={next}", attempt.id);
        let text = client.text(&path).await?;
        if text.is_empty() {
            return Ok(());
        }
        for line in text.lines() {
            let event: Event = serde_json::from_str(line)?;
            next = event.seq + 1;
            live.show(&event)?;
        }
    }
}

/// What is said, until the job ends. A connection that breaks is opened again where it broke.
async fn follow(client: &Client, id: &JobId, live: &mut Live) -> anyhow::Result<()> {
    let mut place = Place::default();
    let mut tries = 0;
    loop {
        let before = place.clone();
        match listen(client, id, &mut place, live).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if tries + 1 >= MOST_TRIES => return Err(error),
            Err(error) => tracing::debug!(%error, "the stream broke"),
        }
        tries = if place == before { tries + 1 } else { 0 };
        tokio::time::sleep(AGAIN).await;
    }
}

/// What was shown last.
#[derive(Debug, Clone, Default, PartialEq)]
struct Place {
    attempt: Option<AttemptId>,
    next: u64,
}

impl Place {
    /// Whether an event is the first one that is shown of its attempt: the server goes on to the next attempt in the
    /// same stream, and numbers begin anew.
    fn begins(&self, seq: u64) -> bool {
        self.next <= 1 || seq < self.next
    }
}

/// The job's last attempt; none: it waits for its first.
async fn newest(client: &Client, id: &JobId) -> anyhow::Result<Option<AttemptId>> {
    let attempts = job::detail(client, id).await?.attempts;
    Ok(attempts.into_iter().next_back().map(|last| last.id))
}

/// Listens to one connection; true: the job is over.
async fn listen(
    client: &Client,
    id: &JobId,
    place: &mut Place,
    live: &mut Live,
) -> anyhow::Result<bool> {
    let attempt = newest(client, id).await?;
    if place.attempt != attempt {
        *place = Place { attempt, next: 1 };
    }
    let path = format!("jobs/{id}/events/stream?from={}", place.next);
    let answer = client.stream(&path).await?;
    let mut bytes = answer.bytes_stream();
    let mut buffer = Vec::new();
    let mut ended = false;
    while let Some(chunk) = bytes.next().await {
        buffer.extend_from_slice(&chunk?);
        anyhow::ensure!(buffer.len() <= LONGEST, "a line of the stream is too long");
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            ended |= line.trim_end() == "event: end";
            if ended {
                continue;
            }
            if let Some(data) = line.strip_prefix("data: ")
                && let Ok(event) = serde_json::from_str::<Event>(data.trim_end())
            {
                if place.begins(event.seq) {
                    place.attempt = newest(client, id).await?;
                }
                place.next = event.seq + 1;
                live.show(&event)?;
            }
        }
    }
    Ok(ended)
}

/// The last lines: how it ended, or why there is nothing to show.
fn ending(detail: &JobDetail, live: &mut Live) -> anyhow::Result<()> {
    if let Some(report) = detail.attempts.last().and_then(|last| last.report.as_ref()) {
        return live.end(report);
    }
    match &detail.job.state {
        State::Finished {
            outcome: Outcome::Reused { of },
        } => out::say(&format!(
            "nothing ran: nothing that matters changed since job {of} (trainyard logs {of})"
        )),
        State::Finished { outcome } => out::say(&format!("it is over: {}", outcome.word())),
        State::Blocked { .. } | State::Queued => {
            let why = detail.job.reason.clone().unwrap_or_default();
            out::say(&format!("it waits. {why}"))
        }
        State::Leased { .. } | State::Running { .. } | State::Stopping { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::client::fake::{Answer, Fake};
    use super::*;

    const JOB: &str = "01jd3v5n2q8k4h6s7t9w0x1y2z";
    const FIRST: &str = "01jd3v5n2q8k4h6s7t9w0x1y2a";
    const SECOND: &str = "01jd3v5n2q8k4h6s7t9w0x1y2b";

    fn detail(attempts: &[&str]) -> Answer {
        let attempts: Vec<Value> = (1..)
            .zip(attempts)
            .map(|(number, id)| json!({"id": id, "number": number, "agent": "a", "created_at": 1}))
            .collect();
        Answer::json(&json!({
            "id": JOB, "pipeline": JOB, "name": "train", "state": "queued", "created_at": 1, "attempts": attempts,
            "in_pipeline": {
                "id": JOB, "project": "p", "number": 1, "commit": "0".repeat(40), "title": "t", "trigger": "push",
                "trust": "trusted", "created_at": 1, "state": "queued",
            },
            "spec": agent::local::notebook_spec("a.ipynb", None, "i"),
        }))
    }

    fn events(seqs: &[u64]) -> Answer {
        let event =
            |seq| json!({"seq": seq, "at": 1, "kind": "log", "stream": "stdout", "text": "x"});
        let lines = seqs
            .iter()
            .map(|seq| format!("id: {seq}\ndata: {}\n\n", event(seq)));
        Answer::Text(lines.collect())
    }

    #[tokio::test]
    async fn what_was_shown_is_not_asked_for_again_after_a_break() {
        let fake = Fake::start([
            // The job waits for its first attempt, which begins in the stream.
            detail(&[]),
            events(&[1, 2]),
            detail(&[FIRST]),
            // Of the first attempt there is a third line; then the next attempt begins.
            detail(&[FIRST]),
            events(&[3, 1, 2]),
            detail(&[FIRST, SECOND]),
            detail(&[FIRST, SECOND]),
            Answer::Text("event: end\ndata: {}\n\n".to_owned()),
        ])
        .await;
        let (client, id) = (fake.client(), JOB.parse().unwrap());
        let (mut place, mut live) = (Place::default(), Live::elsewhere(true));
        for over in [false, false, true] {
            let ended = listen(&client, &id, &mut place, &mut live).await.unwrap();
            assert_eq!(ended, over);
        }
        let streams: Vec<String> = fake
            .asked()
            .into_iter()
            .filter(|path| path.contains("stream"))
            .map(|path| path.rsplit('=').next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(streams, ["0", "3", "3"]);
        assert_eq!(place.attempt, Some(SECOND.parse().unwrap()));
    }
}
