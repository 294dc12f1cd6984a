//! `trainyard pipelines`: what was asked for lately, and how it stands.

use std::time::Duration;

use clap::Args as ClapArgs;
use protocol::api::{Job, Page, Pipeline, PipelineDetail};
use protocol::{Outcome, Timestamp};

use super::client::{Client, ServerArgs, segment};
use super::{Exit, out};

/// Time between two looks of `--watch`.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard pipelines --project digits
  trainyard pipelines 01jd3v5n2q8k4h6s7t9w0x1y2z      its jobs
  trainyard pipelines --json | jq '.items[0].state'")]
pub(crate) struct Args {
    /// A pipeline's id: show its jobs
    id: Option<String>,
    /// Only those of this project
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    project: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Look again every two seconds, until interrupted
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    if !args.watch {
        let text = look(&client, &args).await?;
        match args.json {
            true => out::raw(&text)?,
            false => out::say(&text)?,
        }
        return Ok(Exit::Done);
    }
    let mut shown = String::new();
    loop {
        let text = look(&client, &args).await?;
        if text != shown {
            out::screen(&text)?;
            shown = text;
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(client: &Client, args: &Args) -> anyhow::Result<String> {
    if let Some(id) = &args.id {
        let detail: PipelineDetail = client.get(&format!("pipelines/{}", segment(id))).await?;
        return if args.json {
            Ok(serde_json::to_string_pretty(&detail)?)
        } else {
            Ok(one(&detail, client))
        };
    }
    let mut path = format!("pipelines?limit={}", args.limit);
    if let Some(project) = &args.project {
        path += &format!("&project={}", segment(project));
    }
    let page: Page<Pipeline> = client.get(&path).await?;
    if args.json {
        return Ok(serde_json::to_string_pretty(&page)?);
    }
    if page.items.is_empty() {
        return Ok(
            "nothing was asked for yet: 'trainyard project add NAME URL' watches a repository"
                .to_owned(),
        );
    }
    let rows = page.items.iter().map(|pipeline| {
        [
            pipeline.state.clone(),
            format!("{} #{}", pipeline.project, pipeline.number),
            pipeline.commit.short().to_owned(),
            title(pipeline),
            out::ago(pipeline.created_at),
            pipeline.id.to_string(),
        ]
    });
    Ok(out::drawn(
        ["STATE", "PIPELINE", "COMMIT", "TITLE", "MADE", "ID"],
        rows,
    ))
}

/// What is wrong comes before what the commit says.
fn title(pipeline: &Pipeline) -> String {
    let nothing = pipeline
        .notes
        .first()
        .filter(|_| pipeline.state == "neutral");
    let text = match (&pipeline.problem, nothing) {
        (Some(problem), _) => &problem.message,
        (None, Some(why)) => &format!("nothing to run: {why}"),
        (None, None) => &pipeline.title,
    };
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(72)
        .collect()
}

fn one(detail: &PipelineDetail, client: &Client) -> String {
    let pipeline = &detail.pipeline;
    let mut text = format!(
        "{} #{}  {}  {}  {}\n{}\n",
        pipeline.project,
        pipeline.number,
        pipeline.commit.short(),
        pipeline.state,
        out::drawn([""], [[pipeline.title.clone()]]).trim(),
        client.page(&format!("/pipelines/{}", pipeline.id)),
    );
    for words in pipeline
        .problem
        .iter()
        .map(|problem| &problem.message)
        .chain(&pipeline.notes)
    {
        text += &format!("{}\n", render::terminal::clean(words, false));
    }
    if !detail.jobs.is_empty() {
        let rows = detail.jobs.iter().map(|job| {
            [
                job.name.clone(),
                job.state.word().to_owned(),
                took(job),
                says(job),
                job.id.to_string(),
            ]
        });
        text.push('\n');
        text += &out::drawn(["JOB", "STATE", "TOOK", "WHAT MATTERS", "ID"], rows);
    }
    text
}

fn took(job: &Job) -> String {
    let end = job.finished_at.unwrap_or_else(Timestamp::now);
    job.started_at
        .map_or_else(String::new, |start| end.since(start).to_string())
}

/// The one sentence about a job.
pub(crate) fn says(job: &Job) -> String {
    match job.state.outcome() {
        None => job.reason.clone().unwrap_or_default(),
        Some(Outcome::Succeeded) => String::new(),
        Some(Outcome::Reused { of }) => format!("nothing that matters changed; equal to {of}"),
        Some(Outcome::Skipped { why }) => why.clone(),
        Some(Outcome::Cancelled { by }) => format!("by {by}"),
        Some(Outcome::Failed(failure)) => {
            format!("{}: {}", failure.owner().word(), failure.message)
        }
    }
}
