//! What projects, people and branches had of the hosts: `GET /api/v1/usage`.

use axum::Json;
use axum::extract::{Query, State};
use protocol::api::{Usage, UsageBy, UsageRow};
use protocol::{Span, Timestamp};
use serde::Deserialize;

use super::answer::{Answer, Problem};
use super::site::Site;
use crate::store::usage::{self, Had, Whose};

/// Where nothing else is asked for.
const USUAL: Span = Span::hours(7 * 24);
/// The longest time that is looked back.
const LONGEST: Span = Span::hours(366 * 24);
/// Most rows of an answer.
const MOST_ROWS: usize = 500;
const HOUR_MS: f64 = 3_600_000.0;

/// What is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// How far back, such as `7d`.
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    by: Option<String>,
}

/// `GET /api/v1/usage`
pub(super) async fn usage(
    State(site): State<Site>,
    Query(asked): Query<Asked>,
) -> Answer<Json<Usage>> {
    let back = asked.since.map_or(Ok(USUAL), |text| text.parse::<Span>());
    let back = back.map_err(|error| Problem::invalid(format!("since: {error}")))?;
    if back == Span(0) || back > LONGEST {
        let message = format!("since: {back} is not between a moment and {LONGEST}");
        return Err(Problem::invalid(message));
    }
    let by = asked.by.map_or(Ok(UsageBy::Project), |word| word.parse());
    let by = by.map_err(Problem::invalid)?;
    let until = Timestamp::now();
    let since = Timestamp(until.0.saturating_sub_unsigned(back.0));
    let mut db = site.store.read().await?;
    let had = usage::had(&mut db, since, until, by).await?;
    let mut items: Vec<UsageRow> = had.into_iter().map(row).collect();
    let more = u64::try_from(items.len().saturating_sub(MOST_ROWS)).unwrap_or(u64::MAX);
    items.sort_by(|a, b| {
        let most = |row: &UsageRow| (row.gpu_hours, row.cpu_hours);
        let (a, b) = (most(a), most(b));
        b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    items.truncate(MOST_ROWS);
    Ok(Json(Usage {
        by,
        since,
        until,
        items,
        more,
    }))
}

fn row(((project, name), had): (Whose, Had)) -> UsageRow {
    UsageRow {
        project,
        name,
        gpu_hours: had.gpu_ms as f64 / HOUR_MS,
        cpu_hours: had.cpu_ms as f64 / HOUR_MS,
        jobs: had.jobs,
    }
}
