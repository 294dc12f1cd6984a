//! The registry as people and programs see it.

use std::collections::BTreeMap;

use protocol::event::{Artifact, ArtifactRole};
use protocol::job::State;
use protocol::registry::{
    AliasChange, Comparison, Judged, Model, ModelDetail, Version, VersionDetail,
};
use protocol::report::{AttemptReport, MetricValue, Setting};
use protocol::spec::{Goal, MetricSpec, ModelSpec};
use protocol::{AgentId, ByteSize, Digest, JobId, Outcome, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use server::registry::Registrar;
use server::store::{access, agents, attempts, blobs, jobs, pipelines, projects, testing};

use super::site::{EVIL, Site};
use crate::support::report;

/// A server with a project whose default branch is `main`.
struct Yard {
    site: Site,
    project: projects::Project,
    agent: AgentId,
}

impl Yard {
    async fn new() -> Self {
        let site = Site::with_tokens().await;
        let project = testing::project("numbers");
        let mut tx = site.server().store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        projects::checked(&mut tx, &project.id, Some("main"), Timestamp(1))
            .await
            .unwrap();
        let agent = agents::register(&mut tx, &testing::agent("gpu-2"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        Self {
            site,
            project,
            agent,
        }
    }

    /// A job that succeeded on this branch and left a model; gives its id once it is registered.
    async fn trained(&self, number: u64, branch: &str, epochs: u64, accuracy: f64) -> JobId {
        let server = self.site.server();
        let mut pipeline = testing::pipeline(&self.project, number);
        pipeline.subject = format!("Train {EVIL}");
        pipeline.trigger.reference = Some(format!("refs/heads/{branch}"));
        let mut job = testing::job(&pipeline, "train");
        job.spec.model = Some(ModelSpec {
            name: "digits".into(),
            path: "model".into(),
        });
        job.spec.parameters.insert("epochs".into(), epochs.into());
        let spec = MetricSpec {
            goal: Goal::Maximize,
            max_regression: None,
        };
        job.spec.metrics = BTreeMap::from([("accuracy".to_owned(), spec)]);
        job.state = State::Finished {
            outcome: Outcome::Succeeded,
        };
        job.finished_at = Some(Timestamp(9_000));

        let weights = format!("weights {number}");
        let blob = Digest::of(&weights);
        server
            .blobs
            .put(&blob, weights.clone().into_bytes())
            .await
            .unwrap();
        let size = weights.len() as u64;
        let mut tx = server.store.begin().await.unwrap();
        blobs::insert(&mut tx, &blob, size, &self.agent, Timestamp(8))
            .await
            .unwrap();
        pipelines::insert(&mut tx, &pipeline).await.unwrap();
        jobs::insert(&mut tx, &job).await.unwrap();
        let attempt = testing::attempt(&self.project, &job, &self.agent, 1, &[]);
        attempts::insert(&mut tx, &attempt).await.unwrap();
        let done = AttemptReport {
            artifacts: vec![Artifact {
                role: ArtifactRole::Model,
                path: "a b.joblib".into(),
                blob,
                size: ByteSize(size),
            }],
            metrics: vec![MetricValue {
                name: "accuracy".into(),
                value: accuracy,
                step: 0,
            }],
            setting: Setting {
                host: "gpu-2".into(),
                packages: Some(format!("numpy==2.{number}")),
                ..Setting::default()
            },
            ..report(Outcome::Succeeded)
        };
        attempts::finish(&mut tx, &attempt.id, &done).await.unwrap();
        tx.commit().await.unwrap();
        let mut registrar = Registrar::new(server.store.clone());
        registrar.tick(Timestamp::now()).await.unwrap();
        job.id
    }

    /// An answer's status and JSON.
    async fn ask(
        &self,
        role: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let mut call = self.site.call(method, &format!("/api/v1/{path}"));
        if let Some(body) = body {
            call = call.json(&body);
        }
        let call = call.bearer_auth(self.site.token(role));
        let answer = call.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.ask("read", Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_value(body).unwrap()
    }

    async fn write<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> T {
        let (status, body) = self.ask("run", method, path, Some(body)).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_value(body).unwrap()
    }

    async fn page(&self, path: &str) -> String {
        let call = self.site.get(path).bearer_auth(self.site.token("read"));
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }
}

#[tokio::test]
async fn two_versions_are_shown_and_held_against_each_other() {
    let yard = Yard::new().await;
    let first = yard.trained(1, "main", 5, 0.9).await;
    let second = yard.trained(2, "main", 10, 0.95).await;

    let all: protocol::api::Page<Model> = yard.get("models").await;
    assert_eq!(all.items.len(), 1);
    assert_eq!(
        (all.items[0].name.as_str(), all.items[0].versions),
        ("digits", 2)
    );
    let model: ModelDetail = yard.get("models/digits").await;
    let numbers: Vec<_> = model.items.iter().map(|version| version.version).collect();
    assert_eq!(numbers, [Some(2), Some(1)]);
    let version: VersionDetail = yard.get("models/digits/1").await;
    assert_eq!(version.lineage.unwrap().job, first);
    assert_eq!(version.params["epochs"], "5");
    assert_eq!(version.version.metrics[0].value, 0.9);
    let latest: VersionDetail = yard.get("models/digits/latest").await;
    assert_eq!(latest.lineage.unwrap().job, second);

    let both: Comparison = yard.get("models/digits/2/compare/1").await;
    assert_eq!((both.base.version, both.now.version), (Some(1), Some(2)));
    let metric = &both.metrics[0];
    assert_eq!(metric.judged, Some(Judged::Better));
    assert!((metric.delta.unwrap() - 0.05).abs() < 1e-9);
    let differs: Vec<_> = both.differences.iter().map(|d| d.what.as_str()).collect();
    assert!(differs.contains(&"parameter epochs"), "{differs:?}");
    assert!(differs.contains(&"package numpy"), "{differs:?}");
    let back: Comparison = yard.get("models/digits/1/compare/2").await;
    assert_eq!(back.metrics[0].judged, Some(Judged::Worse));
}

#[tokio::test]
async fn pages_lead_from_the_job_to_the_models_files() {
    let yard = Yard::new().await;
    yard.trained(1, "main", 5, 0.9).await;
    let job = yard.trained(2, "main", 10, 0.95).await;
    let candidate = yard.trained(3, "try", 20, 0.93).await;

    assert!(
        yard.page(&format!("/jobs/{job}"))
            .await
            .contains("href=\"/models/digits/2\"")
    );
    assert!(
        yard.page("/models")
            .await
            .contains("href=\"/models/digits\"")
    );
    let model = yard.page("/models/digits").await;
    assert!(model.contains("href=\"/models/digits/1\"") && model.contains("candidate"));
    let version = yard.page("/models/digits/2").await;
    for words in [
        "against version 1",
        "+0.05 from 0.9",
        "gpu-2",
        "numpy==2.2",
        "package numpy",
    ] {
        assert!(version.contains(words), "{words} in {version}");
    }
    // A candidate stands against the version that it would follow.
    let page = yard.page(&format!("/jobs/{candidate}")).await;
    let href = page
        .split("href=\"")
        .find(|rest| rest.starts_with("/models/digits/"))
        .unwrap();
    let page = yard.page(href.split('"').next().unwrap()).await;
    assert!(
        page.contains("against version 2") && page.contains("−0.02 from 0.95"),
        "{page}"
    );
    for page in [&model, &version, &page] {
        assert!(
            page.contains("Train") && !page.contains("<script>alert"),
            "text stays text"
        );
    }

    let href = version
        .split("href=\"")
        .find(|rest| rest.starts_with("/api/v1/artifacts/"))
        .unwrap();
    let file = yard
        .page(
            &href
                .split('"')
                .next()
                .unwrap()
                .replace("&amp;", "&")
                .replace("&#38;", "&"),
        )
        .await;
    assert_eq!(file, "weights 2");
}

#[tokio::test]
async fn a_promotion_and_every_move_of_an_alias_is_kept() {
    let yard = Yard::new().await;
    yard.trained(1, "main", 5, 0.9).await;
    yard.trained(2, "try", 10, 0.95).await;
    let model: ModelDetail = yard.get("models/digits").await;
    let candidate = model
        .items
        .iter()
        .find(|v| v.version.is_none())
        .unwrap()
        .id
        .clone();

    let promote = format!("models/digits/{candidate}/promote");
    let why = json!({"why": "better"});
    let made: Version = yard.write(Method::POST, &promote, why.clone()).await;
    assert_eq!(made.version, Some(2));
    let promotion = made.promotion.unwrap();
    assert_eq!(
        (promotion.by.as_str(), promotion.why.as_str()),
        ("run", "better")
    );
    let (status, body) = yard.ask("run", Method::POST, &promote, Some(why)).await;
    assert_eq!(
        (status, body["code"].as_str()),
        (409, Some("conflict")),
        "{body}"
    );

    let champion = "models/digits/aliases/champion";
    for version in [1, 2] {
        let body = json!({"version": version, "why": EVIL});
        let change: AliasChange = yard.write(Method::PUT, champion, body).await;
        assert_eq!(change.version, Some(version));
    }
    let back = format!("{champion}/rollback");
    let change: AliasChange = yard.write(Method::POST, &back, json!({})).await;
    assert_eq!((change.previous, change.version), (Some(2), Some(1)));
    let shown: VersionDetail = yard.get("models/digits/@champion").await;
    assert_eq!(shown.version.version, Some(1));
    let model: ModelDetail = yard.get("models/digits").await;
    let kept: Vec<_> = model.history.iter().map(|change| change.version).collect();
    assert_eq!(kept, [Some(1), Some(2), Some(1)], "newest first");
    let page = yard.page("/models/digits").await;
    assert!(
        page.contains("@champion") && !page.contains("<script>alert"),
        "{page}"
    );

    let mut db = yard.site.server().store.read().await.unwrap();
    let audit = access::audit(&mut db, 50).await.unwrap();
    let said: Vec<_> = audit
        .iter()
        .map(|entry| format!("{}: {}", entry.who, entry.action))
        .collect();
    for line in [
        "run: promote digits version 2",
        "run: alias digits@champion to version 2",
        "run: alias digits@champion to version 1",
    ] {
        assert!(said.iter().any(|said| said == line), "{line} in {said:?}");
    }
}

#[tokio::test]
async fn a_version_comes_in_parts_and_goes_with_its_content_after_the_grace() {
    let yard = Yard::new().await;
    yard.trained(1, "main", 5, 0.9).await;
    yard.trained(2, "main", 6, 0.9).await;
    let file = "/api/v1/models/digits/1/files/a%20b.joblib";
    let part = yard.site.get(file).bearer_auth(yard.site.token("read"));
    let part = part.header("range", "bytes=3-").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 3-8/9");
    assert_eq!(part.text().await.unwrap(), "ghts 1");
    assert_eq!(yard.page(file).await, "weights 1");
    let beyond = yard.site.get(file).bearer_auth(yard.site.token("read"));
    let beyond = beyond.header("range", "bytes=9-").send().await.unwrap();
    assert_eq!(beyond.status(), 416);
    let (status, body) = yard
        .ask("read", Method::GET, "models/digits/1/files/..%2Fx", None)
        .await;
    assert_eq!((status, body["code"].as_str()), (404, Some("not_found")));

    let remove = "models/digits/1/remove";
    let why = json!({"why": "leaked labels"});
    let (status, _) = yard
        .ask("read", Method::POST, remove, Some(why.clone()))
        .await;
    assert_eq!(status, 403);
    let (status, _) = yard.ask("run", Method::POST, remove, Some(json!({}))).await;
    assert_eq!(status, 400, "it wants a reason");
    let champion = json!({"version": 1, "why": "first"});
    let _: AliasChange = yard
        .write(Method::PUT, "models/digits/aliases/champion", champion)
        .await;
    let (status, body) = yard
        .ask("run", Method::POST, remove, Some(why.clone()))
        .await;
    assert_eq!(status, 409, "{body}");
    let _: AliasChange = yard
        .write(Method::PUT, "models/digits/aliases/champion", json!({}))
        .await;
    let gone: Version = yard.write(Method::POST, remove, why).await;
    assert_eq!(gone.version, Some(1));
    let (status, body) = yard.ask("read", Method::GET, "models/digits/1", None).await;
    let message = body["message"].as_str().unwrap();
    assert!(
        status == 404 && message.ends_with("by run: leaked labels"),
        "{body}"
    );

    let server = yard.site.server();
    let there = async |text: &str| server.blobs.exists(&Digest::of(text)).await.unwrap();
    let now = Timestamp::now();
    server::housekeeping::tick(server, now).await.unwrap();
    assert!(there("weights 1").await, "the grace is not over");
    let later = now + server.config.blob_grace + protocol::Span::secs(60);
    server::housekeeping::tick(server, later).await.unwrap();
    assert!(!there("weights 1").await && there("weights 2").await);
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_words() {
    let yard = Yard::new().await;
    yard.trained(1, "main", 5, 0.9).await;
    let nobody = JobId::generate();
    let unknown = format!("models/digits/{nobody}");
    for (path, status, word) in [
        ("models/nothing", 404, "nothing"),
        ("models/digits/7", 404, "version 7"),
        ("models/digits/@gone", 404, "gone"),
        (unknown.as_str(), 404, "candidate"),
        ("models/digits/v1", 400, "names no version"),
        ("models/digits/..%2F..%2Ftokens", 400, "names no version"),
        ("models/%3Cscript%3E", 404, "<script>"),
        ("models/digits%00%27%3B--", 400, "NUL"),
        ("models/digits/1/compare/9", 404, "version 9"),
    ] {
        let (given, body) = yard.ask("read", Method::GET, path, None).await;
        assert_eq!(given, status, "{path}: {body}");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains(word), "{path}: {message}");
    }
    for (alias, body, status) in [
        ("latest", json!({"version": 1}), 400),
        ("v3", json!({"version": 1}), 400),
        ("a%2Fb", json!({"version": 1}), 400),
        ("champion", json!({"version": 9}), 404),
        ("champion", json!({"version": null}), 404),
        ("champion", json!({"versoin": 1}), 422),
        ("champion", json!({"version": 1, "why": "a\u{0}b"}), 400),
    ] {
        let path = format!("models/digits/aliases/{alias}");
        let (given, answer) = yard.ask("run", Method::PUT, &path, Some(body)).await;
        assert_eq!(given, status, "{alias}: {answer}");
    }
    let back = "models/digits/aliases/champion/rollback";
    let (given, answer) = yard.ask("run", Method::POST, back, Some(json!({}))).await;
    assert_eq!(given, 409, "{answer}");
    for (method, path) in [
        (Method::POST, "models/digits/1/promote"),
        (Method::PUT, "models/digits/aliases/champion"),
        (Method::POST, back),
    ] {
        let body = json!({"why": ""});
        let (given, answer) = yard.ask("read", method, path, Some(body)).await;
        assert_eq!(
            (given, answer["code"].as_str()),
            (403, Some("forbidden")),
            "{path}"
        );
    }
    let page = yard.site.get("/models/%3Cscript%3Ealert(1)%3C%2Fscript%3E");
    let answer = page
        .bearer_auth(yard.site.token("read"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 404);
    assert!(!answer.text().await.unwrap().contains("<script>alert"));
}

#[tokio::test]
async fn a_run_leads_to_its_job_and_its_version_and_back() {
    let yard = Yard::new().await;
    yard.trained(1, "main", 5, 0.9).await;
    let job = yard.trained(2, "main", 10, 0.95).await;
    let link = |html: &str, start: &str| {
        let mut all = html.split("href=\"");
        let found = all.find(|rest| rest.starts_with(start));
        let found = found.unwrap_or_else(|| panic!("no {start} in {html}"));
        found.split('"').next().unwrap().to_owned()
    };
    let run = link(&yard.page(&format!("/jobs/{job}")).await, "/runs/");
    let page = yard.page(&run).await;
    assert!(page.contains(&format!("href=\"/jobs/{job}\"")), "{page}");
    for words in [
        "/models/digits/2",
        "epochs",
        "a b.joblib",
        "numbers/train",
        "accuracy",
    ] {
        assert!(page.contains(words), "no {words} in {page}");
    }
    let table = yard.page(&link(&page, "/experiments/")).await;
    assert!(table.contains(&format!("href=\"{run}\"")) && table.contains("title=\"param epochs\""));
    let list = yard.page("/experiments").await;
    assert!(
        list.contains("href=\"/?project=numbers\""),
        "whose it is: {list}"
    );
    assert_eq!(link(&yard.page("/models/digits/2").await, "/runs/"), run);

    let model = yard.page("/models/digits").await;
    assert!(
        model.contains("<option value=\"1\" selected>1</option>"),
        "{model}"
    );
    let both = yard.page("/models/digits/compare?base=1&now=2").await;
    for words in [
        "version 1",
        "version 2",
        "+0.05 from 0.9",
        ">better<",
        "parameter epochs",
    ] {
        assert!(both.contains(words), "no {words} in {both}");
    }
    // The job's goal says which run is the best.
    let first = link(&table.replace(&run, ""), "/runs/");
    let query = format!("run={}&run={}", &run[6..], &first[6..]);
    let beside = yard.page(&format!("/runs/compare?{query}")).await;
    assert!(
        beside.contains("0.95 <span class=\"mark\">best</span>"),
        "{beside}"
    );
}
