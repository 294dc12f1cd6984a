//! What attempts had of hosts in a span of time, summed from rows.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use protocol::api::UsageBy;
use protocol::{Timestamp, Trigger};
use sqlx::any::AnyRow;

use super::rows::Columns as _;
use super::{Connection, Result};

/// What one project, person or branch had.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Had {
    /// Milliseconds of GPUs, summed.
    pub gpu_ms: u64,
    /// Milliseconds of CPUs, summed.
    pub cpu_ms: u64,
    /// Jobs that had an attempt.
    pub jobs: u64,
}

/// Whose it is: the project of a branch, and the name. No project for projects and persons.
pub type Whose = (Option<String>, String);

/// What was booked between `since` and `until`, from each attempt's start to its end or to `until`; of attempts that
/// began before, the part within.
pub async fn had(
    db: &mut Connection,
    since: Timestamp,
    until: Timestamp,
    by: UsageBy,
) -> Result<BTreeMap<Whose, Had>> {
    let mut rows = sqlx::query(
        "SELECT projects.name AS project, pipelines.reference, pipelines.author, \
         pipelines.trigger_json, COUNT(DISTINCT used.job) AS jobs, \
         CAST(SUM(used.gpus * (used.till - used.since)) AS BIGINT) AS gpu_ms, \
         CAST(SUM(used.cpu_millis * (used.till - used.since) / 1000) AS BIGINT) AS cpu_ms \
         FROM ( \
         SELECT job, gpus, cpu_millis, finished_at AS till, \
         CASE WHEN started_at > $1 THEN started_at ELSE $1 END AS since \
         FROM attempts WHERE finished_at > $1 AND started_at IS NOT NULL \
         UNION ALL \
         SELECT attempts.job, attempts.gpus, attempts.cpu_millis, CAST($2 AS BIGINT) AS till, \
         CASE WHEN attempts.started_at > $1 THEN attempts.started_at ELSE $1 END AS since \
         FROM jobs JOIN attempts ON attempts.job = jobs.id \
         WHERE jobs.word IN ('leased', 'running', 'stopping') AND attempts.fate = 'open' \
         AND attempts.finished_at IS NULL AND attempts.started_at IS NOT NULL \
         ) AS used \
         JOIN jobs ON jobs.id = used.job JOIN pipelines ON pipelines.id = jobs.pipeline \
         JOIN projects ON projects.id = pipelines.project \
         WHERE used.till > used.since \
         GROUP BY pipelines.id, projects.name, pipelines.reference, pipelines.author, \
         pipelines.trigger_json",
    )
    .bind(since.0)
    .bind(until.0)
    .fetch(db);
    let mut all: BTreeMap<Whose, Had> = BTreeMap::new();
    while let Some(row) = rows.try_next().await? {
        let had = all.entry(whose(&row, by)?).or_default();
        had.gpu_ms += row.size("gpu_ms")?;
        had.cpu_ms += row.size("cpu_ms")?;
        had.jobs += row.size("jobs")?;
    }
    Ok(all)
}

