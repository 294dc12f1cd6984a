//! Every recorded message of every forge, and messages that only pretend to be.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use protocol::{CommitId, Span, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::Sha256;

use super::proof::Verified;
use super::{BadProof, Message};
use crate::forge::event::{Asked, Change, Comment, ForgeEvent, PullRequest};

/// A moment of no importance.
const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// The secret of the recorded messages of Gitea.
const RECORDED: &str = "hook-s3cret";

fn data(forge: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/forges")
        .join(forge)
}

fn message(headers: &[(&str, &str)]) -> Message {
    let find = |name: &str| headers.iter().find(|(known, _)| *known == name);
    Message::of(|name| find(name).map(|(_, value)| *value)).unwrap()
}

/// The headers of a message that Gitea sent.
fn recorded(stem: &str) -> Message {
    let text = fs::read(data("gitea").join(format!("{stem}.headers.json"))).unwrap();
    let value: Value = serde_json::from_slice(&text).unwrap();
    let fields = value["headers"].as_object().unwrap().iter();
    let headers: BTreeMap<String, &str> = fields
        .map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap()))
        .collect();
    Message::of(|name| headers.get(name).copied()).unwrap()
}

/// What a body says, in a line.
fn told(message: &Message, body: &[u8]) -> String {
    let said = match message.read(Verified::in_a_test(body)) {
        Ok(said) => said.event,
        Err(error) => return error.to_string(),
    };
    let id = |commit: &Option<CommitId>| {
        let commit = commit.as_ref();
        commit.map_or("none".to_owned(), |commit| commit.short().to_owned())
    };
    let name = |by: Option<String>| by.unwrap_or_else(|| "nobody".to_owned());
    match said {
        ForgeEvent::Ping => "ping".to_owned(),
        ForgeEvent::Push {
            reference,
            before,
            after,
            by,
        } => format!(
            "{reference} {} to {} by {}",
            id(&before),
            id(&after),
            name(by)
        ),
        ForgeEvent::PullRequest(PullRequest {
            number,
            change,
            head,
            head_branch,
            base_branch,
            fork,
            by,
            ..
        }) => {
            let from = if fork { "fork's " } else { "" };
            let head = head.short();
            let by = name(by);
            format!("{number} {change:?}: {from}{head_branch} ({head}) to {base_branch} by {by}")
        }
        ForgeEvent::Comment(Comment {
            number,
            id,
            by,
            at,
            text,
            ..
        }) => {
            let at = at.map_or("some time".to_owned(), |at| (at.0 / 1_000).to_string());
            format!("comment {id} on {number} by {by} at {at}: {text}")
        }
        ForgeEvent::Asked(Asked {
            commit,
            check,
            action,
            by,
        }) => format!(
            "{} asks for {check:?} {action:?} at {}",
            name(by),
            commit.short()
        ),
        ForgeEvent::Other { name } => format!("nothing: {name}"),
    }
}

