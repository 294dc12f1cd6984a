//! Other repositories that a commit names: where they are, by what it says in `.gitmodules`. A commit is foreign text:
//! it may name repositories that are reached as its own is, and none of this host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::CommitId;

use crate::git;
use crate::remote::Remote;
use crate::{Deadline, Mirror, MirrorError};

/// The addresses in a commit's `.gitmodules`, by path.
pub(crate) fn addresses(
    mirror: &Mirror,
    commit: &CommitId,
    deadline: &Deadline,
) -> Result<BTreeMap<PathBuf, String>, MirrorError> {
    let blob = format!("{commit}:.gitmodules");
    let wanted = r"^submodule\..*\.(path|url)$";
    // Git follows no include of what is no file.
    let arguments = ["config", "--blob", &blob, "--null", "--get-regexp", wanted];
    let what = "reading .gitmodules";
    let listed = git::run(&mirror.call(what, None, deadline), &arguments, &[])?;
    Ok(parse(&listed))
}

/// `submodule.<name>.path\n<value>\0` and the like, in the order of the file.
fn parse(listed: &str) -> BTreeMap<PathBuf, String> {
    let mut by_name: BTreeMap<&str, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for (key, value) in listed.split('\0').filter_map(|e| e.split_once('\n')) {
        let Some((name, field)) = key.rsplit_once('.') else {
            continue;
        };
        let found = by_name.entry(name).or_default();
        match field {
            "path" => found.0 = Some(value),
            "url" => found.1 = Some(value),
            _ => {}
        }
    }
    let pair = |(path, url): (Option<&str>, Option<&str>)| {
        Some((Path::new(path?).components().collect(), url?.to_owned()))
    };
    by_name.into_values().filter_map(pair).collect()
}

/// Where a submodule of `parent` is: beside it, or where its address says, on a way that is as safe.
///
/// # Errors
/// Why it is not fetched.
pub(crate) fn resolve(parent: &Remote, address: &str) -> Result<Remote, String> {
    let wrong = |why: &str| format!("{why} (its address is '{}')", address.escape_debug());
    let relative = address.starts_with("./") || address.starts_with("../");
    let url = match relative {
        true => beside(&parent.url, address).ok_or_else(|| wrong("it leads out of its server"))?,
        false => address.to_owned(),
    };
    let remote = Remote::parse(&url).map_err(|error| error.to_string())?;
    match (remote.scheme(), parent.scheme()) {
        ("https" | "ssh", _) | ("http", "http") => Ok(remote),
        ("http", _) => Err(wrong("its address is http and the repository's own is not")),
        _ => Err(wrong(
            "repositories of this host are not fetched for a commit",
        )),
    }
}

/// As git reads `../lib`: from the parent's address, a name up for each `..`.
fn beside(parent: &str, address: &str) -> Option<String> {
    let start = match parent.find("://") {
        Some(at) => at + 3 + parent[at + 3..].find('/')? + 1,
        None => parent.find(':')? + 1,
    };
    let (host, path) = parent.split_at(start);
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for part in address.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    // A path of ssh may begin at the root.
    let root = if path.starts_with('/') { "/" } else { "" };
    (!parts.is_empty()).then(|| format!("{host}{root}{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_lists_becomes_addresses_by_path() {
        let listed = "submodule.a.b.path\nlib/a\0submodule.a.b.url\n../a.git\0submodule.c.url\nhttps://x/c\0\
            submodule.d.path\nd/\0submodule.d.url\nhttps://x/d\0";
        let found = parse(listed);
        assert_eq!(found.len(), 2);
        assert_eq!(found[Path::new("lib/a")], "../a.git");
        assert_eq!(found[Path::new("d")], "https://x/d");
    }

    #[test]
    fn an_address_is_read_from_the_parents() {
        for (parent, address, url) in [
            (
                "https://f.example/g/top.git",
                "../lib.git",
                "https://f.example/g/lib.git",
            ),
            (
                "https://f.example/g/top/",
                "../../o/lib",
                "https://f.example/o/lib",
            ),
            (
                "https://f.example/g/top",
                "./lib",
                "https://f.example/g/top/lib",
            ),
            (
                "git@f.example:g/top.git",
                "../lib.git",
                "git@f.example:g/lib.git",
            ),
            (
                "git@f.example:top.git",
                "../lib.git",
                "git@f.example:lib.git",
            ),
            (
                "git@f.example:/srv/top.git",
                "../lib.git",
                "git@f.example:/srv/lib.git",
            ),
            (
                "http://f.example/g/top",
                "http://other.example/x",
                "http://other.example/x",
            ),
            (
                "https://f.example/g/top",
                "git@other.example:x",
                "git@other.example:x",
            ),
        ] {
            let parent = Remote::parse(parent).unwrap();
            assert_eq!(resolve(&parent, address).unwrap().url, url);
        }
    }

    #[test]
    fn what_is_less_safe_or_of_this_host_is_refused() {
        let https = Remote::parse("https://f.example/g/top.git").unwrap();
        for address in [
            "http://f.example/g/lib",
            "file:///etc",
            "/srv/git/secret",
            "ext::sh -c id",
            "git://f.example/lib",
            "https://me:pw@f.example/lib",
            "--upload-pack=id",
            "ssh://-oProxyCommand=id/x",
            "../../../lib",
            "lib",
        ] {
            assert!(resolve(&https, address).is_err(), "{address}");
        }
        let local = Remote::parse("/srv/git/top").unwrap();
        assert!(resolve(&local, "../lib").is_err());
    }
}
