//! What a client writes, and a person sees.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Client, FACES, begun};
use crate::support::forge::{Face, ForgeWorld, Level, ZEROS};

/// Without the limits on writes: these stories are not about them.
async fn unlimited(face: Face) -> (ForgeWorld, String) {
    let (world, commit) = begun(face).await;
    world.limits(None);
    (world, commit)
}

#[tokio::test]
async fn the_newest_status_of_a_context_counts() {
    for face in FACES {
        let (world, commit) = unlimited(face).await;
        let client = Client::of_owner(&world);
        assert_eq!(
            client.status(&commit, "pending").await.status(),
            StatusCode::CREATED
        );
        assert_eq!(
            client.status(&commit, "success").await.status(),
            StatusCode::CREATED
        );
        let seen = world.seen();
        assert_eq!(seen.state(&commit, "ci/train"), Some("success"), "{face:?}");
        assert_eq!(seen.statuses.values().next().unwrap().written, 2);
        let unknown = client
            .status(&commit.replace(&commit[..8], &ZEROS[..8]), "pending")
            .await;
        let wanted = match face {
            Face::Github => 422,
            Face::Gitlab => 404,
            Face::Gitea | Face::Forgejo => 500,
        };
        assert_eq!(unknown.status(), wanted, "{face:?}");
        assert_eq!(world.violations(), [""; 0]);
        let calls = world.calls();
        let statuses: Vec<_> = calls.iter().map(|call| call.status).collect();
        assert_eq!(statuses, [201, 201, wanted]);
        assert_eq!(calls[0].method, "POST");
        assert!(calls[0].path.ends_with(&format!("/statuses/{commit}")));
        assert!(calls[0].at < calls[1].at && calls[1].at < calls[2].at);
    }
}

#[tokio::test]
async fn comments_appear_are_edited_and_found_again() {
    for face in FACES {
        let (world, _) = unlimited(face).await;
        world.push("work", &[("a", "1")]).await;
        let number = world.open_request("work", "A title", "ada").await;
        let client = Client::of_owner(&world);
        let path = client.comments(number);
        let made: Value = client
            .post(&path, &json!({"body": "one"}))
            .await
            .json()
            .await
            .unwrap();
        let edited = client.edit(number, &made["id"], "two").await;
        assert_eq!(edited.status(), StatusCode::OK, "{face:?}");
        let seen = world.seen();
        let [comment] = &seen.on(number)[..] else {
            panic!("{face:?}")
        };
        assert_eq!((comment.text.as_str(), comment.edits), ("two", 1));
        for n in 0..6 {
            world.comment(number, "ada", &format!("talk {n}")).await;
        }
        let mine: Value = client.read(&format!("{path}?sort=asc&per_page=5")).await;
        assert_eq!(mine[0]["body"], "two", "{face:?}");
        let next = client.get(&format!("{path}?per_page=5")).await;
        let links = next
            .headers()
            .get("link")
            .map(|link| link.to_str().unwrap().to_owned());
        let pages = !matches!(face, Face::Gitea | Face::Forgejo);
        assert_eq!(
            links.is_some_and(|links| links.contains("page=2>; rel=\"next\"")),
            pages,
            "{face:?}"
        );
        // What somebody else wrote is not edited.
        let theirs = world.comment(number, "ada", "mine").await;
        assert_eq!(
            client.edit(number, &json!(theirs), "x").await.status(),
            StatusCode::NOT_FOUND
        );
    }
}

#[tokio::test]
async fn a_reaction_is_there_once() {
    for face in FACES {
        let (world, _) = unlimited(face).await;
        world.push("work", &[("a", "1")]).await;
        let number = world.open_request("work", "A title", "ada").await;
        let id = world.comment(number, "ada", "/trainyard rerun").await;
        let client = Client::of_owner(&world);
        let react = async || match face {
            Face::Gitlab => {
                let path = format!("{}/{id}/award_emoji?name=rocket", client.comments(number));
                client
                    .request(Method::POST, &path)
                    .send()
                    .await
                    .unwrap()
                    .status()
            }
            Face::Github | Face::Gitea | Face::Forgejo => {
                let path = format!("{}/issues/comments/{id}/reactions", client.repository());
                client
                    .post(&path, &json!({"content": "rocket"}))
                    .await
                    .status()
            }
        };
        assert_eq!(react().await, StatusCode::CREATED, "{face:?}");
        let again = if face == Face::Gitlab {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::OK
        };
        assert_eq!(react().await, again);
        let wanted = [("octo".to_owned(), "rocket".to_owned())];
        assert_eq!(world.seen().on(number)[0].reactions, wanted);
    }
}

