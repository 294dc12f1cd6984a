//! Where a message may go. A server stands in the middle of a private network: what is meant for the world must not
//! be led to what nobody else can reach.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::outgoing::is_loopback;

/// Why nothing is sent to an address. The address itself is not repeated: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    /// Not a URL of a host.
    #[error("it is no address of a web host: it wants https://HOST/…")]
    NoUrl,
    /// It would be read by all on its way.
    #[error("it must begin with https:// (http:// is for this host alone)")]
    InClear,
    /// The user's name or a password stands in it.
    #[error("it has a user or password: put the whole address into a file and name that")]
    Credentials,
    /// It lies in a private network.
    #[error("it is in a private network: set private = true where that is meant")]
    Private,
}

/// Reads an address to which messages may go.
///
/// # Errors
/// [`AddressError`].
pub(super) fn read(text: &str, private: bool) -> Result<Url, AddressError> {
    let url = Url::parse(text).map_err(|_| AddressError::NoUrl)?;
    let Some(host) = url.host_str() else {
        return Err(AddressError::NoUrl);
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(AddressError::Credentials);
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err(AddressError::InClear),
        _ => return Err(AddressError::NoUrl),
    }
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let inside = is_loopback(&url) || ip.is_some_and(|ip| !is_public(ip));
    match inside && !private {
        true => Err(AddressError::Private),
        false => Ok(url),
    }
}

/// Finds the addresses of a name, and gives only those that anybody could reach. The proxy of this process's environment
/// is found wherever it is: the client asks for its name in the receiver's place.
#[derive(Debug)]
pub(super) struct PublicOnly {
    proxies: Vec<String>,
}

/// Where an HTTP client finds its proxy; each in small letters too.
const PROXIES: [&str; 3] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];

impl PublicOnly {
    /// With the proxies of the environment.
    pub(super) fn new() -> Self {
        let names = PROXIES.map(|name| [name.to_owned(), name.to_ascii_lowercase()]);
        let values = names
            .iter()
            .flatten()
            .filter_map(|name| std::env::var(name).ok());
        Self {
            proxies: values.filter_map(|value| host_of(&value)).collect(),
        }
    }
}

/// The host of a proxy, which may be written without a scheme.
fn host_of(proxy: &str) -> Option<String> {
    let url = match proxy.contains("://") {
        true => Url::parse(proxy),
        false => Url::parse(&format!("http://{proxy}")),
    };
    url.ok()?.host_str().map(str::to_ascii_lowercase)
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let asked = name.as_str().to_ascii_lowercase();
        let is_proxy = self.proxies.contains(&asked);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let open: Vec<SocketAddr> = found
                .filter(|found| is_proxy || is_public(found.ip()))
                .collect();
            if open.is_empty() {
                return Err(Box::new(AddressError::Private) as Box<dyn Error + Send + Sync>);
            }
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is anybody's to reach (IANA's registries of special-purpose addresses).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        // Of a carrier; of protocols; of benchmarks.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(inner) = ip.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    let [a, b, c, ..] = ip.segments();
    // Only 2000::/3 is given out; of it, some translate to IPv4 (6to4, Teredo) and some document.
    let given_out = a & 0xe000 == 0x2000;
    let special = a == 0x2002 || (a == 0x2001 && (b == 0 || b == 0xdb8 || (b == 2 && c == 0)));
    given_out && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_network_reaches_is_no_public_address() {
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:db8::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "172.32.0.1",
            "2606:4700:4700::1111",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn an_address_inside_is_refused_however_it_is_written() {
        for inside in [
            "http://localhost:8080/x",
            "https://localhost/x",
            "https://0x7f000001/x",
            "https://2130706433/x",
            "https://[::ffff:127.0.0.1]/x",
            "https://169.254.169.254/latest",
        ] {
            assert_eq!(read(inside, false), Err(AddressError::Private), "{inside}");
            assert!(read(inside, true).is_ok(), "{inside}");
        }
        assert_eq!(read("http://10.0.0.1/x", true), Err(AddressError::InClear));
        for none in ["ftp://x.example/", "mailto:a@b", "chat.example/x", ""] {
            assert_eq!(read(none, true), Err(AddressError::NoUrl), "{none}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_followed() {
        let found = |proxies: &[&str]| {
            let proxies = proxies.iter().filter_map(|proxy| host_of(proxy)).collect();
            PublicOnly { proxies }.resolve("localhost".parse().unwrap())
        };
        let error = found(&["http://proxy.example:3128"]).await.err().unwrap();
        assert_eq!(error.to_string(), AddressError::Private.to_string());
        for proxy in [
            "http://localhost:3128",
            "LOCALHOST:3128",
            "socks5h://me:secret@localhost",
        ] {
            assert!(found(&[proxy]).await.is_ok(), "{proxy}");
        }
    }
}
