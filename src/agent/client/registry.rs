//! What a job's code asks of the registry: it chose the address, and we speak as the agent.

use std::time::Duration;

use protocol::agent_api::{BLOB_HEADER, CALL_HEADER};
use protocol::{AttemptId, Digest};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response};

use super::{Client, ClientError, words};

/// A call of a job's code for the registry.
#[derive(Debug, Clone, Copy)]
pub struct RegistryCall<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// Path and query, with their first slash.
    pub address: &'a str,
    /// What the body is.
    pub content_type: Option<&'a str>,
    /// The part of a file that is wanted.
    pub range: Option<&'a str>,
    /// The body.
    pub body: &'a str,
    /// Its number, where it writes.
    pub number: Option<u64>,
    /// The content of a file that it puts.
    pub blob: Option<&'a Digest>,
}

/// What the registry said: MLflow's words, good or bad.
#[derive(Debug)]
pub struct Download {
    response: Response,
    /// So long it may pause.
    patience: Duration,
}

/// Headers of an answer that MLflow's clients read.
const PASSED_ON: [&str; 6] = [
    "content-type",
    "content-disposition",
    "content-range",
    "accept-ranges",
    "etag",
    "x-content-type-options",
];

impl Download {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The length of the body, where it is known before.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        let length = self.response.headers().get("content-length")?;
        length.to_str().ok()?.parse().ok()
    }

    /// Headers that clients read.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let headers = self.response.headers();
        let text = |name| Some((name, headers.get(name)?.to_str().ok()?.to_owned()));
        PASSED_ON.into_iter().filter_map(text).collect()
    }

    /// The next bytes of the body; none: that was all.
    ///
    /// # Errors
    /// Where the server stops talking, or is silent for longer than an ordinary call takes.
    pub async fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let chunk = tokio::time::timeout(self.patience, self.response.chunk()).await;
        let chunk = chunk?.map_err(std::io::Error::other)?;
        Ok(chunk.map(|chunk| chunk.to_vec()))
    }
}

impl Client {
    /// Brings a call of an attempt's code to the registry, and reads its answer whole.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Registry`] is an answer too.
    pub async fn registry(
        &self,
        attempt: &AttemptId,
        call: RegistryCall<'_>,
    ) -> Result<String, ClientError> {
        let mut download = self.registry_download(attempt, call).await?;
        let mut body = Vec::new();
        let broken = |error: std::io::Error| ClientError::Transport {
            server: self.server.clone(),
            reason: words(&error),
        };
        while let Some(chunk) = download.chunk().await.map_err(broken)? {
            body.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The same, whose answer is read as it comes; the server may pause for as long as an ordinary call takes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn registry_download(
        &self,
        attempt: &AttemptId,
        call: RegistryCall<'_>,
    ) -> Result<Download, ClientError> {
        let method = Method::from_bytes(call.method.as_bytes())
            .map_err(|_| ClientError::Setting(format!("{} is no method", call.method)))?;
        let url = registry_url(&self.server, attempt, call.address)?;
        let mut request = self.request(method, url).timeout(Duration::MAX);
        let number = call.number.map(|number| number.to_string());
        for (name, value) in [
            (CONTENT_TYPE.as_str(), call.content_type),
            ("range", call.range),
            (CALL_HEADER, number.as_deref()),
            (BLOB_HEADER, call.blob.map(Digest::as_str)),
        ] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let request = request.body(call.body.to_owned());
        let response = tokio::time::timeout(self.patience, self.execute(request))
            .await
            .map_err(|_| self.silent())??;
        match response.status().is_success() {
            true => Ok(Download {
                response,
                patience: self.patience,
            }),
            false => Err(self.error(response).await),
        }
    }
}

/// The URL of a call that a job's code makes. The code chose the address, and we speak as the agent: it must not lead to
/// another call of ours, as one with `..` would, or with what else becomes that when it is read as a URL.
///
/// # Errors
/// [`ClientError::Registry`], for the code.
fn registry_url(
    server: &str,
    attempt: &AttemptId,
    address: &str,
) -> Result<reqwest::Url, ClientError> {
    let below = |address: &str| {
        let text = format!("{server}/agent/v1/attempts/{attempt}/registry{address}");
        reqwest::Url::parse(&text).ok()
    };
    let root = below("/").map(|root| root.path().to_owned());
    let found = below(address).filter(|url| {
        let inside = root
            .as_ref()
            .and_then(|root| url.path().strip_prefix(root.as_str()));
        // A server decodes once more.
        inside.is_some_and(|inside| !inside.to_ascii_lowercase().contains("%2e%2e"))
    });
    found.ok_or_else(|| ClientError::Registry {
        status: 400,
        body: r#"{"error_code": "INVALID_PARAMETER_VALUE", "message": "this is no address of the registry"}"#.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use protocol::Span;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_that_stops_in_the_middle_of_an_answer_is_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new(&url, None, Span(200)).unwrap();
        let attempt = AttemptId::generate();
        let call = RegistryCall {
            method: "GET",
            address: "/health",
            content_type: None,
            range: None,
            body: "",
            number: None,
            blob: None,
        };
        for status in [200, 400] {
            let half = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: 10\r\n\r\nhalf");
                stream.write_all(head.as_bytes()).await.unwrap();
                // It says no more, and stays until its client has gone.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            };
            let asked =
                tokio::time::timeout(Duration::from_secs(30), client.registry(&attempt, call));
            let (told, ()) = tokio::join!(async { asked.await.unwrap() }, half);
            assert!(
                matches!(told, Err(ClientError::Transport { .. })),
                "{status}: {told:?}"
            );
        }
    }

    #[test]
    fn the_code_of_a_job_reaches_its_registry_and_no_other_call() {
        let attempt = AttemptId::generate();
        for server in ["http://h:1", "https://h/below"] {
            let url = |address: &str| registry_url(server, &attempt, address);
            let root = format!("{server}/agent/v1/attempts/{attempt}/registry");
            for good in [
                "/api/2.0/mlflow/runs/get?run_id=..",
                "/health",
                "/a/../b",
                "/a%20b",
            ] {
                let url = url(good).unwrap();
                assert!(url.as_str().starts_with(&format!("{root}/")), "{url}");
            }
            for bad in [
                "/../finish",
                "/..",
                "/%2e%2e/finish",
                "/.%2E/finish",
                "/a/../../finish",
                "/..\\finish",
                "\\..\\finish",
                "/\t../finish",
                "/.\t./finish",
                "/x%252e%252e/../../../../poll",
                "@evil/",
                "/%252e%252e%2f%2e%2e%2fpoll",
                "",
            ] {
                assert!(url(bad).is_err(), "{bad}: {:?}", url(bad));
            }
        }
    }
}
