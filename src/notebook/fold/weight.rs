//! What JSON weighs in memory, about: a number of two letters takes as much room there as a whole sentence.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What a value takes that has nothing below it.
const VALUE: usize = size_of::<Value>();

/// The weight of JSON text, in bytes: it is read and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight(pub usize);

/// The weight of a value, in bytes.
pub(crate) fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => VALUE,
        Value::String(text) => VALUE + text.len(),
        Value::Array(list) => VALUE + list.iter().map(weight).sum::<usize>(),
        Value::Object(map) => {
            let fields = map.iter().map(|(key, value)| field(key, value));
            VALUE + fields.sum::<usize>()
        }
    }
}

/// The weight of a field.
pub(super) fn field(key: &str, value: &Value) -> usize {
    VALUE + key.len() + weight(value)
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Weigher)
    }
}

struct Weigher;

impl<'de> Visitor<'de> for Weigher {
    type Value = Weight;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Weight, E> {
        Ok(Weight(VALUE))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Weight, E> {
        Ok(Weight(VALUE))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Weight, E> {
        Ok(Weight(VALUE))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Weight, E> {
        Ok(Weight(VALUE))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Weight, E> {
        Ok(Weight(VALUE))
    }

    fn visit_str<E>(self, text: &str) -> Result<Weight, E> {
        Ok(Weight(VALUE + text.len()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Weight, A::Error> {
        let mut sum = VALUE;
        while let Some(Weight(more)) = list.next_element()? {
            sum += more;
        }
        Ok(Weight(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Weight, A::Error> {
        let mut sum = VALUE;
        while let Some((Weight(key), Weight(value))) = map.next_entry()? {
            sum += key + value;
        }
        Ok(Weight(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_weighs_what_its_value_weighs() {
        let value = json!({"a": [1, -2.5, null, true, "é\n\"x"], "b": {"c": {}}, "": u64::MAX});
        let Weight(read) = serde_json::from_str(&value.to_string()).unwrap();
        assert_eq!(read, weight(&value));
        let Weight(many) = serde_json::from_str(&format!("[{}0]", "0,".repeat(999))).unwrap();
        assert_eq!(many, 1_001 * VALUE);
        assert!(serde_json::from_str::<Weight>("[1,").is_err());
    }
}
