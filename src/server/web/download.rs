//! Artifacts as downloads. Nothing that a job left is ever shown by the browser on this origin.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use protocol::AttemptId;
use protocol::event::ArtifactRole;
use serde::Deserialize;

use super::answer::{Answer, Problem};
use super::site::Site;
use crate::store::attempts;

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    /// Where two roles have a file of the same path.
    #[serde(default)]
    role: Option<ArtifactRole>,
}

/// `GET /api/v1/artifacts/{attempt}/{*path}`
pub(super) async fn artifact(
    State(site): State<Site>,
    Path((attempt, path)): Path<(String, String)>,
    Query(which): Query<Which>,
) -> Answer<Response> {
    let missing = || Problem::missing(format!("artifact '{path}' of attempt '{attempt}'"));
    let attempt: AttemptId = attempt.parse().map_err(|_| missing())?;
    let mut db = site.store.read().await?;
    let files = attempts::artifacts(&mut db, &attempt).await?;
    drop(db);
    let wanted = |role| which.role.is_none_or(|wanted| wanted == role);
    let file = files
        .into_iter()
        .find(|file| file.path == path && wanted(file.role))
        .ok_or_else(missing)?;
    let bytes = site.blobs.get(&file.blob).await.map_err(|error| {
        tracing::error!(%error, blob = %file.blob, "a blob could not be read");
        let words = "the file cannot be read; the server's log says why";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", words)
    })?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, disposition(&path)),
        (header::CONTENT_LENGTH, file.size.0.to_string()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (
            header::CONTENT_SECURITY_POLICY,
            "sandbox; default-src 'none'".to_owned(),
        ),
    ];
    Ok((headers, Body::from_stream(bytes)).into_response())
}

/// An attachment under the file's own name (RFC 6266: ASCII, and the true name percent-encoded).
pub(super) fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._- ".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!(
        "attachment; filename=\"{plain}\"; filename*=UTF-8''{}",
        super::access::encode(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_out_of_its_header() {
        assert_eq!(
            disposition("reports/a\"b\r\n.html"),
            "attachment; filename=\"a_b__.html\"; filename*=UTF-8''a%22b%0D%0A.html"
        );
    }
}
