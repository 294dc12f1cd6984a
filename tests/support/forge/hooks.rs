//! What a forge tells to whoever registered a hook: packed, signed, and sent once.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::app::INSTALLATION;
use super::state::State;
use super::{Face, Shared};

/// How long the recorded forges wait for an answer, at the longest.
const PATIENCE: Duration = Duration::from_secs(10);

type Headers = Vec<(&'static str, String)>;

/// Who hears of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    Subscribers,
    /// The App's hook alone, whatever it subscribed to.
    App,
    /// This hook alone.
    Hook(u64),
}

/// Something to tell.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// As the event header says.
    pub(super) name: &'static str,
    /// What a hook subscribes to: GitLab's and Gitea's words differ from the header's.
    pub(super) kind: &'static str,
    pub(super) body: Value,
    pub(super) whom: Whom,
}

impl Event {
    pub(super) fn new(name: &'static str, kind: &'static str, body: Value) -> Self {
        Self {
            name,
            kind,
            body,
            whom: Whom::Subscribers,
        }
    }
}

/// A registered hook.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) id: u64,
    pub(crate) url: String,
    /// GitLab signs in the newer form where this begins with `whsec_`.
    pub(crate) secret: String,
    /// In the forge's words; `*` for all.
    pub(crate) events: Vec<String>,
    pub(crate) active: bool,
    /// Sent as a form, as GitHub does where nobody says JSON.
    pub(crate) form: bool,
    /// The App's own, which hears of everything where it is installed.
    pub(crate) app: bool,
}

impl Hook {
    fn wants(&self, event: &Event) -> bool {
        let named = |kind: &str| self.events.iter().any(|name| name == kind || name == "*");
        // Gitea's `pull_request` stands for all that can happen to one.
        let whole = event.kind.starts_with("pull_request") && named("pull_request");
        let told = match event.whom {
            Whom::Subscribers => named(event.kind) || whole,
            Whom::App => self.app,
            Whom::Hook(id) => self.id == id,
        };
        self.active && told
    }
}

/// How hooks get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Open,
    /// They wait for `release_hooks`.
    Held,
    /// They are never sent.
    Lost,
    /// Each is sent twice at once, under one id.
    Twice,
}

/// How a delivery was answered; none: not at all.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) status: Option<u16>,
    /// Seconds since 1970.
    pub(crate) at: u64,
}

/// What was told to one hook.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// The same for each time that it is sent.
    pub(crate) id: String,
    pub(crate) hook: u64,
    pub(crate) event: &'static str,
    /// The raw body.
    pub(crate) body: String,
    kind: &'static str,
    waits: bool,
    /// Each time that it was sent.
    pub(crate) answers: Vec<Answered>,
}

/// What goes over the wire.
struct Letter {
    url: String,
    headers: Headers,
    body: String,
}

impl State {
    /// Makes deliveries of what is in the outbox. Gives the ids of those to send now.
    fn pack(&mut self) -> Vec<String> {
        let mut ready = std::mem::take(&mut self.again);
        for event in std::mem::take(&mut self.outbox) {
            for hook in self.hooks.clone() {
                // That it is gone it is told all the same.
                let installed = self.app.is_some() || event.name == "installation";
                let reaches = !hook.app || installed;
                if reaches && hook.wants(&event) {
                    let delivery = self.delivery(&hook, &event);
                    if !matches!(self.way, Way::Held | Way::Lost) {
                        ready.push(delivery.id.clone());
                    }
                    self.deliveries.push(delivery);
                }
            }
        }
        ready
    }

    fn delivery(&mut self, hook: &Hook, event: &Event) -> Delivery {
        let mut body = event.body.clone();
        if hook.app && body["installation"].is_null() {
            body["installation"] = json!({"id": INSTALLATION, "node_id": "I_815"});
        }
        Delivery {
            id: self.uuid(),
            hook: hook.id,
            event: event.name,
            kind: event.kind,
            body: if hook.form {
                form(&body.to_string())
            } else {
                body.to_string()
            },
            waits: self.way == Way::Held,
            answers: Vec::new(),
        }
    }

    /// An id that no other forge of this or another test gives.
    pub(super) fn uuid(&mut self) -> String {
        let now = std::time::SystemTime::now();
        uuid_of(&format!("{} {} {now:?}", self.next_id(), self.url))
    }

    /// The deliveries that were held back.
    pub(super) fn released(&mut self) -> Vec<String> {
        let held = self.deliveries.iter_mut().filter(|delivery| delivery.waits);
        held.map(|delivery| {
            delivery.waits = false;
            delivery.id.clone()
        })
        .collect()
    }

    fn letter(&self, id: &str) -> Option<Letter> {
        let delivery = self.deliveries.iter().find(|delivery| delivery.id == id)?;
        let hook = self.hooks.iter().find(|hook| hook.id == delivery.hook)?;
        let mut headers = match self.face {
            Face::Github => of_github(hook, delivery),
            Face::Gitlab => of_gitlab(hook, delivery, self.unix(), &self.url),
            Face::Gitea | Face::Forgejo => of_gitea(self.face, hook, delivery),
        };
        let kind = if hook.form {
            "application/x-www-form-urlencoded"
        } else {
            "application/json"
        };
        headers.push(("content-type", kind.to_owned()));
        Some(Letter {
            url: hook.url.clone(),
            headers,
            body: delivery.body.clone(),
        })
    }

