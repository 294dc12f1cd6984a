//! The public API as commands call it: where the server is, who asks, and what an error says.

use anyhow::Context as _;
use clap::Args as ClapArgs;
use protocol::agent_api::ApiError;
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Which server, and as whom.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Remote {
    /// URL of the server
    #[arg(
        long,
        value_name = "URL",
        env = "TRAINYARD_SERVER",
        default_value = "http://127.0.0.1:7480"
    )]
    server: String,
    /// API token; others of this host can see arguments, so rather set the variable
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TRAINYARD_API_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
}

impl Remote {
    /// A request to `path` under `/api/v1/`.
    fn request(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = self.server.trim_end_matches('/');
        let http = reqwest::Client::builder()
            .user_agent(concat!("trainyard/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(std::time::Duration::from_secs(10));
        let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
        let http = if local.iter().any(|host| base.starts_with(host)) {
            http.no_proxy()
        } else {
            http
        };
        let request = http
            .build()?
            .request(method, format!("{base}/api/v1/{path}"));
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    /// Sends it; an error answer becomes an error with the server's sentence.
    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let answer = request.send().await.with_context(|| {
            format!(
                "the server {} was not reached; is it running, and is --server right?",
                self.server
            )
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        match serde_json::from_str::<ApiError>(&text) {
            Ok(error) => anyhow::bail!("{}", error.message),
            Err(_) => anyhow::bail!("{} answered {status}", self.server),
        }
    }

    /// What `GET path` answers.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self.request(Method::GET, path)?;
        Ok(self.send(request).await?.json().await?)
    }

    /// What `POST path` with a body answers.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let request = self.request(Method::POST, path)?.json(body);
        Ok(self.send(request).await?.json().await?)
    }
}
