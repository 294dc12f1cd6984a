//! The agent API as the agent calls it: the only HTTP. One call here is one request; whether to try again
//! is the caller's business, and [`ClientError::is_temporary`] says whether that makes sense.

mod blobs;
mod registry;

use std::path::Path;
use std::time::Duration;

use protocol::agent_api::{
    ABANDONED, ApiError, CheckpointFile, EventsAnswer, FinishAnswer, INSTANCE_HEADER, JSON_BYTES,
    PollAnswer, PollRequest, RegisterRequest, Registered, TWIN,
};
use protocol::report::AttemptReport;
use protocol::{AttemptId, ByteSize, Digest, Event, Span};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

pub use blobs::{BlobState, Piece};
pub use registry::{Download, RegistryCall};

/// A call that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client, or a request of it, cannot be made.
    #[error("{0}")]
    Setting(String),
    /// The server was not reached, or stopped talking.
    #[error("the server {server} was not reached: {reason}")]
    Transport {
        /// Its URL.
        server: String,
        /// What the network says.
        reason: String,
    },
    /// The server cannot do it now, or something between here and it answers in its place.
    #[error("the server {server} cannot answer now: {reason}")]
    Busy {
        /// Its URL.
        server: String,
        /// Status and message.
        reason: String,
    },
    /// The secret is not, or no longer, valid.
    #[error("the server does not know this agent: {0}")]
    Unauthorized(String),
    /// The server wants another version of the agent API.
    #[error("{0}")]
    Version(String),
    /// The attempt is not believed any more.
    #[error("the attempt is not believed any more")]
    Abandoned,
    /// The blob's bytes do not have its hash.
    #[error("the server found another hash than {0}")]
    WrongHash(Digest),
    /// Another agent is at work under the same identity.
    #[error("the server refuses this agent: {0}")]
    Twin(String),
    /// The server will never take it.
    #[error("the server refuses ({status}, {code}): {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's word.
        code: String,
        /// The server's sentence.
        message: String,
    },
    /// The registry's own error, in MLflow's form.
    #[error("the registry refuses ({status}): {body}")]
    Registry {
        /// The HTTP status.
        status: u16,
        /// JSON.
        body: String,
    },
    /// What was fetched cannot be kept.
    #[error("cannot write {path}: {source}")]
    Disk {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl ClientError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            ClientError::Transport { .. } | ClientError::Busy { .. } => true,
            ClientError::Registry { status, .. } => matches!(status, 408 | 429 | 502 | 503 | 504),
            ClientError::Setting(_)
            | ClientError::Unauthorized(_)
            | ClientError::Version(_)
            | ClientError::Abandoned
            | ClientError::Twin(_)
            | ClientError::WrongHash(_)
            | ClientError::Refused { .. }
            | ClientError::Disk { .. } => false,
        }
    }
}

/// The code of a refusal that is not in the words of the agent API.
pub(crate) const UNKNOWN: &str = "unknown";

/// Who we are: on each call.
#[derive(Debug, Clone)]
struct Speaker {
    secret: HeaderValue,
    instance: HeaderValue,
}

/// The URL of a server.
///
/// # Errors
/// [`ClientError::Setting`] where it is none.
pub(crate) fn address(url: &str) -> Result<reqwest::Url, ClientError> {
    let parsed = reqwest::Url::parse(url).ok();
    let good = parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    good.ok_or_else(|| {
        let words = format!("'{url}' is no server's URL; write it like https://trainyard.example");
        ClientError::Setting(words)
    })
}

/// A server, and who we are to it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: String,
    speaker: Option<Speaker>,
    patience: Duration,
}

