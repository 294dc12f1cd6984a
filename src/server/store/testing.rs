//! For tests: a fresh, empty store on each database. SQLite in a temporary folder; Postgres in a schema
//! of its own at `$TRAINYARD_TEST_POSTGRES` (`postgres://…`, or `skip`). Not for anything else.

use std::collections::BTreeMap;
use std::future::Future;

use protocol::agent_api::{AttemptOrder, Source};
use protocol::hardware::Inventory;
use protocol::job::State;
use protocol::spec::{Limits, Network, Parameters, Resources, Turn};
use protocol::{
    AgentId, AttemptId, ByteSize, CommitId, Digest, JobId, JobSpec, PipelineId, ProjectId,
    Timestamp, Trigger, TriggerKind, Trust, Work,
};
use sqlx::Connection as _;

use super::agents::Agent;
use super::attempts::{Attempt, Fate};
use super::jobs::{Job, Lineage};
use super::pipelines::Pipeline;
use super::projects::Project;
use super::{Address, Store};
use crate::forge::ForgeConfig;

/// The variable that names the Postgres server of the tests.
pub const VARIABLE: &str = "TRAINYARD_TEST_POSTGRES";

/// Runs `story` with an empty store on SQLite, then with one on Postgres.
///
/// # Panics
/// Where a database cannot be had: a test that was skipped in silence would prove nothing.
pub async fn on_both<F, Fut>(story: F)
where
    F: Fn(Store) -> Fut,
    Fut: Future<Output = ()>,
{
    on_both_addresses(|address| {
        let story = &story;
        async move {
            let store = Store::open(&address).await.expect("a new database");
            story(store.clone()).await;
            store.close().await;
        }
    })
    .await;
}

/// Runs `story` with the address of an empty SQLite file, then with that of an empty Postgres schema.
///
/// # Panics
/// As [`on_both`].
pub async fn on_both_addresses<F, Fut>(story: F)
where
    F: Fn(Address) -> Fut,
    Fut: Future<Output = ()>,
{
    let folder = tempfile::tempdir().expect("a temporary folder");
    eprintln!("on SQLite");
    story(Address::Sqlite(folder.path().join("trainyard.db"))).await;

    let Some(schema) = Schema::create().await else {
        eprintln!("not on Postgres: {VARIABLE}=skip");
        return;
    };
    eprintln!("on Postgres");
    story(schema.address()).await;
    schema.remove().await;
}

/// A schema of its own on the test server.
pub struct Schema {
    server: String,
    name: String,
}

impl Schema {
    /// A new schema; none where the variable says `skip`.
    ///
    /// # Panics
    /// Where the variable is missing or the server does not answer.
    pub async fn create() -> Option<Self> {
        let server = std::env::var(VARIABLE).unwrap_or_else(|_| {
            panic!("set {VARIABLE} to postgres://… (scripts/test starts one), or to 'skip'")
        });
        if server == "skip" {
            return None;
        }
        let schema = Self {
            server,
            name: format!("t_{}", JobId::generate()),
        };
        schema.execute("CREATE SCHEMA").await;
        Some(schema)
    }

    /// Where a store finds it.
    #[must_use]
    pub fn address(&self) -> Address {
        let sign = if self.server.contains('?') { '&' } else { '?' };
        Address::Postgres(format!(
            "{}{sign}options[search_path]={}",
            self.server, self.name
        ))
    }

    /// Drops it with all that it holds.
    pub async fn remove(self) {
        self.execute("DROP SCHEMA").await;
    }

    async fn execute(&self, verb: &str) {
        sqlx::any::install_default_drivers();
        let cascade = if verb.starts_with("DROP") {
            "CASCADE"
        } else {
            ""
        };
        let mut connection = super::Connection::connect(&self.server)
            .await
            .unwrap_or_else(|error| panic!("{VARIABLE}={}: {error}", self.server));
        // The name is made above of letters, digits and an underscore.
        let sql = sqlx::AssertSqlSafe(format!("{verb} {} {cascade}", self.name));
        sqlx::raw_sql(sql)
            .execute(&mut connection)
            .await
            .expect("a schema of the test's own");
    }
}

/// As if all rows of reports had been lost.
pub async fn forget_reports(store: &Store) {
    let mut tx = store.begin().await.expect("a transaction");
    sqlx::raw_sql("DELETE FROM reports; DELETE FROM reported_pipelines")
        .execute(&mut *tx)
        .await
        .expect("the tables");
    tx.commit().await.expect("a commit");
}

/// How many rows each table has, but for those that say when something was used.
///
/// # Panics
/// Where the database does not answer.
pub async fn census(db: &mut super::Connection) -> BTreeMap<String, i64> {
    use super::rows::Columns as _;
    let tables = [
        "projects",
        "jobs",
        "attempts",
        "blobs",
        "artifacts",
        "audit",
        "experiments",
        "experiment_tags",
        "runs",
        "job_runs",
        "run_metrics",
        "metric_chunks",
        "run_params",
        "run_tags",
        "datasets",
        "run_datasets",
        "run_dataset_tags",
        "logged_models",
        "logged_model_params",
        "logged_model_tags",
        "logged_model_metrics",
        "run_models",
        "kept_files",
        "models",
        "model_tags",
        "model_versions",
        "model_version_tags",
        "model_files",
        "aliases",
        "alias_changes",
    ];
    let mut rows = BTreeMap::new();
    for table in tables {
        let sql = format!("SELECT COUNT(*) AS rows FROM {table}");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut *db)
            .await;
        let count = row.expect("the table").int("rows").expect("a count");
        rows.insert(table.to_owned(), count);
    }
    rows
}

