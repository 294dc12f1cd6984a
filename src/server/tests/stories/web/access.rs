//! Who may do what, and whom the server answers at all.

use protocol::Timestamp;
use reqwest::{Method, StatusCode};
use server::config::{Config, Tls};
use server::state::{Server, ServerError};
use server::store::access;

use super::site::{Site, header};

/// The router's own text: every route in it must stand in [`ROUTES`].
const ROUTER: &str = include_str!("../../../web/mod.rs");

/// Each route but the agents' and the forges', and the role that it wants.
const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/login", "-"),
    ("POST", "/login", "-"),
    ("POST", "/logout", "-"),
    ("GET", "/assets/style.css", "-"),
    ("GET", "/assets/live.js", "-"),
    ("GET", "/healthz", "-"),
    ("GET", "/readyz", "-"),
    ("GET", "/", "read"),
    ("GET", "/pipelines", "read"),
    ("GET", "/pipelines/{id}", "read"),
    ("GET", "/pipelines/{id}/live", "read"),
    ("GET", "/pipelines/{id}/notebooks", "read"),
    ("GET", "/jobs/{id}", "read"),
    ("GET", "/jobs/{id}/live", "read"),
    ("GET", "/jobs/{id}/frames/{cell}/{output}", "read"),
    ("GET", "/agents", "read"),
    ("GET", "/api/v1/projects", "read"),
    ("GET", "/api/v1/pipelines", "read"),
    ("GET", "/api/v1/pipelines/{id}", "read"),
    ("GET", "/api/v1/jobs/{id}", "read"),
    ("GET", "/api/v1/jobs/{id}/events", "read"),
    ("GET", "/api/v1/jobs/{id}/events/stream", "read"),
    ("GET", "/api/v1/artifacts/{attempt}/{*path}", "read"),
    ("GET", "/api/v1/agents", "read"),
    ("POST", "/api/v1/agents/fit", "read"),
    ("GET", "/api/v1/usage", "read"),
    ("GET", "/experiments", "read"),
    ("GET", "/experiments/{id}", "read"),
    ("GET", "/runs/compare", "read"),
    ("GET", "/runs/{id}", "read"),
    ("GET", "/files/{owner}", "read"),
    ("GET", "/files/{owner}/{*path}", "read"),
    ("GET", "/images/{owner}/{*path}", "read"),
    ("GET", "/frames/{owner}/{*path}", "read"),
    ("GET", "/models", "read"),
    ("GET", "/models/{name}", "read"),
    ("GET", "/models/{name}/compare", "read"),
    ("GET", "/models/{name}/{version}", "read"),
    ("GET", "/api/v1/models", "read"),
    ("GET", "/api/v1/models/{name}", "read"),
    ("GET", "/api/v1/models/{name}/{version}", "read"),
    (
        "GET",
        "/api/v1/models/{name}/{version}/compare/{other}",
        "read",
    ),
    (
        "GET",
        "/api/v1/models/{name}/{version}/reproductions/{job}",
        "read",
    ),
    (
        "GET",
        "/api/v1/models/{name}/{version}/files/{*path}",
        "read",
    ),
    ("POST", "/api/v1/models/{name}/{version}/reproduce", "run"),
    ("POST", "/api/v1/models/{name}/{version}/remove", "run"),
    ("POST", "/api/v1/models/{name}/{version}/promote", "run"),
    ("PUT", "/api/v1/models/{name}/aliases/{alias}", "run"),
    (
        "POST",
        "/api/v1/models/{name}/aliases/{alias}/rollback",
        "run",
    ),
    ("POST", "/jobs/{id}/cancel", "run"),
    ("POST", "/jobs/{id}/retry", "run"),
    ("POST", "/jobs/{id}/approve", "run"),
    ("POST", "/api/v1/pipelines", "run"),
    ("POST", "/api/v1/jobs/{id}/cancel", "run"),
    ("POST", "/api/v1/jobs/{id}/retry", "run"),
    ("POST", "/api/v1/jobs/{id}/approve", "run"),
    ("POST", "/api/v1/projects", "admin"),
    ("PUT", "/api/v1/projects/{name}/quota", "admin"),
    ("GET", "/api/v1/projects/{name}/doctor", "admin"),
    ("GET", "/api/v1/tokens", "admin"),
    ("POST", "/api/v1/tokens", "admin"),
    ("DELETE", "/api/v1/tokens/{name}", "admin"),
    ("POST", "/api/v1/agents/tokens", "admin"),
    ("POST", "/api/v1/agents/{name}/drain", "admin"),
    ("POST", "/api/v1/agents/{name}/undrain", "admin"),
    ("POST", "/api/v1/agents/{name}/revoke", "admin"),
    ("DELETE", "/api/v1/agents/{name}", "admin"),
];

