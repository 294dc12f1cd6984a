//! What hooks hear, and how it is proved.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Client, FACES, begun};
use crate::support::ear::{Ear, Heard};
use crate::support::forge::{Face, ForgeWorld, MAIN, ZEROS};
use crate::support::until;

const SECRET: &str = "of the hook";

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

fn is_proved(face: Face, heard: &Heard) -> bool {
    let hex = hex::encode(mac(SECRET.as_bytes(), &heard.body));
    match face {
        Face::Github => heard.header("x-hub-signature-256") == format!("sha256={hex}"),
        Face::Gitlab => heard.header("x-gitlab-token") == SECRET,
        Face::Gitea => heard.header("x-gitea-signature") == hex,
        Face::Forgejo => heard.header("x-forgejo-signature") == hex,
    }
}

/// (event, id) by the forge's own headers.
fn told(face: Face, heard: &Heard) -> (String, String) {
    let (event, id) = match face {
        Face::Github => ("x-github-event", "x-github-delivery"),
        Face::Gitlab => ("x-gitlab-event", "idempotency-key"),
        Face::Gitea => ("x-gitea-event", "x-gitea-delivery"),
        Face::Forgejo => ("x-forgejo-event", "x-forgejo-delivery"),
    };
    (heard.header(event).to_owned(), heard.header(id).to_owned())
}

/// The events since the last look.
fn events(world: &ForgeWorld, ear: &Ear) -> Vec<String> {
    ear.take()
        .iter()
        .map(|heard| told(world.face(), heard).0)
        .collect()
}

async fn listening(face: Face) -> (ForgeWorld, String, Ear) {
    let (world, commit) = begun(face).await;
    let ear = Ear::open().await;
    world.hook(&ear.url, SECRET);
    (world, commit, ear)
}

#[tokio::test]
async fn a_push_is_told_with_proof_and_the_true_commits() {
    for face in FACES {
        let (world, first, ear) = listening(face).await;
        let second = world.push(MAIN, &[("train.py", "print(1)\n")]).await;
        let [heard] = &ear.take()[..] else {
            panic!("{face:?}")
        };
        assert!(is_proved(face, heard), "{face:?}");
        assert_eq!(heard.header("content-type"), "application/json");
        let body = heard.json();
        let pair = (body["before"].as_str(), body["after"].as_str());
        assert_eq!(pair, (Some(&*first), Some(&*second)), "{face:?}");
        assert_eq!(body["ref"], "refs/heads/main");
        assert_eq!(body["commits"][0]["id"], json!(second));
        assert_eq!(body["commits"][0]["added"], json!(["train.py"]));
        let name = body["repository"]
            .get("full_name")
            .unwrap_or(&body["project"]["path_with_namespace"]);
        assert_eq!(name, "octo/hello", "{face:?}");
        let (event, id) = told(face, heard);
        let wanted = if face == Face::Gitlab {
            "Push Hook"
        } else {
            "push"
        };
        assert_eq!(event, wanted);
        assert_eq!(world.deliveries().last().unwrap().id, id);
        // Gitea's kin pass as GitHub at first sight.
        let as_github = heard.header("x-github-event");
        assert_eq!(as_github, if face == Face::Gitlab { "" } else { "push" });
    }
}

#[tokio::test]
async fn gitlabs_newer_form_is_signed_with_id_and_time() {
    let (world, _, _) = listening(Face::Gitlab).await;
    let ear = Ear::open().await;
    let key = [7; 24];
    world.hook(&ear.url, &format!("whsec_{}", STANDARD.encode(key)));
    world.push(MAIN, &[("a", "1")]).await;
    let heard = ear.take().pop().unwrap();
    let (id, time) = (
        heard.header("webhook-id"),
        heard.header("webhook-timestamp"),
    );
    let signed = [id.as_bytes(), time.as_bytes(), &heard.body].join(&b'.');
    let signature = STANDARD.encode(mac(&key, &signed));
    assert_eq!(heard.header("webhook-signature"), format!("v1,{signature}"));
    assert_eq!(heard.header("x-gitlab-token"), "");
}