/// A project of this name at a plain remote.
#[must_use]
pub fn project(name: &str) -> Project {
    Project {
        id: ProjectId::generate(),
        name: name.to_owned(),
        url: format!("https://git.example/{name}.git"),
        forge: ForgeConfig::Git,
        default_branch: None,
        credential: None,
        created_at: Timestamp(1),
        checked_at: None,
        problem: None,
        quota: Default::default(),
    }
}

/// A trusted push to `main` at a commit made of `number`.
#[must_use]
pub fn pipeline(project: &Project, number: u64) -> Pipeline {
    let commit: CommitId = format!("{number:040x}").parse().expect("40 digits");
    Pipeline {
        id: PipelineId::generate(),
        project: project.id.clone(),
        number,
        trigger_key: format!("push:refs/heads/main:{commit}"),
        trigger: Trigger {
            kind: TriggerKind::Push,
            commit,
            reference: Some("refs/heads/main".to_owned()),
            base: None,
            trust: Trust::Trusted,
            by: None,
            at: Timestamp(2),
            asked_in: None,
        },
        subject: "Train longer".to_owned(),
        author: "Ana".to_owned(),
        problem: None,
        notes: vec!["a note".to_owned()],
        supersede_running: false,
        created_at: Timestamp(3),
    }
}

/// A queued notebook job of this name, with a key of its own name.
#[must_use]
pub fn job(pipeline: &Pipeline, name: &str) -> Job {
    Job {
        id: JobId::generate(),
        pipeline: pipeline.id.clone(),
        project: pipeline.project.clone(),
        spec: JobSpec {
            name: name.to_owned(),
            definition: name.to_owned(),
            work: Work::Notebook {
                path: format!("{name}.ipynb"),
            },
            parameters: Parameters::new(),
            checkout: Default::default(),
            image: "trainyard/notebook".to_owned(),
            python: None,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            network: Network::Full,
            resources: Resources::default(),
            runs_on: Vec::new(),
            volumes: BTreeMap::new(),
            turn: Turn::default(),
            needs: Vec::new(),
            artifacts: Vec::new(),
            limits: Limits::default(),
            checkpoints: Default::default(),
            model: None,
            metrics: BTreeMap::new(),
            first_metric: None,
            parent: None,
            retries: 2,
            reuse: true,
        },
        key: Some(Digest::of(name)),
        trust: Trust::Trusted,
        lineage: Lineage::default(),
        state: State::Queued,
        version: 1,
        generation: 0,
        priority: 0,
        reason: None,
        created_at: Timestamp(4),
        queued_at: Some(Timestamp(4)),
        finished_at: None,
    }
}

/// An agent of this name: 8 CPUs, 32 GiB, no GPUs; its secret is its name.
#[must_use]
pub fn agent(name: &str) -> Agent {
    Agent {
        id: AgentId::generate(),
        name: name.to_owned(),
        secret_hash: Digest::of(name),
        version: "0.1.0".to_owned(),
        inventory: inventory(name),
        inventory_hash: Digest::of(""),
        accepting: true,
        closed: None,
        drained_by: None,
        revoked_by: None,
        removed_at: None,
        registered_at: Timestamp(5),
        seen_at: Timestamp(5),
    }
}

/// What a host of this name has: 8 CPUs, 32 GiB, no GPUs.
#[must_use]
pub fn inventory(host: &str) -> Inventory {
    Inventory {
        host: host.to_owned(),
        platform: "linux/amd64".to_owned(),
        cpu_model: "Example".to_owned(),
        cpu_millis: 8_000,
        memory: ByteSize::gib(32),
        disk: ByteSize::gib(500),
        disk_room: None,
        driver: None,
        gpus: Vec::new(),
        labels: Vec::new(),
        volumes: BTreeMap::new(),
        volume_grants: BTreeMap::new(),
        engine: None,
    }
}

/// The `number`th attempt of a job on an agent, open, with these GPUs.
#[must_use]
pub fn attempt(
    project: &Project,
    job: &Job,
    agent: &AgentId,
    number: u32,
    gpus: &[&str],
) -> Attempt {
    let id = AttemptId::generate();
    Attempt {
        id: id.clone(),
        job: job.id.clone(),
        agent: agent.clone(),
        number,
        generation: number,
        order: AttemptOrder {
            attempt: id,
            generation: number,
            job: job.id.clone(),
            number,
            pipeline: job.pipeline.clone(),
            project: project.id.clone(),
            project_name: project.name.clone(),
            source: Source::Git {
                url: project.url.clone(),
                commit: format!("{:040x}", 1).parse().expect("40 digits"),
                reference: None,
                authorization: None,
            },
            trust: job.trust,
            spec: job.spec.clone(),
            secrets: BTreeMap::new(),
            gpus: gpus.iter().map(|gpu| (*gpu).to_owned()).collect(),
            needs: BTreeMap::new(),
            parent: None,
            checkpoint: None,
            run: None,
        },
        fate: Fate::Open,
        evicted_by: None,
        phase: None,
        created_at: Timestamp(6),
        started_at: None,
        finished_at: None,
        outcome: None,
        report: None,
    }
}
