//! Whether receivers outside of the forge get what they are to be told.

use protocol::Timestamp;
use protocol::setup::{Check, Level};

use super::{but, check, ok};
use crate::notices::{Rule, receiver};
use crate::state::Server;
use crate::store::notices::{self, Notice};
use crate::store::projects::Project;
use crate::store::{Connection, Result};

/// A line for each rule that is about the project.
pub(super) async fn told(server: &Server, project: &Project) -> Result<Vec<Check>> {
    let rules = server.config.notify.iter();
    let mut db = server.store.read().await?;
    let mut found = Vec::new();
    for rule in rules.filter(|rule| rule.is_for(&project.name)) {
        found.push(one(&mut db, project, rule).await?);
    }
    Ok(found)
}

async fn one(db: &mut Connection, project: &Project, rule: &Rule) -> Result<Check> {
    let name = format!("notify {}", rule.name);
    let host = match receiver(rule) {
        Ok(host) => host,
        Err(why) => return Ok(check(Level::Fail, &name, why)),
    };
    let signed = match rule.secret {
        Some(_) => "signed",
        None => "not signed",
    };
    let last = notices::last(db, &project.id, &rule.name).await?;
    Ok(match last {
        None => ok(
            &name,
            format!("{host} ({signed}); there was nothing to tell yet"),
        ),
        Some(Notice {
            taken_at: Some(at), ..
        }) => {
            let ago = Timestamp::now().since(at);
            ok(
                &name,
                format!("{host} ({signed}); the last message was taken {ago} ago"),
            )
        }
        Some(Notice {
            problem: Some(problem),
            open,
            ..
        }) => {
            let level = if open { Level::Warn } else { Level::Fail };
            let found = format!("{host} did not take the last message: {problem}");
            let hint = "look at its address, at the receiver, and at the server's way to it";
            but(level, &name, found, hint)
        }
        Some(_) => ok(&name, format!("{host} ({signed}); a message is on its way")),
    })
}
