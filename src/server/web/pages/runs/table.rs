//! The runs of an experiment as a table: chosen columns, a filter, an order, all in the address.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use protocol::Timestamp;

use super::super::super::access::Who;
use super::super::super::answer::Problem;
use super::super::super::site::Site;
use super::super::frame::{Frame, Shown, show_as};
use super::asked::{Column, Pairs, SortBy, Sorted, TableAsked, sorted};
use super::shown::{Cell, Heading, NOTE, TAGS, tag_of};
use crate::registry::mlflow::{Fault, run_conditions, run_orders};
use crate::store::overview::{self, Named};
use crate::store::runs::Run;
use crate::store::search::{Piece, View};
use crate::store::{Connection, Result, experiments, search};

/// Runs on one page.
const PAGE: u32 = 100;
/// Names of each kind that columns can be chosen from.
const MOST_NAMES: u32 = 200;
/// Columns where none are chosen.
const USUAL_METRICS: usize = 4;
const USUAL_PARAMS: usize = 3;

struct Head {
    text: String,
    kind: &'static str,
    number: bool,
    sorted: Sorted,
}

struct Row {
    run: Heading,
    cells: Vec<Cell>,
}

/// A column that can be chosen.
struct Choice {
    word: String,
    name: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "runs.html")]
struct Page {
    frame: Frame,
    id: i64,
    name: String,
    experiment_deleted: bool,
    /// What people say of it.
    note: Option<String>,
    asked: TableAsked,
    /// What is wrong with the filter or the order.
    problem: Option<String>,
    /// Of the columns that every table has.
    name_sorted: Sorted,
    status_sorted: Sorted,
    began_sorted: Sorted,
    by_sorted: Sorted,
    heads: Vec<Head>,
    rows: Vec<Row>,
    choices: Vec<(&'static str, Vec<Choice>)>,
    other: String,
    later: Option<String>,
    earlier: Option<String>,
}

impl Page {
    /// What the form of the filter brings along.
    fn beside_filter(&self) -> Vec<(&'static str, String)> {
        self.beside("filter")
    }

    /// What the form of the columns brings along.
    fn beside_columns(&self) -> Vec<(&'static str, String)> {
        self.beside("column")
    }

