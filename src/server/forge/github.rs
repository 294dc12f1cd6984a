//! GitHub and GitHub Enterprise: commit statuses.

use futures_util::future::BoxFuture;
use reqwest::Method;
use serde::Serialize;

use super::api::{About, Api};
use super::event::PullRequest;
use super::text::bounded;
use super::{Forge, ForgeError, ForgeKind, Shown, StatusUpdate, Update, Verdict, hook};

/// GitHub answers 422 to a longer description.
const DESCRIPTION_LIMIT: usize = 140;

/// A repository at GitHub.
#[derive(Debug)]
pub(super) struct Github(pub(super) Api);

impl Github {
    async fn post_status(&self, update: &StatusUpdate) -> Result<(), ForgeError> {
        let path = ["statuses", update.commit.as_str()];
        let request = self.0.below(Method::POST, &path)?;
        let request = request.json(&StatusBody::of(update));
        self.0
            .send(request, About::Status(&update.commit))
            .await
            .map(drop)
    }
}

impl Forge for Github {
    fn name(&self) -> &'static str {
        ForgeKind::Github.name()
    }

    fn description_limit(&self) -> usize {
        DESCRIPTION_LIMIT
    }

    fn listens(&self) -> bool {
        self.0.place().token.is_some()
    }

    fn pull_request(&self, number: u64) -> BoxFuture<'_, Result<Option<PullRequest>, ForgeError>> {
        Box::pin(async move {
            let path = ["pulls", &number.to_string()];
            self.0.find(&path, hook::github::pull_request).await
        })
    }

    fn may_write<'a>(
        &'a self,
        login: &'a str,
        number: Option<u64>,
    ) -> BoxFuture<'a, Result<bool, ForgeError>> {
        Box::pin(self.0.may_write(login, number))
    }

    fn show<'a>(
        &'a self,
        update: &'a Update,
        remembered: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Shown, ForgeError>> {
        Box::pin(async move {
            match update {
                Update::Status(status) => self.post_status(status).await.map(|()| Shown::unnamed()),
                Update::Comment(comment) => self.0.stick(comment, remembered).await,
                Update::Reply(reply) => self.0.reply(reply, remembered).await,
                Update::Reaction(reaction) => self.0.react(reaction).await,
            }
        })
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

/// GitHub's four words.
fn state_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pending | Verdict::Running => "pending",
        Verdict::Success | Verdict::Neutral => "success",
        Verdict::Failure => "failure",
        Verdict::Error | Verdict::Cancelled => "error",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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

    /// Holds a body against GitHub's own schema, with the keywords that it uses and no others.
    fn check(schema: &Value, body: &Value) -> Result<(), String> {
        let body = body.as_object().ok_or("no object")?;
        for required in schema["required"].as_array().ok_or("no list")? {
            let name = required.as_str().ok_or("no name")?;
            body.get(name).ok_or(format!("{name} is missing"))?;
        }
        for (name, value) in body {
            let property = schema["properties"][name]
                .as_object()
                .ok_or(format!("{name} is no property"))?;
            for (keyword, wanted) in property {
                match keyword.as_str() {
                    "description" | "default" => {}
                    "type" => {
                        let kind = match value {
                            Value::String(_) => json!("string"),
                            Value::Null => json!("null"),
                            other => return Err(format!("{name} is {other}")),
                        };
                        let listed = wanted.as_array().is_some_and(|kinds| kinds.contains(&kind));
                        if *wanted != kind && !listed {
                            return Err(format!("{name} is {kind}, not {wanted}"));
                        }
                    }
                    "enum" if wanted.as_array().is_some_and(|words| words.contains(value)) => {}
                    "enum" => return Err(format!("{value} is not one of {wanted}")),
                    other => return Err(format!("the check does not know {other}")),
                }
            }
        }
        Ok(())
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
            check(&schema, &body).unwrap();
            update.url = None;
            let body = serde_json::to_value(StatusBody::of(&update)).unwrap();
            check(&schema, &body).unwrap();
            assert!(body.get("target_url").is_none());
        }
        for wrong in [
            json!({"context": "x"}),
            json!({"state": "green"}),
            json!({"state": "error", "x": ""}),
        ] {
            check(&schema, &wrong).unwrap_err();
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
