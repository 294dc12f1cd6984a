//! What `uv` means when it fails: whose fault it is. It runs nothing.

use protocol::{Failure, FailureKind};

/// Words of a package index (or the way to it) that does not answer. uv's own chain of causes has them.
const UNREACHABLE: [&str; 12] = [
    "error sending request",
    "client error (Connect)",
    "tcp connect error",
    "dns error",
    "operation timed out",
    "connection closed before",
    "connection reset",
    "HTTP status server error",
    "HTTP status client error (429",
    "error decoding response body",
    "invalid peer certificate",
    "tls handshake",
];

/// The failure behind uv's words. `output` is all that it said.
pub(super) fn failure(output: &str, index: &str) -> Failure {
    let lower = output.to_lowercase();
    // A package's own build may fail to reach something too: that is the package's, hence the user's.
    let built = output.contains("build backend returned an error");
    let unreachable = UNREACHABLE
        .iter()
        .any(|words| lower.contains(&words.to_lowercase()));
    let words = summary(output);
    if unreachable && !built {
        Failure::new(FailureKind::IndexUnreachable, format!("the package index does not answer: {words}"))
            .hint(format!("Asked was {index}. Another index, its CA bundle and its credentials are the agent's settings (`[python]`)."))
            .detail(output)
    } else {
        Failure::new(
            FailureKind::RequirementsUnresolved,
            format!("the requirements cannot be installed: {words}"),
        )
        .hint(
            "uv's own words are below; `uv pip install -r` with the same file shows them anywhere.",
        )
        .detail(output)
    }
}

/// The line that says most: the cause of `error:`, else the last line.
fn summary(output: &str) -> String {
    let mut lines = output
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let error = lines
        .clone()
        .position(|line| line.starts_with("error:") || line.starts_with('×'));
    let line = match error {
        Some(at) => {
            let cause = lines
                .clone()
                .nth(at + 1)
                .and_then(|line| line.strip_prefix("cause: "));
            cause.or_else(|| lines.nth(at))
        }
        None => lines.next_back(),
    };
    let line = line
        .unwrap_or("uv said nothing")
        .trim_start_matches("error: ");
    match line.char_indices().nth(400) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(output: &str) -> FailureKind {
        failure(output, "PyPI").kind
    }

    #[test]
    fn what_does_not_resolve_is_the_users_and_said_in_uvs_words() {
        let output = "Using Python 3.11.7 environment at: v1\nerror: No solution found when resolving dependencies\n  cause: Because there is no version of six==99.0 and you require six==99.0, we can conclude that your requirements are unsatisfiable.\n";
        let failure = failure(output, "i");
        assert_eq!(failure.kind, FailureKind::RequirementsUnresolved);
        assert!(
            failure.message.contains("no version of six==99.0"),
            "{}",
            failure.message
        );
        assert_eq!(
            kind("error: Couldn't parse requirement in `r.txt` at position 0\n"),
            FailureKind::RequirementsUnresolved
        );
        assert_eq!(
            kind("error: The build backend returned an error\n  cause: dns error\n"),
            FailureKind::RequirementsUnresolved
        );
    }

    #[test]
    fn an_index_that_does_not_answer_is_the_platforms() {
        for cause in [
            "error sending request for url (http://127.0.0.1:9/simple/six/)\n  cause: client error (Connect)",
            "HTTP status server error (503 Service Unavailable) for url (http://127.0.0.1/simple/six/)",
            "dns error\n  cause: failed to lookup address information: Name or service not known",
        ] {
            let output =
                format!("error: Failed to fetch: http://x/simple/six/\n  cause: {cause}\n");
            assert_eq!(kind(&output), FailureKind::IndexUnreachable, "{cause}");
        }
    }
}
