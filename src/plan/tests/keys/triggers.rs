//! What a trigger starts, what people may give, and what an untrusted commit gets.

use super::*;

#[test]
fn each_trigger_starts_what_on_says() {
    let text = "\
jobs:
  always: {command: a}
  main: {command: b, on: {push: [main]}}
  reviews: {command: c, on: {pull_request: true}}
  nightly: {command: d, on: {schedule: '0 3 * * *'}, needs: [main]}
";
    let files = Files::default().with(".trainyard.yml", text);
    let run = |trigger| {
        let plan = plan::plan(&files, &trigger, &Context::default()).unwrap();
        names(&plan)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(run(push()), ["always", "main"]);
    assert_eq!(
        run(trigger(TriggerKind::Push, "refs/heads/feature/x")),
        ["always"]
    );
    assert!(run(trigger(TriggerKind::Push, "refs/tags/v1")).is_empty());
    assert_eq!(
        run(trigger(
            TriggerKind::PullRequest { number: 7 },
            "refs/pull/7/head"
        )),
        ["always", "reviews"]
    );
    let due = TriggerKind::Schedule {
        definitions: vec!["nightly".into(), "gone".into()],
    };
    assert_eq!(
        run(trigger(due, "refs/heads/main")),
        ["main", "nightly"],
        "with what it needs"
    );
    assert_eq!(run(person(&["reviews"], json!({}))), ["reviews"]);
    assert_eq!(run(person(&[], json!({}))).len(), 4);

    let plan = plan::plan(&files, &push(), &Context::default()).unwrap();
    let ignored: Vec<(&str, &str)> = plan
        .ignored
        .iter()
        .map(|i| (i.definition.as_str(), i.why.as_str()))
        .collect();
    assert_eq!(
        ignored,
        [
            ("reviews", "its 'on' names no pushes"),
            ("nightly", "its 'on' names no pushes")
        ]
    );
    let error = plan::plan(
        &files,
        &person(&["nightli"], json!({})),
        &Context::default(),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown job 'nightli'; did you mean 'nightly'?"
    );
}

#[test]
fn a_person_may_give_other_values() {
    let plan = plan::plan(
        &repository(),
        &person(&["train"], json!({"epochs": 3})),
        &Context::default(),
    )
    .unwrap();
    assert_eq!(job(&plan, "train").spec.parameters["epochs"], json!(3));
    assert_ne!(
        job(&plan, "train").key,
        job(&planned(&repository()), "train").key
    );
    let text = "jobs:\n  t: {command: 'x ${lr}', matrix: {lr: [1, 2]}}\n";
    let files = Files::default().with(".trainyard.yml", text);
    let plan = plan::plan(
        &files,
        &person(&["t"], json!({"lr": 5})),
        &Context::default(),
    )
    .unwrap();
    assert_eq!(names(&plan), ["t"], "one value stands for the whole matrix");
    let error = plan::plan(
        &files,
        &person(&["t"], json!({"lrr": 5})),
        &Context::default(),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown parameter 'lrr'; did you mean 'lr'?"
    );
}

#[test]
fn an_untrusted_commit_runs_the_base_branchs_file_without_secrets_and_network() {
    const WANTS: &str =
        "    secrets: [TOKEN]\n    checkout: {lfs: true, submodules: true}\n    parameters";
    let text = FILE.replacen("    parameters", WANTS, 1);
    let base = repository().with(".trainyard.yml", &text);
    let evil = base.clone().with(
        ".trainyard.yml",
        "jobs: {steal: {command: 'curl', secrets: [TOKEN]}}",
    );
    let mut request = trigger(TriggerKind::PullRequest { number: 7 }, "refs/pull/7/head");
    request.trust = Trust::Untrusted;
    assert!(matches!(
        plan::plan(&evil, &request, &Context::default()),
        Err(PlanError::Untrusted)
    ));
    let context = Context {
        base_file: Some(text.as_bytes()),
        ..Context::default()
    };
    let plan = plan::plan(&evil, &request, &context).unwrap();
    assert_eq!(names(&plan), ["lint", "train", "report"]);
    for planned in &plan.jobs {
        assert_eq!(
            (planned.trust, planned.spec.network),
            (Trust::Untrusted, Network::None)
        );
        assert!(planned.spec.secrets.is_empty() && !planned.spec.checkout.submodules);
    }
    assert!(job(&plan, "train").spec.checkout.lfs);
    // The key is what the file says: a trusted result of the same files may stand for it.
    assert_eq!(job(&plan, "train").key, job(&planned(&base), "train").key);
}

#[test]
fn a_notebook_runs_here_as_its_job_says_or_by_itself() {
    let here = |files: &Files, path: &str| {
        let given = json!({"epochs": 3}).as_object().unwrap().clone();
        let context = Context {
            allow_unknown: true, // the other notebook has no epochs
            ..Context::default()
        };
        plan::plan_notebook(files, path, &given, &context).unwrap()
    };
    let plan = here(&repository(), "./notebooks/train.ipynb");
    assert_eq!(names(&plan), ["train"]);
    let spec = &plan.jobs[0].spec;
    assert_eq!(
        (&spec.parameters["epochs"], spec.needs.len()),
        (&json!(3), 0)
    );
    assert!(spec.model.is_some());
    // No job names it: the defaults hold.
    let plan = here(&repository(), "notebooks/other.ipynb");
    assert_eq!(
        plan.jobs[0].spec.python,
        Some(PythonSource::Requirements("requirements.txt".into()))
    );
    // No file: requirements are looked for beside it.
    let bare = repository()
        .without(".trainyard.yml")
        .with("notebooks/requirements.txt", "numpy");
    let plan = here(&bare, "notebooks/other.ipynb");
    assert_eq!(
        plan.jobs[0].spec.python,
        Some(PythonSource::Requirements(
            "notebooks/requirements.txt".into()
        ))
    );
    let none = plan::plan_notebook(
        &bare,
        "none.ipynb",
        &Default::default(),
        &Context::default(),
    );
    assert!(
        none.unwrap_err()
            .to_string()
            .contains("there is no file 'none.ipynb'")
    );
}

/// The file names a notebook that does not take what its job gives it, one that is broken, and a sound one.
fn slips() -> Files {
    repository()
        .with(
            ".trainyard.yml",
            "lint: [ruff, mypy]\njobs:\n  slip: {notebook: notebooks/train.ipynb, parameters: {epoch: 3}}\n  \
             broken: {notebook: notebooks/broken.ipynb}\n  sound: {notebook: 'notebooks/o*.ipynb'}\n",
        )
        .with("notebooks/broken.ipynb", "{\"cells\": [")
}

#[test]
fn a_slip_in_a_job_keeps_no_other_notebook_from_running() {
    let files = slips();
    let definition = |path: &str| plan::definition_of(&files, path).unwrap();
    assert_eq!(
        definition("notebooks/other.ipynb").as_deref(),
        Some("sound")
    );
    assert_eq!(definition("notebooks/train.ipynb").as_deref(), Some("slip"));
    assert_eq!(definition("lonely.ipynb"), None);
    let run =
        |path: &str| plan::plan_notebook(&files, path, &Default::default(), &Context::default());
    assert_eq!(names(&run("notebooks/other.ipynb").unwrap()).len(), 1);
    assert!(
        run("notebooks/train.ipynb")
            .unwrap_err()
            .to_string()
            .contains("'epoch'")
    );
}

#[test]
fn lint_here_looks_at_every_notebook_that_a_job_names() {
    let spec = plan::lint_here(&slips(), "image").unwrap().unwrap();
    let Work::Lint { tools, notebooks } = &spec.work else {
        panic!("{:?}", spec.work);
    };
    assert_eq!((tools.len(), spec.image.as_str()), (2, "image"));
    assert_eq!(
        notebooks,
        &[
            "notebooks/broken.ipynb",
            "notebooks/other.ipynb",
            "notebooks/train.ipynb"
        ]
    );
    let bare = slips().with(".trainyard.yml", "jobs: {t: {command: x}}\n");
    assert_eq!(plan::lint_here(&bare, "image").unwrap(), None);
}

#[test]
fn verdicts_say_what_becomes_of_each_job() {
    let before = planned(&repository());
    let after = planned(&repository().with("report.py", "print(2)\n"));
    let decisions: Vec<_> = plan::verdicts(&after, Some(&before), "abc")
        .into_iter()
        .map(|v| (v.name, v.decision, v.why))
        .collect();
    let cached = || vec!["nothing that it depends on changed since abc".to_owned()];
    assert_eq!(
        decisions[0],
        ("lint".to_owned(), plan::Decision::Cached, cached())
    );
    assert_eq!(decisions[1].1, plan::Decision::Run);
    assert_eq!(decisions[1].2, ["report.py changed"]);
    let first = plan::verdicts(&after, None, "abc");
    assert!(first.iter().all(|v| v.decision == plan::Decision::Run));
}
