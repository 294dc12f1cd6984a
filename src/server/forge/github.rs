//! GitHub and GitHub Enterprise: commit statuses.

use reqwest::Method;
use serde::Serialize;

use super::api::{About, Api};
use super::text::bounded;
use super::{ForgeError, StatusUpdate, Verdict};

/// GitHub answers 422 to a longer description.
pub(super) const DESCRIPTION_LIMIT: usize = 140;

impl Api {
    /// Shows a status at GitHub.
    pub(super) async fn github_status(&self, update: &StatusUpdate) -> Result<(), ForgeError> {
        let path = ["statuses", update.commit.as_str()];
        let request = self.below(Method::POST, &path)?;
        let request = request.json(&StatusBody::of(update));
        self.send(request, About::Status(&update.commit))
            .await
            .map(drop)
    }
}

/// The body of "create a commit status".
#[derive(Debug, Serialize)]
struct StatusBody {
    state: &'static str,
    context: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_url: Option<String>,
}

impl StatusBody {
    fn of(update: &StatusUpdate) -> Self {
        Self {
            state: state_word(update.verdict),
            // GitHub's column for contexts holds 255 characters.
            context: narrow(&bounded(&update.context, 255)),
            description: narrow(&bounded(&update.description, DESCRIPTION_LIMIT)),
            target_url: update.url.clone(),
        }
    }
}

/// GitHub refuses characters that UTF-8 writes in four bytes ("doesn't accept 4-byte Unicode").
fn narrow(text: &str) -> String {
    text.chars()
        .map(|c| if c.len_utf8() > 3 { '\u{fffd}' } else { c })
        .collect()
}

/// GitHub's four words. Gitea has them too, and a fifth, which is none of ours.
pub(super) fn state_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pending | Verdict::Running => "pending",
        Verdict::Success | Verdict::Neutral => "success",
        Verdict::Failure => "failure",
        Verdict::Error | Verdict::Cancelled => "error",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::forge::schema;

    fn update(verdict: Verdict, description: &str) -> StatusUpdate {
        StatusUpdate {
            commit: "6113728f27ae82c7b1a177c8d03f9e96e0adf246".parse().unwrap(),
            context: "trainyard/train (lr=0.1)".into(),
            verdict,
            description: description.into(),
            url: Some("https://ci.example.com/jobs/1".into()),
            branch: None,
        }
    }

    #[test]
    fn bodies_fit_githubs_schema() {
        let schema: Value = serde_json::from_str(include_str!(
            "../../../tests/data/forges/github/create-commit-status.request.schema.json"
        ))
        .unwrap();
        for verdict in [
            Verdict::Pending,
            Verdict::Running,
            Verdict::Success,
            Verdict::Neutral,
            Verdict::Failure,
            Verdict::Error,
            Verdict::Cancelled,
        ] {
            let mut update = update(verdict, "accuracy 0.962");
            let body = serde_json::to_value(StatusBody::of(&update)).unwrap();
            schema::check(&schema, &body).unwrap();
            update.url = None;
            let body = serde_json::to_value(StatusBody::of(&update)).unwrap();
            schema::check(&schema, &body).unwrap();
            assert!(body.get("target_url").is_none());
        }
    }

    #[test]
    fn what_github_would_refuse_is_not_sent() {
        let body = StatusBody::of(&update(Verdict::Success, &"🐛ü".repeat(200)));
        assert_eq!(body.description.chars().count(), 140);
        assert!(body.description.chars().all(|c| c.len_utf8() < 4));
        assert!(body.description.starts_with("\u{fffd}ü"));
    }
}
