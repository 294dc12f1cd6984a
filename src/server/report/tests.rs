//! Golden tests: what people read at the forge.

use std::collections::BTreeMap;

use protocol::event::Finding;
use protocol::job::{Block, State};
use protocol::outcome::CellPlace;
use protocol::report::{AttemptReport, MetricValue, Setting, Usage};
use protocol::spec::{Goal, LintLevel, MetricSpec, Parameters, Work};
use protocol::{AttemptId, Failure, FailureKind, JobId, Outcome, PipelineId, Span, Timestamp};

use super::*;
use crate::forge::Verdict;
use crate::store::registry::Base;

pub(super) const COMMIT: &str = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";

pub(super) fn metric(name: &str, value: f64) -> MetricValue {
    MetricValue {
        name: name.into(),
        value,
        step: 0,
    }
}

pub(super) fn report(metrics: Vec<MetricValue>) -> AttemptReport {
    AttemptReport {
        outcome: Outcome::Succeeded,
        withdrawn: None,
        started_at: Timestamp(0),
        finished_at: Timestamp(300_000),
        phases: BTreeMap::new(),
        artifacts: Vec::new(),
        metrics,
        params: BTreeMap::new(),
        setting: Setting::default(),
        usage: Usage {
            run_time: Span::secs(192),
            ..Usage::default()
        },
        cells_executed: 14,
        cells_total: 14,
    }
}

pub(super) fn job(name: &str, state: State) -> JobView {
    JobView {
        id: JobId::generate(),
        name: name.into(),
        definition: name.into(),
        work: Work::Command {
            text: "python train.py".into(),
        },
        parameters: Parameters::new(),
        state,
        reason: None,
        needs: Vec::new(),
        fault: None,
        report: None,
        reused: None,
        base: None,
        metrics: BTreeMap::new(),
        first_metric: None,
        unversioned: Vec::new(),
        findings: Vec::new(),
        model: None,
        gpu_ms: 0,
    }
}

pub(super) fn base(metrics: Vec<MetricValue>) -> Option<Base> {
    let commit = "1a2b3c4d00000000000000000000000000000000".parse().unwrap();
    Some(Base { commit, metrics })
}

pub(super) fn ended(name: &str, outcome: Outcome) -> JobView {
    job(name, State::Finished { outcome })
}

pub(super) fn failed(name: &str, failure: Failure) -> JobView {
    ended(name, Outcome::Failed(failure))
}

pub(super) fn pipeline(jobs: Vec<JobView>) -> PipelineView {
    PipelineView {
        branch: None,
        id: PipelineId::generate(),
        number: 12,
        problem: None,
        nothing: None,
        jobs,
    }
}

pub(super) fn commit(whole: PipelineView) -> CommitView {
    CommitView {
        commit: COMMIT.parse().unwrap(),
        whole,
        pages: Some("https://ci.example.com/".into()),
    }
}

/// One line a status: context, verdict, description.
fn shown(whole: PipelineView) -> String {
    let statuses = desired(&commit(whole), 140);
    for status in &statuses {
        assert!(status.description.chars().count() <= 140, "{status:?}");
    }
    statuses
        .iter()
        .map(|s| format!("{} {:?}: {}\n", s.context, s.verdict, s.description))
        .collect()
}

fn one(job: JobView) -> (Verdict, String) {
    let status = desired(&commit(pipeline(vec![job])), 140).remove(1);
    (status.verdict, status.description)
}

#[test]
fn a_success_says_what_matters() {
    let mut train = ended("train", Outcome::Succeeded);
    train.report = Some(report(vec![
        metric("accuracy", 0.962),
        metric("loss", 0.11),
    ]));
    train.base = base(vec![metric("accuracy", 0.958)]);
    let spec = MetricSpec {
        goal: Goal::Maximize,
        max_regression: None,
    };
    train.metrics = BTreeMap::from([("accuracy".to_owned(), spec)]);
    assert_eq!(
        shown(pipeline(vec![
            ended("lint", Outcome::Succeeded),
            train.clone()
        ])),
        "trainyard Success: 2 succeeded · train: accuracy 0.962 (+0.004) · 14 cells · 3m12s\n\
         trainyard/lint Success: succeeded\n\
         trainyard/train Success: accuracy 0.962 (+0.004) · 14 cells · 3m12s\n"
    );
    train.metrics.clear();
    train.base = base(vec![metric("accuracy", f64::NAN)]);
    train.unversioned = vec!["open network".into()];
    assert_eq!(
        one(train.clone()).1,
        "accuracy 0.962 · loss 0.11 · 14 cells · 3m12s · not versioned: open network"
    );
    train
        .unversioned
        .push("the image 'registry.example.com/team/trainer' is named without a digest".into());
    assert_eq!(
        one(train).1,
        "accuracy 0.962 · loss 0.11 · 14 cells · 3m12s · 2 inputs not versioned"
    );
}

