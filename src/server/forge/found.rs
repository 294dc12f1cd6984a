//! Which forge answers at a host, or below it, whose name does not say it. It is asked as nobody: a token goes only to a forge that
//! somebody named, or that was found before.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Url;
use serde_json::Value;

use super::address::Answered;
use super::place::ForgeKind;
use crate::outgoing;

/// How long a host has for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const MOST_BYTES: usize = 64 << 10;

/// What each of them answers to everybody. Forgejo has both of the first two.
const SIGNS: [(&str, Sign); 4] = [
    ("api/forgejo/v1/version", Sign::GiteasVersion),
    ("api/v1/version", Sign::GiteasVersion),
    ("api/v3/meta", Sign::EnterpriseVersion),
    ("api/v4/version", Sign::GitlabsDoor),
];

#[derive(Debug, Clone, Copy)]
enum Sign {
    /// `{"version": …}`
    GiteasVersion,
    /// `{"installed_version": …}` of GitHub Enterprise.
    EnterpriseVersion,
    /// GitLab tells its version to nobody: it refuses in its own words, and each answer has its header.
    GitlabsDoor,
}

/// Asks at each of `webs`, `https://host` or a path below, until a forge answers; none: nobody does as a forge, or in
/// time.
pub async fn ask(webs: &[String]) -> Option<Answered> {
    for web in webs {
        if let Some(kind) = ask_one(web).await {
            let web = web.clone();
            return Some(Answered { kind, web });
        }
    }
    None
}

async fn ask_one(web: &str) -> Option<ForgeKind> {
    let base = Url::parse(&format!("{web}/")).ok()?;
    let client = outgoing::client(&base, PATIENCE).build().ok()?;
    let asked = SIGNS.map(|(path, sign)| {
        let (client, url) = (&client, base.join(path));
        async move {
            sign.stands_in(client.get(url.ok()?).send().await.ok()?)
                .await
        }
    });
    join_all(asked).await.into_iter().flatten().next()
}

impl Sign {
    async fn stands_in(self, response: reqwest::Response) -> Option<ForgeKind> {
        let status = response.status().as_u16();
        let gitlabs = response.headers().contains_key("x-gitlab-meta");
        let body = outgoing::beginning(response, MOST_BYTES).await;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let says = |field: &str| status == 200 && body[field].is_string();
        match self {
            Sign::GiteasVersion => says("version").then_some(ForgeKind::Gitea),
            Sign::EnterpriseVersion => says("installed_version").then_some(ForgeKind::Github),
            Sign::GitlabsDoor => {
                let refuses = status == 401 && body["message"] == "401 Unauthorized";
                (gitlabs || refuses || says("revision")).then_some(ForgeKind::Gitlab)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_forge_is_found_below_its_host_too() {
        let version = get(|| async { Json(json!({"version": "1.22.0"})) });
        let forge = Router::new().route("/api/v1/version", version);
        let other = get(|| async { Json(json!({"version": 2})) });
        let router = Router::new()
            .route("/api/v1/version", other)
            .nest("/git/forge", forge);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });

        let webs = ["", "/git", "/git/forge"].map(|path| format!("{host}{path}"));
        let found = ask(&webs).await.unwrap();
        assert_eq!((found.kind, &found.web), (ForgeKind::Gitea, &webs[2]));
        assert_eq!(ask(&webs[..2]).await, None);
    }
}
