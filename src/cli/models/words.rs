//! The registry in words and tables. Pure, but for the clock.

use protocol::api::Page;
use protocol::registry::{
    AliasChange, BestCandidate, Comparison, Judged, Lineage, MetricDelta, Model, ModelDetail,
    Number, Version, VersionDetail,
};

use protocol::spec::Goal;

use super::super::client::{Client, segment};
use super::super::out;

/// Changes of aliases that are shown with a model.
const MOST_CHANGES: usize = 10;
/// Longest text in a table; JSON has all of it.
const MOST_CHARS: usize = 72;

pub(crate) fn models(page: &Page<Model>) -> String {
    if page.items.is_empty() {
        return "no model yet: a job whose 'model:' names one leaves a version when it succeeds on the default branch"
            .to_owned();
    }
    let rows = page.items.iter().map(|model| {
        let latest = model.latest.as_ref();
        [
            model.name.clone(),
            model.project.clone().unwrap_or_else(|| "-".to_owned()),
            latest.map_or_else(|| "-".to_owned(), named),
            model.candidates.to_string(),
            latest.map(metrics).unwrap_or_default(),
            latest
                .map(|version| version.flavours.join(", "))
                .unwrap_or_default(),
            aliases(model),
            out::ago(latest.map_or(model.created_at, |version| version.created_at)),
        ]
    });
    let mut text = out::drawn(
        [
            "MODEL",
            "PROJECT",
            "LATEST",
            "CANDIDATES",
            "METRICS",
            "FLAVOUR",
            "ALIASES",
            "MADE",
        ],
        rows,
    );
    if let Some(next) = &page.next {
        text += &format!("\n\nmore: trainyard models list --before {}", clean(next));
    }
    text
}

fn aliases(model: &Model) -> String {
    let all = model.aliases.iter();
    let all: Vec<_> = all
        .map(|alias| format!("@{} {}", alias.alias, alias.version))
        .collect();
    all.join(", ")
}

/// What people write to mean it: the number, or the candidate's id.
fn named(version: &Version) -> String {
    version
        .version
        .map_or_else(|| version.id.clone(), |number| number.to_string())
}

fn metrics(version: &Version) -> String {
    let shown = version.metrics.iter().take(4);
    let shown: Vec<_> = shown
        .map(|metric| format!("{} {}", metric.name, value(metric.value)))
        .collect();
    shown.join(", ")
}

fn at_signs(aliases: &[String]) -> String {
    let all: Vec<_> = aliases.iter().map(|alias| format!("@{alias}")).collect();
    all.join(", ")
}

pub(crate) fn model(detail: &ModelDetail, client: &Client) -> String {
    let model = &detail.model;
    let rows = detail.items.iter().map(|version| {
        let (commit, title) = match &version.origin {
            Some(origin) => (origin.commit.short().to_owned(), short(&origin.title)),
            None => ("-".to_owned(), "registered by a client".to_owned()),
        };
        [
            named(version),
            metrics(version),
            version.flavours.join(", "),
            at_signs(&version.aliases),
            commit,
            title,
            out::ago(version.created_at),
        ]
    });
    let mut text = format!(
        "{}{}\n{}\n\n{}",
        clean(&model.name),
        model
            .project
            .as_ref()
            .map_or_else(String::new, |project| format!(" of {}", clean(project))),
        client.page(&format!("/models/{}", segment(&model.name))),
        out::drawn(
            [
                "VERSION", "METRICS", "FLAVOUR", "ALIASES", "COMMIT", "TITLE", "MADE"
            ],
            rows
        ),
    );
    if let Some(best) = &detail.best {
        text += &format!("\n\n{}", clean(&best_of(best)));
    }
    if !detail.history.is_empty() {
        let rows = detail.history.iter().take(MOST_CHANGES).map(|change| {
            [
                format!("@{}", change.alias),
                moved(change),
                change.by.clone(),
                short(&change.why),
                out::ago(change.at),
            ]
        });
        text += "\n\n";
        text += &out::drawn(["ALIAS", "CHANGE", "BY", "WHY", "WHEN"], rows);
    }
    text
}

