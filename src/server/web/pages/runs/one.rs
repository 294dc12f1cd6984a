//! The page of one run: how it stands, its curves, params, tags, datasets, models and files, and what it belongs to.

use std::collections::HashMap;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use protocol::Timestamp;

use super::super::super::access::{Who, encode};
use super::super::super::answer::Problem;
use super::super::super::site::Site;
use super::super::files::{Entry, Tree};
use super::super::frame::{Frame, Shown, show};
use super::asked::Pairs;
use super::chart::Chart;
use super::curves::{self, Switch, View};
use super::shown::{Cell, Heading, NOTE, cut, is_id};
use crate::store::datasets::UsedDataset;
use crate::store::overview::{self, Made};
use crate::store::runs::{self, FullRun};
use crate::store::{experiments, files};

/// Rows of each table; the API has all of them.
const MOST_ROWS: usize = 1_000;
/// Most runs within this one that are listed.
const MOST_NESTED: u32 = 100;
/// Most versions that are listed.
const MOST_VERSIONS: u32 = 50;
/// Most characters of a param's or a tag's value.
const MOST_VALUE: usize = 2_000;
/// Longer tables are folded.
const FOLDED: usize = 24;

struct Pair {
    name: String,
    value: String,
}

struct Dataset {
    name: String,
    digest: String,
    context: String,
    source: String,
}

pub(super) struct Link {
    pub(super) href: String,
    pub(super) text: String,
}

struct MetricRow {
    cell: Cell,
    step: i64,
}

#[derive(Template)]
#[template(path = "run.html")]
struct Page {
    frame: Frame,
    run: Heading,
    experiment: i64,
    experiment_name: String,
    parent: Option<Link>,
    note: Option<String>,
    versions: Vec<Link>,
    made: Vec<Link>,
    read: Vec<Link>,
    nested: Vec<Heading>,
    view: View,
    switches: Vec<Switch>,
    charts: Vec<Chart>,
    left: Vec<String>,
    metrics: Vec<MetricRow>,
    params: Vec<Pair>,
    tags: Vec<Pair>,
    own_tags: Vec<Pair>,
    datasets: Vec<Dataset>,
    tree: Tree,
}

impl Page {
    /// Whether there is anything to search among metrics.
    fn has_curves(&self) -> bool {
        !self.charts.is_empty() || !self.left.is_empty() || !self.view.metric.is_empty()
    }

    /// Whether a table of so many rows is folded.
    fn folds_metrics(&self) -> bool {
        self.metrics.len() > FOLDED
    }

    fn folds_params(&self) -> bool {
        self.params.len() > FOLDED
    }
}

