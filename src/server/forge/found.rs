//! Which forge answers at a host whose name does not say it. It is asked as nobody: a token goes only to a forge that
//! somebody named, or that was found before.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Url;
use serde_json::Value;

use super::answer;
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

/// Asks the host at `web`, `https://host`; none: it answers as no forge does, or not in time.
pub async fn ask(web: &str) -> Option<ForgeKind> {
    let base = Url::parse(web).ok()?;
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
        let body = answer::body(response, MOST_BYTES).await.ok()?;
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
