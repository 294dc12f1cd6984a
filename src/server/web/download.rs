//! Artifacts as downloads. Nothing that a job left is ever shown by the browser on this origin.

use std::ops::Range;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use protocol::event::ArtifactRole;
use protocol::{AttemptId, Digest};
use serde::Deserialize;

use super::answer::{Answer, Problem};
use super::site::Site;
use crate::blobs::{BlobError, Blobs};
use crate::registry;
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
    headers: HeaderMap,
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
    send(&site, &file.path, &file.blob, file.size.0, &headers).await
}

/// `GET /api/v1/models/{name}/{version}/files/{*path}`
pub(super) async fn model_file(
    State(site): State<Site>,
    Path((name, version, path)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answer<Response> {
    let version = super::models::version_ref(&version)?;
    let file = registry::file(&site.store, &name, &version, &path).await?;
    send(&site, &file.path, &file.blob, file.size.0, &headers).await
}

async fn send(
    site: &Site,
    path: &str,
    blob: &Digest,
    size: u64,
    headers: &HeaderMap,
) -> Answer<Response> {
    let range = headers.get(header::RANGE);
    let range = range.and_then(|text| text.to_str().ok());
    let sent = Stored { path, blob, size }.send(&site.blobs, range).await;
    let sent = sent.map_err(|error| {
        tracing::error!(%error, %blob, "a blob could not be read");
        let words = "the file cannot be read; the server's log says why";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", words)
    })?;
    sent.ok_or_else(|| {
        let words = format!("the file has {size} bytes: nothing of it lies in the range");
        Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "invalid", words)
    })
}

/// A file that is kept, to be sent as an attachment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    /// Its last part is the name that it is saved under.
    pub(super) path: &'a str,
    pub(super) blob: &'a Digest,
    /// In bytes.
    pub(super) size: u64,
}

impl Stored<'_> {
    /// The whole file, or what a `Range` header wants of it; none where nothing of it lies there.
    pub(super) async fn send(
        self,
        blobs: &Blobs,
        wanted: Option<&str>,
    ) -> Result<Option<Response>, BlobError> {
        let Self { path, blob, size } = self;
        let (status, range) = match wanted.map(|text| part(text, size)) {
            None | Some(Part::All) => (StatusCode::OK, 0..size),
            Some(Part::Of(range)) => (StatusCode::PARTIAL_CONTENT, range),
            Some(Part::Outside) => return Ok(None),
        };
        let headers = [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_DISPOSITION, disposition(path)),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
            (
                header::CONTENT_SECURITY_POLICY,
                "sandbox; default-src 'none'".to_owned(),
            ),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::ETAG, format!("\"{blob}\"")),
            (
                header::CONTENT_LENGTH,
                (range.end - range.start).to_string(),
            ),
        ];
        let said = format!("bytes {}-{}/{size}", range.start, range.end.max(1) - 1);
        let bytes = blobs.get_part(blob, range).await?;
        let mut answer = (status, headers, Body::from_stream(bytes)).into_response();
        if status == StatusCode::PARTIAL_CONTENT
            && let Ok(said) = said.parse()
        {
            answer.headers_mut().insert(header::CONTENT_RANGE, said);
        }
        Ok(Some(answer))
    }
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// All: it asks for several parts, or cannot be read, and is passed over as RFC 9110 says.
    All,
    /// These bytes.
    Of(Range<u64>),
    /// Nothing that is there.
    Outside,
}

fn part(text: &str, size: u64) -> Part {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return Part::All;
    };
    let (first, last) = (first.trim(), last.trim());
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return Part::All;
    }
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => return Part::All,
        (Ok(first), Ok(last)) => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(last)) if first.is_empty() => size.saturating_sub(last)..size,
        _ => return Part::All,
    };
    if range.start >= range.end {
        return Part::Outside;
    }
    Part::Of(range)
}

/// An attachment under the file's own name (RFC 6266: ASCII, and the true name percent-encoded).
fn disposition(path: &str) -> String {
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

    #[test]
    fn a_range_is_read_as_http_says() {
        for (text, expected) in [
            ("bytes=0-3", Part::Of(0..4)),
            ("bytes=4-", Part::Of(4..10)),
            ("bytes=-3", Part::Of(7..10)),
            ("bytes=-30", Part::Of(0..10)),
            ("bytes=5-500", Part::Of(5..10)),
            ("bytes=9-9", Part::Of(9..10)),
            ("bytes=10-", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=3-1", Part::All),
            ("bytes=0-1,3-4", Part::All),
            ("bytes=a-b", Part::All),
            ("items=0-1", Part::All),
            ("bytes=-", Part::All),
        ] {
            assert_eq!(part(text, 10), expected, "{text}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Outside);
    }
}
