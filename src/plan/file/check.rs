//! What the types alone cannot hold: names, cycles, placeholders, limits, and what is not yet supported.

use protocol::Span;
use protocol::registry::{ModelRef, valid_model};
use protocol::spec::LintTool;
use serde_saphyr::{Location, Spanned};

use super::error::{FileError, nearest, unknown};
use super::scalar::{Duration, Image, Table, Word, check_glob};
use super::types::{Job, PipelineFile};
use super::wants;
use super::{LINT, LINT_TOOLS, MAX_DEFINITIONS, MAX_LINT_TOOLS, MAX_MATRIX};
use crate::globs::is_glob;
use crate::placeholders::placeholders;

/// Most further attempts.
const MAX_RETRIES: u32 = 10;
/// Longest grace of a job that is stopped.
const MAX_GRACE: Span = Span::hours(1);
/// Most items of a list in a job.
const MAX_ITEMS: usize = 200;

pub(super) type Checked = Result<(), FileError>;

/// Everything, in the order of the file.
pub(super) fn file(file: &PipelineFile) -> Checked {
    let names: Vec<&str> = file.jobs.names().collect();
    if let Some((extra, _)) = file.jobs.0.get(MAX_DEFINITIONS) {
        let message = format!("more than {MAX_DEFINITIONS} jobs");
        return Err(FileError::at(extra.referenced, message));
    }
    if names.is_empty() {
        return Err(FileError::whole("'jobs' has no job"));
    }
    let defaults = &file.defaults;
    image(defaults.image.as_ref())?;
    python(defaults.python.as_ref())?;
    wants::resources(defaults.resources.as_ref())?;
    grace(defaults.grace.as_ref())?;
    env(defaults.env.as_ref())?;
    secrets(defaults.secrets.as_deref().unwrap_or_default())?;
    lint(file)?;
    for (name, definition) in &file.jobs.0 {
        job_name(name)?;
        job(name, &definition.value, &names)?;
        retries(name, definition.value.retries.or(defaults.retries))?;
        wants::gpu_idle(&definition.value, defaults)?;
    }
    cycles(file)
}

fn lint(file: &PipelineFile) -> Checked {
    if let Some(extra) = file.lint.get(MAX_LINT_TOOLS) {
        let message = format!("'lint' has more than {MAX_LINT_TOOLS} tools");
        return wrong(extra.referenced, message);
    }
    let mut seen = Vec::new();
    for entry in &file.lint {
        let fault = entry.value.fault.clone();
        let through = format!("{{nbqa: {}}}", entry.value.tool.tool);
        if let Some(fault) = fault.or_else(|| lint_tool(&entry.value.tool, &through)) {
            return wrong(entry.referenced, fault);
        }
        let name = entry.value.tool.name();
        if seen.contains(&name) {
            return wrong(
                entry.referenced,
                format!("'{name}' stands in 'lint' a second time"),
            );
        }
        seen.push(name);
    }
    Ok(())
}

/// What is wrong with the name of a lint tool. `through` is how one says here that nbQA is to run it.
pub(crate) fn lint_tool(tool: &LintTool, through: &str) -> Option<String> {
    let name = tool.tool.as_str();
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !begins || name.len() > 64 || !name.chars().all(good) {
        return Some(format!("'{}' is not the name of a lint tool", cut(name)));
    }
    let formats =
        name == "ruff-format" || name == "ruff" && tool.args.iter().any(|arg| arg == "format");
    if tool.nbqa && formats {
        return Some("ruff formats notebooks itself: write 'ruff-format'".to_owned());
    }
    // A word that is nearly a known tool's is a slip of the pen, unless somebody says that it is not.
    let slip = !tool.nbqa && !LINT_TOOLS.contains(&name);
    slip.then(|| nearest(name, &LINT_TOOLS)).flatten().map(|near| {
        format!("unknown lint tool '{name}'; did you mean '{near}'? Another tool is run by {through}")
    })
}

fn job_name(name: &Spanned<String>) -> Checked {
    let text = name.value.as_str();
    let first = text
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if text == LINT {
        return wrong(
            name.referenced,
            "'lint' is the name of Trainyard's own job: choose another, or list tools under the key 'lint' at the top",
        );
    }
    if !first || !rest || text.len() > 64 {
        return wrong(
            name.referenced,
            format!(
                "'{}' is not a name of a job: letters, digits, '-', '_' and '.', at most 64",
                cut(text)
            ),
        );
    }
    Ok(())
}

