//! The first card of a job's page: what happened, whose it is, where, and what to do next.

use protocol::job::{Block, State};
use protocol::outcome::{CellPlace, Failure, LimitReached, Outcome, Owner};

/// The card's content. `detail` is HTML that was made from escaped text; all else is plain text.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub(super) headline: String,
    pub(super) place: Option<String>,
    pub(super) lines: Vec<String>,
    pub(super) hint: Option<String>,
    pub(super) command: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) links: Vec<Link>,
    pub(super) may_approve: bool,
    pub(super) may_cancel: bool,
    pub(super) may_retry: bool,
}

/// A link of the card.
#[derive(Debug, PartialEq)]
pub(super) struct Link {
    pub(super) href: String,
    pub(super) text: String,
}

/// What the card of a job in `state` says. `reason`: why it waits. `ansi` makes HTML of a tool's words.
pub(super) fn verdict(
    state: &State,
    job: &str,
    reason: Option<&str>,
    ansi: impl Fn(&str) -> String,
) -> Verdict {
    let waiting = |headline: &str, line: Option<String>| Verdict {
        headline: headline.to_owned(),
        lines: line.into_iter().collect(),
        may_cancel: true,
        ..Verdict::default()
    };
    match state {
        State::Blocked { on: Block::Needs } => waiting(
            "Waits for the jobs that it needs",
            reason.map(str::to_owned),
        ),
        State::Blocked {
            on: Block::Approval,
        } => Verdict {
            may_approve: true,
            ..waiting(
                "Waits for approval",
                Some("The commit comes from outside: a person looks at it first.".to_owned()),
            )
        },
        State::Blocked {
            on: Block::Equal { job },
        } => Verdict {
            links: vec![Link {
                href: format!("/jobs/{job}"),
                text: "That job".to_owned(),
            }],
            ..waiting(
                "An equal job is running; its result will stand for this one",
                None,
            )
        },
        State::Queued => waiting("Queued", reason.map(str::to_owned)),
        State::Leased { .. } => waiting("Given to an agent", None),
        State::Running { .. } => waiting("Running", None),
        State::Stopping { by, .. } => Verdict {
            may_cancel: false,
            ..waiting("Stopping", Some(format!("Asked by {by}.")))
        },
        State::Finished { outcome } => finished(outcome, job, ansi),
    }
}

fn finished(outcome: &Outcome, job: &str, ansi: impl Fn(&str) -> String) -> Verdict {
    let over = |headline: String| Verdict {
        headline,
        may_retry: true,
        ..Verdict::default()
    };
    match outcome {
        Outcome::Succeeded => over("Succeeded".to_owned()),
        Outcome::Reused { of } => Verdict {
            lines: vec!["Nothing that matters changed since an earlier success.".to_owned()],
            links: vec![Link {
                href: format!("/jobs/{of}"),
                text: "The result that it is equal to".to_owned(),
            }],
            ..over("Equal to an earlier result; nothing ran".to_owned())
        },
        Outcome::Skipped { why } => Verdict {
            lines: vec![why.clone()],
            ..over("Skipped".to_owned())
        },
        Outcome::Cancelled { by } => over(format!("Cancelled by {by}")),
        Outcome::Failed(failure) => Verdict {
            place: failure.cell.as_ref().map(place),
            lines: std::iter::once(failure.message.clone())
                .chain(failure.limit.as_ref().map(limit))
                .collect(),
            hint: failure.hint.clone(),
            command: Some(command(failure, job)),
            detail: failure.detail.as_deref().map(ansi),
            ..over(headline(failure).to_owned())
        },
    }
}

/// Whose failure it is, as a headline.
fn headline(failure: &Failure) -> &'static str {
    match failure.owner() {
        Owner::User => "Failed in the project's own code",
        Owner::Limit => "Ended by a limit",
        Owner::Platform => "Failed by the platform, not by this commit",
    }
}

/// `notebooks/train.ipynb, cell 4, line 7 (line 83 of the file)`.
pub(super) fn place(place: &CellPlace) -> String {
    let mut text = format!("{}, cell {}", place.path, place.index + 1);
    if let Some(line) = place.line {
        text += &format!(", line {line}");
    }
    if let Some(line) = place.raw_line {
        text += &format!(" (line {line} of the file)");
    }
    text
}

fn limit(limit: &LimitReached) -> String {
    match limit {
        LimitReached::Bytes {
            limit,
            used: Some(used),
        } => format!("Limit {limit}, used {used}."),
        LimitReached::Bytes { limit, used: None } => format!("Limit {limit}."),
        LimitReached::Time { limit } => format!("Limit {limit}."),
        LimitReached::Processes { limit } => format!("Limit {limit} processes and threads."),
    }
}

/// The one command to go on with.
fn command(failure: &Failure, job: &str) -> String {
    match failure.owner() {
        Owner::User => format!("trainyard debug {job}"),
        Owner::Limit | Owner::Platform => format!("trainyard retry {job}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::FailureKind;

    fn card(failure: Failure) -> Verdict {
        verdict(
            &State::Finished {
                outcome: Outcome::Failed(failure),
            },
            "j",
            None,
            str::to_owned,
        )
    }

    #[test]
    fn a_raising_cell_names_its_place() {
        let cell = CellPlace {
            path: "a.ipynb".into(),
            index: 3,
            line: Some(7),
            raw_line: Some(83),
        };
        let card = card(Failure::new(FailureKind::CellRaised, "KeyError: 'x'").cell(cell));
        assert_eq!(card.headline, "Failed in the project's own code");
        assert_eq!(
            card.place.as_deref(),
            Some("a.ipynb, cell 4, line 7 (line 83 of the file)")
        );
        assert_eq!(card.command.as_deref(), Some("trainyard debug j"));
    }

    #[test]
    fn a_platform_fault_is_worded_as_the_platforms() {
        let card = card(Failure::new(
            FailureKind::AgentLost,
            "gpu-3 was not seen for 10m00s",
        ));
        assert_eq!(card.headline, "Failed by the platform, not by this commit");
    }

    #[test]
    fn a_stopping_job_cannot_be_cancelled_again() {
        let attempt = protocol::AttemptId::generate();
        let state = State::Stopping {
            attempt,
            by: "ana".into(),
        };
        let card = verdict(&state, "j", None, str::to_owned);
        assert!(!card.may_cancel && !card.may_retry);
    }
}
