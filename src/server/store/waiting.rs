//! The jobs that wait for a host. They are kept from one pass of the scheduler to the next: a pass reads their ids, which
//! an index has, and the rows of those that it does not know yet.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use protocol::{AgentId, JobId, ProjectId, Span, Timestamp};
use sqlx::any::AnyRow;

use super::attempts::Fate;
use super::rows::{Columns as _, placeholders, to_json};
use super::{Connection, Result, StoreError};
use crate::schedule::Demand;

/// Most rows that one statement asks for.
const AT_ONCE: usize = 1_000;
/// Above so many demands, names and environments what is kept is read anew: those of jobs that are gone go.
const MOST_KEPT: usize = 200_000;
/// Characters of an id.
const ID: usize = 26;
/// Of jobs that are named by their ids: as a plain comparison it would make SQLite look through the whole queue for them.
const QUEUED: &str = "word || '' = 'queued'";

/// A job that waits for a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Queued {
    /// Its id.
    pub id: JobId,
    /// Its project and name, of [`Waiting::names`].
    pub name: usize,
    /// What it needs, of [`Waiting::demands`].
    pub demand: usize,
    /// Hash of image and lock, of [`Waiting::environments`].
    pub environment: Option<usize>,
    /// How long it may run.
    pub timeout: Span,
    /// Its concurrency group.
    pub concurrency: Option<String>,
    /// Higher goes first.
    pub priority: i64,
    /// Why no host has it yet, as it was noted last.
    pub reason: Option<Arc<str>>,
    /// When it was made. A retry keeps the place that its job had.
    pub created_at: Timestamp,
    /// Its attempts so far, the first one first.
    pub before: Vec<Before>,
}

/// An earlier attempt of a job that waits again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// Its agent.
    pub agent: AgentId,
    /// What became of it.
    pub fate: Fate,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// Whether it has an outcome.
    pub ended: bool,
    /// Whether somebody wanted it to end so that its job goes on elsewhere.
    pub evicted: bool,
}

/// Jobs that wait, and what many of them have in common, kept once.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The jobs, those with the highest priority and the oldest first.
    pub jobs: Vec<Queued>,
    /// What they need.
    pub demands: Once<String, Demand>,
    /// Whose they are, and what they are called.
    pub names: Once<(ProjectId, String), ()>,
    /// Their environments.
    pub environments: Once<String, ()>,
}

/// Values that are kept once, each with a number.
#[derive(Debug)]
pub struct Once<K, V> {
    numbers: HashMap<Arc<K>, usize>,
    all: Vec<(Arc<K>, V)>,
}

impl<K, V> Default for Once<K, V> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            all: Vec::new(),
        }
    }
}

impl<K: Eq + Hash, V> Once<K, V> {
    /// The number of a key; what it stands for is made where the key is new.
    fn number(&mut self, key: K, value: impl FnOnce(&K) -> Result<V>) -> Result<usize> {
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let value = value(&key)?;
        let key = Arc::new(key);
        self.numbers.insert(key.clone(), self.all.len());
        self.all.push((key, value));
        Ok(self.all.len() - 1)
    }

    /// The keys, by number.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.all.iter().map(|(key, _)| key.as_ref())
    }

    /// What they stand for, by number.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.all.iter().map(|(_, value)| value)
    }

    /// A key by its number, which this value gave.
    #[must_use]
    pub fn key(&self, number: usize) -> &K {
        &self.all[number].0
    }
}