fn job(name: &Spanned<String>, job: &Job, names: &[&str]) -> Checked {
    work(name, job)?;
    image(job.image.as_ref())?;
    python(job.python.as_ref())?;
    wants::resources(job.resources.as_ref())?;
    wants::volumes(job.volumes.as_ref())?;
    wants::turn(job)?;
    grace(job.grace.as_ref())?;
    env(job.env.as_ref())?;
    secrets(job.secrets.as_deref().unwrap_or_default())?;
    for (list, key) in [
        (job.deps.as_deref().unwrap_or_default(), "deps"),
        (&job.artifacts, "artifacts"),
    ] {
        bounded(list, key)?;
        for glob in list {
            check_glob(&glob.value.0).map_err(|reason| FileError::at(glob.referenced, reason))?;
        }
    }
    bounded(&job.needs, "needs")?;
    for (n, need) in job.needs.iter().enumerate() {
        let wanted = need.value.0.as_str();
        if wanted == name.value {
            return wrong(need.referenced, format!("'{wanted}' needs itself"));
        }
        if wanted == LINT {
            return wrong(
                need.referenced,
                "every job waits for lint: 'needs' must not name it",
            );
        }
        if !names.contains(&wanted) {
            return wrong(need.referenced, unknown("job", wanted, names));
        }
        if job.needs[..n]
            .iter()
            .any(|earlier| earlier.value == need.value)
        {
            return wrong(
                need.referenced,
                format!("'{wanted}' stands in 'needs' a second time"),
            );
        }
    }
    parameters(job)?;
    model(job)?;
    for (name, metric) in &job.metrics.0 {
        if let Some(limit) = &metric.value.max_regression
            && (!limit.value.is_finite() || limit.value < 0.0)
        {
            let message = format!(
                "'max_regression' of '{}' must not be negative",
                cut(&name.value)
            );
            return wrong(limit.referenced, message);
        }
    }
    Ok(())
}

fn work(name: &Spanned<String>, job: &Job) -> Checked {
    match (&job.notebook, &job.command) {
        (None, None) => {
            let message = format!("job '{}' needs a 'notebook' or a 'command'", name.value);
            wrong(name.referenced, message)
        }
        (Some(_), Some(command)) => wrong(
            command.referenced,
            format!(
                "job '{}' has a 'notebook' and a 'command': it can have one of them",
                name.value
            ),
        ),
        (Some(path), None) if is_glob(&path.value.0) => check_glob(&path.value.0)
            .map(drop)
            .map_err(|reason| FileError::at(path.referenced, reason)),
        (Some(path), None) => relative(path, "notebook"),
        (None, Some(command)) if command.value.0.trim().is_empty() => {
            wrong(command.referenced, "the command is empty")
        }
        (None, Some(_)) => Ok(()),
    }
}

fn image(image: Option<&Spanned<Image>>) -> Checked {
    match image {
        None => Ok(()),
        Some(image) => match &image.value {
            Image::Build(_) => wrong(image.referenced, not_yet("image: {build: …}")),
            Image::Name(name) => {
                let odd = |c: char| c.is_whitespace() || c.is_control();
                if name.is_empty() || name.starts_with('-') || name.contains(odd) {
                    let message = format!("'{}' is not the name of an image", cut(name));
                    return wrong(image.referenced, message);
                }
                Ok(())
            }
        },
    }
}

fn python(python: Option<&Spanned<Word>>) -> Checked {
    match python {
        Some(path) if path.value.0 != "none" => {
            relative(path, "python")?;
            if crate::inputs::python_source(&path.value.0).is_none() {
                return wrong(
                    path.referenced,
                    format!(
                        "'{}' says nothing about packages: use a requirements.txt, uv.lock, pyproject.toml, or a .py or .ipynb with a PEP 723 block",
                        cut(&path.value.0)
                    ),
                );
            }
            Ok(())
        }
        Some(_) | None => Ok(()),
    }
}

fn env(env: Option<&Table<Word>>) -> Checked {
    for (name, _) in env.iter().flat_map(|env| &env.0) {
        variable(&name.value, name.referenced)?;
    }
    Ok(())
}

fn secrets(secrets: &[Spanned<Word>]) -> Checked {
    bounded(secrets, "secrets")?;
    secrets
        .iter()
        .try_for_each(|secret| variable(&secret.value.0, secret.referenced))
}

fn variable(name: &str, at: Location) -> Checked {
    if !is_identifier(name) {
        return wrong(
            at,
            format!("'{}' is not the name of an environment variable", cut(name)),
        );
    }
    if name.starts_with("TRAINYARD_") {
        return wrong(
            at,
            format!(
                "'{}': names that begin with TRAINYARD_ are Trainyard's own",
                cut(name)
            ),
        );
    }
    Ok(())
}

