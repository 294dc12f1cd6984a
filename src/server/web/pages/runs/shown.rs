//! A run as all of its pages show it. Pure.

use std::collections::HashMap;

use protocol::Timestamp;

use super::super::words::{ago, iso, took};
use crate::store::overview::Place;
use crate::store::runs::{Run, RunStatus};

/// The tags that a run's heading and row are made of.
pub(super) const TAGS: [&str; 4] = [USER, COMMIT, JOB, PARENT];
const USER: &str = "mlflow.user";
const COMMIT: &str = "mlflow.source.git.commit";
const JOB: &str = "trainyard.job";
const PARENT: &str = "mlflow.parentRunId";
/// What people wrote of a run or an experiment.
pub(super) const NOTE: &str = "mlflow.note.content";
/// Digits of a commit that tell it from others.
const SHORT: usize = 10;
/// Most characters of a value in a table.
const CELL: usize = 60;
/// Most characters of a value in a hint.
const HINT: usize = 400;

/// A run's heading, and its row in a table.
pub(super) struct Heading {
    pub(super) id: String,
    pub(super) name: String,
    /// MLflow's word, in small letters.
    pub(super) status: &'static str,
    /// How the sheet colours it.
    pub(super) look: &'static str,
    pub(super) began: String,
    pub(super) began_at: String,
    pub(super) took: String,
    pub(super) deleted: bool,
    /// Whose it is.
    pub(super) by: String,
    pub(super) commit: String,
    pub(super) job: Option<String>,
    /// The run that it is within.
    pub(super) parent: Option<String>,
}

impl Heading {
    /// `tag` gives a tag of this run.
    pub(super) fn new(run: &Run, now: Timestamp, tag: impl Fn(&str) -> Option<String>) -> Self {
        let (status, look) = status(run.status);
        let by = match run.person.as_str() {
            "" => tag(USER).unwrap_or_default(),
            person => person.to_owned(),
        };
        let end = run.finished_at;
        let open = matches!(run.status, RunStatus::Running);
        Self {
            id: run.id.clone(),
            name: match run.name.as_str() {
                "" => run.id.chars().take(8).collect(),
                name => name.to_owned(),
            },
            status,
            look,
            began: ago(run.started_at, now),
            began_at: iso(run.started_at),
            took: match end.is_some() || open {
                true => took(Some(run.started_at), end, now),
                false => String::new(),
            },
            deleted: run.deleted_at.is_some(),
            // An author comes with an address: nobody has to read that in a table.
            by: by
                .split_once(" <")
                .map_or(by.as_str(), |(name, _)| name)
                .to_owned(),
            commit: tag(COMMIT)
                .map(|text| text.chars().take(SHORT).collect())
                .unwrap_or_default(),
            // Only this server sets that tag, on runs of jobs.
            job: tag(JOB).filter(|_| run.attempt.is_some()),
            parent: tag(PARENT).filter(|parent| is_id(parent)),
        }
    }
}

/// 32 hex digits.
pub(in super::super) fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn status(status: RunStatus) -> (&'static str, &'static str) {
    match status {
        RunStatus::Running => ("running", "running"),
        RunStatus::Scheduled => ("scheduled", ""),
        RunStatus::Finished => ("finished", "succeeded"),
        RunStatus::Failed => ("failed", "failed"),
        RunStatus::Killed => ("killed", ""),
    }
}

/// The tag of a run among those of several.
pub(super) fn tag_of(tags: &HashMap<Place, String>, run: &str, name: &str) -> Option<String> {
    tags.get(&(run.to_owned(), name.to_owned())).cloned()
}

/// A value in a table: short, and whole (within bounds) in its hint where it is longer.
pub(super) struct Cell {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) hint: Option<String>,
    pub(super) number: bool,
}

impl Cell {
    pub(super) fn text(name: &str, text: &str) -> Self {
        let short = cut(text, CELL);
        Self {
            name: name.to_owned(),
            hint: (short != text).then(|| cut(text, HINT)),
            text: short,
            number: false,
        }
    }

    pub(super) fn number(name: &str, value: Option<f64>) -> Self {
        let text = value.map_or_else(String::new, super::super::words::value);
        Self {
            name: name.to_owned(),
            hint: value.map(|v| v.to_string()).filter(|whole| *whole != text),
            text,
            number: true,
        }
    }
}

/// At most so many characters; what is cut ends with `…`.
pub(in super::super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
