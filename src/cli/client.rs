//! Speaks to a server for the commands: which server, with which token, and what went wrong in words.

#[cfg(test)]
pub(crate) mod fake;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args as ClapArgs;
use protocol::agent_api::ApiError;
use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Where a server listens that nobody has set up otherwise.
const USUAL_SERVER: &str = "http://127.0.0.1:7480";
const CONNECT: Duration = Duration::from_secs(10);
/// An answer; planning by hand fetches a repository first.
const ANSWER: Duration = Duration::from_secs(330);

/// Which server a command speaks to.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ServerArgs {
    /// The server [default: the one of ~/.config/trainyard/client.toml, else http://127.0.0.1:7480]
    #[arg(long, value_name = "URL", env = "TRAINYARD_SERVER", global = true)]
    server: Option<String>,
}

/// `~/.config/trainyard/client.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    server: Option<String>,
    token: Option<String>,
    ca_bundle: Option<PathBuf>,
}

/// The server does not answer at all: a fault of the platform, not of the input.
#[derive(Debug)]
pub(crate) struct Unreachable {
    server: String,
    why: String,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "cannot reach {}: {}\n  is it running ('trainyard up', 'trainyard server')? --server or TRAINYARD_SERVER names another",
            self.server, self.why
        )
    }
}

impl std::error::Error for Unreachable {}

/// One server, with the caller's token.
pub(crate) struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<String>,
}

impl Client {
    /// The client that arguments, environment and settings describe.
    pub(crate) fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let settings = settings()?;
        let server = args
            .server
            .clone()
            .or(settings.server)
            .unwrap_or_else(|| USUAL_SERVER.to_owned());
        let server = address(&server)?;
        let token = match std::env::var("TRAINYARD_TOKEN") {
            Ok(token) if !token.trim().is_empty() => Some(token.trim().to_owned()),
            Ok(_) | Err(_) => settings.token,
        };
        let bundle = std::env::var_os("TRAINYARD_CA_BUNDLE").map(PathBuf::from);
        Ok(Self {
            http: http(&server, bundle.or(settings.ca_bundle).as_deref())?,
            server,
            token,
        })
    }

    /// A page of this server, for people.
    pub(crate) fn page(&self, path: &str) -> String {
        format!("{}{path}", self.server.as_str().trim_end_matches('/'))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        read(self.send(self.call(Method::GET, path)).await?).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<T> {
        self.write(Method::POST, path, body).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.write(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        read(self.send(self.call(Method::DELETE, path)).await?).await
    }

    async fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<T> {
        let mut call = self.call(method, path);
        if let Some(body) = body {
            call = call.json(body);
        }
        read(self.send(call).await?).await
    }

    /// The raw answer, for what is no JSON. It may go on as long as a job does.
    pub(crate) async fn stream(&self, path: &str) -> anyhow::Result<Response> {
        let call = self.http.request(Method::GET, self.url(path));
        let call = match &self.token {
            Some(token) => call.bearer_auth(token),
            None => call,
        };
        self.send(call).await
    }

    /// The bytes of a file from an offset on.
    pub(crate) async fn file(&self, path: &str, from: u64) -> anyhow::Result<Response> {
        let call = self.http.request(Method::GET, self.url(path));
        let call = match &self.token {
            Some(token) => call.bearer_auth(token),
            None => call,
        };
        let call = match from {
            0 => call,
            from => call.header("range", format!("bytes={from}-")),
        };
        let answer = self.send(call).await?;
        ensure!(
            from == 0 || answer.status() == StatusCode::PARTIAL_CONTENT,
            "the server does not send a part of a file: is it of another version?"
        );
        Ok(answer)
    }

    /// An answer that is text.
    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.send(self.call(Method::GET, path)).await?;
        let text = answer.text().await;
        text.map_err(|error| self.unreachable(&error).into())
    }

    fn url(&self, path: &str) -> String {
        self.page(&format!("/api/v1/{path}"))
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let call = self.http.request(method, self.url(path)).timeout(ANSWER);
        match &self.token {
            Some(token) => call.bearer_auth(token),
            None => call,
        }
    }

    /// Sends; an answer that is an error becomes one, in the server's words.
    async fn send(&self, call: RequestBuilder) -> anyhow::Result<Response> {
        let answer = call
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let words = answer.text().await.unwrap_or_default();
        let message = match serde_json::from_str::<ApiError>(&words) {
            Ok(error) => error.message,
            Err(_) => format!("the server answered {status}"),
        };
        match (status, &self.token) {
            (StatusCode::UNAUTHORIZED, Some(_)) => {
                bail!(
                    "{} does not know the token of TRAINYARD_TOKEN or client.toml: it was removed, or belongs to another server",
                    self.server
                )
            }
            _ => bail!(message),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Unreachable {
        // The last cause is the one that says something; the first repeats the URL.
        let mut why: &dyn std::error::Error = error;
        while let Some(cause) = why.source() {
            why = cause;
        }
        Unreachable {
            server: self.server.to_string(),
            why: why.to_string(),
        }
    }
}

async fn read<T: DeserializeOwned>(answer: Response) -> anyhow::Result<T> {
    let bytes = answer.bytes().await.context("the answer was cut off")?;
    serde_json::from_slice(&bytes)
        .context("the server's answer is not understood: is it of another version?")
}

fn address(text: &str) -> anyhow::Result<Url> {
    let wrong = || format!("'{text}' is no server's URL; write it like https://trainyard.example");
    let url = Url::parse(text).with_context(wrong)?;
    ensure!(
        matches!(url.scheme(), "http" | "https") && url.has_host(),
        wrong()
    );
    Ok(url)
}

fn http(server: &Url, bundle: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    // A process may have chosen its provider already; all of ours choose the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("trainyard/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none());
    if matches!(server.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        builder = builder.no_proxy();
    }
    if let Some(path) = bundle {
        let wrong = || format!("cannot use the CA bundle '{}'", path.display());
        let pem = std::fs::read(path).with_context(wrong)?;
        let certificates = Certificate::from_pem_bundle(&pem).with_context(wrong)?;
        ensure!(!certificates.is_empty(), "{}: no certificate", wrong());
        builder = builder.tls_certs_merge(certificates);
    }
    Ok(builder.build()?)
}

/// The caller's own settings. A file with a token that others can read is refused.
fn settings() -> anyhow::Result<Settings> {
    let Some(path) = settings_file() else {
        return Ok(Settings::default());
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Settings::default());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let settings: Settings =
        toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    let mode = std::fs::metadata(&path)?.permissions().mode();
    ensure!(
        settings.token.is_none() || mode & 0o077 == 0,
        "{} holds a token and others can read it: chmod 600 {0}",
        path.display()
    );
    Ok(settings)
}

fn settings_file() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|text| !text.is_empty())
        .map(PathBuf::from)
        .or_else(home)?;
    Some(folder.join("trainyard/client.toml"))
}

/// A name as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'@' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_before_it_is_used() {
        assert!(address("https://ci.example.org").is_ok());
        for wrong in ["ci.example.org", "ftp://x", "", "http://"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(segment("a/../b c"), "a%2F..%2Fb%20c");
        assert_eq!(segment("@champion"), "@champion");
    }
}
