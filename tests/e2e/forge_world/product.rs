//! The double and the real server, together.

use serde_json::Value;

use super::{Face, begun};
use crate::support::forge::MAIN;
use crate::support::{World, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_private_repository_comes_back_as_a_status() {
    let (forge, _) = begun(Face::Github).await;
    forge.private(true);
    let world = World::bare("poll_interval = \"1h\"").await;
    let token = world.path("token");
    std::fs::write(&token, forge.owners_token()).unwrap();
    let reference = format!("file:{}", token.display());
    let url = forge.clone_url();
    let add = ["project", "add", &url, "--credential", &reference, "--json"];
    let added: Value = serde_json::from_str(&world.shown(&add)).unwrap();
    assert_eq!(added["forge"], "github");
    assert_eq!(added["name"], "hello");

    // The server does not know its own address: a person does as told.
    let server = world.api().url.clone();
    let field = |name: &str| {
        let fields = added["webhook"]["fields"].as_array().unwrap();
        let found = fields.iter().find(|field| field["name"] == name);
        found.unwrap()["value"].as_str().unwrap().to_owned()
    };
    let payload = field("Payload URL").replace("https://YOUR-SERVER", &server);
    forge.hook(&payload, &field("Secret"));
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

    forge.limits(None);
    let table = world.shown(&["project", "doctor", "hello"]);
    assert!(table.contains("ok  webhook"), "{table}");
    forge.revoke(&std::fs::read_to_string(&token).unwrap());
    let doctor = ["project", "doctor", "hello", "--json"];
    let (code, found) = world.ended(&doctor);
    assert_eq!(code, Some(1), "{found}");
    let found: Value = serde_json::from_str(&found).unwrap();
    let checks = found["checks"].as_array().unwrap();
    let token = checks
        .iter()
        .find(|check| check["name"] == "token")
        .unwrap();
    assert_eq!(token["level"], "fail");
}
