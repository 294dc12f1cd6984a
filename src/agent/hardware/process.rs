//! Whose a process of this host is: its name, its user, its container. It reads the kernel's files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Names that were asked for: a directory service is asked once for each user.
static NAMES: Mutex<BTreeMap<u32, String>> = Mutex::new(BTreeMap::new());
/// Seconds that a directory service may take.
const NAME_WITHIN: &str = "2";

/// What can be seen of a process; nothing of one that is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) user: Option<String>,
    pub(super) container: Option<String>,
}

/// Looks at `/proc/PID`.
pub(super) fn identify(pid: u32) -> Identity {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let uid = fs::metadata(format!("/proc/{pid}")).map(|meta| meta.uid());
    Identity {
        name: read("comm").trim_end().to_owned(),
        user: uid.ok().map(user),
        container: container(&read("cgroup")),
    }
}

/// The name of a user id: of `/etc/passwd`, else of whatever the system is set up to ask; `uid N` where nobody knows it.
fn user(uid: u32) -> String {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = names.get(&uid) {
        return name.clone();
    }
    let own = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let asked = || {
        let output = Command::new("timeout")
            .args([NAME_WITHIN, "getent", "passwd", &uid.to_string()])
            .stdin(Stdio::null())
            .output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let name = name_in(&own, uid)
        .or_else(|| name_in(&asked().ok()?, uid))
        .unwrap_or_else(|| format!("uid {uid}"));
    names.insert(uid, name.clone());
    name
}

/// The name of a user id by lines as `/etc/passwd` has them.
fn name_in(passwd: &str, uid: u32) -> Option<String> {
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    passwd.lines().find_map(name)
}

/// The container of a process by the lines of `/proc/PID/cgroup`: engines put its id of 64 hexadecimal digits into
/// the path, as `/docker/<id>`, `docker-<id>.scope`, `libpod-<id>.scope` or `cri-containerd-<id>.scope`. The
/// innermost counts.
fn container(cgroup: &str) -> Option<String> {
    let of_path = |path: &str| {
        path.rsplit('/').find_map(|part| {
            let part = part.strip_suffix(".scope").unwrap_or(part);
            let id = part.rsplit('-').next()?;
            let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_id.then(|| id.to_owned())
        })
    };
    cgroup
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .find_map(of_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_found_in_what_engines_write() {
        let id = "0123456789abcdef".repeat(4);
        for lines in [
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("11:memory:/docker/{id}\n1:name=systemd:/docker/{id}\n"),
            format!(
                "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container\n"
            ),
            format!("0::/../../docker/{id}\n"),
        ] {
            assert_eq!(container(&lines).as_deref(), Some(id.as_str()), "{lines}");
        }
        for lines in [
            "0::/user.slice/session-3.scope\n",
            "0::/\n",
            "",
            "no cgroup",
        ] {
            assert_eq!(container(lines), None, "{lines}");
        }
    }

    #[test]
    fn a_user_has_a_name_or_a_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nada:x:1001:1001::/home/ada:/bin/sh\nbroken\n";
        assert_eq!(name_in(passwd, 1001).as_deref(), Some("ada"));
        assert_eq!(name_in(passwd, 4242), None);
        assert_eq!(user(0), "root");
        assert_eq!(user(3_999_999_999), "uid 3999999999");
    }

    #[test]
    fn this_process_is_seen_and_one_that_is_gone_is_not() {
        let own = identify(std::process::id());
        assert!(!own.name.is_empty() && own.user.is_some());
        assert_eq!(identify(u32::MAX), Identity::default());
    }
}