impl Waiting {
    /// Takes in what changed since the last time: at most `limit` jobs are kept.
    ///
    /// # Errors
    /// The store's; then what is kept is to be thrown away.
    pub async fn refresh(&mut self, db: &mut Connection, limit: u32) -> Result<()> {
        if self.demands.all.len() + self.names.all.len() + self.environments.all.len() > MOST_KEPT {
            *self = Self::default();
        }
        let text = ids(db, limit).await?;
        let mut new: HashSet<&str> = text.as_bytes().chunks(ID).filter_map(as_text).collect();
        self.jobs.retain(|job| new.remove(job.id.as_str()));
        // An attempt may come to its end, or come back, while its job waits for another.
        let tried = self.jobs.iter().filter(|job| !job.before.is_empty());
        let tried: Vec<String> = tried.map(|job| job.id.to_string()).collect();
        let again = before(db, &tried.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        for job in self.jobs.iter_mut().filter(|job| !job.before.is_empty()) {
            job.before = again.get(&job.id).cloned().unwrap_or_default();
        }
        let mut new: Vec<&str> = new.into_iter().collect();
        new.sort_unstable();
        for some in new.chunks(AT_ONCE) {
            self.read(db, some).await?;
        }
        self.jobs
            .sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.id.cmp(&b.id)));
        Ok(())
    }

    /// Forgets jobs, by their place: what becomes of them is read again where they wait again.
    pub fn forget(&mut self, places: &HashSet<usize>) {
        let mut next = 0;
        self.jobs.retain(|_| {
            next += 1;
            !places.contains(&(next - 1))
        });
    }

    async fn read(&mut self, db: &mut Connection, some: &[&str]) -> Result<()> {
        let mut tried = before(db, some).await?;
        let sql = format!(
            "SELECT id, project, name, demand, timeout, environment, concurrency, priority, reason, \
             created_at, trust, CASE WHEN demand IS NULL THEN spec END AS spec \
             FROM jobs WHERE id IN {} AND {QUEUED}",
            placeholders(1, some.len())
        );
        // Placeholders and our own words only: no data stands in the text.
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for id in some {
            query = query.bind(*id);
        }
        for row in &query.fetch_all(db).await? {
            let mut job = self.job(row)?;
            job.before = tried.remove(&job.id).unwrap_or_default();
            self.jobs.push(job);
        }
        Ok(())
    }

    fn job(&mut self, row: &AnyRow) -> Result<Queued> {
        let project: ProjectId = row.parsed("project")?;
        let demand = match row.maybe_text("demand")? {
            Some(text) => text,
            None => to_json(&Demand::of(
                &row.json("spec")?,
                row.word("trust")?,
                &project,
            ))?,
        };
        let environment = row.maybe_text("environment")?;
        let timeout = row.maybe_int("timeout")?.map(|ms| Span(ms.unsigned_abs()));
        Ok(Queued {
            id: row.parsed("id")?,
            name: self
                .names
                .number((project, row.text("name")?), |_| Ok(()))?,
            demand: self.demands.number(demand, |text| {
                serde_json::from_str(text).map_err(|error| StoreError::Unreadable {
                    column: "demand".to_owned(),
                    why: error.to_string(),
                })
            })?,
            environment: environment
                .map(|of| self.environments.number(of, |_| Ok(())))
                .transpose()?,
            timeout: timeout.unwrap_or(protocol::spec::Limits::default().timeout),
            concurrency: row.maybe_text("concurrency")?,
            priority: row.int("priority")?,
            reason: row.maybe_text("reason")?.map(Arc::from),
            created_at: row.time("created_at")?,
            before: Vec::new(),
        })
    }
}

fn as_text(id: &[u8]) -> Option<&str> {
    std::str::from_utf8(id).ok()
}

/// The ids of the queued jobs, those with the highest priority and the oldest, one behind the other in one text: as
/// rows of their own they would take many times as long.
async fn ids(db: &mut Connection, limit: u32) -> Result<String> {
    let row = sqlx::query(
        "SELECT string_agg(id, '') AS ids FROM (SELECT id FROM jobs WHERE word = 'queued' \
         ORDER BY priority DESC, id LIMIT $1) AS queued",
    )
    .bind(i64::from(limit))
    .fetch_one(db)
    .await?;
    Ok(row.maybe_text("ids")?.unwrap_or_default())
}

/// The attempts of these jobs, by job, the first one first.
async fn before(db: &mut Connection, of: &[&str]) -> Result<HashMap<JobId, Vec<Before>>> {
    let mut all: HashMap<JobId, Vec<Before>> = HashMap::new();
    for some in of.chunks(AT_ONCE) {
        let sql = format!(
            "SELECT job, agent, fate, finished_at, CASE WHEN outcome IS NULL THEN 0 ELSE 1 END AS ended, \
             CASE WHEN evicted_by IS NULL THEN 0 ELSE 1 END AS evicted \
             FROM attempts WHERE job IN {} ORDER BY number",
            placeholders(1, some.len())
        );
        // Placeholders and our own words only: no data stands in the text.
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for id in some {
            query = query.bind(*id);
        }
        for row in &query.fetch_all(&mut *db).await? {
            all.entry(row.parsed("job")?).or_default().push(Before {
                agent: row.parsed("agent")?,
                fate: row.word("fate")?,
                finished_at: row.maybe_time("finished_at")?,
                ended: row.int("ended")? != 0,
                evicted: row.int("evicted")? != 0,
            });
        }
    }
    Ok(all)
}

