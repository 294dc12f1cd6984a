//! Calls of a forge's REST API: where it is, as whom it is called, and what its answers mean.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, Url};

use super::ForgeError;
use super::answer;
pub(super) use super::answer::About;
pub(super) use super::identity::Identity;
use super::place::{ForgeKind, Place};
use crate::outgoing::{self, causes, is_loopback};

/// Most bytes of an answer that is read whole.
const MOST_BYTES: usize = 4 << 20;
const GITHUB_VERSION: &str = "2022-11-28";

/// A repository at a forge, ready for calls.
#[derive(Debug)]
pub(super) struct Api {
    kind: ForgeKind,
    place: Place,
    identity: Identity,
    base: Url,
    client: reqwest::Client,
}

impl Api {
    /// Prepares calls that take at most `timeout` each. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ForgeError::Transport`] where the address is none, would send the token in clear over a network, or the
    /// client cannot be made.
    pub(super) fn connect(
        kind: ForgeKind,
        place: Place,
        identity: Identity,
        timeout: Duration,
    ) -> Result<Self, ForgeError> {
        let wrong = |message: String| ForgeError::Transport {
            forge: kind.name(),
            message,
        };
        let base = Url::parse(&place.api)
            .map_err(|e| wrong(format!("'{}' is no address of an API: {e}", place.api)))?;
        if base.scheme() != "https" && !is_loopback(&base) {
            return Err(wrong(format!(
                "'{base}' would carry the token in clear: use https"
            )));
        }
        let client = outgoing::client(&base, timeout).build();
        let client = client.map_err(|e| wrong(e.to_string()))?;
        Ok(Self {
            kind,
            place,
            identity,
            base,
            client,
        })
    }

