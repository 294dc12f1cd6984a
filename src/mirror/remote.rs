//! Where a repository is: an address that people wrote, checked. It runs nothing.

use std::net::IpAddr;

use crate::MirrorError;

/// Where a repository is, checked.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) url: String,
    scheme: &'static str,
}

impl Remote {
    /// Takes what people write: https, http, ssh, `user@host:path`, `file://`, an absolute path.
    pub(crate) fn parse(url: &str) -> Result<Self, MirrorError> {
        let scheme = match url.split_once("://") {
            Some(("https", _)) => "https",
            Some(("http", _)) => "http",
            Some(("ssh", _)) => "ssh",
            Some(("file", _)) => "file",
            Some(_) => {
                return Err(MirrorError::Url {
                    url: url.to_owned(),
                });
            }
            None if url.starts_with('/') => "file",
            None if is_scp_like(url) => "ssh",
            None => {
                return Err(MirrorError::Url {
                    url: url.to_owned(),
                });
            }
        };
        if url.chars().any(char::is_control) {
            return Err(MirrorError::Url {
                url: url.escape_debug().to_string(),
            });
        }
        if let Some((_, rest)) = url.split_once("://") {
            let authority = rest.split('/').next().unwrap_or_default();
            if let Some((user, host)) = authority.rsplit_once('@')
                && (user.contains(':') || scheme.starts_with("http"))
            {
                return Err(MirrorError::UrlPassword {
                    host: host.to_owned(),
                });
            }
            if scheme != "file" && (authority.is_empty() || authority.starts_with('-')) {
                return Err(MirrorError::Url {
                    url: url.to_owned(),
                });
            }
        }
        Ok(Self {
            url: url.to_owned(),
            scheme,
        })
    }

    /// `https://host:port/`, to which an authorisation header is bound; none where git does not speak HTTP.
    pub(crate) fn origin(&self) -> Option<String> {
        let (scheme, rest) = self.url.split_once("://")?;
        let authority = rest.split('/').next()?;
        scheme
            .starts_with("http")
            .then(|| format!("{scheme}://{authority}/"))
    }

    /// Whether all on the way could read what is said there: HTTP without TLS, to a host that is not this one.
    pub(crate) fn is_in_clear(&self) -> bool {
        self.scheme == "http" && !self.host().is_some_and(is_loopback)
    }

    /// The host of an address with `://`; without the brackets of IPv6.
    pub(crate) fn host(&self) -> Option<&str> {
        let (_, rest) = self.url.split_once("://")?;
        let authority = rest.split('/').next()?;
        match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next(),
            None => authority.split(':').next(),
        }
    }

    /// `https`, `http`, `ssh` or `file`.
    pub(crate) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The folder, where the repository is one of this host.
    pub(crate) fn local_path(&self) -> Option<&str> {
        match self.scheme {
            "file" => Some(self.url.strip_prefix("file://").unwrap_or(&self.url)),
            _ => None,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let ip = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// `git@host:path`: a colon before the first slash, and no dash in front that ssh would take as an option.
fn is_scp_like(url: &str) -> bool {
    url.split_once(':').is_some_and(|(host, path)| {
        // `ext::command` is git's own way to run anything at all.
        let path_is_path = !path.is_empty() && !path.starts_with(':');
        !host.is_empty() && !host.contains('/') && !host.starts_with('-') && path_is_path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for good in [
            "https://forge.example/team/churn.git",
            "http://localhost:3000/team/churn",
            "ssh://git@forge.example/team/churn",
            "git@forge.example:team/churn.git",
            "file:///srv/git/churn",
            "/srv/git/churn.git",
        ] {
            assert!(Remote::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "churn",
            "ext::sh -c touch% /tmp/x",
            "ftp://forge.example/x",
            "--upload-pack=touch",
            "ssh://-oProxyCommand=touch/x",
            "https:///x",
            "/srv/a\nb",
        ] {
            assert!(Remote::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let error = Remote::parse("https://me:hunter2@forge.example/x").unwrap_err();
        assert!(matches!(error, MirrorError::UrlPassword { .. }));
        assert!(!error.to_string().contains("hunter2"));
    }
}
