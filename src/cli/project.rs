//! `trainyard project`: which repositories are watched.

use std::path::Path;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};
use protocol::api::{NewProject, Page, Project, Quota};
use protocol::setup::{AddedProject, Examined, Level, Webhook};

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
    /// Look whether all is well between a project and its forge
    Doctor(Doctor),
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
#[command(
    allow_missing_positional = true,
    after_help = "Examples:
  trainyard project add /srv/git/digits.git
  trainyard project add https://github.com/acme/digits --app
  trainyard project add digits https://github.com/acme/digits --credential file:/etc/trainyard/github-token \\
      --webhook-secret file:/etc/trainyard/webhook-secret
  trainyard project add https://git.example.com/ml/digits.git --credential file:/etc/trainyard/gitea-token

Which forge it is, the URL says, or its host when the server asks it. Where the token allows it the webhook is made there; else what
to fill in by hand is printed.

Secrets are named, never given: env:NAME, file:/path or credential:NAME, as the server finds them."
)]
struct Add {
    /// Its name on screens and in URLs [default: the last part of the URL]
    name: Option<String>,
    /// What `git fetch` takes: https://…, ssh://…, user@host:path, or a path on the server's host
    url: String,
    /// Where the server finds the token for fetches and statuses
    #[arg(long, value_name = "REFERENCE")]
    credential: Option<String>,
    /// Let the server's GitHub App speak for it, instead of a token
    #[arg(long, conflicts_with_all = ["credential", "webhook_secret"])]
    app: bool,
    /// Where the server finds the secret of the forge's webhook [default: one is made up]
    #[arg(long, value_name = "REFERENCE")]
    webhook_secret: Option<String>,
    /// What speaks for it: github, gitlab, gitea, forgejo or git [default: what the URL or its host says]
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

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard project doctor digits
  trainyard project doctor digits --json

It looks at clone, token (or GitHub App), webhook and what came of it, and changes nothing. It ends with 1 where something fails.")]
struct Doctor {
    /// The project
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows what an examination found.
async fn doctor(client: &Client, args: Doctor) -> anyhow::Result<Exit> {
    let found: Examined = client
        .get(&format!("projects/{}/doctor", args.name))
        .await?;
    if args.json {
        out::json(&found)?;
    } else {
        let rows = found.checks.iter().map(|check| {
            [
                check.level.word().to_owned(),
                check.name.clone(),
                check.found.clone(),
                check.hint.clone().unwrap_or_default(),
            ]
        });
        out::table(["", "WHAT", "FOUND", "WHAT TO DO"], rows)?;
    }
    Ok(match found.checks.iter().map(|check| check.level).max() {
        Some(Level::Fail) => Exit::Failed,
        Some(Level::Ok | Level::Warn) | None => Exit::Done,
    })
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

/// Adds a project, and says what is left to do.
async fn add(client: &Client, args: Add) -> anyhow::Result<()> {
    let url = address(&args.url)?;
    let wanted = NewProject {
        name: args.name.unwrap_or_else(|| last_part(&url)),
        url,
        credential: args.credential,
        app: args.app,
        webhook_secret: args.webhook_secret,
        forge: args.forge,
        repository: args.repository,
        api: args.api,
    };
    let AddedProject { project, webhook } = client.post("projects", Some(&wanted)).await?;
    if args.json {
        return out::json(&AddedProject { project, webhook });
    }
    out::say(&format!(
        "{} is watched ({}): {}",
        project.name, project.forge, project.url
    ))?;
    match webhook {
        Webhook::None if is_here(&project.url) => {}
        Webhook::None => out::say(
            "its host answers as no forge: a push is seen at the next look, and nothing is shown there. Where it is one, say so: --forge",
        )?,
        Webhook::Made { url } => out::say(&format!("its webhook is made: {url}"))?,
        Webhook::App => out::say("the GitHub App tells of it")?,
        Webhook::ByHand { why, page, fields } => {
            out::say(&format!(
                "\nIts webhook has to be made by hand ({why}).\nOpen {page} and fill in:\n"
            ))?;
            let rows = fields.into_iter().map(|field| [field.name, field.value]);
            out::table(["FIELD", "VALUE"], rows)?;
            out::say(
                "\nThe secret is not shown again. Without a webhook a push is seen at the next look.\n",
            )?;
        }
    }
    out::say(&format!("push to it, and see {}", client.page("/")))
}

/// Whether a repository lies on the server's own disk.
fn is_here(url: &str) -> bool {
    url.starts_with('/') || url.starts_with("file:")
}

/// The name of a repository that nobody gave one.
fn last_part(url: &str) -> String {
    let path = url.trim_end_matches('/');
    let last = path.rsplit(['/', ':']).next().unwrap_or_default();
    last.strip_suffix(".git").unwrap_or(last).to_owned()
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    match args.action {
        Action::Add(args) => add(&client, args).await?,
        Action::Doctor(args) => return doctor(&client, args).await,
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
