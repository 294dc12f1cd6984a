//! Values held against what a notebook offers: a name that it does not know, a value that its type does not take.

use notebook::Notebook;
use notebook::parameters::{names, offered};
use protocol::JobSpec;
use protocol::spec::Parameters;
use serde_json::Value;
use serde_saphyr::Location;

use crate::PlanError;
use crate::file::{FileError, Job, unknown};
use crate::planned::PlannedJob;

/// A name that a notebook does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stray {
    name: String,
    /// What is wrong, with the nearest name, and what lets it pass.
    sentence: String,
}

/// The names that the cell tagged `parameters` does not assign. Where there is none, or its language is not
/// looked at, no name is unknown.
fn strays(notebook: &Notebook, path: &str, given: &Parameters) -> Vec<Stray> {
    let Some(known) = names(notebook) else {
        return Vec::new();
    };
    let strange = given.keys().filter(|name| !known.contains(name));
    let stray = |name: &String| Stray {
        name: name.clone(),
        sentence: format!(
            "{} ({path} does not assign it in its cell tagged 'parameters'; `unknown_parameters: allow` in the job, \
             or --allow-unknown of `trainyard run`, lets it pass)",
            unknown("parameter", name, &known)
        ),
    };
    strange.map(stray).collect()
}

/// A name that a job's notebook does not know; that of another job may.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    stray: Stray,
    definition: String,
    /// Where the file says it; none: a person gave it.
    place: Option<Location>,
}

/// The names that a job's notebook does not know.
pub(crate) fn lost(job: &Job, spec: &JobSpec, notebook: &Notebook, path: &str) -> Vec<Lost> {
    let place = |name: &str| {
        let own = job.parameters.0.iter().map(|(name, _)| name);
        let mut all = own.chain(job.matrix.0.iter().map(|(name, _)| name));
        all.find(|key| key.value == name).map(|key| key.referenced)
    };
    let strays = strays(notebook, path, &spec.parameters).into_iter();
    let lost = strays.map(|stray| Lost {
        place: place(&stray.name),
        definition: spec.definition.clone(),
        stray,
    });
    lost.collect()
}

/// A value must have a name in one of the notebooks that are given it: those of its definition, where the
/// file says it, and all that run, where a person does.
pub(crate) fn check_lost(jobs: &[PlannedJob], all: &[Lost]) -> Result<(), PlanError> {
    for lost in all {
        let near = |definition: &str| lost.place.is_none() || definition == lost.definition;
        let given = jobs.iter().filter(|job| {
            near(&job.spec.definition) && job.spec.parameters.contains_key(&lost.stray.name)
        });
        let same = all
            .iter()
            .filter(|other| near(&other.definition) && other.stray.name == lost.stray.name);
        if same.count() == given.count() {
            let sentence = lost.stray.sentence.clone();
            return Err(match lost.place {
                Some(place) => FileError::at(place, sentence).into(),
                None => PlanError::Definition(sentence),
            });
        }
    }
    Ok(())
}

/// The values that do not fit the types that the notebook gives, as sentences.
pub(crate) fn mismatches(notebook: &Notebook, given: &Parameters) -> Vec<String> {
    let known = offered(notebook).unwrap_or_default();
    let wrong = known.iter().filter_map(|parameter| {
        let why = parameter.mismatch(given.get(&parameter.name)?)?;
        Some(format!("parameter '{}' is given {why}", parameter.name))
    });
    wrong.collect()
}

/// `NAME=VALUE` as people write it: a value of JSON, or Python's `True`, `False` and `None`; else it is text.
///
/// # Errors
/// A sentence that names the text.
pub fn written(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' is not NAME=VALUE"))?;
    if name.is_empty() {
        return Err(format!("'{text}' lacks the parameter's name: NAME=VALUE"));
    }
    let literal = match value {
        "True" => Some(Value::Bool(true)),
        "False" => Some(Value::Bool(false)),
        "None" => Some(Value::Null),
        other => serde_json::from_str(other).ok(),
    };
    Ok((name.to_owned(), literal.unwrap_or_else(|| value.into())))
}

/// Holds the values for a notebook that no job names against what it offers. What is doubtful comes back as
/// sentences.
///
/// # Errors
/// A name that it does not know, unless `allow_unknown`.
pub fn check_parameters(
    notebook: &Notebook,
    path: &str,
    given: &Parameters,
    allow_unknown: bool,
) -> Result<Vec<String>, PlanError> {
    let strays = strays(notebook, path, given).into_iter().next();
    match strays.filter(|_| !allow_unknown) {
        Some(stray) => Err(PlanError::Definition(stray.sentence)),
        None => Ok(mismatches(notebook, given)),
    }
}
