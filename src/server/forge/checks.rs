//! GitHub's check runs: what a status says, with a text, sentences at lines of files, and buttons. An App's alone.

use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::api::{About, Api};
use super::text::bounded;
use super::{Annotation, Button, CheckState, CheckUpdate, ForgeError, Shown};

/// Annotations of one request; further ones are added by further requests.
const PAGE: usize = 50;
/// Bytes of a summary.
const SUMMARY_BYTES: usize = 65_535;
/// Bytes of an annotation's message; GitHub takes 64 KB.
const MESSAGE_CHARACTERS: usize = 8_000;
/// Characters of an annotation's title.
const TITLE_CHARACTERS: usize = 255;
/// Most bytes of an answer that is read.
const MOST_BYTES: usize = 4 << 20;

/// What is remembered of a check: its run at GitHub.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    id: u64,
    /// Our id of it.
    of: String,
    /// Annotations that it has.
    annotations: usize,
    /// Whether it has a conclusion.
    done: bool,
}

impl Run {
    /// Whether it can be brought to say this. A run that has a conclusion is over: what begins again is another run.
    fn fits(&self, update: &CheckUpdate) -> bool {
        self.of == update.id && (update.state.is_done() || !self.done)
    }
}

impl Api {
    /// Makes a check run, or edits the one that is there; annotations beyond those of one request go on with the next
    /// call.
    pub(super) async fn check(
        &self,
        update: &CheckUpdate,
        remembered: Option<&str>,
    ) -> Result<Shown, ForgeError> {
        let known: Option<Run> = remembered.and_then(|text| serde_json::from_str(text).ok());
        let known = match known {
            Some(run) => Some(run),
            None => self.written_before(update).await?,
        };
        let run = known.filter(|run| run.fits(update));
        let sent = run.as_ref().map_or(0, |run| run.annotations);
        let page: Vec<&Annotation> = update.annotations.iter().skip(sent).take(PAGE).collect();
        let (count, mut body) = (page.len(), Body::of(update, page));
        let id = match run {
            None => {
                body.head_sha = Some(update.commit.as_str());
                self.write(Method::POST, &["check-runs"], update, &body)
                    .await?
            }
            Some(run) => {
                let id = run.id.to_string();
                self.write(Method::PATCH, &["check-runs", &id], update, &body)
                    .await?
            }
        };
        let run = Run {
            id,
            of: update.id.clone(),
            annotations: sent + count,
            done: update.state.is_done(),
        };
        Ok(Shown {
            goes_on: run.annotations < update.annotations.len(),
            remembered: serde_json::to_string(&run).ok(),
        })
    }

    async fn write(
        &self,
        method: Method,
        path: &[&str],
        update: &CheckUpdate,
        body: &Body<'_>,
    ) -> Result<u64, ForgeError> {
        #[derive(Deserialize)]
        struct Written {
            id: u64,
        }
        let request = self.below(method, path)?.json(body);
        let about = About::Check(&update.commit);
        self.read(request, about, MOST_BYTES, |body| {
            let written: Result<Written, _> = serde_json::from_slice(body);
            written.map(|run| run.id).map_err(|e| e.to_string())
        })
        .await
    }

    /// The run that a call made whose answer was lost.
    async fn written_before(&self, update: &CheckUpdate) -> Result<Option<Run>, ForgeError> {
        #[derive(Deserialize)]
        struct Listed {
            check_runs: Vec<Found>,
        }
        #[derive(Deserialize)]
        struct Found {
            id: u64,
            #[serde(default)]
            external_id: Option<String>,
            status: String,
            output: Output,
        }
        #[derive(Deserialize)]
        struct Output {
            #[serde(default)]
            annotations_count: usize,
        }
        let path = ["commits", update.commit.as_str(), "check-runs"];
        let query = [("check_name", update.name.clone())];
        let request = self.below_with(Method::GET, &path, &query)?;
        let listed = self
            .read(request, About::Look, MOST_BYTES, |body| {
                serde_json::from_slice::<Listed>(body).map_err(|e| e.to_string())
            })
            .await;
        let listed = match listed {
            // Such a commit is said to be unknown when the run is made.
            Err(
                ForgeError::Unauthorized { status: 404, .. }
                | ForgeError::Refused { status: 422, .. },
            ) => return Ok(None),
            answer => answer?,
        };
        let ours = listed
            .check_runs
            .into_iter()
            .find(|run| run.external_id.as_ref() == Some(&update.id));
        Ok(ours.map(|run| Run {
            id: run.id,
            of: update.id.clone(),
            annotations: run.output.annotations_count,
            done: run.status == "completed",
        }))
    }
}