/// `GET /runs/{id}`
pub(in super::super::super) async fn page(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Query(pairs): Pairs,
) -> Shown {
    let missing = || Problem::missing(format!("run '{id}'"));
    let mut db = site.store.read().await?;
    let found = match is_id(&id) {
        true => runs::find(&mut db, &id).await?,
        false => None,
    };
    let found = found.ok_or_else(missing)?;
    let mut full = runs::fill(&mut db, vec![found]).await?;
    let full = full.pop().ok_or_else(missing)?;
    let experiment = experiments::find(&mut db, full.run.experiment).await?;
    let tag = |name: &str| tag(&full, name);
    let heading = Heading::new(&full.run, Timestamp::now(), tag);
    let parent = match &heading.parent {
        Some(parent) => overview::runs(&mut db, std::slice::from_ref(parent)).await?,
        None => Vec::new(),
    };
    let nested = overview::nested(&mut db, &id, MOST_NESTED).await?;
    let versions = overview::versions(&mut db, &id, MOST_VERSIONS).await?;
    let models: Vec<String> = full
        .inputs
        .iter()
        .chain(full.outputs.iter().map(|(model, _)| model))
        .take(MOST_ROWS)
        .cloned()
        .collect();
    let called = overview::logged_models(&mut db, &models).await?;
    let kept = files::below(&mut db, &id, "", Tree::MOST + 1).await?;
    let view = View::read(&pairs);
    let names: Vec<String> = full
        .metrics
        .iter()
        .map(|point| point.name.clone())
        .collect();
    let whose = [(id.clone(), String::new())];
    let charts = curves::charts(&mut db, &whose, &names, &view).await?;
    drop(db);
    let (own_tags, tags) = tags(&full);
    let outputs = full.outputs.iter().map(|(model, _)| model);
    show(&Page {
        frame: Frame::new("experiments", &site.access, &who),
        experiment: full.run.experiment,
        experiment_name: experiment.map(|one| one.name).unwrap_or_default(),
        parent: parent.into_iter().next().map(|run| Link {
            href: format!("/runs/{}", run.id),
            text: run.name,
        }),
        note: tag(NOTE).filter(|text| !text.is_empty()),
        versions: versions.iter().map(version_link).collect(),
        made: outputs.map(|id| model_link(id, &called)).collect(),
        read: full
            .inputs
            .iter()
            .map(|id| model_link(id, &called))
            .collect(),
        nested: nested
            .iter()
            .map(|run| Heading::new(run, Timestamp::now(), |_| None))
            .collect(),
        switches: view.switches(&[]),
        charts: charts.drawn,
        left: charts.left,
        metrics: metrics(&full, &view),
        params: pairs_of(&full.params),
        tags,
        own_tags,
        datasets: full.datasets.iter().map(dataset).collect(),
        tree: Tree::new(&id, "", kept),
        run: heading,
        view,
    })
}

fn tag(run: &FullRun, name: &str) -> Option<String> {
    let found = run.tags.iter().find(|(tag, _)| tag == name);
    found.map(|(_, value)| value.clone())
}

fn pairs_of(list: &[(String, String)]) -> Vec<Pair> {
    let pair = |(name, value): &(String, String)| Pair {
        name: name.clone(),
        value: cut(value, MOST_VALUE),
    };
    list.iter().take(MOST_ROWS).map(pair).collect()
}

/// The tags that MLflow and this server set, and those that people did.
fn tags(run: &FullRun) -> (Vec<Pair>, Vec<Pair>) {
    let ours = |name: &str| name.starts_with("mlflow.") || name.starts_with("trainyard.");
    let (own, theirs): (Vec<_>, Vec<_>) = run
        .tags
        .iter()
        .filter(|(name, _)| name != NOTE)
        .cloned()
        .partition(|(name, _)| ours(name));
    (pairs_of(&own), pairs_of(&theirs))
}

fn metrics(run: &FullRun, view: &View) -> Vec<MetricRow> {
    let wanted = run.metrics.iter().filter(|point| view.wants(&point.name));
    wanted
        .take(MOST_ROWS)
        .map(|point| MetricRow {
            cell: Cell::number(&point.name, Some(point.value)),
            step: point.step,
        })
        .collect()
}

fn version_link(made: &Made) -> Link {
    let named = made
        .number
        .map_or_else(|| made.id.clone(), |n| n.to_string());
    Link {
        href: format!("/models/{}/{named}", encode(&made.model)),
        text: match made.number {
            Some(number) => format!("{} version {number}", made.model),
            None => format!("{} candidate", made.model),
        },
    }
}

fn model_link(id: &str, called: &HashMap<String, String>) -> Link {
    let name = called.get(id).filter(|name| !name.is_empty());
    Link {
        href: format!("/files/{id}"),
        text: name.cloned().unwrap_or_else(|| id.to_owned()),
    }
}

fn dataset(used: &UsedDataset) -> Dataset {
    let context = used
        .tags
        .iter()
        .find(|(name, _)| name == "mlflow.data.context");
    Dataset {
        name: used.dataset.name.clone(),
        digest: used.dataset.digest.clone(),
        context: context.map(|(_, value)| value.clone()).unwrap_or_default(),
        source: cut(&used.dataset.source, 300),
    }
}