/// What each recorded body of a forge says.
fn table(forge: &str, message: impl Fn(&str) -> Message) -> String {
    let ours = |name: &String| {
        let odd = [".schema.", ".response", ".headers."];
        name.ends_with(".json") && !odd.iter().any(|part| name.contains(part))
    };
    let entries = fs::read_dir(data(forge)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(ours).collect();
    names.sort();
    let line = |name: String| {
        let body = fs::read(data(forge).join(&name)).unwrap();
        let stem = name.trim_end_matches(".json").trim_end_matches(".body");
        format!("{stem}: {}\n", told(&message(stem), &body))
    };
    names.into_iter().map(line).collect()
}

#[test]
fn what_github_tells() {
    let of = |stem: &str| message(&[("x-github-event", stem.split('.').next().unwrap())]);
    assert_eq!(
        table("github", of),
        "\
check_run.completed: nothing: check_run.completed
check_run.created: nothing: check_run.created
check_run.requested_action: nothing: check_run.requested_action
check_run.rerequested: nothing: check_run.rerequested
check_suite.completed: nothing: check_suite.completed
check_suite.requested: nothing: check_suite.requested
check_suite.rerequested: octocoders-linter[bot] asks for None None at ec26c3e57c
create.tag: nothing: create
delete.tag: nothing: delete
installation.created: nothing: installation
installation.deleted: nothing: installation
installation.suspend: nothing: installation
installation_repositories.added: nothing: installation_repositories
installation_repositories.removed: nothing: installation_repositories
issue_comment.created.issue: nothing: issue_comment of an issue
issue_comment.created.with-installation: nothing: issue_comment of an issue
issue_comment.deleted: nothing: issue_comment.deleted
issue_comment.edited: nothing: issue_comment.edited
ping.app: ping
ping.repo: ping
ping.with-organization-or-app: ping
pull_request.closed: 2 Closed: changes (ec26c3e57c) to master by Codertocat
pull_request.converted_to_draft: nothing: pull_request.converted_to_draft
pull_request.labeled: nothing: pull_request.labeled
pull_request.opened: 2 Opened: changes (ec26c3e57c) to master by Codertocat
pull_request.opened.null-body: 2 Opened: changes (ec26c3e57c) to master by Codertocat
pull_request.ready_for_review: 2 Ready: changes (ec26c3e57c) to master by Codertocat
pull_request.reopened: 2 Reopened: changes (ec26c3e57c) to master by Codertocat
pull_request.synchronize: 2 Updated: changes (ec26c3e57c) to master by Codertocat
push.branch-new-1commit: refs/heads/master none to 6113728f27 by Codertocat
push.branch-no-username-committer: refs/heads/master none to 6113728f27 by Codertocat
push.tag-created: refs/tags/simple-tag none to 6113728f27 by Codertocat
push.tag-deleted: refs/tags/simple-tag 6113728f27 to none by Codertocat
push.tag-deleted.with-installation: refs/tags/simple-tag 6113728f27 to none by Codertocat
repository.renamed: nothing: repository
repository.transferred: nothing: repository
status: nothing: status
workflow_run.completed: nothing: workflow_run
"
    );
}

#[test]
fn what_gitlab_tells() {
    let of = |_: &str| message(&[("x-gitlab-event", "Some Hook")]);
    assert_eq!(
        table("gitlab", of),
        "\
build: nothing: build
deployment: nothing: deployment
group_merge_request: nothing: merge_request.merge
issue: nothing: issue
merge_request: 1 Opened: ms-viewport (da1560886d) to master by user1
note_commit: nothing: note.Commit
note_issue: nothing: note.Issue
note_merge_request: comment 1244 on 1 by user1 at 1431886896: This MR needs work.
note_snippet: nothing: note.Snippet
pipeline: nothing: pipeline
push: refs/heads/master 95790bf891 to da1560886d by jsmith
release: nothing: release
service_merge_request: 2 Updated: next-feature (0ab96a1026) to master by test
subgroup: nothing: Some Hook
tag_push: refs/tags/v1.0.0 none to 82b3d5ae55 by jsmith
wiki_page: nothing: wiki_page
"
    );
}

#[test]
fn what_gitea_tells() {
    assert_eq!(
        table("gitea", recorded),
        "\
create.branch: nothing: create
create.tag: nothing: create
delete.branch: nothing: delete
delete.tag: nothing: delete
fork: nothing: fork
issue_comment.created: comment 4 on 1 by ci at 1795404933: /rerun
issue_comment.deleted: nothing: issue_comment.deleted
issue_comment.edited: nothing: issue_comment.edited
issue_comment.reviewed: nothing: issue_comment.reviewed
pull_request.closed.fork: 2 Closed: fork's evil (82111e8f68) to main by ci
pull_request.closed.merged: 1 Closed: feature/x (9b1f51ecb7) to main by ci
pull_request.opened: 1 Opened: feature/x (2dc298b73f) to main by ci
pull_request.opened.fork: 2 Opened: fork's evil (82111e8f68) to main by outsider
pull_request.synchronized: 1 Updated: feature/x (e740b72412) to main by ci
push.branch.1c: refs/heads/main 38f92f594d to 38f92f594d by ci
push.branch.3c: refs/heads/main 41e3b84501 to 7a8484068c by ci
push.branch.5c: refs/heads/main 38f92f594d to 41e3b84501 by ci
push.branch.created: refs/heads/feature/x none to 2dc298b73f by ci
push.tag.created: refs/tags/v1 none to 2dc298b73f by ci
push.tag.deleted: refs/tags/v1 2dc298b73f to none by ci
"
    );
}

/// A recorded body of GitHub, changed.
fn changed(stem: &str, change: impl FnOnce(&mut Value)) -> String {
    let body = fs::read(data("github").join(format!("{stem}.json"))).unwrap();
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    change(&mut body);
    let event = stem.split('.').next().unwrap();
    told(
        &message(&[("x-github-event", event)]),
        &serde_json::to_vec(&body).unwrap(),
    )
}

#[test]
fn what_no_recording_has() {
    let gone = changed("pull_request.opened", |body| {
        body["pull_request"]["head"]["repo"] = Value::Null;
    });
    assert_eq!(
        gone,
        "2 Opened: fork's changes (ec26c3e57c) to master by Codertocat"
    );
    let retargeted = changed("pull_request.labeled", |body| {
        body["action"] = json!("edited");
        body["changes"] = json!({"base": {"ref": {"from": "old"}}});
    });
    assert!(retargeted.starts_with("2 Updated:"), "{retargeted}");
    let asked = changed("check_run.requested_action", |body| {
        body["check_run"]["external_id"] = json!("job 1");
        body["requested_action"]["identifier"] = json!("rerun");
    });
    assert_eq!(
        asked,
        "codebytere asks for Some(\"job 1\") Some(\"rerun\") at 5bd5f196a4"
    );
    let comment = changed("issue_comment.created.issue", |body| {
        body["issue"]["pull_request"] = json!({});
        body["comment"]["body"] = json!("/trainyard rerun");
    });
    assert_eq!(
        comment,
        "comment 492700400 on 1 by Codertocat at 1557933621: /trainyard rerun"
    );
    let undated = changed("issue_comment.created.issue", |body| {
        body["issue"]["pull_request"] = json!({});
        body["comment"]["body"] = json!("/trainyard approve");
        body["comment"]["created_at"] = json!("yesterday");
    });
    assert_eq!(
        undated,
        "comment 492700400 on 1 by Codertocat at some time: /trainyard approve"
    );
    let ready = json!({"object_kind": "merge_request", "user": {"username": "ana"}, "changes":
        {"draft": {"previous": true, "current": false}}, "object_attributes": {"iid": 3, "action":
        "update", "source_project_id": 1, "target_project_id": 2, "target_branch": "main",
        "source_branch": "x", "last_commit": {"id": "a".repeat(40)}}});
    let gitlab = message(&[("x-gitlab-event", "Merge Request Hook")]);
    assert_eq!(
        told(&gitlab, ready.to_string().as_bytes()),
        "3 Ready: fork's x (aaaaaaaaaa) to main by ana"
    );
}

#[test]
fn what_is_asked_for_is_read_like_what_is_told() {
    let body = fs::read(data("github").join("pull_request.opened.json")).unwrap();
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    let ForgeEvent::PullRequest(told) = message(&[("x-github-event", "pull_request")])
        .read(Verified::in_a_test(&serde_json::to_vec(&body).unwrap()))
        .unwrap()
        .event
    else {
        panic!("a pull request")
    };
    assert_eq!(
        (told.open, told.updated_at),
        (Some(true), Some(Timestamp(1_557_933_633_000)))
    );
    let whole = body["pull_request"].take();
    let asked = super::github::pull_request(&serde_json::to_vec(&whole).unwrap()).unwrap();
    assert_eq!(asked, PullRequest { by: None, ..told });

    // As GitLab's documentation shows "Retrieve a merge request".
    let merge_request = json!({"iid": 3, "state": "merged", "sha": "a".repeat(40), "source_branch": "x",
        "target_branch": "main", "title": "T", "source_project_id": null, "target_project_id": 2,
        "author": {"id": 1, "username": "ana"}});
    let gone = super::gitlab::merge_request(merge_request.to_string().as_bytes()).unwrap();
    assert_eq!((gone.change, gone.fork), (Change::Closed, true));
    assert_eq!(gone.open, Some(false));
    assert!(super::gitlab::merge_request(b"{}").is_err());
}

#[test]
fn bodies_that_lie_are_refused_in_words() {
    let deep = "[".repeat(100_000);
    for (event, body) in [
        ("push", "[]"),
        ("push", r#"{"ref":"main","before":"0","after":"0"}"#),
        (
            "push",
            r#"{"ref":"refs/heads/x","before":"../../etc","after":"0"}"#,
        ),
        (
            "push",
            r#"{"ref":"refs/heads/x","before":null,"after":null}"#,
        ),
        ("pull_request", r#"{"action":"opened"}"#),
        (
            "pull_request",
            r#"{"action":"opened","number":-1,"pull_request":{}}"#,
        ),
        (
            "issue_comment",
            r#"{"action":"created","issue":{"number":1}}"#,
        ),
        ("ping", "payload=%7B%7D"),
        ("star", "\u{0}"),
        ("push", deep.as_str()),
    ] {
        let said = told(&message(&[("x-github-event", event)]), body.as_bytes());
        let start = format!("the body is not a '{event}' event: ");
        assert!(said.starts_with(&start) && said.len() < 400, "{said}");
    }
}

#[test]
fn the_true_forge_is_told_from_its_headers() {
    let forgejo = [
        ("x-github-event", "a"),
        ("x-gitea-event", "b"),
        ("x-forgejo-event", "c"),
    ];
    for (headers, kind, name) in [
        (&forgejo[..1], "GitHub", "a"),
        (&forgejo[..2], "Gitea", "b"),
        (&forgejo[..], "Gitea", "c"),
        (
            &[("x-gitlab-event", "Push Hook")][..],
            "GitLab",
            "Push Hook",
        ),
    ] {
        let message = message(headers);
        assert_eq!((message.kind.name(), message.name.as_str()), (kind, name));
    }
    assert_eq!(Message::of(|_| None), None);
}

#[test]
fn the_same_message_has_the_same_id() {
    let id = |headers: &[(&str, &str)]| message(headers).delivery(Verified::in_a_test(b"x"));
    assert_eq!(
        id(&[("x-github-event", "push"), ("x-github-delivery", "1")]),
        "1"
    );
    let gitlab = [
        ("x-gitlab-event", "Push Hook"),
        ("x-gitlab-event-uuid", "2"),
        ("idempotency-key", "3"),
    ];
    assert_eq!(id(&gitlab), "3");
    assert_eq!(id(&gitlab[..2]), "2");
    assert_eq!(id(&gitlab[..1]).len(), 64);
}

fn proved(message: &Message, secret: &str, body: &[u8]) -> bool {
    match message.prove(&SecretString::from(secret), body, NOW) {
        Ok(_) => true,
        Err(BadProof) => false,
    }
}

#[test]
fn githubs_own_example_is_proved_and_nothing_else() {
    // From GitHub's documentation, "Validating webhook deliveries".
    let (secret, body) = ("It's a Secret to Everybody", b"Hello, World!");
    let right = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let github = |signature: &str| {
        message(&[
            ("x-github-event", "push"),
            ("x-hub-signature-256", signature),
        ])
    };
    let signed = github(&format!("sha256={right}"));
    assert!(proved(&signed, secret, body));
    assert!(proved(
        &github(&format!("sha256={}", right.to_uppercase())),
        secret,
        body
    ));
    assert!(!proved(&signed, secret, b"Hello, World?"));
    assert!(!proved(&signed, secret, b""));
    assert!(!proved(&signed, "other", body));
    let zeros = format!("sha256={}", "0".repeat(64));
    for wrong in [
        "",
        right,
        "sha256=",
        "sha256=757107",
        "sha1=757107ea0eb2509fc211221cce984b8a37570b6d",
        &zeros,
    ] {
        assert!(!proved(&github(wrong), secret, body), "{wrong}");
    }
    assert!(!proved(
        &message(&[("x-github-event", "push")]),
        secret,
        body
    ));
}

#[test]
fn recorded_messages_are_proved() {
    for stem in [
        "push.branch.3c",
        "issue_comment.created",
        "pull_request.opened.fork",
    ] {
        let body = fs::read(data("gitea").join(format!("{stem}.body.json"))).unwrap();
        assert!(proved(&recorded(stem), RECORDED, &body), "{stem}");
        assert!(!proved(&recorded(stem), "another", &body), "{stem}");
    }
}

#[test]
fn gitlabs_token_is_compared_whole() {
    let gitlab =
        |token: &str| message(&[("x-gitlab-event", "Push Hook"), ("x-gitlab-token", token)]);
    assert!(proved(&gitlab("s3cret"), "s3cret", b"{}"));
    for wrong in ["", "s3cre", "s3cret ", "S3cret"] {
        assert!(!proved(&gitlab(wrong), "s3cret", b"{}"), "{wrong}");
    }
    assert!(!proved(
        &message(&[("x-gitlab-event", "Push Hook")]),
        "s3cret",
        b"{}"
    ));
}

#[test]
fn gitlabs_signature_counts_within_its_window() {
    let key = b"0123456789abcdef0123456789abcdef";
    let secret = format!("whsec_{}", STANDARD.encode(key));
    let sign = |at: i64| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(format!("id.{at}.body").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    let send = |at: i64, signature: &str| {
        let at = at.to_string();
        let signed = message(&[
            ("x-gitlab-event", "Push Hook"),
            // The secret itself is no proof where it signs.
            ("x-gitlab-token", &secret),
            ("webhook-id", "id"),
            ("webhook-timestamp", &at),
            ("webhook-signature", signature),
        ]);
        proved(&signed, &secret, b"body")
    };
    let now = NOW.0 / 1_000;
    for near in [0, -299, 299] {
        assert!(send(now + near, &sign(now + near)), "{near}");
    }
    let late = (Span::secs(302).0 / 1_000).cast_signed();
    for far in [-late, late, i64::MIN / 2, i64::MAX / 2] {
        assert!(
            !send(now.saturating_add(far), &sign(now.saturating_add(far))),
            "{far}"
        );
    }
    assert!(
        send(now, &format!("v1,AAAA v1a,x {}", sign(now))),
        "a secret that is being changed"
    );
    assert!(!send(now, &sign(now + 1)));
    assert!(!send(now, ""));
}