    fn answered(&mut self, id: &str, status: Option<u16>) {
        let at = self.unix();
        let mut all = self.deliveries.iter_mut();
        if let Some(delivery) = all.find(|delivery| delivery.id == id) {
            delivery.answers.push(Answered { status, at });
        }
    }
}

/// Sends what is in the outbox, in its order.
pub(super) async fn flush(shared: &Arc<Shared>) {
    let (ready, twice) = {
        let mut state = shared.lock();
        (state.pack(), state.way == Way::Twice)
    };
    for id in ready {
        if twice {
            tokio::join!(send(shared, &id), send(shared, &id));
        } else {
            send(shared, &id).await;
        }
    }
}

/// Sends a delivery, perhaps not for the first time. Gives the status that it was answered with.
pub(super) async fn send(shared: &Arc<Shared>, id: &str) -> Option<u16> {
    let letter = shared.lock().letter(id)?;
    let mut request = shared.http.post(letter.url).timeout(PATIENCE);
    for (name, value) in letter.headers {
        request = request.header(name, value);
    }
    let status = request
        .body(letter.body)
        .send()
        .await
        .ok()
        .map(|answer| answer.status().as_u16());
    shared.lock().answered(id, status);
    status
}

/// The older form of the signature, with SHA-1, is not sent: nobody should look at it.
fn of_github(hook: &Hook, delivery: &Delivery) -> Headers {
    let (target, id) = if hook.app {
        ("integration", "4711")
    } else {
        ("repository", "15")
    };
    let mut headers = vec![
        ("user-agent", "GitHub-Hookshot/044aadd".to_owned()),
        ("x-github-delivery", delivery.id.clone()),
        ("x-github-event", delivery.event.to_owned()),
        ("x-github-hook-id", hook.id.to_string()),
        ("x-github-hook-installation-target-id", id.to_owned()),
        ("x-github-hook-installation-target-type", target.to_owned()),
    ];
    if !hook.secret.is_empty() {
        headers.push((
            "x-hub-signature-256",
            format!("sha256={}", signature(hook, delivery)),
        ));
    }
    headers
}

fn of_gitea(face: Face, hook: &Hook, delivery: &Delivery) -> Headers {
    let signature = signature(hook, delivery);
    let mut headers = vec![
        ("user-agent", "Go-http-client/1.1".to_owned()),
        ("x-hub-signature-256", format!("sha256={signature}")),
    ];
    for name in ["x-github-delivery", "x-gitea-delivery", "x-gogs-delivery"] {
        headers.push((name, delivery.id.clone()));
    }
    for name in ["x-github-event", "x-gitea-event", "x-gogs-event"] {
        headers.push((name, delivery.event.to_owned()));
    }
    // Newer than the recorded ones, and harmless to whoever does not know them.
    for name in [
        "x-github-event-type",
        "x-gitea-event-type",
        "x-gogs-event-type",
    ] {
        headers.push((name, delivery.kind.to_owned()));
    }
    for name in ["x-gitea-signature", "x-gogs-signature"] {
        headers.push((name, signature.clone()));
    }
    if face == Face::Forgejo {
        headers.extend([
            ("x-forgejo-delivery", delivery.id.clone()),
            ("x-forgejo-event", delivery.event.to_owned()),
            ("x-forgejo-event-type", delivery.kind.to_owned()),
            ("x-forgejo-signature", signature),
        ]);
    }
    headers
}

fn of_gitlab(hook: &Hook, delivery: &Delivery, now: u64, instance: &str) -> Headers {
    let mut headers = vec![
        ("user-agent", "GitLab/17.4.0".to_owned()),
        ("idempotency-key", delivery.id.clone()),
        ("x-gitlab-event", delivery.event.to_owned()),
        // One for all hooks that hear of the event.
        ("x-gitlab-event-uuid", uuid_of(&delivery.body)),
        ("x-gitlab-instance", instance.to_owned()),
        (
            "x-gitlab-webhook-uuid",
            format!("0000{:04}-0000-4000-8000-000000000000", hook.id),
        ),
    ];
    match hook.secret.strip_prefix("whsec_") {
        Some(key) => {
            let signed = format!("{}.{now}.{}", delivery.id, delivery.body);
            let key = STANDARD.decode(key).unwrap();
            let signature = STANDARD.encode(mac(&key, signed.as_bytes()));
            headers.extend([
                ("webhook-id", delivery.id.clone()),
                ("webhook-timestamp", now.to_string()),
                ("webhook-signature", format!("v1,{signature}")),
            ]);
        }
        None if hook.secret.is_empty() => {}
        None => headers.push(("x-gitlab-token", hook.secret.clone())),
    }
    headers
}

fn uuid_of(seed: &str) -> String {
    let hex = hex::encode(mac(b"uuid", seed.as_bytes()));
    let [a, b, c, d] = [&hex[..8], &hex[8..12], &hex[13..16], &hex[17..20]];
    format!("{a}-{b}-4{c}-8{d}-{}", &hex[20..32])
}

/// A body as the one field of a form.
fn form(body: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    format!("payload={}", body.bytes().map(escaped).collect::<String>())
}

fn signature(hook: &Hook, delivery: &Delivery) -> String {
    hex::encode(mac(hook.secret.as_bytes(), delivery.body.as_bytes()))
}

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}
