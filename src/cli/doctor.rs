//! `trainyard doctor`: what may keep a job from running on this host.

use std::path::PathBuf;

use agent::doctor::{Check, Level, examine};
use clap::Args as ClapArgs;
use comfy_table::{Table, presets};

use super::{Exit, out};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The agent's configuration
    #[arg(
        long,
        value_name = "FILE",
        env = "TRAINYARD_AGENT_CONFIG",
        value_parser = super::agent::file()
    )]
    config: Option<PathBuf>,
    /// Image that is looked for
    #[arg(long, default_value = plan::DEFAULT_IMAGE)]
    image: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<Exit> {
    let config = super::agent::config(args.config.as_deref())?;
    let found = examine(&config, &args.image).await;
    let worst = found.iter().map(|check| check.level).max();
    if args.json {
        out::json(&found)?;
    } else {
        out::say(&table(&found))?;
        if worst == Some(Level::Fail) {
            out::say("\nA job could not run on this host: see the lines that say fail.")?;
        }
    }
    Ok(match worst {
        Some(Level::Fail) => Exit::Failed,
        Some(Level::Ok | Level::Warn) | None => Exit::Done,
    })
}

pub(super) fn table(found: &[Check]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for check in found {
        let words = match &check.hint {
            Some(hint) => format!("{}\n-> {hint}", check.found),
            None => check.found.clone(),
        };
        table.add_row([check.level.word(), check.name, &words]);
    }
    table.trim_fmt()
}
