//! `trainyard agents`: the hosts that carry out jobs, and tokens for new ones.

use clap::{Args as ClapArgs, Subcommand};
use protocol::Timestamp;
use protocol::api::{Agent, Page, RegistrationToken};

use super::client::{Client, ServerArgs};
use super::{Exit, out};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard agents
  trainyard agents token        then on the new host: trainyard agent register URL")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a one-time token that introduces one new agent
    Token,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    match args.action {
        Some(Action::Token) => token(&client, args.json).await?,
        None => list(&client, args.json).await?,
    }
    Ok(Exit::Done)
}

async fn token(client: &Client, json: bool) -> anyhow::Result<()> {
    let made: RegistrationToken = client.post("agents/tokens", None::<&()>).await?;
    if json {
        return out::json(&made);
    }
    let left = made.expires_at.since(Timestamp::now());
    // The token alone on standard output: a script can keep it.
    eprintln!(
        "for one new agent, within {left}; on that host:\n  TRAINYARD_REGISTRATION=<the token> trainyard agent register {}",
        client.page("")
    );
    out::say(&made.token)
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let page: Page<Agent> = client.get("agents").await?;
    if json {
        return out::json(&page);
    }
    if page.items.is_empty() {
        return out::say("no agent yet: 'trainyard agents token' makes a token for a first one");
    }
    let rows = page.items.into_iter().map(|agent| {
        let inventory = agent.inventory.as_ref();
        let host = inventory.map_or_else(String::new, |host| {
            format!("{} CPUs, {}", host.cpu_millis / 1_000, host.memory)
        });
        let gpus = inventory
            .map(|host| {
                host.gpus
                    .iter()
                    .map(|gpu| format!("{} {}", gpu.model, gpu.memory))
            })
            .map(|gpus| gpus.collect::<Vec<_>>().join("\n"))
            .unwrap_or_default();
        [
            agent.name,
            agent
                .closed
                .map_or(agent.state.clone(), |why| format!("{}: {why}", agent.state)),
            host,
            gpus,
            agent.jobs.len().to_string(),
            out::ago(agent.last_seen),
        ]
    });
    out::table(["AGENT", "STATE", "HOST", "GPUS", "JOBS", "SEEN"], rows)
}
