//! The executed notebook as a job left it, and its active outputs: each a document of its own, which the
//! browser treats as from nowhere.

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{Html, IntoResponse as _};
use notebook::{Notebook, nbformat};
use protocol::JobId;
use protocol::api::Attempt;
use protocol::event::{Artifact, ArtifactRole};
use render::html;

use super::super::answer::Problem;
use super::super::api::job_id;
use super::super::site::Site;
use super::frame::Shown;
use crate::store::{attempts, jobs};

/// The largest executed notebook that a page shows.
const MOST_NOTEBOOK: u64 = 48 << 20;

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
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "private, max-age=300"),
    ];
    Ok((headers, Html(document)).into_response())
}
