//! Numbers that a job leaves as metrics: in `metrics.json`, and glued by scrapbook. Pure.

use notebook::message::OutputMessage;
use protocol::event::OutputContent;
use serde_json::{Map, Value};

/// What scrapbook's `glue` displays.
const SCRAP: &str = "application/scrapbook.scrap.json+json";
/// Python's words for the numbers that JSON does not have.
const NO_JSON: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// The values of one flat object, as Python writes it; none: it is no number.
pub(super) fn numbers(text: &str) -> serde_json::Result<Vec<(String, Option<f64>)>> {
    let values: Map<String, Value> = serde_json::from_str(&quote_words(text))?;
    let numbers = values.into_iter();
    Ok(numbers
        .map(|(name, value)| (name, number(&value)))
        .collect())
}

/// A number that was glued, and its name.
pub(super) fn scrap(content: &OutputContent) -> Option<(String, f64)> {
    let OutputContent::Inline { output } = content else {
        return None;
    };
    let data = match output {
        OutputMessage::DisplayData { data, .. } | OutputMessage::ExecuteResult { data, .. } => data,
        OutputMessage::Stream { .. }
        | OutputMessage::Error { .. }
        | OutputMessage::UpdateDisplayData { .. }
        | OutputMessage::ClearOutput { .. }
        | OutputMessage::Widget(_) => return None,
    };
    let scrap = data.get(SCRAP)?;
    Some((
        scrap.get("name")?.as_str()?.to_owned(),
        number(scrap.get("data")?)?,
    ))
}

/// Python writes numbers that JSON does not have as bare words: they are quoted, as [`number`] reads them.
fn quote_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut inside) = (text, false);
    while let Some(next) = rest.chars().next() {
        let word = NO_JSON
            .iter()
            .find(|word| !inside && rest.starts_with(**word));
        let length = match word {
            Some(word) => {
                out.extend(["\"", word, "\""]);
                word.len()
            }
            // What is escaped ends no text.
            None if inside && next == '\\' => {
                let escaped = rest.chars().take(2).map(char::len_utf8).sum();
                out.push_str(&rest[..escaped]);
                escaped
            }
            None => {
                inside ^= next == '"';
                out.push(next);
                next.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    out
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(word) => match word.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_only_python_writes_are_read() {
        let text =
            r#"{"a": NaN, "b":-Infinity, "c": Infinity, "NaN": 1, "d": "say \"NaN, é\\", "e": 2}"#;
        let read: Map<String, Value> = serde_json::from_str(&quote_words(text)).unwrap();
        assert!(number(&read["a"]).unwrap().is_nan());
        assert_eq!(number(&read["b"]), Some(f64::NEG_INFINITY));
        assert_eq!(number(&read["c"]), Some(f64::INFINITY));
        assert_eq!(
            (number(&read["NaN"]), number(&read["e"])),
            (Some(1.0), Some(2.0))
        );
        assert_eq!(read["d"], "say \"NaN, é\\");
        assert_eq!(quote_words("\"\\"), "\"\\", "a text that is cut off");
    }

    #[test]
    fn a_glued_number_is_a_metric_and_other_scraps_are_not() {
        let glued = |data: Value| {
            let output = serde_json::json!({
                "output": {"output_type": "display_data", "metadata": {},
                    "data": {SCRAP: {"name": "accuracy", "data": data, "encoder": "json", "version": 1}}},
            });
            scrap(&serde_json::from_value(output).unwrap())
        };
        assert_eq!(glued(0.5.into()), Some(("accuracy".into(), 0.5)));
        assert_eq!(glued("text".into()), None);
    }
}
