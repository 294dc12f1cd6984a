//! `trainyard cancel`, `trainyard retry` and `trainyard approve`, and how commands are told which job.

use anyhow::bail;
use clap::Args as ClapArgs;
use protocol::JobId;
use protocol::api::{Done, JobDetail, Page, Pipeline, PipelineDetail};

use super::client::{Client, ServerArgs, segment};
use super::{Exit, out};

/// Pipelines that are looked through for a job by name.
const LOOK_BACK: u32 = 50;

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard cancel digits/train
  trainyard retry 01jd3v5n2q8k4h6s7t9w0x1y2z
  trainyard approve digits/train")]
pub(crate) struct Args {
    /// The job: its id, or PROJECT/NAME for the newest of that name
    job: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn cancel(args: Args) -> anyhow::Result<Exit> {
    ask(args, "cancel").await
}

pub(crate) async fn retry(args: Args) -> anyhow::Result<Exit> {
    ask(args, "retry").await
}

pub(crate) async fn approve(args: Args) -> anyhow::Result<Exit> {
    ask(args, "approve").await
}

async fn ask(args: Args, verb: &str) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    let id = find(&client, &args.job).await?;
    let done: Done = client
        .post(&format!("jobs/{id}/{verb}"), None::<&()>)
        .await?;
    if args.json {
        out::json(&done)?;
        return Ok(Exit::Done);
    }
    out::say(&done.message)?;
    if let Some(job) = &done.job {
        out::say(&format!("follow it: trainyard logs -f {job}"))?;
    }
    Ok(Exit::Done)
}

/// The job that a person means: an id, or `project/name` for the newest of that name.
pub(crate) async fn find(client: &Client, text: &str) -> anyhow::Result<JobId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let Some((project, name)) = text.split_once('/') else {
        bail!(
            "'{text}' is no job: give its id ('trainyard pipelines ID' shows it), or PROJECT/NAME for the newest"
        );
    };
    let path = format!("pipelines?limit={LOOK_BACK}&project={}", segment(project));
    let page: Page<Pipeline> = client.get(&path).await?;
    for pipeline in page.items {
        let detail: PipelineDetail = client.get(&format!("pipelines/{}", pipeline.id)).await?;
        if let Some(job) = detail.jobs.into_iter().find(|job| job.name == name) {
            return Ok(job.id);
        }
    }
    bail!("none of the last {LOOK_BACK} pipelines of '{project}' has a job '{name}'")
}

/// All that is known of a job.
pub(crate) async fn detail(client: &Client, id: &JobId) -> anyhow::Result<JobDetail> {
    client.get(&format!("jobs/{id}")).await
}
