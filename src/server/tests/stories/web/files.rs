//! Files of runs as a browser gets them: previews that cannot act.

use reqwest::StatusCode;

use super::site::{EVIL, header};
use crate::mlflow::Mlflow;
use crate::support::{Times, World, on_both};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

struct Shelf {
    world: World,
    http: reqwest::Client,
    run: String,
}

impl Shelf {
    async fn put(&self, path: &str, bytes: impl Into<reqwest::Body>) {
        let place = format!("0/{}/artifacts/{path}", self.run);
        let url = format!(
            "{}/api/2.0/mlflow-artifacts/artifacts/{place}",
            self.world.url
        );
        let answer = self.http.put(url).body(bytes).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        let url = format!("{}{path}", self.world.url);
        self.http.get(url).send().await.unwrap()
    }

    async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }
}

#[tokio::test]
async fn files_are_a_tree_and_each_has_a_safe_preview() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let shelf = Shelf {
            run: mlflow.run().await,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            world,
        };
        let html = format!("<h1>plot</h1>{EVIL}");
        shelf.put("plots/loss%20curve.png", PNG).await;
        shelf.put("plots/page.html", html.clone()).await;
        shelf
            .put(
                "plots/page.svg",
                format!("<svg onload=alert(1)>{EVIL}</svg>"),
            )
            .await;
        shelf
            .put(
                "table.csv",
                format!("a,b\n1,\"{}\"\n", EVIL.replace('"', "\"\"")),
            )
            .await;
        shelf.put("config.json", "{\"lr\":0.10}").await;
        shelf.put("model.pkl", vec![0x80, 4, 0x95, 0]).await;
        shelf.put("fake.png", html.clone()).await;
        shelf.put("long.txt", "x".repeat(300 << 10)).await;
        let (run, files) = (
            format!("/runs/{}", shelf.run),
            format!("/files/{}", shelf.run),
        );

        for place in [&run, &files] {
            let page = shelf.page(place).await;
            assert!(page.contains("<summary>plots/</summary>"), "{page}");
            assert!(page.contains(&format!("{files}/plots/loss%20curve.png")));
        }
        let folder = shelf.page(&format!("{files}/plots")).await;
        assert!(folder.contains("page.svg") && !folder.contains("config.json"));

        let json = shelf.page(&format!("{files}/config.json")).await;
        assert!(json.contains("  &#34;lr&#34;: 0.10"), "{json}");
        let table = shelf.page(&format!("{files}/table.csv")).await;
        assert!(table.contains("<th scope=\"col\">a</th>") && !table.contains("<script>alert"));
        let long = shelf.page(&format!("{files}/long.txt")).await;
        assert!(long.contains("Only the beginning is shown") && long.len() < 400 << 10);
        let pickle = shelf.page(&format!("{files}/model.pkl")).await;
        assert!(pickle.contains("There is no preview"));
        assert!(pickle.contains(&format!("/artifacts/0/{}/artifacts/model.pkl", shelf.run)));

        for name in ["page.html", "page.svg"] {
            let page = shelf.page(&format!("{files}/plots/{name}")).await;
            assert!(
                !page.contains("<iframe") && !page.contains("<script>alert"),
                "{name}"
            );
            assert!(page.contains("&#60;script&#62;alert"), "its source");
            let page = shelf.page(&format!("{files}/plots/{name}?frame=1")).await;
            assert!(page.contains("<iframe class=\"framed\" sandbox=\"allow-scripts\""));
            let framed = shelf
                .get(&format!("/frames/{}/plots/{name}", shelf.run))
                .await;
            assert!(
                header(&framed, "content-security-policy").starts_with("sandbox allow-scripts;")
            );
            assert_eq!(header(&framed, "x-content-type-options"), "nosniff");
        }

        let page = shelf.page(&format!("{files}/plots/loss%20curve.png")).await;
        let image = format!("/images/{}/plots/loss%20curve.png", shelf.run);
        assert!(page.contains(&format!("src=\"{image}\"")), "{page}");
        let answer = shelf.get(&image).await;
        assert_eq!(header(&answer, "content-type"), "image/png");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        assert_eq!(
            header(&answer, "content-security-policy"),
            "sandbox; default-src 'none'"
        );
        assert_eq!(answer.bytes().await.unwrap(), PNG);

        // A name makes no image and no document.
        let fake = shelf.page(&format!("{files}/fake.png")).await;
        assert!(!fake.contains("<img class") && !fake.contains("<script>alert"));
        for nothing in [
            format!("/images/{}/fake.png", shelf.run),
            format!("/images/{}/plots/page.svg", shelf.run),
            format!("/frames/{}/table.csv", shelf.run),
            format!("/frames/{}/none.html", shelf.run),
            format!("{files}/none"),
            format!("{files}/plots/..%2fconfig.json"),
        ] {
            assert_eq!(
                shelf.get(&nothing).await.status(),
                StatusCode::NOT_FOUND,
                "{nothing}"
            );
        }
    })
    .await;
}