    fn beside(&self, own: &str) -> Vec<(&'static str, String)> {
        let mut pairs = self.asked.pairs();
        pairs.retain(|(name, _)| *name != "from" && *name != own);
        pairs
    }
}

/// `GET /experiments/{id}`
pub(in super::super::super) async fn page(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Query(pairs): Pairs,
) -> Shown {
    let missing = || Problem::missing(format!("experiment '{id}'"));
    let number: i64 = id.parse().map_err(|_| missing())?;
    let asked = TableAsked::read(pairs);
    let mut db = site.store.read().await?;
    let experiment = experiments::find(&mut db, number)
        .await?
        .ok_or_else(missing)?;
    let (found, problem) = match find(&mut db, number, &asked).await {
        Ok(found) => (found, None),
        Err(Refused::Asked(fault)) => (Vec::new(), Some(fault.message)),
        Err(Refused::Store(error)) => return Err(error.into()),
    };
    let more = found.len() > PAGE as usize;
    let now = Timestamp::now();
    let table = Table::read(&mut db, &asked, found, now).await?;
    drop(db);
    let attribute = |name| sorted(&asked, &SortBy::Attribute(name));
    let at = |from: u64| {
        let there = TableAsked {
            from,
            ..asked.clone()
        };
        format!("/experiments/{number}{}", there.query())
    };
    let other = TableAsked {
        deleted: !asked.deleted,
        from: 0,
        ..asked.clone()
    };
    let status = match problem {
        None => StatusCode::OK,
        Some(_) => StatusCode::BAD_REQUEST,
    };
    let page = Page {
        frame: Frame::new("experiments", &site.access, &who),
        id: number,
        note: experiment
            .tags
            .into_iter()
            .find(|(name, text)| name == NOTE && !text.is_empty())
            .map(|(_, text)| text),
        name: experiment.name,
        experiment_deleted: experiment.deleted_at.is_some(),
        problem,
        name_sorted: attribute("run_name"),
        status_sorted: attribute("status"),
        began_sorted: attribute("start_time"),
        by_sorted: attribute("user_id"),
        heads: table.heads,
        rows: table.rows,
        choices: table.choices,
        other: format!("/experiments/{number}{}", other.query()),
        later: (asked.from > 0).then(|| at(asked.from.saturating_sub(u64::from(PAGE)))),
        earlier: more.then(|| at(asked.from.saturating_add(u64::from(PAGE)))),
        asked,
    };
    show_as(status, &page)
}

/// Why no runs are found.
enum Refused {
    /// What was asked cannot be read.
    Asked(Fault),
    /// The store's.
    Store(crate::store::StoreError),
}

/// One more than a page holds tells whether there is another.
async fn find(
    db: &mut Connection,
    experiment: i64,
    asked: &TableAsked,
) -> std::result::Result<Vec<Run>, Refused> {
    let conditions = run_conditions(Some(&asked.filter)).map_err(Refused::Asked)?;
    let orders = run_orders(std::slice::from_ref(&asked.order)).map_err(Refused::Asked)?;
    let view = if asked.deleted {
        View::Deleted
    } else {
        View::Active
    };
    let piece = Piece {
        offset: asked.from,
        limit: PAGE + 1,
    };
    search::runs(db, &[experiment], view, &conditions, &orders, piece)
        .await
        .map_err(Refused::Store)
}

/// What a page shows of the runs that were found.
struct Table {
    heads: Vec<Head>,
    rows: Vec<Row>,
    choices: Vec<(&'static str, Vec<Choice>)>,
}

impl Table {
    async fn read(
        db: &mut Connection,
        asked: &TableAsked,
        mut found: Vec<Run>,
        now: Timestamp,
    ) -> Result<Self> {
        found.truncate(PAGE as usize);
        let ids: Vec<String> = found.iter().map(|run| run.id.clone()).collect();
        let metrics = overview::names(db, Named::Metrics, &ids, MOST_NAMES).await?;
        let params = overview::names(db, Named::Params, &ids, MOST_NAMES).await?;
        let columns = columns(asked, &metrics, &params);
        let (mut of_metrics, mut of_params) = (Vec::new(), Vec::new());
        for column in &columns {
            match column {
                Column::Metric(name) => of_metrics.push(name.clone()),
                Column::Param(name) => of_params.push(name.clone()),
            }
        }
        let values = overview::metrics(db, &ids, &of_metrics).await?;
        let settings = overview::texts(db, Named::Params, &ids, &of_params).await?;
        let tags = overview::texts(db, Named::Tags, &ids, &TAGS.map(str::to_owned)).await?;
        let cell = |run: &Run, column: &Column| {
            let place = (run.id.clone(), column.name().to_owned());
            match column {
                Column::Metric(name) => Cell::number(name, values.get(&place).copied()),
                Column::Param(name) => {
                    Cell::text(name, settings.get(&place).map_or("", String::as_str))
                }
            }
        };
        let rows = found.iter().map(|run| Row {
            run: Heading::new(run, now, |name| tag_of(&tags, &run.id, name)),
            cells: columns.iter().map(|column| cell(run, column)).collect(),
        });
        Ok(Self {
            rows: rows.collect(),
            heads: columns.iter().map(|column| head(asked, column)).collect(),
            choices: choices(&columns, &metrics, &params),
        })
    }
}

/// The columns that are chosen, else the first of those that most runs have.
fn columns(asked: &TableAsked, metrics: &[String], params: &[String]) -> Vec<Column> {
    if !asked.columns.is_empty() {
        return asked.columns.clone();
    }
    let metrics = metrics.iter().take(USUAL_METRICS).cloned();
    let params = params.iter().take(USUAL_PARAMS).cloned();
    metrics
        .map(Column::Metric)
        .chain(params.map(Column::Param))
        .collect()
}

fn head(asked: &TableAsked, column: &Column) -> Head {
    let number = matches!(column, Column::Metric(_));
    Head {
        text: column.name().to_owned(),
        kind: if number { "metric" } else { "param" },
        number,
        sorted: sorted(asked, &SortBy::Column(column.clone())),
    }
}

/// What can be chosen: what runs of this page have, and what is chosen already.
fn choices(
    columns: &[Column],
    metrics: &[String],
    params: &[String],
) -> Vec<(&'static str, Vec<Choice>)> {
    let group = |kind: fn(String) -> Column, names: &[String]| {
        let mut all: Vec<Column> = names.iter().cloned().map(kind).collect();
        let is_kind = |column: &&Column| **column == kind(column.name().to_owned());
        for column in columns.iter().filter(is_kind) {
            if !all.contains(column) {
                all.push(column.clone());
            }
        }
        all.sort();
        let choice = |column: Column| Choice {
            word: column.word(),
            name: column.name().to_owned(),
            chosen: columns.contains(&column),
        };
        all.into_iter().map(choice).collect::<Vec<_>>()
    };
    [
        ("Metrics", group(Column::Metric, metrics)),
        ("Params", group(Column::Param, params)),
    ]
    .into_iter()
    .filter(|(_, list)| !list.is_empty())
    .collect()
}
