//! What the code of a job registers: versions that stand by the job's success, and by whom the commit is trusted.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_code_registers_becomes_a_version_with_the_jobs_success() {
    on_both(Times::default(), |world| async move {
        let project = project(&world, "digits").await;
        let agent = world.agent("a").await;
        let mlflow = Mlflow::of(&world);
        let failed = Outcome::Failed(Failure::new(FailureKind::CommandFailed, "exit code 1"));
        for (number, outcome) in [(1, failed), (2, Outcome::Succeeded)] {
            queue(&world, &project, number, Trust::Trusted, |_| ()).await;
            let order = agent.begin().await;
            let code = Code {
                agent: &agent,
                order: &order,
            };
            let (status, told) = code
                .post(1, "registered-models/create", json!({"name": "clf"}))
                .await;
            match number {
                1 => assert_eq!(status, StatusCode::OK, "{told}"),
                _ => assert_eq!(told["error_code"], "RESOURCE_ALREADY_EXISTS"),
            }
            let mut model = json!({"experiment_id": "0", "name": "m"});
            // The second logs its model in a run of its own making.
            if number == 2 {
                let nested = json!({"experiment_id": "0", "run_name": "nested"});
                let nested = code.done(2, "runs/create", nested).await;
                model["source_run_id"] = nested["run"]["info"]["run_id"].clone();
            }
            let model = code.done(3, "logged-models", model).await;
            let model = &model["model"]["info"];
            if number == 1 {
                assert_eq!(
                    model["source_run_id"],
                    code.run(),
                    "what is logged outside of a run is the attempt's"
                );
            }
            let id = model["model_id"].as_str().unwrap();
            let version = json!({"name": "clf", "source": format!("models:/{id}"), "model_id": id});
            let (status, told) = code.post(4, "model-versions/create", version.clone()).await;
            assert_eq!(
                status,
                StatusCode::BAD_REQUEST,
                "it has no file yet: {told}"
            );
            let place = model["artifact_uri"].as_str().unwrap();
            let place = place.strip_prefix("mlflow-artifacts:/").unwrap();
            agent.upload(&order, "weights").await;
            code.put(4, &format!("{place}/model.pkl"), "weights").await;
            let told = code.done(5, "model-versions/create", version).await;
            assert_eq!(
                told["model_version"]["version"], "0",
                "a candidate has no number"
            );
            assert_eq!(told["model_version"]["status"], "READY");
            agent.upload(&order, "later").await;
            code.put(6, &format!("{place}/model.pkl"), "later").await;
            agent.finish(&order, &report(outcome)).await.unwrap();
            agent
                .poll(
                    vec![crate::support::released(&order.attempt, order.generation)],
                    protocol::Span(0),
                )
                .await;
            tick(&world).await;
        }
        let (_, found) = mlflow.get("model-versions/search").await;
        let found = found["model_versions"].as_array().unwrap();
        assert_eq!(found.len(), 1, "of the failed job only a candidate is left");
        assert_eq!(found[0]["version"], "1");
        let left_by_a_job = json!({"name": "clf", "version": "1"});
        let (status, told) = mlflow
            .call(Method::DELETE, "model-versions/delete", left_by_a_job)
            .await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{told}");
        let shown = server::registry::model(&world.server().store, "clf")
            .await
            .unwrap();
        assert_eq!(shown.items.len(), 2);
        assert_eq!(shown.model.project.as_deref(), Some("digits"));
        lineage_of_what_the_code_registered(&world, &mlflow, &shown.items).await;
        files_of_what_the_code_registered(&world).await;

        let other = self::project(&world, "letters").await;
        queue(&world, &other, 1, Trust::Trusted, |_| ()).await;
        let order = agent.begin().await;
        let code = Code {
            agent: &agent,
            order: &order,
        };
        let source = format!("runs:/{}/m", code.run());
        let version = json!({"name": "clf", "source": source, "run_id": code.run()});
        let said = code.denied(1, "model-versions/create", version).await;
        assert!(said.contains("project's"), "{said}");
    })
    .await;
}

/// The edge to what the job went on from is drawn from what its code registered too, and holds it.
async fn lineage_of_what_the_code_registered(world: &World, mlflow: &Mlflow, left: &[Version]) {
    let store = &world.server().store;
    let run = mlflow.run().await;
    let base = json!({"name": "base"});
    mlflow.done("registered-models/create", base).await;
    let source = format!("runs:/{run}/m");
    let base = json!({"name": "base", "source": source, "run_id": run});
    mlflow.done("model-versions/create", base).await;
    let (one, latest) = (VersionRef::Number(1), VersionRef::Latest);
    let version = async |model: &str| server::registry::version(store, model, &one).await.unwrap();
    let base = version("base").await.version;
    let done = left.iter().find(|left| left.version == Some(1)).unwrap();
    let job = &done.origin.as_ref().unwrap().job;
    let mut tx = store.begin().await.unwrap();
    let found = models::by_run(&mut tx, done.run.as_ref().unwrap()).await;
    assert_eq!(found.unwrap().unwrap().id, done.id);
    parents::insert(&mut tx, job, &base.id, "base@best")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let ancestors = version("clf").await.ancestors;
    assert_eq!(ancestors[0].model.as_deref(), Some("base"));
    let descendants = version("base").await.descendants;
    let descendants: Vec<_> = descendants.iter().map(|one| one.id.clone()).collect();
    assert_eq!(descendants, [Some(done.id.clone())]);
    let removed = server::registry::remove(store, "base", &latest, "ana", "old").await;
    let refused = removed.unwrap_err().to_string();
    assert!(
        refused.contains("version 1 of 'clf' goes on from it"),
        "{refused}"
    );
}