impl Client {
    /// A client of the server at `url`. `ca` is a PEM file of authorities to trust besides the system's;
    /// `patience` bounds an ordinary call.
    ///
    /// # Errors
    /// [`ClientError::Setting`] with what to change.
    pub fn new(url: &str, ca: Option<&Path>, patience: Span) -> Result<Self, ClientError> {
        // A process may have chosen its provider already; all of ours choose the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let parsed = address(url)?;
        let server = url.trim_end_matches('/').to_owned();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("trainyard-agent/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from(patience).min(Duration::from_secs(10)))
            .redirect(reqwest::redirect::Policy::none());
        if matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        if let Some(path) = ca {
            let wrong = |reason: String| {
                ClientError::Setting(format!(
                    "cannot use {} (`server_ca`): {reason}",
                    path.display()
                ))
            };
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| wrong(words(&e)))?;
            if certificates.is_empty() {
                return Err(wrong("it holds no certificate in PEM form".into()));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let http = builder
            .build()
            .map_err(|error| ClientError::Setting(words(&error)))?;
        Ok(Self {
            http,
            server,
            speaker: None,
            patience: patience.into(),
        })
    }

    /// The same client with an agent's secret, for the installation that this is.
    ///
    /// # Errors
    /// [`ClientError::Setting`] where the secret cannot stand in a header.
    pub fn speak_as(mut self, secret: &str, instance: &Digest) -> Result<Self, ClientError> {
        let mut secret = HeaderValue::from_str(&format!("Bearer {secret}"))
            .map_err(|_| ClientError::Setting("the agent's secret is damaged".into()))?;
        secret.set_sensitive(true);
        let instance = HeaderValue::from_str(instance.as_str()).expect("a hash is hexadecimal");
        self.speaker = Some(Speaker { secret, instance });
        Ok(self)
    }

    /// The server's URL.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Introduces an agent.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn register(&self, request: &RegisterRequest) -> Result<Registered, ClientError> {
        let call = self.call(Method::POST, "register").json(request);
        self.read(self.send(call).await?).await
    }

    /// Says what the agent has and does, and hears what it is to do. Takes up to `request.wait` longer
    /// than an ordinary call.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn poll(&self, request: &PollRequest) -> Result<PollAnswer, ClientError> {
        let call = self
            .call(Method::POST, "poll")
            .timeout(self.patience + request.wait.into())
            .json(request);
        self.read(self.send(call).await?).await
    }

