//! Stories of projects that are added: the forge is found, its webhook made.

use std::os::unix::fs::PermissionsExt as _;

use protocol::api::NewProject;
use protocol::setup::Webhook;
use server::project::{self, AddError, Added};
use server::state::{Handle, Server};

use super::{Town, stands};
use crate::forge::{Face, ForgeWorld, Level, MAIN, PROJECT};

const FACES: [Face; 4] = [Face::Github, Face::Gitlab, Face::Gitea, Face::Forgejo];

/// A server that knows its own address.
pub(super) async fn open(town: &Town) -> Handle {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = server::config::Config {
        listen: address,
        url: Some(format!("http://{address}")),
        ..town.config()
    };
    Server::start(config).await.unwrap()
}

fn wanted(town: &Town, token: Option<&str>) -> NewProject {
    let reference = token.map(|token| town.secret("token", token).to_string());
    NewProject {
        credential: reference,
        ..NewProject::new("story", town.forge.clone_url())
    }
}

async fn add(handle: &Handle, wanted: NewProject) -> Result<Added, AddError> {
    project::add_for(&handle.server, wanted, "ana").await
}

fn hooks(forge: &ForgeWorld) -> usize {
    forge.hooks().len()
}

#[tokio::test]
async fn the_forge_is_found_and_its_webhook_made() {
    for face in FACES {
        let town = Town::new(face).await;
        let handle = open(&town).await;
        let token = town.forge.owners_token();
        let added = add(&handle, wanted(&town, Some(&token))).await.unwrap();
        let word = match face {
            Face::Github => "github",
            Face::Gitlab => "gitlab",
            Face::Gitea | Face::Forgejo => "gitea",
        };
        assert_eq!(added.project.forge.word(), word);
        let (_, place) = added.project.forge.place().unwrap();
        assert_eq!(place.api, town.forge.api());
        let calls = town.forge.calls();
        let known = calls.iter().position(|call| call.path.contains("hello"));
        let (asking, after) = calls.split_at(known.unwrap());
        assert!(!asking.is_empty() && asking.iter().all(|call| !call.with_token));
        assert!(after.iter().all(|call| call.with_token));
        let url = format!("{}/hooks/story", handle.url());
        assert_eq!(added.webhook, Webhook::Made { url: url.clone() });

        let hook = town.forge.hooks().pop().unwrap();
        assert_eq!(hook.url, url);
        assert!(hook.active && !hook.form, "{face:?}");
        let file = handle.server.config.secrets().join(".webhooks/story");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), hook.secret);
        let said = format!("{added:?}");
        assert!(!said.contains(&hook.secret) && !said.contains(&token));

        town.forge.push(MAIN, &[("a", "1")]).await;
        let told = town.forge.deliveries().pop().unwrap();
        assert_eq!(
            (told.event, told.answers[0].status),
            (push(face), Some(202))
        );
        let number = town.forge.open_request(MAIN, "Title", "ada").await;
        let before = town.forge.deliveries().len();
        town.forge.comment(number, "ada", "hello").await;
        assert_eq!(town.forge.deliveries().len(), before + 1, "{face:?}");

        let database = handle.server.config.data.join("trainyard.db");
        let rows = std::fs::read(&database).unwrap();
        let row = String::from_utf8_lossy(&rows);
        assert!(!row.contains(&hook.secret) && !row.contains(&token));
        handle.stop().await.unwrap();
        assert_eq!(town.forge.violations(), Vec::<String>::new());
    }
}

fn push(face: Face) -> &'static str {
    match face {
        Face::Gitlab => "Push Hook",
        Face::Github | Face::Gitea | Face::Forgejo => "push",
    }
}

#[tokio::test]
async fn a_webhook_that_leads_here_already_is_brought_up_to_date() {
    for face in FACES {
        let town = Town::new(face).await;
        let handle = open(&town).await;
        let url = format!("{}/hooks/story", handle.url());
        town.forge.hook(&url, "of another time");
        let token = town.forge.owners_token();
        let added = add(&handle, wanted(&town, Some(&token))).await.unwrap();
        assert_eq!(added.webhook, Webhook::Made { url });
        assert_eq!(hooks(&town.forge), 1, "{face:?}");
        town.forge.push(MAIN, &[("a", "1")]).await;
        let told = town.forge.deliveries().pop().unwrap();
        assert_eq!(told.answers[0].status, Some(202), "{face:?}");
        handle.stop().await.unwrap();
    }
}

