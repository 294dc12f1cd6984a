//! Golden tests: what people read under a pull request.

use protocol::event::Finding;
use protocol::outcome::CellPlace;
use protocol::report::BookedGpu;
use protocol::spec::{Goal, LintLevel, MetricSpec};
use protocol::{Failure, FailureKind, JobId, Outcome};
use std::collections::BTreeMap;

use super::super::desired::{ModelView, PipelineView, Reused};
use super::super::tests::{base, commit, ended, failed, job, metric, pipeline, report};
use super::*;

fn request(whole: PipelineView) -> RequestView {
    RequestView {
        number: 5,
        project: "hello".into(),
        commit: commit(whole),
        base: Some("1a2b3c4d00000000000000000000000000000000".parse().unwrap()),
        notebooks: None,
    }
}

/// The text, with short words for ids.
fn text(view: &RequestView) -> String {
    let update = comment(view);
    assert!(update.text.len() <= COMMENT_BYTES, "{}", update.text.len());
    let mut text = update.text;
    let whole = &view.commit.whole;
    text = text.replace(whole.id.as_str(), "P");
    for job in &whole.jobs {
        text = text.replace(job.id.as_str(), "J");
    }
    text.replace("https://ci.example.com", "ci:")
        // The joiner without width that keeps a sign and its word apart.
        .replace('\u{200b}', "¦")
}

fn accuracy(goal: Goal, max_regression: Option<f64>) -> BTreeMap<String, MetricSpec> {
    let spec = MetricSpec {
        goal,
        max_regression,
    };
    BTreeMap::from([("accuracy".to_owned(), spec)])
}

fn finding(n: u32) -> Finding {
    Finding {
        tool: "ruff".into(),
        level: if n == 2 {
            LintLevel::Error
        } else {
            LintLevel::Warn
        },
        path: "notebooks/train.ipynb".into(),
        cell: Some(n),
        code_cell: Some(n),
        line: Some(3),
        column: None,
        raw_line: Some(83),
        code: Some("F841".into()),
        message: "local variable `x` is assigned to but never used".into(),
        suggestion: None,
    }
}

