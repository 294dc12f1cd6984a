//! What an administrator wants to be told, and where: `[[notify]]` of the configuration.

use std::collections::BTreeSet;

use plan::Globs;
use serde::Deserialize;

use super::address::{self, AddressError};
use super::story::{Event, Story};
use crate::credential::Credential;
use crate::names;

/// One receiver, and what it hears of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Rule {
    /// Tells it from the others; what was sent is remembered by it.
    pub name: String,
    /// Where messages go.
    pub url: Place,
    /// Where the key lies that signs them; none: they are not signed.
    pub secret: Option<Credential>,
    /// Globs of projects; empty: all.
    pub projects: Vec<String>,
    /// What is told.
    pub on: BTreeSet<On>,
    /// Globs of branches; empty: all, and what is on none.
    pub branches: Vec<String>,
    /// Whether pull requests are told of too, each as the branch that it goes to.
    pub pull_requests: bool,
    /// Whether the receiver may be in a private network, or on this host.
    pub private: bool,
}

/// The address of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// As it stands in the configuration.
    Plain(reqwest::Url),
    /// Where it lies: Slack's addresses are secrets themselves.
    Secret(Credential),
}

/// What may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// A schedule failed.
    ScheduleFailed,
    /// A schedule succeeded that failed before.
    ScheduleRecovered,
    /// A pipeline failed, whatever asked for it.
    Failed,
    /// A pipeline succeeded, and something of it failed before on the same branch.
    Recovered,
    /// A pipeline is over in which there was something to run.
    Finished,
}

/// A rule as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    url: String,
    secret: Option<Credential>,
    #[serde(default)]
    projects: Vec<String>,
    on: Option<BTreeSet<On>>,
    #[serde(default)]
    branches: Vec<String>,
    #[serde(default)]
    pull_requests: bool,
    #[serde(default)]
    private: bool,
}

impl TryFrom<Text> for Rule {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        names::check("receiver", &text.name).map_err(|error| error.to_string())?;
        for globs in [&text.projects, &text.branches] {
            Globs::new(globs.iter().map(String::as_str))?;
        }
        let url = match text.url.parse() {
            Ok(reference) => Place::Secret(reference),
            Err(_) => Place::Plain(
                address::read(&text.url, text.private)
                    .map_err(|error: AddressError| format!("'url' of '{}': {error}", text.name))?,
            ),
        };
        let usual = || [On::ScheduleFailed, On::ScheduleRecovered].into();
        Ok(Self {
            name: text.name,
            url,
            secret: text.secret,
            projects: text.projects,
            on: text.on.unwrap_or_else(usual),
            branches: text.branches,
            pull_requests: text.pull_requests,
            private: text.private,
        })
    }
}

impl Rule {
    /// Whether it is about a project.
    #[must_use]
    pub fn is_for(&self, project: &str) -> bool {
        self.projects.is_empty() || matches(&self.projects, project)
    }

    /// Whether anything may be told of a pipeline like this one.
    pub(super) fn may_tell(&self, story: &Story<'_>) -> bool {
        let of_branch = match story.branch {
            Some(branch) => matches(&self.branches, branch),
            None => false,
        };
        self.is_for(story.project)
            && (self.branches.is_empty() || of_branch)
            && (self.pull_requests || !story.of_request)
    }

    /// Whether this end of a pipeline is told.
    pub(super) fn tells(&self, story: &Story<'_>, event: Event) -> bool {
        let any = match event {
            Event::Failed => [On::Failed, On::ScheduleFailed],
            Event::Recovered => [On::Recovered, On::ScheduleRecovered],
            Event::Finished => [On::Finished, On::Finished],
        };
        let [always, scheduled] = any;
        self.on.contains(&always)
            || self.on.contains(&On::Finished)
            || (story.scheduled && self.on.contains(&scheduled))
    }
}

fn matches(globs: &[String], name: &str) -> bool {
    // They were looked at when the configuration was read.
    Globs::new(globs.iter().map(String::as_str)).is_ok_and(|globs| globs.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Rule, String> {
        toml::from_str::<Rule>(text).map_err(|error| error.message().to_owned())
    }

    fn story(branch: Option<&'static str>) -> Story<'static> {
        Story {
            project: "digits",
            branch,
            scheduled: true,
            of_request: false,
        }
    }

    #[test]
    fn by_default_schedules_that_fail_and_recover_are_told_of_all_projects() {
        let rule = read("name = 'team'\nurl = 'https://chat.example/x'").unwrap();
        let night = story(Some("main"));
        let push = Story {
            scheduled: false,
            ..night
        };
        assert!(rule.may_tell(&night) && rule.may_tell(&push));
        for (event, of_night, of_push) in [
            (Event::Failed, true, false),
            (Event::Recovered, true, false),
            (Event::Finished, false, false),
        ] {
            assert_eq!(rule.tells(&night, event), of_night, "{event:?}");
            assert_eq!(rule.tells(&push, event), of_push, "{event:?}");
        }
        let request = Story {
            of_request: true,
            ..night
        };
        assert!(!rule.may_tell(&request));
    }

    #[test]
    fn projects_and_branches_are_chosen_by_glob() {
        let rule = read(
            "name = 'team'\nurl = 'env:HOOK'\nprojects = ['dig*']\nbranches = ['main', 'release/**']\non = ['failed']",
        )
        .unwrap();
        for (branch, told) in [
            (Some("main"), true),
            (Some("release/a/b"), true),
            (Some("x"), false),
            (None, false),
        ] {
            assert_eq!(rule.may_tell(&story(branch)), told, "{branch:?}");
        }
        assert!(!rule.is_for("other"));
    }

    #[test]
    fn what_cannot_be_is_refused_in_words_that_hold_no_secret() {
        for (wrong, words) in [
            ("name = 'a b'\nurl = 'https://x.example/'", "a b"),
            (
                "name = 'a'\nurl = 'https://me:s3cret@x.example/'",
                "user or password",
            ),
            ("name = 'a'\nurl = 'http://x.example/s3cret'", "https"),
            (
                "name = 'a'\nurl = 'https://10.0.0.7/s3cret'",
                "private = true",
            ),
            ("name = 'a'\nurl = 's3cret'", "no address"),
            (
                "name = 'a'\nurl = 'https://x.example/'\nsecret = 's3cret'",
                "by reference",
            ),
            (
                "name = 'a'\nurl = 'https://x.example/'\nbranches = ['a[']",
                "not a glob",
            ),
            (
                "name = 'a'\nurl = 'https://x.example/'\non = ['sometimes']",
                "sometimes",
            ),
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(words), "{wrong}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