/// The body of "create" and "update a check run".
#[derive(Debug, Serialize)]
struct Body<'a> {
    name: &'a str,
    /// Only where it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    head_sha: Option<&'a str>,
    external_id: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conclusion: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details_url: Option<&'a str>,
    output: Output<'a>,
    actions: Vec<Action>,
}

#[derive(Debug, Serialize)]
struct Output<'a> {
    title: String,
    summary: &'a str,
    annotations: Vec<AnnotationBody<'a>>,
}

#[derive(Debug, Serialize)]
struct AnnotationBody<'a> {
    path: &'a str,
    start_line: u32,
    end_line: u32,
    annotation_level: &'static str,
    title: String,
    message: String,
}

#[derive(Debug, Serialize)]
struct Action {
    label: &'static str,
    description: &'static str,
    identifier: &'static str,
}

impl<'a> Body<'a> {
    fn of(update: &'a CheckUpdate, page: Vec<&'a Annotation>) -> Self {
        let (status, conclusion) = words(update.state);
        Self {
            name: &update.name,
            head_sha: None,
            external_id: &update.id,
            status,
            conclusion,
            details_url: update.url.as_deref(),
            output: Output {
                title: bounded(&update.title, TITLE_CHARACTERS),
                summary: head(&update.summary, SUMMARY_BYTES),
                annotations: page.into_iter().map(annotation).collect(),
            },
            // A call without them may leave the old ones standing.
            actions: update
                .buttons
                .iter()
                .map(|button| action(*button))
                .collect(),
        }
    }
}

fn annotation(annotation: &Annotation) -> AnnotationBody<'_> {
    let line = annotation.line.max(1);
    AnnotationBody {
        path: &annotation.path,
        start_line: line,
        end_line: line,
        annotation_level: if annotation.is_failure {
            "failure"
        } else {
            "warning"
        },
        title: bounded(&annotation.title, TITLE_CHARACTERS),
        message: bounded(&annotation.message, MESSAGE_CHARACTERS),
    }
}

fn action(button: Button) -> Action {
    let (label, description) = match button {
        Button::Rerun => ("Re-run", "Run this job again"),
        Button::Approve => ("Approve", "Let this commit of a fork run"),
        Button::Cancel => ("Cancel", "End this job"),
    };
    Action {
        label,
        description,
        identifier: button.word(),
    }
}

/// GitHub's words: the state, and what it concludes.
fn words(state: CheckState) -> (&'static str, Option<&'static str>) {
    let conclusion = match state {
        CheckState::Queued => return ("queued", None),
        CheckState::InProgress => return ("in_progress", None),
        CheckState::Success => "success",
        CheckState::Neutral => "neutral",
        CheckState::Failure => "failure",
        CheckState::TimedOut => "timed_out",
        CheckState::Cancelled => "cancelled",
        CheckState::ActionRequired => "action_required",
    };
    ("completed", Some(conclusion))
}

