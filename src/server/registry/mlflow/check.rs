//! What may be written: names and lengths, by MLflow's rules. Pure.

use super::ask::KeyValue;
use super::{Answer, Fault};
use crate::forge::bounded;
use crate::store::metrics::Point;

/// Most characters of the name of a metric, param or tag.
const NAME: usize = 250;
/// Longer values of params are cut there.
const PARAM_VALUE: usize = 6_000;
/// Longer values of a run's tags are cut there.
const TAG_VALUE: usize = 8_000;
/// Most characters of an experiment's tag.
const EXPERIMENT_TAG_VALUE: usize = 20_000;
/// Most characters of a tag of a model or version.
const MODEL_TAG_VALUE: usize = 100_000;
/// Most characters of the name of an experiment or a logged model.
const LONG_NAME: usize = 500;
/// Most characters of a registered model's name.
const MODEL_NAME: usize = 256;
/// Most characters of a description.
const DESCRIPTION: usize = 100_000;
/// Most bytes of the names by which a point of a logged model is found. Postgres takes no row of an index above 2,704 bytes
/// (a third of a page), and what else stands in this one has up to 150.
const POINT_NAMES: usize = 2_400;
/// Most metrics of a batch.
pub(super) const BATCH_METRICS: usize = 1_000;
/// Most params, and most tags, of a batch.
pub(super) const BATCH_PARAMS: usize = 100;
/// Most metrics, params and tags together.
pub(super) const BATCH: usize = 1_000;
/// Tags that only this server sets.
const OWN_TAGS: &str = "trainyard.";

/// What was said, for a message.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", bounded(text, 100))
}

/// A text that has to be there.
pub(super) fn wanted(parameter: &str, value: Option<String>) -> Answer<String> {
    let value = value.filter(|text| !text.is_empty());
    let value = value.ok_or_else(|| Fault::wanted(parameter))?;
    no_nul(parameter, &value)?;
    Ok(value)
}

/// Postgres keeps no such character.
fn no_nul(parameter: &str, value: &str) -> Answer<()> {
    if value.contains('\0') {
        return Err(Fault::invalid(format!(
            "parameter '{parameter}' has a NUL character"
        )));
    }
    Ok(())
}

/// A text that need not be there, of at most so many characters.
pub(super) fn bounded_text(parameter: &str, value: &str, most: usize) -> Answer<()> {
    no_nul(parameter, value)?;
    if value.chars().count() > most {
        return Err(Fault::invalid(format!(
            "parameter '{parameter}' has more than {most} characters"
        )));
    }
    Ok(())
}

/// A description.
pub(super) fn description(value: &str) -> Answer<()> {
    bounded_text("description", value, DESCRIPTION)
}

/// The name of a metric, param or tag: it could be a path, and stays inside what it would be a path of.
pub(super) fn name(parameter: &str, name: &str) -> Answer<()> {
    let ordinary = name
        .chars()
        .all(|c| c.is_alphanumeric() || "_/.- :".contains(c));
    if !ordinary || !stays_inside(name) {
        return Err(Fault::invalid(format!(
            "{} is no name for '{parameter}': letters, digits, '_', '-', '.', ':', spaces, and '/' as in a path \
             that goes nowhere else",
            quoted(name)
        )));
    }
    bounded_text(parameter, name, NAME)
}