#[tokio::test]
async fn where_the_token_does_not_reach_a_person_is_told_what_to_fill_in() {
    for face in FACES {
        let town = Town::new(face).await;
        let handle = open(&town).await;
        town.forge.set_permission("ada", Level::Write);
        let scopes: &[&str] = match face {
            Face::Github => &["repo"],
            Face::Gitlab => &["api"],
            Face::Gitea | Face::Forgejo => &["write:repository", "write:issue"],
        };
        let token = town.forge.token("ada", scopes);
        let added = add(&handle, wanted(&town, Some(&token))).await.unwrap();
        let Webhook::ByHand { why, page, fields } = added.webhook else {
            panic!("{face:?}: {:?}", added.webhook)
        };
        assert!(why.contains("administration of the webhooks"), "{why}");
        assert!(
            page.starts_with(&format!("{}/octo/hello/", town.forge.url())),
            "{page}"
        );
        let values: Vec<_> = fields.iter().map(|field| &*field.value).collect();
        assert!(values.contains(&&*format!("{}/hooks/story", handle.url())));

        // A person does as told.
        let secret = fields.iter().find(|field| field.name.contains("Secret"));
        town.forge.hook(values[0], &secret.unwrap().value);
        town.forge.push(MAIN, &[("a", "1")]).await;
        let told = town.forge.deliveries().pop().unwrap();
        assert_eq!(told.answers[0].status, Some(202), "{face:?}");
        handle.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_does_not_know_its_address_says_so() {
    let town = Town::new(Face::Gitea).await;
    let server = town.server().await;
    let token = town.forge.owners_token();
    let hook = town.secret("hook", "given");
    let wanted = NewProject {
        webhook_secret: Some(hook.to_string()),
        ..wanted(&town, Some(&token))
    };
    let added = project::add_for(&server, wanted, "ana").await.unwrap();
    let Webhook::ByHand { why, fields, .. } = added.webhook else {
        panic!("{:?}", added.webhook)
    };
    assert!(why.contains("set 'url'"), "{why}");
    assert!(
        why.contains("trainyard up --url"),
        "it reads no configuration"
    );
    let said = format!("{fields:?}");
    assert!(said.contains("https://YOUR-SERVER/hooks/story"), "{said}");
    assert!(
        said.contains(&hook.to_string()) && !said.contains("given\""),
        "{said}"
    );
    assert_eq!(hooks(&town.forge), 0);
}

#[tokio::test]
async fn a_host_that_is_no_forge_is_plain_git() {
    let town = Town::new(Face::Gitea).await;
    let server = town.server().await;
    town.forge.down(crate::forge::Outage::BadGateway);
    let added = project::add_for(&server, wanted(&town, None), "ana").await;
    let added = added.unwrap();
    assert_eq!(added.project.forge.word(), "git");
    assert_eq!(added.webhook, Webhook::None);
    assert!(!server.config.secrets().join(".webhooks").exists());
}

#[tokio::test]
async fn a_taken_name_leaves_the_others_secret_alone() {
    let town = Town::new(Face::Gitea).await;
    let server = town.server().await;
    project::add_for(&server, wanted(&town, None), "ana")
        .await
        .unwrap();
    let file = server.config.secrets().join(".webhooks/story");
    let before = std::fs::read_to_string(&file).unwrap();
    let again = project::add_for(&server, wanted(&town, None), "ana").await;
    assert!(matches!(again, Err(AddError::Taken { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    assert!(!stands(&server.config.data.join("blobs"), &before));
}

#[tokio::test]
async fn a_project_of_the_app_needs_it_installed() {
    let town = Town::new(Face::Github).await;
    let handle = open(&town).await;
    let app = || NewProject {
        app: true,
        ..wanted(&town, None)
    };
    let error = add(&handle, app()).await.unwrap_err().to_string();
    assert!(error.contains("it is not installed there"), "{error}");
    town.forge.install_app().await;
    let both = NewProject {
        credential: Some("env:TOKEN".to_owned()),
        ..app()
    };
    let error = add(&handle, both).await.unwrap_err().to_string();
    assert!(error.contains("leave them out"), "{error}");
    let added = add(&handle, app()).await.unwrap();
    assert_eq!(added.webhook, Webhook::App);
    let (_, place) = added.project.forge.place().unwrap();
    assert_eq!(
        (place.app, place.webhook_secret.as_ref()),
        (Some(PROJECT), None)
    );
    assert_eq!(hooks(&town.forge), 0);
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn a_key_that_signs_is_never_sent_as_a_token() {
    let town = Town::new(Face::Gitlab).await;
    let handle = open(&town).await;
    let key = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=";
    let token = town.forge.owners_token();
    let wanted = || NewProject {
        webhook_secret: Some(town.secret("hook", key).to_string()),
        ..wanted(&town, Some(&token))
    };
    let added = add(&handle, wanted()).await.unwrap();
    assert!(matches!(added.webhook, Webhook::Made { .. }));
    town.forge.push(MAIN, &[("a", "1")]).await;
    let told = town.forge.deliveries().pop().unwrap();
    assert_eq!(told.answers[0].status, Some(202));

    town.forge.cannot_sign();
    let second = NewProject {
        name: "second".to_owned(),
        ..wanted()
    };
    let added = add(&handle, second).await.unwrap();
    let Webhook::ByHand { why, .. } = added.webhook else {
        panic!("{:?}", added.webhook)
    };
    assert!(why.contains("does not sign messages"), "{why}");
    handle.stop().await.unwrap();
}
