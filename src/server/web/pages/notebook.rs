//! The executed notebook as a job left it, and its active outputs: each a document of its own, which the
//! browser treats as from nowhere. What a pull request changes in notebooks is a page of its own, too.

use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse as _};
use notebook::{Notebook, nbformat};
use protocol::api::Attempt;
use protocol::event::{Artifact, ArtifactRole};
use protocol::{JobId, PipelineId};
use render::{diff, html};

use super::super::answer::Problem;
use super::super::api::job_id;
use super::super::site::Site;
use super::frame::{Shown, document};
use crate::notebooks;
use crate::store::{attempts, jobs, pipelines, projects};

/// The largest executed notebook that a page shows.
const MOST_NOTEBOOK: u64 = 48 << 20;

/// Most bytes of a page of changes.
const MOST_PAGE: usize = 16 << 20;

/// The document has an origin of its own (`sandbox`): neither our cookies nor our pages. It may run what
/// it brought and what it loads, and sends nothing anywhere by itself.
const POLICY: &str = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob: https:; \
                      style-src 'unsafe-inline' https:; img-src data: blob: https:; font-src data: https:; \
                      worker-src blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'";

/// The cells of the notebook that an attempt left; none while it runs, or where it left none.
pub(super) async fn cells(site: &Site, job: &JobId, attempt: &Attempt) -> Option<String> {
    let notebook = executed(site, &attempt.artifacts).await?;
    let options = html::Options {
        frame_prefix: Some(format!("/jobs/{job}/frames")),
        ..html::Options::default()
    };
    Some(html::notebook(&notebook, &options))
}

async fn executed(site: &Site, artifacts: &[Artifact]) -> Option<Notebook> {
    let file = artifacts
        .iter()
        .find(|file| file.role == ArtifactRole::Notebook)?;
    let bytes = site.blobs.read(&file.blob, MOST_NOTEBOOK).await.ok()??;
    nbformat::read(&bytes).ok().map(Notebook::with_captured)
}

/// `GET /pipelines/{id}/notebooks`: what differs between a pipeline's commit and the one that it is compared with.
pub(in super::super) async fn changes(State(site): State<Site>, Path(id): Path<String>) -> Shown {
    let missing = || Problem::missing(format!("what pipeline '{id}' changes in notebooks"));
    let id: PipelineId = id.parse().map_err(|_| missing())?;
    let mut db = site.store.read().await?;
    let row = pipelines::find(&mut db, &id).await?.ok_or_else(missing)?;
    let base = row.trigger.base.ok_or_else(missing)?;
    let project = projects::find(&mut db, &row.project).await?;
    let url = project.ok_or_else(missing)?.url;
    drop(db);
    let title = format!("Notebooks of #{}", row.number);
    let (mirrors, head) = (site.config.mirrors(), row.trigger.commit);
    // It reads files and draws much: not on a thread that answers requests.
    let drawing = tokio::task::spawn_blocking(move || {
        let changed = notebooks::changed(&mirrors, &url, &base, &head)?;
        let diffs: Vec<_> = changed.pairs.iter().map(diff::Pair::diff).collect();
        let pairs = changed.pairs.iter().zip(&diffs);
        let compared: Vec<_> = pairs.map(diff::Pair::compared).collect();
        let options = diff::Options {
            max_bytes: MOST_PAGE,
            ..diff::Options::default()
        };
        Ok::<_, mirror::MirrorError>(diff::page(&title, &compared, &options))
    });
    let page = match drawing.await {
        Ok(drawn) => drawn.map_err(|error| {
            let words = format!("the notebooks cannot be compared: {error}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", words)
        })?,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    Ok(document(page))
}

/// `GET /jobs/{id}/frames/{cell}/{output}`: one active output of the last attempt.
pub(in super::super) async fn frame(
    State(site): State<Site>,
    Path((id, cell, output)): Path<(String, usize, usize)>,
) -> Shown {
    let id = job_id(&id)?;
    let missing = || Problem::missing(format!("active output {output} of cell {cell} of job {id}"));
    let mut db = site.store.read().await?;
    jobs::get(&mut db, &id).await?;
    let last = attempts::of_job(&mut db, &id).await?.pop();
    let attempt = last.ok_or_else(missing)?.id;
    let artifacts = attempts::artifacts(&mut db, &attempt).await?;
    drop(db);
    let notebook = executed(&site, &artifacts).await.ok_or_else(missing)?;
    let document = html::frame_document(&notebook, cell, output).ok_or_else(missing)?;
    Ok((from_nowhere(), Html(document)).into_response())
}

/// The headers of a document that has an origin of its own.
pub(super) fn from_nowhere() -> [(HeaderName, &'static str); 4] {
    [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "private, max-age=300"),
    ]
}