/// `best of 6 candidates by accuracy (maximize): 01jd… with 0.97`
fn best_of(best: &BestCandidate) -> String {
    let goal = match best.goal {
        Goal::Maximize => "maximize",
        Goal::Minimize => "minimize",
    };
    let BestCandidate {
        id,
        metric,
        value: Number(number),
        of,
        ..
    } = best;
    let number = value(*number);
    format!("best of {of} candidates by {metric} ({goal}): {id} with {number}")
}

fn moved(change: &AliasChange) -> String {
    let name = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    format!("{} → {}", name(change.previous), name(change.version))
}

/// What a change did, in one line.
pub(crate) fn change(model: &str, change: &AliasChange) -> String {
    let before = change
        .previous
        .map(|number| format!(" (before: {number})"))
        .unwrap_or_default();
    match change.version {
        Some(number) => format!("{model}@{} is version {number} now{before}", change.alias),
        None => format!("{model}@{} is taken away{before}", change.alias),
    }
}

pub(crate) fn version(detail: &VersionDetail, client: &Client) -> String {
    let version = &detail.version;
    let mut text = format!("{}\n{}\n", title(version), client.page(&page(version)));
    if let Some(promotion) = &version.promotion {
        let words = format!("promoted by {}: {}", promotion.by, promotion.why);
        text += &format!("{}\n", clean(&words));
    }
    if !version.metrics.is_empty() {
        let rows = version
            .metrics
            .iter()
            .map(|metric| [metric.name.clone(), value(metric.value)]);
        text += &format!("\n{}\n", out::drawn(["METRIC", "VALUE"], rows));
    }
    if !version.flavours.is_empty() {
        text += &clean(&format!("flavour: {}\n", version.flavours.join(", ")));
    }
    let params = detail.params.iter();
    let params = params.map(|(name, value)| [format!("parameter {name}"), short(value)]);
    let title = version.origin.as_ref().map(|origin| origin.title.as_str());
    let lineage = detail.lineage.iter();
    let rows = lineage
        .flat_map(|lineage| facts(title.unwrap_or_default(), lineage))
        .chain(params);
    text += &format!("\n{}\n", out::drawn(["LINEAGE", ""], rows));
    if !detail.files.is_empty() {
        let rows = detail.files.iter().map(|file| {
            [
                file.path.clone(),
                file.size.to_string(),
                short_hashes(&file.blob.to_string()),
            ]
        });
        text += &format!("\n{}\n", out::drawn(["FILE", "SIZE", "HASH"], rows));
    }
    text
}

/// `digits version 3 @champion`
pub(super) fn title(version: &Version) -> String {
    let text = format!(
        "{} {} {}",
        version.model,
        version.label(),
        at_signs(&version.aliases)
    );
    clean(text.trim_end())
}

/// The path of a version's page.
pub(super) fn page(version: &Version) -> String {
    format!("/models/{}/{}", segment(&version.model), named(version))
}

fn facts(title: &str, lineage: &Lineage) -> impl Iterator<Item = [String; 2]> {
    let setting = &lineage.setting;
    let text = |digest: &Option<protocol::Digest>| digest.as_ref().map(ToString::to_string);
    let gpus: Vec<_> = setting.gpus.iter().map(|gpu| gpu.model.as_str()).collect();
    let lock = lineage.lock.as_ref();
    let packages = setting.packages.as_deref().map_or(0, |p| p.lines().count());
    let all = [
        ("project", lineage.project.clone()),
        ("repository", lineage.repository.clone()),
        (
            "commit",
            format!("{} {}", lineage.commit.short(), short(title)),
        ),
        ("ref", lineage.reference.clone().unwrap_or_default()),
        ("asked by", lineage.by.clone().unwrap_or_default()),
        ("job", lineage.job.to_string()),
        ("code", lineage.work.clone()),
        (
            "fingerprint",
            text(&lineage.fingerprint).unwrap_or_default(),
        ),
        ("key", text(&lineage.key).unwrap_or_default()),
        ("files it read", counted(lineage.deps.len())),
        (
            "lock",
            lock.map_or_else(String::new, |lock| format!("{} {}", lock.path, lock.digest)),
        ),
        (
            "environment",
            text(&setting.environment).unwrap_or_default(),
        ),
        ("packages", counted(packages)),
        ("python", setting.python.clone().unwrap_or_default()),
        ("image", setting.image.clone()),
        ("image id", setting.image_id.clone().unwrap_or_default()),
        ("host", setting.host.clone()),
        ("cpu", setting.cpu_model.clone()),
        ("gpus", gpus.join(", ")),
        ("not versioned", lineage.unversioned.join("; ")),
    ];
    all.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| [name.to_owned(), short_hashes(&value)])
}

