//! `trainyard debug`: opens a shell where a job failed. The agent crate says what is opened.

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use agent::config::Config;
use agent::debug::{self, DebugError, Options, Room};
use anyhow::Context as _;
use clap::Args as ClapArgs;

use super::{Exit, out};

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Runs on the host where the job ran, as root or as the agent's user. \
Commands may come from standard input: echo 'ls -l' | trainyard debug ID"
)]
pub(crate) struct Args {
    /// Id of the job, or of one of its attempts
    id: String,
    /// The agent's folder, or that of `trainyard up` [default: where agent, `up` and `run` keep theirs]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The agent's configuration; /etc/trainyard/agent.toml where that is there
    #[arg(
        long,
        value_name = "FILE",
        env = "TRAINYARD_AGENT_CONFIG",
        value_parser = super::agent::file()
    )]
    config: Option<PathBuf>,
    /// Give the shell the job's GPUs, though others may have them by now
    #[arg(long)]
    gpus: bool,
    /// Print the command instead of running it
    #[arg(long)]
    print: bool,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<Exit> {
    let config = super::agent::config(args.config.as_deref())?;
    let dir = find(args, &config)?;
    let options = Options {
        terminal: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
        gpus: args.gpus,
    };
    let room = debug::open(&config, &dir, options).await?;
    if args.print {
        out::say(&room.line())?;
        return Ok(Exit::Done);
    }
    for sentence in &room.words {
        out::aside(sentence);
    }
    enter(&room)
}

/// Looks into each folder that may have it. What could not be read is said only where none has it.
fn find(args: &Args, config: &Config) -> anyhow::Result<agent::attempt::AttemptDir> {
    let folders = match &args.data {
        Some(data) => vec![data.clone(), data.join("agent")],
        None => [config.data.clone()]
            .into_iter()
            .chain(super::up::agent_folder())
            .chain([agent::local::data_folder()])
            .collect(),
    };
    let mut nowhere = None;
    for folder in folders {
        match debug::find(&folder, &args.id) {
            Ok(dir) => return Ok(dir),
            Err(error @ DebugError::NotHere { .. }) => nowhere = nowhere.or(Some(error)),
            Err(error @ DebugError::Disk { .. }) => nowhere = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(nowhere.context("no folder to look into")?.into())
}

/// Becomes the shell: its exit code is this command's.
fn enter(room: &Room) -> anyhow::Result<Exit> {
    let (program, arguments) = room.argv.split_first().context("nothing to start")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&room.folder);
    if let Some(env) = &room.env {
        command.env_clear().envs(env);
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {program}; --print shows the command"))
}
