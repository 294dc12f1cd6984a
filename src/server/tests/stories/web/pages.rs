//! What a browser is given: nothing that a commit or a job says runs in it.

use super::site::{EVIL, Site, header};

/// Pages that show what commits and jobs say.
async fn pages(site: &Site) -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for path in [
        "/".to_owned(),
        format!("/pipelines/{}", site.pipeline),
        format!("/jobs/{}", site.failed),
        format!("/jobs/{}", site.queued),
        "/agents".to_owned(),
    ] {
        let html = site.page(&path).await;
        pages.push((path, html));
    }
    pages
}

#[tokio::test]
async fn what_a_commit_says_stays_text() {
    let site = Site::start().await;
    let pages = pages(&site).await;
    for (path, html) in &pages {
        assert!(!html.contains("<script>alert"), "{path}");
        assert!(!html.contains("<img src=x"), "{path}");
        assert!(!html.contains("onerror=alert(1)>"), "{path}");
    }
    let shown = pages
        .iter()
        .filter(|(_, html)| html.contains("alert(1)&#62;") || html.contains("alert(1)&gt;"));
    assert!(shown.count() >= 3, "and it is shown, escaped");
}

#[tokio::test]
async fn a_page_forbids_what_it_does_not_bring() {
    let site = Site::start().await;
    for path in ["/", "/login", "/nowhere", "/agents"] {
        let answer = site.get(path).send().await.unwrap();
        let policy = header(&answer, "content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("script-src 'self';"), "{path}: {policy}");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn an_active_output_has_a_document_of_its_own_and_no_origin() {
    let site = Site::start().await;
    let page = site.page(&format!("/jobs/{}", site.failed)).await;
    let source = format!("/jobs/{}/frames/1/1", site.failed);
    assert!(
        page.contains(&format!("src=\"{source}\"")),
        "the frame is linked"
    );
    assert!(page.contains("sandbox=\"allow-scripts\"") && !page.contains("draw()"));
    let answer = site.get(&source).send().await.unwrap();
    let policy = header(&answer, "content-security-policy").to_owned();
    assert!(policy.starts_with("sandbox allow-scripts;"), "{policy}");
    assert!(
        answer
            .text()
            .await
            .unwrap()
            .contains("<script>draw()</script>")
    );
    for nothing in ["1/0", "0/0", "9/9", "1/-1", "x/y"] {
        let path = format!("/jobs/{}/frames/{nothing}", site.failed);
        let status = site.get(&path).send().await.unwrap().status();
        assert!(status == 404 || status == 400, "{nothing}: {status}");
    }
}

#[tokio::test]
async fn an_artifact_is_a_download_and_never_a_page() {
    let site = Site::start().await;
    let path = format!("/api/v1/artifacts/{}/reports/a%20b.html", site.attempt);
    let answer = site.get(&path).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "content-type"), "application/octet-stream");
    assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
    assert!(
        header(&answer, "content-disposition").starts_with("attachment; filename=\"a b.html\"")
    );
    assert!(header(&answer, "content-security-policy").starts_with("sandbox"));
    let bytes = answer.text().await.unwrap();
    assert_eq!(bytes, format!("<h1>report</h1>{EVIL}"));
    for nothing in ["reports/../train.ipynb", "reports/%2e%2e/x", "none"] {
        let path = format!("/api/v1/artifacts/{}/{nothing}", site.attempt);
        let status = site.get(&path).send().await.unwrap().status();
        let found = path.contains("train") && status == 200;
        assert!(status == 404 || found, "{nothing}: {status}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_askers_language() {
    let site = Site::start().await;
    let nobody = protocol::JobId::generate();
    for path in [
        "/nowhere".to_owned(),
        format!("/jobs/{nobody}"),
        "/jobs/x".to_owned(),
        format!("/pipelines/{nobody}"),
        "/?project=none".to_owned(),
    ] {
        let answer = site.get(&path).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert!(
            header(&answer, "content-type").starts_with("text/html"),
            "{path}"
        );
    }
    for path in [
        "/api/v1/nowhere".to_owned(),
        format!("/api/v1/jobs/{nobody}"),
        format!("/api/v1/jobs/{nobody}/events"),
        format!("/api/v1/jobs/{nobody}/events/stream"),
        format!("/api/v1/pipelines/{nobody}"),
        format!("/api/v1/artifacts/{nobody}/x"),
        "/api/v1/pipelines?project=none".to_owned(),
    ] {
        let answer = site.get(&path).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        let error: protocol::agent_api::ApiError = answer.json().await.unwrap();
        assert_eq!(error.code, "not_found", "{path}");
    }
}
