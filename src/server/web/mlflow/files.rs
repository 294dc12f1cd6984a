//! Files of runs and logged models: they come and go as streams, and are addressed by their content. Nothing of them is
//! ever shown by a browser on this origin.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, put};
use futures_util::{StreamExt as _, TryStreamExt as _};
use protocol::Digest;
use protocol::agent_api::BLOB_HEADER;
use protocol::api::Role;

use super::super::access::require;
use super::super::download::Stored;
use super::super::site::Site;
use super::{Asker, read, told};
use crate::blobs::{BlobError, Blobs};
use crate::disk;
use crate::registry::mlflow::{Answer, Code, Fault, Place, files};

/// So many bytes of what is refused are read, and for so long.
const MOST_DRAINED: u64 = 1 << 30;
const DRAIN: Duration = Duration::from_secs(60);

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
    let mut bytes = body.into_data_stream();
    let taken = async {
        let place = place(&uri)?;
        files::may_put(&caller, &place).await?;
        let (blob, size) = take(&site, &headers, &mut bytes).await?;
        let done = files::put(&caller, &place, blob.clone(), size).await?;
        // Somebody may have removed the content as one that nobody needs, just before.
        match site.blobs.exists(&blob).await {
            Ok(true) => Ok(done),
            Ok(false) => Err(Fault::new(Code::Unavailable, "send the file once more")),
            Err(error) => Err(fault(error)),
        }
    };
    let taken = taken.await;
    if taken.is_err() {
        let _ = tokio::time::timeout(DRAIN, drain(&mut bytes)).await;
    }
    told(taken)
}

/// Reads what a client sends that is refused: while it writes, it does not hear why.
async fn drain(bytes: &mut BodyDataStream) {
    let mut left = MOST_DRAINED;
    while let Some(Ok(piece)) = bytes.next().await {
        left = left.saturating_sub(piece.len() as u64);
        if left == 0 {
            return;
        }
    }
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
        let Some(size) = files::uploaded(&caller, &blob).await? else {
            return Err(not_uploaded(&blob));
        };
        there(&site, &blob).await?;
        let done = files::put(&caller, &place, blob.clone(), size).await?;
        // It may have been removed as one that nobody needs, just before: its agent brings it again.
        there(&site, &blob).await?;
        Ok(done)
    };
    told(linked.await)
}

/// Says where a content is missing that its agent has to upload first.
async fn there(site: &Site, blob: &Digest) -> Answer<()> {
    match site.blobs.exists(blob).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(not_uploaded(blob)),
        Err(error) => Err(fault(error)),
    }
}

fn not_uploaded(blob: &Digest) -> Fault {
    let words = format!("upload blob {blob} before the file is put");
    Fault::new(Code::Conflict, words)
}

/// Takes the bytes of a body, in bounded memory.
async fn take(
    site: &Site,
    headers: &HeaderMap,
    bytes: &mut BodyDataStream,
) -> Answer<(Digest, u64)> {
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
    let bytes = bytes.map_err(std::io::Error::other);
    match site.blobs.take(bytes, limit.0).await {
        Ok(taken) => Ok(taken),
        Err(BlobError::TooLarge) => Err(too_large()),
        Err(error) => Err(fault(error)),
    }
}

fn fault(error: BlobError) -> Fault {
    tracing::error!(%error, "a file of a run could not be kept or read");
    // A client repeats what may work in a moment; this does not.
    if error.is_missing() {
        return Fault::missing(
            "the file's content is lost on the server: 'trainyard fsck' there tells of all that are, and the log of this one",
        );
    }
    let why = match error.is_full() {
        true => disk::FULL,
        false => "the server cannot keep or read the file now, and its log says why",
    };
    Fault::new(
        Code::Unavailable,
        format!("{why}; nothing of the file was kept"),
    )
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
    let file = Stored {
        path: &file.path,
        blob: &file.blob,
        size: file.size.0,
    };
    match file.send(blobs, wanted).await.map_err(fault)? {
        Some(answer) => Ok(answer),
        None => {
            let end = [(header::CONTENT_RANGE, format!("bytes */{}", file.size))];
            let fault = Fault::invalid(format!("the file has {} bytes", file.size));
            let body = fault.body().to_string();
            Ok((StatusCode::RANGE_NOT_SATISFIABLE, end, body).into_response())
        }
    }
}
