//! A server for tests: it gives answers in their order, and remembers what was asked.

use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Client, address, http};

pub(crate) enum Answer {
    /// 200 with this body.
    Text(String),
    /// An error in these words.
    Error(u16, &'static str),
    /// The connection breaks.
    Break,
}

impl Answer {
    pub(crate) fn json(value: &impl Serialize) -> Self {
        Answer::Text(serde_json::to_string(value).unwrap())
    }

    fn bytes(&self) -> String {
        let (status, body) = match self {
            Answer::Text(body) => (200, body.clone()),
            Answer::Error(status, words) => {
                let error = serde_json::json!({ "code": "not_found", "message": words });
                (*status, error.to_string())
            }
            Answer::Break => return String::new(),
        };
        format!("HTTP/1.1 {status} so\r\nconnection: close\r\n\r\n{body}")
    }
}

pub(crate) struct Fake {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (answers, heard): (Vec<_>, _) = (answers.into_iter().collect(), asked.clone());
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (mut call, mut piece) = (Vec::new(), [0; 4096]);
                while !call.ends_with(b"\r\n\r\n") {
                    let read = stream.read(&mut piece).await.unwrap();
                    assert_ne!(read, 0, "a call without its end");
                    call.extend_from_slice(&piece[..read]);
                }
                let call = String::from_utf8(call).unwrap();
                let path = call.split(' ').nth(1).unwrap_or_default().to_owned();
                heard.lock().unwrap().push(path);
                stream.write_all(answer.bytes().as_bytes()).await.unwrap();
            }
        });
        Self { url, asked }
    }

    pub(crate) fn client(&self) -> Client {
        let server = address(&self.url).unwrap();
        Client {
            http: http(&server, None).unwrap(),
            server,
            token: None,
        }
    }

    /// The paths of the calls so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}
