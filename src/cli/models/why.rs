//! A version's lineage as a person reads it: first why it counts, then all that it comes from. Pure.

use std::collections::BTreeMap;

use protocol::registry::{Lineage, Related, VersionDetail};
use protocol::report::VolumeManifest;
use protocol::{Digest, Trust};

use super::super::out;
use super::words::{clean, short_hashes, title};

/// Files and packages that are shown where not all are wanted.
const MOST_ROWS: usize = 20;
const MOST_PACKAGES: usize = 40;

type Rows = Vec<[String; 2]>;

/// The whole text, in lines of at most `width`; `page` is the version's own.
pub(super) fn text(detail: &VersionDetail, page: &str, all: bool, width: usize) -> String {
    let mut text = format!("{}\n{}\n", title(&detail.version), clean(page));
    for sentence in &detail.why {
        text += &format!("\n{}", out::paragraph(sentence, width));
    }
    let settings: Rows = detail.params.iter().map(pair).collect();
    let mut sections = Vec::new();
    match &detail.lineage {
        Some(lineage) => {
            sections.push(("CODE", code(detail, lineage)));
            sections.push(("SETTINGS", settings));
            sections.push(("DATA", data(lineage, all)));
            sections.push(("WENT ON FROM", ancestors(detail)));
            sections.push(("ENVIRONMENT", environment(lineage, all)));
            sections.push(("HARDWARE", hardware(lineage)));
            sections.push(("NOT VERSIONED", unversioned(lineage)));
        }
        None => {
            sections.push(("SETTINGS", settings));
            let words =
                "no job made it: a client registered it, and what it comes from was not seen";
            sections.push(("NOT VERSIONED", vec![row("everything", words)]));
        }
    }
    sections.push(("GOES ON IN", descendants(detail)));
    let flavour = detail.version.flavours.join(", ");
    sections.push(("MODEL", said([("flavour", flavour)])));
    sections.push(("FILES", files(detail, all)));
    format!("{text}\n\n{}\n", out::sections(&sections, width))
}

fn row(label: &str, text: impl Into<String>) -> [String; 2] {
    [label.to_owned(), text.into()]
}

fn pair((name, value): (&String, &String)) -> [String; 2] {
    [name.clone(), value.clone()]
}

/// The rows whose text is not empty, with short hashes.
fn said<const N: usize>(rows: [(&str, String); N]) -> Rows {
    let rows = rows.into_iter().filter(|(_, text)| !text.is_empty());
    rows.map(|(label, text)| row(label, short_hashes(&text)))
        .collect()
}

