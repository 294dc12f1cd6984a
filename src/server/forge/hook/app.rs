//! What a message to a GitHub App says beside its event: of which repository it is, or what became of an
//! installation.

use serde::Deserialize;

use super::{Told, github, json, line};

/// What a message to the App said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppTold {
    /// What happened, as in a message to a repository's own webhook.
    pub told: Told,
    /// The number of the repository that it is about.
    pub repository: Option<u64>,
    /// Whose installation changed, where one did: its tokens are worth nothing, or new ones are worth more.
    pub changed: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    installation: Option<Installation>,
    #[serde(default)]
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct Installation {
    /// Only where the event is about the installation itself.
    #[serde(default)]
    account: Option<Account>,
}

#[derive(Deserialize)]
struct Account {
    login: String,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
}

/// Reads an event.
pub(super) fn read(name: &str, body: &[u8]) -> Result<AppTold, String> {
    let whole: Body = json(body)?;
    let told = github::read(name, body)?;
    if whole.repository.is_some() && whole.installation.is_none() {
        return Err("it names no installation".into());
    }
    let changed = match name {
        "installation" | "installation_repositories" => {
            let account = whole.installation.and_then(|of| of.account);
            let account = account.ok_or("it does not say whose installation changed")?;
            Some(line(&account.login))
        }
        _ => None,
    };
    Ok(AppTold {
        told,
        repository: whole.repository.map(|repository| repository.id),
        changed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! recorded {
        ($name:literal) => {
            include_bytes!(concat!(
                "../../../../tests/data/forges/github/",
                $name,
                ".json"
            ))
        };
    }

    #[test]
    fn a_change_of_an_installation_says_whose_it_is() {
        for (name, body, whose) in [
            (
                "installation",
                &recorded!("installation.suspend")[..],
                "Codertocat",
            ),
            (
                "installation",
                &recorded!("installation.deleted")[..],
                "octocat",
            ),
            (
                "installation_repositories",
                &recorded!("installation_repositories.removed")[..],
                "octocat",
            ),
        ] {
            let told = read(name, body).unwrap();
            assert_eq!(told.changed.as_deref(), Some(whose));
            assert_eq!(told.repository, None);
        }
    }

    #[test]
    fn a_repository_goes_with_its_installation() {
        let push = recorded!("push.tag-deleted.with-installation");
        let told = read("push", push).unwrap();
        assert!(told.repository.is_some() && told.changed.is_none());
        let bare = br#"{"repository": {"id": 1, "full_name": "o/r"}}"#;
        let wrong = read("status", bare).unwrap_err();
        assert!(wrong.contains("no installation"));
        let ping = read("ping", recorded!("ping.app")).unwrap();
        assert_eq!((ping.repository, ping.changed), (None, None));
    }
}
