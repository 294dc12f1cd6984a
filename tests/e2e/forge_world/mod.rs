//! The double of the forges, held against what the true ones do: stories that lean on it can.

mod app;
mod git;
mod hooks;
mod limits;
mod product;
mod verdicts;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::forge::{Face, ForgeWorld, MAIN};

const FACES: [Face; 4] = [Face::Github, Face::Gitlab, Face::Gitea, Face::Forgejo];

/// A forge whose main branch has one commit.
async fn begun(face: Face) -> (ForgeWorld, String) {
    let world = ForgeWorld::start(face).await;
    let commit = world.push(MAIN, &[("README.md", "Hello\n")]).await;
    (world, commit)
}

/// A client of a forge's API.
struct Client<'a> {
    world: &'a ForgeWorld,
    token: String,
    http: reqwest::Client,
}

impl<'a> Client<'a> {
    fn of_owner(world: &'a ForgeWorld) -> Self {
        Self::new(world, &world.owners_token())
    }

    fn new(world: &'a ForgeWorld, token: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            world,
            token: token.to_owned(),
            http,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.world.api()));
        match self.world.face() {
            Face::Gitlab => request.header("private-token", &self.token),
            Face::Github => request.bearer_auth(&self.token),
            Face::Gitea | Face::Forgejo => {
                request.header("authorization", format!("token {}", self.token))
            }
        }
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn read(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Response {
        self.request(method, path).json(body).send().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> Response {
        self.send(Method::POST, path, body).await
    }

    /// Where the repository's things are.
    fn repository(&self) -> &'static str {
        match self.world.face() {
            Face::Gitlab => "/projects/octo%2Fhello",
            Face::Github | Face::Gitea | Face::Forgejo => "/repos/octo/hello",
        }
    }

    /// Writes a status in the forge's words.
    async fn status(&self, commit: &str, state: &str) -> Response {
        let body = match self.world.face() {
            Face::Gitlab => json!({"state": state, "name": "ci/train", "ref": MAIN}),
            Face::Github | Face::Gitea | Face::Forgejo => {
                json!({"state": state, "context": "ci/train"})
            }
        };
        let path = format!("{}/statuses/{commit}", self.repository());
        self.post(&path, &body).await
    }

    /// Where the comments on a request are.
    fn comments(&self, request: u64) -> String {
        match self.world.face() {
            Face::Gitlab => format!("{}/merge_requests/{request}/notes", self.repository()),
            Face::Github | Face::Gitea | Face::Forgejo => {
                format!("{}/issues/{request}/comments", self.repository())
            }
        }
    }

    /// Edits a comment.
    async fn edit(&self, request: u64, id: &Value, text: &str) -> Response {
        let body = json!({"body": text});
        match self.world.face() {
            Face::Gitlab => {
                let path = format!("{}/{id}", self.comments(request));
                self.send(Method::PUT, &path, &body).await
            }
            Face::Github | Face::Gitea | Face::Forgejo => {
                let path = format!("{}/issues/comments/{id}", self.repository());
                self.send(Method::PATCH, &path, &body).await
            }
        }
    }
}
