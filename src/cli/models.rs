//! `trainyard models`: what the registry knows, and the changes that people make to it.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::{Args as ClapArgs, Subcommand};
use futures_util::StreamExt as _;
use protocol::api::Page;
use protocol::registry::{
    AliasChange, Comparison, Model, ModelDetail, Reason, SetAlias, Version, VersionDetail,
    VersionRef,
};

use super::client::{Client, ServerArgs, segment};
use super::{Exit, out};

mod download;
mod reproduced;
mod why;
mod words;

pub(super) use reproduced::text as reproduced;

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard models list
  trainyard models show digits @champion
  trainyard models why digits @champion
  trainyard models compare digits 1 2
  trainyard models download digits @champion --to model/
  trainyard models promote digits 01jd3v5n2q8k4h6s7t9w0x1y2z --why 'better on the night set'
  trainyard models alias digits champion 2 --why 'won the comparison'
  trainyard models rollback digits champion --why 'slow in production'
  trainyard models rm digits 3 --why 'trained on leaked labels'

A version is written as its number, as 'latest', as '@' and an alias, or as a candidate's id.")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the models, newest first
    List {
        /// Only those after this model: the last name of the page before
        #[arg(long, value_name = "NAME")]
        before: Option<String>,
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
    },
    /// Show a model with its versions, or one version with its lineage and files
    Show {
        /// The model
        name: String,
        /// The version
        #[arg(id = "which", value_name = "VERSION")]
        version: Option<VersionRef>,
    },
    /// Say why a version counts, why aliases point to it, and all that it comes from
    #[command(after_help = "Examples:
  trainyard models why digits @champion
  trainyard models why digits 3 --all
  trainyard models why digits latest --json | jq .lineage.setting.packages")]
    Why {
        /// The model
        name: String,
        /// The version
        #[arg(id = "which", value_name = "VERSION")]
        version: VersionRef,
        /// Show every file and package, however many there are
        #[arg(long)]
        all: bool,
    },
    /// Show two versions side by side: metrics, and what else differs
    Compare {
        /// The model
        name: String,
        /// The version that is compared with
        base: VersionRef,
        /// The version that is judged
        now: VersionRef,
    },
    /// Bring the files of a version into a folder, each verified by its hash; what was cut off goes on
    #[command(after_help = "Examples:
  trainyard models download digits @champion
  trainyard models download digits 3 --to model/ --force")]
    Download {
        /// The model
        name: String,
        /// The version
        #[arg(id = "which", value_name = "VERSION")]
        version: VersionRef,
        /// The folder; made where it is not there [default: NAME-VERSION]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Overwrite files that are there and differ
        #[arg(long)]
        force: bool,
    },
    /// Remove a version or candidate that no alias, version or job needs
    #[command(after_help = "Examples:
  trainyard models rm digits 3 --why 'trained on leaked labels'

Its number is not used again. Its files go after the server's `blob_grace`.")]
    Rm {
        /// The model
        name: String,
        /// The version
        #[arg(id = "which", value_name = "VERSION")]
        version: VersionRef,
        /// Why; kept in place of the version
        #[arg(long)]
        why: String,
    },
    /// Make a candidate the model's next version
    Promote {
        /// The model
        name: String,
        /// The candidate's id: 'trainyard models show NAME' shows it
        candidate: VersionRef,
        /// Why; kept with the version
        #[arg(long)]
        why: String,
    },
    /// Point an alias to a version, or take it away
    Alias {
        /// The model
        name: String,
        /// The alias, such as champion
        alias: String,
        /// The version
        #[arg(
            id = "which",
            value_name = "VERSION",
            required_unless_present = "remove"
        )]
        version: Option<VersionRef>,
        /// Take the alias away
        #[arg(long, conflicts_with = "which")]
        remove: bool,
        /// Why; kept in the alias's history
        #[arg(long)]
        why: String,
    },
    /// Point an alias to where it pointed before its last change
    Rollback {
        /// The model
        name: String,
        /// The alias
        alias: String,
        /// Why; kept in the alias's history
        #[arg(long, default_value = "")]
        why: String,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    let json = args.json;
    match args.action {
        Action::List { before, limit } => list(&client, before.as_deref(), limit, json).await?,
        Action::Show {
            name,
            version: None,
        } => {
            let model: ModelDetail = client.get(&path(&name)?).await?;
            print(json, &model, |model| words::model(model, &client))?;
        }
        Action::Show {
            name,
            version: Some(version),
        } => {
            let version = detail(&client, &name, &version).await?;
            print(json, &version, |version| words::version(version, &client))?;
        }
        Action::Why { name, version, all } => {
            let version = detail(&client, &name, &version).await?;
            let page = client.page(&words::page(&version.version));
            print(json, &version, |version| {
                why::text(version, &page, all, out::width())
            })?;
        }
        Action::Compare { name, base, now } => {
            let at = format!(
                "{}/compare/{}",
                at(&name, &now)?,
                segment(&base.to_string())
            );
            let both: Comparison = client.get(&at).await?;
            print(json, &both, words::comparison)?;
        }
        Action::Download {
            name,
            version,
            to,
            force,
        } => {
            let done = bring(&client, &name, &version, to, force).await?;
            print(json, &done, |done| {
                format!(
                    "{} files of {}, {}, are in {} ({} came over the network)",
                    done.files,
                    name,
                    done.bytes,
                    done.to.display(),
                    done.fetched
                )
            })?;
        }
        Action::Rm { name, version, why } => {
            let at = format!("{}/remove", at(&name, &version)?);
            let gone: Version = client.post(&at, Some(&Reason { why })).await?;
            print(json, &gone, |gone| {
                format!("{} of {} is removed", gone.label(), gone.model)
            })?;
        }
        Action::Promote {
            name,
            candidate,
            why,
        } => {
            let at = format!("{}/promote", at(&name, &candidate)?);
            let made: Version = client.post(&at, Some(&Reason { why })).await?;
            print(json, &made, |made| {
                format!("{candidate} is {} of {} now", made.label(), made.model)
            })?;
        }
        Action::Alias {
            name,
            alias,
            version,
            remove: _,
            why,
        } => {
            let version = match version {
                Some(wanted) => Some(number(&client, &name, &wanted).await?),
                None => None,
            };
            let at = format!("{}/aliases/{}", path(&name)?, piece(&alias)?);
            let wanted = SetAlias { version, why };
            let change: AliasChange = client.put(&at, &wanted).await?;
            print(json, &change, |change| words::change(&name, change))?;
        }
        Action::Rollback { name, alias, why } => {
            let at = format!("{}/aliases/{}/rollback", path(&name)?, piece(&alias)?);
            let change: AliasChange = client.post(&at, Some(&Reason { why })).await?;
            print(json, &change, |change| words::change(&name, change))?;
        }
    }
    Ok(Exit::Done)
}