    pub(super) fn kind(&self) -> ForgeKind {
        self.kind
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// A request below the base. The parts of `path` are escaped: they may hold anything.
    ///
    /// # Errors
    /// [`ForgeError::Credential`] where there is nobody to call as.
    pub(super) fn request(
        &self,
        method: Method,
        path: &[&str],
    ) -> Result<RequestBuilder, ForgeError> {
        self.asked(method, path, &[])
    }

    /// The same with a query.
    ///
    /// # Errors
    /// As [`Api::request`].
    pub(super) fn asked(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<RequestBuilder, ForgeError> {
        if let Identity::Nobody(why) = &self.identity {
            return Err(why.clone().into());
        }
        let mut url = self.base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.client.request(method, url);
        Ok(match self.kind {
            ForgeKind::Github => request
                .header("accept", "application/vnd.github+json")
                .header("x-github-api-version", GITHUB_VERSION),
            ForgeKind::Gitlab | ForgeKind::Gitea => request,
        })
    }

    /// A request below the repository.
    ///
    /// # Errors
    /// As [`Api::request`].
    pub(super) fn below(
        &self,
        method: Method,
        rest: &[&str],
    ) -> Result<RequestBuilder, ForgeError> {
        self.below_with(method, rest, &[])
    }

    /// The same with a query.
    ///
    /// # Errors
    /// As [`Api::request`].
    pub(super) fn below_with(
        &self,
        method: Method,
        rest: &[&str],
        query: &[(&str, String)],
    ) -> Result<RequestBuilder, ForgeError> {
        let repository = self.place.repository.as_str();
        let start = match self.kind {
            // One part: its slashes are escaped.
            ForgeKind::Gitlab => vec!["projects", repository],
            ForgeKind::Github | ForgeKind::Gitea => std::iter::once("repos")
                .chain(repository.split('/'))
                .collect(),
        };
        self.asked(method, &[start.as_slice(), rest].concat(), query)
    }

    /// Asks for something that may not be there, and reads it.
    ///
    /// # Errors
    /// [`ForgeError`]; a repository that the token may not see is "not found" too, and none is given.
    pub(super) async fn find<T>(
        &self,
        rest: &[&str],
        read: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, ForgeError> {
        let request = self.below(Method::GET, rest)?;
        self.found(request, About::Look, read).await
    }

    /// The same of any request.
    ///
    /// # Errors
    /// As [`Api::find`].
    pub(super) async fn found<T>(
        &self,
        request: RequestBuilder,
        about: About<'_>,
        read: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, ForgeError> {
        match self.read(request, about, MOST_BYTES, read).await {
            Err(ForgeError::Unauthorized { status: 404, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Sends a request and reads its answer, of at most `most` bytes.
    ///
    /// # Errors
    /// [`ForgeError`].
    pub(super) async fn read<T>(
        &self,
        request: RequestBuilder,
        about: About<'_>,
        most: usize,
        read: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, ForgeError> {
        let response = self.send(request, about).await?;
        let body = answer::body(response, most, self.kind).await?;
        read(&body).map_err(|message| answer::unreadable(self.kind, message))
    }

    /// Sends a request; an answer that is no success is an error.
    ///
    /// # Errors
    /// [`ForgeError`].
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        about: About<'_>,
    ) -> Result<Response, ForgeError> {
        let repository = &self.place.repository;
        let request = self.identity.sign(request, self.kind, repository).await?;
        let response = request.send().await.map_err(|e| ForgeError::Transport {
            forge: self.kind.name(),
            message: causes(&e.without_url()),
        })?;
        let answer = answer::judge(response, self.kind, repository, about).await;
        if let Err(ForgeError::Unauthorized { status: 401, .. }) = &answer {
            self.identity.refused(repository);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::Repository;

    #[test]
    fn a_token_never_crosses_a_network_in_clear() {
        let repository = Repository::try_from("o/r".to_owned()).unwrap();
        let open = |api: &str| {
            let place = Place::new(repository.clone(), api.to_owned());
            let identity = Identity::of(ForgeKind::Gitea, &place, None);
            Api::connect(ForgeKind::Gitea, place, identity, Duration::from_secs(1))
        };
        assert!(open("http://forge.example.com/api/v1").is_err());
        assert!(open("no address").is_err());
        assert!(open("http://127.0.0.1:9/").is_ok());
    }

    /// Asks a forge that says this and hangs up.
    async fn asked_of(said: &'static str) -> ForgeError {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        let forge = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
            }
            stream.write_all(said.as_bytes()).await.unwrap();
        });
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), "t").unwrap();
        let repository = Repository::try_from("o/r".to_owned()).unwrap();
        let mut place = Place::new(repository, base);
        place.token = Some(crate::forge::Credential::File(token.path().to_owned()));
        let identity = Identity::of(ForgeKind::Gitea, &place, None);
        let api = Api::connect(ForgeKind::Gitea, place, identity, Duration::from_secs(30)).unwrap();
        let request = api.below(Method::GET, &[]).unwrap();
        let read = |body: &[u8]| {
            serde_json::from_slice::<serde_json::Value>(body).map_err(|error| error.to_string())
        };
        let answer = api.read(request, About::Look, MOST_BYTES, read).await;
        forge.await.unwrap();
        answer.unwrap_err()
    }

    #[tokio::test]
    async fn a_torn_answer_is_asked_for_again_and_a_wrong_one_is_not() {
        let torn = asked_of("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\":").await;
        assert!(matches!(torn, ForgeError::Transport { .. }), "{torn}");
        let wrong = asked_of("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n{\"id\":").await;
        assert!(matches!(wrong, ForgeError::Unreadable { .. }), "{wrong}");
    }

    #[test]
    fn what_stands_in_a_path_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "t").unwrap();
        let repository = Repository::try_from("a/b/c".to_owned()).unwrap();
        let mut place = Place::new(repository, "https://forge.example.com/api/v4/".to_owned());
        place.token = Some(crate::forge::Credential::File(token));
        let identity = Identity::of(ForgeKind::Gitlab, &place, None);
        let api = Api::connect(ForgeKind::Gitlab, place, identity, Duration::from_secs(1)).unwrap();
        let path = ["projects", "a/b/c", "x?y#z"];
        let request = api.request(Method::GET, &path).unwrap().build().unwrap();
        assert_eq!(
            request.url().as_str(),
            "https://forge.example.com/api/v4/projects/a%2Fb%2Fc/x%3Fy%23z"
        );
    }
}
