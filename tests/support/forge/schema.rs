//! Holds a body against one of GitHub's own schemas, with the keywords that these use and no others. Stricter than
//! JSON Schema in one way: a field that the schema does not name is refused, because GitHub would drop it in silence.

use serde_json::{Map, Value};

/// Says at the first place what is wrong there.
pub(crate) fn check(schema: &Value, body: &Value) -> Result<(), String> {
    let schema = schema.as_object().ok_or("the schema is no object")?;
    holds(schema, body, "body")
}

fn holds(schema: &Map<String, Value>, value: &Value, place: &str) -> Result<(), String> {
    for (keyword, wanted) in schema {
        match keyword.as_str() {
            "$schema" | "$comment" | "title" | "description" | "default" => {}
            // Both are the business of `properties`.
            "additionalProperties" => {}
            "type" => kind(wanted, value, place)?,
            "enum" => one_of(wanted, value, place)?,
            "format" => date_time(wanted, value, place)?,
            "maxLength" => at_most(wanted, value.as_str().map(|s| s.chars().count()), place)?,
            "maxItems" => at_most(wanted, value.as_array().map(Vec::len), place)?,
            "required" => required(wanted, value, place)?,
            "properties" => properties(schema, wanted, value, place)?,
            "items" => items(wanted, value, place)?,
            "anyOf" => any_of(wanted, value, place)?,
            other => return Err(format!("the check does not know the keyword {other}")),
        }
    }
    Ok(())
}

fn kind(wanted: &Value, value: &Value, place: &str) -> Result<(), String> {
    let is = |kind: &Value| match kind.as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("null") => value.is_null(),
        _ => false,
    };
    let fits = wanted
        .as_array()
        .map_or_else(|| is(wanted), |kinds| kinds.iter().any(is));
    let wrong = || format!("{place} is {value}, and should be of type {wanted}");
    fits.then_some(()).ok_or_else(wrong)
}

fn one_of(wanted: &Value, value: &Value, place: &str) -> Result<(), String> {
    let fits = wanted.as_array().is_some_and(|words| words.contains(value));
    let wrong = || format!("{place} is {value}, and should be one of {wanted}");
    fits.then_some(()).ok_or_else(wrong)
}

/// `2026-01-31T12:00:00`, with a fraction perhaps, and an offset.
fn date_time(wanted: &Value, value: &Value, place: &str) -> Result<(), String> {
    if wanted != "date-time" {
        return Err(format!("the check does not know the format {wanted}"));
    }
    let pattern = b"dddd-dd-ddTdd:dd:dd";
    let text = value.as_str().unwrap_or_default().as_bytes();
    let fits = text.len() > pattern.len()
        && std::iter::zip(pattern, text).all(|(p, c)| match p {
            b'd' => c.is_ascii_digit(),
            p => p == c,
        });
    let offset = text.ends_with(b"Z") || text.iter().rev().nth(2) == Some(&b':');
    let wrong = || format!("{place} is {value}, and should be a time of ISO 8601 with its offset");
    (fits && offset).then_some(()).ok_or_else(wrong)
}

fn at_most(wanted: &Value, has: Option<usize>, place: &str) -> Result<(), String> {
    let most = wanted.as_u64().ok_or("a limit is no number")?;
    let has = has.unwrap_or_default() as u64;
    let wrong = || format!("{place} has the length {has}, and may have {most}");
    (has <= most).then_some(()).ok_or_else(wrong)
}

fn required(wanted: &Value, value: &Value, place: &str) -> Result<(), String> {
    for name in wanted
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        value
            .get(name)
            .ok_or_else(|| format!("{place}.{name} is missing"))?;
    }
    Ok(())
}

fn properties(
    schema: &Map<String, Value>,
    wanted: &Value,
    value: &Value,
    place: &str,
) -> Result<(), String> {
    let open = schema.get("additionalProperties") == Some(&Value::Bool(true));
    for (name, value) in value.as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        match wanted.get(name).and_then(Value::as_object) {
            Some(schema) => holds(schema, value, &place)?,
            None if open => {}
            None => return Err(format!("{place} is no field of this call")),
        }
    }
    Ok(())
}

fn items(wanted: &Value, value: &Value, place: &str) -> Result<(), String> {
    let schema = wanted
        .as_object()
        .ok_or("the schema of items is no object")?;
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        holds(schema, item, &format!("{place}[{n}]"))?;
    }
    Ok(())
}

fn any_of(wanted: &Value, value: &Value, place: &str) -> Result<(), String> {
    let mut schemas = wanted
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object);
    let fits = schemas.any(|schema| holds(schema, value, place).is_ok());
    let wrong = || format!("{place} fits none of {wanted}");
    fits.then_some(()).ok_or_else(wrong)
}
