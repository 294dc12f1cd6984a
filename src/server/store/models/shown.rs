//! Versions and models as people are shown them: a page is a fixed number of statements, however much stands on it.

use std::collections::{BTreeSet, HashMap};

use protocol::registry::{Alias, Origin, Promotion, Version, VersionStatus};
use protocol::report::MetricValue;
use sqlx::any::AnyRow;

use super::super::rows::{Columns as _, IDS_AT_ONCE, numbered, to_int};
use super::super::{Connection, Result, registry};

/// What the lists of versions read: a version with its run, and the job and pipeline that it comes from.
const VERSION: &str = "SELECT v.id AS id, v.model AS model, v.version AS version, v.run AS run, \
     v.created_at AS created_at, v.promoted_by AS promoted_by, v.promoted_why AS promoted_why, \
     v.promoted_at AS promoted_at, v.because AS because, v.flavours AS flavours, j.job AS job, jobs.name AS job_name, \
     j.attempt AS attempt, p.commit_id AS commit_id, p.subject AS subject, \
     p.reference AS reference \
     FROM model_versions v LEFT JOIN runs r ON r.id = v.run LEFT JOIN job_runs j ON j.attempt = r.attempt \
     LEFT JOIN jobs ON jobs.id = j.job \
     LEFT JOIN pipelines p ON p.id = jobs.pipeline";

fn origin(row: &AnyRow) -> Result<Option<Origin>> {
    let Some(job) = row.maybe_parsed("job")? else {
        return Ok(None);
    };
    Ok(Some(Origin {
        job,
        job_name: row.text("job_name")?,
        attempt: row.parsed("attempt")?,
        commit: row.parsed("commit_id")?,
        title: row.text("subject")?,
        reference: row.maybe_text("reference")?,
    }))
}

/// Rows as versions, with their aliases and metrics: two statements more, however many there are.
async fn filled(db: &mut Connection, rows: &[AnyRow]) -> Result<Vec<Version>> {
    let (mut models, mut runs) = (BTreeSet::new(), BTreeSet::new());
    for row in rows {
        models.insert(row.text("model")?);
        runs.extend(row.maybe_text("run")?);
    }
    let aliases = aliases_of(db, &Vec::from_iter(models)).await?;
    let metrics = registry::metrics_of(db, &Vec::from_iter(runs)).await?;
    let version = |row: &AnyRow| version(row, &aliases, &metrics);
    rows.iter().map(version).collect()
}

fn version(
    row: &AnyRow,
    aliases: &HashMap<String, Vec<Alias>>,
    metrics: &HashMap<String, Vec<MetricValue>>,
) -> Result<Version> {
    let (model, run) = (row.text("model")?, row.maybe_text("run")?);
    let number = match row.maybe_int("version")? {
        Some(_) => Some(row.size("version")?),
        None => None,
    };
    let promotion = match (
        row.maybe_text("promoted_by")?,
        row.maybe_time("promoted_at")?,
    ) {
        (Some(by), Some(at)) => Some(Promotion {
            by,
            why: row.maybe_text("promoted_why")?.unwrap_or_default(),
            at,
        }),
        _ => None,
    };
    let aliases = aliases.get(&model).into_iter().flatten();
    let metrics = run.as_ref().and_then(|run| metrics.get(run));
    Ok(Version {
        id: row.text("id")?,
        version: number,
        status: match number {
            Some(_) => VersionStatus::Version,
            None => VersionStatus::Candidate,
        },
        origin: origin(row)?,
        aliases: aliases
            .filter(|alias| Some(alias.version) == number)
            .map(|alias| alias.alias.clone())
            .collect(),
        metrics: metrics.cloned().unwrap_or_default(),
        created_at: row.time("created_at")?,
        because: row.maybe_text("because")?,
        flavours: match row.maybe_text("flavours")? {
            Some(_) => row.json("flavours")?,
            None => Vec::new(),
        },
        promotion,
        model,
        run,
    })
}