#[tokio::test]
async fn refs_come_and_go() {
    for face in FACES {
        let (world, first, ear) = listening(face).await;
        world.tag("v1", &first).await;
        let made = ear.take();
        assert_eq!(made[0].json()["ref"], "refs/tags/v1");
        assert_eq!(made[0].json()["before"], ZEROS);
        world.delete_tag("v1").await;
        let gone = ear.take();
        assert_eq!(gone[0].json()["after"], ZEROS);
        let of_tag = |heard: &[Heard]| heard.iter().map(|h| told(face, h).0).collect::<Vec<_>>();
        match face {
            Face::Gitlab => {
                assert_eq!(
                    (of_tag(&made), of_tag(&gone)),
                    (vec!["Tag Push Hook".into()], vec!["Tag Push Hook".into()])
                );
            }
            Face::Github | Face::Gitea | Face::Forgejo => {
                assert_eq!(of_tag(&made), ["push", "create"]);
                assert_eq!(of_tag(&gone), ["push", "delete"]);
            }
        }
        world.push("side", &[("a", "1")]).await;
        ear.take();
        let other = world.force_push("side", &first, &[("a", "2")]).await;
        let body = ear.take().pop().unwrap().json();
        assert_eq!(body["after"], json!(other));
        if face == Face::Github {
            assert_eq!(body["forced"], json!(true));
        }
    }
}

#[tokio::test]
async fn a_push_of_many_commits_names_the_newest() {
    for (face, named) in [
        (Face::Github, 30),
        (Face::Gitlab, 20),
        (Face::Gitea, 5),
        (Face::Forgejo, 5),
    ] {
        let (world, _, ear) = listening(face).await;
        let texts: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        let files: Vec<_> = texts
            .iter()
            .map(|text| [("count", text.as_str())])
            .collect();
        let commits: Vec<&[_]> = files.iter().map(|files| &files[..]).collect();
        let last = world.push_commits(MAIN, &commits).await;
        let body = ear.take().pop().unwrap().json();
        let ids = body["commits"].as_array().unwrap();
        assert_eq!(ids.len(), named, "{face:?}");
        let newest_first = matches!(face, Face::Gitea | Face::Forgejo);
        let newest = if newest_first {
            ids.first()
        } else {
            ids.last()
        };
        assert_eq!(newest.unwrap()["id"], json!(last), "{face:?}");
        if face == Face::Gitlab {
            assert_eq!(body["total_commits_count"], json!(30));
        }
    }
}

#[tokio::test]
async fn gitlab_tells_nothing_of_a_push_of_many_refs() {
    for (face, told) in [(Face::Gitlab, 0), (Face::Github, 8)] {
        let (world, first, ear) = listening(face).await;
        let refs = [
            "refs/heads/a",
            "refs/heads/b",
            "refs/heads/c",
            "refs/tags/d",
        ];
        world
            .push_refs(&refs.map(|name| (name, first.as_str())))
            .await;
        assert_eq!(events(&world, &ear).len(), told);
    }
}

