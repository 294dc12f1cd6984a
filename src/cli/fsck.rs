//! `trainyard fsck` and `trainyard gc`: looks after models, notebooks and artifacts, on the server's host.

use std::io::{IsTerminal as _, stderr};
use std::path::PathBuf;

use anyhow::ensure;
use clap::Args as ClapArgs;
use protocol::{ByteSize, Span, Timestamp};
use server::blobs::Blobs;
use server::config::Config;
use server::store::{Address, Store};
use server::upkeep::{self, Checked, Manner, Unneeded};

use super::{Exit, out};

#[derive(Debug, ClapArgs)]
pub(crate) struct Place {
    /// The server's configuration; /etc/trainyard/server.toml where that is there
    #[arg(long, value_name = "FILE", env = "TRAINYARD_SERVER_CONFIG")]
    config: Option<PathBuf>,
    /// The server's data folder, where it has no configuration
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Reads every byte of every model, notebook and artifact, and compares its SHA-256 with its name. \
A running server is not disturbed.
Exit code: 0 where all are right, 1 where one is missing or wrong.

Examples:
  trainyard fsck --config /etc/trainyard/server.toml
  trainyard fsck --quick --json"
)]
pub(crate) struct FsckArgs {
    #[command(flatten)]
    place: Place,
    /// Only whether each is there with its length
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Removes contents that no attempt, run, model or checkpoint needs, and that are older than the \
server's `blob_grace`. The server does this by itself every hour, but for contents that have no row at all: finding those \
takes a list of all that there is. A running server is not disturbed.

Examples:
  trainyard gc --dry-run
  trainyard gc --older-than 2d --config /etc/trainyard/server.toml"
)]
pub(crate) struct GcArgs {
    #[command(flatten)]
    place: Place,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Instead of `blob_grace`; an upload that is under way must be younger
    #[arg(long, value_name = "TIME")]
    older_than: Option<Span>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

struct Opened {
    config: Config,
    store: Store,
    blobs: Blobs,
}

async fn open(place: &Place) -> anyhow::Result<Opened> {
    let config = match &place.data {
        Some(data) => Config::in_folder(data),
        None => super::server::config(place.config.as_deref())?,
    };
    let address = config.address()?;
    // A mistyped folder would otherwise become a server without contents, where all is right.
    if let Address::Sqlite(file) = &address {
        ensure!(
            file.is_file(),
            "there is no database '{}': name the server's configuration with --config, or its data with --data",
            file.display()
        );
    }
    let store = Store::open(&address).await?;
    let blobs = Blobs::open(&config.data, config.s3.as_ref())?;
    Ok(Opened {
        config,
        store,
        blobs,
    })
}

pub(crate) async fn fsck(args: FsckArgs) -> anyhow::Result<Exit> {
    let Opened { store, blobs, .. } = open(&args.place).await?;
    let shown = stderr().is_terminal();
    let told = |so_far: &Checked| {
        if shown {
            eprint!("\r{} contents, {} ", so_far.contents, so_far.bytes);
        }
    };
    let checked = upkeep::check(&store, &blobs, !args.quick, told).await?;
    store.close().await;
    if shown {
        eprintln!();
    }
    if args.json {
        out::json(&checked)?;
    } else {
        say(&checked, args.quick)?;
    }
    Ok(match checked.lost.is_empty() {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

fn say(checked: &Checked, quick: bool) -> anyhow::Result<()> {
    for lost in &checked.lost {
        let what = if lost.wrong { "wrong" } else { "missing" };
        out::say(&format!("{what}  {}  {}", lost.digest, lost.size))?;
        for place in &lost.needed_by {
            out::say(&format!("         {place}"))?;
        }
    }
    let lost = checked.lost.len() as u64 + checked.more_lost;
    let (contents, bytes) = (checked.contents, checked.bytes);
    let how = if quick { "are there" } else { "are right" };
    out::say(&match lost {
        0 => format!("{contents} contents of {bytes} {how}"),
        _ => format!(
            "{lost} of {contents} contents are missing or wrong: bring them back from a backup, or run their jobs again"
        ),
    })
}

pub(crate) async fn gc(args: GcArgs) -> anyhow::Result<Exit> {
    let opened = open(&args.place).await?;
    let (store, blobs) = (&opened.store, &opened.blobs);
    let grace = args.older_than.unwrap_or(opened.config.blob_grace);
    let before = Timestamp(Timestamp::now().0.saturating_sub_unsigned(grace.0));
    let manner = match args.dry_run {
        true => Manner::Count,
        false => Manner::Remove,
    };
    let unlinked = upkeep::unlinked(store, blobs, before, u64::MAX, manner).await?;
    let strays = upkeep::strays(store, blobs, before, manner).await?;
    opened.store.close().await;
    let found = Unneeded {
        contents: unlinked.contents,
        bytes: unlinked.bytes,
        ..strays
    };
    if args.json {
        out::json(&found)?;
        return Ok(Exit::Done);
    }
    let done = if args.dry_run {
        "would be removed"
    } else {
        "removed"
    };
    let all = ByteSize(found.bytes.0 + found.stray_bytes.0);
    out::say(&format!(
        "{done}: {all}, in {} contents that nothing needs and {} without a row, older than {grace}",
        found.contents, found.strays
    ))?;
    Ok(Exit::Done)
}
