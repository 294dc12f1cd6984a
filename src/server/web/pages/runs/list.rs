//! The list of experiments.

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use protocol::Timestamp;
use serde::Deserialize;

use super::super::super::access::Who;
use super::super::super::site::Site;
use super::super::frame::{Frame, Shown, show};
use super::super::words::{ago, iso};
use super::asked::query;
use crate::store::overview::{self, Listed};
use crate::store::search::Piece;

/// Experiments on one page.
const PAGE: u32 = 50;

/// What the list is asked for.
#[derive(Debug, Default, Deserialize)]
pub(in super::super::super) struct Asked {
    /// What their names have in them.
    #[serde(default)]
    name: String,
    #[serde(default)]
    deleted: Option<String>,
    from: Option<String>,
}

struct Row {
    id: i64,
    name: String,
    project: Option<String>,
    runs: u64,
    last: String,
    last_at: String,
}

#[derive(Template)]
#[template(path = "experiments.html")]
struct Page {
    frame: Frame,
    name: String,
    deleted: bool,
    rows: Vec<Row>,
    /// The list with deleted ones, or without.
    other: String,
    earlier: Option<String>,
    later: Option<String>,
}

/// `GET /experiments`
pub(in super::super::super) async fn list(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Query(asked): Query<Asked>,
) -> Shown {
    let deleted = asked.deleted.as_deref() == Some("1");
    let from: u64 = asked.from.and_then(|text| text.parse().ok()).unwrap_or(0);
    let piece = Piece {
        offset: from,
        limit: PAGE + 1,
    };
    let mut db = site.store.read().await?;
    let mut found = overview::experiments(&mut db, deleted, asked.name.trim(), piece).await?;
    drop(db);
    let more = found.len() > PAGE as usize;
    found.truncate(PAGE as usize);
    let here = |from: u64, deleted: bool| {
        let mut pairs = Vec::new();
        if !asked.name.is_empty() {
            pairs.push(("name", asked.name.clone()));
        }
        if deleted {
            pairs.push(("deleted", "1".to_owned()));
        }
        if from > 0 {
            pairs.push(("from", from.to_string()));
        }
        format!("/experiments{}", query(pairs))
    };
    let step = u64::from(PAGE);
    let now = Timestamp::now();
    show(&Page {
        frame: Frame::new("experiments", &site.access, &who),
        deleted,
        rows: found.into_iter().map(|one| row(one, now)).collect(),
        other: here(0, !deleted),
        later: (from > 0).then(|| here(from.saturating_sub(step), deleted)),
        earlier: more.then(|| here(from.saturating_add(step), deleted)),
        name: asked.name,
    })
}

fn row(listed: Listed, now: Timestamp) -> Row {
    Row {
        id: listed.experiment.id,
        name: listed.experiment.name,
        project: listed.project,
        runs: listed.runs,
        last: listed
            .last_run
            .map_or_else(|| "never".to_owned(), |at| ago(at, now)),
        last_at: listed.last_run.map(iso).unwrap_or_default(),
    }
}
