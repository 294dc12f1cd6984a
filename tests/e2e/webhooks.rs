//! Stories of a forge's messages, and of messages that only pretend to be.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, StatusCode};
use sha2::Sha256;

use crate::support::World;

/// What GitHub sends for a push.
const PUSH: &[u8] = include_bytes!("../data/forges/github/push.branch-new-1commit.json");
const PUSH_BYTES_MOST: usize = 25 << 20;
const SECRET: &str = "of the webhook";

fn signature(secret: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(PUSH);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// A world that looks at its remote only when it is told to.
async fn told_only() -> World {
    let world = World::with_settings("poll_interval_local = \"1h\"").await;
    world.project.commit(&[]);
    std::fs::write(world.path("secret"), SECRET).unwrap();
    let reference = format!("file:{}", world.path("secret").display());
    world.watch(&[
        "--forge",
        "github",
        "--repository",
        "Codertocat/Hello-World",
        "--webhook-secret",
        &reference,
    ]);
    // Its first look.
    world.pipeline(&world.project.head()).await;
    world
}

async fn deliver(world: &World, id: &str, signature: &str) -> StatusCode {
    let request = world.api().request(Method::POST, "hooks/story");
    let answer = request
        .header("content-type", "application/json")
        .header("x-github-event", "push")
        .header("x-github-delivery", id)
        .header("x-hub-signature-256", signature)
        .body(PUSH);
    answer.send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_counts_only_with_the_right_signature() {
    let world = told_only().await;
    let commit = world.project.commit(&[]);
    for wrong in [&signature("guessed"), "sha256=00", ""] {
        assert_eq!(
            deliver(&world, "one", wrong).await,
            StatusCode::UNAUTHORIZED
        );
    }
    let known = world.api().pipelines().await;
    assert!(
        known
            .iter()
            .all(|pipeline| pipeline.commit.as_str() != commit)
    );
    // Had something of the wrong ones been kept, this id would be known, and the delivery a repetition.
    assert_eq!(
        deliver(&world, "one", &signature(SECRET)).await,
        StatusCode::ACCEPTED
    );
    world.pipeline(&commit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let world = told_only().await;
    let host = world.api().url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let length = PUSH_BYTES_MOST + 1;
    let proof = format!("sha256={}", "0".repeat(64));
    let head = format!(
        "POST /hooks/story HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nContent-Type: application/json\r\n\
         X-GitHub-Event: push\r\nX-GitHub-Delivery: 1\r\nX-Hub-Signature-256: {proof}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}
