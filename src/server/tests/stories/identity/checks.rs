//! Stories of check runs, which GitHub takes from an App alone.

use protocol::event::{EventKind, Finding};
use protocol::job::Move;
use protocol::spec::{LintLevel, Work};
use protocol::{AttemptId, Failure, FailureKind, JobId, Outcome, Span, TriggerKind, Trust};
use server::report::{ReportConfig, Reporter};
use server::store::jobs::Job;
use server::store::{agents, attempts, events, jobs, pipelines};

use super::*;
use crate::forge::Check;

/// A lint job of pull request 1 at the forge's only commit.
async fn job(town: &Town, server: &Server, project: &Project, held: bool) -> Job {
    let mut pipeline = testing::pipeline(project, 1);
    pipeline.trigger.kind = TriggerKind::PullRequest { number: 1 };
    pipeline.trigger.reference = Some("refs/pull/1/head".to_owned());
    pipeline.trigger.commit = town.commit.parse().unwrap();
    let mut job = testing::job(&pipeline, "lint");
    job.spec.work = Work::Lint {
        tools: Vec::new(),
        notebooks: Vec::new(),
    };
    if held {
        job.trust = Trust::Untrusted;
        job.state = protocol::job::State::Blocked {
            on: protocol::job::Block::Approval,
        };
    }
    let mut tx = server.store.begin().await.unwrap();
    pipelines::insert(&mut tx, &pipeline).await.unwrap();
    jobs::insert(&mut tx, &job).await.unwrap();
    tx.commit().await.unwrap();
    job
}

async fn step(server: &Server, job: &Job, step: Move) -> Job {
    let mut tx = server.store.begin().await.unwrap();
    let job = jobs::advance(&mut tx, job, step, None, Timestamp::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    job
}

/// Fails the job with so many findings.
async fn fail(server: &Server, project: &Project, job: &Job, findings: u64) -> Job {
    let mut tx = server.store.begin().await.unwrap();
    let agent = agents::register(&mut tx, &testing::agent("a"))
        .await
        .unwrap();
    let attempt = testing::attempt(project, job, &agent, 1, &[]);
    attempts::insert(&mut tx, &attempt).await.unwrap();
    let line = |seq: u64| {
        let finding = Finding {
            tool: "ruff".into(),
            level: LintLevel::Error,
            path: "a.ipynb".into(),
            cell: Some(1),
            code_cell: Some(1),
            line: Some(1),
            column: None,
            raw_line: u32::try_from(seq).ok(),
            code: Some("F841".into()),
            message: "unused".into(),
            suggestion: None,
        };
        let mut event = serde_json::to_value(EventKind::Finding(finding)).unwrap();
        event["seq"] = seq.into();
        event["at"] = 1.into();
        (seq, event.to_string())
    };
    let lines: Vec<(u64, String)> = (1..=findings).map(line).collect();
    events::append(&mut tx, &attempt.id, &lines).await.unwrap();
    tx.commit().await.unwrap();
    let id: AttemptId = attempt.id;
    let leased = step(
        server,
        job,
        Move::Lease {
            attempt: id.clone(),
        },
    )
    .await;
    let failure = Failure::new(FailureKind::LintFailed, "ruff found 120 things");
    let outcome = Outcome::Failed(failure);
    step(
        server,
        &leased,
        Move::Finish {
            attempt: id,
            outcome,
        },
    )
    .await
}

/// A pass waits for all of its answers.
fn patient() -> ReportConfig {
    ReportConfig {
        patience: Span::secs(60),
        ..ReportConfig::default()
    }
}

/// Passes until there is nothing to say.
async fn settle(reporter: &mut Reporter, now: &mut Timestamp) {
    let mut quiet = 0;
    while quiet < 2 {
        let pass = reporter.tick(*now).await.unwrap();
        let busy = pass.next.is_some() || pass.accepted + pass.refused > 0;
        quiet = if busy { 0 } else { quiet + 1 };
        *now = *now + Span::secs(if busy { 1 } else { 11 });
    }
}

/// The run of a check that GitHub shows: the newest of its name.
fn check(town: &Town, name: &str) -> Check {
    let checks = town.forge.seen().checks;
    let newest = checks.into_iter().rfind(|check| check.name == name);
    newest.unwrap()
}

#[tokio::test]
async fn a_check_is_held_approved_and_red_with_all_its_lines() {
    let town = Town::new(Face::Github).await;
    town.forge.install_app().await;
    town.forge.push("better", &[("train.py", "print(2)")]).await;
    town.forge.open_request("better", "Better", "ana").await;
    let server = town.server().await;
    let project = town.of_app();
    insert(&server, &project).await;
    let held = job(&town, &server, &project, true).await;
    let config = patient();
    let forges = server.forges.clone();
    let mut reporter = Reporter::new(server.store.clone(), forges, config);
    let mut now = Timestamp::now();
    settle(&mut reporter, &mut now).await;
    let shown = check(&town, "trainyard/lint");
    assert_eq!(shown.conclusion.as_deref(), Some("action_required"));
    assert_eq!(shown.external_id, held.id.to_string());
    let buttons: Vec<_> = shown
        .actions
        .iter()
        .map(|a| a["identifier"].clone())
        .collect();
    assert_eq!(buttons, ["approve", "cancel"]);

    let approved = step(&server, &held, Move::Approve).await;
    let queued = step(&server, &approved, Move::Unblock).await;
    settle(&mut reporter, &mut now).await;
    let waits = check(&town, "trainyard/lint");
    assert_eq!(
        (waits.status.as_str(), waits.conclusion.as_deref()),
        ("queued", None)
    );
    assert_ne!(waits.id, shown.id, "a run that has a conclusion is over");

    fail(&server, &project, &queued, 120).await;
    settle(&mut reporter, &mut now).await;
    let red = check(&town, "trainyard/lint");
    assert_eq!(
        (red.id, red.conclusion.as_deref()),
        (waits.id, Some("failure"))
    );
    let lines: Vec<u64> = red
        .annotations
        .iter()
        .map(|note| note["start_line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, (1..=120).collect::<Vec<_>>());
    let whole = check(&town, "trainyard");
    assert_eq!(whole.conclusion.as_deref(), Some("failure"));
    assert!(whole.external_id.parse::<JobId>().is_err());
    let seen = town.forge.seen();
    assert!(seen.statuses.is_empty(), "checks in the place of statuses");
    let comments = seen.on(1);
    assert_eq!(comments.len(), 1);
    assert!(
        comments[0]
            .text
            .contains("120 findings, 120 of them errors")
    );
    assert_eq!(town.forge.violations(), [""; 0]);

    // Where its row was lost, it is edited all the same.
    testing::forget_reports(&server.store).await;
    let forges = server.forges.clone();
    let mut reporter = Reporter::new(server.store.clone(), forges, patient());
    let runs = town.forge.seen().checks.len();
    settle(&mut reporter, &mut now).await;
    assert_eq!(town.forge.seen().on(1).len(), 1);
    assert_eq!(
        town.forge.seen().checks.len(),
        runs,
        "found again by its id"
    );
    let again = check(&town, "trainyard/lint");
    assert_eq!(
        (again.id, &again.annotations),
        (red.id, &red.annotations),
        "and given no line twice"
    );
    let edits = town.forge.calls().into_iter();
    let edits =
        edits.filter(|call| call.method == "PATCH" && call.path.ends_with(&red.id.to_string()));
    assert!(edits.count() > 1, "it was written again");
    assert_eq!(town.forge.violations(), [""; 0]);
}
