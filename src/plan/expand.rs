//! One definition, several jobs: a glob makes one for each notebook, a matrix one for each combination.

use protocol::spec::Parameters;
use serde_json::Value;

use crate::file::{FileError, Job, MAX_JOBS, nearest};
use crate::globs::{Globs, is_glob};
use crate::inputs::Inputs;

/// Longest name of a job; statuses and columns have little room.
const NAME_CHARS: usize = 120;

/// A job of a definition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) notebook: Option<String>,
    pub(crate) parameters: Parameters,
}

/// All jobs of a definition. `given` replaces values of the file.
pub(crate) fn members(
    name: &str,
    job: &Job,
    inputs: &Inputs<'_>,
    given: &Parameters,
) -> Result<Vec<Member>, FileError> {
    let notebooks = notebooks(job, inputs)?;
    let globbed = job
        .notebook
        .as_ref()
        .is_some_and(|path| is_glob(&path.value.0));
    let mut members: Vec<Member> = Vec::new();
    for notebook in notebooks {
        for combination in combinations(job, given) {
            let mut parts = Vec::new();
            if globbed {
                parts.extend(notebook.clone());
            }
            parts.extend(
                combination
                    .iter()
                    .map(|(key, value)| format!("{key}={}", short(value))),
            );
            let mut parameters = Parameters::new();
            for (key, value) in job.parameters.iter() {
                parameters.insert(key.to_owned(), value.clone());
            }
            parameters.extend(combination);
            parameters.extend(given.clone());
            let full = if parts.is_empty() {
                name.to_owned()
            } else {
                format!("{name} ({})", parts.join(", "))
            };
            let name = unique(&full, &members);
            members.push(Member {
                name,
                notebook: notebook.clone(),
                parameters,
            });
            if members.len() > MAX_JOBS {
                return Err(FileError::whole(format!(
                    "'{name}' makes more than {MAX_JOBS} jobs",
                    name = name_of(&full)
                )));
            }
        }
    }
    Ok(members)
}

fn name_of(full: &str) -> &str {
    full.split(' ').next().unwrap_or(full)
}

/// The notebooks of a definition; one `None` for a command.
fn notebooks(job: &Job, inputs: &Inputs<'_>) -> Result<Vec<Option<String>>, FileError> {
    let Some(path) = &job.notebook else {
        return Ok(vec![None]);
    };
    let text = path.value.0.strip_prefix("./").unwrap_or(&path.value.0);
    let all: Vec<&str> = inputs
        .tree()
        .files()
        .iter()
        .map(|f| f.path.as_str())
        .collect();
    let candidates: Vec<&str> = all
        .into_iter()
        .filter(|path| path.ends_with(".ipynb") && !path.contains(".ipynb_checkpoints/"))
        .collect();
    if is_glob(text) && inputs.tree().get(text).is_none() {
        let globs = Globs::new([text]).map_err(|reason| FileError::at(path.referenced, reason))?;
        let found = candidates
            .iter()
            .filter(|candidate| globs.matches(candidate));
        let found: Vec<Option<String>> = found.map(|path| Some((*path).to_owned())).collect();
        if found.is_empty() {
            return Err(FileError::at(
                path.referenced,
                format!("no notebook matches '{text}'"),
            ));
        }
        return Ok(found);
    }
    if inputs.tree().get(text).is_none() {
        let hint = nearest(text, &candidates).or_else(|| {
            candidates
                .iter()
                .copied()
                .find(|c| c.ends_with(&format!("/{text}")))
        });
        let hint = hint
            .map(|near| format!("; did you mean '{near}'?"))
            .unwrap_or_default();
        return Err(FileError::at(
            path.referenced,
            format!("there is no file '{text}'{hint}"),
        ));
    }
    Ok(vec![Some(text.to_owned())])
}

/// The combinations of a matrix, the last key fastest; one empty for none. A value that is given
/// replaces all of a key's.
fn combinations(job: &Job, given: &Parameters) -> Vec<Parameters> {
    let mut all = vec![Parameters::new()];
    for (key, values) in job
        .matrix
        .iter()
        .filter(|(key, _)| !given.contains_key(*key))
    {
        let with = |base: &Parameters, value: &Value| {
            let mut next = base.clone();
            next.insert(key.to_owned(), value.clone());
            next
        };
        all = all
            .iter()
            .flat_map(|base| values.iter().map(|value| with(base, value)))
            .collect();
    }
    all
}

fn short(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    };
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(40).collect()
}

/// The name itself, or shortened and numbered where it is long or taken.
fn unique(name: &str, members: &[Member]) -> String {
    let cut: String = name.chars().take(NAME_CHARS).collect();
    if !members.iter().any(|member| member.name == cut) {
        return cut;
    }
    format!("{cut} #{}", members.len() + 1)
}
