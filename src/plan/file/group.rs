//! A concurrency group as a pipeline file writes it.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::scalar::Word;

/// A concurrency group.
#[derive(Debug, Clone)]
pub enum Group {
    /// Its name: one job at a time, in turn.
    Name(String),
    /// Its name, and whether a new job cancels those that wait.
    Newest(Newest),
}

/// A concurrency group in full.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Newest {
    group: Word,
    #[serde(default)]
    cancel_queued: bool,
}

impl JsonSchema for Group {
    fn schema_name() -> Cow<'static, str> {
        "Group".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "group": { "type": "string", "description": "Its name." },
                        "cancel_queued": { "type": "boolean", "description": "Whether a new job of the group cancels those that still wait." }
                    },
                    "required": ["group"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

impl Group {
    /// Its name.
    #[must_use]
    pub fn group(&self) -> &str {
        match self {
            Group::Name(name) => name,
            Group::Newest(newest) => &newest.group.0,
        }
    }

    /// Whether a new job of the group cancels those that wait.
    #[must_use]
    pub fn cancel_queued(&self) -> bool {
        match self {
            Group::Name(_) => false,
            Group::Newest(newest) => newest.cancel_queued,
        }
    }
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kinds;
        impl<'de> Visitor<'de> for Kinds {
            type Value = Group;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a group, or {group: NAME, cancel_queued: true}")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Group, E> {
                Ok(Group::Name(name.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Group, A::Error> {
                Newest::deserialize(de::value::MapAccessDeserializer::new(map)).map(Group::Newest)
            }
        }
        deserializer.deserialize_any(Kinds)
    }
}