#[tokio::test]
async fn a_request_lives_through_all_that_can_happen() {
    for face in FACES {
        let (world, _, ear) = listening(face).await;
        world.push("work", &[("a", "1")]).await;
        ear.take();
        let number = world.open_draft("work", "A title", "ada").await;
        let opened = ear.take().pop().unwrap().json();
        let before = world.head(number);
        let after = world.push_to_request(number, &[("a", "2")]).await;
        let pushed: Vec<Value> = ear.take().iter().map(Heard::json).collect();
        assert_eq!(pushed.len(), 2, "{face:?}: the push and the request");
        world.ready(number, "ada").await;
        world.close(number, "ada").await;
        world.reopen(number, "ada").await;
        world.comment(number, "grace", "/trainyard rerun").await;
        let rest: Vec<Value> = ear.take().iter().map(Heard::json).collect();
        let gitlab = face == Face::Gitlab;
        let action = |body: &Value| {
            let holder = if gitlab {
                &body["object_attributes"]
            } else {
                body
            };
            holder["action"].as_str().unwrap().to_owned()
        };
        let actions: Vec<_> = [&opened, &pushed[1]]
            .into_iter()
            .chain(&rest)
            .map(action)
            .collect();
        let wanted = match face {
            Face::Github => [
                "opened",
                "synchronize",
                "ready_for_review",
                "closed",
                "reopened",
                "created",
            ],
            Face::Gitlab => ["open", "update", "update", "close", "reopen", "create"],
            Face::Gitea | Face::Forgejo => [
                "opened",
                "synchronized",
                "edited",
                "closed",
                "reopened",
                "created",
            ],
        };
        assert_eq!(actions, wanted, "{face:?}");
        if gitlab {
            assert_eq!(opened["object_attributes"]["title"], "Draft: A title");
            assert_eq!(pushed[1]["object_attributes"]["oldrev"], json!(before));
            assert_eq!(
                pushed[1]["object_attributes"]["last_commit"]["id"],
                json!(after)
            );
            assert_eq!(rest[3]["object_attributes"]["note"], "/trainyard rerun");
            assert_eq!(rest[3]["merge_request"]["iid"], json!(number));
        } else {
            assert_eq!(opened["pull_request"]["head"]["sha"], json!(before));
            assert_eq!(opened["pull_request"]["user"]["login"], "ada");
            assert_eq!(pushed[1]["pull_request"]["head"]["sha"], json!(after));
            assert_eq!(rest[3]["comment"]["body"], "/trainyard rerun");
            assert_eq!(rest[3]["issue"]["number"], json!(number));
            assert!(rest[3]["issue"]["pull_request"].is_object());
            assert_eq!(rest[3]["sender"]["login"], "grace");
        }
    }
}

#[tokio::test]
async fn a_deleted_branch_takes_its_request_along_but_not_at_gitlab() {
    for face in FACES {
        let (world, _, ear) = listening(face).await;
        let head = world.push("work", &[("a", "1")]).await;
        world.open_request("work", "A title", "ada").await;
        ear.take();
        world.delete_branch("work").await;
        let heard = ear.take();
        let push = heard[0].json();
        assert_eq!(push["before"], json!(head), "{face:?}");
        assert_eq!(push["after"], ZEROS);
        let closed = heard.iter().any(|heard| heard.json()["action"] == "closed");
        assert_eq!(closed, face != Face::Gitlab, "{face:?}");
    }
}

#[tokio::test]
async fn hooks_that_are_held_come_later_and_lost_ones_on_demand() {
    let (world, _, ear) = listening(Face::Github).await;
    world.hold_hooks();
    let held = world.push(MAIN, &[("a", "1")]).await;
    assert!(ear.take().is_empty());
    world.release_hooks().await;
    assert_eq!(ear.take()[0].json()["after"], json!(held));
    world.lose_hooks();
    let lost = world.push(MAIN, &[("a", "2")]).await;
    world.release_hooks().await;
    assert!(ear.take().is_empty());
    let id = world.deliveries().pop().unwrap().id;
    ear.answer(StatusCode::ACCEPTED);
    assert_eq!(world.redeliver(&id).await, Some(202));
    assert_eq!(world.redeliver(&id).await, Some(202));
    let again = ear.take();
    assert!(
        again
            .iter()
            .all(|heard| told(Face::Github, heard).1 == id && is_proved(Face::Github, heard))
    );
    assert_eq!((again.len(), &again[1].json()["after"]), (2, &json!(lost)));
}