#[test]
fn the_table_of_routes_is_the_routers() {
    let routes: Vec<&str> = ROUTER
        .split(".route(")
        .skip(1)
        .filter_map(|rest| rest.split('"').nth(1))
        .collect();
    assert!(routes.len() > 25, "{routes:?}");
    for route in &routes {
        let listed = ROUTES.iter().any(|(_, path, _)| path == route);
        assert!(listed, "{route} stands in no test of roles");
    }
    for (_, path, _) in ROUTES {
        assert!(routes.contains(path), "{path} is no route any more");
    }
}

#[test]
fn every_call_stands_in_the_document_with_its_role() {
    let document = include_str!("../../../../../docs/api.md");
    for (method, path, role) in ROUTES {
        if !path.starts_with("/api/") {
            continue;
        }
        let call = format!("| `{method} {path}");
        let row = document
            .lines()
            .find(|line| {
                line.strip_prefix(&call)
                    .is_some_and(|rest| rest.starts_with(['`', '?']))
            })
            .unwrap_or_else(|| panic!("docs/api.md does not have {method} {path}"));
        assert!(row.contains(&format!("` | {role} |")), "{row}");
    }
}

/// A path with ids that name nothing, so that no call changes anything.
fn path_of(template: &str) -> String {
    let id = protocol::JobId::generate().to_string();
    template
        .replace("{id}", &id)
        .replace("{attempt}", &id)
        .replace("{owner}", &id)
        .replace("{name}", "nobody")
        .replace("{cell}", "0")
        .replace("{output}", "0")
        .replace("{*path}", "x")
        .replace("{version}", "1")
        .replace("{other}", "2")
        .replace("{alias}", "champion")
}

#[tokio::test]
async fn each_role_reaches_what_is_its_own_and_no_more() {
    let site = Site::with_tokens().await;
    let ladder = ["-", "read", "run", "admin"];
    let rank = |role: &str| ladder.iter().position(|other| *other == role).unwrap();
    for (method, template, wanted) in ROUTES {
        for has in ladder {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let mut call = site.call(method, &path_of(template));
            if has != "-" {
                call = call.bearer_auth(site.token(has));
            }
            let status = call.send().await.unwrap().status();
            let passes = rank(has) >= rank(wanted);
            let refused = if has == "-" && template.starts_with("/api/") {
                status == StatusCode::UNAUTHORIZED
            } else if has == "-" {
                status == StatusCode::SEE_OTHER
            } else {
                status == StatusCode::FORBIDDEN
            };
            let open = *wanted == "-";
            assert!(open || refused != passes, "{template} as {has}: {status}");
        }
    }
}

