//! `trainyard project`: which repositories are watched.

use std::path::Path;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};
use protocol::api::{NewProject, Page, Project, Quota};

use super::client::{Client, ServerArgs};
use super::{Exit, out};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Watch a repository
    Add(Add),
    /// Show or set what the jobs of a project may use
    Quota(QuotaArgs),
    /// Show the repositories that are watched
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard project add digits /srv/git/digits.git
  trainyard project add digits https://github.com/acme/digits --credential file:/etc/trainyard/github-token \\
      --webhook-secret file:/etc/trainyard/webhook-secret
  trainyard project add digits https://git.example.com/ml/digits.git --forge gitea --credential file:/etc/trainyard/gitea-token

Secrets are named, never given: env:NAME, file:/path or credential:NAME, as the server finds them.")]
struct Add {
    /// Its name on screens and in URLs
    name: String,
    /// What `git fetch` takes: https://…, ssh://…, user@host:path, or a path on the server's host
    url: String,
    /// Where the server finds the token for fetches and statuses
    #[arg(long, value_name = "REFERENCE")]
    credential: Option<String>,
    /// Where the server finds the secret of the forge's webhook
    #[arg(long, value_name = "REFERENCE")]
    webhook_secret: Option<String>,
    /// What speaks for it: github, gitlab, gitea, forgejo or git [default: what the URL's host says]
    #[arg(long, value_name = "KIND")]
    forge: Option<String>,
    /// The repository's path at its forge [default: what the URL says]
    #[arg(long, value_name = "OWNER/NAME")]
    repository: Option<String>,
    /// Base of the forge's REST API [default: what its kind and the URL say]
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard project quota digits                          show it
  trainyard project quota digits --gpus 8 --gpu-hours 500
  trainyard project quota digits --gpus all               no limit any more

A job that is over the quota waits, and says so. One that needs more GPUs than the quota has at once fails.")]
struct QuotaArgs {
    /// The project
    name: String,
    /// GPUs that its jobs may have at once: a number or `all`
    #[arg(long, value_name = "N", value_parser = limit)]
    gpus: Option<Limit>,
    /// GPU-hours that its jobs may use in seven days: a number or `all`
    #[arg(long, value_name = "N", value_parser = limit)]
    gpu_hours: Option<Limit>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A number, or no limit.
#[derive(Debug, Clone, Copy)]
struct Limit(Option<u32>);

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "all" => Ok(Limit(None)),
        number => number
            .parse()
            .map(|number| Limit(Some(number)))
            .map_err(|_| format!("'{text}' is neither a number nor 'all'")),
    }
}

/// Shows a project's quota, changed where something is to be changed.
async fn quota(client: &Client, args: QuotaArgs) -> anyhow::Result<()> {
    let page: Page<Project> = client.get("projects").await?;
    let found = page
        .items
        .into_iter()
        .find(|project| project.name == args.name);
    let mut project = found.with_context(|| format!("there is no project '{}'", args.name))?;
    if args.gpus.is_some() || args.gpu_hours.is_some() {
        let quota = Quota {
            gpus: args.gpus.map_or(project.quota.gpus, |limit| limit.0),
            gpu_hours: args
                .gpu_hours
                .map_or(project.quota.gpu_hours, |limit| limit.0),
        };
        project = client
            .put(&format!("projects/{}/quota", args.name), &quota)
            .await?;
    }
    if args.json {
        return out::json(&project.quota);
    }
    let said = |limit: Option<u32>| limit.map_or("all".to_owned(), |limit| limit.to_string());
    let Quota { gpus, gpu_hours } = project.quota;
    let row = [project.name, said(gpus), said(gpu_hours)];
    out::table(["NAME", "GPUS AT ONCE", "GPU-HOURS IN SEVEN DAYS"], [row])
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    match args.action {
        Action::Add(add) => {
            let json = add.json;
            let wanted = NewProject {
                url: address(&add.url)?,
                name: add.name,
                credential: add.credential,
                webhook_secret: add.webhook_secret,
                forge: add.forge,
                repository: add.repository,
                api: add.api,
            };
            let project: Project = client.post("projects", Some(&wanted)).await?;
            if json {
                out::json(&project)?;
            } else {
                out::say(&format!(
                    "{} is watched ({}): {}\npush to it, and see {}",
                    project.name,
                    project.forge,
                    project.url,
                    client.page("/")
                ))?;
            }
        }
        Action::Quota(args) => quota(&client, args).await?,
        Action::List { json } => {
            let page: Page<Project> = client.get("projects").await?;
            if json {
                out::json(&page)?;
            } else if page.items.is_empty() {
                out::say("no repository is watched yet: 'trainyard project add NAME URL'")?;
            } else {
                let rows = page.items.into_iter().map(|project| {
                    [
                        project.name,
                        project.forge,
                        project.default_branch.unwrap_or_default(),
                        project.url,
                        project.error.or(project.not_shown).unwrap_or_default(),
                    ]
                });
                out::table(["NAME", "FORGE", "BRANCH", "URL", "PROBLEM"], rows)?;
            }
        }
    }
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
