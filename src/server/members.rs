//! Forks that are trusted by configuration: a member's own. Whoever may push to the repository itself loses nothing by
//! working in a fork. Asked anew at each head, and true of that head alone.

use std::time::Duration;

use protocol::{TriggerKind, Trust};

use crate::report::ReportConfig;
use crate::rest;
use crate::state::Server;
use crate::store::projects::Project;
use crate::trigger::Asked;
use crate::watch::WatchError;

/// Trusts those of the asked that are members' forks, where the project's administrator wants that. Where the forge
/// does not say so they are held, as every fork is.
pub(crate) async fn trust(server: &Server, project: &Project, asked: &mut [Asked]) {
    let wanted = &server.config.trust_member_forks;
    if !wanted.contains(&project.name) || !project.forge.speaks() {
        return;
    }
    let timeout = ReportConfig::default().call_timeout.into();
    for asked in asked {
        match is_members(server, project, asked, timeout).await {
            Ok(true) => asked.trigger.trust = Trust::Trusted,
            Ok(false) => {}
            Err(error) => {
                let (name, commit) = (&project.name, asked.trigger.commit.short());
                tracing::warn!(project = name, commit, %error, "a fork is held: its author could not be asked for");
            }
        }
    }
}

async fn is_members(
    server: &Server,
    project: &Project,
    asked: &Asked,
    timeout: Duration,
) -> Result<bool, WatchError> {
    let trigger = &asked.trigger;
    match (&trigger.kind, trigger.trust) {
        (TriggerKind::PullRequest { number }, Trust::Untrusted) => {
            let forge = server.forges.connect(&project.forge, timeout)?;
            let asked = forge.members_fork(*number, &trigger.commit);
            rest::call(server, project, asked).await
        }
        (
            TriggerKind::Push
            | TriggerKind::PullRequest { .. }
            | TriggerKind::Schedule { .. }
            | TriggerKind::Rerun { .. }
            | TriggerKind::Reproduction { .. }
            | TriggerKind::Person { .. },
            _,
        ) => Ok(false),
    }
}