/// At most so many bytes, cut between characters.
fn head(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use axum::extract::{Request, State};
    use axum::response::{IntoResponse as _, Response};
    use axum::{Json, Router};
    use serde_json::{Value, json};

    use super::*;
    use crate::forge::identity::Identity;
    use crate::forge::{Credential, ForgeKind, Place, Repository, schema};

    /// What came: method and path, body.
    type Calls = Arc<Mutex<Vec<(String, Value)>>>;

    async fn take(State(calls): State<Calls>, request: Request) -> Response {
        let line = format!("{} {}", request.method(), request.uri().path());
        let bytes = axum::body::to_bytes(request.into_body(), 1 << 20)
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let is_list = line.starts_with("GET");
        let mut all = calls.lock().unwrap();
        all.push((line, body));
        if is_list {
            return Json(json!({"check_runs": []})).into_response();
        }
        Json(json!({"id": all.len()})).into_response()
    }

    /// A GitHub that takes everything, and the way to it.
    async fn github(folder: &std::path::Path) -> (Api, Calls) {
        let calls = Calls::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(calls.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let token = folder.join("token");
        std::fs::write(&token, "t").unwrap();
        let repository = Repository::try_from("o/r".to_owned()).unwrap();
        let mut place = Place::new(repository, format!("http://{address}"));
        place.token = Some(Credential::File(token));
        let identity = Identity::of(ForgeKind::Github, &place, None);
        let timeout = Duration::from_secs(5);
        let api = Api::connect(ForgeKind::Github, place, identity, timeout).unwrap();
        (api, calls)
    }

    fn update(id: &str, state: CheckState, annotations: u32) -> CheckUpdate {
        let annotation = |line| Annotation {
            path: "a.ipynb".into(),
            line,
            is_failure: line == 1,
            title: "ruff F841".into(),
            message: "unused".into(),
        };
        CheckUpdate {
            commit: "6113728f27ae82c7b1a177c8d03f9e96e0adf246".parse().unwrap(),
            name: "trainyard/train".into(),
            id: id.into(),
            state,
            title: "succeeded".into(),
            summary: "**fine**".into(),
            annotations: (1..=annotations).map(annotation).collect(),
            buttons: vec![Button::Rerun, Button::Approve, Button::Cancel],
            url: Some("https://ci.example.com/jobs/1".into()),
        }
    }

    fn schemas() -> [Value; 2] {
        let create =
            include_str!("../../../tests/data/forges/github/create-check-run.request.schema.json");
        let update =
            include_str!("../../../tests/data/forges/github/update-check-run.request.schema.json");
        [create, update].map(|text| serde_json::from_str(text).unwrap())
    }

    #[tokio::test]
    async fn all_annotations_are_written_fifty_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (api, calls) = github(folder.path()).await;
        let update = update("job", CheckState::Failure, 120);
        let mut remembered: Option<String> = None;
        let mut writes = 0;
        loop {
            let shown = api.check(&update, remembered.as_deref()).await.unwrap();
            remembered = shown.remembered;
            writes += 1;
            if !shown.goes_on {
                break;
            }
        }
        let calls = std::mem::take(&mut *calls.lock().unwrap());
        assert_eq!(writes, 3, "one write a call");
        let lines: Vec<&str> = calls.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(
            lines,
            [
                &*format!("GET /repos/o/r/commits/{}/check-runs", update.commit),
                "POST /repos/o/r/check-runs",
                "PATCH /repos/o/r/check-runs/2",
                "PATCH /repos/o/r/check-runs/3",
            ]
        );
        let written = calls[1..].iter().flat_map(|(_, body)| {
            let list = body["output"]["annotations"].as_array().unwrap();
            assert!(list.len() <= PAGE);
            list.iter().map(|one| one["start_line"].as_u64().unwrap())
        });
        assert!(written.eq(1..=120), "each once");
        let [create, change] = schemas();
        schema::check(&create, &calls[1].1).unwrap();
        schema::check(&change, &calls[2].1).unwrap();
    }

    #[tokio::test]
    async fn what_begins_again_is_another_run() {
        let folder = tempfile::tempdir().unwrap();
        let (api, calls) = github(folder.path()).await;
        let mut remembered: Option<String> = None;
        for (id, state) in [
            ("one", CheckState::Queued),
            ("one", CheckState::ActionRequired),
            // Approved: a run with a conclusion has none that it could take back.
            ("one", CheckState::InProgress),
            ("one", CheckState::Success),
            ("two", CheckState::Queued),
        ] {
            let update = update(id, state, 0);
            remembered = api
                .check(&update, remembered.as_deref())
                .await
                .unwrap()
                .remembered;
        }
        let calls = calls.lock().unwrap();
        let methods: Vec<&str> = calls.iter().map(|(line, _)| &line[..4]).collect();
        assert_eq!(methods, ["GET ", "POST", "PATC", "POST", "PATC", "POST"]);
    }

    #[test]
    fn every_state_fits_githubs_schema() {
        let [create, change] = schemas();
        for state in [
            CheckState::Queued,
            CheckState::InProgress,
            CheckState::Success,
            CheckState::Neutral,
            CheckState::Failure,
            CheckState::TimedOut,
            CheckState::Cancelled,
            CheckState::ActionRequired,
        ] {
            let mut update = update("job", state, 2);
            update.summary = "ü".repeat(60_000);
            update.title = "x".repeat(1_000);
            update.annotations[0].line = 0;
            let mut body = Body::of(&update, update.annotations.iter().collect());
            assert_eq!(body.output.summary.len(), 65_534, "cut between characters");
            schema::check(&change, &serde_json::to_value(&body).unwrap()).unwrap();
            body.head_sha = Some("a");
            schema::check(&create, &serde_json::to_value(&body).unwrap()).unwrap();
        }
    }
}