async fn one_version(
    db: &mut Connection,
    condition: &'static str,
    bind: impl FnOnce(AnyQuery<'_>) -> AnyQuery<'_>,
) -> Result<Option<Version>> {
    let sql = format!("{VERSION} {condition}");
    let row = bind(sqlx::query(sqlx::AssertSqlSafe(sql)))
        .fetch_optional(&mut *db)
        .await?;
    Ok(filled(db, row.as_slice()).await?.pop())
}

type AnyQuery<'a> = sqlx::query::Query<'a, sqlx::Any, sqlx::any::AnyArguments>;

/// The version of a model with this number.
pub async fn by_number(db: &mut Connection, model: &str, number: u64) -> Result<Option<Version>> {
    let (model, number) = (model.to_owned(), to_int(number));
    let condition = "WHERE v.model = $1 AND v.version = $2 AND v.deleted_at IS NULL";
    one_version(db, condition, |q| q.bind(model).bind(number)).await
}

/// The version or candidate of a model with this id.
pub async fn by_id(db: &mut Connection, model: &str, id: &str) -> Result<Option<Version>> {
    let (model, id) = (model.to_owned(), id.to_owned());
    let condition = "WHERE v.model = $1 AND v.id = $2 AND v.deleted_at IS NULL";
    one_version(db, condition, |q| q.bind(model).bind(id)).await
}

/// What a job's run left, be it as the job's model or by its code; of several the job's model.
pub async fn by_run(db: &mut Connection, run: &str) -> Result<Option<Version>> {
    let run = run.to_owned();
    one_version(
        db,
        "WHERE v.run = $1 AND v.deleted_at IS NULL \
         AND (v.source IS NULL OR v.version IS NULL OR v.promoted_by IS NOT NULL) \
         ORDER BY CASE WHEN v.source IS NULL THEN 0 ELSE 1 END, v.id LIMIT 1",
        |q| q.bind(run),
    )
    .await
}

/// The version of a model with the highest number.
pub async fn latest(db: &mut Connection, model: &str) -> Result<Option<Version>> {
    let model = model.to_owned();
    one_version(
        db,
        "WHERE v.model = $1 AND v.version IS NOT NULL AND v.deleted_at IS NULL \
         ORDER BY v.version DESC LIMIT 1",
        |q| q.bind(model),
    )
    .await
}

/// The same of each of these models that has one.
pub async fn latest_of(db: &mut Connection, models: &[String]) -> Result<HashMap<String, Version>> {
    let mut rows = Vec::new();
    for models in models.chunks(IDS_AT_ONCE) {
        let sql = format!(
            "{VERSION} WHERE v.model IN ({}) AND v.deleted_at IS NULL AND v.version = (SELECT MAX(w.version) \
             FROM model_versions w WHERE w.model = v.model AND w.deleted_at IS NULL)",
            numbered(1, models.len())
        );
        rows.extend(of(db, sql, models).await?);
    }
    let versions = filled(db, &rows).await?.into_iter();
    Ok(versions.map(|one| (one.model.clone(), one)).collect())
}

/// The rows of a statement that names these models.
async fn of(db: &mut Connection, sql: String, models: &[String]) -> Result<Vec<AnyRow>> {
    let query = sqlx::query(sqlx::AssertSqlSafe(sql));
    let query = models.iter().fold(query, |query, model| query.bind(model));
    Ok(query.fetch_all(db).await?)
}

/// The newest versions and candidates of a model, at most `limit`.
pub async fn versions(db: &mut Connection, model: &str, limit: u32) -> Result<Vec<Version>> {
    let sql = format!(
        "{VERSION} WHERE v.model = $1 AND v.deleted_at IS NULL ORDER BY v.id DESC LIMIT $2"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(model)
        .bind(i64::from(limit))
        .fetch_all(&mut *db)
        .await?;
    filled(db, &rows).await
}

/// The newest versions and candidates whose files nobody has looked at, at most `limit`.
pub async fn unseen(db: &mut Connection, limit: u32) -> Result<Vec<Version>> {
    let sql = format!(
        "{VERSION} WHERE v.flavours IS NULL AND v.deleted_at IS NULL ORDER BY v.id DESC LIMIT $1"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::from(limit))
        .fetch_all(&mut *db)
        .await?;
    filled(db, &rows).await
}

/// How many versions and how many candidates each of these models has; none of either is left out.
pub async fn counts(db: &mut Connection, models: &[String]) -> Result<HashMap<String, (u64, u64)>> {
    let mut found = HashMap::new();
    for models in models.chunks(IDS_AT_ONCE) {
        let sql = format!(
            "SELECT model, COUNT(version) AS versions, COUNT(*) AS total FROM model_versions \
             WHERE model IN ({}) AND deleted_at IS NULL GROUP BY model",
            numbered(1, models.len())
        );
        for row in of(db, sql, models).await? {
            let versions = row.size("versions")?;
            let candidates = row.size("total")?.saturating_sub(versions);
            found.insert(row.text("model")?, (versions, candidates));
        }
    }
    Ok(found)
}

/// The aliases of a model, by name.
pub async fn aliases(db: &mut Connection, model: &str) -> Result<Vec<Alias>> {
    let mut found = aliases_of(db, &[model.to_owned()]).await?;
    Ok(found.remove(model).unwrap_or_default())
}

/// The aliases of these models, by name.
pub async fn aliases_of(
    db: &mut Connection,
    models: &[String],
) -> Result<HashMap<String, Vec<Alias>>> {
    let mut found: HashMap<String, Vec<Alias>> = HashMap::new();
    for models in models.chunks(IDS_AT_ONCE) {
        let wanted = numbered(1, models.len());
        let sql = format!("SELECT model, alias, version FROM aliases WHERE model IN ({wanted})");
        for row in of(db, sql, models).await? {
            let alias = Alias {
                alias: row.text("alias")?,
                version: row.size("version")?,
            };
            found.entry(row.text("model")?).or_default().push(alias);
        }
    }
    for aliases in found.values_mut() {
        aliases.sort_by(|a, b| a.alias.cmp(&b.alias));
    }
    Ok(found)
}
