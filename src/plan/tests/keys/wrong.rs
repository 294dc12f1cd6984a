//! What is wrong in a file, or in what a person gives, and where.

use super::*;

#[test]
fn a_parameter_that_the_notebook_does_not_know_is_an_error_with_its_place() {
    let with = |text: &str| repository().with(".trainyard.yml", text);
    let text = "jobs:\n  train:\n    notebook: notebooks/train.ipynb\n    parameters: {epoch: 3}\n";
    assert_eq!(
        refused(&with(text)).to_string(),
        ".trainyard.yml:4:18: unknown parameter 'epoch'; did you mean 'epochs'? (notebooks/train.ipynb does not assign it in its \
         cell tagged 'parameters'; `unknown_parameters: allow` in the job, or --allow-unknown of `trainyard run`, lets it pass)"
    );
    let matrix = text.replace("parameters: {epoch: 3}", "matrix: {epoch: [3]}");
    let refused = refused(&with(&matrix)).to_string();
    assert!(
        refused.starts_with(".trainyard.yml:4:14: unknown parameter 'epoch'"),
        "{refused}"
    );
    // What only allows leaves the key alone.
    let known = text.replace("epoch:", "epochs:");
    let allow = "    unknown_parameters: allow\n";
    let key = |text: &str| planned(&with(text)).jobs[0].key.clone();
    assert_eq!(key(&format!("{known}{allow}")), key(&known));
    assert_ne!(key(&format!("{text}{allow}")), key(&known));
    let defaults = format!("defaults: {{unknown_parameters: allow}}\n{text}");
    assert_eq!(
        planned(&with(&defaults)).jobs[0].spec.parameters["epoch"],
        json!(3)
    );
    // Of a glob's notebooks one has to know it.
    let glob = |parameter: &str| {
        let job = "jobs:\n  all:\n    notebook: notebooks/*.ipynb\n    parameters: {";
        with(&format!("{job}{parameter}: 3}}\n"))
    };
    assert_eq!(planned(&glob("epochs")).jobs.len(), 2);
    let nobody = plan::plan(&glob("epoch"), &push(), &Context::default());
    assert!(
        nobody
            .unwrap_err()
            .to_string()
            .starts_with(".trainyard.yml:4:18: unknown parameter 'epoch'")
    );
    // A notebook that says nothing of its parameters takes any.
    let untagged = notebook(&["epochs = 1"], 0).replace("parameters", "other");
    planned(&with(text).with("notebooks/train.ipynb", untagged));
}

#[test]
fn a_persons_value_must_be_known_to_one_of_the_notebooks() {
    let text = "jobs:\n  prepare:\n    notebook: prepare.ipynb\n  train:\n    notebook: notebooks/train.ipynb\n    needs: [prepare]\n";
    let files = repository()
        .with(".trainyard.yml", text)
        .with("prepare.ipynb", notebook(&["rows = 1"], 0));
    let plan = |name: &str, context: &Context<'_>| {
        plan::plan(&files, &person(&["train"], json!({name: 3})), context)
    };
    let usual = Context::default();
    assert_eq!(plan("epochs", &usual).unwrap().jobs.len(), 2);
    assert_eq!(plan("rows", &usual).unwrap().jobs.len(), 2);
    let error = plan("row", &usual).unwrap_err().to_string();
    assert!(
        error.starts_with("unknown parameter 'row'; did you mean 'rows'? (prepare.ipynb"),
        "{error}"
    );
    let allow = Context {
        allow_unknown: true,
        ..usual
    };
    assert_eq!(plan("row", &allow).unwrap().jobs.len(), 2);
}

#[test]
fn a_value_of_another_type_is_said() {
    let text =
        "jobs:\n  train:\n    notebook: notebooks/train.ipynb\n    parameters: {epochs: many}\n";
    let plan = planned(&repository().with(".trainyard.yml", text));
    assert_eq!(
        plan.notes,
        ["train: parameter 'epochs' is given text, where the notebook has 'int'"]
    );
}

#[test]
fn what_is_not_there_is_named_with_its_place() {
    let with = |text: &str| repository().with(".trainyard.yml", text);
    assert_eq!(
        refused(&with("jobs:\n  t:\n    notebook: notebooks/trian.ipynb\n")).to_string(),
        ".trainyard.yml:3:15: there is no file 'notebooks/trian.ipynb'; did you mean 'notebooks/train.ipynb'?"
    );
    assert_eq!(
        refused(&with("jobs:\n  t:\n    notebook: nb/*.ipynb\n")).to_string(),
        ".trainyard.yml:3:15: no notebook matches 'nb/*.ipynb'"
    );
    assert_eq!(
        refused(&with("jobs:\n  t:\n    command: x\n    python: req.txt\n")).to_string(),
        ".trainyard.yml:4:13: there is no file 'req.txt'"
    );
    let broken = repository().with("notebooks/train.ipynb", "{\"cells\": [");
    assert!(
        matches!(refused(&broken), PlanError::Notebook { path, .. } if path == "notebooks/train.ipynb")
    );
}

#[test]
fn without_a_file_nothing_runs_and_init_is_named() {
    let error = refused(&repository().without(".trainyard.yml"));
    assert!(matches!(error, PlanError::NoFile));
    assert!(error.to_string().contains("trainyard init"));
}

#[test]
fn what_is_read_for_a_plan_has_a_bound_for_all_together() {
    const LARGE: u64 = 90 << 20;
    let names = ["a", "b", "c"].map(|name| format!("notebooks/{name}.ipynb"));
    let with = |text: &str, count: usize| {
        let mut files = repository().with(".trainyard.yml", text);
        for name in &names {
            files = files.with(name, notebook(&["epochs = 1"], 0));
        }
        let large = names.iter().take(count);
        large.fold(files, |files, name| files.sized(name, LARGE))
    };
    let sentence = "notebooks/c.ipynb: with it more than 256 MiB are read to plan: take the outputs out of the notebooks \
                    (`trainyard strip`), or let the jobs name fewer";
    let run = "jobs:\n  all:\n    notebook: notebooks/*.ipynb\n";
    assert_eq!(planned(&with(run, 2)).jobs.len(), 5);
    assert_eq!(refused(&with(run, 3)).to_string(), sentence);
    let deps = "jobs:\n  all:\n    command: make\n    deps: [notebooks/*.ipynb]\n";
    planned(&with(deps, 2));
    assert_eq!(refused(&with(deps, 3)).to_string(), sentence);
    // A file that several jobs have is read once.
    let shared = "defaults: {python: requirements.txt}\njobs:\n  all:\n    command: make ${n}\n    matrix: {n: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]}\n";
    let files = with(shared, 0).sized("requirements.txt", 20 << 20);
    assert_eq!(planned(&files).jobs.len(), 14);
}

#[test]
fn files_of_requirements_that_name_each_other_are_read_once() {
    let text = "defaults: {python: requirements.txt}\njobs:\n  go:\n    command: make\n";
    let files = repository().with(".trainyard.yml", text);
    let many = "-r base.txt\n".repeat(1_000);
    let around = files
        .clone()
        .with("requirements.txt", &many)
        .with("base.txt", "-r requirements.txt\n-r base.txt\n");
    assert!(planned(&around).jobs[0].lock.is_some());
    let lines: String = (0..60).map(|n| format!("-r {n}.txt\n")).collect();
    let wide = (0..60).fold(files.with("requirements.txt", lines), |files, n| {
        files.with(&format!("{n}.txt"), "numpy\n")
    });
    let refused = refused(&wide).to_string();
    assert!(
        refused.ends_with("'requirements.txt': more than 50 files of requirements"),
        "{refused}"
    );
}
