//! Git LFS as all forges have it: the batch call of its specification, and the objects. Behind the same look at who
//! asks as git.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::state::{NAME, OWNER, State};
use super::{ForgeWorld, Shared};

const JSON: &str = "application/vnd.git-lfs+json";
/// No client of ours asks for more at once.
const BODY_BYTES_MOST: usize = 10 << 20;

impl ForgeWorld {
    /// Puts a file's content into Git LFS. Gives the pointer that is committed in its place.
    pub(crate) fn keep_in_lfs(&self, content: &str) -> String {
        let oid = hex::encode(Sha256::digest(content));
        let mut state = self.shared.lock();
        state.large.insert(oid.clone(), content.into());
        pointer(&oid, content.len())
    }

    /// Takes all out of Git LFS, as where nobody pushed it.
    pub(crate) fn empty_lfs(&self) {
        self.shared.lock().large.clear();
    }

    /// How many objects were fetched from Git LFS since the last look.
    pub(crate) fn fetched_from_lfs(&self) -> usize {
        std::mem::take(&mut self.shared.lock().fetched).len()
    }
}

fn pointer(oid: &str, size: usize) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n")
}

/// `rest` is what stands behind `/info/lfs/`.
pub(super) async fn answer(shared: &Arc<Shared>, rest: &str, body: Body) -> Response {
    let body = to_bytes(body, BODY_BYTES_MOST).await.unwrap();
    let mut state = shared.lock();
    match rest.strip_prefix("objects/") {
        Some("batch") => {
            let asked: Value = serde_json::from_slice(&body).unwrap();
            let answer = state.batch(&asked).to_string();
            ([(header::CONTENT_TYPE, JSON)], answer).into_response()
        }
        Some(oid) => match state.large.get(oid).cloned() {
            Some(content) => {
                state.fetched.push(oid.to_owned());
                content.into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

impl State {
    fn batch(&self, asked: &Value) -> Value {
        let base = format!("{}/{OWNER}/{NAME}.git/info/lfs/objects", self.url);
        let objects = asked["objects"].as_array().unwrap().iter().map(|object| {
            let oid = object["oid"].as_str().unwrap();
            match self.large.contains_key(oid) {
                true => json!({
                    "oid": oid,
                    "size": object["size"],
                    "actions": {"download": {"href": format!("{base}/{oid}")}},
                }),
                false => json!({
                    "oid": oid,
                    "size": object["size"],
                    "error": {"code": 404, "message": "Object does not exist"},
                }),
            }
        });
        json!({"transfer": "basic", "objects": objects.collect::<Vec<_>>()})
    }
}
