//! A GitHub App: its proof, its token, its check runs and their buttons.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::{Method, StatusCode};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::{Client, begun};
use crate::support::ear::Ear;
use crate::support::forge::{APP_ID, Face, ForgeWorld, INSTALLATION, PRIVATE_KEY};

/// A JWT of the App that was issued and ends so many seconds from now.
fn jwt(issued: i64, ends: i64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .cast_signed();
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({"iss": APP_ID.to_string(), "iat": now + issued, "exp": now + ends});
    let signed = format!(
        "{}.{}",
        part(json!({"alg": "RS256", "typ": "JWT"})),
        part(claims)
    );
    let lines = PRIVATE_KEY.lines().filter(|line| !line.starts_with('-'));
    let key = RsaKeyPair::from_der(&STANDARD.decode(lines.collect::<String>()).unwrap()).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    let random = SystemRandom::new();
    key.sign(
        &RSA_PKCS1_SHA256,
        &random,
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

async fn installed() -> (ForgeWorld, String) {
    let (world, commit) = begun(Face::Github).await;
    world.limits(None);
    world.install_app().await;
    (world, commit)
}

/// The App's token for the repository.
async fn token(world: &ForgeWorld) -> String {
    let client = Client::new(world, &jwt(-60, 540));
    let found = client.read("/repos/octo/hello/installation").await;
    assert_eq!(found["id"], json!(INSTALLATION));
    let path = format!("/app/installations/{INSTALLATION}/access_tokens");
    let answer: Value = client.post(&path, &json!({})).await.json().await.unwrap();
    answer["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn only_a_jwt_of_the_app_in_its_time_gets_a_token() {
    let (world, _) = installed().await;
    let path = format!("/app/installations/{INSTALLATION}/access_tokens");
    let answers = async |jwt: &str| {
        Client::new(&world, jwt)
            .post(&path, &json!({}))
            .await
            .status()
    };
    let good = jwt(-60, 540);
    assert_eq!(answers(&good).await, StatusCode::CREATED);
    let tail = if good.ends_with('A') { 'B' } else { 'A' };
    let forged = format!("{}{tail}A", &good[..good.len() - 2]);
    for bad in [
        forged,
        jwt(-60, 700),
        jwt(-700, -60),
        jwt(120, 540),
        "a.b.c".to_owned(),
    ] {
        assert_eq!(answers(&bad).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(world.violations().len(), 5);
}

#[tokio::test]
async fn an_apps_token_ends_after_an_hour() {
    let (world, commit) = installed().await;
    let token = token(&world).await;
    let client = Client::new(&world, &token);
    assert_eq!(client.status(&commit, "pending").await.status(), 201);
    world.advance(std::time::Duration::from_secs(3600));
    assert_eq!(
        client.status(&commit, "success").await.status(),
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn check_runs_are_the_apps_alone_and_keep_within_limits() {
    let (world, commit) = installed().await;
    let body = |output: Value| json!({"name": "train", "head_sha": commit, "output": output});
    let output = |annotations: usize, summary: &str| {
        let annotation = json!({"path": "a.ipynb", "start_line": 3, "end_line": 3, "annotation_level": "failure", "message": "no"});
        json!({"title": "t", "summary": summary, "annotations": vec![annotation; annotations]})
    };
    let path = "/repos/octo/hello/check-runs";
    let person = Client::of_owner(&world);
    assert_eq!(
        person.post(path, &body(output(1, ""))).await.status(),
        StatusCode::FORBIDDEN
    );
    let client = Client::new(&world, &token(&world).await);
    let long = "é".repeat(32_768);
    for wrong in [
        output(51, ""),
        output(1, &long),
        json!({"title": "t"}),
        json!({"title": "t", "summary": "", "colour": 1}),
    ] {
        assert_eq!(client.post(path, &body(wrong)).await.status(), 422);
    }
    assert_eq!(world.violations().len(), 5);
    let made: Value = client
        .post(path, &body(output(50, &long[2..])))
        .await
        .json()
        .await
        .unwrap();
    let path = format!("{path}/{}", made["id"]);
    let actions = json!([{"label": "Re-run", "description": "Again", "identifier": "rerun"}]);
    let done = json!({
        "status": "completed", "conclusion": "failure", "completed_at": "2026-01-31T12:00:00Z",
        "output": output(7, "Failed"), "actions": actions,
    });
    assert_eq!(client.send(Method::PATCH, &path, &done).await.status(), 200);
    let check = world.seen().checks.pop().unwrap();
    assert_eq!(check.annotations.len(), 57);
    assert_eq!(
        (check.conclusion.as_deref(), &*check.summary),
        (Some("failure"), "Failed")
    );
    let long = json!([{"label": "A label that is too long", "description": "", "identifier": "x"}]);
    let body = json!({"status": "in_progress", "actions": long});
    assert_eq!(client.send(Method::PATCH, &path, &body).await.status(), 422);
}

#[tokio::test]
async fn buttons_are_told_to_the_app_alone() {
    let (world, commit) = installed().await;
    let (ours, theirs) = (Ear::open().await, Ear::open().await);
    world.app_hook(&ours.url, "secret");
    world.hook(&theirs.url, "secret");
    let client = Client::new(&world, &token(&world).await);
    let actions =
        json!([{"label": "Approve", "description": "Let it run", "identifier": "approve"}]);
    let body = json!({
        "name": "train", "head_sha": commit, "external_id": "job-1", "actions": actions,
        "conclusion": "action_required",
    });
    let made = client.post("/repos/octo/hello/check-runs", &body).await;
    let id = made.json::<Value>().await.unwrap()["id"].as_u64().unwrap();
    crate::support::until("the check is told of", async || {
        (!theirs.take().is_empty()).then_some(())
    })
    .await;
    ours.take();
    world.press(id, "approve", "ada").await;
    world.rerequest(id, "grace").await;
    let heard: Vec<_> = ours.take().iter().map(|heard| heard.json()).collect();
    assert_eq!(heard[0]["action"], "requested_action");
    assert_eq!(heard[0]["requested_action"]["identifier"], "approve");
    assert_eq!(heard[0]["check_run"]["external_id"], "job-1");
    assert_eq!(heard[0]["sender"]["login"], "ada");
    assert_eq!(heard[1]["action"], "rerequested");
    assert_eq!(heard[1]["check_run"]["head_sha"], json!(commit));
    assert_eq!(heard[1]["installation"]["id"], json!(INSTALLATION));
    assert!(theirs.take().is_empty());
}

#[tokio::test]
async fn an_app_hears_of_its_installation_and_of_nothing_without_it() {
    let (world, commit) = begun(Face::Github).await;
    let ear = Ear::open().await;
    world.app_hook(&ear.url, "secret");
    world.install_app().await;
    let token = token(&world).await;
    world.uninstall_app().await;
    world.push("side", &[("a", "1")]).await;
    let heard: Vec<_> = ear.take().iter().map(|heard| heard.json()).collect();
    let actions: Vec<_> = heard.iter().map(|body| &body["action"]).collect();
    assert_eq!(actions, ["created", "deleted"]);
    for body in &heard {
        assert_eq!(body["installation"]["id"], json!(INSTALLATION));
        assert_eq!(body["repositories"][0]["full_name"], "octo/hello");
    }
    let status = Client::new(&world, &token).status(&commit, "success").await;
    assert_eq!(status.status(), StatusCode::UNAUTHORIZED);
}
