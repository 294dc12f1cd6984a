//! Who may call, and what is answered to everybody.

use protocol::api::{NewToken, Role};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use server::tokens;

use super::Mlflow;
use crate::support::{Times, World, on_both};

async fn token(world: &World, role: Role) -> String {
    let wanted = NewToken {
        name: role.word().to_owned(),
        role,
    };
    let made = tokens::create(&world.server().store, &wanted, "test").await;
    made.unwrap().token
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_as_a_bearer_or_as_a_password() {
    on_both(Times::default(), |world| async move {
        let (reads, runs) = (
            token(&world, Role::Read).await,
            token(&world, Role::Run).await,
        );
        token(&world, Role::Admin).await;
        let mlflow = Mlflow::of(&world);
        let http = Client::builder().no_proxy().build().unwrap();
        let address = |call: &str| format!("{}/api/2.0/mlflow/{call}", mlflow.url);
        let get = || http.get(address("experiments/get?experiment_id=0"));
        let create = || {
            http.post(address("runs/create"))
                .json(&json!({"experiment_id": "0"}))
        };
        for (request, expected, code) in [
            (get(), StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
            (
                get().bearer_auth("ty_wrong"),
                StatusCode::UNAUTHORIZED,
                "UNAUTHENTICATED",
            ),
            (
                get().basic_auth("ana", Some("wrong")),
                StatusCode::UNAUTHORIZED,
                "UNAUTHENTICATED",
            ),
            (
                get().header("authorization", "Basic !!!"),
                StatusCode::UNAUTHORIZED,
                "UNAUTHENTICATED",
            ),
            (get().bearer_auth(&reads), StatusCode::OK, ""),
            (
                get().basic_auth("whoever", Some(&reads)),
                StatusCode::OK,
                "",
            ),
            (create(), StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
            (
                create().bearer_auth(&reads),
                StatusCode::FORBIDDEN,
                "PERMISSION_DENIED",
            ),
            (create().bearer_auth(&runs), StatusCode::OK, ""),
            (create().basic_auth("ana", Some(&runs)), StatusCode::OK, ""),
        ] {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), expected);
            let body: Value = answer.json().await.unwrap();
            assert_eq!(
                body["error_code"].as_str().unwrap_or_default(),
                code,
                "{body}"
            );
        }
        let root = format!("{}/api/2.0/mlflow-artifacts/artifacts", mlflow.url);
        let file = format!("{root}/0/{}/artifacts/a", "0".repeat(32));
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let answer = http.request(method, &file).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        }
        for open in ["/health", "/version", "/api/3.0/mlflow/server-info"] {
            let answer = http
                .get(format!("{}{open}", mlflow.url))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{open}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_done_here_says_so_in_mlflows_form() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        for (method, path, status, code) in [
            ("POST", "/api/3.0/mlflow/traces", 501, "NOT_IMPLEMENTED"),
            (
                "POST",
                "/api/2.0/mlflow/traces/search",
                501,
                "NOT_IMPLEMENTED",
            ),
            ("GET", "/api/2.0/mlflow/webhooks", 501, "NOT_IMPLEMENTED"),
            (
                "POST",
                "/api/2.0/mlflow-artifacts/mpu/create/0/x",
                501,
                "NOT_IMPLEMENTED",
            ),
            (
                "GET",
                "/api/2.0/mlflow-artifacts/presigned/0/x",
                501,
                "NOT_IMPLEMENTED",
            ),
            (
                "GET",
                "/api/3.0/mlflow/datasets/get",
                501,
                "NOT_IMPLEMENTED",
            ),
            ("GET", "/api/2.0/mlflow/nothing", 404, "ENDPOINT_NOT_FOUND"),
            (
                "DELETE",
                "/api/2.0/mlflow/runs/create",
                404,
                "ENDPOINT_NOT_FOUND",
            ),
            (
                "POST",
                "/api/2.0/mlflow-artifacts/artifacts",
                404,
                "ENDPOINT_NOT_FOUND",
            ),
        ] {
            let (found, body) = mlflow.raw(method, path, "", "").await;
            assert_eq!(
                (found.as_u16(), body["error_code"].as_str()),
                (status, Some(code)),
                "{path}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_the_registry_is_written_down() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let run = mlflow.run().await;
        mlflow
            .done("registered-models/create", json!({"name": "digits"}))
            .await;
        let version = json!({"name": "digits", "source": format!("runs:/{run}/m"), "run_id": run});
        mlflow.done("model-versions/create", version).await;
        let alias = json!({"name": "digits", "alias": "champion", "version": "1"});
        mlflow.done("registered-models/alias", alias).await;
        mlflow.done("runs/delete", json!({"run_id": run})).await;
        let named = json!({"name": "digits"});
        mlflow
            .call(Method::DELETE, "registered-models/delete", named)
            .await;
        let mut db = world.server().store.read().await.unwrap();
        let log = server::store::access::audit(&mut db, 10).await.unwrap();
        let actions: Vec<&str> = log
            .iter()
            .rev()
            .map(|entry| entry.action.as_str())
            .collect();
        let deleted = format!("delete run {run}");
        for expected in [
            "alias digits@champion to version 1",
            &deleted,
            "delete model digits",
        ] {
            assert!(actions.contains(&expected), "{actions:?}");
        }
        assert!(log.iter().all(|entry| entry.who == "local"));
    })
    .await;
}
