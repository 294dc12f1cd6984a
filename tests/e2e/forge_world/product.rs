//! The double and the real server, together.

use super::{Face, begun};
use crate::support::forge::MAIN;
use crate::support::{World, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_private_repository_comes_back_as_a_status() {
    let (forge, _) = begun(Face::Github).await;
    forge.private(true);
    let world = World::bare("poll_interval = \"1h\"").await;
    let secret = |name: &str, text: &str| {
        std::fs::write(world.path(name), text).unwrap();
        format!("file:{}", world.path(name).display())
    };
    let token = secret("token", &forge.owners_token());
    let hook = secret("hook", "of the hook");
    let server = world.api().url.clone();
    let (url, api) = (forge.clone_url(), forge.api());
    let add = ["project", "add", "story", &url, "--server", &server];
    let at = [
        "--forge",
        "github",
        "--repository",
        "octo/hello",
        "--api",
        &api,
    ];
    let secrets = ["--credential", &token, "--webhook-secret", &hook];
    world.ok(&[&add[..], &at, &secrets].concat());
    forge.hook(&format!("{server}/hooks/story"), "of the hook");
    let commit = forge.push(MAIN, &[("README.md", "Hello again\n")]).await;
    let told = forge.deliveries().pop().unwrap();
    assert_eq!(told.answers[0].status, Some(202));
    world.pipeline(&commit).await;
    let status = until("a status", async || {
        let seen = forge.seen();
        let of_it = |key: &&(String, String)| key.0 == commit;
        let key = seen.statuses.keys().find(of_it)?;
        Some(seen.statuses[key].clone())
    })
    .await;
    assert!(!status.description.is_empty());
}