#[test]
fn nothing_that_waits_is_silent() {
    let mut queued = job("train", State::Queued);
    queued.reason = Some("needs 2 GPUs with 40 GiB; gpu-3 has 1 free".into());
    assert_eq!(
        one(queued.clone()),
        (
            Verdict::Pending,
            "queued: needs 2 GPUs with 40 GiB; gpu-3 has 1 free".into()
        )
    );
    queued.reason = None;
    queued.fault = Some(Failure::new(
        FailureKind::AgentLost,
        "gpu-3 was not seen for 10m",
    ));
    assert_eq!(
        one(queued).1,
        "again after a platform fault (gpu-3 was not seen for 10m): waits for a host"
    );
    let mut blocked = job("train", State::Blocked { on: Block::Needs });
    assert_eq!(one(blocked.clone()).1, "waits for lint");
    blocked.needs = vec!["prepare".into(), "fetch".into()];
    assert_eq!(one(blocked).1, "waits for prepare, fetch");
    for (on, text) in [
        (
            Block::Approval,
            "waits for an approval: the commit is from a fork",
        ),
        (
            Block::Equal {
                job: JobId::generate(),
            },
            "an equal job is running; its result will stand for this one",
        ),
    ] {
        assert_eq!(
            one(job("train", State::Blocked { on })),
            (Verdict::Pending, text.into())
        );
    }
    let attempt = AttemptId::generate();
    for (state, verdict, text) in [
        (
            State::Leased {
                attempt: attempt.clone(),
            },
            Verdict::Pending,
            "starting",
        ),
        (
            State::Running {
                attempt: attempt.clone(),
                since: Timestamp(1),
            },
            Verdict::Running,
            "running",
        ),
        (
            State::Stopping {
                attempt,
                by: "ana".into(),
            },
            Verdict::Running,
            "being stopped: ana",
        ),
    ] {
        assert_eq!(one(job("train", state)), (verdict, text.into()));
    }
}

#[test]
fn a_reused_result_is_green_and_named() {
    let mut train = ended(
        "train",
        Outcome::Reused {
            of: JobId::generate(),
        },
    );
    assert_eq!(
        one(train.clone()).1,
        "equal to an earlier result; nothing had to run"
    );
    train.reused = Some(Reused {
        of: JobId::generate(),
        commit: "a".repeat(40).parse().unwrap(),
        number: 12,
        metrics: vec![metric("accuracy", 0.958)],
    });
    assert_eq!(
        shown(pipeline(vec![train.clone()])),
        "trainyard Success: equal to aaaaaaaaaa (#12) · accuracy 0.958 · nothing had to run\n\
         trainyard/train Success: equal to aaaaaaaaaa (#12) · accuracy 0.958 · nothing had to run\n"
    );
    let mut other = train.clone();
    other.name = "eval".into();
    let whole = shown(pipeline(vec![train, other]));
    assert!(
        whole.starts_with("trainyard Success: 2 equal to earlier results, nothing had to run\n"),
        "{whole}"
    );
}