#[tokio::test]
async fn gitea_repeats_itself_at_times() {
    let (world, _, ear) = listening(Face::Gitea).await;
    world.repeat_hooks();
    world.push(MAIN, &[("a", "1")]).await;
    let heard = ear.take();
    let ids: Vec<_> = heard.iter().map(|heard| told(Face::Gitea, heard)).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_hook_of_the_api_hears_what_it_asked_for() {
    for face in FACES {
        let (world, _) = begun(face).await;
        let ear = Ear::open().await;
        let client = Client::of_owner(&world);
        let hooks = format!("{}/hooks", client.repository());
        let body = match face {
            Face::Gitlab => {
                json!({"url": ear.url, "token": SECRET, "push_events": false, "note_events": true})
            }
            Face::Github => {
                json!({"config": {"url": ear.url, "secret": SECRET, "content_type": "json"}, "events": ["issue_comment"]})
            }
            Face::Gitea | Face::Forgejo => json!({
                "type": "gitea", "active": true, "events": ["pull_request_comment"],
                "config": {"url": ear.url, "secret": SECRET, "content_type": "json"},
            }),
        };
        let answer = client.post(&hooks, &body).await;
        assert_eq!(answer.status(), StatusCode::CREATED, "{face:?}");
        let hook: Value = answer.json().await.unwrap();
        assert!(!hook.to_string().contains(SECRET), "{face:?}");
        if face == Face::Github {
            let ping = until("the ping", async || ear.take().pop()).await;
            assert_eq!(told(face, &ping).0, "ping");
            assert_eq!(ping.json()["hook_id"], hook["id"]);
        }
        world.push("work", &[("a", "1")]).await;
        let number = world.open_request("work", "A title", "ada").await;
        world.comment(number, "ada", "Hello").await;
        let heard = ear.take();
        let [comment] = &heard[..] else {
            panic!("{face:?}: {}", heard.len())
        };
        assert!(is_proved(face, comment));
        let listed = client.read(&hooks).await;
        assert_eq!(listed[0]["id"], hook["id"]);
        let word = match face {
            Face::Github => "deliveries",
            Face::Gitlab => "events",
            Face::Gitea | Face::Forgejo => continue,
        };
        let sent = client.read(&format!("{hooks}/{}/{word}", hook["id"])).await;
        let code = if face == Face::Github {
            &sent[0]["status_code"]
        } else {
            &sent[0]["response_status"]
        };
        assert_eq!(code.to_string().trim_matches('"'), "200");
    }
}

#[tokio::test]
async fn github_sends_forms_to_who_does_not_ask_for_json() {
    let (world, _) = begun(Face::Github).await;
    let ear = Ear::open().await;
    let client = Client::of_owner(&world);
    let path = "/repos/octo/hello/hooks";
    let body = json!({"config": {"url": ear.url, "secret": SECRET}});
    let hook: Value = client.post(path, &body).await.json().await.unwrap();
    let ping = until("the ping", async || ear.take().pop()).await;
    assert!(ping.body.starts_with(b"payload=%7B%22zen%22"));
    assert!(is_proved(Face::Github, &ping));
    let path = format!("{path}/{}", hook["id"]);
    let json = json!({"config": {"content_type": "json"}});
    client.send(Method::PATCH, &path, &json).await;
    let commit = world.push(MAIN, &[("a", "1")]).await;
    assert_eq!(ear.take().pop().unwrap().json()["after"], json!(commit));
}

#[tokio::test]
async fn a_hook_hears_of_a_clients_own_comments() {
    for face in FACES {
        let (world, _, ear) = listening(face).await;
        world.push("work", &[("a", "1")]).await;
        let number = world.open_request("work", "A title", "ada").await;
        ear.take();
        let client = Client::of_owner(&world);
        let answer = client
            .post(&client.comments(number), &json!({"body": "Verdict"}))
            .await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        let heard = until("the echo", async || ear.take().pop()).await;
        assert!(heard.json().to_string().contains("Verdict"), "{face:?}");
    }
}
