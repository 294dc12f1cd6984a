//! What is refused, and that nothing is changed by it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Mlflow, Told, now, picture};
use crate::support::{Times, World, on_both};

/// 400 with MLflow's code, or 403.
fn is_refused(what: &str, (status, body): &Told) {
    let code = body["error_code"].as_str().unwrap_or_default();
    let right = match *status {
        StatusCode::BAD_REQUEST => {
            ["INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS"].contains(&code)
        }
        StatusCode::FORBIDDEN => code == "PERMISSION_DENIED",
        _ => false,
    };
    assert!(right, "{what}: {status} {body}");
    assert!(
        body["message"].as_str().is_some_and(|text| text.len() > 10),
        "{what}: {body}"
    );
}

/// Paths that lead out, as they stand in an address.
const PATHS: [&str; 22] = [
    "../",
    "../../../../etc/passwd",
    "..%2f",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/x",
    "%252e%252e%252f",
    "%25252e%25252e%25252fx",
    "/tmp",
    "//tmp",
    "%2ftmp",
    "C:%5c",
    "C:/x",
    "file:///etc/passwd",
    "file%3a///etc",
    "a%00b",
    "a%0ab",
    "..%5c..%5cx",
    "a/./b",
    "a//b",
    "a%23b",
    ".",
    "%2e",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_leads_out_is_refused_everywhere() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let run = mlflow.run().await;
        let model = mlflow.logged_model(&run).await;
        let root = "/api/2.0/mlflow-artifacts/artifacts";
        let before = picture(&world, &mlflow).await;
        for path in PATHS {
            for owner in [
                String::new(),
                format!("0/{run}/artifacts/"),
                format!("0/models/{model}/artifacts/"),
            ] {
                // Below an owner a path that begins with a drive or a scheme is a folder of that name, but for its slashes.
                if !owner.is_empty() && path == "C:/x" {
                    continue;
                }
                for method in ["PUT", "GET", "DELETE"] {
                    let address = format!("{root}/{owner}{path}");
                    let told = mlflow.raw(method, &address, "", "bytes").await;
                    is_refused(&format!("{method} {address}"), &told);
                }
                let address = format!("{root}?path={owner}{path}");
                is_refused(&address, &mlflow.raw("GET", &address, "", "").await);
            }
            let address = format!("/api/2.0/mlflow/artifacts/list?run_id={run}&path={path}");
            is_refused(&address, &mlflow.raw("GET", &address, "", "").await);
        }
        for path in [
            "",
            "/",
            &format!("/0/{run}/artifacts"),
            &format!("/0/{run}/artifacts/"),
        ] {
            let address = format!("{root}{path}");
            is_refused(&address, &mlflow.raw("DELETE", &address, "", "").await);
        }
        assert_eq!(picture(&world, &mlflow).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_comes_only_from_what_this_server_keeps() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let (run, other) = (mlflow.run().await, mlflow.run().await);
        let model = mlflow.logged_model(&run).await;
        let create = "registered-models/create";
        mlflow.done(create, json!({"name": "digits"})).await;
        let before = picture(&world, &mlflow).await;
        let sources = [
            "/etc".to_owned(),
            "/etc/passwd".to_owned(),
            "file:///etc".to_owned(),
            "file:///".to_owned(),
            "http://169.254.169.254".to_owned(),
            "http://169.254.169.254/latest/meta-data".to_owned(),
            "s3://bucket/model".to_owned(),
            "mlflow-artifacts:/../..".to_owned(),
            "mlflow-artifacts://other-host/0".to_owned(),
            format!("mlflow-artifacts:/0/{run}/artifacts/../../{other}"),
            format!("mlflow-artifacts:/0/{run}/artifacts/..%2f..%2f"),
            format!("mlflow-artifacts:/0/{other}/artifacts/model"),
            format!("mlflow-artifacts:/7/{run}/artifacts/model"),
            format!("runs:/{other}/model"),
            format!("runs:/{run}/../../x"),
            format!("runs://host/{run}/model"),
            format!("models:/{model}"),
            "models:/digits/9".to_owned(),
            "models:/nothing/1".to_owned(),
            "models:/digits@nothing".to_owned(),
            String::new(),
        ];
        for source in &sources {
            let ask = json!({"name": "digits", "source": source, "run_id": run});
            let told = mlflow.post("model-versions/create", ask).await;
            // A version that is not there is told as such.
            if told.0 != StatusCode::NOT_FOUND || !source.starts_with("models:/") {
                is_refused(source, &told);
            }
        }
        let ask = json!({"name": "digits", "source": format!("runs:/{run}/model")});
        is_refused(
            "without its run",
            &mlflow.post("model-versions/create", ask).await,
        );
        assert_eq!(picture(&world, &mlflow).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_places_of_ones_own_are_refused() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let run = mlflow.run().await;
        let model = mlflow.logged_model(&run).await;
        let before = picture(&world, &mlflow).await;
        for place in [
            "/tmp",
            "file:///tmp",
            "s3://bucket",
            "mlflow-artifacts:/../x",
        ] {
            let ask = json!({"name": "mine", "artifact_location": place});
            is_refused(place, &mlflow.post("experiments/create", ask).await);
        }
        for name in ["../../x", "..", "a/../../b", ""] {
            let ask = json!({"name": name});
            is_refused(name, &mlflow.post("experiments/create", ask.clone()).await);
            is_refused(name, &mlflow.post("registered-models/create", ask).await);
            for call in ["log-metric", "log-parameter", "set-tag"] {
                let ask = json!({"run_id": run, "key": name, "value": "1", "timestamp": 1});
                is_refused(name, &mlflow.post(&format!("runs/{call}"), ask).await);
            }
        }
        for name in ["a/b", "a:b", "a\u{0}b", "x".repeat(300).as_str()] {
            let told = mlflow
                .post("registered-models/create", json!({"name": name}))
                .await;
            is_refused(name, &told);
        }
        let tag = format!("/api/2.0/mlflow/logged-models/{model}/tags/a%00b");
        is_refused(
            "a NUL in an address",
            &mlflow.raw("DELETE", &tag, "", "").await,
        );
        let ask = json!({"run_id": run, "key": "trainyard.commit", "value": "1"});
        is_refused("a tag of ours", &mlflow.post("runs/set-tag", ask).await);
        assert_eq!(picture(&world, &mlflow).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_is_none_is_refused() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let run = mlflow.run().await;
        let point = json!({"run_id": run, "key": "a", "value": 1, "timestamp": 1});
        mlflow.done("runs/log-metric", point).await;
        let before = picture(&world, &mlflow).await;
        let filters = [
            "metrics.a > 0; DROP TABLE runs",
            "metrics.a > 0 OR 1 = 1",
            "1 = 1",
            "metrics.a > 0 UNION SELECT * FROM tokens",
            "metrics.a > (SELECT 1)",
            "metrics.a > 0 -- x",
            "params.a = 'x' /* */ AND",
            "tags.a = 'x",
            "tags.a = 'x\u{0}y'",
            "nothing",
        ];
        let orders = [
            "metrics.a; DROP TABLE runs",
            "(SELECT 1)",
            "metrics.a DESC, (SELECT 1)",
            "metrics.a DESC /* x */",
            "CASE WHEN 1 THEN 1 END",
            "metrics.`a\u{0}b`",
        ];
        let tokens = [
            "x",
            "!!!",
            "eyJvZmZzZXQiOiAxfQ==",
            "MTAuMDEyMzQ1Njc4OWFiY2RlZg",
            "-1",
        ];
        let asks = filters
            .iter()
            .map(|text| json!({"filter": text}))
            .chain(orders.iter().map(|text| json!({"order_by": [text]})))
            .chain(tokens.iter().map(|text| json!({"page_token": text})))
            .chain([
                json!({"max_results": 0}),
                json!({"max_results": -1}),
                json!({"max_results": 50_001}),
            ]);
        for mut ask in asks {
            is_refused(
                &format!("experiments {ask}"),
                &mlflow.post("experiments/search", ask.clone()).await,
            );
            ask["experiment_ids"] = json!(["0"]);
            is_refused(
                &format!("runs {ask}"),
                &mlflow.post("runs/search", ask.clone()).await,
            );
            let mut terms = ask.clone();
            if let Some(orders) = ask["order_by"].as_array() {
                terms["order_by"] = orders
                    .iter()
                    .map(|name| json!({"field_name": name}))
                    .collect();
            }
            // Zero means the usual there.
            if ask["max_results"] != 0 {
                is_refused(
                    &format!("logged models {ask}"),
                    &mlflow.post("logged-models/search", terms).await,
                );
            }
            let query = query(&ask);
            for call in ["registered-models/search", "model-versions/search"] {
                // A page of versions is cut to 50,000: the stock client asks for 200,000.
                if ask["max_results"] != 50_001 || call.starts_with("registered") {
                    let address = format!("/api/2.0/mlflow/{call}?{query}");
                    is_refused(&address, &mlflow.raw("GET", &address, "", "").await);
                }
            }
        }
        for token in tokens {
            let address =
                format!("metrics/get-history?run_id={run}&metric_key=a&page_token={token}");
            is_refused(token, &mlflow.get(&address).await);
        }
        assert_eq!(picture(&world, &mlflow).await, before);
    })
    .await;
}

/// What is asked, as a query.
fn query(ask: &Value) -> String {
    let encoded = |text: &str| {
        text.bytes()
            .map(|b| format!("%{b:02x}"))
            .collect::<String>()
    };
    let ask = ask.as_object().unwrap();
    let pair = |(name, value): (&String, &Value)| match value {
        Value::Array(list) => format!("{name}={}", encoded(list[0].as_str().unwrap())),
        Value::String(text) => format!("{name}={}", encoded(text)),
        other => format!("{name}={other}"),
    };
    ask.iter().map(pair).collect::<Vec<_>>().join("&")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_taken_whole_or_not_at_all() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let run = mlflow.run().await;
        let param = json!({"run_id": run, "key": "lr", "value": "0.1"});
        mlflow.done("runs/log-parameter", param).await;
        let metric = |key: &str, n: i64| json!({"key": key, "value": 1, "timestamp": n, "step": 0});
        let good = metric("good", 1);
        let before = picture(&world, &mlflow).await;
        let many = |count: i64| (0..count).map(|n| metric("m", n)).collect::<Vec<_>>();
        let pairs = |count: usize| {
            let pair = |n| json!({"key": format!("k{n}"), "value": "v"});
            (0..count).map(pair).collect::<Vec<_>>()
        };
        for (what, batch) in [
            ("too many metrics", json!({"metrics": many(1_001)})),
            ("too many params", json!({"params": pairs(101)})),
            ("too many tags", json!({"tags": pairs(101)})),
            ("too much", json!({"metrics": many(950), "params": pairs(51)})),
            ("a bad name", json!({"metrics": [good, metric("a//b", 1)]})),
            ("no value", json!({"metrics": [good, {"key": "a", "timestamp": 1}]})),
            ("no time", json!({"metrics": [good, {"key": "a", "value": 1}]})),
            ("before 1970", json!({"metrics": [good, metric("a", -1)]})),
            ("no number", json!({"metrics": [good, {"key": "a", "value": "x", "timestamp": 1}]})),
            ("no name", json!({"metrics": [good], "tags": [{"value": "x"}]})),
            ("a changed param", json!({"metrics": [good], "params": [{"key": "new", "value": "1"}, {"key": "lr", "value": "9"}]})),
            ("a param twice", json!({"params": [{"key": "p", "value": "1"}, {"key": "p", "value": "1"}]})),
            ("a tag of ours", json!({"metrics": [good], "tags": [{"key": "trainyard.key", "value": "x"}]})),
            ("a NUL", json!({"metrics": [good], "params": [{"key": "p", "value": "a\u{0}b"}]})),
        ] {
            let mut batch = batch;
            batch["run_id"] = json!(run);
            is_refused(what, &mlflow.post("runs/log-batch", batch).await);
        }
        let elsewhere = json!({"run_id": run, "metrics": [good, {"key": "a", "value": 1, "timestamp": 1, "model_id": "m-0"}]});
        let told = mlflow.post("runs/log-batch", elsewhere).await;
        assert_eq!(told.0, StatusCode::NOT_FOUND, "{told:?}");
        assert_eq!(picture(&world, &mlflow).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_elsewhere_cannot_call() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        mlflow.run().await;
        let before = picture(&world, &mlflow).await;
        let create = "/api/2.0/mlflow/runs/create";
        let body = r#"{"experiment_id": "0"}"#;
        let json = "Content-Type: application/json\r\n";
        for headers in [
            "Host: evil.example\r\n",
            "Host: 127.0.0.1.evil.example\r\n",
            "Origin: http://evil.example\r\n",
            "Origin: null\r\n",
        ] {
            let told = mlflow
                .raw("POST", create, &format!("{headers}{json}"), body)
                .await;
            is_refused(headers, &told);
            assert_eq!(told.0, StatusCode::FORBIDDEN);
        }
        let read = "/api/2.0/mlflow/experiments/get?experiment_id=0";
        let told = mlflow.raw("GET", read, "Host: evil.example\r\n", "").await;
        assert_eq!(told.0, StatusCode::FORBIDDEN, "{told:?}");
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "text/json",
            "",
        ] {
            let headers = match kind {
                "" => String::new(),
                kind => format!("Content-Type: {kind}\r\n"),
            };
            is_refused(kind, &mlflow.raw("POST", create, &headers, body).await);
            let remove = "/api/2.0/mlflow/registered-models/delete";
            let told = mlflow
                .raw("DELETE", remove, &headers, r#"{"name": "x"}"#)
                .await;
            is_refused(kind, &told);
        }
        for body in ["{", "[1]", "nothing", "\"text\""] {
            is_refused(body, &mlflow.raw("POST", create, json, body).await);
        }
        assert_eq!(picture(&world, &mlflow).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_left_is_written_by_its_job_alone() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let run = of_a_job(&world).await;
        let before = picture(&world, &mlflow).await;
        let at = now();
        for (call, ask) in [
            ("runs/log-metric", json!({"key": "acc", "value": 1, "timestamp": at})),
            ("runs/log-parameter", json!({"key": "lr", "value": "1"})),
            ("runs/log-batch", json!({"metrics": [{"key": "acc", "value": 1, "timestamp": at}]})),
            ("runs/update", json!({"status": "FAILED"})),
            ("runs/log-inputs", json!({"datasets": [{"dataset": {"name": "d", "digest": "1", "source_type": "s", "source": "s"}}]})),
            ("runs/delete-tag", json!({"key": "trainyard.commit"})),
            ("logged-models", json!({"experiment_id": "0", "name": "m"})),
        ] {
            let mut ask = ask;
            ask["run_id"] = json!(run);
            ask["source_run_id"] = json!(run);
            let told = mlflow.post(call, ask).await;
            assert_eq!(told.0, StatusCode::FORBIDDEN, "{call}: {told:?}");
            is_refused(call, &told);
        }
        let (_, got) = mlflow.get(&format!("runs/get?run_id={run}")).await;
        let uri = got["run"]["info"]["artifact_uri"].as_str().unwrap();
        let path = uri.strip_prefix("mlflow-artifacts:").unwrap();
        let address = format!("/api/2.0/mlflow-artifacts/artifacts{path}/model/weights.bin");
        for method in ["PUT", "DELETE"] {
            is_refused(method, &mlflow.raw(method, &address, "", "x").await);
        }
        let version = json!({"name": "digits", "version": "1"});
        for (method, call) in [
            (Method::DELETE, "model-versions/delete"),
            (Method::DELETE, "registered-models/delete"),
            (Method::POST, "registered-models/rename"),
        ] {
            let mut ask = version.clone();
            ask["new_name"] = json!("mine");
            is_refused(call, &mlflow.call(method, call, ask).await);
        }
        assert_eq!(picture(&world, &mlflow).await, before);

        let tag = json!({"run_id": run, "key": "looked at", "value": "yes"});
        mlflow.done("runs/set-tag", tag).await;
        let alias = json!({"name": "digits", "alias": "champion", "version": "1"});
        mlflow.done("registered-models/alias", alias).await;
    })
    .await;
}

/// The run of a job that succeeded on the default branch and left a model.
pub(super) async fn of_a_job(world: &World) -> String {
    use protocol::event::{Artifact, ArtifactRole};
    use protocol::report::MetricValue;
    use protocol::spec::ModelSpec;
    use protocol::{ByteSize, Digest, Outcome, Timestamp};
    use server::registry::Registrar;
    use server::store::{blobs, projects};

    let agent = world.agent("host").await;
    let job = world
        .queue_job_with("digits", |spec| {
            spec.model = Some(ModelSpec {
                name: "digits".to_owned(),
                path: "model".to_owned(),
            });
        })
        .await;
    let order = agent.begin().await;
    let server = world.server();
    let blob = Digest::of("weights");
    server.blobs.put(&blob, "weights").await.unwrap();
    let mut tx = server.store.begin().await.unwrap();
    projects::checked(&mut tx, &job.project, Some("main"), Timestamp(1))
        .await
        .unwrap();
    let agents = server::store::agents::all(&mut tx).await.unwrap();
    blobs::insert(&mut tx, &blob, 7, &agents[0].id, Timestamp(1))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut report = crate::support::report(Outcome::Succeeded);
    report.artifacts = vec![Artifact {
        role: ArtifactRole::Model,
        path: "weights.bin".to_owned(),
        blob,
        size: ByteSize(7),
    }];
    report.metrics = vec![MetricValue {
        name: "accuracy".to_owned(),
        value: 0.97,
        step: 3,
    }];
    agent.finish(&order, &report).await.unwrap();
    let mut registrar = Registrar::new(server.store.clone());
    registrar.tick(Timestamp::now()).await.unwrap();
    let mut db = server.store.read().await.unwrap();
    let run = server::store::registry::succeeded_run(&mut db, &job.id).await;
    run.unwrap().expect("the job has a run")
}
