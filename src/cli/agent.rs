//! `trainyard agent`: runs the agent of a host, and introduces it to its server.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::config::Config;
use agent::service::{self, Service, ServiceError};
use agent::wish::{self, Drained, End};
use anyhow::Context as _;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args as ClapArgs, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, out};

/// How long an agent that need not wait for its jobs takes to end, on a busy host.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Read where `--config` names no other.
const USUAL_FILE: &str = "/etc/trainyard/agent.toml";

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  trainyard agent install https://trainyard.example
  trainyard agent register https://trainyard.example --token-file token.txt
  trainyard agent                        carry out jobs; told to end, it leaves them running for the next agent
  trainyard agent drain                  take nothing new, until: trainyard agent undrain
  trainyard agent drain --stop-jobs      and let the jobs that run go on elsewhere
  trainyard agent stop --when-idle       end the agent when its jobs are done")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// The agent's configuration; /etc/trainyard/agent.toml where that is there
    #[arg(
        long,
        value_name = "FILE",
        env = "TRAINYARD_AGENT_CONFIG",
        value_parser = file()
    )]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Introduce this host to a server, once
    Register(Register),
    /// Make the agent a service of this host: configuration, systemd unit, data folder
    Install(super::agent_install::Args),
    /// Let the agent of this host take nothing new, until it is undrained
    Drain {
        /// End its jobs with their grace; they go on elsewhere from their checkpoint, and it counts as no failure
        #[arg(long)]
        stop_jobs: bool,
        #[command(flatten)]
        file: File,
    },
    /// Let the agent of this host take jobs again
    Undrain {
        #[command(flatten)]
        file: File,
    },
    /// End the agent of this host; its jobs run on, and the next agent goes on with them
    Stop {
        /// Not before it has no job left; it takes nothing new meanwhile
        #[arg(long)]
        when_idle: bool,
        #[command(flatten)]
        file: File,
    },
}

#[derive(Debug, ClapArgs)]
struct File {
    /// The agent's configuration; /etc/trainyard/agent.toml where that is there
    #[arg(
        long,
        value_name = "FILE",
        env = "TRAINYARD_AGENT_CONFIG",
        value_parser = file()
    )]
    config: Option<PathBuf>,
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
    /// Take name and id of an agent that the server still hears of; its secret ends
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    file: File,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    match args.action {
        Some(Action::Register(register)) => introduce(&register).await,
        Some(Action::Install(install)) => super::agent_install::run(install).await,
        Some(Action::Drain { stop_jobs, file }) => drain(&data(&file)?, stop_jobs),
        Some(Action::Undrain { file }) => undrain(&data(&file)?),
        Some(Action::Stop { when_idle, file }) => stop(&data(&file)?, when_idle).await,
        None => serve(config(args.config.as_deref())?).await,
    }
}

/// The name of a configuration's file. A variable that is set and empty names none, as [`config`] has it.
pub(crate) fn file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The agent's configuration: of the file, of the usual place, or the defaults.
pub(crate) fn config(path: Option<&Path>) -> anyhow::Result<Config> {
    match path.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => Ok(Config::read(path)?),
        None if Path::new(USUAL_FILE).exists() => Ok(Config::read(Path::new(USUAL_FILE))?),
        None => Ok(Config::default()),
    }
}

/// The configuration for those who look into the folder of this host's agent: where that is not there, the agent may be
/// that of `trainyard up`.
pub(crate) fn of_host(path: Option<&Path>) -> anyhow::Result<Config> {
    let mut config = config(path)?;
    config.data = folder_of_host(config.data, super::up::agent_folder());
    Ok(config)
}

fn folder_of_host(own: PathBuf, of_up: Option<PathBuf>) -> PathBuf {
    // Where nobody may look, there is one.
    match of_up.filter(|folder| folder.is_dir()) {
        Some(of_up) if !own.try_exists().unwrap_or(true) => of_up,
        Some(_) | None => own,
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
            out::aside(&format!("error: {error}"));
            Ok(Exit::Wrong)
        }
        Err(error) => Err(error.into()),
    }
}

async fn introduce(register: &Register) -> anyhow::Result<Exit> {
    let config = config(register.file.config.as_deref())?;
    let token = token(register)?;
    let identity = service::register(&config, &register.url, &token, register.replace).await?;
    out::say(&format!(
        "registered as agent {} of {}\nnow run: trainyard agent",
        identity.agent, identity.server
    ))?;
    Ok(Exit::Done)
}

/// The data folder of the host's agent.
fn data(file: &File) -> anyhow::Result<PathBuf> {
    Ok(config(file.config.as_deref())?.data)
}

fn drain(data: &Path, stop_jobs: bool) -> anyhow::Result<Exit> {
    let by = super::local_user().unwrap_or_else(|| "its owner".to_owned());
    let runs = wish::ask(data, |wish| {
        wish.drained = Some(Drained { by, stop_jobs });
    })?;
    out::say(&format!(
        "the agent takes nothing new{}; 'trainyard agent undrain' takes that back",
        match stop_jobs {
            true => ", and its jobs go on elsewhere",
            false => ", and its jobs run to their end",
        }
    ))?;
    note_absence(data, runs);
    Ok(Exit::Done)
}

fn undrain(data: &Path) -> anyhow::Result<Exit> {
    let runs = wish::ask(data, |wish| wish.drained = None)?;
    out::say("the agent takes jobs again")?;
    note_absence(data, runs);
    Ok(Exit::Done)
}

/// What was asked of an agent that does not run holds from its next start on.
fn note_absence(data: &Path, runs: bool) {
    if !runs {
        eprintln!(
            "note: no agent runs on {} now; it holds when one starts",
            data.display()
        );
    }
}

async fn stop(data: &Path, when_idle: bool) -> anyhow::Result<Exit> {
    let when = match when_idle {
        true => End::WhenIdle,
        false => End::Now,
    };
    if when_idle {
        eprintln!(
            "waiting for the agent's jobs to end; interrupted, this waits no longer, and the agent ends all the same"
        );
    }
    let ended = match when_idle {
        true => wish::end(data, when).await?,
        false => tokio::time::timeout(STOP_WITHIN, wish::end(data, when))
            .await
            .with_context(|| format!("the agent has not ended within {STOP_WITHIN:?}"))??,
    };
    match ended {
        true => out::say("the agent has ended")?,
        false => out::say(&format!("no agent runs on {}", data.display()))?,
    }
    Ok(Exit::Done)
}

fn token(register: &Register) -> anyhow::Result<String> {
    let text = match (&register.token, &register.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) if path.as_os_str() == "-" => {
            if std::io::stdin().is_terminal() {
                eprintln!(
                    "paste the token that `trainyard agents token` on the server made, then press Enter and Ctrl-D:"
                );
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_of_up_is_the_hosts_where_there_is_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (own, up) = (folder.path().join("own"), folder.path().join("up"));
        let chosen = || folder_of_host(own.clone(), Some(up.clone()));
        assert_eq!(chosen(), own);
        std::fs::create_dir(&up).unwrap();
        assert_eq!(chosen(), up);
        std::fs::create_dir(&own).unwrap();
        assert_eq!(chosen(), own);
    }
}
