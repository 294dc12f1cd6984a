//! Two versions of a model side by side.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use protocol::registry::{Comparison, Judged, MetricDelta, Number, Version, VersionRef};
use serde::Deserialize;

use super::super::access::Who;
use super::super::models::version_ref;
use super::super::site::Site;
use super::frame::{Frame, Shown, show};
use super::models::{DifferenceRow, differences, href_of};
use super::words::{change, value};
use crate::registry;

/// Metrics of either; the API has all of them.
const MOST_METRICS: usize = 500;

/// Which two: numbers, ids, `latest` or `@alias`.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Pair {
    base: String,
    now: String,
}

struct Side {
    href: String,
    label: String,
}

struct MetricRow {
    name: String,
    base: String,
    now: String,
    change: String,
    judged: &'static str,
}

#[derive(Template)]
#[template(path = "versions.html")]
struct Page {
    frame: Frame,
    name: String,
    base: Side,
    now: Side,
    metrics: Vec<MetricRow>,
    differences: Vec<DifferenceRow>,
}

/// `GET /models/{name}/compare?base=…&now=…`
pub(in super::super) async fn compare(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
    Query(pair): Query<Pair>,
) -> Shown {
    let (base, now): (VersionRef, VersionRef) = (version_ref(&pair.base)?, version_ref(&pair.now)?);
    let both: Comparison = registry::compare_versions(&site.store, &name, &base, &now).await?;
    let metrics = both.metrics.iter().take(MOST_METRICS);
    show(&Page {
        frame: Frame::new("models", &site.access, &who),
        base: side(&both.base),
        now: side(&both.now),
        metrics: metrics.map(metric).collect(),
        differences: differences(&both),
        name,
    })
}

fn side(version: &Version) -> Side {
    Side {
        href: href_of(version),
        label: version.label(),
    }
}

fn metric(delta: &MetricDelta) -> MetricRow {
    let text = |number: Option<Number>| number.map_or_else(String::new, |Number(n)| value(n));
    let change = match (delta.base, delta.now) {
        (Some(Number(base)), Some(Number(now))) => change(now, base, None),
        _ => None,
    };
    MetricRow {
        name: delta.name.clone(),
        base: text(delta.base),
        now: text(delta.now),
        change: change.map(|(text, _)| text).unwrap_or_default(),
        judged: match delta.judged {
            Some(Judged::Better) => "better",
            Some(Judged::Worse) => "worse",
            Some(Judged::Same) | None => "",
        },
    }
}
