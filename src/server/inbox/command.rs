//! What somebody asks for in a comment: lines that begin with `/trainyard`. Pure.

use protocol::spec::Parameters;

/// What a command begins with.
const START: &str = "/trainyard";
/// What our own comments begin with: they command nothing.
const OURS: &str = "<!-- trainyard";
/// Most commands of one comment.
const MOST: usize = 5;
/// Said with every mistake.
const HELP: &str = "there are: rerun [JOB [NAME=VALUE…]], retry, cancel [JOB], approve [COMMIT]";

/// A command.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    /// Run at the request's head again: one definition, or all; with these values in the place of the file's.
    Rerun {
        /// The definition; none: all.
        job: Option<String>,
        /// Values.
        parameters: Parameters,
    },
    /// Run again what did not succeed.
    Retry,
    /// End what is not over: one definition's jobs, or all.
    Cancel {
        /// The definition; none: all.
        job: Option<String>,
    },
    /// Let the untrusted head run.
    Approve {
        /// The commit's id as whoever approves wrote it, whole or only its beginning; none: the head.
        commit: Option<String>,
    },
}

/// A line that begins as a command and is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; {HELP}")]
pub(super) struct NoCommand(String);

/// Whether what somebody said commands something, rightly or wrongly.
pub(super) fn is_meant(text: &str) -> bool {
    !text.contains(OURS) && !commands(text).is_ok_and(|commands| commands.is_empty())
}

/// The commands of a comment, in their order.
///
/// # Errors
/// [`NoCommand`] for the first line that is none; then nothing of the comment is done.
pub(super) fn commands(text: &str) -> Result<Vec<Command>, NoCommand> {
    let lines = text.lines().filter_map(|line| {
        let rest = line.trim().strip_prefix(START)?;
        // `/trainyards` is somebody else's.
        (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some(rest)
    });
    let lines: Vec<&str> = lines.take(MOST + 1).collect();
    if lines.len() > MOST {
        return Err(NoCommand(format!(
            "more than {MOST} commands in one comment"
        )));
    }
    lines.into_iter().map(command).collect()
}

fn command(line: &str) -> Result<Command, NoCommand> {
    let words = words(line)?;
    let Some((verb, rest)) = words.split_first() else {
        return Err(NoCommand("it says nothing to do".to_owned()));
    };
    let one = |rest: &[String]| match rest {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [_, more, ..] => Err(NoCommand(format!("'{verb}' has no use for '{more}'"))),
    };
    match verb.as_str() {
        "rerun" => rerun(rest),
        "retry" if rest.is_empty() => Ok(Command::Retry),
        "retry" => Err(NoCommand(format!("'retry' has no use for '{}'", rest[0]))),
        "cancel" => Ok(Command::Cancel { job: one(rest)? }),
        "approve" => match one(rest)? {
            Some(commit) if !is_commit(&commit) => {
                Err(NoCommand(format!("'{commit}' is no commit")))
            }
            commit => Ok(Command::Approve { commit }),
        },
        other => Err(NoCommand(format!("'{other}' is no command"))),
    }
}

/// `[JOB [NAME=VALUE…]]`.
fn rerun(words: &[String]) -> Result<Command, NoCommand> {
    let (job, values) = match words.split_first() {
        Some((first, rest)) if !first.contains('=') => (Some(first.clone()), rest),
        Some(_) | None => (None, words),
    };
    let mut parameters = Parameters::new();
    for word in values {
        let (name, value) = plan::written(word).map_err(NoCommand)?;
        if parameters.contains_key(&name) {
            return Err(NoCommand(format!("'{name}' stands there twice")));
        }
        parameters.insert(name, value);
    }
    if job.is_none() && !parameters.is_empty() {
        return Err(NoCommand(
            "values are for one job: name it first".to_owned(),
        ));
    }
    Ok(Command::Rerun { job, parameters })
}

/// What somebody may take for a commit's id: the beginning of one is answered with the whole.
fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Splits at blanks, but not within double quotes, which go; a backslash keeps what follows it.
fn words(line: &str) -> Result<Vec<String>, NoCommand> {
    shlex::split(line).ok_or_else(|| NoCommand("a quote is not closed".to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn one(text: &str) -> Command {
        let mut all = commands(text).unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn rerun(job: Option<&str>, parameters: Value) -> Command {
        Command::Rerun {
            job: job.map(str::to_owned),
            parameters: parameters.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn commands_are_lines_of_their_own() {
        for nothing in ["", "please /trainyard rerun", "/trainyards rerun", "/rerun"] {
            assert_eq!(commands(nothing), Ok(Vec::new()), "{nothing}");
        }
        let text = "Looks good.\r\n\r\n/trainyard approve 0123abc\r\n /trainyard retry\n";
        let commit = Some("0123abc".to_owned());
        assert_eq!(
            commands(text),
            Ok(vec![Command::Approve { commit }, Command::Retry])
        );
    }

    #[test]
    fn what_is_meant_may_be_wrong_and_what_we_say_ourselves_is_not() {
        for text in ["/trainyard retry", "Hm.\n/trainyard deploy"] {
            assert!(is_meant(text), "{text}");
        }
        let ours = "<!-- trainyard reply 1 -->\n/trainyard retry";
        for text in ["Hm.", "> /trainyard retry", ours] {
            assert!(!is_meant(text), "{text}");
        }
    }

    #[test]
    fn a_rerun_names_a_job_and_values() {
        assert_eq!(one("/trainyard rerun"), rerun(None, json!({})));
        assert_eq!(
            one("/trainyard  rerun\ttrain"),
            rerun(Some("train"), json!({}))
        );
        assert_eq!(
            one(r#"/trainyard rerun train lr=0.1 deep=true name="a b" tag=1e5x note=a=b"#),
            rerun(
                Some("train"),
                json!({"lr": 0.1, "deep": true, "name": "a b", "tag": "1e5x", "note": "a=b"})
            )
        );
        assert_eq!(one("/trainyard cancel"), Command::Cancel { job: None });
        let job = Some("train".to_owned());
        assert_eq!(one("/trainyard cancel train"), Command::Cancel { job });
    }

    #[test]
    fn what_is_none_is_said_with_what_there_is() {
        let many = "/trainyard retry\n".repeat(6);
        for (text, words) in [
            ("/trainyard", "it says nothing to do"),
            ("/trainyard deploy", "'deploy' is no command"),
            ("/trainyard rerun lr=1", "name it first"),
            ("/trainyard rerun train lr", "'lr' is not NAME=VALUE"),
            (
                "/trainyard rerun train =1",
                "'=1' lacks the parameter's name",
            ),
            ("/trainyard rerun train a=1 a=2", "'a' stands there twice"),
            ("/trainyard rerun train a=\"x", "a quote is not closed"),
            ("/trainyard retry train", "'retry' has no use for 'train'"),
            ("/trainyard cancel a b", "'cancel' has no use for 'b'"),
            ("/trainyard approve main", "'main' is no commit"),
            (many.as_str(), "more than 5 commands"),
        ] {
            let said = commands(text).unwrap_err().to_string();
            assert!(
                said.contains(words) && said.contains("there are: rerun"),
                "{said}"
            );
        }
    }
}
