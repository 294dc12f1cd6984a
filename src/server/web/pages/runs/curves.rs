//! Curves from the store as charts.

use super::asked::query;
use super::chart::{Chart, Line, Plot};
use super::fold::{Axis, Folded};
use crate::store::metrics::{self, Point};
use crate::store::{Connection, Result};

/// Charts on the page of one run, and of several.
const MOST_CHARTS: usize = 12;
const MOST_BESIDE: usize = 6;
/// So many names are looked through for curves to draw.
const MOST_NAMES: usize = 40;
/// Once so many points are read, no other metric is begun.
const MOST_POINTS: u64 = 2_000_000;
/// Points that are read at once.
const BATCH: u32 = 25_000;

/// How curves are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) axis: Axis,
    pub(super) log: bool,
    /// What the names of metrics have in them.
    pub(super) metric: String,
}

impl View {
    /// Reads the pairs that are its own.
    pub(super) fn read(pairs: &[(String, String)]) -> Self {
        let of = |wanted: &str| {
            let found = pairs.iter().find(|(name, _)| name == wanted);
            found.map_or("", |(_, value)| value.as_str())
        };
        Self {
            axis: match of("axis") {
                "time" => Axis::Time,
                _ => Axis::Step,
            },
            log: of("scale") == "log",
            metric: of("metric").trim().to_owned(),
        }
    }

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        if self.axis == Axis::Time {
            pairs.push(("axis", "time".to_owned()));
        }
        if self.log {
            pairs.push(("scale", "log".to_owned()));
        }
        if !self.metric.is_empty() {
            pairs.push(("metric", self.metric.clone()));
        }
        pairs
    }

    /// Whether a metric's name is asked for, whatever its case.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.metric.is_empty() || name.to_lowercase().contains(&self.metric.to_lowercase())
    }

    /// Its query; `more` are the page's own pairs.
    pub(super) fn query(&self, more: &[(&'static str, String)]) -> String {
        query(more.iter().cloned().chain(self.pairs()))
    }

    /// The other ways to look at it; `more` are the page's own pairs.
    pub(super) fn switches(&self, more: &[(&'static str, String)]) -> Vec<Switch> {
        let switch = |text, now, view: View| Switch {
            text,
            now,
            query: view.query(more),
        };
        let with = |axis| View {
            axis,
            ..self.clone()
        };
        let scaled = |log| View {
            log,
            ..self.clone()
        };
        vec![
            switch("by step", self.axis == Axis::Step, with(Axis::Step)),
            switch("by time", self.axis == Axis::Time, with(Axis::Time)),
            switch("linear", !self.log, scaled(false)),
            switch("logarithmic", self.log, scaled(true)),
        ]
    }

    /// What the search box brings along.
    pub(super) fn beside_search(&self) -> Vec<(&'static str, String)> {
        let mut pairs = self.pairs();
        pairs.retain(|(name, _)| *name != "metric");
        pairs
    }
}

/// A way to look at curves.
pub(super) struct Switch {
    pub(super) text: &'static str,
    pub(super) now: bool,
    pub(super) query: String,
}

/// The charts of a page.
#[derive(Default)]
pub(super) struct Charts {
    pub(super) drawn: Vec<Chart>,
    /// Metrics that may have a curve, which is not drawn.
    pub(super) left: Vec<String>,
}

/// Draws the curves of these metrics, by name, of these runs, each with its id and what it is called. A metric that has no more
/// than one point in each run is no curve.
pub(super) async fn charts(
    db: &mut Connection,
    runs: &[(String, String)],
    names: &[String],
    view: &View,
) -> Result<Charts> {
    let most = match runs.len() {
        0 | 1 => MOST_CHARTS,
        _ => MOST_BESIDE,
    };
    let mut charts = Charts::default();
    let mut points = 0;
    let wanted = names.iter().filter(|name| view.wants(name));
    for (number, name) in wanted.enumerate() {
        if charts.drawn.len() == most || number >= MOST_NAMES || points > MOST_POINTS {
            charts.left.push(name.clone());
            continue;
        }
        let mut curves = Vec::with_capacity(runs.len());
        for (run, _) in runs {
            curves.push(read(db, run, name).await?);
        }
        points += curves.iter().map(|curve| curve.points).sum::<u64>();
        if curves.iter().any(|curve| curve.points > 1) {
            charts.drawn.extend(draw(runs, name, &curves, view, number));
        }
    }
    Ok(charts)
}

/// Reads a curve in pieces, and keeps of each what a chart needs.
async fn read(db: &mut Connection, run: &str, name: &str) -> Result<Folded> {
    let mut folded = Folded::default();
    let mut last: Option<Point> = None;
    loop {
        let points = metrics::history(db, run, name, last.as_ref(), BATCH).await?;
        points.iter().for_each(|point| folded.add(point));
        if points.len() < BATCH as usize {
            return Ok(folded);
        }
        last = points.into_iter().next_back();
    }
}

fn draw(
    runs: &[(String, String)],
    name: &str,
    curves: &[Folded],
    view: &View,
    number: usize,
) -> Option<Chart> {
    let axis = axis(view.axis, curves);
    let line = |(look, (curve, (_, called))): (usize, (&Folded, &(String, String)))| Line {
        name: match runs.len() {
            1 => String::new(),
            _ => called.clone(),
        },
        look,
        odd: curve.odd,
        spots: curve.spots(axis),
    };
    let lines = curves.iter().zip(runs).enumerate();
    Chart::draw(&Plot {
        id: format!("chart-{number}"),
        title: name.to_owned(),
        by_time: axis == Axis::Time,
        log: view.log,
        lines: lines
            .filter(|(_, (curve, _))| curve.points > 0)
            .map(line)
            .collect(),
    })
}

/// Whoever logs without steps has all points at one: then time tells them apart.
fn axis(asked: Axis, curves: &[Folded]) -> Axis {
    let tells = |axis| curves.iter().any(|curve| curve.is_told_by(axis));
    match asked {
        Axis::Step if !tells(Axis::Step) && tells(Axis::Time) => Axis::Time,
        asked => asked,
    }
}
