//! What a clone URL, and what is said beside it, tell of a project's forge.

use reqwest::Url;

use super::place::GITHUB_API;
use super::{ForgeConfig, ForgeKind, InvalidRepository, Place, Repository};
use crate::outgoing::is_loopback;

/// Words for forges.
const WORDS: [(&str, Option<ForgeKind>); 5] = [
    ("github", Some(ForgeKind::Github)),
    ("gitlab", Some(ForgeKind::Gitlab)),
    ("gitea", Some(ForgeKind::Gitea)),
    ("forgejo", Some(ForgeKind::Gitea)),
    ("git", None),
];
/// Hosts that need no word.
const HOSTS: [(&str, ForgeKind); 4] = [
    ("github.com", ForgeKind::Github),
    ("gitlab.com", ForgeKind::Gitlab),
    ("gitea.com", ForgeKind::Gitea),
    ("codeberg.org", ForgeKind::Gitea),
];

/// A clone URL, and what replaces what it says.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// What `git fetch` takes.
    pub url: &'a str,
    /// The forge's word.
    pub forge: Option<&'a str>,
    /// The repository's path.
    pub repository: Option<&'a str>,
    /// Base of the REST API.
    pub api: Option<&'a str>,
}

/// A forge that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Which API it speaks.
    pub kind: ForgeKind,
    /// Where its pages are, `https://host` or a path below.
    pub web: String,
}

/// Deepest path below a host at which a forge is looked for.
const DEEPEST: usize = 3;

/// Why no forge was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The word is none.
    #[error("'{0}' is no forge: use github, gitlab, gitea, forgejo or git")]
    Unknown(String),
    /// A setting that says nothing for a plain remote.
    #[error(
        "'{0}' is for repositories at a forge, and neither the URL nor its host says which: name it with 'forge' (github, gitlab, gitea, forgejo)"
    )]
    NoForge(&'static str),
    /// No path.
    #[error(transparent)]
    Repository(#[from] InvalidRepository),
    /// The URL names no host.
    #[error("where the API of {0} is, this URL does not say: name it with 'api'")]
    NoHost(ForgeKind),
}

impl Address<'_> {
    /// Where to ask which forge it is: at the host, then where it may lie below, `https://host/gitea`. Empty: it is said,
    /// or there is no host.
    #[must_use]
    pub fn strangers(&self) -> Vec<String> {
        let Some((host, path)) = parts(self.url) else {
            return Vec::new();
        };
        if self.forge.is_some() || known_host(host).is_some() {
            return Vec::new();
        }
        let host = web(self.url, host);
        // Owner and name are the repository's at least. What ssh says of paths says nothing of pages.
        let above = match self.url.starts_with("http") {
            true => path.split('/').count().saturating_sub(2).min(DEEPEST),
            false => 0,
        };
        let below = |depth: usize| {
            let parts = path.split('/').take(depth);
            parts.fold(host.clone(), |web, part| format!("{web}/{part}"))
        };
        (0..=above).map(below).collect()
    }

    /// The forge, without secrets. `asked` is who answered of [`Address::strangers`].
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn find(&self, asked: Option<&Answered>) -> Result<ForgeConfig, AddressError> {
        let found = parts(self.url);
        let kind = match self.forge {
            Some(word) => {
                WORDS
                    .into_iter()
                    .find(|(known, _)| *known == word)
                    .ok_or_else(|| AddressError::Unknown(word.chars().take(40).collect()))?
                    .1
            }
            None => {
                let known = found.and_then(|(host, _)| known_host(host));
                known.or(asked.map(|asked| asked.kind))
            }
        };
        let Some(kind) = kind else {
            let useless = [("repository", self.repository), ("api", self.api)];
            return match useless.into_iter().find(|(_, value)| value.is_some()) {
                Some((name, _)) => Err(AddressError::NoForge(name)),
                None => Ok(ForgeConfig::Git),
            };
        };
        let within = |(host, path)| match asked {
            Some(asked) => below(&web(self.url, host), &asked.web, path),
            None => path,
        };
        let path = self.repository.or(found.map(within));
        let repository = Repository::try_from(path.unwrap_or_default().to_owned())?;
        if kind != ForgeKind::Gitlab && repository.parts() != 2 {
            return Err(InvalidRepository::of(&repository).into());
        }
        let api = match (self.api, found) {
            (Some(api), _) => api.to_owned(),
            (None, Some((host, _))) => match asked {
                Some(asked) => api(kind, &asked.web),
                None => api(kind, &web(self.url, host)),
            },
            // It has one address for nearly everybody.
            (None, None) if kind == ForgeKind::Github => GITHUB_API.to_owned(),
            (None, None) => return Err(AddressError::NoHost(kind)),
        };
        let place = Place::new(repository, api);
        Ok(match kind {
            ForgeKind::Github => ForgeConfig::Github(place),
            ForgeKind::Gitlab => ForgeConfig::Gitlab(place),
            ForgeKind::Gitea => ForgeConfig::Gitea(place),
        })
    }
}

