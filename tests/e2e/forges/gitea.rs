//! One story, told to the double of Gitea and to a true one where `TRAINYARD_TEST_GITEA_URL` and `_TOKEN` name one: on
//! this host, with a token of *repository* and *issue* read and write and *user* read and write, and allowed to call
//! loopback (`[webhook] ALLOWED_HOST_LIST = loopback`).

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::FILE;
use crate::support::forge::{Face, ForgeWorld, MAIN, NAME};
use crate::support::{World, until};

const URL: &str = "TRAINYARD_TEST_GITEA_URL";
const TOKEN: &str = "TRAINYARD_TEST_GITEA_TOKEN";

#[tokio::test(flavor = "multi_thread")]
async fn from_a_new_repository_to_a_verdict_at_the_double_of_gitea() {
    for face in [Face::Gitea, Face::Forgejo] {
        let forge = ForgeWorld::start(face).await;
        let scopes = ["write:repository", "write:issue", "write:user"];
        let site = Site::new(forge.url(), &forge.token("octo", &scopes), NAME);
        told_at(&site).await;
        assert_eq!(forge.violations(), [""; 0], "{face:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_new_repository_to_a_verdict_at_a_true_gitea() {
    let (Ok(url), Ok(token)) = (std::env::var(URL), std::env::var(TOKEN)) else {
        eprintln!("NOT RUN: the story at a true Gitea: {URL} and {TOKEN} name none");
        return;
    };
    let name = format!("trainyard-test-{:08x}", fastrand::u32(..));
    let site = Site::new(url.trim_end_matches('/'), &token, &name);
    told_at(&site).await;
    site.ask(Method::DELETE, &site.repository().await, json!(null))
        .await;
}

/// A Gitea, somebody with a token there, and the repository that they will have.
struct Site {
    url: String,
    token: String,
    name: String,
    http: Client,
}

impl Site {
    fn new(url: &str, token: &str, name: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            url: url.to_owned(),
            token: token.to_owned(),
            name: name.to_owned(),
            http: Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// A call of its API that must succeed.
    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}/api/v1/{path}", self.url);
        let request = self.http.request(method, url);
        let request = request.header("authorization", format!("token {}", self.token));
        let answer = request.json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, json!(null)).await
    }

    async fn owner(&self) -> String {
        let user = self.get("user").await;
        user["login"].as_str().unwrap().to_owned()
    }

    /// Its path in the API.
    async fn repository(&self) -> String {
        format!("repos/{}/{}", self.owner().await, self.name)
    }

    /// Commits files in `folder` and pushes them to a branch. Gives the commit.
    async fn push(&self, folder: &Path, branch: &str, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            std::fs::write(folder.join(path), text).unwrap();
        }
        self.git(folder, &["add", "--all"]);
        self.git(folder, &["commit", "--quiet", "--message", "Change"]);
        let url = format!("{}/{}/{}.git", self.url, self.owner().await, self.name);
        let to = format!("HEAD:refs/heads/{branch}");
        tokio::task::block_in_place(|| self.git(folder, &["push", "--quiet", &url, &to]));
        self.git(folder, &["rev-parse", "HEAD"])
    }

    fn git(&self, folder: &Path, arguments: &[&str]) -> String {
        let pair = STANDARD.encode(format!("x-access-token:{}", self.token));
        let header = format!("Authorization: Basic {pair}");
        let mut command = Command::new("git");
        command.args(arguments).current_dir(folder).envs([
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "http.extraHeader"),
            ("GIT_CONFIG_VALUE_0", header.as_str()),
        ]);
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ada");
            command.env(format!("GIT_{role}_EMAIL"), "ada@example.org");
        }
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// A server that is told by webhooks alone, and knows under which address.
async fn told_by_hooks() -> World {
    let mut world = World::bare("poll_interval = \"1h\"").await;
    world.kill_server().await;
    let file = OpenOptions::new()
        .append(true)
        .open(world.path("server.toml"));
    writeln!(file.unwrap(), "url = \"{}\"", world.proxy.url()).unwrap();
    world.start_server().await;
    world
}

async fn told_at(site: &Site) {
    let new = json!({"name": site.name, "private": true, "default_branch": MAIN});
    site.ask(Method::POST, "user/repos", new).await;
    let repository = site.repository().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    site.git(folder, &["init", "--quiet", "--initial-branch=main"]);
    let files = [(".trainyard.yml", FILE), ("train.py", "print(1)\n")];
    let first = site.push(folder, MAIN, &files).await;

    let world = told_by_hooks().await;
    let token = world.path("token");
    std::fs::write(&token, &site.token).unwrap();
    let reference = format!("file:{}", token.display());
    let url = format!("{}/{}/{}.git", site.url, site.owner().await, site.name);
    let add = ["project", "add", &url, "--credential", &reference, "--json"];
    let added: Value = serde_json::from_str(&world.shown(&add)).unwrap();
    assert_eq!(added["webhook"]["state"], "made", "{added}");
    world.pipeline(&first).await;

    let second = site.push(folder, MAIN, &[("train.py", "print(2)\n")]).await;
    is_shown(site, &second, "trainyard/train").await;
    let third = site
        .push(folder, "patch", &[("train.py", "print(3)\n")])
        .await;
    let request = json!({"title": "Better", "head": "patch", "base": MAIN});
    let path = format!("{repository}/pulls");
    let request = site.ask(Method::POST, &path, request).await;
    is_shown(site, &third, "trainyard/train").await;
    let path = format!("{repository}/issues/{}/comments", request["number"]);
    until("the comment of the request", async || {
        let comments = site.get(&path).await;
        let mut comments = comments.as_array().unwrap().iter();
        let ours = |comment: &Value| {
            let text = comment["body"].as_str().unwrap();
            text.starts_with("<!-- trainyard") && text.contains("train")
        };
        comments.any(ours).then_some(())
    })
    .await;
}

/// Waits until a commit has a status that says that its job waits: there is no host.
async fn is_shown(site: &Site, commit: &str, context: &str) {
    let path = format!("{}/commits/{commit}/statuses", site.repository().await);
    until(&format!("{context} at {commit}"), async || {
        let statuses = site.get(&path).await;
        let mut statuses = statuses.as_array().unwrap().iter();
        let ours = |status: &Value| status["context"] == context && status["status"] == "pending";
        statuses.any(ours).then_some(())
    })
    .await;
}
