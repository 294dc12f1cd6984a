//! What the code of an attempt says to the registry, on its way to the server: what writes in order and each once, what reads
//! at once. It must not know what a call is about.

use protocol::agent_api::AttemptOrder;
use protocol::event::{EventKind, Finding, LogStream};
use protocol::spec::LintLevel;
use protocol::{Unnumbered, Work};
use tokio_util::sync::CancellationToken;

use super::deliver::Delivery;
use crate::client::{ClientError, RegistryCall};
use crate::registry::{Answer, Call, Desk, Entry, Reading, Upstream, serve};

/// So often a call is brought of which the server says that it cannot do it, though it is there, or that it has lost the
/// file.
const TRIES: u32 = 5;
/// So many refusals are told one by one.
const MOST_FINDINGS: u32 = 20;

impl Delivery<'_> {
    /// Serves the attempt's code and delivers what it writes, until `closing` and nothing is left.
    pub(super) async fn registry(
        self,
        desk: Option<&Desk>,
        order: &AttemptOrder,
        closing: &CancellationToken,
    ) {
        let Some(desk) = desk else { return };
        let folder = self.dir.agent();
        let serving = closing.run_until_cancelled(serve(&folder, desk, &self));
        tokio::join!(serving, self.calls(desk, order, closing));
    }

    async fn calls(self, desk: &Desk, order: &AttemptOrder, closing: &CancellationToken) {
        let mut taken = desk.watch();
        let mut backoff = self.shared.backoff();
        let (mut refused, mut unread) = (0, 0);
        loop {
            // In this order: what was taken when the attempt is over must be delivered.
            let closed = closing.is_cancelled();
            taken.borrow_and_update();
            match desk.next() {
                Ok(Some(entry)) => {
                    unread = 0;
                    let answer = self.bring_call(desk, &entry).await;
                    if answer.status >= 400 && entry.call.answers_at_once() {
                        refused += 1;
                        self.tell_refusal(order, &entry.call, &answer, refused);
                    }
                    match desk.deliver(&entry, answer) {
                        Ok(()) => backoff.reset(),
                        Err(error) => {
                            tracing::error!(attempt = %self.attempt, "{error}; trying again");
                            tokio::time::sleep(backoff.next()).await;
                        }
                    }
                }
                Ok(None) if closed => return,
                Ok(None) => {
                    tokio::select! {
                        _ = taken.changed() => {}
                        () = closing.cancelled() => {}
                    }
                }
                Err(error) => {
                    unread += 1;
                    tracing::error!(attempt = %self.attempt, unread, "a call that was kept cannot be read: {error}");
                    if unread < TRIES {
                        tokio::time::sleep(backoff.next()).await;
                    } else {
                        unread = 0;
                        self.give_up(desk, &error);
                    }
                }
            }
        }
    }

    /// A call that this host kept and cannot read any more holds up none of the others.
    fn give_up(self, desk: &Desk, error: &std::io::Error) {
        let words = format!("the job's host kept this call and cannot read it any more: {error}");
        match desk.give_up(Answer::error(400, "INVALID_STATE", &words)) {
            Ok(()) => self.say(format!(
                "a call of the code to the registry is missing in the run: the host's disk cannot give it back ({error})"
            )),
            Err(error) => tracing::error!(attempt = %self.attempt, "{error}"),
        }
    }

    /// A line in the job's log.
    fn say(self, text: String) {
        let text = text + "\n";
        let stream = LogStream::Platform;
        let event = EventKind::Log { stream, text };
        if let Err(error) = self.journal.append(Unnumbered::now(event.into())) {
            tracing::error!(attempt = %self.attempt, "{error}");
        }
    }

    /// Brings a call, however often that takes, and gives the answer.
    async fn bring_call(self, desk: &Desk, entry: &Entry) -> Answer {
        let Entry { number, call } = entry;
        let asked = RegistryCall {
            number: Some(*number),
            ..asked(call, None)
        };
        let mut backoff = self.shared.backoff();
        let mut tries = 0;
        loop {
            tries += 1;
            if let Err(why) = self.bring_file(desk, call).await {
                let words = format!("the file could not be uploaded: {why}");
                return Answer::error(400, "INVALID_STATE", &words);
            }
            let brought = self
                .persist(|| self.shared.client.registry(self.attempt, asked))
                .await;
            match brought {
                Ok(body) => return Answer { status: 200, body },
                // 409: the content was removed in between, and is wanted again.
                Err(ClientError::Registry {
                    status: 409 | 500, ..
                }) if tries < TRIES => {
                    tokio::time::sleep(backoff.next()).await;
                }
                Err(error) => return refusal(error),
            }
        }
    }

    /// Uploads the content of a call that puts a file, where the server does not have it.
    async fn bring_file(self, desk: &Desk, call: &Call) -> Result<(), String> {
        let Some((blob, _)) = &call.file else {
            return Ok(());
        };
        let path = desk.files().join(blob.as_str());
        let name = path.display().to_string();
        let open = || std::fs::File::open(&path);
        self.upload(blob, &name, &open).await
    }

    /// What the server takes no more though its client was told that it is done, the job's readers see.
    fn tell_refusal(self, order: &AttemptOrder, call: &Call, answer: &Answer, number: u32) {
        let said: Option<serde_json::Value> = serde_json::from_str(&answer.body).ok();
        let said = said.as_ref().and_then(|said| said["message"].as_str());
        let said = said.unwrap_or(&answer.body);
        let message = match number.cmp(&MOST_FINDINGS) {
            std::cmp::Ordering::Less => format!("the registry refused {}: {said}", call.words()),
            std::cmp::Ordering::Equal => {
                format!(
                    "the registry refused {}: {said} (more refusals are not told)",
                    call.words()
                )
            }
            std::cmp::Ordering::Greater => return,
        };
        let finding = Finding {
            tool: "mlflow".to_owned(),
            level: LintLevel::Warn,
            path: match &order.spec.work {
                Work::Notebook { path } => path.clone(),
                Work::Command { .. } | Work::Lint { .. } => order.spec.name.clone(),
            },
            cell: None,
            code_cell: None,
            line: None,
            column: None,
            raw_line: None,
            code: None,
            message,
            suggestion: None,
        };
        let event = EventKind::Finding(finding);
        if let Err(error) = self.journal.append(Unnumbered::now(event.into())) {
            tracing::error!(attempt = %self.attempt, "{error}");
        }
    }
}

