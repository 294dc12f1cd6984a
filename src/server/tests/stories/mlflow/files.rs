//! Files of runs: how they come, go, and are shown.

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::{Mlflow, picture};
use crate::bucket::Server as Bucket;
use crate::support::{Times, World, on_both};

struct Files {
    http: Client,
    root: String,
}

impl Files {
    fn of(mlflow: &Mlflow, run: &str) -> Self {
        Self {
            http: Client::builder().no_proxy().build().unwrap(),
            root: format!(
                "{}/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts",
                mlflow.url
            ),
        }
    }

    async fn put(&self, path: &str, bytes: impl Into<reqwest::Body>) -> StatusCode {
        let request = self.http.put(format!("{}/{path}", self.root)).body(bytes);
        request.send().await.unwrap().status()
    }

    async fn part(&self, path: &str, range: &str) -> (StatusCode, String, Vec<u8>) {
        let request = self.http.get(format!("{}/{path}", self.root));
        let answer = request.header("range", range).send().await.unwrap();
        let said = answer.headers().get("content-range");
        let said = said.map_or("", |text| text.to_str().unwrap()).to_owned();
        (
            answer.status(),
            said,
            answer.bytes().await.unwrap().to_vec(),
        )
    }
}

/// One goes up, and comes down whole and in parts.
async fn given_in_parts(world: &World) {
    let mlflow = Mlflow::of(world);
    let files = Files::of(&mlflow, &mlflow.run().await);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    assert_eq!(files.put("deep/a.bin", bytes.clone()).await, StatusCode::OK);
    let whole = files
        .http
        .get(format!("{}/deep/a.bin", files.root))
        .send()
        .await
        .unwrap();
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    assert_eq!(whole.content_length(), Some(3_000_000));
    assert_eq!(whole.bytes().await.unwrap(), bytes);
    for (range, expected) in [
        ("bytes=0-9", 0..10),
        ("bytes=2999990-", 2_999_990..3_000_000),
        ("bytes=-5", 2_999_995..3_000_000),
        ("bytes=1000000-1999999", 1_000_000..2_000_000),
    ] {
        let (status, said, part) = files.part("deep/a.bin", range).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(
            said,
            format!("bytes {}-{}/3000000", expected.start, expected.end - 1)
        );
        assert_eq!(part, bytes[expected]);
    }
    let (status, said, _) = files.part("deep/a.bin", "bytes=3000000-").await;
    assert_eq!(
        (status, said.as_str()),
        (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */3000000")
    );
    let nothing = files
        .http
        .get(format!("{}/deep/b.bin", files.root))
        .send()
        .await
        .unwrap();
    assert_eq!(nothing.status(), StatusCode::NOT_FOUND);
    let body: Value = nothing.json().await.unwrap();
    assert_eq!(body["error_code"], "RESOURCE_DOES_NOT_EXIST");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_given_whole_and_in_parts() {
    on_both(Times::default(), |world| async move {
        given_in_parts(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_a_bucket_is_given_whole_and_in_parts() {
    let Some(bucket) = Bucket::start() else {
        return;
    };
    let setting = bucket.setting("secret");
    on_both(Times::default(), |world| {
        let setting = setting.clone();
        async move {
            let world = world.restart_with(|config| config.s3 = Some(setting)).await;
            given_in_parts(&world).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_a_job_left_is_a_download() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let files = Files::of(&mlflow, &mlflow.run().await);
        let page = "<script>alert(1)</script>";
        assert_eq!(files.put("report.html", page).await, StatusCode::OK);
        let answer = files
            .http
            .get(format!("{}/report.html", files.root))
            .send()
            .await
            .unwrap();
        let headers = answer.headers();
        assert_eq!(headers["content-type"], "application/octet-stream");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(
            headers["content-disposition"]
                .to_str()
                .unwrap()
                .starts_with("attachment;")
        );
        assert!(
            headers["content-security-policy"]
                .to_str()
                .unwrap()
                .contains("sandbox")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_is_kept_once_and_a_file_is_no_folder() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let run = mlflow.run().await;
        let files = Files::of(&mlflow, &run);
        for path in ["a", "b/c", "b/d/e"] {
            assert_eq!(files.put(path, "same").await, StatusCode::OK);
        }
        assert_eq!(blobs(&world), 1);
        let before = picture(&world, &mlflow).await;
        for path in ["b", "a/x", "b/c/d"] {
            assert_eq!(
                files.put(path, "same").await,
                StatusCode::BAD_REQUEST,
                "{path}"
            );
        }
        assert_eq!(picture(&world, &mlflow).await, before);
        let (_, listed) = mlflow
            .get(&format!("artifacts/list?run_id={run}&path=b"))
            .await;
        let expected = json!([
            {"path": "b/c", "is_dir": false, "file_size": 4},
            {"path": "b/d", "is_dir": true},
        ]);
        assert_eq!(listed["files"], expected);
        let gone = files
            .http
            .delete(format!("{}/b", files.root))
            .send()
            .await
            .unwrap();
        assert_eq!(gone.status(), StatusCode::OK);
        let (_, listed) = mlflow.get(&format!("artifacts/list?run_id={run}")).await;
        assert_eq!(listed["files"].as_array().unwrap().len(), 1, "{listed}");
    })
    .await;
}

fn blobs(world: &World) -> usize {
    super::files_below(&world.folder.path().join("server/blobs/sha256"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_nothing() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let run = mlflow.run().await;
        let before = picture(&world, &mlflow).await;
        let pieces = futures_util::stream::iter([
            Ok("half of it"),
            Err(std::io::Error::other("the cable is cut")),
        ]);
        let files = Files::of(&mlflow, &run);
        let request = files.http.put(format!("{}/a.bin", files.root));
        let broken = request
            .body(reqwest::Body::wrap_stream(pieces))
            .send()
            .await;
        assert!(broken.is_err() || !broken.unwrap().status().is_success());
        world
            .until("nothing is left of it", || async {
                picture(&world, &mlflow).await == before
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_the_server_is_told_before_it_comes() {
    on_both(Times::default(), |world| async move {
        let world = world
            .restart_with(|config| config.blob_limit = protocol::ByteSize(1_000))
            .await;
        let mlflow = Mlflow::of(&world);
        let files = Files::of(&mlflow, &mlflow.run().await);
        let before = picture(&world, &mlflow).await;
        assert_eq!(
            files.put("a", vec![0; 1_001]).await,
            StatusCode::BAD_REQUEST
        );
        let pieces = (0..3).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 500]));
        let unsaid = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        assert_eq!(files.put("a", unsaid).await, StatusCode::BAD_REQUEST);
        assert_eq!(picture(&world, &mlflow).await, before);
        assert_eq!(files.put("a", vec![0; 1_000]).await, StatusCode::OK);

        // Nothing has that much room.
        let world = world
            .restart_with(|config| config.disk_reserve = protocol::ByteSize::gib(1 << 30))
            .await;
        let mlflow = Mlflow::of(&world);
        let files = Files::of(&mlflow, &mlflow.run().await);
        assert_eq!(files.put("b", "x").await, StatusCode::SERVICE_UNAVAILABLE);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_is_lost_is_not_asked_for_again_and_again() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let files = Files::of(&mlflow, &mlflow.run().await);
        assert_eq!(files.put("a", "content").await, StatusCode::OK);
        let lost = protocol::Digest::of("content");
        world.server().blobs.remove(&lost).await.unwrap();
        let (status, _, body) = files.part("a", "bytes=0-3").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(told["error_code"], "RESOURCE_DOES_NOT_EXIST");
        assert!(told["message"].as_str().unwrap().contains("fsck"), "{told}");
        assert_eq!(files.put("a", "content").await, StatusCode::OK);
        assert_eq!(files.part("a", "bytes=0-3").await.2, b"cont");
    })
    .await;
}
