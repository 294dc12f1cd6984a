//! `trainyard reproduce`: runs the job that left a version once more, and says what differs.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args as ClapArgs;
use protocol::api::Done;
use protocol::registry::{Reproduction, Version, VersionDetail, VersionRef};
use protocol::{JobId, Outcome, Span};

use super::client::{Client, ServerArgs, Unreachable, segment};
use super::{Exit, models, out};

/// Time between two looks at the job.
const PAUSE: Duration = Duration::from_secs(2);
/// So many looks in a row may fail: a server that starts anew is back by then.
const MOST_TRIES: u32 = 30;

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard reproduce digits @champion
  trainyard reproduce digits 3 --no-wait
  trainyard reproduce digits 3 --job 01jd3v5n2q8k4h6s7t9w0x1y2z --json

The job runs at the same commit, with the same parameters, files and requirements, and in the same image where that has a
digest. It leaves a run and no version. The exit code is 0 where files and metrics are the same, 1 where something differs or
the job failed.")]
pub(crate) struct Args {
    /// The model
    name: String,
    /// The version
    #[arg(id = "which", value_name = "VERSION")]
    version: VersionRef,
    /// Start it and do not wait
    #[arg(long, conflicts_with = "job")]
    no_wait: bool,
    /// What differs of an earlier reproduction, by its job
    #[arg(long)]
    job: Option<JobId>,
    /// How long to wait
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    wait: Span,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    // An alias may move while the job runs.
    let at = models::at(&args.name, &args.version)?;
    let found: VersionDetail = client.get(&at).await?;
    let at = models::at(&args.name, &fixed(&found.version)?)?;
    let job = match args.job.clone() {
        Some(job) => job,
        None => start(&client, &at).await?,
    };
    if args.no_wait {
        out::say(&how_to_follow(&args, &job))?;
        return Ok(Exit::Done);
    }
    let ended = tokio::select! {
        ended = wait(&client, &at, &job, args.wait) => ended,
        _ = tokio::signal::ctrl_c() => Ok(None),
    };
    // Of a job that was not started here, it is not known that there is one.
    let ended = ended.inspect_err(|_| {
        if args.job.is_none() {
            out::aside(&how_to_follow(&args, &job));
        }
    })?;
    let Some(ended) = ended else {
        out::aside(&how_to_follow(&args, &job));
        return Ok(Exit::Cancelled);
    };
    match args.json {
        true => out::json(&ended)?,
        false => out::say(&models::reproduced(&ended))?,
    }
    Ok(exit_of(&ended))
}

/// The version by what never changes.
fn fixed(version: &Version) -> anyhow::Result<VersionRef> {
    match version.version {
        Some(number) => Ok(VersionRef::Number(number)),
        None => Ok(version.id.parse()?),
    }
}

async fn start(client: &Client, at: &str) -> anyhow::Result<JobId> {
    let done: Done = client.post(&format!("{at}/reproduce"), None::<&()>).await?;
    match done.job {
        Some(job) => Ok(job),
        None => bail!("the server did not say which job it is: {}", done.message),
    }
}

fn how_to_follow(args: &Args, job: &JobId) -> String {
    let (name, version) = (&args.name, &args.version);
    format!(
        "job {job} goes on: 'trainyard logs -f {job}' follows it, 'trainyard reproduce {name} {version} --job {job}' says what differs"
    )
}

/// Looks until it is over; none: not within `most`. Looks that fail are repeated, but for one that the server refuses
/// from the beginning.
async fn wait(
    client: &Client,
    at: &str,
    job: &JobId,
    most: Span,
) -> anyhow::Result<Option<Reproduction>> {
    let began = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let path = format!("{at}/reproductions/{}", segment(job.as_str()));
    let (mut seen, mut failed) = (false, 0);
    loop {
        match client.get::<Reproduction>(&path).await {
            Ok(now) if now.outcome.is_some() => {
                clear(terminal);
                return Ok(Some(now));
            }
            Ok(now) => {
                (seen, failed) = (true, 0);
                if terminal {
                    draw(job, &now, began.elapsed().into());
                }
            }
            Err(error) => {
                failed += 1;
                let passes = seen || error.is::<Unreachable>();
                if failed >= MOST_TRIES || !passes {
                    clear(terminal);
                    return Err(error);
                }
                tracing::debug!(%error, "a look at the job failed");
            }
        }
        if began.elapsed() >= most.into() {
            clear(terminal);
            return Ok(None);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The line that says how it stands.
fn draw(job: &JobId, now: &Reproduction, took: Span) {
    let reason = now.reason.as_deref().unwrap_or_default();
    let line = out::clean(&format!("job {job}: {} for {took} {reason}", now.state));
    let line: String = line.chars().take(out::width().saturating_sub(1)).collect();
    let _ = write!(std::io::stderr(), "\r\u{1b}[K{line}");
}

fn clear(terminal: bool) {
    if terminal {
        let _ = write!(std::io::stderr(), "\r\u{1b}[K");
    }
}

fn exit_of(ended: &Reproduction) -> Exit {
    match (&ended.outcome, &ended.compared) {
        (Some(Outcome::Succeeded), Some(compared)) if compared.same => Exit::Done,
        (Some(Outcome::Cancelled { .. }), _) => Exit::Cancelled,
        (Some(outcome), None) => super::run::exit_of(outcome),
        (Some(_), Some(_)) | (None, _) => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::client::fake::{Answer, Fake};
    use super::*;

    const JOB: &str = "01jd3v5n2q8k4h6s7t9w0x1y2z";

    fn reproduction(state: &str, outcome: &Value) -> Answer {
        Answer::json(&json!({
            "version": {"id": JOB, "model": "digits", "version": 3, "status": "version", "created_at": 0},
            "job": JOB, "state": state, "outcome": outcome,
        }))
    }

    async fn waited(answers: Vec<Answer>) -> (anyhow::Result<Option<Reproduction>>, usize) {
        let fake = Fake::start(answers).await;
        let job = JOB.parse().unwrap();
        let ended = wait(&fake.client(), "models/digits/3", &job, Span::hours(1)).await;
        (ended, fake.asked().len())
    }

    #[tokio::test]
    async fn a_look_that_fails_does_not_end_the_wait() {
        let over = json!({"outcome": "succeeded"});
        let (ended, looks) = waited(vec![
            reproduction("running", &Value::Null),
            Answer::Break,
            reproduction("succeeded", &over),
        ])
        .await;
        assert_eq!(ended.unwrap().unwrap().outcome, Some(Outcome::Succeeded));
        assert_eq!(looks, 3);
    }

    #[tokio::test]
    async fn what_the_server_refuses_at_once_is_not_asked_again() {
        let (ended, looks) = waited(vec![Answer::Error(404, "no such job")]).await;
        assert_eq!(ended.unwrap_err().to_string(), "no such job");
        assert_eq!(looks, 1);
    }
}
