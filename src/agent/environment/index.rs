//! What a build is told of the package index: a trusted one all that is set, an untrusted one no credential that is
//! not set for it. A package runs code of its own while it is built, and so does who names it.

use std::collections::BTreeMap;

use protocol::Trust;

use crate::config::Python;
use crate::host::Host;

/// Names that lead pip to an index, and what uv calls them.
const PIP_NAMES: [(&str, &str); 2] = [
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
];
/// The way to the network, with both spellings of each name.
const PROXIES: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// Variables of uv's that are ours to set, or that mean something on the host only.
const NOT_PASSED: [&str; 8] = [
    "UV_CACHE_DIR",
    "UV_PYTHON",
    "UV_PROJECT_ENVIRONMENT",
    "UV_WORKING_DIRECTORY",
    "UV_PROJECT",
    "UV_CONFIG_FILE",
    "UV_INSTALL_DIR",
    "UV_PYTHON_INSTALL_DIR",
];
/// Variables of uv's that say where and how it fetches, and of which an untrusted build is told. The others may
/// hold passwords, as `UV_INDEX_<NAME>_PASSWORD` does.
const WITHOUT_SECRETS: [&str; 13] = [
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_INDEX_STRATEGY",
    "UV_INSECURE_HOST",
    "UV_HTTP_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_CONCURRENT_DOWNLOADS",
    "UV_CONCURRENT_BUILDS",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_EXCLUDE_NEWER",
];

/// Variables of a build: the agent's own, and over them those of the configuration.
pub(super) fn variables(host: &Host, trust: Trust) -> BTreeMap<String, String> {
    of(std::env::vars(), &host.config.python, trust)
}

fn of(
    own: impl Iterator<Item = (String, String)>,
    config: &Python,
    trust: Trust,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in own {
        let pip = PIP_NAMES.iter().find(|(pip, _)| *pip == name);
        if let Some((_, uv)) = pip {
            variables.entry((*uv).to_owned()).or_insert(value);
        } else if (name.starts_with("UV_") && !NOT_PASSED.contains(&name.as_str()))
            || PROXIES.contains(&name.as_str())
        {
            variables.insert(name, value);
        }
    }
    variables.extend(config.env.clone());
    if trust == Trust::Trusted {
        return variables;
    }
    let open = |name: &str| WITHOUT_SECRETS.contains(&name) || PROXIES.contains(&name);
    variables.retain(|name, _| open(name));
    for value in variables.values_mut() {
        *value = without_passwords(value);
    }
    variables.extend(config.untrusted_env.clone());
    variables
}

/// The index that was asked, as it may be shown.
pub(super) fn asked(variables: &BTreeMap<String, String>) -> String {
    let index = variables
        .get("UV_DEFAULT_INDEX")
        .or(variables.get("UV_INDEX_URL"));
    index.map_or_else(|| "PyPI".to_owned(), |url| without_passwords(url))
}

/// Addresses, one or several with blanks between them, without who asks and their password.
fn without_passwords(addresses: &str) -> String {
    let plain = |address: &str| match address.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let rest = match host.rfind('@') {
                Some(at) => &rest[at + 1..],
                None => rest,
            };
            format!("{scheme}://{rest}")
        }
        // `user:password@proxy:3128` is an address too.
        None => address
            .rsplit_once('@')
            .map_or(address, |(_, host)| host)
            .to_owned(),
    };
    let all: Vec<String> = addresses.split_whitespace().map(plain).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(trust: Trust, untrusted: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = list.iter().map(|(n, v)| ((*n).into(), (*v).into()));
            pairs.collect()
        };
        let own = pairs(&[
            ("PIP_INDEX_URL", "https://ci:hunter2@index.example/simple"),
            (
                "UV_INDEX",
                "corp=https://a:hunter2@c.example/s https://d.example/s",
            ),
            ("UV_INDEX_CORP_PASSWORD", "hunter2"),
            ("UV_PUBLISH_TOKEN", "hunter2"),
            ("UV_CACHE_DIR", "/elsewhere"),
            ("HTTPS_PROXY", "http://me:hunter2@proxy.example:3128"),
            ("HOME", "/root"),
        ]);
        let config = Python {
            env: pairs(&[("UV_HTTP_RETRIES", "0"), ("UV_INDEX_OTHER_USERNAME", "ci")]),
            untrusted_env: pairs(untrusted),
            ..Python::default()
        };
        of(own.into_iter(), &config, trust)
    }

    #[test]
    fn a_trusted_build_gets_what_is_set() {
        let told = told(
            Trust::Trusted,
            &[("UV_DEFAULT_INDEX", "https://open.example")],
        );
        let index = "https://ci:hunter2@index.example/simple";
        assert_eq!(told["UV_DEFAULT_INDEX"], index);
        assert_eq!(told["UV_INDEX_CORP_PASSWORD"], "hunter2");
        assert_eq!(told["UV_HTTP_RETRIES"], "0");
        assert!(!told.contains_key("UV_CACHE_DIR") && !told.contains_key("HOME"));
        assert_eq!(asked(&told), "https://index.example/simple");
    }

    #[test]
    fn an_untrusted_build_gets_no_credential() {
        let told = told(Trust::Untrusted, &[]);
        let said: Vec<String> = told.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            said,
            [
                "HTTPS_PROXY=http://proxy.example:3128",
                "UV_DEFAULT_INDEX=https://index.example/simple",
                "UV_HTTP_RETRIES=0",
                "UV_INDEX=corp=https://c.example/s https://d.example/s",
            ]
        );
    }

    #[test]
    fn an_untrusted_build_gets_what_is_set_for_it() {
        let given = [("UV_DEFAULT_INDEX", "https://reader:r@index.example/open")];
        let told = told(Trust::Untrusted, &given);
        assert_eq!(told["UV_DEFAULT_INDEX"], given[0].1);
        assert_eq!(asked(&told), "https://index.example/open");
    }
}