/// A person is who asked, else who wrote the commit.
fn whose(row: &AnyRow, by: UsageBy) -> Result<Whose> {
    let project = row.text("project")?;
    Ok(match by {
        UsageBy::Project => (None, project),
        UsageBy::Person => {
            let trigger: Trigger = row.json("trigger_json")?;
            (None, trigger.by.map_or_else(|| row.text("author"), Ok)?)
        }
        UsageBy::Branch => {
            let reference = row.maybe_text("reference")?.unwrap_or_default();
            let name = reference.strip_prefix("refs/heads/").unwrap_or(&reference);
            (Some(project), name.to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use protocol::event::Phase;
    use protocol::job::Move;
    use protocol::{AgentId, Outcome};

    use super::*;
    use crate::store::attempts::{self, Fate};
    use crate::store::pipelines::Pipeline;
    use crate::store::projects::Project;
    use crate::store::testing::{self, on_both};
    use crate::store::{agents, jobs, pipelines, projects};

    const HOUR: i64 = 3_600_000;

    /// A job of a new pipeline of the project, leased; its attempt has these GPUs and began at `start` hours.
    async fn begun(
        db: &mut Connection,
        project: &Project,
        number: u64,
        change: impl FnOnce(&mut Pipeline),
        agent: &AgentId,
        gpus: &[&str],
        start: i64,
    ) -> attempts::Attempt {
        let mut pipeline = testing::pipeline(project, number);
        change(&mut pipeline);
        pipelines::insert(db, &pipeline).await.unwrap();
        let job = testing::job(&pipeline, "train");
        jobs::insert(db, &job).await.unwrap();
        let attempt = testing::attempt(project, &job, agent, 1, gpus);
        let lease = Move::Lease {
            attempt: attempt.id.clone(),
        };
        jobs::advance(db, &job, lease, None, Timestamp(0))
            .await
            .unwrap();
        attempts::insert(db, &attempt).await.unwrap();
        attempts::set_phase(db, &attempt.id, Phase::Run, Timestamp(start * HOUR))
            .await
            .unwrap();
        attempt
    }

    async fn end(db: &mut Connection, attempt: &attempts::Attempt, at: i64, fate: Fate) {
        let at = Timestamp(at * HOUR);
        attempts::end(db, &attempt.id, fate, &Outcome::Succeeded, at)
            .await
            .unwrap();
        attempts::release(db, &attempt.id).await.unwrap();
    }

    #[tokio::test]
    async fn hours_are_summed_by_whose_they_are() {
        on_both(|store| async move {
            let mut tx = store.begin().await.unwrap();
            let (one, two) = (testing::project("one"), testing::project("two"));
            projects::insert(&mut tx, &one).await.unwrap();
            projects::insert(&mut tx, &two).await.unwrap();
            let agent = agents::register(&mut tx, &testing::agent("gpu-1"))
                .await
                .unwrap();
            // Ended before; half within; lost within; still running; given and not begun.
            let before = begun(&mut tx, &one, 1, |_| (), &agent, &["a"], 1).await;
            end(&mut tx, &before, 9, Fate::Finished).await;
            let half = begun(&mut tx, &one, 2, |_| (), &agent, &["a", "b"], 8).await;
            end(&mut tx, &half, 12, Fate::Finished).await;
            let by_ada = |pipeline: &mut Pipeline| {
                pipeline.trigger.by = Some("ada".to_owned());
                pipeline.trigger.reference = Some("refs/heads/try".to_owned());
            };
            let lost = begun(&mut tx, &one, 3, by_ada, &agent, &["a"], 12).await;
            end(&mut tx, &lost, 13, Fate::Lost).await;
            begun(&mut tx, &two, 1, by_ada, &agent, &["a", "b", "c"], 19).await;
            let pipeline = testing::pipeline(&two, 2);
            pipelines::insert(&mut tx, &pipeline).await.unwrap();
            let job = testing::job(&pipeline, "train");
            jobs::insert(&mut tx, &job).await.unwrap();
            let given = testing::attempt(&two, &job, &agent, 1, &["d"]);
            attempts::insert(&mut tx, &given).await.unwrap();
            tx.commit().await.unwrap();

            let mut db = store.read().await.unwrap();
            let (since, until) = (Timestamp(10 * HOUR), Timestamp(20 * HOUR));
            let mut seen = Vec::new();
            for by in [UsageBy::Project, UsageBy::Person, UsageBy::Branch] {
                for ((project, name), had) in super::had(&mut db, since, until, by).await.unwrap() {
                    let project = project.unwrap_or_default();
                    let hours = |ms: u64| ms / HOUR.unsigned_abs();
                    let (gpus, cpus) = (hours(had.gpu_ms), hours(had.cpu_ms));
                    seen.push(format!("{project} {name} {gpus} {cpus} {}", had.jobs));
                }
            }
            // Each job has one CPU.
            assert_eq!(
                seen,
                [
                    " one 5 3 2",
                    " two 3 1 1",
                    " Ana 4 2 1",
                    " ada 4 2 2",
                    "one main 4 2 1",
                    "one try 1 1 1",
                    "two try 3 1 1",
                ]
            );
        })
        .await;
    }
}