/// Notes why these jobs have no host yet.
pub async fn set_reason(db: &mut Connection, of: &[&JobId], reason: &str) -> Result<()> {
    for some in of.chunks(AT_ONCE) {
        let sql = format!(
            "UPDATE jobs SET reason = ${} WHERE id IN {} AND {QUEUED}",
            some.len() + 1,
            placeholders(1, some.len())
        );
        // Placeholders and our own words only: no data stands in the text.
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for id in some {
            query = query.bind(id.as_str());
        }
        query.bind(reason).execute(&mut *db).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::job::Move;
    use protocol::{AttemptId, Failure, FailureKind, Outcome};

    use super::super::jobs::{self, Job};
    use super::super::testing::{self, on_both};
    use super::super::{agents, attempts, pipelines, projects};
    use super::*;

    async fn step(db: &mut Connection, job: &Job, step: Move) -> Job {
        let at = Timestamp(9);
        jobs::advance(db, job, step, None, at).await.unwrap()
    }

    /// What is kept, after a look.
    async fn kept<'a>(waiting: &'a mut Waiting, db: &mut Connection, limit: u32) -> Vec<&'a str> {
        waiting.refresh(db, limit).await.unwrap();
        let (jobs, names) = (waiting.jobs.iter(), &waiting.names);
        jobs.map(|job| names.key(job.name).1.as_str()).collect()
    }

    #[tokio::test]
    async fn what_is_kept_follows_the_rows() {
        on_both(|store| async move {
            let mut tx = store.begin().await.unwrap();
            let project = testing::project("digits");
            projects::insert(&mut tx, &project).await.unwrap();
            let pipeline = testing::pipeline(&project, 1);
            pipelines::insert(&mut tx, &pipeline).await.unwrap();
            let agent = agents::register(&mut tx, &testing::agent("gpu-1"))
                .await
                .unwrap();
            let mut waiting = Waiting::default();
            assert!(kept(&mut waiting, &mut tx, 9).await.is_empty());
            let [first, second] = ["first", "second"].map(|name| testing::job(&pipeline, name));
            for job in [&first, &second] {
                jobs::insert(&mut tx, job).await.unwrap();
            }
            assert_eq!(kept(&mut waiting, &mut tx, 9).await, ["first", "second"]);
            let mut urgent = testing::job(&pipeline, "urgent");
            urgent.priority = 5;
            jobs::insert(&mut tx, &urgent).await.unwrap();
            set_reason(&mut tx, &[&first.id, &second.id], "it waits")
                .await
                .unwrap();
            let names = kept(&mut waiting, &mut tx, 9).await;
            assert_eq!(names, ["urgent", "first", "second"]);
            assert_eq!(waiting.demands.values().len(), 1, "equal demands are one");
            assert_eq!(waiting.jobs[1].reason, None, "who notes it knows it");
            let read = jobs::get(&mut tx, &first.id).await.unwrap();
            assert_eq!(read.reason.as_deref(), Some("it waits"));

            // One goes, and comes back with an attempt behind it.
            let attempt = testing::attempt(&project, &first, &agent, 1, &[]);
            let id = attempt.id.clone();
            let leased = step(
                &mut tx,
                &read,
                Move::Lease {
                    attempt: id.clone(),
                },
            )
            .await;
            attempts::insert(&mut tx, &attempt).await.unwrap();
            waiting.forget(&HashSet::from([1]));
            assert_eq!(kept(&mut waiting, &mut tx, 9).await, ["urgent", "second"]);
            let failure = Failure::new(FailureKind::AgentLost, "x");
            let lost = Outcome::Failed(failure.clone());
            let retry = |attempt: &AttemptId| Move::Retry {
                attempt: attempt.clone(),
                failure: failure.clone(),
            };
            step(&mut tx, &leased, retry(&id)).await;
            assert_eq!(kept(&mut waiting, &mut tx, 2).await, ["urgent", "first"]);
            let before = &waiting.jobs[1].before;
            assert_eq!((before.len(), before[0].ended), (1, false));
            attempts::end(&mut tx, &id, Fate::Lost, &lost, Timestamp(9))
                .await
                .unwrap();
            kept(&mut waiting, &mut tx, 9).await;
            assert!(waiting.jobs[1].before[0].ended, "it is looked at again");
            assert_eq!(waiting.jobs[1].reason, None);
        })
        .await;
    }
}