    /// Delivers events; without any, only asks. Answers the next number that the server wants.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(
        &self,
        attempt: &AttemptId,
        generation: u32,
        from: u64,
        events: &[Event],
    ) -> Result<u64, ClientError> {
        let mut body = Vec::new();
        for event in events {
            serde_json::to_writer(&mut body, event).expect("maps with text keys become JSON");
            body.push(b'\n');
        }
        let path = format!("attempts/{attempt}/events?generation={generation}&from={from}");
        let call = self
            .call(Method::POST, &path)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(body);
        let answer: EventsAnswer = self.read(self.send(call).await?).await?;
        Ok(answer.next)
    }

    /// Says which checkpoint an attempt has now; its blobs are there already.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn checkpoint(
        &self,
        attempt: &AttemptId,
        generation: u32,
        files: &[CheckpointFile],
    ) -> Result<(), ClientError> {
        let path = format!("attempts/{attempt}/checkpoint?generation={generation}");
        let call = self.call(Method::POST, &path).json(files);
        self.send(call).await.map(drop)
    }

    /// Delivers an attempt's report. Answers whether it is the believed one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn finish(
        &self,
        attempt: &AttemptId,
        generation: u32,
        report: &AttemptReport,
    ) -> Result<bool, ClientError> {
        let path = format!("attempts/{attempt}/finish?generation={generation}");
        let body = serde_json::to_vec(report).expect("maps with text keys become JSON");
        // A server that stops reading says no more than that the line was cut.
        if body.len() > JSON_BYTES {
            return Err(ClientError::Refused {
                status: StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
                code: "too_large".into(),
                message: format!(
                    "a report has at most {}, and this one {}",
                    ByteSize(JSON_BYTES as u64),
                    ByteSize(body.len() as u64)
                ),
            });
        }
        let call = self.call(Method::POST, &path);
        let call = call.header(CONTENT_TYPE, "application/json").body(body);
        let answer: FinishAnswer = self.read(self.send(call).await?).await?;
        Ok(answer.accepted)
    }

    /// The server's clock, where it tells it; that it answers at all is what matters first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn clock(&self) -> Result<Option<chrono::DateTime<chrono::Utc>>, ClientError> {
        let url = format!("{}/healthz", self.server);
        let call = self.http.get(url).timeout(self.patience);
        let response = self.send(call).await?;
        let date = response
            .headers()
            .get("date")
            .and_then(|date| date.to_str().ok());
        Ok(date
            .and_then(|date| chrono::DateTime::parse_from_rfc2822(date).ok())
            .map(|date| date.to_utc()))
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, format!("{}/agent/v1/{path}", self.server))
    }

    fn request(&self, method: Method, url: impl reqwest::IntoUrl) -> RequestBuilder {
        let request = self.http.request(method, url).timeout(self.patience);
        match &self.speaker {
            Some(speaker) => request
                .header(AUTHORIZATION, speaker.secret.clone())
                .header(INSTANCE_HEADER, speaker.instance.clone()),
            None => request,
        }
    }

    async fn execute(&self, call: RequestBuilder) -> Result<Response, ClientError> {
        call.send().await.map_err(|error| self.transport(&error))
    }

    /// Sends, and turns every answer but success into an error.
    async fn send(&self, call: RequestBuilder) -> Result<Response, ClientError> {
        let response = self.execute(call).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.error(response).await)
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let bytes = response.bytes().await.map_err(|e| self.transport(&e))?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Busy {
            server: self.server.clone(),
            reason: format!("its answer is not the agent API's ({error}); is the URL right?"),
        })
    }

    /// The error in an answer that is no success.
    async fn error(&self, response: Response) -> ClientError {
        let status = response.status();
        let place = response.headers().get("location").cloned();
        let Ok(body) = tokio::time::timeout(self.patience, response.bytes()).await else {
            return self.silent();
        };
        let body = body.unwrap_or_default();
        let said: Option<ApiError> = serde_json::from_slice(&body).ok();
        let words = String::from_utf8_lossy(&body);
        if said.is_none() && is_registrys(&words) {
            return ClientError::Registry {
                status: status.as_u16(),
                body: words.into_owned(),
            };
        }
        let (code, message) = match said {
            Some(error) => (error.code, error.message),
            None if status.is_redirection() => {
                let place = place.as_ref().and_then(|place| place.to_str().ok());
                let message = format!("it sends us to {}", place.unwrap_or("another place"));
                ("redirect".to_owned(), message)
            }
            None => {
                let text: String = words.chars().take(200).collect();
                (UNKNOWN.to_owned(), text)
            }
        };
        match (status, code.as_str()) {
            (StatusCode::UNAUTHORIZED, _) => ClientError::Unauthorized(message),
            (StatusCode::CONFLICT, ABANDONED) => ClientError::Abandoned,
            (StatusCode::CONFLICT, TWIN) => ClientError::Twin(message),
            (_, "version") => ClientError::Version(message),
            (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS, _) => {
                self.busy(status, &message)
            }
            (_, _) if status.is_server_error() => self.busy(status, &message),
            (_, _) => ClientError::Refused {
                status: status.as_u16(),
                code,
                message,
            },
        }
    }

    fn busy(&self, status: StatusCode, message: &str) -> ClientError {
        ClientError::Busy {
            server: self.server.clone(),
            reason: format!("{status} {message}"),
        }
    }

    fn transport(&self, error: &reqwest::Error) -> ClientError {
        // Of what a job's code wrote a request cannot always be made, and never will be. Without its address, which may
        // be what is too long.
        if error.is_builder() {
            let why = std::error::Error::source(error).map_or_else(String::new, words);
            return ClientError::Setting(format!("no request can be made of it: {why}"));
        }
        ClientError::Transport {
            server: self.server.clone(),
            reason: words(error),
        }
    }

    fn silent(&self) -> ClientError {
        ClientError::Transport {
            server: self.server.clone(),
            reason: format!("nothing was heard for {}", Span::from(self.patience)),
        }
    }
}

/// Whether an error has MLflow's form.
fn is_registrys(body: &str) -> bool {
    let said: Option<serde_json::Value> = serde_json::from_str(body).ok();
    said.is_some_and(|said| said.get("error_code").is_some())
}

/// An error with its causes; reqwest's own words leave out the one that matters.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
