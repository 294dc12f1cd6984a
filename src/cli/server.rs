//! `trainyard server`: runs the server.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;
use server::config::Config;
use server::state::Server;

use super::{Exit, out};

/// Read where `--config` names no other.
const USUAL_FILE: &str = "/etc/trainyard/server.toml";

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard server --config /etc/trainyard/server.toml
  trainyard token create ana --role admin --config /etc/trainyard/server.toml    first, on this host")]
pub(crate) struct Args {
    /// The server's configuration; /etc/trainyard/server.toml where that is there
    #[arg(long, value_name = "FILE", env = "TRAINYARD_SERVER_CONFIG")]
    config: Option<PathBuf>,
    /// Print the address as JSON once it listens
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    serve(config(args.config.as_deref())?, args.json).await
}

/// The server's configuration: of the file, of the usual place, or the defaults.
pub(super) fn config(path: Option<&Path>) -> anyhow::Result<Config> {
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
        out::raw(&json!({ "url": url }).to_string())?;
    } else {
        out::say(&format!("Trainyard listens on {url}"))?;
    }
    let shutdown = handle.server.shutdown.clone();
    super::signals::cancel_on_signal(shutdown)?;
    handle.wait().await?;
    Ok(Exit::Done)
}
