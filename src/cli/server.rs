//! `trainyard server`: runs the server, and makes the tokens that its host's administrator hands out.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};
use protocol::api::Role;
use protocol::{Span, Timestamp};
use serde_json::json;
use server::config::Config;
use server::secret::Secret;
use server::state::Server;
use server::store::{Store, agents};

use super::Exit;

/// Read where `--config` names no other.
const USUAL_FILE: &str = "/etc/trainyard/server.toml";

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// The server's configuration; /etc/trainyard/server.toml where that is there
    #[arg(long, value_name = "FILE", env = "TRAINYARD_SERVER_CONFIG")]
    config: Option<PathBuf>,
    /// Print the address as JSON once it listens
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make an API token in the server's database; the first administrator's is made so
    Token(NewToken),
    /// Make a one-time token that registers an agent
    AgentToken(NewAgentToken),
}

#[derive(Debug, ClapArgs)]
struct NewToken {
    /// Whose or what for; unique
    name: String,
    /// read, run or admin
    #[arg(long, default_value = "admin")]
    role: Role,
    /// The server's configuration; /etc/trainyard/server.toml where that is there
    #[arg(long, value_name = "FILE", env = "TRAINYARD_SERVER_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
struct NewAgentToken {
    /// How long it may be used, such as 24h
    #[arg(long, default_value = "24h")]
    life: Span,
    /// The server's configuration; /etc/trainyard/server.toml where that is there
    #[arg(long, value_name = "FILE", env = "TRAINYARD_SERVER_CONFIG")]
    config: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    match args.action {
        Some(Action::Token(new)) => token(&new).await,
        Some(Action::AgentToken(new)) => agent_token(&new).await,
        None => serve(config(args.config.as_deref())?, args.json).await,
    }
}

/// The server's configuration: of the file, of the usual place, or the defaults.
fn config(path: Option<&Path>) -> anyhow::Result<Config> {
    match path {
        Some(path) => Ok(Config::read(path)?),
        None if Path::new(USUAL_FILE).exists() => Ok(Config::read(Path::new(USUAL_FILE))?),
        None => Ok(Config::default()),
    }
}

async fn serve(config: Config, json: bool) -> anyhow::Result<Exit> {
    let handle = Server::start(config).await?;
    let url = handle.url();
    if json {
        println!("{}", json!({ "url": url }));
    } else {
        println!("Trainyard listens on {url}");
    }
    let shutdown = handle.server.shutdown.clone();
    super::signals::cancel_on_signal(shutdown)?;
    handle.wait().await?;
    Ok(Exit::Done)
}

async fn token(new: &NewToken) -> anyhow::Result<Exit> {
    let store = store(new.config.as_deref()).await?;
    let wanted = protocol::api::NewToken {
        name: new.name.clone(),
        role: new.role,
    };
    let made = server::tokens::create(&store, &wanted, "local").await?;
    println!("{}", made.token);
    Ok(Exit::Done)
}

async fn agent_token(new: &NewAgentToken) -> anyhow::Result<Exit> {
    let store = store(new.config.as_deref()).await?;
    let secret = Secret::generate("tya");
    let at = Timestamp::now();
    let mut tx = store.begin().await?;
    agents::insert_token(&mut tx, &secret.hash(), at, at + new.life).await?;
    tx.commit().await.context("the token was not kept")?;
    println!("{}", secret.reveal());
    Ok(Exit::Done)
}

async fn store(path: Option<&Path>) -> anyhow::Result<Store> {
    let config = config(path)?;
    Ok(Store::open(&config.address()?).await?)
}
