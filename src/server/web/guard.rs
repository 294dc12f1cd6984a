//! Which requests are ours: Host, Origin, session cookie and form token, as pure functions.
//!
//! Without them a page elsewhere could talk to a server on loopback through the reader's browser (DNS
//! rebinding, cross-site forms), whether or not a token is set.

use axum::http::{HeaderMap, HeaderValue};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::secret;

/// Name of the session cookie.
pub(crate) const COOKIE: &str = "trainyard_session";

/// The names under which this server may be asked for.
#[derive(Debug, Clone)]
pub(crate) struct Names(Vec<String>);

/// The names of this host to itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl Names {
    /// `configured` names (without port) and the loopback ones.
    pub(crate) fn new(configured: impl IntoIterator<Item = String>) -> Self {
        Self(
            LOOPBACK
                .map(str::to_owned)
                .into_iter()
                .chain(configured.into_iter().map(|name| name.to_lowercase()))
                .collect(),
        )
    }

    /// Whether the `Host` header names this server, on whatever port.
    pub(crate) fn host_is_ours(&self, host: &str) -> bool {
        let name = strip_port(host).to_lowercase();
        self.0.contains(&name)
    }

    /// Whether a write that carries this `Origin` comes from one of our pages: same name and port as
    /// the `Host` header. Programs send no origin.
    pub(crate) fn origin_is_ours(&self, origin: Option<&str>, host: &str) -> bool {
        let Some(origin) = origin else { return true };
        let authority = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"));
        authority.is_some_and(|authority| {
            authority.eq_ignore_ascii_case(host) && self.host_is_ours(host)
        })
    }
}

/// Whether somebody on this host asks for it by its own name, and no proxy has passed it on.
pub(crate) fn asks_at_home(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let host = text("host").unwrap_or_default();
    let passed_on = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
    LOOPBACK.contains(&strip_port(host).to_lowercase().as_str())
        && !passed_on.iter().any(|name| headers.contains_key(*name))
}

fn strip_port(host: &str) -> &str {
    match host.rfind(':') {
        // An IPv6 literal ends with its bracket: a colon before that is not a port's.
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        Some(_) | None => host,
    }
}

/// The session in a `Cookie` header.
pub(crate) fn session_of(cookies: &str) -> Option<&str> {
    cookies
        .split(';')
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// A `Set-Cookie` value that starts a session of `seconds`.
pub(crate) fn session_cookie(session: &str, seconds: u64, tls: bool) -> String {
    let secure = if tls { "; Secure" } else { "" };
    format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}")
}

/// The token that every form of a session must bring back.
pub(crate) fn form_token(session: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(session.as_bytes()).expect("HMAC takes any key");
    mac.update(b"trainyard form");
    hex::encode(mac.finalize().into_bytes())
}

/// Whether a form brought back its session's token.
pub(crate) fn form_token_holds(session: &str, brought: &str) -> bool {
    secret::equal(form_token(session), brought)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_answered() {
        let names = Names::new(["ci.example.org".to_owned()]);
        for ours in [
            "localhost:8080",
            "127.0.0.1",
            "[::1]:443",
            "CI.example.org",
            "ci.example.org:443",
        ] {
            assert!(names.host_is_ours(ours), "{ours}");
        }
        for foreign in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "[::2]",
        ] {
            assert!(!names.host_is_ours(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_write_from_another_page_is_not_ours() {
        let names = Names::new([]);
        let host = "localhost:8080";
        assert!(names.origin_is_ours(None, host));
        assert!(names.origin_is_ours(Some("http://localhost:8080"), host));
        for foreign in [
            "null",
            "http://localhost:9999",
            "http://evil.example",
            "file://localhost:8080",
        ] {
            assert!(!names.origin_is_ours(Some(foreign), host), "{foreign}");
        }
        let rebound = "evil.example:8080";
        assert!(!names.origin_is_ours(Some("http://evil.example:8080"), rebound));
    }

    #[test]
    fn the_session_is_found_among_cookies() {
        assert_eq!(session_of("a=b; trainyard_session=s_1; c=d"), Some("s_1"));
        assert_eq!(
            session_of("trainyard_session_x=1; xtrainyard_session=2"),
            None
        );
    }

    #[test]
    fn a_form_token_belongs_to_one_session() {
        let token = form_token("s_1");
        assert!(form_token_holds("s_1", &token));
        assert!(!form_token_holds("s_2", &token) && !form_token_holds("s_1", ""));
    }

    #[test]
    fn the_cookie_is_out_of_reach_of_scripts() {
        let cookie = session_cookie("s", 60, true);
        assert!(
            cookie.contains("HttpOnly")
                && cookie.contains("SameSite=Lax")
                && cookie.ends_with("; Secure")
        );
    }
}
