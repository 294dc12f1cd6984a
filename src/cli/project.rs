//! `trainyard project`: the repositories that a server watches.

use std::path::Path;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};
use comfy_table::{Table, presets};
use protocol::api::{NewProject, Page, Project};

use super::Exit;
use super::remote::Remote;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Watch a repository
    Add(Add),
    /// List what is watched
    List(List),
}

#[derive(Debug, ClapArgs)]
struct Add {
    /// Its name on screens
    name: String,
    /// What `git fetch` takes; a folder of the server's host will do
    url: String,
    /// Where the server finds the token for fetches and statuses: file:/PATH, env:NAME or credential:NAME
    #[arg(long, value_name = "REFERENCE")]
    credential: Option<String>,
    /// Where the server finds the secret of the webhook /hooks/NAME, in the same forms
    #[arg(long, value_name = "REFERENCE")]
    webhook_secret: Option<String>,
    /// Repository at GitHub, where the URL does not say it
    #[arg(long, value_name = "OWNER/NAME")]
    github: Option<String>,
    /// Base of the API of GitHub Enterprise: https://HOST/api/v3
    #[arg(long, value_name = "URL")]
    github_api: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, ClapArgs)]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    match args.action {
        Action::Add(add) => self::add(&add).await,
        Action::List(list) => self::list(&list).await,
    }
}

async fn add(add: &Add) -> anyhow::Result<Exit> {
    let new = NewProject {
        credential: add.credential.clone(),
        webhook_secret: add.webhook_secret.clone(),
        github: add.github.clone(),
        github_api: add.github_api.clone(),
        ..NewProject::new(&add.name, address(&add.url)?)
    };
    let project: Project = add.remote.post("projects", &new).await?;
    if add.json {
        println!("{}", serde_json::to_string(&project)?);
    } else {
        println!("{} is watched: {}", project.name, project.url);
        println!("a push to it runs what its .trainyard.yml says");
    }
    Ok(Exit::Done)
}

async fn list(list: &List) -> anyhow::Result<Exit> {
    let page: Page<Project> = list.remote.get("projects?limit=500").await?;
    if list.json {
        println!("{}", serde_json::to_string(&page.items)?);
        return Ok(Exit::Done);
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["project", "branch", "repository", "problem"]);
    for project in page.items {
        table.add_row([
            project.name,
            project.default_branch.unwrap_or_default(),
            project.url,
            project.error.unwrap_or_default(),
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}

/// An address as the server understands it: a folder is named by its absolute path.
pub(crate) fn address(text: &str) -> anyhow::Result<String> {
    let path = Path::new(text);
    if !path.is_dir() {
        return Ok(text.to_owned());
    }
    let path = path
        .canonicalize()
        .with_context(|| format!("cannot find {text}"))?;
    path.into_os_string()
        .into_string()
        .map_err(|_| anyhow::anyhow!("the path of {text} is not UTF-8"))
}