#[tokio::test]
async fn a_body_that_github_would_not_take_is_refused_and_counted() {
    let (world, commit) = unlimited(Face::Github).await;
    let client = Client::of_owner(&world);
    let path = format!("/repos/octo/hello/statuses/{commit}");
    let wrong = [
        json!({"context": "x"}),
        json!({"state": "green"}),
        json!({"state": "error", "colour": "red"}),
        json!({"state": "error", "description": 7}),
        json!({"state": "error", "description": "é".repeat(141)}),
        json!({"state": "error", "description": "🐛"}),
    ];
    for (n, body) in wrong.iter().enumerate() {
        assert_eq!(client.post(&path, body).await.status(), 422, "{body}");
        assert_eq!(world.violations().len(), n + 1, "{:?}", world.violations());
    }
    assert!(world.seen().statuses.is_empty());
    let good = json!({"state": "error", "description": "é".repeat(140), "target_url": null});
    assert_eq!(client.post(&path, &good).await.status(), 201);
}

#[tokio::test]
async fn gitlab_takes_one_status_at_a_time_forward_only_and_with_its_ref() {
    let (world, commit) = unlimited(Face::Gitlab).await;
    let client = Client::of_owner(&world);
    assert_eq!(client.status(&commit, "running").await.status(), 201);
    for state in ["running", "pending"] {
        let answer = client.status(&commit, state).await;
        assert_eq!(answer.status(), 400);
        assert!(answer.text().await.unwrap().contains("Cannot transition"));
    }
    assert_eq!(client.status(&commit, "failed").await.status(), 201);
    assert_eq!(client.status(&commit, "pending").await.status(), 201);
    assert_eq!(
        (world.seen().pipelines.len(), world.violations().len()),
        (1, 0)
    );
    world.slow(std::time::Duration::from_millis(200));
    let (one, other) = tokio::join!(
        client.status(&commit, "success"),
        client.status(&commit, "success")
    );
    let mut both = [one.status().as_u16(), other.status().as_u16()];
    both.sort_unstable();
    assert_eq!(both, [201, 409]);
    assert_eq!(world.violations().len(), 1);
    let path = format!("/projects/15/statuses/{commit}");
    let body = json!({"state": "success", "name": "lint"});
    assert_eq!(client.post(&path, &body).await.status(), 201);
    assert_eq!(
        (world.seen().pipelines.len(), world.violations().len()),
        (2, 2)
    );
}

#[tokio::test]
async fn a_person_may_what_was_set() {
    for face in FACES {
        let (world, _) = unlimited(face).await;
        let client = Client::of_owner(&world);
        world.set_permission("ada", Level::Write);
        world.token("eve", &[]);
        let level = async |login: &str| match face {
            Face::Gitlab => {
                let user = client.read(&format!("/users?username={login}")).await;
                let member = format!("/projects/15/members/all/{}", user[0]["id"]);
                client.read(&member).await["access_level"].clone()
            }
            Face::Github | Face::Gitea | Face::Forgejo => {
                let path = format!("/repos/octo/hello/collaborators/{login}/permission");
                client.read(&path).await["permission"].clone()
            }
        };
        let (of_ada, of_eve) = match face {
            Face::Gitlab => (json!(30), Value::Null),
            Face::Github | Face::Gitea | Face::Forgejo => (json!("write"), json!("read")),
        };
        assert_eq!(
            (level("ada").await, level("eve").await),
            (of_ada, of_eve),
            "{face:?}"
        );
        assert_eq!(level("nobody").await, Value::Null);
    }
}

#[tokio::test]
async fn a_token_does_what_its_scopes_and_its_person_may() {
    for face in FACES {
        let (world, commit) = unlimited(face).await;
        let reader = world.token("octo", &["read_api", "read:repository"]);
        let outsider = world.token("eve", &["repo", "api", "all"]);
        for (token, github) in [(reader, 403), (outsider, 404)] {
            let answer = Client::new(&world, &token).status(&commit, "success").await;
            let wanted = if face == Face::Github { github } else { 403 };
            assert_eq!(answer.status(), wanted, "{face:?}");
        }
        let token = world.owners_token();
        world.revoke(&token);
        let revoked = Client::new(&world, &token).status(&commit, "success").await;
        assert_eq!(revoked.status(), StatusCode::UNAUTHORIZED);
        assert!(world.seen().statuses.is_empty());
    }
}
