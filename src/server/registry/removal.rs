//! Versions that go: a person removes one, or a rule of the configuration those that grew old. Neither touches what an
//! alias, a version or a job needs. What is removed is gone for who asks; its files stay for a grace.

use protocol::registry::{Related, Removal, Version, VersionRef};
use protocol::{Span, Timestamp};
use serde::Deserialize;

use super::catalog::{RegistryError, Result, resolve};
use super::mlflow::source::kept_at;
use crate::forge::bounded;
use crate::store::{self, Connection, Store, parents, retention, versions};

/// Most things that are named as needing a version.
const MOST_NEEDS: u32 = 10;
/// Most versions that a pass removes or empties.
const MOST: u32 = 1_000;
/// Who removes by a rule.
const BY: &str = "trainyard";

/// Which versions and candidates go by themselves; nothing does by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Candidates go when they are older.
    #[serde(deserialize_with = "crate::config::maybe_span")]
    pub candidates: Option<Span>,
    /// So many of the newest versions of a model stay; the others go.
    pub versions: Option<std::num::NonZeroU32>,
}

/// Removes a version or candidate that nothing needs.
pub async fn remove(
    store: &Store,
    model: &str,
    wanted: &VersionRef,
    by: &str,
    why: &str,
) -> Result<Version> {
    let why = bounded(why, 1_000);
    if why.trim().is_empty() {
        return Err(RegistryError::NoReason);
    }
    let mut tx = store.begin().await?;
    let version = resolve(&mut tx, model, wanted).await?;
    let needs = needs(&mut tx, &version).await?;
    if !needs.is_empty() {
        return Err(RegistryError::Needed {
            model: model.to_owned(),
            label: version.label(),
            by: needs.join("; "),
        });
    }
    let removal = Removal {
        by: bounded(by, 100),
        why,
        at: Timestamp::now(),
    };
    retention::remove(&mut tx, &version.id, &removal).await?;
    versions::touch(&mut tx, model, removal.at).await?;
    store::commit(tx).await?;
    Ok(version)
}

/// What needs a version, in words.
async fn needs(db: &mut Connection, version: &Version) -> Result<Vec<String>> {
    let aliases = version.aliases.iter();
    let mut needs: Vec<String> = aliases
        .map(|alias| format!("@{alias} points to it"))
        .collect();
    if let Some(stage) = retention::stage(db, &version.id).await? {
        needs.push(format!("a client has put it into the stage {stage}"));
    }
    let children = parents::children(db, &version.id, MOST_NEEDS).await?;
    needs.extend(children.iter().map(child));
    Ok(needs)
}

fn child(child: &Related) -> String {
    match (&child.model, &child.job) {
        (Some(model), _) => format!("{} of '{model}' goes on from it", child.label()),
        (None, Some(job)) => format!("job {job} goes on from it and is not over"),
        (None, None) => "a job goes on from it".to_owned(),
    }
}

/// One pass of the rules; gives how many versions and candidates were removed.
pub async fn retain(store: &Store, rules: Retention, now: Timestamp) -> store::Result<usize> {
    let mut gone = 0;
    let mut tx = store.begin().await?;
    if let Some(age) = rules.candidates {
        let before = Timestamp(now.0.saturating_sub_unsigned(age.0));
        let old = retention::old_candidates(&mut tx, before, MOST).await?;
        let why = format!("a candidate older than {age} (`retention.candidates`)");
        gone += remove_all(&mut tx, &old, &why, now).await?;
    }
    if let Some(keep) = rules.versions {
        let beyond = retention::beyond(&mut tx, keep.get(), MOST).await?;
        let why = format!("not among the newest {keep} versions (`retention.versions`)");
        gone += remove_all(&mut tx, &beyond, &why, now).await?;
    }
    store::commit(tx).await?;
    Ok(gone)
}

async fn remove_all(
    db: &mut Connection,
    versions: &[String],
    why: &str,
    at: Timestamp,
) -> store::Result<usize> {
    let removal = Removal {
        by: BY.to_owned(),
        why: why.to_owned(),
        at,
    };
    for version in versions {
        retention::remove(db, version, &removal).await?;
    }
    Ok(versions.len())
}

/// Takes the links to their files from versions that are gone since before `before`; gives how many. The contents go when
/// nothing else links them.
pub async fn empty(store: &Store, before: Timestamp, now: Timestamp) -> store::Result<usize> {
    let mut tx = store.begin().await?;
    let emptied = retention::empty(&mut tx, before, MOST, now, kept_at).await?;
    store::commit(tx).await?;
    Ok(emptied)
}
