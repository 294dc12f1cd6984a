//! `trainyard usage`: what projects, people and branches had of the hosts.

use clap::{Args as ClapArgs, ValueEnum};
use protocol::Span;
use protocol::api::{Usage, UsageBy, UsageRow};

use super::client::{Client, ServerArgs, segment};
use super::{Exit, out};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard usage
  trainyard usage --since 30d --by person
  trainyard usage --by branch --json | jq '.items[] | select(.gpu_hours > 10)'

An attempt counts from its start to its end, with the GPUs and CPUs that were booked for it, used or not.")]
pub(crate) struct Args {
    /// How far back
    #[arg(long, value_name = "TIME", default_value = "7d")]
    since: Span,
    /// Whose
    #[arg(long, value_enum, default_value_t = By::Project)]
    by: By,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    Project,
    /// Who asked, else who wrote the commit
    Person,
    Branch,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    let by = match args.by {
        By::Project => UsageBy::Project,
        By::Person => UsageBy::Person,
        By::Branch => UsageBy::Branch,
    };
    let since = segment(&format!("{}ms", args.since.0));
    let path = format!("usage?since={since}&by={}", by.word());
    let usage: Usage = client.get(&path).await?;
    if args.json {
        out::json(&usage)?;
        return Ok(Exit::Done);
    }
    if usage.items.is_empty() {
        out::say(&format!("nothing ran in the last {}", args.since))?;
        return Ok(Exit::Done);
    }
    let head = match by {
        UsageBy::Project => "PROJECT",
        UsageBy::Person => "PERSON",
        UsageBy::Branch => "BRANCH",
    };
    let header = [head, "GPU-HOURS", "CPU-HOURS", "JOBS"];
    out::table(header, usage.items.iter().map(row))?;
    if usage.more > 0 {
        out::say(&format!("and {} that had less", usage.more))?;
    }
    Ok(Exit::Done)
}

fn row(row: &UsageRow) -> [String; 4] {
    let name = match &row.project {
        Some(project) => format!("{project} {}", row.name),
        None => row.name.clone(),
    };
    [
        name,
        format!("{:.1}", row.gpu_hours),
        format!("{:.1}", row.cpu_hours),
        row.jobs.to_string(),
    ]
}
