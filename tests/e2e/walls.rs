//! Holds the table of ARCHITECTURE.md: which crate may use which. Exact for our own crates; for the
//! others, what a crate must never pull in.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

const OURS: &[(&str, &[&str])] = &[
    (
        "trainyard",
        &[
            "agent", "mirror", "notebook", "plan", "protocol", "render", "server",
        ],
    ),
    ("agent", &["mirror", "notebook", "protocol"]),
    ("driver", &["notebook", "protocol"]),
    ("fake-clock", &[]),
    ("fake-nvml", &[]),
    ("mirror", &["protocol"]),
    ("notebook", &[]),
    ("plan", &["mirror", "notebook", "protocol"]),
    ("protocol", &["notebook"]),
    ("render", &["notebook"]),
    (
        "server",
        &["mirror", "notebook", "plan", "protocol", "render"],
    ),
];

const NEVER: &[(&str, &[&str])] = &[
    ("notebook", &["tokio", "chrono", "regex"]),
    ("render", &["tokio"]),
    ("protocol", &["tokio", "axum", "reqwest"]),
    (
        "mirror",
        &["tokio", "sqlx", "reqwest", "openssl-sys", "libssh2-sys"],
    ),
    ("plan", &["tokio", "sqlx", "reqwest", "hyper"]),
    (
        "driver",
        &[
            "tokio",
            "rustls",
            "openssl-sys",
            "ring",
            "cc",
            "bindgen",
            "chrono",
        ],
    ),
    ("agent", &["sqlx", "axum"]),
    ("server", &["bollard", "nvml-wrapper"]),
    ("trainyard", &["openssl-sys", "native-tls", "aws-lc-sys"]),
];

/// What `cargo metadata` says: the normal and build dependencies of each package, by name.
struct Graph {
    members: BTreeMap<String, BTreeSet<String>>,
    edges: BTreeMap<String, Vec<String>>,
    names: BTreeMap<String, String>,
}

impl Graph {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--locked"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();

        let names: BTreeMap<_, _> = list(&metadata["packages"])
            .iter()
            .map(|p| (text(&p["id"]), text(&p["name"])))
            .collect();
        let used = |dep: &Value| {
            list(&dep["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"] != "dev")
        };
        let edges: BTreeMap<_, _> = list(&metadata["resolve"]["nodes"])
            .iter()
            .map(|node| {
                let deps = list(&node["deps"]);
                let ids = deps
                    .iter()
                    .filter(|dep| used(dep))
                    .map(|dep| text(&dep["pkg"]));
                (text(&node["id"]), ids.collect::<Vec<_>>())
            })
            .collect();
        let members = list(&metadata["workspace_members"])
            .iter()
            .map(|id| {
                let id = text(id);
                let deps = edges[&id].iter().map(|dep| names[dep].clone()).collect();
                (names[&id].clone(), deps)
            })
            .collect();
        Self {
            members,
            edges,
            names,
        }
    }

    /// Everything below a member, by name.
    fn closure(&self, member: &str) -> BTreeSet<&str> {
        let start = self
            .names
            .iter()
            .find(|(_, name)| *name == member)
            .expect("a member")
            .0;
        let mut seen = BTreeSet::new();
        let mut stack = vec![start.as_str()];
        while let Some(id) = stack.pop() {
            if seen.insert(id) {
                stack.extend(self.edges[id].iter().map(String::as_str));
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }
}

fn package(member: &str) -> String {
    match member {
        "trainyard" | "fake-clock" | "fake-nvml" => member.to_owned(),
        _ => format!("trainyard-{member}"),
    }
}

#[test]
fn crates_use_only_what_the_table_allows() {
    let graph = Graph::read();
    let ours: BTreeSet<String> = graph.members.keys().cloned().collect();
    let expected: BTreeSet<String> = OURS.iter().map(|(name, _)| package(name)).collect();
    assert_eq!(ours, expected, "every member crate has a line in the table");
    for (name, allowed) in OURS {
        let allowed: BTreeSet<String> = allowed.iter().map(|name| package(name)).collect();
        let used: BTreeSet<String> = graph.members[&package(name)]
            .intersection(&ours)
            .cloned()
            .collect();
        assert!(
            used.is_subset(&allowed),
            "{name} uses {used:?}, allowed are {allowed:?}"
        );
    }
}

#[test]
fn nothing_forbidden_is_pulled_in() {
    let graph = Graph::read();
    for (name, never) in NEVER {
        let package = package(name);
        let below = graph.closure(&package);
        let found: Vec<_> = never.iter().filter(|dep| below.contains(**dep)).collect();
        assert!(found.is_empty(), "{name} pulls in {found:?}");
    }
}

#[test]
fn there_is_one_tls_library() {
    let graph = Graph::read();
    let below = graph.closure("trainyard");
    let libraries = ["rustls", "openssl", "native-tls", "boring", "mbedtls"];
    let found: Vec<_> = libraries
        .iter()
        .filter(|name| below.contains(**name))
        .collect();
    assert_eq!(found, [&"rustls"]);
}
