//! Files of runs and logged models: as a tree, and one by one with a preview where that is safe. Nothing of them acts on this
//! origin: images are of kinds that hold no script, documents are shown as their source or in a frame from nowhere.

mod preview;
mod tree;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use futures_util::TryStreamExt as _;
use serde::Deserialize;

use super::super::access::{Who, encode};
use super::super::answer::Problem;
use super::super::site::Site;
use super::frame::{Frame, Shown, show};
use super::notebook;
use super::runs::is_id;
use crate::blobs::BlobError;
use crate::registry::mlflow::Owner;
use crate::store::files::KeptFile;
use crate::store::{Connection, files, logged_models, runs};
use preview::{HEAD, Preview, document, image, preview};

pub(super) use tree::{Entry, Tree};

/// The largest image, and the largest document in a frame.
const MOST_SHOWN: u64 = 16 << 20;

/// Whose files, as a page heads them.
struct Owned {
    owner: Owner,
    name: String,
    /// Where the owner itself is looked at.
    href: String,
}

/// The owner of this id.
async fn owned(db: &mut Connection, id: &str) -> Result<Owned, Problem> {
    let missing = || Problem::missing(format!("run or logged model '{id}'"));
    if is_id(id) {
        let run = runs::find(db, id).await?.ok_or_else(missing)?;
        return Ok(Owned {
            name: run.name,
            href: format!("/runs/{id}"),
            owner: Owner::Run {
                experiment: run.experiment,
                run: run.id,
            },
        });
    }
    let model = logged_models::find(db, id).await?.ok_or_else(missing)?;
    Ok(Owned {
        href: model
            .run
            .map_or_else(|| format!("/files/{id}"), |run| format!("/runs/{run}")),
        name: model.name,
        owner: Owner::Model {
            experiment: model.experiment,
            model: model.id,
        },
    })
}

#[derive(Template)]
#[template(path = "files.html")]
struct FolderPage {
    frame: Frame,
    name: String,
    href: String,
    folder: String,
    tree: Tree,
}

#[derive(Template)]
#[template(path = "file.html")]
struct FilePage {
    frame: Frame,
    name: String,
    href: String,
    path: String,
    size: String,
    sha256: String,
    download: String,
    preview: Preview,
    /// Where an image comes from.
    image: String,
    /// Where a document is shown in a frame; none where it is too large.
    framed: Option<String>,
    /// Whether it is to be shown there now.
    open: bool,
    /// Whether only its beginning is shown.
    cut: bool,
}

/// How a file is looked at.
#[derive(Debug, Deserialize)]
pub(in super::super) struct How {
    /// `1`: a document in its frame.
    frame: Option<String>,
}

/// `GET /files/{owner}`
pub(in super::super) async fn root(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Shown {
    let mut db = site.store.read().await?;
    let owned = owned(&mut db, &id).await?;
    let kept = files::below(&mut db, &id, "", Tree::MOST + 1).await?;
    drop(db);
    let tree = Tree::new(&id, "", kept);
    folder(
        Frame::new("experiments", &site.access, &who),
        owned,
        "",
        tree,
    )
}

fn folder(frame: Frame, owned: Owned, folder: &str, tree: Tree) -> Shown {
    show(&FolderPage {
        frame,
        name: owned.name,
        href: owned.href,
        folder: folder.to_owned(),
        tree,
    })
}

/// `GET /files/{owner}/{*path}`: a file, or a folder.
pub(in super::super) async fn page(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path((id, path)): Path<(String, String)>,
    Query(how): Query<How>,
) -> Shown {
    let frame = Frame::new("experiments", &site.access, &who);
    let mut db = site.store.read().await?;
    let owned = owned(&mut db, &id).await?;
    let Some(file) = files::find(&mut db, &id, &path).await? else {
        let kept = files::below(&mut db, &id, &path, Tree::MOST + 1).await?;
        if kept.is_empty() {
            return Err(Problem::missing(format!("file '{path}' of '{}'", owned.name)).into());
        }
        return folder(frame, owned, &path, Tree::new(&id, &path, kept));
    };
    drop(db);
    let head = head(&site, &file, HEAD).await?;
    let whole = head.len() as u64 == file.size.0;
    let preview = match preview(&path, &head, whole) {
        Preview::Image if file.size.0 > MOST_SHOWN => Preview::Nothing,
        preview => preview,
    };
    let place = format!("{id}/{}", encode(&path));
    let uri = owned.owner.uri();
    let stored = uri.split_once(":/").map_or(uri.as_str(), |(_, rest)| rest);
    show(&FilePage {
        frame,
        name: owned.name,
        href: owned.href,
        size: file.size.to_string(),
        sha256: file.blob.to_string(),
        download: format!(
            "/api/2.0/mlflow-artifacts/artifacts/{stored}/{}",
            encode(&path)
        ),
        image: format!("/images/{place}"),
        framed: (file.size.0 <= MOST_SHOWN).then(|| format!("/frames/{place}")),
        open: how.frame.as_deref() == Some("1"),
        cut: !whole,
        preview,
        path,
    })
}

/// `GET /images/{owner}/{*path}`: an image, and nothing else.
pub(in super::super) async fn picture(
    State(site): State<Site>,
    Path((id, path)): Path<(String, String)>,
) -> Shown {
    let missing = || Problem::missing(format!("image '{path}' of '{id}'"));
    let file = bounded(&site, &id, &path).await?.ok_or_else(missing)?;
    let bytes = head(&site, &file, MOST_SHOWN).await?;
    let kind = image(&bytes).ok_or_else(missing)?;
    let headers = [
        (header::CONTENT_TYPE, kind),
        (
            header::CONTENT_SECURITY_POLICY,
            "sandbox; default-src 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "private, max-age=300"),
    ];
    Ok((headers, bytes).into_response())
}

/// `GET /frames/{owner}/{*path}`: a document, which the browser treats as from nowhere.
pub(in super::super) async fn framed(
    State(site): State<Site>,
    Path((id, path)): Path<(String, String)>,
) -> Shown {
    let missing = || Problem::missing(format!("document '{path}' of '{id}'"));
    let kind = document(&path).ok_or_else(missing)?;
    let file = bounded(&site, &id, &path).await?.ok_or_else(missing)?;
    let bytes = head(&site, &file, MOST_SHOWN).await?;
    let mut answer = (notebook::from_nowhere(), bytes).into_response();
    let kind = header::HeaderValue::from_static(kind);
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(answer)
}

/// A file that may be shown; none where there is none, or it is too large.
async fn bounded(site: &Site, id: &str, path: &str) -> Result<Option<KeptFile>, Problem> {
    let mut db = site.store.read().await?;
    owned(&mut db, id).await?;
    let file = files::find(&mut db, id, path).await?;
    Ok(file.filter(|file| file.size.0 <= MOST_SHOWN))
}

/// The first bytes of a file, at most `most`.
async fn head(site: &Site, file: &KeptFile, most: u64) -> Result<Vec<u8>, Problem> {
    let unread = |error: BlobError| {
        tracing::error!(%error, blob = %file.blob, "a file of a run could not be read");
        let words = "the file cannot be read; the server's log says why";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", words)
    };
    let range = 0..file.size.0.min(most);
    let pieces = site
        .blobs
        .get_part(&file.blob, range)
        .await
        .map_err(unread)?;
    let all = pieces.try_fold(Vec::new(), async |mut all: Vec<u8>, piece| {
        all.extend_from_slice(&piece);
        Ok(all)
    });
    all.await.map_err(|error| unread(BlobError::Unread(error)))
}
