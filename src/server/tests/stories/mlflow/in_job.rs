//! What the code of a job may do in the registry, brought by its agent: to its own run and to runs that it began, each call
//! once, whatever is repeated.

mod registered;

use protocol::agent_api::{AttemptOrder, BLOB_HEADER, CALL_HEADER};
use protocol::registry::{Version, VersionRef};
use protocol::report::MetricValue;
use protocol::spec::{Goal, MetricSpec, Trust};
use protocol::{Digest, Failure, FailureKind, JobSpec, Outcome, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use server::registry::Registrar;
use server::store::projects::Project;
use server::store::{jobs, models, parents, pipelines, projects, registry, testing};

use super::{Mlflow, Told};
use crate::support::{Agent, Times, World, on_both, report};

const API: &str = "api/2.0/mlflow";

/// The code of an attempt, as its agent brings its calls.
struct Code<'a> {
    agent: &'a Agent,
    order: &'a AttemptOrder,
}

impl Code<'_> {
    fn run(&self) -> &str {
        self.order.run.as_deref().unwrap()
    }

    async fn bring(
        &self,
        method: Method,
        address: &str,
        number: Option<u64>,
        with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Told {
        let Agent { http, url, .. } = self.agent;
        let url = format!("{url}/attempts/{}/registry/{address}", self.order.attempt);
        let mut request = http.request(method, url).bearer_auth(&self.agent.secret);
        if let Some(number) = number {
            request = request.header(CALL_HEADER, number);
        }
        let answer = with(request).send().await.unwrap();
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    async fn post(&self, number: u64, call: &str, body: Value) -> Told {
        let address = format!("{API}/{call}");
        self.bring(Method::POST, &address, Some(number), |r| r.json(&body))
            .await
    }

    async fn done(&self, number: u64, call: &str, body: Value) -> Value {
        let (status, told) = self.post(number, call, body).await;
        assert_eq!(status, StatusCode::OK, "{call}: {told}");
        told
    }

    async fn denied(&self, number: u64, call: &str, body: Value) -> String {
        let (status, told) = self.post(number, call, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{call}: {told}");
        assert_eq!(told["error_code"], "PERMISSION_DENIED");
        told["message"].as_str().unwrap().to_owned()
    }

    async fn get(&self, call: &str) -> Told {
        let address = format!("{API}/{call}");
        self.bring(Method::GET, &address, None, |r| r).await
    }

    async fn put(&self, number: u64, path: &str, content: &'static str) -> Told {
        let address = format!("api/2.0/mlflow-artifacts/artifacts/{path}");
        let blob = Digest::of(content);
        self.bring(Method::PUT, &address, Some(number), |r| {
            r.header(BLOB_HEADER, blob.as_str())
        })
        .await
    }
}

async fn project(world: &World, name: &str) -> Project {
    let mut project = testing::project(name);
    project.default_branch = Some("main".to_owned());
    let mut tx = world.server().store.begin().await.unwrap();
    projects::insert(&mut tx, &project).await.unwrap();
    tx.commit().await.unwrap();
    project
}

/// A queued job of a push to the default branch.
async fn queue(
    world: &World,
    project: &Project,
    number: u64,
    trust: Trust,
    change: impl FnOnce(&mut JobSpec),
) {
    let mut tx = world.server().store.begin().await.unwrap();
    let mut pipeline = testing::pipeline(project, number);
    pipeline.trigger.trust = trust;
    pipelines::insert(&mut tx, &pipeline).await.unwrap();
    let mut job = testing::job(&pipeline, "train");
    job.trust = trust;
    change(&mut job.spec);
    jobs::insert(&mut tx, &job).await.unwrap();
    tx.commit().await.unwrap();
    world.server().live.queue_changed();
}

async fn tick(world: &World) {
    let mut registrar = Registrar::new(world.server().store.clone());
    registrar.tick(Timestamp::now()).await.unwrap();
}

fn metric(run: &str, key: &str, value: f64, step: i64) -> Value {
    json!({"run_id": run, "key": key, "value": value, "timestamp": 10 + step, "step": step})
}

fn values(list: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let pair = |one: &Value| (text(&one["key"]), text(&one["value"]));
    list.as_array().into_iter().flatten().map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_logs_to_the_run_that_is_there_and_what_the_job_measured_stands_beside_it() {
    on_both(Times::default(), |world| async move {
        let project = project(&world, "digits").await;
        queue(&world, &project, 1, Trust::Trusted, |spec| {
            spec.parameters.insert("lr".into(), json!(1e-5));
            spec.parameters.insert("epochs".into(), json!(3));
            let goal = MetricSpec { goal: Goal::Maximize, max_regression: Some(0.1) };
            spec.metrics.insert("acc".into(), goal);
        })
        .await;
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        let code = Code { agent: &agent, order: &order };
        let mlflow = Mlflow::of(&world);

        let own = format!("runs/get?run_id={}", code.run());
        let (_, told) = code.get(&own).await;
        let run = &told["run"];
        assert_eq!(run["info"]["status"], "RUNNING");
        assert_eq!(run["info"]["end_time"], Value::Null);
        let params = values(&run["data"]["params"]);
        assert_eq!(params, [("epochs".into(), "3".into()), ("lr".into(), "0.00001".into())]);
        let tags = values(&run["data"]["tags"]);
        assert!(tags.contains(&("trainyard.attempt".into(), order.attempt.to_string())));
        let (_, home) = code.get("experiments/get-by-name?experiment_name=whatever").await;
        assert_eq!(home["experiment"]["name"], "digits/train");
        assert_eq!(home["experiment"]["experiment_id"], run["info"]["experiment_id"]);

        code.done(1, "runs/update", json!({"run_id": code.run(), "status": "RUNNING", "run_name": "first"})).await;
        code.done(2, "runs/log-parameter", json!({"run_id": code.run(), "key": "lr", "value": "1e-05"})).await;
        code.done(3, "runs/log-metric", metric(code.run(), "acc", 0.9, 0)).await;
        code.done(4, "runs/log-metric", metric(code.run(), "acc", 0.95, 1)).await;
        let nested = json!({"experiment_id": "0", "tags": [{"key": "mlflow.parentRunId", "value": code.run()}]});
        let nested = code.done(5, "runs/create", nested).await;
        assert_eq!(nested["run"]["info"]["experiment_id"], run["info"]["experiment_id"]);
        let nested = nested["run"]["info"]["run_id"].as_str().unwrap().to_owned();
        code.done(6, "runs/log-metric", metric(&nested, "loss", 1.0, 0)).await;
        agent.upload(&order, "weights").await;
        let folder = run["info"]["artifact_uri"].as_str().unwrap();
        let folder = folder.strip_prefix("mlflow-artifacts:/").unwrap();
        let (status, told) = code.put(7, &format!("{folder}/plots/a.png"), "weights").await;
        assert_eq!(status, StatusCode::OK, "{told}");
        let (status, _) = code.put(8, &format!("{folder}/b"), "never uploaded").await;
        assert_eq!(status, StatusCode::CONFLICT);
        code.done(8, "runs/update", json!({"run_id": code.run(), "status": "FINISHED", "end_time": 5})).await;
        let (_, told) = code.get(&own).await;
        assert_eq!(told["run"]["info"]["status"], "RUNNING", "an attempt ends when it ends");

        let mut left = report(Outcome::Succeeded);
        let value = |name: &str, value| MetricValue { name: name.into(), value, step: 0 };
        left.metrics = vec![value("f1", 0.5), value("acc", 0.95)];
        left.params.insert("epochs".into(), "3".into());
        agent.finish(&order, &left).await.unwrap();
        tick(&world).await;
        tick(&world).await;
        let (_, told) = mlflow.get(&own).await;
        let run = &told["run"];
        assert_eq!(run["info"]["status"], "FINISHED");
        assert_eq!(run["info"]["run_name"], "first");
        let params = values(&run["data"]["params"]);
        assert_eq!(params, [("epochs".into(), "3".into()), ("lr".into(), "1e-05".into())]);
        let metrics = values(&run["data"]["metrics"]);
        assert_eq!(metrics, [("acc".into(), "0.95".into()), ("f1".into(), "0.5".into())]);
        let (_, curve) = mlflow.get(&format!("metrics/get-history?run_id={}&metric_key=acc", code.run())).await;
        assert_eq!(curve["metrics"].as_array().unwrap().len(), 2);
        let (_, told) = mlflow.get(&format!("runs/get?run_id={nested}")).await;
        assert_eq!(told["run"]["info"]["status"], "FINISHED", "what was left open ends with its attempt");
        let (status, _) = code.post(9, "runs/log-metric", metric(code.run(), "acc", 1.0, 2)).await;
        assert_eq!(status, StatusCode::CONFLICT, "it had its last word");
        let (status, _) = mlflow.post("runs/log-metric", metric(&nested, "acc", 1.0, 2)).await;
        assert_eq!(status, StatusCode::FORBIDDEN);

        // What was logged is judged as what was measured.
        queue(&world, &project, 2, Trust::Trusted, |spec| {
            let goal = MetricSpec { goal: Goal::Maximize, max_regression: Some(0.1) };
            spec.metrics.insert("acc".into(), goal);
        })
        .await;
        agent.poll(vec![crate::support::released(&order.attempt, 1)], protocol::Span(0)).await;
        let order = agent.begin().await;
        let code = Code { agent: &agent, order: &order };
        code.done(1, "runs/log-metric", metric(code.run(), "acc", 0.5, 0)).await;
        agent.finish(&order, &report(Outcome::Succeeded)).await.unwrap();
        let Outcome::Failed(failure) = world.outcome(&order.job).await else {
            panic!("it is worse than allowed");
        };
        assert_eq!(failure.kind, FailureKind::MetricRegressed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_does_not_write_to_anothers_run() {
    on_both(Times::default(), |world| async move {
        let project = project(&world, "digits").await;
        let agent = world.agent("a").await;
        for number in [1, 2] {
            queue(&world, &project, number, Trust::Trusted, |_| ()).await;
        }
        let one = agent.begin().await;
        let running = crate::support::running;
        let other = loop {
            let mut answer = agent.poll(vec![running(&one)], protocol::Span(200)).await;
            if let Some(order) = answer.start.pop() {
                break order;
            }
        };
        let both = vec![running(&one), running(&other)];
        agent.poll(both, protocol::Span(0)).await;
        assert_ne!(one.run, other.run);
        let mlflow = Mlflow::of(&world);
        let peoples = mlflow.run().await;
        mlflow
            .done("runs/log-metric", metric(&peoples, "acc", 0.1, 0))
            .await;
        let model_of_people = mlflow.logged_model(&peoples).await;
        let (code, theirs) = (
            Code {
                agent: &agent,
                order: &one,
            },
            Code {
                agent: &agent,
                order: &other,
            },
        );
        let nested = theirs.done(1, "runs/create", json!({})).await;
        let nested = nested["run"]["info"]["run_id"].as_str().unwrap().to_owned();
        theirs
            .done(2, "runs/log-metric", metric(&nested, "acc", 0.5, 0))
            .await;
        let before = super::picture(&world, &mlflow).await;
        for run in [theirs.run(), &nested, &peoples] {
            let said = code
                .denied(1, "runs/log-metric", metric(run, "acc", 1.0, 0))
                .await;
            assert!(said.contains("not this job's"), "{said}");
            code.denied(
                1,
                "runs/log-parameter",
                json!({"run_id": run, "key": "a", "value": "b"}),
            )
            .await;
            code.denied(
                1,
                "runs/set-tag",
                json!({"run_id": run, "key": "a", "value": "b"}),
            )
            .await;
            code.denied(1, "runs/update", json!({"run_id": run, "run_name": "mine"}))
                .await;
            code.denied(1, "runs/delete", json!({"run_id": run})).await;
            code.denied(
                1,
                "logged-models",
                json!({"experiment_id": "0", "source_run_id": run}),
            )
            .await;
            let file = format!("0/{run}/artifacts/a");
            agent.upload(&one, "content").await;
            let (status, _) = code.put(1, &file, "content").await;
            assert_eq!(status, StatusCode::FORBIDDEN);
        }
        code.denied(1, "runs/delete", json!({"run_id": code.run()}))
            .await;
        code.denied(
            1,
            "registered-models/alias",
            json!({"name": "m", "alias": "a", "version": "1"}),
        )
        .await;
        code.denied(
            1,
            "experiments/set-experiment-tag",
            json!({"experiment_id": "0", "key": "a", "value": "b"}),
        )
        .await;
        let address = format!("{API}/logged-models/{model_of_people}");
        let ready = json!({"status": "LOGGED_MODEL_READY"});
        let (status, _) = code
            .bring(Method::PATCH, &address, Some(1), |r| r.json(&ready))
            .await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let stranger = world.agent("b").await;
        let foreign = Code {
            agent: &stranger,
            order: &one,
        };
        let (status, _) = foreign
            .post(1, "runs/log-metric", metric(code.run(), "acc", 1.0, 0))
            .await;
        assert_eq!(status, StatusCode::CONFLICT, "another agent's attempt");
        let mut after = super::picture(&world, &mlflow).await;
        // The own run was begun by the first call; its file's content lies there for whoever may link it.
        after.forget_beginnings();
        let mut before = before;
        before.forget_beginnings();
        assert_eq!(before, after);
        let (status, _) = code.get(&format!("runs/get?run_id={peoples}")).await;
        assert_eq!(status, StatusCode::OK, "trusted code may look");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_brought_again_is_carried_out_once() {
    on_both(Times::default(), |world| async move {
        let project = project(&world, "digits").await;
        queue(&world, &project, 1, Trust::Trusted, |_| ()).await;
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        let code = Code {
            agent: &agent,
            order: &order,
        };
        let nested = json!({"run_name": "n", "start_time": 1});
        let (one, other) = tokio::join!(
            code.post(1, "runs/create", nested.clone()),
            code.post(1, "runs/create", nested.clone()),
        );
        let again = code.done(1, "runs/create", nested.clone()).await;
        for (status, told) in [one, other] {
            // Of two at once one may be told to ask again.
            assert!(
                status == StatusCode::OK && told == again
                    || status == StatusCode::SERVICE_UNAVAILABLE
            );
        }
        let world = world.restart().await;
        let agent = Agent {
            url: format!("{}/agent/v1", world.url),
            ..agent.clone()
        };
        let code = Code {
            agent: &agent,
            order: &order,
        };
        assert_eq!(code.done(1, "runs/create", nested).await, again);
        let tag = json!({"run_id": code.run(), "key": "k", "value": "one"});
        code.done(2, "runs/set-tag", tag.clone()).await;
        let other = json!({"run_id": code.run(), "key": "k", "value": "two"});
        code.done(3, "runs/set-tag", other).await;
        code.done(2, "runs/set-tag", tag).await;
        let late = code.done(1, "runs/create", json!({})).await;
        assert_eq!(late, json!({}), "another call's answer is not its own");
        let (_, told) = code.get(&format!("runs/get?run_id={}", code.run())).await;
        let tags = values(&told["run"]["data"]["tags"]);
        assert!(tags.contains(&("k".into(), "two".into())), "{tags:?}");
        let found = Mlflow::of(&world)
            .done(
                "runs/search",
                json!({"experiment_ids": [told["run"]["info"]["experiment_id"]]}),
            )
            .await;
        assert_eq!(found["runs"].as_array().unwrap().len(), 2);
        let address = format!("{API}/runs/set-tag");
        let unnumbered = json!({"run_id": code.run(), "key": "k", "value": "three"});
        let (status, _) = code
            .bring(Method::POST, &address, None, |r| r.json(&unnumbered))
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_of_an_attempt_that_nobody_believes_any_more_ends_and_says_so() {
    on_both(Times::default(), |world| async move {
        let project = project(&world, "digits").await;
        queue(&world, &project, 1, Trust::Trusted, |_| ()).await;
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        tick(&world).await;
        let code = Code {
            agent: &agent,
            order: &order,
        };
        let own = format!("runs/get?run_id={}", code.run());
        let mlflow = Mlflow::of(&world);
        assert_eq!(mlflow.get(&own).await.1["run"]["info"]["status"], "RUNNING");
        let nested = code.done(1, "runs/create", json!({})).await;
        let gone = Failure::new(FailureKind::AgentLost, "host a was not heard of for 10 min");
        let fate = server::store::attempts::Fate::Abandoned;
        server::fleet::finish::without_report(
            world.server(),
            &order.attempt,
            fate,
            Outcome::Failed(gone),
        )
        .await
        .unwrap();
        tick(&world).await;
        let (_, told) = mlflow.get(&own).await;
        let run = &told["run"];
        assert_eq!(run["info"]["status"], "KILLED");
        let tags = values(&run["data"]["tags"]);
        let ended = tags
            .iter()
            .find(|(name, _)| name == "trainyard.ended")
            .unwrap();
        assert!(ended.1.contains("not heard of"), "{ended:?}");
        let nested = nested["run"]["info"]["run_id"].as_str().unwrap();
        let (_, told) = mlflow.get(&format!("runs/get?run_id={nested}")).await;
        assert_eq!(told["run"]["info"]["status"], "KILLED");
        let mut db = world.server().store.read().await.unwrap();
        assert!(
            registry::with_open_run(&mut db, 10)
                .await
                .unwrap()
                .is_empty()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_was_lost_is_brought_again() {
    on_both(Times::default(), |world| async move {
        let project = project(&world, "digits").await;
        queue(&world, &project, 1, Trust::Trusted, |_| ()).await;
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        let code = Code {
            agent: &agent,
            order: &order,
        };
        let blob = Digest::of("weights");
        let head = async || {
            let url = format!("{}/blobs/{blob}", agent.url);
            let asked = agent.http.head(url).bearer_auth(&agent.secret);
            asked.send().await.unwrap().status()
        };
        let (_, told) = code.get(&format!("runs/get?run_id={}", code.run())).await;
        let folder = told["run"]["info"]["artifact_uri"].as_str().unwrap();
        let folder = folder.strip_prefix("mlflow-artifacts:/").unwrap();
        agent.upload(&order, "weights").await;
        assert_eq!(head().await, StatusCode::OK);
        // A hand took the file; what the rows say stays.
        let contents = &world.server().blobs;
        contents.remove(&blob).await.unwrap();
        let (status, told) = code.put(1, &format!("{folder}/a"), "weights").await;
        assert_eq!(status, StatusCode::CONFLICT, "{told}");
        assert_eq!(told["error_code"], "RESOURCE_CONFLICT");
        assert_eq!(head().await, StatusCode::NOT_FOUND);
        agent.upload(&order, "weights").await;
        let (status, told) = code.put(1, &format!("{folder}/a"), "weights").await;
        assert_eq!(status, StatusCode::OK, "{told}");
        assert!(contents.exists(&blob).await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_in_an_experiment_that_somebody_deleted() {
    on_both(Times::default(), |world| async move {
        let project = project(&world, "digits").await;
        let agent = world.agent("a").await;
        let mlflow = Mlflow::of(&world);
        let mut runs = Vec::new();
        for number in [1, 2] {
            queue(&world, &project, number, Trust::Trusted, |_| ()).await;
            let order = agent.begin().await;
            let code = Code {
                agent: &agent,
                order: &order,
            };
            let (_, told) = code.get(&format!("runs/get?run_id={}", code.run())).await;
            let home = told["run"]["info"]["experiment_id"].clone();
            code.done(1, "runs/create", json!({})).await;
            let model = json!({"experiment_id": home, "name": "m", "source_run_id": code.run()});
            code.done(2, "logged-models", model).await;
            agent
                .finish(&order, &report(Outcome::Succeeded))
                .await
                .unwrap();
            let over = crate::support::released(&order.attempt, order.generation);
            agent.poll(vec![over], protocol::Span(0)).await;
            tick(&world).await;
            runs.push(code.run().to_owned());
            if number == 1 {
                let delete = json!({"experiment_id": home});
                mlflow.done("experiments/delete", delete).await;
            }
        }
        let stage = async |run: &String| {
            let (_, told) = mlflow.get(&format!("runs/get?run_id={run}")).await;
            told["run"]["info"]["lifecycle_stage"].clone()
        };
        assert_eq!(stage(&runs[0]).await, "deleted");
        assert_eq!(stage(&runs[1]).await, "active");
    })
    .await;
}
