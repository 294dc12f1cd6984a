//! What a job may ask of a host and of the queue: models of GPUs, versions, volumes, its turn. Checked here,
//! and turned into the words of a spec.

use std::collections::BTreeMap;

use protocol::gpu::{AtLeast, GpuModel, KNOWN_MODELS, KNOWN_PROFILES, is_profile};
use protocol::spec::{self, Concurrency, Turn};
use serde_saphyr::Spanned;

use super::check::{Checked, cut, wrong};
use super::error::nearest;
use super::scalar::{OneOrMore, Size, Table, Word};
use super::types::{self, Job};

/// Priorities lie between this and its negative.
const MAX_PRIORITY: i64 = 100;
/// Most models of a list.
const MAX_MODELS: usize = 20;
/// Most volumes of a job.
const MAX_VOLUMES: usize = 20;
/// Folders of a container that no volume may cover.
const OWN_FOLDERS: [&str; 13] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/trainyard",
    "/usr",
];

pub(super) fn resources(resources: Option<&types::Resources>) -> Checked {
    let Some(resources) = resources else {
        return Ok(());
    };
    for (place, key) in about_gpus(resources) {
        if resources.gpus.unwrap_or(0) == 0 {
            return wrong(place, format!("'{key}' without 'gpus': say how many"));
        }
    }
    if let Some(list) = &resources.gpu_model {
        models(list)?;
    }
    lowest(resources.compute_capability.as_ref(), "8.0")?;
    lowest(resources.cuda.as_ref(), "12.1")?;
    match &resources.mig {
        Some(mig) => profile(mig, resources),
        None => Ok(()),
    }
}

/// A lowest version. `usual` is an example for who wrote none at all.
fn lowest(version: Option<&Spanned<Word>>, usual: &str) -> Checked {
    let Some(version) = version else {
        return Ok(());
    };
    let text = version.value.0.trim();
    if text.parse::<AtLeast>().is_ok() {
        return Ok(());
    }
    let meant = format!(">={text}").parse::<AtLeast>().is_ok();
    let example = if meant { text } else { usual };
    wrong(
        version.referenced,
        format!(
            "'{}' is not a lowest version such as \">={example}\" (in quotes)",
            cut(text)
        ),
    )
}

/// A job's own limit for idle GPUs needs GPUs. One of the defaults is for those jobs that have some.
pub(super) fn gpu_idle(job: &Job, defaults: &types::Defaults) -> Checked {
    let resources = job.resources.as_ref().or(defaults.resources.as_ref());
    match &job.gpu_idle_timeout {
        Some(limit) if resources.and_then(|r| r.gpus).unwrap_or(0) == 0 => wrong(
            limit.referenced,
            "'gpu_idle_timeout' of a job without GPUs: say how many with 'gpus' under 'resources'",
        ),
        Some(_) | None => Ok(()),
    }
}

/// The keys that say something of GPUs, with their places, where they are used.
fn about_gpus(
    resources: &types::Resources,
) -> impl Iterator<Item = (serde_saphyr::Location, &'static str)> {
    let nvlink = resources.nvlink.as_ref().filter(|nvlink| nvlink.value);
    [
        (
            resources.gpu_memory.as_ref().map(|v| v.referenced),
            "gpu_memory",
        ),
        (
            resources.gpu_model.as_ref().map(|v| v.referenced),
            "gpu_model",
        ),
        (
            resources.compute_capability.as_ref().map(|v| v.referenced),
            "compute_capability",
        ),
        (resources.mig.as_ref().map(|v| v.referenced), "mig"),
        (nvlink.map(|v| v.referenced), "nvlink"),
    ]
    .into_iter()
    .filter_map(|(place, key)| Some((place?, key)))
}

fn models(list: &Spanned<OneOrMore<Word>>) -> Checked {
    let at = list.referenced;
    if list.value.0.is_empty() {
        return wrong(at, "'gpu_model' names no model");
    }
    if list.value.0.len() > MAX_MODELS {
        return wrong(at, format!("'gpu_model' has more than {MAX_MODELS} items"));
    }
    for Word(text) in &list.value.0 {
        let model: GpuModel = match text.parse() {
            Ok(model) => model,
            Err(error) => return wrong(at, format!("{error}")),
        };
        // A word that is nearly a known model's is a slip of the pen, unless somebody says that it is not.
        let odd = model.unknown_word();
        let near = odd.as_deref().and_then(|word| nearest(word, &KNOWN_MODELS));
        if let Some(near) = near {
            let near = near.to_uppercase();
            return wrong(
                at,
                format!(
                    "unknown model of GPU '{}'; did you mean '{near}'? Another model is written in full, as nvidia-smi says it: 'NVIDIA {}'",
                    cut(text),
                    cut(text)
                ),
            );
        }
    }
    Ok(())
}

