//! Several runs side by side: the params that differ, metrics with the best marked, curves over each other.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use protocol::Timestamp;
use protocol::spec::Goal;

use super::super::super::access::Who;
use super::super::super::site::Site;
use super::super::frame::{Frame, Shown, show};
use super::asked::Pairs;
use super::chart::{Chart, LOOKS};
use super::curves::{self, Switch, View};
use super::one::Link;
use super::shown::{Cell, Heading, is_id};
use crate::store::runs::{self, FullRun};
use crate::store::{experiments, overview};

/// Runs side by side: as many as lines have looks.
const MOST_RUNS: usize = LOOKS;
/// Rows of each table.
const MOST_ROWS: usize = 500;

struct Row {
    name: String,
    cells: Vec<Marked>,
}

/// A value, and what is to be said of it beside the others.
struct Marked {
    cell: Cell,
    mark: &'static str,
}

#[derive(Template)]
#[template(path = "compare.html")]
struct Page {
    frame: Frame,
    /// Where all of them are in one.
    experiment: Option<Link>,
    runs: Vec<Heading>,
    /// How many more were asked for.
    more: usize,
    differing: Vec<Row>,
    equal: Vec<Row>,
    metrics: Vec<Row>,
    view: View,
    switches: Vec<Switch>,
    hidden: Vec<(&'static str, String)>,
    charts: Vec<Chart>,
    left: Vec<Link>,
}

/// `GET /runs/compare?run=…&run=…`
pub(in super::super::super) async fn page(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Query(pairs): Pairs,
) -> Shown {
    let mut ids: Vec<String> = Vec::new();
    for (_, id) in pairs.iter().filter(|(name, id)| name == "run" && is_id(id)) {
        if !ids.contains(id) {
            ids.push(id.clone());
        }
    }
    let more = ids.len().saturating_sub(MOST_RUNS);
    ids.truncate(MOST_RUNS);
    let view = View::read(&pairs);
    let mut db = site.store.read().await?;
    let found = overview::runs(&mut db, &ids).await?;
    let all = runs::fill(&mut db, found).await?;
    let ids: Vec<String> = all.iter().map(|one| one.run.id.clone()).collect();
    let goals = overview::goals(&mut db, &ids).await?;
    let in_one: BTreeSet<i64> = all.iter().map(|one| one.run.experiment).collect();
    let experiment = match (in_one.len(), in_one.first()) {
        (1, Some(id)) => experiments::find(&mut db, *id).await?,
        _ => None,
    };
    let called: Vec<(String, String)> = all.iter().map(called).collect();
    let names: BTreeSet<&String> = all
        .iter()
        .flat_map(|one| one.metrics.iter().map(|point| &point.name))
        .collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    let charts = curves::charts(&mut db, &called, &names, &view).await?;
    drop(db);
    let chosen: Vec<(&'static str, String)> = ids.iter().map(|id| ("run", id.clone())).collect();
    let (differing, equal) = params(&all);
    let alone = |name: &String| {
        let alone = View {
            metric: name.clone(),
            ..view.clone()
        };
        Link {
            href: format!("/runs/compare{}", alone.query(&chosen)),
            text: name.clone(),
        }
    };
    show(&Page {
        frame: Frame::new("experiments", &site.access, &who),
        experiment: experiment.map(|one| Link {
            href: format!("/experiments/{}", one.id),
            text: one.name,
        }),
        runs: all
            .iter()
            .map(|one| Heading::new(&one.run, Timestamp::now(), |name| tag(one, name)))
            .collect(),
        more,
        differing,
        equal,
        metrics: metrics(&all, &names, &goals, &view),
        switches: view.switches(&chosen),
        hidden: chosen.iter().cloned().chain(view.beside_search()).collect(),
        charts: charts.drawn,
        left: charts.left.iter().map(alone).collect(),
        view,
    })
}

fn tag(run: &FullRun, name: &str) -> Option<String> {
    let found = run.tags.iter().find(|(tag, _)| tag == name);
    found.map(|(_, value)| value.clone())
}

fn called(one: &FullRun) -> (String, String) {
    (one.run.id.clone(), one.run.name.clone())
}

/// The params that differ, and those that all have alike.
fn params(all: &[FullRun]) -> (Vec<Row>, Vec<Row>) {
    let names: BTreeSet<&str> = all
        .iter()
        .flat_map(|one| one.params.iter().map(|(name, _)| name.as_str()))
        .collect();
    let (mut differing, mut equal) = (Vec::new(), Vec::new());
    for name in names {
        let of = |one: &FullRun| {
            let found = one.params.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| value.clone())
        };
        let values: Vec<Option<String>> = all.iter().map(of).collect();
        let alike = values.windows(2).all(|two| two[0] == two[1]);
        let cell = |value: &Option<String>| Marked {
            cell: Cell::text(name, value.as_deref().unwrap_or("—")),
            mark: "",
        };
        let row = Row {
            name: name.to_owned(),
            cells: values.iter().map(cell).collect(),
        };
        let list = if alike { &mut equal } else { &mut differing };
        if list.len() < MOST_ROWS {
            list.push(row);
        }
    }
    (differing, equal)
}

fn metrics(
    all: &[FullRun],
    names: &[String],
    goals: &BTreeMap<String, Goal>,
    view: &View,
) -> Vec<Row> {
    let row = |name: &String| {
        let of = |one: &FullRun| {
            let found = one.metrics.iter().find(|point| point.name == *name);
            found.map(|point| point.value)
        };
        let values: Vec<Option<f64>> = all.iter().map(of).collect();
        let marks = marks(&values, goals.get(name).copied());
        let cell = |(value, mark): (&Option<f64>, &'static str)| Marked {
            cell: Cell::number(name, *value),
            mark,
        };
        Row {
            name: name.clone(),
            cells: values.iter().zip(marks).map(cell).collect(),
        }
    };
    let wanted = names.iter().filter(|name| view.wants(name));
    wanted.take(MOST_ROWS).map(row).collect()
}

/// Which values are the best, where it is known what is better; else which are the lowest and the highest.
fn marks(values: &[Option<f64>], goal: Option<Goal>) -> Vec<&'static str> {
    let finite = || values.iter().flatten().copied().filter(|v| v.is_finite());
    let least = finite().fold(f64::INFINITY, f64::min);
    let most = finite().fold(f64::NEG_INFINITY, f64::max);
    let mark = |value: &Option<f64>| match (value, goal) {
        _ if least >= most => "",
        (Some(value), Some(Goal::Maximize)) if *value == most => "best",
        (Some(value), Some(Goal::Minimize)) if *value == least => "best",
        (Some(value), None) if *value == least => "lowest",
        (Some(value), None) if *value == most => "highest",
        (Some(_) | None, _) => "",
    };
    values.iter().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_marked_where_it_is_known_what_is_better() {
        let values = [Some(0.5), None, Some(0.9), Some(f64::NAN), Some(0.9)];
        let marked = |goal| marks(&values, goal);
        assert_eq!(marked(Some(Goal::Maximize)), ["", "", "best", "", "best"]);
        assert_eq!(marked(Some(Goal::Minimize)), ["best", "", "", "", ""]);
        assert_eq!(marked(None), ["lowest", "", "highest", "", "highest"]);
        assert_eq!(marks(&[Some(1.0), Some(1.0)], None), ["", ""]);
        assert_eq!(marks(&[Some(1.0), None], Some(Goal::Maximize)), ["", ""]);
    }
}
