//! Looks whether all is well between a project and its forge, clone, token, webhook, and with who else is told of it.
//! It changes nothing.

mod told;

use std::sync::Arc;
use std::time::Duration;

use mirror::Deadline;
use protocol::Timestamp;
use protocol::setup::{Check, Level};

use self::told::told;
use super::webhook;
use crate::forge::app::App;
use crate::forge::hooks::Sent;
use crate::forge::{Access, Credential, CredentialError, ForgeError, ForgeKind, Place, rights};
use crate::state::Server;
use crate::store::Result;
use crate::store::projects::{self, Project};
use crate::watch;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the remote has for its answer.
const CLONE_TIMEOUT: Duration = Duration::from_secs(60);
/// GitHub wants a second between two writes; what is tried here are two.
const APART: Duration = Duration::from_secs(1);

/// Examines a project.
///
/// # Errors
/// The store's. What a forge answers stands in the checks.
pub async fn examine(server: &Server, project: &Project) -> Result<Vec<Check>> {
    // A token that is kept would hide that there are no new ones.
    server.forges.forget(&project.forge);
    let mut found = vec![which(server, project), clone(server, project).await];
    found.extend(at_forge(server, project).await?);
    found.extend(told(server, project).await?);
    Ok(found)
}

/// What is between the project and its forge; nothing of a plain remote.
async fn at_forge(server: &Server, project: &Project) -> Result<Vec<Check>> {
    let Some((kind, place)) = project.forge.place() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let app = server.forges.app().filter(|app| app.is_at(&place.api));
    match (place.app, app) {
        (Some(_), Some(app)) => {
            found.push(installed(app, place).await);
            found.push(hook_of_app(server, app, place).await);
        }
        (Some(_), None) => {
            let api = place.api.clone();
            let why = CredentialError::NoApp { api }.to_string();
            found.push(check(Level::Fail, "app", why));
        }
        (None, _) => {
            found.extend(token(server, project, kind, place).await);
            found.push(secret(place));
            found.push(hook(server, project, kind, place).await);
        }
    }
    found.push(heard(server, project).await?);
    Ok(found)
}

fn check(level: Level, name: &str, found: impl Into<String>) -> Check {
    Check {
        level,
        name: name.to_owned(),
        found: found.into(),
        hint: None,
    }
}

fn ok(name: &str, found: impl Into<String>) -> Check {
    check(Level::Ok, name, found)
}

fn but(level: Level, name: &str, found: impl Into<String>, hint: impl Into<String>) -> Check {
    Check {
        hint: Some(hint.into()),
        ..check(level, name, found)
    }
}

fn which(server: &Server, project: &Project) -> Check {
    match project.forge.place() {
        Some((kind, place)) => {
            let (repository, api) = (place.repository.as_str(), &place.api);
            ok("forge", format!("{kind}, {repository} at {api}"))
        }
        None => {
            let interval = server.config.poll_interval;
            ok("forge", format!("plain git, looked at every {interval}"))
        }
    }
}