fn profile(mig: &Spanned<Word>, resources: &types::Resources) -> Checked {
    let text = mig.value.0.as_str();
    if !is_profile(text) {
        let near = nearest(text, &KNOWN_PROFILES)
            .map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
        return wrong(
            mig.referenced,
            format!("'{}' is not a MIG profile such as 1g.10gb{near}", cut(text)),
        );
    }
    match resources.nvlink.as_ref().filter(|nvlink| nvlink.value) {
        Some(nvlink) => wrong(
            nvlink.referenced,
            "'nvlink' joins whole GPUs: slices of 'mig' have none",
        ),
        None => Ok(()),
    }
}

pub(super) fn volumes(volumes: Option<&Spanned<Table<Word>>>) -> Checked {
    let Some(volumes) = volumes else {
        return Ok(());
    };
    if let Some((extra, _)) = volumes.value.0.get(MAX_VOLUMES) {
        let message = format!("'volumes' has more than {MAX_VOLUMES} items");
        return wrong(extra.referenced, message);
    }
    let mut places = BTreeMap::new();
    for (name, place) in &volumes.value.0 {
        if !is_name(&name.value) {
            let message = format!(
                "'{}' is not the name of a volume: it is one that an administrator gave it on the agents, never a path of a host",
                cut(&name.value)
            );
            return wrong(name.referenced, message);
        }
        let at = place.value.0.trim_end_matches('/');
        let odd = at.contains(['\0', ':', '\n']) || at.split('/').any(|part| part == "..");
        if !at.starts_with('/') || odd {
            let message = format!(
                "'{}' is no place for a volume: an absolute path in the job's container, such as /data",
                cut(&place.value.0)
            );
            return wrong(place.referenced, message);
        }
        let inside = |own: &&&str| at == **own || at.starts_with(&format!("{own}/"));
        if let Some(own) = OWN_FOLDERS.iter().find(inside) {
            let message = format!("a volume must not cover {own}, which is the container's own");
            return wrong(place.referenced, message);
        }
        if let Some(other) = places.insert(at.to_owned(), &name.value) {
            let message = format!("'{other}' and '{}' would both lie at {at}", name.value);
            return wrong(place.referenced, message);
        }
    }
    Ok(())
}

pub(super) fn turn(job: &Job) -> Checked {
    if let Some(priority) = &job.priority
        && !(-MAX_PRIORITY..=MAX_PRIORITY).contains(&priority.value)
    {
        return wrong(
            priority.referenced,
            format!(
                "'priority' is a number from -{MAX_PRIORITY} to {MAX_PRIORITY}, not {}",
                priority.value
            ),
        );
    }
    match &job.concurrency {
        Some(group) if !is_name(group.value.group()) => wrong(
            group.referenced,
            format!(
                "'{}' is not the name of a concurrency group: letters, digits, '-', '_', '.' and '/', at most 64",
                cut(group.value.group())
            ),
        ),
        Some(_) | None => Ok(()),
    }
}

/// Letters, digits and what people put between them.
fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    begins && text.len() <= 64 && text.chars().all(good)
}

/// The demands of a file that was checked.
pub(crate) fn demands(declared: Option<&types::Resources>) -> spec::Resources {
    let default = spec::Resources::default();
    let Some(declared) = declared else {
        return default;
    };
    let bytes = |size: Option<Size>| size.map(|size| size.0);
    let models = declared.gpu_model.iter().flat_map(|list| &list.value.0);
    let version = |word: &Option<Spanned<Word>>| word.as_ref()?.value.0.parse().ok();
    spec::Resources {
        cpu_millis: declared.cpus.map_or(default.cpu_millis, |cpus| cpus.0),
        memory: bytes(declared.memory).unwrap_or(default.memory),
        shm_size: bytes(declared.shm_size),
        gpus: declared.gpus.unwrap_or(0),
        gpu_memory: declared.gpu_memory.as_ref().map(|memory| memory.value.0),
        gpu_models: models.filter_map(|word| word.0.parse().ok()).collect(),
        compute_capability: version(&declared.compute_capability),
        cuda: version(&declared.cuda),
        mig: declared.mig.as_ref().map(|mig| mig.value.0.clone()),
        nvlink: declared.nvlink.as_ref().is_some_and(|nvlink| nvlink.value),
        disk: bytes(declared.disk),
    }
}

/// The volumes of a job by name, and where they are mounted.
pub(crate) fn mounts(job: &Job) -> BTreeMap<String, String> {
    let volumes = job.volumes.iter().flat_map(|volumes| volumes.value.iter());
    volumes
        .map(|(name, at)| (name.to_owned(), at.0.trim_end_matches('/').to_owned()))
        .collect()
}

/// When a job gets its turn.
pub(crate) fn turn_of(job: &Job) -> Turn {
    Turn {
        priority: job.priority.as_ref().map_or(0, |priority| priority.value),
        concurrency: job.concurrency.as_ref().map(|group| Concurrency {
            group: group.value.group().to_owned(),
            cancel_queued: group.value.cancel_queued(),
        }),
    }
}
