//! The command line: a file per command. Commands wire crates together; logic lives in the crates.

mod agent;
mod agent_install;
mod agents;
mod client;
mod debug;
mod diff;
mod doctor;
mod fsck;
mod git_install;
mod gpus;
mod init;
mod inspect;
mod job;
mod lint;
mod live;
mod logs;
mod models;
mod notebooks;
mod out;
mod pipelines;
mod plan;
mod project;
mod render;
mod reproduce;
mod run;
mod server;
mod signals;
mod strip;
mod token;
mod up;
mod usage;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A self-hosted CI runner for notebooks and training jobs.
#[derive(Debug, Parser)]
#[command(
    name = "trainyard",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 done, 1 a job or check failed, 2 wrong input or setting, 3 platform fault, 130 cancelled."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent of this host, or introduce it to a server
    Agent(agent::Args),
    /// Open a shell where a job failed: its files, its environment
    Debug(debug::Args),
    /// Show what differs between notebooks: two files, or versions that git has
    Diff(diff::Args),
    /// Look for what may keep a job from running on this host
    Doctor(doctor::Args),
    /// Check that every model, notebook and artifact that the server keeps is there and unchanged
    Fsck(fsck::FsckArgs),
    /// Remove what the server keeps and nothing needs
    Gc(fsck::GcArgs),
    /// Make git show notebooks cell by cell, and on demand keep outputs out of commits
    GitInstall(git_install::Args),
    /// Show the GPUs of this host or the fleet, lend them, end their quarantine
    Gpus(gpus::Args),
    /// Show the hosts that carry out jobs, and make tokens for new ones
    Agents(agents::Args),
    /// Let an untrusted commit run: the jobs that are held at it
    Approve(job::Args),
    /// End a job
    Cancel(job::Args),
    /// Write a first .trainyard.yml from what lies in the repository
    Init(init::Args),
    /// Show what a notebook is, and the parameters that it offers
    Inspect(inspect::Args),
    /// Show what a job says, as it says it
    Logs(logs::Args),
    /// Show, compare, download, promote and remove models, and point aliases to them
    Models(models::Args),
    /// Show what was asked for lately, and how it stands
    Pipelines(pipelines::Args),
    /// Show what a push would run, and why
    Plan(plan::Args),
    /// Add and list watched repositories
    Project(project::Args),
    /// Show a notebook as HTML, Markdown or in the terminal
    Render(render::Args),
    /// Run the job that left a model's version once more, and say what differs
    Reproduce(reproduce::Args),
    /// Ask for a finished job again
    Retry(job::Args),
    /// Run the server
    Server(server::Args),
    /// Run server and agent here, with everything in one folder
    Up(up::Args),
    /// Run a notebook or a job here and now, as CI would
    Run(run::Args),
    /// Lint notebooks here and now, as CI would
    Lint(lint::Args),
    /// Take outputs and execution counts out of notebooks, in place or as a filter of git
    Strip(strip::Args),
    /// Make, show and remove API tokens
    Token(token::Args),
    /// Show GPU-hours and CPU-hours by project, person or branch
    Usage(usage::Args),
    /// Print versions of the program and of the agent API
    Version(version::Args),
}

/// How a command ended. Errors that a command returns are [`Exit::Wrong`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// A job failed (owner user or limit), or a check did not hold.
    Failed,
    /// Wrong input or setting.
    Wrong,
    /// A platform fault.
    Platform,
    /// Cancelled.
    Cancelled,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Wrong => 2,
            Exit::Platform => 3,
            Exit::Cancelled => 130,
        })
    }
}

impl Exit {
    /// What an error means for whoever called: a server that does not answer is a fault of the platform.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<client::Unreachable>() {
            Some(_) => Exit::Platform,
            None => Exit::Wrong,
        }
    }
}

/// An error with its causes, harmless to a terminal. One that stands in the words before it is not said again.
pub(crate) fn words(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    out::clean(&said)
}

/// Runs one command.
pub(crate) async fn dispatch(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Agent(args) => agent::run(args).await,
        Command::Debug(args) => debug::run(&args).await,
        Command::Diff(args) => diff::run(&args),
        Command::Doctor(args) => doctor::run(&args).await,
        Command::Fsck(args) => fsck::fsck(args).await,
        Command::Gc(args) => fsck::gc(args).await,
        Command::GitInstall(args) => git_install::run(&args),
        Command::Gpus(args) => gpus::run(args).await,
        Command::Agents(args) => agents::run(args).await,
        Command::Approve(args) => job::approve(args).await,
        Command::Cancel(args) => job::cancel(args).await,
        Command::Init(args) => init::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Logs(args) => logs::run(args).await,
        Command::Models(args) => models::run(args).await,
        Command::Pipelines(args) => pipelines::run(args).await,
        Command::Plan(args) => plan::run(&args).await,
        Command::Project(args) => project::run(args).await,
        Command::Render(args) => render::run(&args),
        Command::Reproduce(args) => reproduce::run(args).await,
        Command::Retry(args) => job::retry(args).await,
        Command::Server(args) => server::run(args).await,
        Command::Up(args) => up::run(args).await,
        Command::Run(args) => run::run(&args).await,
        Command::Lint(args) => lint::run(&args).await,
        Command::Strip(args) => strip::run(&args),
        Command::Token(args) => token::run(args).await,
        Command::Usage(args) => usage::run(args).await,
        Command::Version(args) => version::run(&args),
    }
}

/// Who sits at this host, as far as the environment tells.
fn local_user() -> Option<String> {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    user.ok().filter(|user| !user.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn no_command_takes_anothers_argument() {
        super::Arguments::command().debug_assert();
    }

    #[test]
    fn what_a_server_answers_does_not_reach_the_terminal() {
        let said = super::words(&anyhow::anyhow!("no job '\u{1b}[2Jx'\u{202e}"));
        assert_eq!(said, "no job 'x'\u{fffd}");
    }

    #[test]
    fn a_cause_is_said_once() {
        let missing = agent::config::Config::read("/no/such/file".as_ref()).unwrap_err();
        let said = super::words(&anyhow::Error::from(missing).context("the agent"));
        assert_eq!(said.matches("No such file").count(), 1, "{said}");
        assert!(
            said.starts_with("the agent: cannot read /no/such/file: "),
            "{said}"
        );
    }
}
