//! `trainyard up`: server and agent in one process, everything under one folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agent::identity::{Identity, IdentityError};
use agent::service::{self, Service};
use anyhow::Context as _;
use clap::Args as ClapArgs;
use protocol::Span;
use serde_json::json;
use server::config::Config;
use server::state::Server;
use server::store::projects::{self, Project};

use super::{Exit, out};

/// The agent's data, in the folder of everything.
const AGENT: &str = "agent";

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Repositories to watch: folders or addresses; the one that this folder lies in, where none is named
    repositories: Vec<String>,
    /// Folder for everything that is kept [default: ~/.local/share/trainyard]
    #[arg(long, value_name = "FOLDER", env = "TRAINYARD_DATA")]
    data: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "TRAINYARD_LISTEN",
        default_value = "127.0.0.1:7480"
    )]
    listen: SocketAddr,
    /// The address that people and forges use, where it is not that one: a proxy or tunnel leads to it
    #[arg(long, value_name = "URL", env = "TRAINYARD_URL")]
    url: Option<String>,
    /// Settings of the agent, as in /etc/trainyard/agent.toml
    #[arg(long, value_name = "FILE")]
    agent_config: Option<PathBuf>,
    /// Run jobs as plain processes of this user, NOT isolated at all
    #[arg(long)]
    shell: bool,
    /// Print addresses and projects as JSON once it is up
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let data = match &args.data {
        Some(data) => data.clone(),
        None => usual_folder()?,
    };
    std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    let data = data.canonicalize()?;
    let handle = Server::start(Config {
        listen: args.listen,
        url: args.url.clone(),
        ..Config::in_folder(data.join("server"))
    })
    .await?;
    let (server, url) = (handle.server.clone(), handle.url());
    let agent = introduce(&args, &server, &data, &url).await?;
    let watched = watch(&server, &args.repositories).await?;
    print(&args, &url, &data, &watched)?;

    let shutdown = server.shutdown.clone();
    super::signals::cancel_on_signal(shutdown.clone())?;
    let ended = tokio::select! {
        ended = Service::run(agent, shutdown.clone()) => ended,
        // The server ended first: the agent would only wait for it.
        () = shutdown.cancelled() => Ok(()),
    };
    handle.stop().await?;
    ended?;
    Ok(Exit::Done)
}

/// Where `up` keeps its agent's data, if nobody names another folder on its command line.
pub(crate) fn agent_folder() -> Option<PathBuf> {
    let named = std::env::var_os("TRAINYARD_DATA").filter(|data| !data.is_empty());
    let data = named.map(PathBuf::from).or_else(|| usual_folder().ok())?;
    Some(data.join(AGENT))
}

fn usual_folder() -> anyhow::Result<PathBuf> {
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = base
        .or_else(home)
        .context("name a folder with --data: HOME is not set")?;
    Ok(base.join("trainyard"))
}

/// The agent's configuration. It registers by itself at its first start.
async fn introduce(
    args: &Args,
    server: &Server,
    data: &Path,
    url: &str,
) -> anyhow::Result<agent::config::Config> {
    let mut config = match &args.agent_config {
        Some(path) => agent::config::Config::read(path)?,
        None => agent::config::Config::default(),
    };
    config.data = data.join(AGENT);
    config.server = Some(url.to_owned());
    config.executors.shell |= args.shell;
    config.executors.docker &= !args.shell;
    match Identity::read(&config.data) {
        Ok(_) => {}
        Err(IdentityError::NotRegistered { .. }) => {
            let (token, _) = server::fleet::register::token(server, Span::secs(60)).await?;
            // Nobody else is at work in this folder: an agent of the name is an earlier one whose folder was removed.
            service::register(&config, url, token.reveal(), true).await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(config)
}

/// Watches the repositories that were named, or the one around the current folder; those of earlier
/// starts go on being watched.
async fn watch(server: &Server, named: &[String]) -> anyhow::Result<Vec<Project>> {
    let mut addresses = Vec::new();
    for text in named {
        addresses.push(super::project::address(text)?);
    }
    if named.is_empty()
        && let Some(around) = repository_around(&std::env::current_dir()?)?
    {
        addresses.push(around);
    }
    let mut db = server.store.read().await?;
    let known = projects::all(&mut db).await?;
    drop(db);
    for address in addresses {
        if known.iter().all(|project| project.url != address) {
            let name = free_name(&address, &known);
            server::project::add(server, &name, &address).await?;
        }
    }
    let mut db = server.store.read().await?;
    Ok(projects::all(&mut db).await?)
}

fn repository_around(folder: &Path) -> anyhow::Result<Option<String>> {
    let Some(repository) = mirror::Repository::discover(folder)? else {
        return Ok(None);
    };
    let git = repository.path();
    let top = if git.ends_with(".git") {
        git.parent().unwrap_or(git)
    } else {
        git
    };
    super::project::address(&top.to_string_lossy()).map(Some)
}

/// A project's name made of its address: its last part, without what a name may not have.
fn free_name(address: &str, known: &[Project]) -> String {
    let last = address.trim_end_matches('/').rsplit(['/', ':']).next();
    let last = last.unwrap_or_default().trim_end_matches(".git");
    let name: String = last
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(50)
        .collect();
    let name = if name.is_empty() {
        "project".to_owned()
    } else {
        name
    };
    let taken = |name: &str| known.iter().any(|project| project.name == name);
    if !taken(&name) {
        return name;
    }
    (2..)
        .map(|n| format!("{name}-{n}"))
        .find(|name| !taken(name))
        .unwrap_or(name)
}

fn print(args: &Args, url: &str, data: &Path, watched: &[Project]) -> anyhow::Result<()> {
    if args.json {
        let projects: Vec<_> = watched
            .iter()
            .map(|project| json!({ "name": project.name, "url": project.url }))
            .collect();
        let up = json!({ "url": url, "data": data, "projects": projects });
        return out::raw(&up.to_string());
    }
    out::say(&format!("Trainyard is up: {url}"))?;
    out::say(&format!("everything it keeps: {}", data.display()))?;
    if args.shell {
        out::say("jobs are NOT isolated: they run as plain processes of this user")?;
    }
    for project in watched {
        out::say(&format!("watches {} ({})", project.name, project.url))?;
    }
    match watched.is_empty() {
        true => out::say(&format!(
            "add a repository:  trainyard project add NAME URL --server {url}"
        ))?,
        false => out::say("commit or push there, and what .trainyard.yml says runs here")?,
    }
    out::say("end it with Ctrl-C; jobs that run go on, and the next start goes on with them")
}
