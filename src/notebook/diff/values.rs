//! Fields of JSON, key by key. Knows nothing of notebooks.

use serde_json::{Map, Value};

use super::{Entry, Fields};

/// The entries that differ: within objects that are in both, else whole.
pub(super) fn diff(before: &Fields, after: &Fields) -> Vec<Entry> {
    let mut entries = Vec::new();
    collect(&mut entries, &mut Vec::new(), before, after);
    entries
}

fn collect(entries: &mut Vec<Entry>, path: &mut Vec<String>, before: &Fields, after: &Fields) {
    for (key, old) in before {
        let new = after.get(key);
        if new.is_some_and(|new| identical(old, new)) {
            continue;
        }
        path.push(key.clone());
        match (old, new) {
            (Value::Object(old), Some(Value::Object(new))) => collect(entries, path, old, new),
            (old, new) => entries.push(entry(path, Some(old), new)),
        }
        path.pop();
    }
    for (key, new) in after {
        if !before.contains_key(key) {
            path.push(key.clone());
            entries.push(entry(path, None, Some(new)));
            path.pop();
        }
    }
}

fn entry(path: &[String], before: Option<&Value>, after: Option<&Value>) -> Entry {
    Entry {
        path: path.to_vec(),
        before: before.cloned(),
        after: after.cloned(),
    }
}

/// Puts the later values into `fields`.
pub(super) fn apply(fields: &mut Fields, entries: &[Entry]) {
    for entry in entries {
        let Some((key, path)) = entry.path.split_last() else {
            continue;
        };
        let mut at = &mut *fields;
        for step in path {
            let inner = at
                .entry(step.clone())
                .or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            let Value::Object(inner) = inner else { return };
            at = inner;
        }
        match &entry.after {
            Some(value) => drop(at.insert(key.clone(), value.clone())),
            None => drop(at.shift_remove(key)),
        }
    }
}

/// Whether two values are written alike. `==` holds 0.0 and -0.0 for equal.
pub(super) fn identical(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b && a.as_f64().map(f64::to_bits) == b.as_f64().map(f64::to_bits)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| identical(a, b))
        }
        (Value::Object(a), Value::Object(b)) => identical_fields(a, b),
        (a, b) => a == b,
    }
}

/// [`identical`] for the values of two maps; their order has no part in it.
pub(super) fn identical_fields(a: &Fields, b: &Fields) -> bool {
    a.len() == b.len()
        && a.iter()
            .all(|(key, a)| b.get(key).is_some_and(|b| identical(a, b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_zero_with_a_sign_is_another_zero() {
        assert!(!identical(&json!([0.0]), &json!([-0.0])));
        assert!(identical(
            &json!({"a": 1, "b": 2}),
            &json!({"b": 2, "a": 1})
        ));
        assert!(!identical(&json!(1), &json!(1.0)));
    }
}
