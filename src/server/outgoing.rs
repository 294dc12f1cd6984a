//! Calls to other hosts, forges and others: what is alike in all of them.

use std::error::Error;
use std::time::Duration;

use protocol::{Digest, Span};
use reqwest::{Client, ClientBuilder, Response, Url, redirect};

use crate::forge::bounded;

/// A client for one host, whose calls take at most `timeout` each.
pub(crate) fn client(base: &Url, timeout: Duration) -> ClientBuilder {
    // One TLS library for the whole program; a second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = Client::builder();
    if is_loopback(base) {
        // A proxy would not find this host's own address.
        client = client.no_proxy();
    }
    client
        .user_agent(concat!("trainyard/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        .connect_timeout(timeout)
        // A redirect would carry the token to an address that nobody configured.
        .redirect(redirect::Policy::none())
}

/// Whether a URL leads to this host itself.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

/// How long to wait after so many tries that failed: `first`, doubled with each, at most `most`. It is a little longer
/// by chance of the name, so that what failed together does not come back together.
pub(crate) fn wait(first: Span, most: Span, tries: u32, name: &str) -> Span {
    let wait = first.0.saturating_mul(1 << tries.min(20)).min(most.0);
    let digest = Digest::of(format!("{name} {tries}"));
    let chance = u64::from_str_radix(&digest.as_str()[..4], 16).unwrap_or(0);
    Span(wait + wait * chance / (4 << 16))
}

/// An error with its causes: the outermost of an HTTP client says too little.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    bounded(&text, 300)
}

/// The first bytes of an answer, hardly more than `most`; what is torn off in between is enough.
pub(crate) async fn beginning(mut response: Response, most: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > most {
            break;
        }
    }
    body
}