#[test]
fn every_failure_names_its_owner() {
    let raised = Failure::new(
        FailureKind::CellRaised,
        "ValueError: \u{1b}[31mno such\ncolumn\u{1b}[0m",
    )
    .cell(CellPlace {
        path: "notebooks/train.ipynb".into(),
        index: 4,
        line: Some(3),
        raw_line: Some(91),
    });
    assert_eq!(
        one(failed("train", raised)),
        (
            Verdict::Failure,
            "train.ipynb cell 5 line 3: ValueError: no such column".into()
        )
    );
    let memory =
        Failure::new(FailureKind::OutOfMemory, "used 16 GiB of 16 GiB").hint("ask for 24GiB");
    assert_eq!(
        one(failed("train", memory)),
        (
            Verdict::Failure,
            "limit: used 16 GiB of 16 GiB. ask for 24GiB".into()
        )
    );
    let lost = Failure::new(FailureKind::AgentLost, "gpu-3 was not seen for 10m");
    assert_eq!(
        one(failed("train", lost)),
        (
            Verdict::Error,
            "platform fault, not the commit's: gpu-3 was not seen for 10m".into()
        )
    );
    let long = Failure::new(FailureKind::CommandFailed, "é".repeat(500));
    let (_, text) = one(failed("train", long));
    assert_eq!(text.chars().count(), 140);
    assert!(text.ends_with("é…"));
    for kind in FailureKind::ALL {
        let (verdict, _) = one(failed("train", Failure::new(*kind, "x")));
        assert_ne!(verdict, Verdict::Success, "{kind:?}");
    }
}

#[test]
fn never_a_false_green() {
    let red = Failure::new(FailureKind::LintFailed, "2 findings");
    let skipped = Outcome::Skipped {
        why: "lint failed".into(),
    };
    assert_eq!(
        shown(pipeline(vec![
            failed("lint", red.clone()),
            ended("train", skipped.clone())
        ])),
        "trainyard Failure: lint: 2 findings\n\
         trainyard/lint Failure: 2 findings\n\
         trainyard/train Cancelled: not run: lint failed\n"
    );
    let cancelled = Outcome::Cancelled {
        by: "a newer push".into(),
    };
    let whole = shown(pipeline(vec![
        ended("a", Outcome::Succeeded),
        ended("b", cancelled),
        ended("c", skipped),
    ]));
    assert!(
        whole.starts_with("trainyard Cancelled: b (and 1 more): cancelled by a newer push\n"),
        "{whole}"
    );
    let superseded = Outcome::Cancelled {
        by: "superseded by a newer commit".into(),
    };
    assert_eq!(
        one(ended("a", superseded)),
        (Verdict::Cancelled, "superseded by a newer commit".into())
    );
    let early = shown(pipeline(vec![failed("a", red), job("b", State::Queued)]));
    assert!(
        early.starts_with("trainyard Failure: a: 2 findings\n"),
        "red is said at once: {early}"
    );
    let half = shown(pipeline(vec![
        ended("a", Outcome::Succeeded),
        job("b", State::Queued),
    ]));
    assert!(
        half.starts_with("trainyard Pending: 1 of 2 jobs done\n"),
        "{half}"
    );
}

#[test]
fn a_commit_without_jobs_says_why() {
    let mut wrong = pipeline(Vec::new());
    wrong.problem = Some(Failure::new(
        FailureKind::PipelineFileWrong,
        ".trainyard.yml:7:5: unknown key 'notebok'; did you mean 'notebook'?",
    ));
    assert_eq!(
        shown(wrong),
        "trainyard Failure: .trainyard.yml:7:5: unknown key 'notebok'; did you mean 'notebook'?\n"
    );
    let mut none = pipeline(Vec::new());
    none.nothing = Some(
        "no .trainyard.yml at the root of the repository: `trainyard init` writes a first one"
            .into(),
    );
    assert_eq!(
        shown(none),
        "trainyard Neutral: no .trainyard.yml at the root of the repository: `trainyard init` writes a first one\n"
    );
    assert_eq!(
        shown(pipeline(Vec::new())),
        "trainyard Neutral: no job asks to run at this commit\n"
    );
}

#[test]
fn contexts_are_bounded_and_apart() {
    let succeeded = |name: &str| ended(name, Outcome::Succeeded);
    let statuses = desired(
        &commit(pipeline(vec![
            succeeded("train"),
            succeeded("Train"),
            succeeded(&"x".repeat(400)),
            succeeded(&("x".repeat(400) + "y")),
        ])),
        140,
    );
    let contexts: Vec<_> = statuses.iter().map(|s| s.context.as_str()).collect();
    assert_eq!(
        &contexts[..3],
        ["trainyard", "trainyard/train", "trainyard/Train ~2"]
    );
    assert!(
        contexts.iter().all(|c| c.chars().count() <= 255),
        "{contexts:?}"
    );
    assert!(contexts[4].ends_with("… ~2"), "{}", contexts[4]);
    let matrix = (0..300)
        .map(|n| succeeded(&format!("train (seed={n})")))
        .collect();
    let statuses = desired(&commit(pipeline(matrix)), 140);
    assert_eq!(statuses.len(), 100);
    assert_eq!(statuses[0].description, "300 succeeded");
}

