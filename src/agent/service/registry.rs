//! What the code of an attempt says to the registry, on its way to the server: what writes in order and each once, what reads
//! at once. It must not know what a call is about.

use protocol::agent_api::AttemptOrder;
use protocol::event::{EventKind, Finding};
use protocol::spec::LintLevel;
use protocol::{Unnumbered, Work};
use tokio_util::sync::CancellationToken;

use super::deliver::Delivery;
use crate::client::{ClientError, RegistryCall};
use crate::registry::{Answer, Call, Desk, Entry, Reading, Upstream, serve};

/// So often a call is brought of which the server says that it cannot do it, though it is there.
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
        let mut refused = 0;
        loop {
            // In this order: what was taken when the attempt is over must be delivered.
            let closed = closing.is_cancelled();
            taken.borrow_and_update();
            match desk.next() {
                Ok(Some(entry)) => {
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
                    tracing::error!(attempt = %self.attempt, "{error}; trying again");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Brings a call, however often that takes, and gives the answer.
    async fn bring_call(self, desk: &Desk, entry: &Entry) -> Answer {
        let Entry { number, call } = entry;
        if let Some((blob, _)) = &call.file {
            let path = desk.files().join(blob.as_str());
            let name = path.display().to_string();
            let open = || std::fs::File::open(&path);
            if let Err(why) = self.upload(blob, &name, &open).await {
                let words = format!("the file could not be uploaded: {why}");
                return Answer::error(400, "INVALID_STATE", &words);
            }
        }
        let asked = RegistryCall {
            number: Some(*number),
            ..asked(call, None)
        };
        let mut backoff = self.shared.backoff();
        let mut tries = 0;
        loop {
            tries += 1;
            let brought = self
                .persist(|| self.shared.client.registry(self.attempt, asked))
                .await;
            match brought {
                Ok(body) => return Answer { status: 200, body },
                Err(ClientError::Registry { status: 500, .. }) if tries < TRIES => {
                    tokio::time::sleep(backoff.next()).await;
                }
                Err(error) => return refusal(error),
            }
        }
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
}
