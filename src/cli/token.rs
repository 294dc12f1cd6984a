//! `trainyard token`: who may use the server. Over the API, or straight in the server's data folder: that is how
//! the first one is made.

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args as ClapArgs, Subcommand};
use protocol::api::{CreatedToken, Done, NewToken, Page, Role, Token};
use server::config::Config;
use server::store::Store;
use server::tokens;

use super::client::{Client, ServerArgs, segment};
use super::{Exit, out};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard token create --role admin NAME --data /var/lib/trainyard/server    the first one, on the server's host
  trainyard token create --role run ci
  trainyard token list")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    server: ServerArgs,
    /// The server's data folder on this host, instead of its API
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// The server's configuration on this host, instead of its API
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "data")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token; it is shown once
    Create {
        /// Whose or what for
        name: String,
        /// What it allows: read, run or admin; each includes the ones before it
        #[arg(long, default_value = "read")]
        role: Role,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the tokens, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a token away, with the sessions that it began
    Remove {
        /// Its name
        name: String,
    },
}

/// The way to the tokens.
enum Way {
    Api(Client),
    Folder(Store),
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let way = way(&args).await?;
    match args.action {
        Action::Create { name, role, json } => {
            let wanted = NewToken { name, role };
            let made: CreatedToken = match &way {
                Way::Api(client) => client.post("tokens", Some(&wanted)).await?,
                Way::Folder(store) => tokens::create(store, &wanted, &local_user()).await?,
            };
            if json {
                out::json(&made)?;
            } else {
                // The token alone on standard output: a script can keep it.
                eprintln!(
                    "token '{}' with the role {}; it is shown this once",
                    made.entry.name,
                    made.entry.role.word()
                );
                out::say(&made.token)?;
            }
        }
        Action::List { json } => {
            let page: Page<Token> = match &way {
                Way::Api(client) => client.get("tokens").await?,
                Way::Folder(store) => Page {
                    items: tokens::list(store).await?,
                    next: None,
                },
            };
            list(page, json)?;
        }
        Action::Remove { name } => {
            let message = match &way {
                Way::Api(client) => {
                    let done: Done = client.delete(&format!("tokens/{}", segment(&name))).await?;
                    done.message
                }
                Way::Folder(store) => {
                    tokens::remove(store, &name, &local_user()).await?;
                    format!("token '{name}' and its sessions are gone")
                }
            };
            out::say(&message)?;
        }
    }
    if let Way::Folder(store) = way {
        store.close().await;
    }
    Ok(Exit::Done)
}

async fn way(args: &Args) -> anyhow::Result<Way> {
    let config = match (&args.data, &args.config) {
        (None, None) => return Ok(Way::Api(Client::new(&args.server)?)),
        (Some(data), _) => Config::in_folder(data),
        (None, Some(file)) => Config::read(file)?,
    };
    // A mistyped folder would otherwise become a server without projects.
    ensure!(
        config.data.is_dir(),
        "there is no folder '{}': start the server once, or make the folder",
        config.data.display()
    );
    Ok(Way::Folder(Store::open(&config.address()?).await?))
}

/// Who is at this host, for the audit log.
fn local_user() -> String {
    super::local_user().map_or_else(|| "local".to_owned(), |user| format!("local ({user})"))
}

fn list(page: Page<Token>, json: bool) -> anyhow::Result<()> {
    if json {
        return out::json(&page);
    }
    if page.items.is_empty() {
        return out::say(
            "no token yet: who asks from this host may do everything, and nobody else gets in",
        );
    }
    let rows = page.items.into_iter().map(|token| {
        [
            token.name,
            token.role.word().to_owned(),
            out::ago(token.created_at),
            token
                .last_used_at
                .map_or_else(|| "never".to_owned(), out::ago),
        ]
    });
    out::table(["NAME", "ROLE", "MADE", "USED"], rows)
}
