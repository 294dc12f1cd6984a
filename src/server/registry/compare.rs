//! Two versions side by side. Pure.

use std::collections::{BTreeMap, BTreeSet};

use protocol::registry::{
    Comparison, Difference, Lineage, MetricDelta, MountedVolume, Number, VersionDetail,
};

use super::judge;

/// Most differences that are listed: two environments may have nothing in common.
const MOST: usize = 500;

/// What `now` has that `base` has not, and how its metrics changed. Goals are those of `now`.
#[must_use]
pub fn compare(base: &VersionDetail, now: &VersionDetail) -> Comparison {
    let mut differences = Vec::new();
    differing("parameter ", &base.params, &now.params, &mut differences);
    let flavours = |detail: &VersionDetail| {
        let all = detail.version.flavours.join(", ");
        let some = (!all.is_empty()).then_some(("flavour".to_owned(), all));
        some.into_iter().collect()
    };
    differing("", &flavours(base), &flavours(now), &mut differences);
    // What no job left says nothing of where it comes from: there is nothing to tell it from.
    if let (Some(old), Some(new)) = (&base.lineage, &now.lineage) {
        differing("", &facts(old), &facts(new), &mut differences);
        differing("package ", &packages(old), &packages(new), &mut differences);
        differing("file ", &old.deps, &new.deps, &mut differences);
        differing("volume ", &volumes(old), &volumes(new), &mut differences);
    }
    differences.truncate(MOST);
    Comparison {
        base: base.version.clone(),
        now: now.version.clone(),
        metrics: metrics(base, now),
        differences,
    }
}

fn metrics(base: &VersionDetail, now: &VersionDetail) -> Vec<MetricDelta> {
    let values = |detail: &VersionDetail| -> BTreeMap<String, f64> {
        let metrics = detail.version.metrics.iter();
        metrics.map(|m| (m.name.clone(), m.value)).collect()
    };
    let (old, new) = (values(base), values(now));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .map(|name| {
            let both = old.get(name).zip(new.get(name));
            MetricDelta {
                name: name.clone(),
                base: old.get(name).copied().map(Number),
                now: new.get(name).copied().map(Number),
                delta: both.map(|(a, b)| b - a).filter(|delta| delta.is_finite()),
                judged: both
                    .zip(now.goals.get(name))
                    .map(|((a, b), goal)| judge(*goal, *a, *b)),
            }
        })
        .collect()
}

pub(super) fn differing(
    prefix: &str,
    base: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
    into: &mut Vec<Difference>,
) {
    let names: BTreeSet<&String> = base.keys().chain(now.keys()).collect();
    for name in names {
        let (old, new) = (base.get(name), now.get(name));
        if old != new {
            into.push(Difference {
                what: format!("{prefix}{name}"),
                base: old.cloned(),
                now: new.cloned(),
            });
        }
    }
}

/// The single facts of a lineage that tell results apart. Ids and times differ always and say nothing.
fn facts(lineage: &Lineage) -> BTreeMap<String, String> {
    let setting = &lineage.setting;
    let gpus: Vec<&str> = setting.gpus.iter().map(|gpu| gpu.model.as_str()).collect();
    let all = [
        ("commit", Some(lineage.commit.to_string())),
        ("code", Some(lineage.work.clone())),
        (
            "fingerprint",
            lineage.fingerprint.as_ref().map(ToString::to_string),
        ),
        (
            "pipeline file",
            lineage.pipeline_file.as_ref().map(ToString::to_string),
        ),
        (
            "lock",
            lineage
                .lock
                .as_ref()
                .map(|lock| format!("{} {}", lock.path, lock.digest)),
        ),
        (
            "environment",
            setting.environment.as_ref().map(ToString::to_string),
        ),
        ("python", setting.python.clone()),
        (
            "parent",
            lineage
                .parent
                .as_ref()
                .map(|parent| format!("{}/{}", parent.model, parent.version)),
        ),
        ("image", Some(setting.image.clone())),
        ("image id", setting.image_id.clone()),
        ("host", Some(setting.host.clone())),
        ("cpu", Some(setting.cpu_model.clone())),
        ("gpus", Some(gpus.join(", "))),
        (
            "driver",
            setting.driver.as_ref().map(|driver| driver.version.clone()),
        ),
        (
            "cuda",
            setting.driver.as_ref().map(|driver| driver.cuda.clone()),
        ),
    ];
    all.into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.filter(|v| !v.is_empty())?)))
        .collect()
}

fn volumes(lineage: &Lineage) -> BTreeMap<String, String> {
    let said = |volume: &MountedVolume| {
        let version = match (&volume.version, &volume.seen) {
            (Some(version), _) => version.clone(),
            (None, Some(seen)) => match &seen.digest {
                Some(digest) => format!("unverified {digest}"),
                None => "no declared version".to_owned(),
            },
            (None, None) => "no declared version".to_owned(),
        };
        (volume.name.clone(), version)
    };
    lineage.volumes.iter().map(said).collect()
}

fn packages(lineage: &Lineage) -> BTreeMap<String, String> {
    let text = lineage.setting.packages.as_deref().unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once("=="))
        .map(|(name, version)| (name.trim().to_owned(), version.trim().to_owned()))
        .collect()
}