#[tokio::test]
async fn the_door_of_loopback_closes_with_the_first_administrators_token() {
    let site = Site::start().await;
    let ask = || async { site.get("/api/v1/tokens").send().await.unwrap().status() };
    assert_eq!(ask().await, StatusCode::OK);
    let reader = serde_json::json!({"name": "r", "role": "read"});
    let made = site.post("/api/v1/tokens").json(&reader).send().await;
    assert_eq!(made.unwrap().status(), StatusCode::OK);
    assert_eq!(ask().await, StatusCode::OK, "a reader closes nothing");
    let admin = serde_json::json!({"name": "a", "role": "admin"});
    let made = site.post("/api/v1/tokens").json(&admin).send().await;
    assert_eq!(made.unwrap().status(), StatusCode::OK);
    assert_eq!(ask().await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn who_comes_through_a_proxy_on_this_host_is_not_local() {
    let site = Site::start_with(|config| Config {
        url: Some("https://ci.example.org".to_owned()),
        ..config
    })
    .await;
    let by_name = site.get("/api/v1/tokens").header("host", "ci.example.org");
    assert_eq!(by_name.send().await.unwrap().status(), 401);
    let passed_on = site
        .get("/api/v1/tokens")
        .header("x-forwarded-for", "203.0.113.7");
    assert_eq!(passed_on.send().await.unwrap().status(), 401);
    assert_eq!(
        site.get("/api/v1/tokens").send().await.unwrap().status(),
        200
    );
}

#[tokio::test]
async fn a_wrong_token_is_told_even_where_no_token_is_needed() {
    let site = Site::start().await;
    let call = site.get("/api/v1/projects").bearer_auth("ty_wrong");
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let error: protocol::agent_api::ApiError = answer.json().await.unwrap();
    assert!(error.message.contains("token"), "{}", error.message);
}

#[tokio::test]
async fn a_foreign_name_or_page_gets_no_answer() {
    let site = Site::start().await;
    let rebound = site.get("/").header("host", "evil.example");
    assert_eq!(rebound.send().await.unwrap().status(), 403);
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        let write = site
            .post(&format!("/api/v1/jobs/{}/cancel", site.queued))
            .header("origin", origin);
        assert_eq!(write.send().await.unwrap().status(), 403, "{origin}");
    }
    assert!(site.job(&site.queued).await.finished_at.is_none());
}

#[tokio::test]
async fn an_address_with_a_nul_is_refused_before_anybody_reads_it() {
    let site = Site::start().await;
    for address in [
        "/models/a%00b",
        "/jobs/%00",
        "/runs/?filter=tags.a+%3D+'%00'",
    ] {
        let answer = site.get(address).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{address}");
    }
    // Text that only looks like one.
    let there = site.get("/models/a%2500b").send().await.unwrap();
    assert_eq!(there.status(), 404);
}

#[tokio::test]
async fn what_a_form_of_another_page_can_send_is_no_write() {
    let site = Site::start().await;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        let call = site
            .post("/api/v1/tokens")
            .header("content-type", kind)
            .body(r#"{"name":"evil","role":"admin"}"#);
        assert_eq!(call.send().await.unwrap().status(), 415, "{kind}");
        let cancel = format!("/api/v1/jobs/{}/cancel", site.queued);
        let call = site.post(&cancel).header("content-type", kind).body("x=y");
        assert_eq!(call.send().await.unwrap().status(), 415, "{kind}");
    }
    assert!(site.job(&site.queued).await.finished_at.is_none());
}

#[tokio::test]
async fn a_session_begins_with_a_token_and_ends_with_the_log_out() {
    let site = Site::with_tokens().await;
    let answer = site.get("/agents?x=1").send().await.unwrap();
    assert_eq!(header(&answer, "location"), "/login?next=/agents%3Fx%3D1");
    let wrong = site.form("/login", &[("token", "ty_wrong")]).send().await;
    let wrong = wrong.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(header(&wrong, "set-cookie"), "");

    let cookie = site.log_in(site.token("run")).await;
    let page = site
        .get("/")
        .header("cookie", &cookie)
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let page = page.text().await.unwrap();
    let proof = form_token(&page);
    let out = |form: String| {
        site.form("/logout", &[("form", &form)])
            .header("cookie", &cookie)
            .send()
    };
    let with_cookie = || site.get("/agents").header("cookie", &cookie).send();
    out("forged".to_owned()).await.unwrap();
    assert_eq!(
        with_cookie().await.unwrap().status(),
        200,
        "a forged form ends nothing"
    );
    out(proof).await.unwrap();
    assert_eq!(with_cookie().await.unwrap().status(), 303);
}

/// The hidden field of a page's first form.
pub(super) fn form_token(page: &str) -> String {
    let rest = page.split("name=\"form\" value=\"").nth(1).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_ends_by_itself_and_with_its_token() {
    let site = Site::with_tokens().await;
    let mut tx = site.server().store.begin().await.unwrap();
    let hash = server::secret::hash("s_old");
    let (begun, over) = (Timestamp(1), Timestamp(2));
    access::add_session(&mut tx, &hash, "admin", begun, over)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let ask = |cookie: String| site.get("/agents").header("cookie", cookie).send();
    let old = ask("trainyard_session=s_old".to_owned()).await.unwrap();
    assert_eq!(old.status(), StatusCode::SEE_OTHER);

    let cookie = site.log_in(site.token("read")).await;
    assert_eq!(ask(cookie.clone()).await.unwrap().status(), 200);
    let gone = site
        .call(Method::DELETE, "/api/v1/tokens/read")
        .bearer_auth(site.token("admin"));
    assert_eq!(gone.send().await.unwrap().status(), 200);
    assert_eq!(ask(cookie).await.unwrap().status(), 303);
}

#[tokio::test]
async fn beyond_loopback_it_wants_tls_and_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let open = |config: Config| async { Server::start(config).await.err() };
    let base = Config {
        listen: ([0, 0, 0, 0], 0).into(),
        ..Config::in_folder(folder.path())
    };
    let Some(ServerError::Exposed { why, .. }) = open(base.clone()).await else {
        panic!("it listened in the clear")
    };
    assert!(why.contains("TLS"), "{why}");
    let proxied = Config {
        behind_proxy: true,
        ..base
    };
    let Some(ServerError::Exposed { why, .. }) = open(proxied).await else {
        panic!("it listened without a token")
    };
    assert!(why.contains("trainyard token create"), "{why}");
}

#[tokio::test]
async fn it_speaks_tls_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let tls = Tls {
        certificate: certificate.clone(),
        key,
    };
    let site = Site::start_with(|config| Config {
        tls: Some(tls),
        ..config
    })
    .await;
    let pem = std::fs::read(&certificate).unwrap();
    let trusting = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
        .build()
        .unwrap();
    let address = format!("https://127.0.0.1:{}/healthz", site.handle.address.port());
    let answer = trusting.get(&address).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "ok\n");
    assert!(
        site.http.get(&address).send().await.is_err(),
        "nobody vouches for it"
    );
}
