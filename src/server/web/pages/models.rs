//! The pages of the registry: models, one with its versions, one version with its lineage.

use std::collections::BTreeSet;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use protocol::registry::{
    Alias, AliasChange, Comparison, Judged, Lineage, Model, Number, Promotion, Version, VersionRef,
};
use protocol::report::MetricValue;
use protocol::{Digest, Timestamp};
use serde::Deserialize;

use super::super::access::{Who, encode};
use super::super::models::version_ref;
use super::super::site::Site;
use super::frame::{Frame, Shown, show};
use super::job::{Fact, Tile, href};
use super::words::{ago, change, count, value};
use crate::registry::{self, RegistryError};

/// Models on one page.
const PAGE: u32 = 200;
/// Columns of metrics; a phone scrolls.
const MOST_METRICS: usize = 8;
/// Files that a result read; the API has all of them.
const MOST_DEPS: usize = 500;

struct ModelRow {
    name: String,
    project: String,
    latest: String,
    metrics: String,
    aliases: String,
    made: String,
}

#[derive(Template)]
#[template(path = "models.html")]
struct ModelsPage {
    frame: Frame,
    rows: Vec<ModelRow>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(in super::super) struct Piece {
    before: Option<String>,
}

/// `GET /models`
pub(in super::super) async fn list(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Query(piece): Query<Piece>,
) -> Shown {
    let page = registry::list(&site.store, piece.before.as_deref(), PAGE).await?;
    let now = Timestamp::now();
    show(&ModelsPage {
        frame: Frame::new("models", &site.access, &who),
        rows: page
            .items
            .iter()
            .map(|model| model_row(model, now))
            .collect(),
        next: page.next,
    })
}

fn model_row(model: &Model, now: Timestamp) -> ModelRow {
    let waiting = count(model.candidates, "candidate");
    let latest = match (&model.latest, model.candidates) {
        (Some(version), 0) => version.label(),
        (Some(version), _) => format!("{} · {waiting}", version.label()),
        (None, _) => format!("no version yet · {waiting}"),
    };
    let made = model
        .latest
        .as_ref()
        .map_or(model.created_at, |v| v.created_at);
    ModelRow {
        name: model.name.clone(),
        project: model.project.clone().unwrap_or_default(),
        latest,
        metrics: model.latest.as_ref().map(metrics_line).unwrap_or_default(),
        aliases: model
            .aliases
            .iter()
            .map(alias)
            .collect::<Vec<_>>()
            .join(", "),
        made: ago(made, now),
    }
}

fn metrics_line(version: &Version) -> String {
    let shown = version.metrics.iter().take(4);
    let shown: Vec<_> = shown
        .map(|m| format!("{} {}", m.name, value(m.value)))
        .collect();
    shown.join(" · ")
}

fn alias(alias: &Alias) -> String {
    format!("@{} → {}", alias.alias, alias.version)
}

struct Cell {
    text: String,
    judged: &'static str,
}

/// The job that left a version.
struct Maker {
    job: String,
    title: String,
    commit: String,
}

fn maker(version: &Version) -> Option<Maker> {
    let origin = version.origin.as_ref()?;
    Some(Maker {
        job: origin.job.to_string(),
        title: origin.title.clone(),
        commit: origin.commit.short().to_owned(),
    })
}

struct VersionRow {
    href: String,
    label: String,
    /// How an address names it.
    named: String,
    /// The run that made it.
    run: Option<String>,
    from: Option<Maker>,
    values: Vec<Cell>,
    aliases: String,
    made: String,
}

#[derive(Template)]
#[template(path = "model.html")]
struct ModelPage {
    frame: Frame,
    name: String,
    metrics: Vec<String>,
    rows: Vec<VersionRow>,
    changes: Vec<ChangeRow>,
}

/// An alias that was set, moved or taken away.
struct ChangeRow {
    alias: String,
    moved: String,
    by: String,
    why: String,
    when: String,
}

/// `GET /models/{name}`
pub(in super::super) async fn model(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
) -> Shown {
    let detail = registry::model(&site.store, &name).await?;
    let names: BTreeSet<&str> = detail
        .items
        .iter()
        .flat_map(|version| version.metrics.iter().map(|metric| metric.name.as_str()))
        .collect();
    let names: Vec<&str> = names.into_iter().take(MOST_METRICS).collect();
    let now = Timestamp::now();
    show(&ModelPage {
        frame: Frame::new("models", &site.access, &who),
        rows: detail
            .items
            .iter()
            .map(|v| version_row(v, &names, now))
            .collect(),
        metrics: names.into_iter().map(str::to_owned).collect(),
        changes: detail.history.iter().map(|c| change_row(c, now)).collect(),
        name,
    })
}

fn change_row(change: &AliasChange, now: Timestamp) -> ChangeRow {
    let name = |number: Option<u64>| number.map_or_else(|| "—".to_owned(), |n| n.to_string());
    ChangeRow {
        alias: format!("@{}", change.alias),
        moved: format!("{} → {}", name(change.previous), name(change.version)),
        by: change.by.clone(),
        why: change.why.clone(),
        when: ago(change.at, now),
    }
}

fn version_row(version: &Version, names: &[&str], now: Timestamp) -> VersionRow {
    let cell = |name: &&str| {
        let found = version.metrics.iter().find(|metric| metric.name == **name);
        Cell {
            text: found.map_or_else(String::new, |metric| value(metric.value)),
            judged: "",
        }
    };
    VersionRow {
        href: href_of(version),
        named: named(version),
        run: version.run.clone(),
        label: match version.version {
            Some(number) => format!("{number}"),
            None => "candidate".to_owned(),
        },
        from: maker(version),
        values: names.iter().map(cell).collect(),
        aliases: at_signs(&version.aliases),
        made: ago(version.created_at, now),
    }
}

/// How an address names a version.
fn named(version: &Version) -> String {
    let number = version.version.map(|number| number.to_string());
    number.unwrap_or_else(|| version.id.clone())
}

/// Where a version is looked at.
pub(super) fn href_of(version: &Version) -> String {
    format!("/models/{}/{}", encode(&version.model), named(version))
}

fn at_signs(aliases: &[String]) -> String {
    let aliases: Vec<_> = aliases.iter().map(|alias| format!("@{alias}")).collect();
    aliases.join(", ")
}

struct FileRow {
    /// None where no attempt left it.
    href: Option<String>,
    path: String,
    size: String,
    sha256: String,
}

#[derive(Template)]
#[template(path = "version.html")]
struct VersionPage {
    frame: Frame,
    name: String,
    label: String,
    made: String,
    from: Option<Maker>,
    /// The run that made it.
    run: Option<String>,
    aliases: String,
    metrics: Vec<Tile>,
    against: Option<String>,
    differences: Vec<DifferenceRow>,
    lineage: Vec<Fact>,
    files: Vec<FileRow>,
    packages: Option<String>,
    deps: Vec<Fact>,
    promotion: Option<String>,
}

pub(super) struct DifferenceRow {
    pub(super) what: String,
    pub(super) base: String,
    pub(super) now: String,
}

/// `GET /models/{name}/{version}`
pub(in super::super) async fn version(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path((name, wanted)): Path<(String, String)>,
) -> Shown {
    let detail = registry::version(&site.store, &name, &version_ref(&wanted)?).await?;
    let version = &detail.version;
    let comparison = against(&site, version).await?;
    let origin = version.origin.as_ref();
    let file = |file: &protocol::registry::ModelFile| FileRow {
        href: origin.map(|origin| href(&origin.attempt, &file.path, "model")),
        path: file.path.clone(),
        size: file.size.to_string(),
        sha256: file.blob.to_string(),
    };
    let known = detail.lineage.as_ref();
    let mut lineage = known.map(facts).unwrap_or_default();
    let params = detail.params.iter().map(|(name, value)| Fact {
        name: format!("Parameter {name}"),
        value: value.clone(),
    });
    lineage.extend(params.take(200));
    show(&VersionPage {
        frame: Frame::new("models", &site.access, &who),
        label: version.label(),
        made: ago(version.created_at, Timestamp::now()),
        from: maker(version),
        run: version.run.clone(),
        aliases: at_signs(&version.aliases),
        metrics: tiles(&version.metrics, comparison.as_ref()),
        against: comparison.as_ref().map(|both| both.base.label()),
        differences: comparison.iter().flat_map(differences).collect(),
        lineage,
        files: detail.files.iter().map(file).collect(),
        packages: known.and_then(|lineage| lineage.setting.packages.clone()),
        deps: known
            .into_iter()
            .flat_map(|lineage| &lineage.deps)
            .take(MOST_DEPS)
            .map(dep)
            .collect(),
        promotion: version.promotion.as_ref().map(promoted),
        name,
    })
}

fn dep((path, hash): (&String, &String)) -> Fact {
    Fact {
        name: path.clone(),
        value: hash.clone(),
    }
}

fn promoted(promotion: &Promotion) -> String {
    let Promotion { by, why, at: _ } = promotion;
    if why.is_empty() {
        format!("promoted by {by}")
    } else {
        format!("promoted by {by}: {why}")
    }
}

/// A version stands against the one before it, a candidate against the one that it would follow.
async fn against(site: &Site, version: &Version) -> Result<Option<Comparison>, RegistryError> {
    let (store, model) = (&site.store, &version.model);
    let before = match version.version {
        Some(number) => number.checked_sub(1).filter(|before| *before > 0),
        None => {
            let latest = registry::model(store, model).await?.model.latest;
            latest.and_then(|latest| latest.version)
        }
    };
    let Some(before) = before else {
        return Ok(None);
    };
    let (base, now) = (
        VersionRef::Number(before),
        VersionRef::Id(version.id.clone()),
    );
    let both = registry::compare_versions(store, model, &base, &now).await?;
    Ok(Some(both))
}

fn tiles(metrics: &[MetricValue], comparison: Option<&Comparison>) -> Vec<Tile> {
    let tile = |metric: &MetricValue| {
        let delta =
            comparison.and_then(|both| both.metrics.iter().find(|delta| delta.name == metric.name));
        let base = delta.and_then(|delta| delta.base);
        let judged = delta.and_then(|delta| delta.judged);
        Tile {
            name: metric.name.clone(),
            value: value(metric.value),
            change: base
                .and_then(|Number(base)| change(metric.value, base, None))
                .map(|(text, _)| text),
            judged: match judged {
                Some(Judged::Better) => "better",
                Some(Judged::Worse) => "worse",
                Some(Judged::Same) | None => "",
            },
        }
    };
    metrics.iter().take(200).map(tile).collect()
}

pub(super) fn differences(both: &Comparison) -> Vec<DifferenceRow> {
    let row = |difference: &protocol::registry::Difference| DifferenceRow {
        what: difference.what.clone(),
        base: short(difference.base.as_deref()),
        now: short(difference.now.as_deref()),
    };
    both.differences.iter().take(60).map(row).collect()
}

/// A hash says enough with its beginning.
fn short(text: Option<&str>) -> String {
    let text = text.unwrap_or("—");
    let hash = text.len() >= 40 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    text.chars().take(if hash { 12 } else { 200 }).collect()
}

fn facts(lineage: &Lineage) -> Vec<Fact> {
    let setting = &lineage.setting;
    let text = |digest: &Option<Digest>| digest.as_ref().map(ToString::to_string);
    let gpus: Vec<_> = setting
        .gpus
        .iter()
        .map(|gpu| format!("{} {}", gpu.model, gpu.uuid))
        .collect();
    let lock = lineage.lock.as_ref();
    [
        ("Project", Some(lineage.project.clone())),
        ("Repository", Some(lineage.repository.clone())),
        ("Commit", Some(lineage.commit.to_string())),
        ("Ref", lineage.reference.clone()),
        ("Asked by", lineage.by.clone()),
        ("Trigger", Some(lineage.trigger.clone())),
        ("Code", Some(lineage.work.clone())),
        ("Fingerprint", text(&lineage.fingerprint)),
        ("Pipeline file", text(&lineage.pipeline_file)),
        ("Key", text(&lineage.key)),
        (
            "Lock",
            lock.map(|lock| format!("{} {}", lock.path, lock.digest)),
        ),
        ("Environment", text(&setting.environment)),
        ("Python", setting.python.clone()),
        ("Image", Some(setting.image.clone())),
        ("Image id", setting.image_id.clone()),
        ("Host", Some(setting.host.clone())),
        ("CPU", Some(setting.cpu_model.clone())),
        ("GPUs", Some(gpus.join(", "))),
        (
            "Driver",
            setting
                .driver
                .as_ref()
                .map(|driver| format!("{}, CUDA {}", driver.version, driver.cuda)),
        ),
        ("System", Some(setting.system.clone())),
        ("Executor", Some(setting.executor.clone())),
        ("Not versioned", Some(lineage.unversioned.join("; "))),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        let value = value.filter(|text| !text.is_empty())?;
        Some(Fact {
            name: name.to_owned(),
            value,
        })
    })
    .collect()
}
