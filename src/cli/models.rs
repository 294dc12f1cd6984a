//! `trainyard models`: what the registry knows, and the changes that people make to it.

use anyhow::ensure;
use clap::{Args as ClapArgs, Subcommand};
use protocol::api::Page;
use protocol::registry::{
    AliasChange, Comparison, Model, ModelDetail, Reason, SetAlias, Version, VersionDetail,
    VersionRef,
};

use super::client::{Client, ServerArgs, segment};
use super::{Exit, models_words as words, out};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard models list
  trainyard models show digits @champion
  trainyard models compare digits 1 2
  trainyard models promote digits 01jd3v5n2q8k4h6s7t9w0x1y2z --why 'better on the night set'
  trainyard models alias digits champion 2 --why 'won the comparison'
  trainyard models rollback digits champion --why 'slow in production'

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
    /// Show two versions side by side: metrics, and what else differs
    Compare {
        /// The model
        name: String,
        /// The version that is compared with
        base: VersionRef,
        /// The version that is judged
        now: VersionRef,
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
        Action::Compare { name, base, now } => {
            let at = format!(
                "{}/compare/{}",
                at(&name, &now)?,
                segment(&base.to_string())
            );
            let both: Comparison = client.get(&at).await?;
            print(json, &both, words::comparison)?;
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

fn at(name: &str, version: &VersionRef) -> anyhow::Result<String> {
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