#[test]
fn a_success_fits_a_phone() {
    let mut train = ended("train", Outcome::Succeeded);
    let mut ran = report(vec![metric("accuracy", 0.962)]);
    ran.setting.gpus = vec![BookedGpu {
        uuid: "GPU-1".into(),
        model: "NVIDIA A100-SXM4-80GB".into(),
    }];
    train.report = Some(ran);
    train.base = base(vec![metric("accuracy", 0.958)]);
    train.metrics = accuracy(Goal::Maximize, None);
    train.gpu_ms = 5_400_000;
    train.model = Some(ModelView {
        name: "churn".into(),
        version: None,
        id: "01jd".into(),
    });
    let mut view = request(pipeline(vec![train]));
    view.notebooks = Some("**`train.ipynb`**: 1 cell changed\n".into());
    assert_eq!(
        text(&view),
        r"### ✅ 1 job succeeded

| job | result |
| --- | --- |
| ✅ [train](ci:/jobs/J) | accuracy 0\.962 \(\+0\.004\) · 14 cells · 3m12s · 1×A100 |

**Metrics**

**train**, base `1a2b3c4d00`
- 🟢 **accuracy** 0.962 (base 0.958: +0.004)

**Models**

- [churn, candidate](ci:/models/churn/01jd)

<details><summary>Notebooks changed since 1a2b3c4d00</summary>

[On a page of its own](ci:/pipelines/P/notebooks)

**`train.ipynb`**: 1 cell changed

</details>

[Pipeline \#12](ci:/pipelines/P) · `6113728f27` · 1.5 GPU-hours
"
    );
}

#[test]
fn the_best_of_several_candidates_is_named() {
    let member = |lr: f64, now: f64| {
        let mut train = ended(&format!("train (lr={lr})"), Outcome::Succeeded);
        train.definition = "train".into();
        train.metrics = accuracy(Goal::Maximize, None);
        train.first_metric = Some("accuracy".into());
        train.report = Some(report(vec![metric("accuracy", now)]));
        train.model = Some(ModelView {
            name: "churn".into(),
            version: None,
            id: format!("c{lr}"),
        });
        train
    };
    let jobs = vec![
        member(0.1, 0.93),
        member(0.01, 0.97),
        member(0.001, f64::NAN),
    ];
    let text = text(&request(pipeline(jobs)));
    let best = "- [churn, candidate](ci:/models/churn/c0.01), the best of 2 by accuracy: 0\\.97\n";
    assert!(text.contains(best), "{text}");
    assert_eq!(text.matches("the best of").count(), 1, "{text}");
}

#[test]
fn seeds_are_one_line_and_a_regression_is_red() {
    let member = |seed: u64, lr: f64, now: f64| {
        let mut train = ended(&format!("train (lr={lr}, seed={seed})"), Outcome::Succeeded);
        train.definition = "train".into();
        train.parameters.insert("lr".into(), lr.into());
        train.parameters.insert("seed".into(), seed.into());
        train.metrics = accuracy(Goal::Maximize, Some(0.01));
        train.report = Some(report(vec![metric("accuracy", now)]));
        train.base = base(vec![metric("accuracy", 0.96 + 0.001 * seed as f64)]);
        train
    };
    let mut red = member(3, 0.1, 0.93);
    let failure = Failure::new(
        FailureKind::MetricRegressed,
        "accuracy is 0.93 and was 0.963 on the base branch; at most 0.01 worse is allowed",
    );
    red.state = State::Finished {
        outcome: Outcome::Failed(failure.hint("If that is meant, raise max_regression")),
    };
    let jobs = vec![
        member(1, 0.1, 0.962),
        member(2, 0.1, 0.961),
        red,
        member(1, 0.01, 0.97),
        member(2, 0.01, 0.97),
    ];
    assert_eq!(
        text(&request(pipeline(jobs))),
        r"### ❌ 1 of 5 jobs failed

| job | result |
| --- | --- |
| ✅ [train \(lr\=0\.1\, seed\=1\)](ci:/jobs/J) | accuracy 0\.962 \(\+0\.001\) · 14 cells · 3m12s |
| ✅ [train \(lr\=0\.1\, seed\=2\)](ci:/jobs/J) | accuracy 0\.961 \(\-0\.001\) · 14 cells · 3m12s |
| ❌ [train \(lr\=0\.1\, seed\=3\)](ci:/jobs/J) | **user**: accuracy is 0\.93 and was 0\.963 on the base branch\; at most 0\.01 worse is allowed\. If that is meant\, raise max\_regression |
| ✅ [train \(lr\=0\.01\, seed\=1\)](ci:/jobs/J) | accuracy 0\.97 \(\+0\.009\) · 14 cells · 3m12s |
| ✅ [train \(lr\=0\.01\, seed\=2\)](ci:/jobs/J) | accuracy 0\.97 \(\+0\.008\) · 14 cells · 3m12s |

**Metrics**

**train \(lr\=0\.1\)** over 3 seeds, base `1a2b3c4d00`
- 🔴 **accuracy** 0.951 ± 0.0182 (base 0.962 ± 0.001: -0.011), regressed in 1 of 3; at most 0.01 worse is allowed; owner: user

**train \(lr\=0\.01\)** over 2 seeds, base `1a2b3c4d00`
- 🟢 **accuracy** 0.97 ± 0 (base 0.9615 ± 0.0007: +0.0085)

**train \(lr\=0\.1\, seed\=3\)** failed. To go on: `trainyard debug J`

[Pipeline \#12](ci:/pipelines/P) · `6113728f27`
"
    );
}

#[test]
fn what_failed_says_whose_it_is_and_how_to_go_on() {
    let mut lint = ended("lint", Outcome::Succeeded);
    lint.findings = (1..=3).map(finding).collect();
    let cell = CellPlace {
        path: "notebooks/train.ipynb".into(),
        index: 4,
        line: Some(3),
        raw_line: Some(83),
    };
    let mut failure = Failure::new(FailureKind::CellRaised, "KeyError: 'x'").cell(cell);
    failure.detail = Some("\u{1b}[31mKeyError\u{1b}[0m: 'x'\n  line 3".into());
    let lost = Failure::new(FailureKind::AgentLost, "gpu-3 was not seen for 10m00s");
    let mut same = ended(
        "eval",
        Outcome::Reused {
            of: JobId::generate(),
        },
    );
    same.reused = Some(Reused {
        of: same.id.clone(),
        commit: "a".repeat(40).parse().unwrap(),
        number: 9,
        metrics: vec![metric("accuracy", 0.958)],
    });
    let mut queued = job("big", State::Queued);
    queued.reason = Some("needs 4 GPUs; gpu-3 has 1 free; it starts about 14:20".into());
    let jobs = vec![
        lint,
        failed("train", failure),
        failed("far", lost),
        same,
        queued,
    ];
    assert_eq!(
        text(&request(pipeline(jobs))),
        r"### ❌ 1 of 5 jobs failed

| job | result |
| --- | --- |
| ✅ [lint](ci:/jobs/J) | succeeded |
| ❌ [train](ci:/jobs/J) | **user**: train\.ipynb cell 5 line 3\: KeyError\: \'x\' |
| ⚠️ [far](ci:/jobs/J) | **platform**, not this commit: gpu\-3 was not seen for 10m00s |
| ♻️ [eval](ci:/jobs/J) | equal to aaaaaaaaaa \(\#¦9\) · accuracy 0\.958 · nothing had to run · [that result](ci:/jobs/J) |
| ⏳ [big](ci:/jobs/J) | queued\: needs 4 GPUs\; gpu\-3 has 1 free\; it starts about 14\:¦20 |

**train** failed. To go on: `trainyard debug J`

<details><summary>what it said</summary>

```
KeyError: 'x'
  line 3
```

</details>

**far** failed. To go on: `trainyard retry J`

<details><summary>3 findings, 1 of them errors</summary>

- ❌ `notebooks/train.ipynb` cell 2 line 3: F841 local variable \`x\` is assigned to but never used
- ⚠️ `notebooks/train.ipynb` cell 1 line 3: F841 local variable \`x\` is assigned to but never used
- ⚠️ `notebooks/train.ipynb` cell 3 line 3: F841 local variable \`x\` is assigned to but never used

</details>

[Pipeline \#12](ci:/pipelines/P) · `6113728f27`
"
    );
}

#[test]
fn a_fork_says_how_it_is_approved() {
    let on = Block::Approval;
    let held = job("train", State::Blocked { on });
    assert_eq!(
        text(&request(pipeline(vec![held]))),
        r"### ⏳ Waits for an approval

The commit comes from a fork. Nothing of it runs before somebody who may write here has looked at it: comment `/trainyard approve 6113728f27ae82c7b1a177c8d03f9e96e0adf246`, or press *Approve* on [its page](ci:/jobs/J). It then runs without secrets, network and private volumes. A further push is to be approved anew.

| job | result |
| --- | --- |
| 🔒 [train](ci:/jobs/J) | waits for an approval\: the commit is from a fork |

[Pipeline \#12](ci:/pipelines/P) · `6113728f27`
"
    );
}

#[test]
fn the_largest_one_is_cut_behind_whole_things() {
    let long = "word|word ".repeat(40);
    let mut jobs: Vec<JobView> = (0..300)
        .map(|n| {
            let mut failure = Failure::new(FailureKind::CommandFailed, long.clone());
            failure.detail = Some("```\n".repeat(5_000));
            failed(&format!("job {n} {long}"), failure)
        })
        .collect();
    let mut lint = ended("lint", Outcome::Succeeded);
    lint.findings = (0..5_000).map(finding).collect();
    jobs.push(lint);
    let mut view = request(pipeline(jobs));
    let cell =
        "<details><summary>cell 1 changed</summary>\n\n```diff\n+</details>\n```\n\n</details>\n\n";
    view.notebooks = Some(cell.repeat(500));
    let text = text(&view);
    assert!(text.len() > 40_000, "{}", text.len());
    let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(lines("<details>"), lines("</details>"));
    assert_eq!(lines("```") % 2, 0);
    assert!(text.contains("jobs more](ci:/pipelines/P) |"), "{text}");
    assert!(text.contains("- [and 4950 more](ci:/jobs/J)"));
    assert!(text.contains("The rest has no room here."));
    assert!(text.ends_with("[Pipeline \\#12](ci:/pipelines/P) · `6113728f27`\n"));
}

#[test]
fn foreign_words_are_shown_and_nothing_happens() {
    let nasty = "@everyone [x](javascript:1) <img src=x> <!-- a --> #1 | `b` \n# h\u{202e}";
    let mut failure = Failure::new(FailureKind::CommandFailed, nasty);
    failure.detail = Some(format!("```\n</details>\n{nasty}"));
    let mut train = failed(nasty, failure);
    train.parameters.insert(nasty.into(), nasty.into());
    let mut lint = ended("lint", Outcome::Succeeded);
    lint.findings = vec![Finding {
        path: nasty.into(),
        message: nasty.into(),
        code: Some(nasty.into()),
        ..finding(1)
    }];
    let mut eval = ended("eval", Outcome::Succeeded);
    eval.report = Some(report(vec![metric(nasty, 1.0)]));
    let text = text(&request(pipeline(vec![train, lint, eval])));
    let mut options = comrak::Options::default();
    options.extension.table = true;
    options.extension.autolink = true;
    options.render.r#unsafe = true;
    let html = comrak::markdown_to_html(&text, &options);
    for bad in ["<img", "<!--", "javascript:1\"", "<h1", "\u{202e}"] {
        assert!(!html.contains(bad), "{bad} in {html}");
    }
    let outside_code: String = html.split("<code").skip(1).fold(
        html.split("<code").next().unwrap_or_default().to_owned(),
        |all, part| all + part.split_once("</code>").map_or("", |(_, rest)| rest),
    );
    assert!(!outside_code.contains("@everyone"), "{outside_code}");
}

#[test]
fn nothing_to_say_is_said_as_nothing() {
    let mut none = pipeline(Vec::new());
    none.nothing = Some("no .trainyard.yml".into());
    let view = request(none.clone());
    assert!(view.says_nothing());
    assert!(text(&view).starts_with("### ⚪ Nothing to run\n\nno \\.trainyard\\.yml\n"));
    none.problem = Some(Failure::new(
        FailureKind::PipelineFileWrong,
        ".trainyard.yml:1:1: x",
    ));
    let view = request(none);
    assert!(!view.says_nothing());
    assert!(text(&view).starts_with("### ❌ Nothing could be planned\n\n**user**: "));
}