fn known_host(host: &str) -> Option<ForgeKind> {
    let found = HOSTS
        .into_iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(host));
    found.map(|(_, kind)| kind)
}

/// A repository's path at a forge whose pages are below those of its host.
fn below<'a>(host: &str, web: &str, path: &'a str) -> &'a str {
    let prefix = web.strip_prefix(host).unwrap_or_default();
    let within = path.strip_prefix(prefix.trim_start_matches('/'));
    within.map_or(path, |path| path.trim_start_matches('/'))
}

/// Where a host has its pages. Without TLS only on this host itself: tokens go there.
fn web(url: &str, host: &str) -> String {
    let plain = format!("http://{host}");
    let here = Url::parse(&plain).is_ok_and(|url| is_loopback(&url));
    if here && url.starts_with("http://") {
        plain
    } else {
        format!("https://{host}")
    }
}

/// Where a forge of this kind has its API.
fn api(kind: ForgeKind, web: &str) -> String {
    match kind {
        ForgeKind::Github if web.eq_ignore_ascii_case("https://github.com") => {
            GITHUB_API.to_owned()
        }
        ForgeKind::Github => format!("{web}/api/v3"),
        ForgeKind::Gitlab => format!("{web}/api/v4"),
        ForgeKind::Gitea => format!("{web}/api/v1"),
    }
}