/// One line a check: name, state, title, buttons, lines with sentences.
fn checked(jobs: Vec<JobView>) -> String {
    let mut out = String::new();
    for check in checks(&commit(pipeline(jobs))) {
        assert!(check.summary.len() <= 65_535 && !check.summary.is_empty());
        let buttons: Vec<&str> = check.buttons.iter().map(|button| button.word()).collect();
        let buttons = buttons.join(",");
        out += &format!(
            "{} {:?} [{buttons}] {}\n",
            check.name, check.state, check.title
        );
        for note in check.annotations {
            let level = if note.is_failure {
                "failure"
            } else {
                "warning"
            };
            let (path, line) = (note.path, note.line);
            out += &format!("  {path}:{line} {level} {}: {}\n", note.title, note.message);
        }
    }
    out
}

#[test]
fn a_check_says_what_follows() {
    let place = CellPlace {
        path: "notebooks/train.ipynb".into(),
        index: 4,
        line: Some(3),
        raw_line: Some(83),
    };
    let raised = Failure::new(FailureKind::CellRaised, "KeyError: 'x'").cell(place);
    let slow = Failure::new(FailureKind::CellTimeout, "cell 2 ran longer than 10m00s");
    let lost = Failure::new(FailureKind::AgentLost, "gpu-3 was not seen for 10m00s");
    let skipped = Outcome::Skipped {
        why: "train failed".into(),
    };
    assert_eq!(
        checked(vec![
            failed("train", raised),
            failed("slow", slow),
            failed("far", lost),
            ended("after", skipped),
            job("big", State::Queued),
        ]),
        "trainyard Failure [rerun] train (and 1 more): train.ipynb cell 5 line 3: KeyError: 'x'\n\
         trainyard/train Failure [rerun] train.ipynb cell 5 line 3: KeyError: 'x'\n  \
         notebooks/train.ipynb:83 failure train, cell 5: KeyError: 'x'\n\
         trainyard/slow TimedOut [rerun] limit: cell 2 ran longer than 10m00s\n\
         trainyard/far Failure [rerun] platform fault, not the commit's: gpu-3 was not seen for 10m00s\n\
         trainyard/after Cancelled [rerun] not run: train failed\n\
         trainyard/big Queued [cancel] queued: waits for a host\n"
    );
    let held = State::Blocked {
        on: Block::Approval,
    };
    assert_eq!(
        checked(vec![job("train", held)]),
        "trainyard ActionRequired [approve,cancel] waits for an approval: the commit is from a fork\n\
         trainyard/train ActionRequired [approve,cancel] waits for an approval: the commit is from a fork\n"
    );
    assert!(checked(Vec::new()).starts_with("trainyard Neutral [] no job asks"));
}

#[test]
fn findings_stand_at_lines_of_the_file_as_it_lies_in_git() {
    let finding = |path: &str, cell, line, raw_line| Finding {
        tool: "ruff".into(),
        level: LintLevel::Warn,
        path: path.into(),
        cell,
        code_cell: cell,
        line,
        column: None,
        raw_line,
        code: Some("F841".into()),
        message: "unused".into(),
        suggestion: None,
    };
    let mut lint = ended("lint", Outcome::Succeeded);
    lint.findings = vec![
        finding("a.ipynb", Some(5), Some(3), Some(83)),
        finding("a.ipynb", Some(5), Some(3), None),
        finding("a.py", None, Some(12), None),
        finding("b.ipynb", None, None, None),
    ];
    let shown = checked(vec![lint]);
    let lines: Vec<&str> = shown.lines().filter(|l| l.starts_with("  ")).collect();
    assert_eq!(
        lines,
        [
            "  a.ipynb:83 warning ruff F841: cell 5 line 3: unused",
            // A line of the cell is none of the file.
            "  a.ipynb:1 warning ruff F841: cell 5 line 3: unused",
            "  a.py:12 warning ruff F841: unused",
            "  b.ipynb:1 warning ruff F841: unused",
        ]
    );
}
