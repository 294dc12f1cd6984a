//! Files of runs and logged models: they come and go as streams, and are addressed by their content. Nothing of them is
//! ever shown by a browser on this origin.

use std::ops::Range;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, put};
use futures_util::TryStreamExt as _;
use protocol::Digest;
use protocol::agent_api::BLOB_HEADER;
use protocol::api::Role;

use super::super::access::require;
use super::super::download::disposition;
use super::super::site::Site;
use super::{Asker, read, told};
use crate::blobs::{BlobError, Blobs};
use crate::disk;
use crate::registry::mlflow::{Answer, Code, Fault, Place, files};

/// What stands before the path of a file.
const ROOT: &str = "/api/2.0/mlflow-artifacts/artifacts";

/// The routes of files.
pub(super) fn routes() -> Router<Site> {
    readers()
        .layer(from_fn_with_state(Role::Read, require))
        .merge(writers().layer(from_fn_with_state(Role::Run, require)))
}

/// The routes of files for whoever comes.
pub(super) fn open() -> Router<Site> {
    readers().merge(writers())
}

fn writers() -> Router<Site> {
    Router::new()
        .route(ROOT, delete(remove))
        .route(&format!("{ROOT}/"), delete(remove))
        .route(&format!("{ROOT}/{{*path}}"), put(upload).delete(remove))
        .layer(DefaultBodyLimit::disable())
}

fn readers() -> Router<Site> {
    Router::new()
        .route(ROOT, read(files::list))
        .route(&format!("{ROOT}/{{*path}}"), get(download))
}

/// The routes of files for the code of a job: their contents come as blobs before.
pub(super) fn in_job() -> Router<Site> {
    let writers = put(link).delete(remove);
    readers()
        .route(ROOT, delete(remove))
        .route(&format!("{ROOT}/{{*path}}"), writers)
}

/// The file that an address means. The address itself is read, as it came: what a router decodes could have meant
/// something else before.
fn place(uri: &Uri) -> Answer<Place> {
    let path = uri.path().strip_prefix(ROOT).unwrap_or_default();
    Place::read(path.strip_prefix('/').unwrap_or(path))
}

async fn upload(
    State(site): State<Site>,
    Asker(caller): Asker,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let taken = async {
        let place = place(&uri)?;
        files::may_put(&caller, &place).await?;
        let (blob, size) = take(&site, &headers, body).await?;
        let done = files::put(&caller, &place, blob.clone(), size).await?;
        // Somebody may have removed the content as one that nobody needs, just before.
        match site.blobs.exists(&blob).await {
            Ok(true) => Ok(done),
            Ok(false) => Err(Fault::new(Code::Unavailable, "send the file once more")),
            Err(error) => Err(fault(error)),
        }
    };
    told(taken.await)
}

/// Puts a file whose content the attempt's agent has uploaded.
async fn link(
    State(site): State<Site>,
    Asker(caller): Asker,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let linked = async {
        let place = place(&uri)?;
        let blob = headers
            .get(BLOB_HEADER)
            .and_then(|text| text.to_str().ok()?.parse::<Digest>().ok())
            .ok_or_else(|| Fault::wanted(BLOB_HEADER))?;
        let size = files::uploaded(&caller, &blob).await?;
        // Its agent brings it again where it was removed as one that nobody needs.
        match (size, site.blobs.exists(&blob).await) {
            (Some(size), Ok(true)) => files::put(&caller, &place, blob, size).await,
            (Some(_) | None, Ok(_)) => Err(Fault::new(
                Code::Unavailable,
                format!("upload blob {blob} before the file is put"),
            )),
            (_, Err(error)) => Err(fault(error)),
        }
    };
    told(linked.await)
}

/// Takes the bytes of a body, in bounded memory.
async fn take(site: &Site, headers: &HeaderMap, body: Body) -> Answer<(Digest, u64)> {
    let limit = site.config.blob_limit;
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    let too_large = || {
        Fault::invalid(format!(
            "a file has at most {limit} on this server (`blob_limit`)"
        ))
    };
    if length.is_some_and(|length| length > limit.0) {
        return Err(too_large());
    }
    disk::room(&site.config, length.unwrap_or(0))
        .await
        .map_err(|full| Fault::new(Code::Unavailable, full))?;
    let bytes = body.into_data_stream().map_err(std::io::Error::other);
    match site.blobs.take(bytes, limit.0).await {
        Ok(taken) => Ok(taken),
        Err(BlobError::TooLarge) => Err(too_large()),
        Err(error) => Err(fault(error)),
    }
}

fn fault(error: BlobError) -> Fault {
    tracing::error!(%error, "a file of a run could not be kept or read");
    let words =
        "the server cannot keep or read the file now, and its log says why; nothing of it was kept";
    Fault::new(Code::Unavailable, words)
}

async fn remove(Asker(caller): Asker, uri: Uri) -> Response {
    match place(&uri) {
        Ok(place) => told(files::delete(&caller, &place).await),
        Err(fault) => fault.into_response(),
    }
}

async fn download(
    State(site): State<Site>,
    Asker(caller): Asker,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let found = async {
        let place = place(&uri)?;
        let file = files::get(&caller, &place).await?;
        let wanted = headers
            .get(header::RANGE)
            .and_then(|text| text.to_str().ok());
        send(&site.blobs, &file, wanted).await
    };
    found.await.unwrap_or_else(Fault::into_response)
}

async fn send(
    blobs: &Blobs,
    file: &crate::store::files::KeptFile,
    wanted: Option<&str>,
) -> Answer<Response> {
    let size = file.size.0;
    let common = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, disposition(&file.path)),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (
            header::CONTENT_SECURITY_POLICY,
            "sandbox; default-src 'none'".to_owned(),
        ),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, format!("\"{}\"", file.blob)),
    ];
    let (status, range) = match wanted.map(|text| part(text, size)) {
        None | Some(Part::All) => (StatusCode::OK, 0..size),
        Some(Part::Of(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Part::Outside) => {
            let end = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            let fault = Fault::invalid(format!("the file has {size} bytes"));
            let answer = (
                StatusCode::RANGE_NOT_SATISFIABLE,
                end,
                fault.body().to_string(),
            );
            return Ok((common, answer).into_response());
        }
    };
    let mut headers = vec![(
        header::CONTENT_LENGTH,
        (range.end - range.start).to_string(),
    )];
    if status == StatusCode::PARTIAL_CONTENT {
        let said = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        headers.push((header::CONTENT_RANGE, said));
    }
    let bytes = blobs.get_part(&file.blob, range).await.map_err(fault)?;
    let mut answer = (status, common, Body::from_stream(bytes)).into_response();
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            answer.headers_mut().insert(name, value);
        }
    }
    Ok(answer)
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

#[cfg(test)]
mod tests {
    use super::*;

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
