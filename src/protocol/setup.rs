//! What the public API says of setting up a project: what became of its webhook, and whether all is well with it.

use serde::{Deserialize, Serialize};

use crate::api::Project;

/// A project that was just added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddedProject {
    /// The project.
    #[serde(flatten)]
    pub project: Project,
    /// How its forge will tell of pushes.
    #[serde(default)]
    pub webhook: Webhook,
}

/// How a forge tells of pushes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Webhook {
    /// Not at all: the remote is looked at.
    #[default]
    None,
    /// By a webhook that was made at the forge.
    Made {
        /// Where it leads.
        url: String,
    },
    /// By the one webhook of the GitHub App.
    App,
    /// By a webhook that a person has to make.
    ByHand {
        /// Why it was not made.
        why: String,
        /// The page at the forge.
        page: String,
        /// What belongs into it. A secret that was made up for it is shown here, once.
        fields: Vec<Field>,
    },
}

/// A field of a forge's page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name there.
    pub name: String,
    /// What to put into it.
    pub value: String,
}

/// What an examination of a project found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// One line each.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// How it stands.
    pub level: Level,
    /// What was looked at.
    pub name: String,
    /// What was found.
    pub found: String,
    /// What to do, where something is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Well.
    Ok,
    /// It works, and would work better otherwise.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    /// `ok`, `warn` or `fail`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}