fn counted(number: usize) -> String {
    match number {
        0 => String::new(),
        more => format!("{more} (--json shows them)"),
    }
}

pub(crate) fn comparison(both: &Comparison) -> String {
    let (base, now) = (both.base.label(), both.now.label());
    let heads = [base.to_uppercase(), now.to_uppercase()];
    let mut text = format!("{}: {now} against {base}\n\n", clean(&both.now.model));
    if both.metrics.is_empty() {
        text += "neither has a metric\n";
    } else {
        let rows = both.metrics.iter().map(metric);
        let head = ["METRIC", &heads[0], &heads[1], "DELTA", "JUDGED"];
        text += &format!("{}\n", out::drawn(head, rows));
    }
    if both.differences.is_empty() {
        text += "\nnothing else differs\n";
    } else {
        let rows = both.differences.iter().map(|difference| {
            [
                difference.what.clone(),
                side(difference.base.as_deref()),
                side(difference.now.as_deref()),
            ]
        });
        let head = ["WHAT ELSE DIFFERS", &heads[0], &heads[1]];
        text += &format!("\n{}\n", out::drawn(head, rows));
    }
    text
}

fn metric(delta: &MetricDelta) -> [String; 5] {
    let number =
        |number: Option<Number>| number.map_or_else(|| "-".to_owned(), |Number(n)| value(n));
    let judged = match delta.judged {
        Some(Judged::Better) => "better",
        Some(Judged::Same) => "same",
        Some(Judged::Worse) => "worse",
        None => "",
    };
    [
        delta.name.clone(),
        number(delta.base),
        number(delta.now),
        delta.delta.map(signed).unwrap_or_default(),
        judged.to_owned(),
    ]
}

pub(super) fn signed(delta: f64) -> String {
    let sign = if delta > 0.0 { "+" } else { "" };
    format!("{sign}{}", value(delta))
}

pub(super) fn side(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| short(&short_hashes(text)))
}

/// A number with six significant digits: the seventh of a metric is noise.
pub(super) fn value(number: f64) -> String {
    let rounded = format!("{number:.5e}").parse().unwrap_or(number);
    let size = number.abs();
    if size != 0.0 && number.is_finite() && !(1e-4..1e9).contains(&size) {
        format!("{rounded:e}")
    } else {
        // Adding zero makes a negative zero positive.
        format!("{}", rounded + 0.0)
    }
}

fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= MOST_CHARS {
        return line.to_owned();
    }
    let kept: String = line.chars().take(MOST_CHARS - 1).collect();
    format!("{kept}…")
}

/// A hash says enough with its beginning.
pub(super) fn short_hashes(text: &str) -> String {
    let word = |word: &str| {
        let (kind, hash) = word.rsplit_once(':').unwrap_or(("", word));
        let is_hash = hash.len() >= 40 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        match (is_hash, kind) {
            (false, _) => word.to_owned(),
            (true, "") => hash[..12].to_owned(),
            (true, kind) => format!("{kind}:{}", &hash[..12]),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

pub(super) fn clean(text: &str) -> String {
    render::terminal::clean(text, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_what_matters() {
        for (number, text) in [
            (0.962_374_512_3, "0.962375"),
            (1.0, "1"),
            (-0.0, "0"),
            (0.97 - 0.96, "0.01"),
            (1.2e-9, "1.2e-9"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(value(number), text);
        }
        assert_eq!(signed(0.97 - 0.96), "+0.01");
        assert_eq!(signed(0.96 - 0.97), "-0.01");
        assert_eq!(signed(0.0), "0");
    }

    #[test]
    fn a_hash_is_shortened_wherever_it_stands() {
        let hash = "0123456789abcdef".repeat(4);
        assert_eq!(
            short_hashes(&format!("requirements.txt sha256:{hash}")),
            "requirements.txt sha256:0123456789ab"
        );
        assert_eq!(short_hashes(&hash), "0123456789ab");
        assert_eq!(short_hashes("python 3.12"), "python 3.12");
    }
}
