//! `trainyard agent`: runs the agent of a host, and introduces it to its server.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use agent::config::Config;
use agent::service::{self, Service, ServiceError};
use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Exit;

/// Read where `--config` names no other.
const USUAL_FILE: &str = "/etc/trainyard/agent.toml";

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// The agent's configuration; /etc/trainyard/agent.toml where that is there
    #[arg(long, value_name = "FILE", env = "TRAINYARD_AGENT_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Introduce this host to a server, once
    Register(Register),
}

#[derive(Debug, ClapArgs)]
struct Register {
    /// URL of the server, such as https://trainyard.example
    url: String,
    /// One-time token that the server made; others of this host can see arguments, so rather set the variable
    #[arg(
        long,
        env = "TRAINYARD_REGISTRATION",
        hide_env_values = true,
        conflicts_with = "token_file"
    )]
    token: Option<String>,
    /// File that holds the token; `-` for standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The agent's configuration; /etc/trainyard/agent.toml where that is there
    #[arg(long, value_name = "FILE", env = "TRAINYARD_AGENT_CONFIG")]
    config: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    match args.action {
        Some(Action::Register(register)) => introduce(&register).await,
        None => serve(config(args.config.as_deref())?).await,
    }
}

/// The agent's configuration: of the file, of the usual place, or the defaults.
pub(crate) fn config(path: Option<&Path>) -> anyhow::Result<Config> {
    match path {
        Some(path) => Ok(Config::read(path)?),
        None if Path::new(USUAL_FILE).exists() => Ok(Config::read(Path::new(USUAL_FILE))?),
        None => Ok(Config::default()),
    }
}

async fn serve(config: Config) -> anyhow::Result<Exit> {
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        told.cancel();
    });
    match Service::run(config, shutdown).await {
        Ok(()) => {
            tracing::info!("agent stopped; jobs go on, and the next agent goes on with them");
            Ok(Exit::Done)
        }
        Err(error @ ServiceError::SentAway(_)) => {
            eprintln!("error: {error}");
            Ok(Exit::Wrong)
        }
        Err(error) => Err(error.into()),
    }
}

async fn introduce(register: &Register) -> anyhow::Result<Exit> {
    let config = config(register.config.as_deref())?;
    let token = token(register)?;
    let identity = service::register(&config, &register.url, &token).await?;
    println!(
        "registered as agent {} of {}",
        identity.agent, identity.server
    );
    println!("now run: trainyard agent");
    Ok(Exit::Done)
}

fn token(register: &Register) -> anyhow::Result<String> {
    let text = match (&register.token, &register.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) if path.as_os_str() == "-" => {
            let mut text = String::new();
            std::io::stdin()
                .take(4096)
                .read_to_string(&mut text)
                .context("cannot read the token from standard input")?;
            text
        }
        (None, Some(path)) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?,
        (None, None) => anyhow::bail!(
            "no token: make one on the server, then set TRAINYARD_REGISTRATION or name a file with --token-file"
        ),
    };
    let token = text.trim().to_owned();
    anyhow::ensure!(!token.is_empty(), "the token is empty");
    Ok(token)
}