/// A version has the files that lay there when it was registered, and takes them along when it goes.
async fn files_of_what_the_code_registered(world: &World) {
    let store = &world.server().store;
    let one = VersionRef::Number(1);
    let version = server::registry::version(store, "clf", &one).await.unwrap();
    let blobs: Vec<_> = version.files.iter().map(|file| &file.blob).collect();
    assert_eq!(blobs, [&Digest::of("weights")]);
    let mut db = store.read().await.unwrap();
    let (weights, later) = (Digest::of("weights"), Digest::of("later"));
    let links = server::store::blobs::links(&mut db, &weights, 9).await;
    let links = links.unwrap().join("\n");
    let candidate = links.matches("model version clf").count();
    assert_eq!(candidate, 2, "a candidate has no number: {links}");
    let kept = async |db: &mut _| {
        let links = server::store::blobs::links(db, &later, 9).await;
        links.unwrap().len()
    };
    assert_eq!(kept(&mut db).await, 2);
    server::registry::remove(store, "clf", &one, "ana", "leaked labels")
        .await
        .unwrap();
    let now = Timestamp::now();
    let hour = protocol::Span::hours(1);
    let emptied = server::registry::empty(store, now + hour, now).await;
    assert_eq!(emptied.unwrap(), 1);
    assert_eq!(kept(&mut db).await, 1, "what the other candidate has stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_nobody_trusts_registers_nothing_and_sees_its_own() {
    on_both(Times::default(), |world| async move {
        let project = project(&world, "digits").await;
        let agent = world.agent("a").await;
        let mlflow = Mlflow::of(&world);
        let peoples = mlflow.run().await;
        mlflow
            .done("registered-models/create", json!({"name": "secret"}))
            .await;
        queue(&world, &project, 1, Trust::Untrusted, |_| ()).await;
        let order = agent.begin().await;
        let code = Code {
            agent: &agent,
            order: &order,
        };
        code.done(1, "runs/log-metric", metric(code.run(), "acc", 0.5, 0))
            .await;
        let (status, _) = code.get(&format!("runs/get?run_id={}", code.run())).await;
        assert_eq!(status, StatusCode::OK);
        for hidden in [
            format!("runs/get?run_id={peoples}"),
            format!("metrics/get-history?run_id={peoples}&metric_key=acc"),
            format!("artifacts/list?run_id={peoples}"),
            "experiments/get?experiment_id=0".to_owned(),
        ] {
            assert_eq!(code.get(&hidden).await.0, StatusCode::NOT_FOUND, "{hidden}");
        }
        for denied in [
            "registered-models/get?name=secret",
            "model-versions/search",
            "experiments/search",
        ] {
            assert_eq!(code.get(denied).await.0, StatusCode::FORBIDDEN, "{denied}");
        }
        let (status, _) = code
            .post(2, "runs/search", json!({"experiment_ids": ["0"]}))
            .await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        code.done(2, "registered-models/create", json!({"name": "mine"}))
            .await;
        for hidden in ["models:/secret/3", "models:/secret@best", "models:/none/1"] {
            let version = json!({"name": "mine", "source": hidden});
            let (status, told) = code.post(3, "model-versions/create", version).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
            let message = told["message"].as_str().unwrap();
            assert!(message.contains("is not inside"), "{message}");
        }
        let source = format!("runs:/{}/m", code.run());
        let version = json!({"name": "mine", "source": source, "run_id": code.run()});
        let told = code.done(3, "model-versions/create", version).await;
        assert_eq!(told["model_version"]["version"], "0");
        agent
            .finish(&order, &report(Outcome::Succeeded))
            .await
            .unwrap();
        tick(&world).await;
        let (_, models) = mlflow.get("registered-models/search").await;
        assert_eq!(
            models["registered_models"].as_array().unwrap().len(),
            1,
            "only the person's"
        );
        let (_, told) = mlflow.get(&format!("runs/get?run_id={}", code.run())).await;
        let tags = values(&told["run"]["data"]["tags"]);
        assert!(
            tags.contains(&("trainyard.not_registered".into(), "mine".into())),
            "{tags:?}"
        );
    })
    .await;
}
