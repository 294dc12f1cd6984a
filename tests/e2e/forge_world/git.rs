//! Real git over HTTP.

use std::path::Path;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Client, FACES, begun};
use crate::support::ear::Ear;
use crate::support::forge::{Face, ForgeWorld, Level, MAIN};

/// Runs git as a client does that has a token, or none.
async fn git(folder: &Path, world: &ForgeWorld, token: Option<&str>, arguments: &[&str]) -> Output {
    let user = if world.face() == Face::Gitlab {
        "oauth2"
    } else {
        "x-access-token"
    };
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder);
    command.envs([
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ]);
    command.envs([
        ("GIT_TERMINAL_PROMPT", "0"),
        ("NO_PROXY", "127.0.0.1"),
        ("no_proxy", "127.0.0.1"),
    ]);
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Ada");
        command.env(format!("GIT_{role}_EMAIL"), "ada@example.org");
    }
    if let Some(token) = token {
        let basic = STANDARD.encode(format!("{user}:{token}"));
        command.envs([
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "http.extraHeader"),
        ]);
        command.env(
            "GIT_CONFIG_VALUE_0",
            format!("Authorization: Basic {basic}"),
        );
    }
    command.output().await.unwrap()
}

fn good(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .trim()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_repository_is_cloned_with_a_token_only() {
    for face in FACES {
        let (world, commit) = begun(face).await;
        let folder = tempfile::tempdir().unwrap();
        let url = world.clone_url();
        let clone = async |token: Option<&str>, name: &str| {
            let partial = [
                "clone",
                "--quiet",
                "--filter=blob:none",
                "--depth=1",
                &url,
                name,
            ];
            git(folder.path(), &world, token, &partial).await
        };
        good(&clone(None, "public").await);
        world.private(true);
        assert!(!clone(None, "none").await.status.success(), "{face:?}");
        assert!(
            !clone(Some("guessed"), "wrong").await.status.success(),
            "{face:?}"
        );
        let token = world.owners_token();
        good(&clone(Some(&token), "private").await);
        let work = folder.path().join("private");
        assert_eq!(
            good(&git(&work, &world, None, &["rev-parse", "HEAD"]).await),
            commit
        );
        assert_eq!(
            std::fs::read_to_string(work.join("README.md")).unwrap(),
            "Hello\n"
        );
        let stranger = world.token("eve", &["repo", "api", "all"]);
        assert!(
            !clone(Some(&stranger), "stranger").await.status.success(),
            "{face:?}"
        );
        world.revoke(&token);
        assert!(
            !clone(Some(&token), "revoked").await.status.success(),
            "{face:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_over_http_is_told_of() {
    let (world, _) = begun(Face::Github).await;
    let ear = Ear::open().await;
    world.hook(&ear.url, "");
    let folder = tempfile::tempdir().unwrap();
    let (url, token) = (world.clone_url(), world.token("ada", &["repo"]));
    good(
        &git(
            folder.path(),
            &world,
            None,
            &["clone", "--quiet", &url, "work"],
        )
        .await,
    );
    let work = folder.path().join("work");
    // Larger than what git sends in one piece.
    std::fs::write(work.join("large"), "0123456789".repeat(300_000)).unwrap();
    good(&git(&work, &world, None, &["add", "large"]).await);
    good(
        &git(
            &work,
            &world,
            None,
            &["commit", "--quiet", "--message", "Large"],
        )
        .await,
    );
    let push = [
        "-c",
        "core.compression=0",
        "push",
        "--quiet",
        "origin",
        MAIN,
    ];
    assert!(!git(&work, &world, None, &push).await.status.success());
    let refused = git(&work, &world, Some(&token), &push).await;
    assert!(!refused.status.success(), "she may not write");
    world.set_permission("ada", Level::Write);
    good(&git(&work, &world, Some(&token), &push).await);
    let head = good(&git(&work, &world, None, &["rev-parse", "HEAD"]).await);
    let body = ear.take().pop().unwrap().json();
    assert_eq!(
        (&body["after"], &body["pusher"]["name"]),
        (&json!(head), &json!("ada"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_from_a_fork_has_its_head_here() {
    for face in FACES {
        let (world, base) = begun(face).await;
        let ear = Ear::open().await;
        world.hook(&ear.url, "");
        let number = world
            .open_from_fork("mallory", "evil", &[("a", "1")], "Take this")
            .await;
        let opened = ear.take().pop().unwrap().json();
        let folder = tempfile::tempdir().unwrap();
        let reference = match face {
            Face::Gitlab => format!("refs/merge-requests/{number}/head"),
            Face::Github | Face::Gitea | Face::Forgejo => format!("refs/pull/{number}/head"),
        };
        let url = world.clone_url();
        let list = async || {
            good(
                &git(
                    folder.path(),
                    &world,
                    None,
                    &["ls-remote", &url, &reference],
                )
                .await,
            )
        };
        assert_eq!(
            list().await,
            format!("{}\t{reference}", world.head(number)),
            "{face:?}"
        );
        let fork = url.replace("octo", "mallory");
        let theirs = git(
            folder.path(),
            &world,
            None,
            &["ls-remote", &fork, "refs/heads/evil"],
        )
        .await;
        assert!(good(&theirs).starts_with(&world.head(number)));
        let head = world.push_to_request(number, &[("a", "2")]).await;
        assert!(list().await.starts_with(&head), "{face:?}");
        assert_eq!(
            ear.take().len(),
            1,
            "{face:?}: a fork's pushes are told to nobody here"
        );
        world.delete_fork("mallory");
        assert!(list().await.starts_with(&head), "{face:?}");
        world.close(number, "mallory").await;
        let closed = ear.take().pop().unwrap().json();
        is_from(face, "mallory/hello", &opened);
        is_from_nowhere(face, &closed);
        let client = Client::of_owner(&world);
        let path = match face {
            Face::Gitlab => format!("{}/merge_requests/{number}", client.repository()),
            Face::Github | Face::Gitea | Face::Forgejo => {
                format!("{}/pulls/{number}", client.repository())
            }
        };
        let shown = client.read(&path).await;
        let (sha, from) = match face {
            Face::Gitlab => (&shown["sha"], &shown["diff_refs"]["base_sha"]),
            Face::Github | Face::Gitea | Face::Forgejo => {
                (&shown["head"]["sha"], &shown["base"]["sha"])
            }
        };
        assert_eq!((sha, from), (&json!(head), &json!(base)), "{face:?}");
    }
}

fn is_from(face: Face, fork: &str, body: &Value) {
    if face == Face::Gitlab {
        let attributes = &body["object_attributes"];
        assert_ne!(
            attributes["source_project_id"],
            attributes["target_project_id"]
        );
        assert_eq!(attributes["source"]["path_with_namespace"], fork);
        return;
    }
    let head = &body["pull_request"]["head"]["repo"];
    assert_eq!(head["full_name"], fork, "{face:?}");
    assert_eq!(head["fork"], json!(true));
    assert_eq!(
        body["pull_request"]["base"]["repo"]["full_name"],
        "octo/hello"
    );
}

fn is_from_nowhere(face: Face, body: &Value) {
    let source = match face {
        Face::Gitlab => &body["object_attributes"]["source_project_id"],
        Face::Github | Face::Gitea | Face::Forgejo => &body["pull_request"]["head"]["repo"],
    };
    assert_eq!(source, &Value::Null, "{face:?}");
}