/// Host and path of `https://host/path.git`, `ssh://git@host:22/path` or `git@host:path`; none of a path on this
/// host. The port of a web address stays with its host, that of ssh says nothing of the API.
fn parts(url: &str) -> Option<(&str, &str)> {
    let (host, path) =
        if let Some(rest) = url.strip_prefix("https://").or(url.strip_prefix("http://")) {
            rest.split_once('/')?
        } else if let Some(rest) = url.strip_prefix("ssh://") {
            let (host, path) = rest.split_once('/')?;
            (host.rsplit_once(':').map_or(host, |(host, _)| host), path)
        } else if url.contains("://") || url.starts_with('/') {
            return None;
        } else {
            url.split_once(':')?
        };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let path = path.trim_matches('/');
    Some((host, path.strip_suffix(".git").unwrap_or(path))).filter(|(host, _)| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(url: &str, forge: Option<&str>) -> Result<String, AddressError> {
        let address = Address {
            url,
            forge,
            repository: None,
            api: None,
        };
        let config = address.find(None)?;
        Ok(match config.place() {
            None => "git".to_owned(),
            Some((kind, place)) => {
                format!(
                    "{} {} {}",
                    kind.word(),
                    place.repository.as_str(),
                    place.api
                )
            }
        })
    }

    #[test]
    fn the_forge_is_read_from_the_address() {
        for (url, forge, said) in [
            (
                "https://github.com/a/b.git",
                None,
                "github a/b https://api.github.com",
            ),
            (
                "git@github.com:a/b.git",
                None,
                "github a/b https://api.github.com",
            ),
            (
                "ssh://git@gitlab.com:22/a/b/c.git/",
                None,
                "gitlab a/b/c https://gitlab.com/api/v4",
            ),
            (
                "https://codeberg.org/a/b",
                None,
                "gitea a/b https://codeberg.org/api/v1",
            ),
            (
                "https://ghe.example/a/b",
                Some("github"),
                "github a/b https://ghe.example/api/v3",
            ),
            (
                "https://me@git.example:8443/a/b",
                Some("forgejo"),
                "gitea a/b https://git.example:8443/api/v1",
            ),
            ("https://git.example/a/b.git", None, "git"),
            ("https://github.com/a/b.git", Some("git"), "git"),
            ("/srv/git/b.git", None, "git"),
            ("file:///srv/git/b.git", None, "git"),
        ] {
            assert_eq!(found(url, forge).unwrap(), said, "{url}");
        }
    }

    #[test]
    fn a_host_that_nobody_knows_is_asked_and_its_answer_counts() {
        let address = |url, forge| Address {
            url,
            forge,
            repository: None,
            api: None,
        };
        let host = "https://git.example";
        for (url, forge, asked) in [
            ("https://git.example/a/b", None, vec![host]),
            ("git@git.example:a/b", None, vec![host]),
            ("ssh://git@git.example/x/a/b", None, vec![host]),
            ("http://git.example/a/b", None, vec![host]),
            (
                "http://localhost:3000/a/b",
                None,
                vec!["http://localhost:3000"],
            ),
            (
                "https://git.example/x/y/a/b.git",
                None,
                vec![host, "https://git.example/x", "https://git.example/x/y"],
            ),
            ("https://git.example/a/b", Some("git"), vec![]),
            ("https://github.com/a/b", None, vec![]),
            ("/srv/git/b.git", None, vec![]),
        ] {
            assert_eq!(address(url, forge).strangers(), asked, "{url}");
        }
        for (url, kind, web, said) in [
            (
                "http://localhost:3000/a/b",
                ForgeKind::Gitea,
                "http://localhost:3000",
                "a/b",
            ),
            (
                "https://git.example/x/a/b",
                ForgeKind::Gitea,
                "https://git.example/x",
                "a/b",
            ),
            (
                "https://git.example/g/a/b",
                ForgeKind::Gitlab,
                "https://git.example",
                "g/a/b",
            ),
            (
                "https://git.example/x/g/a/b",
                ForgeKind::Gitlab,
                "https://git.example/x",
                "g/a/b",
            ),
        ] {
            let answered = Answered {
                kind,
                web: web.to_owned(),
            };
            let config = address(url, None).find(Some(&answered)).unwrap();
            let (_, place) = config.place().unwrap();
            assert_eq!(place.repository.as_str(), said, "{url}");
            assert_eq!(place.web(), web, "{url}");
        }
    }

    #[test]
    fn what_is_said_beside_it_wins() {
        let address = Address {
            url: "/srv/git/b.git",
            forge: Some("github"),
            repository: Some("a/b"),
            api: Some("https://ghe.example/api/v3"),
        };
        let config = address.find(None).unwrap();
        let (kind, place) = config.place().unwrap();
        assert_eq!(
            (kind, place.repository.as_str()),
            (ForgeKind::Github, "a/b")
        );
        assert_eq!(place.api, "https://ghe.example/api/v3");
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let refused = |address: Address<'_>| address.find(None).unwrap_err().to_string();
        let plain = Address {
            url: "/srv/git/b.git",
            forge: None,
            repository: None,
            api: None,
        };
        let api = Some("https://x/api");
        for (address, words) in [
            (
                Address {
                    forge: Some("svn"),
                    ..plain
                },
                "is no forge",
            ),
            (
                Address { api, ..plain },
                "'api' is for repositories at a forge",
            ),
            (
                Address {
                    forge: Some("gitea"),
                    repository: Some("a/b"),
                    ..plain
                },
                "name it with 'api'",
            ),
            (
                Address {
                    forge: Some("gitea"),
                    api,
                    ..plain
                },
                "owner/name",
            ),
            (
                Address {
                    url: "https://x/a/b/c",
                    forge: Some("gitea"),
                    ..plain
                },
                "'a/b/c' is not a repository",
            ),
        ] {
            let said = refused(address);
            assert!(said.contains(words), "{said}");
        }
    }
}