fn digest(of: &Option<Digest>) -> String {
    of.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn code(detail: &VersionDetail, lineage: &Lineage) -> Rows {
    let subject = detail.version.origin.as_ref().map(|origin| &*origin.title);
    let is_notebook = lineage.fingerprint.is_some();
    let asked = match &lineage.by {
        Some(by) => format!("{} by {by}", lineage.trigger),
        None => lineage.trigger.clone(),
    };
    let trust = match lineage.trust {
        Trust::Trusted => String::new(),
        Trust::Untrusted => "the commit was not trusted".to_owned(),
    };
    let dirty = if lineage.dirty {
        ", and files that differed from it"
    } else {
        ""
    };
    said([
        ("project", lineage.project.clone()),
        ("repository", lineage.repository.clone()),
        (
            "commit",
            format!(
                "{}{dirty} {}",
                lineage.commit.short(),
                subject.unwrap_or_default()
            ),
        ),
        ("ref", lineage.reference.clone().unwrap_or_default()),
        ("asked by", asked),
        ("trust", trust),
        (
            if is_notebook { "notebook" } else { "command" },
            lineage.work.clone(),
        ),
        ("fingerprint", digest(&lineage.fingerprint)),
        ("pipeline file", digest(&lineage.pipeline_file)),
        ("key", digest(&lineage.key)),
        ("job", lineage.job.to_string()),
        ("attempt", lineage.attempt.to_string()),
        ("run", detail.version.run.clone().unwrap_or_default()),
    ])
}

fn data(lineage: &Lineage, all: bool) -> Rows {
    let volumes = lineage.volumes.iter().map(|volume| {
        let version = match (&volume.version, &volume.seen) {
            (Some(version), _) => format!("version {}", short_hashes(version)),
            (None, Some(seen)) => unverified(seen),
            (None, None) => "no declared version: what it held is not known".to_owned(),
        };
        row(
            &format!("volume {}", volume.name),
            format!("at {}, {version}", volume.at),
        )
    });
    let mut rows: Rows = volumes.collect();
    rows.extend(some(&lineage.deps, all, |(path, id)| {
        row(path, short_hashes(id))
    }));
    rows
}

/// What the host saw in a volume without a version.
fn unverified(seen: &VolumeManifest) -> String {
    let at_least = if seen.whole { "" } else { "at least " };
    let hash = match &seen.digest {
        Some(digest) => format!(", names, sizes and times {}", digest.short()),
        None => String::new(),
    };
    format!(
        "unverified: {at_least}{} files, {}{hash}",
        seen.files, seen.bytes
    )
}

/// The first entries, and how many more there are.
fn some<V>(
    map: &BTreeMap<String, V>,
    all: bool,
    shown: impl Fn((&String, &V)) -> [String; 2],
) -> Rows {
    let most = if all { usize::MAX } else { MOST_ROWS };
    let mut rows: Rows = map.iter().take(most).map(shown).collect();
    if map.len() > most {
        let more = map.len() - most;
        rows.push(row("…", format!("and {more} more (--all shows them)")));
    }
    rows
}

fn ancestors(detail: &VersionDetail) -> Rows {
    let named = |related: &Related| {
        let removed = if related.removed { ", removed" } else { "" };
        let asked = related.asked.as_deref().unwrap_or_default();
        let text = format!("{}{removed} (as {asked})", related.label());
        row(related.model.as_deref().unwrap_or_default(), text)
    };
    detail.ancestors.iter().map(named).collect()
}

fn descendants(detail: &VersionDetail) -> Rows {
    let named = |related: &Related| match (&related.model, &related.job) {
        (Some(model), _) => row(model, related.label()),
        (None, Some(job)) => row("job", format!("{job}, not over")),
        (None, None) => row("job", "not over"),
    };
    detail.descendants.iter().map(named).collect()
}

fn environment(lineage: &Lineage, all: bool) -> Rows {
    let setting = &lineage.setting;
    let lock = lineage.lock.as_ref();
    said([
        (
            "lock",
            lock.map(|lock| format!("{} {}", lock.path, lock.digest))
                .unwrap_or_default(),
        ),
        ("environment", digest(&setting.environment)),
        ("python", setting.python.clone().unwrap_or_default()),
        ("packages", packages(setting.packages.as_deref(), all)),
        ("image", setting.image.clone()),
        ("image id", setting.image_id.clone().unwrap_or_default()),
        ("executor", setting.executor.clone()),
    ])
}

fn packages(text: Option<&str>, all: bool) -> String {
    let names: Vec<&str> = text.unwrap_or_default().lines().collect();
    let most = if all { usize::MAX } else { MOST_PACKAGES };
    let shown: Vec<&str> = names.iter().take(most).copied().collect();
    let more = match names.len().saturating_sub(most) {
        0 => String::new(),
        more => format!(", and {more} more (--all shows them)"),
    };
    shown.join(", ") + &more
}

fn hardware(lineage: &Lineage) -> Rows {
    let setting = &lineage.setting;
    let driver = setting.driver.as_ref();
    let mut rows = said([
        ("host", setting.host.clone()),
        ("system", setting.system.clone()),
        ("cpu", setting.cpu_model.clone()),
    ]);
    let gpus = setting.gpus.iter();
    rows.extend(gpus.map(|gpu| row("gpu", format!("{} {}", gpu.model, gpu.uuid))));
    rows.extend(said([
        (
            "driver",
            driver
                .map(|driver| driver.version.clone())
                .unwrap_or_default(),
        ),
        (
            "cuda",
            driver.map(|driver| driver.cuda.clone()).unwrap_or_default(),
        ),
    ]));
    rows
}

fn unversioned(lineage: &Lineage) -> Rows {
    let numbered = lineage.unversioned.iter().enumerate();
    numbered
        .map(|(n, what)| row(&(n + 1).to_string(), what.clone()))
        .collect()
}

fn files(detail: &VersionDetail, all: bool) -> Rows {
    let files = detail.files.iter();
    let files: BTreeMap<String, String> = files
        .map(|file| {
            let hash = short_hashes(&file.blob.to_string());
            (file.path.clone(), format!("{} {hash}", file.size))
        })
        .collect();
    some(&files, all, |(path, text)| row(path, text.clone()))
}

#[cfg(test)]
mod tests {
    use protocol::registry::VersionDetail;
    use serde_json::json;

    use super::*;

    fn detail(packages: usize) -> VersionDetail {
        let hash = "0123456789abcdef".repeat(4);
        let id = "01jd3v5n2q8k4h6s7t9w0x1y2z";
        let packages: Vec<String> = (0..packages)
            .map(|n| format!("package-{n:02}==1.{n}"))
            .collect();
        let setting = json!({
            "host": "gpu-3", "image": "trainyard/notebook", "image_id": "sha256:1234",
            "packages": packages.join("\n"), "gpus": [{"uuid": "GPU-8f6a", "model": "NVIDIA H100"}],
            "driver": {"version": "560.35.03", "cuda": "12.6"},
        });
        let seen =
            json!({"name": "raw", "files": 1204, "bytes": 2048, "digest": hash, "whole": false});
        let lineage = json!({
            "project": "digits", "repository": "https://git.example/digits.git", "commit": &hash[..40],
            "reference": "refs/heads/main", "trigger": "push", "by": "ana", "trust": "trusted", "pipeline": id,
            "job": id, "attempt": id, "work": "train.ipynb", "fingerprint": hash,
            "deps": {"src/model.py": &hash[..40]},
            "volumes": [{"name": "night", "at": "/data", "version": "2026-11"}, {"name": "raw", "at": "/raw", "seen": seen}],
            "lock": {"path": "requirements.txt", "digest": hash},
            "unversioned": ["it may read from the network"],
            "setting": setting, "started_at": 0, "finished_at": 0,
        });
        let why = [
            "It is version 3 because 'train' succeeded on the default branch main.",
            "@champion points here since 2026-11-23 08:15 UTC: ana moved it from version 2 (won the comparison).",
        ];
        serde_json::from_value(json!({
            "id": id, "model": "digits", "version": 3, "status": "version", "run": "r1", "aliases": ["champion"],
            "created_at": 0, "flavours": ["python_function", "sklearn"], "params": {"epochs": "20"}, "job": id, "job_name": "train", "attempt": id,
            "commit": &hash[..40], "title": "Train on the night set\u{1b}[2J", "why": why,
            "files": [{"path": "model.joblib", "blob": hash, "size": 2048}], "lineage": lineage,
        }))
        .unwrap()
    }

    #[test]
    fn it_says_why_first_and_then_all_that_a_version_comes_from() {
        let text = text(
            &detail(2),
            "https://yard.example/models/digits/3",
            false,
            80,
        );
        assert_eq!(
            text,
            "\
digits version 3 @champion
https://yard.example/models/digits/3

It is version 3 because 'train' succeeded on the default branch main.
@champion points here since 2026-11-23 08:15 UTC: ana moved it from version 2
(won the comparison).

CODE
  project       digits
  repository    https://git.example/digits.git
  commit        0123456789 Train on the night set
  ref           refs/heads/main
  asked by      push by ana
  notebook      train.ipynb
  fingerprint   0123456789ab
  job           01jd3v5n2q8k4h6s7t9w0x1y2z
  attempt       01jd3v5n2q8k4h6s7t9w0x1y2z
  run           r1

SETTINGS
  epochs        20

DATA
  volume night  at /data, version 2026-11
  volume raw    at /raw, unverified: at least 1204 files, 2 KiB, names, sizes
                and times 0123456789ab
  src/model.py  0123456789ab

ENVIRONMENT
  lock          requirements.txt 0123456789ab
  packages      package-00==1.0, package-01==1.1
  image         trainyard/notebook
  image id      sha256:1234

HARDWARE
  host          gpu-3
  gpu           NVIDIA H100 GPU-8f6a
  driver        560.35.03
  cuda          12.6

NOT VERSIONED
  1             it may read from the network

MODEL
  flavour       python_function, sklearn

FILES
  model.joblib  2 KiB 0123456789ab
"
        );
    }

    #[test]
    fn it_stays_within_the_terminal_and_counts_what_it_leaves_out() {
        let narrow = text(
            &detail(60),
            "https://yard.example/models/digits/3",
            false,
            60,
        );
        let longest = narrow.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(60), "{narrow}");
        assert!(narrow.contains("(--all shows them)"), "{narrow}");
        let all = text(&detail(60), "", true, 60);
        assert!(
            all.contains("package-59==1.59") && !all.contains("--all"),
            "{all}"
        );
        assert!(!all.contains('\u{1b}'), "a commit's title moves no cursor");
    }
}