fn parameters(job: &Job) -> Checked {
    let keys = job.parameters.0.iter().map(|(name, _)| name);
    for name in keys.chain(job.matrix.0.iter().map(|(name, _)| name)) {
        if !is_identifier(&name.value) {
            let message = format!("'{}' is not a name of a parameter", cut(&name.value));
            return wrong(name.referenced, message);
        }
    }
    let mut members = 1_usize;
    for (name, values) in &job.matrix.0 {
        if job.parameters.get(&name.value).is_some() {
            let message = format!("'{}' stands in 'parameters' and in 'matrix'", name.value);
            return wrong(name.referenced, message);
        }
        if values.value.is_empty() {
            return wrong(values.referenced, format!("'{}' has no values", name.value));
        }
        for (n, value) in values.value.iter().enumerate() {
            if value.is_array() || value.is_object() {
                return wrong(
                    values.referenced,
                    format!("the values of '{}' must be plain", name.value),
                );
            }
            if values.value[..n].contains(value) {
                return wrong(
                    values.referenced,
                    format!("'{}' has the value {value} twice", name.value),
                );
            }
        }
        members = members.saturating_mul(values.value.len());
        if members > MAX_MATRIX {
            return wrong(
                name.referenced,
                format!("the matrix has more than {MAX_MATRIX} jobs"),
            );
        }
    }
    if let Some(command) = &job.command {
        let known: Vec<&str> = job.parameters.names().chain(job.matrix.names()).collect();
        for placeholder in placeholders(&command.value.0) {
            if !known.contains(&placeholder) {
                let message = unknown("parameter", placeholder, &known);
                let hint = format!(
                    "{message} (a variable of the shell is written ${placeholder}, without braces)"
                );
                return wrong(command.referenced, hint);
            }
        }
    }
    Ok(())
}

fn model(job: &Job) -> Checked {
    let Some(model) = &job.model else {
        return Ok(());
    };
    let name = model.name.value.0.as_str();
    if !valid_model(name) {
        return wrong(
            model.name.referenced,
            format!(
                "'{}' is not a name of a model: letters, digits, '-', '_' and '.', at most 100",
                cut(name)
            ),
        );
    }
    if let Some(from) = &model.from
        && let Err(error) = from.value.0.parse::<ModelRef>()
    {
        return wrong(from.referenced, error.to_string());
    }
    relative(&model.path, "model.path")
}

/// A path that stays in the repository.
fn relative(path: &Spanned<Word>, key: &str) -> Checked {
    let text = path.value.0.as_str();
    let outside = text.starts_with('/') || text.split('/').any(|part| part == "..");
    if text.is_empty() || outside || text.contains('\0') {
        let message = format!(
            "'{key}' must be a path within the repository, not '{}'",
            cut(text)
        );
        return wrong(path.referenced, message);
    }
    Ok(())
}

fn grace(grace: Option<&Spanned<Duration>>) -> Checked {
    match grace {
        Some(long) if long.value.0 > MAX_GRACE => {
            wrong(long.referenced, format!("'grace' is more than {MAX_GRACE}"))
        }
        Some(_) | None => Ok(()),
    }
}

fn retries(name: &Spanned<String>, retries: Option<u32>) -> Checked {
    match retries {
        Some(n) if n > MAX_RETRIES => wrong(
            name.referenced,
            format!("'retries' of '{}' is more than {MAX_RETRIES}", name.value),
        ),
        Some(_) | None => Ok(()),
    }
}

fn bounded<T>(list: &[Spanned<T>], key: &str) -> Checked {
    match list.get(MAX_ITEMS) {
        Some(extra) => wrong(
            extra.referenced,
            format!("'{key}' has more than {MAX_ITEMS} items"),
        ),
        None => Ok(()),
    }
}

/// Finds a circle of `needs` and names it.
fn cycles(file: &PipelineFile) -> Checked {
    let mut done: Vec<&str> = Vec::new();
    for start in file.jobs.names() {
        let mut path = vec![start];
        visit(file, &mut path, &mut done)?;
    }
    Ok(())
}

fn visit<'a>(file: &'a PipelineFile, path: &mut Vec<&'a str>, done: &mut Vec<&'a str>) -> Checked {
    let Some(&name) = path.last() else {
        return Ok(());
    };
    if done.contains(&name) {
        return Ok(());
    }
    let needs = file.job(name).map_or(&[][..], |job| job.needs.as_slice());
    for need in needs {
        let next = need.value.0.as_str();
        if let Some(begin) = path.iter().position(|earlier| *earlier == next) {
            let circle = path[begin..].join(" needs ");
            return wrong(need.referenced, format!("a circle: {circle} needs {next}"));
        }
        path.push(next);
        visit(file, path, done)?;
        path.pop();
    }
    done.push(name);
    Ok(())
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.len() <= 128
}

fn not_yet(key: &str) -> String {
    format!("'{key}' is not yet supported: remove it")
}

pub(super) fn wrong(at: Location, message: impl Into<String>) -> Checked {
    Err(FileError::at(at, message))
}

pub(super) fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}