/// Whether git gets at the repository.
async fn clone(server: &Server, project: &Project) -> Check {
    let name = "clone";
    let authorization = match watch::authorization(server, project).await {
        Ok(authorization) => authorization,
        Err(error) => return check(Level::Fail, name, error.to_string()),
    };
    let url = project.url.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let deadline = Deadline::within(CLONE_TIMEOUT);
        mirror::remote_refs(&url, authorization.as_deref(), &deadline)
    });
    match looked.await {
        Ok(Ok(remote)) => {
            let count = remote.refs.len();
            let refs = if count == 1 { "ref" } else { "refs" };
            ok(name, format!("{} shows {count} {refs}", project.url))
        }
        Ok(Err(error)) => but(
            Level::Fail,
            name,
            error.to_string(),
            "look at the URL, and at the credential: it must be allowed to read the repository's code",
        ),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// What the token may.
async fn token(server: &Server, project: &Project, kind: ForgeKind, place: &Place) -> Vec<Check> {
    let rights = match server.forges.rights(&project.forge, CALL_TIMEOUT).await {
        Ok(Some(rights)) => rights,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![unknown(kind, place, &error)],
    };
    let scopes = match &rights.scopes {
        Some(scopes) => format!("scopes {}", scopes.join(", ")),
        None => "its scopes are not told".to_owned(),
    };
    let ends = rights.ends.as_ref().map(|ends| format!("; it ends {ends}"));
    let found = format!("{kind} knows it; {scopes}{}", ends.unwrap_or_default());
    let mut found = vec![ok("token", found)];
    let forge = match server.forges.connect(&project.forge, CALL_TIMEOUT) {
        Ok(forge) => forge,
        Err(error) => return vec![check(Level::Fail, "token", error.to_string())],
    };
    for (name, access) in [
        ("statuses", Access::Statuses),
        ("comments", Access::Comments),
    ] {
        if kind == ForgeKind::Github && access == Access::Comments {
            tokio::time::sleep(APART).await;
        }
        found.push(match rights::try_to(forge.as_ref(), access).await {
            Ok(()) => ok(name, "may be written"),
            Err(error @ ForgeError::Unauthorized { .. }) => but(
                Level::Fail,
                name,
                error.to_string(),
                format!("the token needs: {}", rights::needed(kind, access)),
            ),
            Err(error) => check(Level::Warn, name, error.to_string()),
        });
    }
    found.push(commands(&rights, kind));
    found
}

/// Whether commands in comments can be obeyed.
fn commands(rights: &rights::Rights, kind: ForgeKind) -> Check {
    let name = "commands";
    if rights.knows_people(kind) {
        return ok(
            name,
            format!("{kind} tells who may write, and they are obeyed"),
        );
    }
    but(
        Level::Warn,
        name,
        format!(
            "{kind} does not tell this token who may write: no command in a comment is obeyed, and no member's fork trusted"
        ),
        format!("the token needs: {}", rights::needed(kind, Access::People)),
    )
}

/// Why the forge says nothing to the token.
fn unknown(kind: ForgeKind, place: &Place, error: &ForgeError) -> Check {
    let renew = match &place.token {
        Some(reference) => format!("make a token and put it where {reference} leads"),
        None => "name a token: 'trainyard project add --credential'".to_owned(),
    };
    let hint = match error {
        ForgeError::Unauthorized { status: 401, .. } => {
            format!("it is wrong, has ended or was revoked: {renew}")
        }
        ForgeError::Unauthorized { .. } => {
            let needs = rights::needed(kind, Access::Read);
            format!("the token does not see the repository; it needs: {needs}")
        }
        ForgeError::Credential(_) => renew,
        ForgeError::App { .. }
        | ForgeError::Moved { .. }
        | ForgeError::UnknownCommit { .. }
        | ForgeError::Refused { .. }
        | ForgeError::Unreadable { .. }
        | ForgeError::RateLimited { .. }
        | ForgeError::Transport { .. } => {
            return check(Level::Fail, "token", error.to_string());
        }
    };
    but(Level::Fail, "token", error.to_string(), hint)
}

/// Whether the App is in the repository with all that it needs.
async fn installed(app: &Arc<App>, place: &Place) -> Check {
    let name = "app";
    match app.installation(&place.repository).await {
        Err(error) => check(Level::Fail, name, error.to_string()),
        Ok(installation) => {
            let missing = rights::missing_of_app(&installation);
            if missing.is_empty() {
                return ok(name, "installed, with all that it needs");
            }
            let page = &installation.html_url;
            but(
                Level::Fail,
                name,
                format!("installed, without {}", missing.join(", ")),
                format!(
                    "set it on the App's page (Permissions & events); the repository's owner then agrees at {page}"
                ),
            )
        }
    }
}

async fn hook_of_app(server: &Server, app: &Arc<App>, place: &Place) -> Check {
    let name = "webhook";
    if let Some(wrong) = unreadable(name, app.webhook_secret(), "[github_app] webhook_secret") {
        return wrong;
    }
    let (leads, last) = match app.hook(&place.repository).await {
        Ok(found) => found,
        Err(error) => return check(Level::Warn, name, error.to_string()),
    };
    let ours = server
        .config
        .url
        .as_deref()
        .map(|url| format!("{}/hooks", url.trim_end_matches('/')));
    let fits = match &ours {
        Some(ours) => leads == *ours,
        None => leads.ends_with("/hooks"),
    };
    if !fits {
        let ours = ours.unwrap_or_else(|| "https://YOUR-SERVER/hooks".to_owned());
        return but(
            Level::Fail,
            name,
            format!("the App's leads to '{leads}'"),
            format!("set it to {ours} on the App's page"),
        );
    }
    answered(name, &leads, last)
}

/// Whether messages could be proved.
fn secret(place: &Place) -> Check {
    let name = "secret";
    let reference = place.webhook_secret.as_ref();
    unreadable(name, reference, "'trainyard project add --webhook-secret'")
        .unwrap_or_else(|| ok(name, "the webhook's can be read"))
}

/// A secret that is not there; none: it is.
fn unreadable(name: &str, reference: Option<&Credential>, set_by: &str) -> Option<Check> {
    let Some(reference) = reference else {
        let found = "no secret is named: every message is refused";
        return Some(but(
            Level::Fail,
            name,
            found,
            format!("name one with {set_by}"),
        ));
    };
    let error = reference.read().err()?;
    Some(check(Level::Fail, name, error.to_string()))
}

/// Whether the forge has a webhook that leads here, and how its last message was answered.
async fn hook(server: &Server, project: &Project, kind: ForgeKind, place: &Place) -> Check {
    let name = "webhook";
    let exact = webhook::address(server, &project.name);
    let end = format!("/hooks/{}", project.name);
    let ours = |url: &str| match &exact {
        Some(exact) => url == exact,
        None => url.ends_with(&end),
    };
    let hooks = match server.forges.hooks(&project.forge, CALL_TIMEOUT) {
        Ok(Some(hooks)) => hooks,
        Ok(None) => return ok(name, "a plain remote has none"),
        Err(error) => return check(Level::Warn, name, error.to_string()),
    };
    let found = match hooks.find(ours).await {
        Ok(found) => found,
        Err(error) => {
            let needs = rights::needed(kind, Access::Hooks);
            let hint = format!("it is used all the same; to look at it the token needs: {needs}");
            return but(Level::Warn, name, error.to_string(), hint);
        }
    };
    let Some(hook) = found else {
        let url = exact.unwrap_or_else(|| format!("https://YOUR-SERVER{end}"));
        let page = webhook::form(kind, place, &url, String::new()).page;
        return but(
            Level::Fail,
            name,
            format!("the repository has none that leads to {url}"),
            format!("make it at {page}"),
        );
    };
    if !hook.active {
        let page = webhook::form(kind, place, &hook.url, String::new()).page;
        let found = format!("{} is turned off at the forge", hook.url);
        return but(Level::Fail, name, found, format!("turn it on: {page}"));
    }
    if !hook.deaf_to.is_empty() {
        let found = format!("{} does not hear of {}", hook.url, hook.deaf_to.join(", "));
        return but(Level::Warn, name, found, "tick these events at the forge");
    }
    match hooks.last(&hook).await {
        Ok(last) => answered(name, &hook.url, last),
        Err(error) => check(Level::Warn, name, error.to_string()),
    }
}

fn answered(name: &str, url: &str, last: Option<Sent>) -> Check {
    match last {
        None => ok(name, format!("it leads to {url}")),
        Some(Sent {
            event,
            at,
            status: 200..=299,
        }) => ok(
            name,
            format!("it leads to {url}; the last message ({event}, {at}) was taken"),
        ),
        Some(Sent {
            event,
            at,
            status: 0,
        }) => but(
            Level::Fail,
            name,
            format!("the last message to {url} ({event}, {at}) did not get through"),
            "the forge must reach this address: look at name, firewall and certificate",
        ),
        Some(Sent { event, at, status }) => but(
            Level::Fail,
            name,
            format!("the last message to {url} ({event}, {at}) was answered {status}"),
            "401: the secrets differ; for others the server's log says why",
        ),
    }
}

/// What came here.
async fn heard(server: &Server, project: &Project) -> Result<Check> {
    let mut db = server.store.read().await?;
    let last = projects::last_delivery(&mut db, &project.id).await?;
    let name = "messages";
    Ok(match last {
        Some((event, at)) => {
            let ago = Timestamp::now().since(at);
            ok(name, format!("the last one came {ago} ago ({event})"))
        }
        None => but(
            Level::Warn,
            name,
            "none came yet",
            "push something; until then a push is seen at the next look",
        ),
    })
}
