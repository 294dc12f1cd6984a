//! `trainyard agents`: the hosts that carry out jobs, and tokens for new ones.

use clap::{Args as ClapArgs, Subcommand};
use protocol::Timestamp;
use protocol::api::{Agent, Done, Drain, Page, RegistrationToken};

use super::client::{Client, ServerArgs, segment};
use super::{Exit, out};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard agents
  trainyard agents token        then on the new host: trainyard agent register URL
  trainyard agents drain gpu-3               take nothing new; what runs, runs to its end
  trainyard agents drain gpu-3 --stop-jobs   its jobs write a checkpoint and go on elsewhere
  trainyard agents undrain gpu-3
  trainyard agents remove gpu-3              one that is revoked, or lost, and will not come back")]
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
    /// Give an agent nothing new, until it is undrained
    Drain {
        /// The agent's name
        name: String,
        /// End its jobs with their grace; they go on elsewhere from their checkpoint, and it counts as no failure
        #[arg(long)]
        stop_jobs: bool,
    },
    /// Give an agent work again
    Undrain {
        /// The agent's name
        name: String,
    },
    /// Take an agent's secret away; its jobs are given to others
    Revoke {
        /// The agent's name
        name: String,
    },
    /// Take an agent out of the list that is revoked or lost, and has no job
    #[command(visible_alias = "rm")]
    Remove {
        /// The agent's name
        name: String,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    match args.action {
        Some(Action::Token) => token(&client, args.json).await?,
        Some(Action::Drain { name, stop_jobs }) => {
            let path = format!("agents/{}/drain", segment(&name));
            done(
                client.post(&path, Some(&Drain { stop_jobs })).await?,
                args.json,
            )?;
        }
        Some(Action::Undrain { name }) => {
            let path = format!("agents/{}/undrain", segment(&name));
            done(client.post(&path, None::<&()>).await?, args.json)?;
        }
        Some(Action::Revoke { name }) => {
            let path = format!("agents/{}/revoke", segment(&name));
            done(client.post(&path, None::<&()>).await?, args.json)?;
        }
        Some(Action::Remove { name }) => {
            let path = format!("agents/{}", segment(&name));
            done(client.delete(&path).await?, args.json)?;
        }
        None => list(&client, args.json).await?,
    }
    Ok(Exit::Done)
}

fn done(done: Done, json: bool) -> anyhow::Result<()> {
    if json {
        return out::json(&done);
    }
    out::say(&done.message)
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
            let cpus = match host.cpu_millis / 1_000 {
                1 => "1 CPU".to_owned(),
                n => format!("{n} CPUs"),
            };
            format!("{cpus}, {}", host.memory)
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
