//! Why a version counts, and why aliases point or pointed to it, in sentences. Pure.

use chrono::{DateTime, Utc};
use protocol::Timestamp;
use protocol::registry::{AliasChange, Version, VersionStatus};

/// The sentences: first on the version itself, then on the aliases that point to it, then on those that did. `history`
/// has the changes that touch it, newest first.
pub(super) fn why(version: &Version, history: &[AliasChange]) -> Vec<String> {
    let mut said = vec![counts(version)];
    for alias in &version.aliases {
        said.push(points(alias, version, history));
    }
    let mut gone: Vec<&str> = Vec::new();
    for change in history {
        let alias = change.alias.as_str();
        let left = change.previous == version.version && change.version != version.version;
        let still = version.aliases.iter().any(|now| now == alias);
        if left && !still && !gone.contains(&alias) {
            gone.push(alias);
            said.push(pointed(change));
        }
    }
    said
}

fn counts(version: &Version) -> String {
    let label = version.label();
    let because = version.because.as_deref();
    match (version.status, &version.promotion, &version.origin) {
        (_, Some(promotion), _) => {
            let before = because.map_or_else(String::new, |why| {
                format!(" Before, it was a candidate: {why}.")
            });
            let by = &promotion.by;
            let (why, at) = (reason(&promotion.why), moment(promotion.at));
            format!("It is {label} since {by} promoted it on {at}{why}.{before}")
        }
        (VersionStatus::Version, None, Some(_)) => {
            let because = because.unwrap_or("its job succeeded on the default branch");
            format!("It is {label} because {because}.")
        }
        (VersionStatus::Candidate, None, Some(_)) => {
            let because =
                because.unwrap_or("its job ran elsewhere than on the default branch alone");
            format!(
                "It is a candidate because {because}. It gets a number when somebody promotes it."
            )
        }
        (_, None, None) => format!(
            "It is {label} because a client of MLflow's registered it on {}.",
            moment(version.created_at)
        ),
    }
}

fn points(alias: &str, version: &Version, history: &[AliasChange]) -> String {
    let arrived =
        |change: &&AliasChange| change.alias == alias && change.version == version.version;
    let Some(change) = history.iter().find(arrived) else {
        return format!(
            "@{alias} points here; when it came is older than the history that is shown."
        );
    };
    let from = match change.previous {
        Some(number) if Some(number) != version.version => {
            format!("moved it from version {number}")
        }
        Some(_) | None => "set it".to_owned(),
    };
    let (by, at) = (&change.by, moment(change.at));
    format!(
        "@{alias} points here since {at}: {by} {from}{}.",
        reason(&change.why)
    )
}

fn pointed(change: &AliasChange) -> String {
    let (alias, by, at) = (&change.alias, &change.by, moment(change.at));
    let went = match change.version {
        Some(number) => format!("moved it to version {number}"),
        None => "took it away".to_owned(),
    };
    format!(
        "@{alias} pointed here until {at}: {by} {went}{}.",
        reason(&change.why)
    )
}

/// ` (better on the night set)`, or nothing.
fn reason(why: &str) -> String {
    match why.trim() {
        "" => String::new(),
        why => format!(" ({why})"),
    }
}

/// `2026-11-23 08:15 UTC`
fn moment(at: Timestamp) -> String {
    DateTime::<Utc>::from_timestamp_millis(at.0).map_or_else(
        || "a day beyond the calendar".to_owned(),
        |at| at.format("%Y-%m-%d %H:%M UTC").to_string(),
    )
}