fn asked<'a>(call: &'a Call, range: Option<&'a str>) -> RegistryCall<'a> {
    RegistryCall {
        method: &call.method,
        address: &call.address,
        content_type: call.content_type.as_deref(),
        range,
        body: &call.body,
        number: None,
        blob: call.file.as_ref().map(|(blob, _)| blob),
    }
}

/// What the code is told of a call that was not carried out.
fn refusal(error: ClientError) -> Answer {
    match error {
        ClientError::Registry { status, body } => Answer { status, body },
        other => Answer::error(400, "INVALID_STATE", &other.to_string()),
    }
}

impl Upstream for Delivery<'_> {
    async fn read(&self, call: &Call, range: Option<&str>) -> Reading {
        let client = &self.shared.client;
        let download = self
            .persist(|| client.registry_download(self.attempt, asked(call, range)))
            .await;
        match download {
            Ok(download) => Reading::Stream(download),
            Err(error) => Reading::Whole(refusal(error)),
        }
    }

    fn cannot_keep(&self, why: &std::io::Error) {
        self.say(format!(
            "this host cannot keep what the code writes to the registry: {why}; the code is told to try again, and fails where \
             that goes on"
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use protocol::{ByteSize, Digest};
    use serde_json::json;
    use tempfile::NamedTempFile;

    use super::*;
    use crate::registry::MOST_WAITING;
    use crate::service::world::World;

    /// A file that the code put, and that waits for the server.
    fn put(desk: &Desk) -> Entry {
        let mut content = NamedTempFile::new_in(desk.files()).unwrap();
        content.write_all(b"weights").unwrap();
        let call = Call {
            request: "1-1".into(),
            method: "PUT".into(),
            address: "/api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/a".into(),
            content_type: None,
            body: String::new(),
            file: Some((Digest::of("weights"), ByteSize(7))),
        };
        desk.take(call, Some(content)).unwrap();
        desk.next().unwrap().unwrap()
    }

    /// How a file ends that the server says so often it has lost, and how often its content was looked for.
    async fn lost(times: u32) -> (Answer, usize) {
        let world = World::new().await;
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::open(folder.path().to_owned(), MOST_WAITING, ByteSize(0)).unwrap();
        let entry = put(&desk);
        let answer = json!({"error_code": "RESOURCE_CONFLICT", "message": "upload it before"});
        world.refuse_times("/registry/", 409, answer, times);
        let answer = world.delivery().bring_call(&desk, &entry).await;
        (answer, world.asked("HEAD "))
    }

    #[tokio::test]
    async fn a_file_that_the_server_lost_is_brought_again_and_not_for_ever() {
        let (answer, looks) = lost(2).await;
        assert_eq!((answer.status, looks), (200, 3));
        let (answer, looks) = lost(u32::MAX).await;
        assert_eq!((answer.status, looks), (409, TRIES as usize));
        assert!(answer.body.contains("upload it before"), "{}", answer.body);
    }

    #[tokio::test]
    async fn what_no_request_can_be_made_of_is_refused_and_holds_up_nothing() {
        let world = World::new().await;
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::open(folder.path().to_owned(), MOST_WAITING, ByteSize(0)).unwrap();
        let entry = put(&desk);
        let typed = Call {
            content_type: Some("a\u{1}".into()),
            ..entry.call.clone()
        };
        let long = Call {
            address: format!("{}{}", entry.call.address, "x".repeat(65_600)),
            ..entry.call.clone()
        };
        assert!(long.words().len() < 400, "{}", long.words());
        for call in [typed, long] {
            let entry = Entry { number: 1, call };
            let bring = world.delivery().bring_call(&desk, &entry);
            let brought = tokio::time::timeout(Duration::from_secs(30), bring).await;
            let answer = brought.expect("it is tried for ever");
            assert_eq!(answer.status, 400);
            assert!(answer.body.contains("no request can be made"), "{answer:?}");
            assert!(answer.body.len() < 400, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_keeps_nothing_of_a_content_is_asked_so_often_and_no_more() {
        let world = World::new().await;
        let blob = Digest::of("weights");
        world.refuse_times("HEAD ", 404, json!({}), u32::MAX);
        world.refuse_times("PATCH ", 409, json!({}), u32::MAX);
        let open = || {
            let mut file = tempfile::tempfile()?;
            file.write_all(b"weights")?;
            Ok(file)
        };
        let refused = world.delivery().upload(&blob, "weights", &open).await;
        assert_eq!(
            refused.unwrap_err(),
            "the server keeps 0 of 7 bytes, and no more"
        );
    }
}
