//! What a forge bears, and what it is like when it is down.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Client, FACES, begun};
use crate::support::forge::{Face, Limits, Outage, Refusal};
use crate::support::until;

#[tokio::test]
async fn writes_too_fast_are_counted_and_refused_where_it_is_asked_for() {
    let (world, commit) = begun(Face::Github).await;
    let client = Client::of_owner(&world);
    let hour = Duration::from_secs(3600);
    world.limits(Some(Limits {
        apart: hour,
        ..Limits::of_github()
    }));
    assert_eq!(client.status(&commit, "pending").await.status(), 201);
    assert_eq!(client.status(&commit, "pending").await.status(), 201);
    assert!(
        world.violations()[0].contains("after the last"),
        "{:?}",
        world.violations()
    );
    world.advance(hour);
    assert_eq!(client.status(&commit, "pending").await.status(), 201);
    assert_eq!(world.violations().len(), 1);
    // Reads are free of it.
    client.get("/repos/octo/hello").await;
    let limits = Limits {
        writes: 2,
        minute: hour,
        apart: Duration::ZERO,
        refuses: Some(7),
    };
    world.limits(Some(limits));
    world.advance(hour);
    client.status(&commit, "pending").await;
    client.status(&commit, "pending").await;
    let refused = client.status(&commit, "success").await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(refused.headers()["retry-after"], "7");
    assert!(world.violations()[1].contains("more than 2 writes a minute"));
    assert_eq!(world.seen().state(&commit, "ci/train"), Some("pending"));
}

#[tokio::test]
async fn two_writes_at_once_are_counted() {
    let (world, commit) = begun(Face::Github).await;
    let client = Client::of_owner(&world);
    world.slow(Duration::from_millis(200));
    tokio::join!(
        client.status(&commit, "pending"),
        client.status(&commit, "success")
    );
    assert!(
        world.violations()[0].contains("was not answered"),
        "{:?}",
        world.violations()
    );
}

#[tokio::test]
async fn a_client_that_goes_is_not_waited_for() {
    let (world, commit) = begun(Face::Github).await;
    let client = Client::of_owner(&world);
    world.limits(Some(Limits {
        apart: Duration::ZERO,
        ..Limits::of_github()
    }));
    world.slow(Duration::from_secs(3600));
    let path = format!("/repos/octo/hello/statuses/{commit}");
    let request = client.request(Method::POST, &path);
    let request = request.json(&json!({"state": "pending"}));
    let gone = request.timeout(Duration::from_millis(200)).send().await;
    assert!(gone.unwrap_err().is_timeout());
    world.slow(Duration::ZERO);
    until("the forge hears of it", async || {
        let before = world.violations().len();
        client.status(&commit, "success").await;
        (world.violations().len() == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_forge_that_has_enough_says_for_how_long() {
    for face in FACES {
        let (world, commit) = begun(face).await;
        world.limits(None);
        let client = Client::of_owner(&world);
        let status = if face == Face::Github { 403 } else { 429 };
        world.limit_for(2, Refusal::After(30));
        for _ in 0..2 {
            let answer = client.status(&commit, "pending").await;
            assert_eq!(answer.status(), status, "{face:?}");
            assert_eq!(answer.headers()["retry-after"], "30");
        }
        let early = world.violations();
        assert!(early[0].contains("before it was allowed"), "{early:?}");
        world.advance(Duration::from_secs(30));
        assert_eq!(client.status(&commit, "pending").await.status(), 201);
        world.limit_for(1, Refusal::Spent(30));
        let answer = client.status(&commit, "success").await;
        assert_eq!(answer.status(), status);
        let name = if face == Face::Github {
            "x-ratelimit-remaining"
        } else {
            "ratelimit-remaining"
        };
        assert_eq!(answer.headers()[name], "0");
        assert_eq!(world.violations().len(), 1);
    }
}

#[tokio::test]
async fn an_outage_reaches_everybody_and_ends() {
    let (world, commit) = begun(Face::Gitea).await;
    let client = Client::of_owner(&world);
    assert_eq!(client.status(&commit, "pending").await.status(), 201);
    world.down(Outage::BadGateway);
    assert_eq!(
        client.status(&commit, "success").await.status(),
        StatusCode::BAD_GATEWAY
    );
    world.down(Outage::Cut);
    let request = client.request(Method::GET, "/version");
    request.send().await.unwrap_err();
    world.up();
    assert_eq!(client.status(&commit, "success").await.status(), 201);
    assert_eq!(world.seen().state(&commit, "ci/train"), Some("success"));
}

#[tokio::test]
async fn what_did_not_change_costs_nothing() {
    let (world, _) = begun(Face::Github).await;
    world.push("work", &[("a", "1")]).await;
    world.open_request("work", "A title", "ada").await;
    let client = Client::of_owner(&world);
    let path = "/repos/octo/hello/pulls?state=open";
    let first = client.get(path).await;
    let left = |answer: &reqwest::Response| {
        answer.headers()["x-ratelimit-remaining"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let tag = first.headers()["etag"].clone();
    let again = async || {
        let request = client
            .request(Method::GET, path)
            .header("if-none-match", &tag);
        request.send().await.unwrap()
    };
    let same = again().await;
    assert_eq!(
        (same.status(), left(&same)),
        (StatusCode::NOT_MODIFIED, left(&first))
    );
    world.close(1, "ada").await;
    let other = again().await;
    assert_eq!(
        (other.status(), left(&other)),
        (StatusCode::OK, left(&first) - 1)
    );
    assert_eq!(other.json::<serde_json::Value>().await.unwrap(), json!([]));
}
