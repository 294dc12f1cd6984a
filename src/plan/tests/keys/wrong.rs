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