/// Whether a path has only ordinary parts.
pub(super) fn stays_inside(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// Named texts that are checked; `at` is where they stand in the call.
fn pairs(
    at: &str,
    list: Vec<KeyValue>,
    value: impl Fn(&str, String) -> Answer<String>,
) -> Answer<Vec<(String, String)>> {
    let mut all = Vec::with_capacity(list.len());
    for (number, pair) in list.into_iter().enumerate() {
        let parameter = format!("{at}[{number}].key");
        let key = wanted(&parameter, pair.key)?;
        name(&parameter, &key)?;
        let text = pair.value.unwrap_or_default();
        no_nul(&format!("{at}[{number}].value"), &text)?;
        all.push((key, value(&format!("{at}[{number}].value"), text)?));
    }
    Ok(all)
}

/// Params of a run: each name once.
pub(super) fn params(list: Vec<KeyValue>) -> Answer<Vec<(String, String)>> {
    let all = pairs("params", list, |_, value| Ok(cut(&value, PARAM_VALUE)))?;
    for (number, (name, _)) in all.iter().enumerate() {
        if all[..number].iter().any(|(before, _)| before == name) {
            return Err(Fault::invalid(format!(
                "param {} stands twice in one call",
                quoted(name)
            )));
        }
    }
    Ok(all)
}

/// Tags of a run or of a logged model.
pub(super) fn tags(list: Vec<KeyValue>) -> Answer<Vec<(String, String)>> {
    let all = pairs("tags", list, |_, value| Ok(cut(&value, TAG_VALUE)))?;
    for (name, _) in &all {
        not_ours(name)?;
    }
    Ok(all)
}

/// Lineage is what the server itself saw.
pub(super) fn not_ours(name: &str) -> Answer<()> {
    if name.starts_with(OWN_TAGS) {
        return Err(Fault::new(
            super::Code::Denied,
            format!(
                "tag {} is the server's own: tags that begin with '{OWN_TAGS}' are lineage that nobody writes",
                quoted(name)
            ),
        ));
    }
    Ok(())
}

/// Tags of an experiment.
pub(super) fn experiment_tags(list: Vec<KeyValue>) -> Answer<Vec<(String, String)>> {
    pairs("tags", list, |at, value| {
        bounded_text(at, &value, EXPERIMENT_TAG_VALUE)?;
        Ok(value)
    })
}

/// Tags of a registered model or version.
pub(super) fn model_tags(list: Vec<KeyValue>) -> Answer<Vec<(String, String)>> {
    pairs("tags", list, |at, value| {
        bounded_text(at, &value, MODEL_TAG_VALUE)?;
        Ok(value)
    })
}

/// Points of metrics; `at` is where they stand in the call.
pub(super) fn point(
    at: &str,
    key: Option<String>,
    value: Option<f64>,
    timestamp: Option<i64>,
    step: Option<i64>,
) -> Answer<Point> {
    let parameter = |field: &str| match at {
        "" => field.to_owned(),
        at => format!("{at}.{field}"),
    };
    let key = wanted(&parameter("key"), key)?;
    name(&parameter("key"), &key)?;
    let at = timestamp.ok_or_else(|| Fault::wanted(&parameter("timestamp")))?;
    if at < 0 {
        return Err(Fault::invalid(format!(
            "parameter '{}' is {at}: milliseconds since 1970 are not negative",
            parameter("timestamp")
        )));
    }
    Ok(Point {
        name: key,
        value: value.ok_or_else(|| Fault::wanted(&parameter("value")))?,
        at,
        step: step.unwrap_or(0),
    })
}

/// The names by which a point of a logged model is found: the metric's, and the name and digest of its dataset.
pub(super) fn point_names(names: [&str; 3]) -> Answer<()> {
    if names.iter().map(|name| name.len()).sum::<usize>() > POINT_NAMES {
        return Err(Fault::invalid(format!(
            "the metric {} and its dataset have names of more than {POINT_NAMES} bytes together",
            quoted(names[0])
        )));
    }
    Ok(())
}

/// The size of a batch.
pub(super) fn batch(metrics: usize, params: usize, tags: usize) -> Answer<()> {
    let parts = [
        ("metrics", metrics, BATCH_METRICS),
        ("params", params, BATCH_PARAMS),
        ("tags", tags, BATCH_PARAMS),
        (
            "metrics, params and tags together",
            metrics + params + tags,
            BATCH,
        ),
    ];
    for (what, count, most) in parts {
        if count > most {
            return Err(Fault::invalid(format!(
                "a batch has at most {most} {what}, this one has {count}: send several"
            )));
        }
    }
    Ok(())
}

/// An experiment's name.
pub(super) fn experiment_name(parameter: &str, name: Option<String>) -> Answer<String> {
    let name = wanted(parameter, name)?;
    bounded_text(parameter, &name, LONG_NAME)?;
    // Names of projects' jobs have a slash; one that would climb out of a folder is a mistake or worse.
    let climbs = name.split('/').any(|part| part == "..");
    if climbs || name.chars().any(char::is_control) {
        return Err(Fault::invalid(format!(
            "{} is no name for an experiment: no '..' between slashes, no control characters",
            quoted(&name)
        )));
    }
    Ok(name)
}

/// A logged model's name.
pub(super) fn logged_model_name(name: &str) -> Answer<()> {
    if name.is_empty() || name.contains(['/', ':', '.', '%', '"', '\'']) {
        return Err(Fault::invalid(format!(
            "{} is no name for a model: not empty, and none of / : . % \" '",
            quoted(name)
        )));
    }
    bounded_text("name", name, LONG_NAME)
}

/// A registered model's name: it stands in addresses of pages and files.
pub(super) fn model_name(parameter: &str, name: Option<String>) -> Answer<String> {
    let name = wanted(parameter, name)?;
    let bad = |c: char| "/:\\?#%".contains(c) || c.is_control();
    if name.trim().is_empty() || name.contains(bad) || !stays_inside(&name) {
        return Err(Fault::invalid(format!(
            "{} is no name for a registered model: none of / : \\ ? # %, no control characters, not '.' or '..'",
            quoted(&name)
        )));
    }
    bounded_text(parameter, &name, MODEL_NAME)?;
    Ok(name)
}

/// A version's number.
pub(super) fn number(version: Option<String>) -> Answer<u64> {
    let text = wanted("version", version)?;
    match text.parse::<u64>() {
        Ok(number) if i64::try_from(number).is_ok() => Ok(number),
        Ok(_) | Err(_) => Err(Fault::invalid(format!(
            "version {} is no number",
            quoted(&text)
        ))),
    }
}

/// An experiment's number.
pub(super) fn experiment_id(text: Option<String>) -> Answer<i64> {
    let text = wanted("experiment_id", text)?;
    parsed_experiment_id(&text)
}

/// An experiment's number, where there is one.
pub(super) fn parsed_experiment_id(text: &str) -> Answer<i64> {
    text.parse()
        .map_err(|_| Fault::invalid(format!("experiment id {} is no number", quoted(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: Some(key.to_owned()),
            value: Some(value.to_owned()),
        }
    }

    #[test]
    fn a_name_may_look_like_a_path_that_stays_inside() {
        for good in ["loss", "val/loss", "a.b-c_d e:f", "größe", "..a", "a..b"] {
            assert_eq!(name("key", good), Ok(()), "{good}");
        }
        let long = "x".repeat(251);
        for bad in [
            "", ".", "..", "/a", "a/", "a//b", "a/../b", "./a", "a\nb", "a;b", "a\0", "a'", &long,
        ] {
            assert!(name("key", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_are_cut_as_mlflow_cuts_them() {
        let long = "ü".repeat(9_000);
        let kept = params(vec![pair("a", &long)]).unwrap();
        assert_eq!(kept[0].1.chars().count(), 6_000);
        let kept = tags(vec![pair("a", &long)]).unwrap();
        assert_eq!(kept[0].1.chars().count(), 8_000);
    }

    #[test]
    fn a_param_stands_once_and_a_tag_is_not_ours() {
        assert!(params(vec![pair("a", "1"), pair("a", "1")]).is_err());
        let error = tags(vec![pair("trainyard.key", "x")]).unwrap_err();
        assert_eq!(error.code, super::super::Code::Denied);
        assert!(params(vec![pair("a", "b\0c")]).is_err());
    }

    #[test]
    fn names_of_a_point_fit_in_an_index() {
        let (metric, dataset) = ("x".repeat(250), "数".repeat(500));
        assert_eq!(point_names([&metric, &dataset, &"d".repeat(36)]), Ok(()));
        let metric = "数".repeat(250);
        assert_eq!(point_names([&metric, &dataset, ""]), Ok(()));
        let dataset = "𝔁".repeat(500);
        assert!(point_names([&metric, &dataset, ""]).is_err());
    }

    #[test]
    fn a_batch_is_bounded() {
        assert_eq!(batch(1_000, 0, 0), Ok(()));
        assert_eq!(batch(800, 100, 100), Ok(()));
        for (metrics, params, tags) in [(1_001, 0, 0), (0, 101, 0), (0, 0, 101), (950, 51, 0)] {
            assert!(batch(metrics, params, tags).is_err());
        }
    }

    #[test]
    fn names_that_climb_out_are_refused() {
        for bad in ["../../x", "a/../b", ".."] {
            assert!(experiment_name("name", Some(bad.into())).is_err(), "{bad}");
            assert!(model_name("name", Some(bad.into())).is_err(), "{bad}");
        }
        assert!(experiment_name("name", Some("digits/train".into())).is_ok());
        assert!(model_name("name", Some("My model".into())).is_ok());
        for bad in ["a/b", "a:b", "a?b", "a\\b", " ", "."] {
            assert!(model_name("name", Some(bad.into())).is_err(), "{bad}");
        }
    }
}