async fn list(client: &Client, before: Option<&str>, limit: u16, json: bool) -> anyhow::Result<()> {
    let mut at = format!("models?limit={limit}");
    if let Some(before) = before {
        at += &format!("&before={}", segment(before));
    }
    let page: Page<Model> = client.get(&at).await?;
    print(json, &page, words::models)
}

/// JSON for programs, or words for people.
fn print<T: serde::Serialize>(
    json: bool,
    value: &T,
    words: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    if json {
        out::json(value)
    } else {
        out::say(&words(value))
    }
}

async fn detail(
    client: &Client,
    name: &str,
    version: &VersionRef,
) -> anyhow::Result<VersionDetail> {
    client.get(&at(name, version)?).await
}

/// Brings a version's files. An alias may move meanwhile: its version is named by id from then on.
async fn bring(
    client: &Client,
    name: &str,
    version: &VersionRef,
    to: Option<PathBuf>,
    force: bool,
) -> anyhow::Result<download::Done> {
    let found = detail(client, name, version).await?;
    ensure!(
        !found.files.is_empty(),
        "{} of {name} has no files",
        found.version.label()
    );
    let number = found.version.version.map(|number| number.to_string());
    let one = number.unwrap_or_else(|| found.version.id.clone());
    let to = to.unwrap_or_else(|| PathBuf::from(format!("{name}-{one}")));
    let folder = format!("{}/{one}/files", path(name)?);
    download::bring(&found.files, &to, force, async |file, from| {
        let parts: Vec<String> = file.path.split('/').map(segment).collect();
        let at = format!("{folder}/{}", parts.join("/"));
        let answer = client.file(&at, from).await?;
        let pieces = futures_util::stream::try_unfold(answer, |mut answer| async move {
            let piece = answer.chunk().await.context("the server broke off")?;
            Ok(piece.map(|piece| (piece.to_vec(), answer)))
        });
        Ok(pieces.boxed())
    })
    .await
}

/// The number that an alias is to point to.
async fn number(client: &Client, name: &str, wanted: &VersionRef) -> anyhow::Result<u64> {
    if let VersionRef::Number(number) = wanted {
        return Ok(*number);
    }
    let found = detail(client, name, wanted).await?.version;
    found.version.ok_or_else(|| {
        anyhow::anyhow!(
            "{wanted} is a candidate and has no number: 'trainyard models promote {name} {wanted} --why …' makes it a version first"
        )
    })
}

/// The path of a version in the API.
pub(super) fn at(name: &str, version: &VersionRef) -> anyhow::Result<String> {
    Ok(format!("{}/{}", path(name)?, segment(&version.to_string())))
}

fn path(name: &str) -> anyhow::Result<String> {
    Ok(format!("models/{}", piece(name)?))
}

/// A name in a path. A URL resolves `..`, however it is written; no model or alias begins with a dot.
fn piece(name: &str) -> anyhow::Result<String> {
    ensure!(
        !name.is_empty() && !name.starts_with('.'),
        "'{name}' is no name of a model or alias; 'trainyard models list' shows those that are there"
    );
    Ok(segment(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        assert_eq!(path("digits").unwrap(), "models/digits");
        assert_eq!(path("a/b?c").unwrap(), "models/a%2Fb%3Fc");
        for wrong in ["", ".", "..", "../tokens"] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
    }
}
