//! What people start, end and add.

use protocol::Outcome;
use protocol::api::{Done, Project};
use protocol::job::State;
use serde_json::json;
use server::store::{access, projects};

use super::access::form_token;
use super::site::Site;

async fn audit(site: &Site) -> Vec<String> {
    let mut db = site.server().store.read().await.unwrap();
    let all = access::audit(&mut db, 50).await.unwrap();
    all.into_iter()
        .map(|entry| format!("{}: {}", entry.who, entry.action))
        .collect()
}

#[tokio::test]
async fn a_job_is_cancelled_once_and_the_log_knows_by_whom() {
    let site = Site::with_tokens().await;
    let cancel = || {
        site.post(&format!("/api/v1/jobs/{}/cancel", site.queued))
            .bearer_auth(site.token("run"))
            .send()
    };
    let answer = cancel().await.unwrap();
    assert_eq!(answer.status(), 200);
    let done: Done = answer.json().await.unwrap();
    assert!(done.message.contains("waits"), "{}", done.message);
    let State::Finished {
        outcome: Outcome::Cancelled { by },
    } = site.job(&site.queued).await.state
    else {
        panic!("not cancelled")
    };
    assert_eq!(by, "run");
    assert_eq!(cancel().await.unwrap().status(), 409);
    let line = format!("run: cancel job {}", site.queued);
    assert_eq!(audit(&site).await.iter().filter(|l| **l == line).count(), 1);
}

#[tokio::test]
async fn a_finished_job_is_asked_for_again_as_a_new_one() {
    let site = Site::start().await;
    let retry = |id| site.post(&format!("/api/v1/jobs/{id}/retry")).send();
    let done: Done = retry(&site.failed).await.unwrap().json().await.unwrap();
    let again = done.job.unwrap();
    assert_ne!(again, site.failed);
    let job = site.job(&again).await;
    assert_eq!(
        (job.spec.name.as_str(), job.state.word()),
        ("train", "queued")
    );
    assert_eq!(retry(&site.queued).await.unwrap().status(), 409);
}

#[tokio::test]
async fn the_buttons_of_the_page_want_the_pages_own_form() {
    let site = Site::with_tokens().await;
    let cookie = site.log_in(site.token("run")).await;
    let path = format!("/jobs/{}", site.queued);
    let page = site
        .get(&path)
        .header("cookie", &cookie)
        .send()
        .await
        .unwrap();
    let page = page.text().await.unwrap();
    let press = |form: &str| {
        site.form(&format!("{path}/cancel"), &[("form", form)])
            .header("cookie", &cookie)
            .send()
    };
    assert_eq!(press("forged").await.unwrap().status(), 403);
    assert_eq!(press("").await.unwrap().status(), 403);
    assert_eq!(site.job(&site.queued).await.state.word(), "queued");
    let answer = press(&form_token(&page)).await.unwrap();
    assert_eq!(answer.status(), 303);
    assert_eq!(site.job(&site.queued).await.state.word(), "cancelled");

    let reader = site.log_in(site.token("read")).await;
    let page = site
        .get(&path)
        .header("cookie", &reader)
        .send()
        .await
        .unwrap();
    let page = page.text().await.unwrap();
    assert!(!page.contains("/retry\""), "a reader has no buttons");
}

#[tokio::test]
async fn a_project_is_added_where_there_is_a_repository() {
    let site = Site::start().await;
    let repository = site.folder.path().join("own.git");
    git2_init(&repository);
    let add = |name: &str, url: &str| {
        let body = json!({ "name": name, "url": url });
        site.post("/api/v1/projects").json(&body).send()
    };
    let url = repository.to_str().unwrap();
    let answer = add("own", url).await.unwrap();
    assert_eq!(answer.status(), 200);
    let project: Project = answer.json().await.unwrap();
    assert_eq!(
        (project.name.as_str(), project.forge.as_str()),
        ("own", "git")
    );
    assert_eq!(add("own", url).await.unwrap().status(), 409);
    for (name, url) in [
        ("../x", url),
        ("x", "/no/such/folder"),
        ("x", "ext::sh -c id"),
        ("x", "https://user:secret@git.example/x.git"),
        ("x", "--upload-pack=id"),
    ] {
        let answer = add(name, url).await.unwrap();
        assert_eq!(answer.status(), 400, "{name} {url}");
        let words = answer.text().await.unwrap();
        assert!(!words.contains("secret"), "{words}");
    }
    let mut db = site.server().store.read().await.unwrap();
    assert_eq!(projects::all(&mut db).await.unwrap().len(), 2);
    drop(db);
    assert!(
        audit(&site)
            .await
            .contains(&"local: add project own".to_owned())
    );
}

fn git2_init(path: &std::path::Path) {
    let made = std::process::Command::new("git")
        .args(["init", "--quiet", "--bare"])
        .arg(path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_said() {
    let site = Site::start().await;
    let cases = [
        ("/api/v1/projects", json!({"name": "x"}), 422, "url"),
        (
            "/api/v1/projects",
            json!({"name": "x", "url": "/", "colour": 1}),
            422,
            "colour",
        ),
        (
            "/api/v1/tokens",
            json!({"name": "x", "role": "root"}),
            422,
            "root",
        ),
        (
            "/api/v1/tokens",
            json!({"name": "a b", "role": "read"}),
            400,
            "a b",
        ),
        (
            "/api/v1/pipelines",
            json!({"project": "nobody"}),
            404,
            "nobody",
        ),
    ];
    for (path, body, status, word) in cases {
        let answer = site.post(path).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let error: protocol::agent_api::ApiError = answer.json().await.unwrap();
        assert!(error.message.contains(word), "{}", error.message);
    }
    let huge = "x".repeat(2 << 20);
    let answer = site
        .post("/api/v1/tokens")
        .json(&json!({"name": huge, "role": "read"}));
    assert_eq!(answer.send().await.unwrap().status(), 413);
}
