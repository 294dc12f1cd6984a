//! `trainyard version`.

use clap::Args as ClapArgs;

use super::{Exit, out};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    let api = protocol::agent_api::VERSION;
    if args.json {
        let line = serde_json::json!({ "version": version, "agent_api": api });
        out::raw(&line.to_string())?;
    } else {
        out::say(&format!("trainyard {version} (agent API {api})"))?;
    }
    Ok(Exit::Done)
}
