//! Values that people write in more than one way: sizes, durations, one or a list, a name or a map.
//! Each says in its error what it accepts.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr as _;

use protocol::spec::{LintLevel, LintTool};
use protocol::{ByteSize, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Gives a type the schema of another, with a pattern and a sentence.
macro_rules! schema {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// Text that is not empty. Numbers and booleans are taken as their text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(pub String);

schema!(Word, "Word", { "type": ["string", "number", "boolean"] });

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Word)
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Size(pub ByteSize);

schema!(Size, "Size", {
    "type": "string",
    "pattern": r"^[0-9.]+ *([kKmMgGtT]i?[bB]?|[bB])$",
    "description": "A size such as 512MiB or 16GiB.",
});

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size = ByteSize::from_str(&text).map_err(de::Error::custom)?;
        if size.0 == 0 {
            return Err(de::Error::custom(format!(
                "'{text}' is no size to ask for: write one such as 16GiB, or leave the key out"
            )));
        }
        // Nobody means 80 bytes.
        if text
            .trim_end()
            .ends_with(|c: char| !c.is_ascii_alphabetic())
        {
            return Err(de::Error::custom(format!(
                "'{text}' has no unit: write {0}GiB, or {0}B for bytes",
                text.trim()
            )));
        }
        Ok(Size(size))
    }
}

/// A length of time.
#[derive(Debug, Clone, Copy)]
pub struct Duration(pub Span);

schema!(Duration, "Duration", {
    "type": "string",
    "pattern": r"^([0-9.]+ *(ms|s|sec|m|min|h|d) *)+$",
    "description": "A duration such as 90s, 15m, 24h or 1h30m.",
});

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span = Span::from_str(&text).map_err(de::Error::custom)?;
        if span.0 == 0 {
            return Err(de::Error::custom(
                "a duration of nothing ends a job before it begins",
            ));
        }
        Ok(Duration(span))
    }
}

/// CPUs, in thousandths.
#[derive(Debug, Clone, Copy)]
pub struct Cpus(pub u64);

schema!(Cpus, "Cpus", { "type": "number", "minimum": 0.001, "maximum": 4096 });

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse::<f64>() {
            Ok(cpus) if (0.001..=4096.0).contains(&cpus) => {
                Ok(Cpus((cpus * 1000.0).round() as u64))
            }
            _ => Err(de::Error::custom(format!(
                "'{text}' is not a number of CPUs such as 4 or 0.5"
            ))),
        }
    }
}

/// A cron expression, checked.
#[derive(Debug, Clone)]
pub struct Cron {
    /// As it was written.
    pub text: String,
    /// The same, read.
    pub cron: croner::Cron,
}

schema!(Cron, "Cron", { "type": "string", "description": "Five fields: minute, hour, day of month, month, day of week; UTC." });

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let fields = text.split_whitespace().count();
        let cron = croner::Cron::from_str(&text).ok();
        match cron.filter(|_| fields == 5 || text.starts_with('@')) {
            Some(cron) => Ok(Cron { text, cron }),
            None => Err(de::Error::custom(format!(
                "'{text}' is not a cron expression of five fields such as \"0 3 * * 1\" (Mondays at 03:00 UTC)"
            ))),
        }
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone)]
pub struct OneOrMore<T>(pub Vec<T>);

impl<T: JsonSchema> JsonSchema for OneOrMore<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMore{}", T::schema_name()).into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Many<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Many<T> {
            type Value = OneOrMore<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of texts")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(de::value::StrDeserializer::new(text))
                    .map(|one| OneOrMore(vec![one]))
            }
            // `gpu_model: 4090` is text that YAML takes for a number.
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(OneOrMore(all))
            }
        }
        deserializer.deserialize_any(Many(PhantomData))
    }
}

/// Which pushes start a job.
#[derive(Debug, Clone)]
pub enum Branches {
    /// Those to any branch, or none.
    All(bool),
    /// Those to branches that match one of these globs.
    Some(Vec<String>),
}

schema!(Branches, "Branches", {
    "anyOf": [{ "type": "boolean" }, { "type": "string" }, { "type": "array", "items": { "type": "string" } }]
});

impl<'de> Deserialize<'de> for Branches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kinds;
        impl<'de> Visitor<'de> for Kinds {
            type Value = Branches;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or globs of branches such as [main, \"release/*\"]")
            }
            fn visit_bool<E: de::Error>(self, all: bool) -> Result<Branches, E> {
                Ok(Branches::All(all))
            }
            fn visit_str<E: de::Error>(self, one: &str) -> Result<Branches, E> {
                Ok(Branches::Some(vec![
                    check_glob(one).map_err(de::Error::custom)?,
                ]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Branches, A::Error> {
                let mut globs = Vec::new();
                while let Some(Word(glob)) = list.next_element()? {
                    globs.push(check_glob(&glob).map_err(de::Error::custom)?);
                }
                Ok(Branches::Some(globs))
            }
        }
        deserializer.deserialize_any(Kinds)
    }
}

/// The glob itself, where it is one.
pub(super) fn check_glob(glob: &str) -> Result<String, String> {
    match crate::globs::Globs::new([glob]) {
        Ok(_) => Ok(glob.to_owned()),
        Err(reason) => Err(reason),
    }
}

/// An image by name, or one that is to be built.
#[derive(Debug, Clone)]
pub enum Image {
    /// Its name, with tag or digest.
    Name(String),
    /// A folder of the repository with a Dockerfile.
    Build(String),
}

schema!(Image, "Image", {
    "anyOf": [
        { "type": "string" },
        { "type": "object", "properties": { "build": { "type": "string", "description": "Folder with a Dockerfile (not yet supported)." } }, "required": ["build"], "additionalProperties": false }
    ]
});

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kinds;
        impl<'de> Visitor<'de> for Kinds {
            type Value = Image;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an image, or {build: FOLDER}")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Image, E> {
                Ok(Image::Name(name.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Image, A::Error> {
                let Some((key, Word(folder))) = map.next_entry::<String, Word>()? else {
                    return Err(de::Error::custom("the name of an image is missing"));
                };
                if key != "build" {
                    return Err(de::Error::unknown_field(&key, &["build"]));
                }
                match map.next_entry::<String, de::IgnoredAny>()? {
                    Some((key, _)) => Err(de::Error::unknown_field(&key, &["build"])),
                    None => Ok(Image::Build(folder)),
                }
            }
        }
        deserializer.deserialize_any(Kinds)
    }
}

/// A lint tool, what it is given, and how much its findings weigh.
#[derive(Debug, Clone)]
pub struct LintEntry {
    /// The words of the file, taken apart; what they name is checked later.
    pub tool: LintTool,
    /// Why its command line cannot be taken apart.
    pub fault: Option<String>,
}

schema!(LintEntry, "LintEntry", {
    "anyOf": [
        { "enum": ["ruff", "ruff-format", "black", "isort", "flake8", "mypy", "pylint"] },
        { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_.-]*$", "description": "Any other tool that nbQA can run." },
        {
            "type": "object",
            "description": "A tool through nbQA, with what it is given besides the notebooks.",
            "properties": {
                "nbqa": { "type": "string", "description": "The tool and its options, such as `vulture --min-confidence 80`; `ruff` is ruff through nbQA." },
                "level": { "enum": ["warn", "error"], "description": "`warn`: its findings are shown and fail nothing." }
            },
            "required": ["nbqa"],
            "additionalProperties": false
        },
        {
            "type": "object",
            "description": "A tool by name, and how much its findings weigh.",
            "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_.-]*$" },
            "additionalProperties": { "enum": ["warn", "error"] },
            "minProperties": 1,
            "maxProperties": 1
        }
    ]
});

impl LintEntry {
    pub(crate) fn named(name: &str, level: LintLevel) -> Self {
        Self {
            tool: LintTool {
                level,
                ..LintTool::named(name)
            },
            fault: None,
        }
    }

    /// `vulture --min-confidence 80`.
    pub(crate) fn through(command: &str, level: LintLevel) -> Self {
        let mut words = shlex::split(command).unwrap_or_default().into_iter();
        let Some(tool) = words.next() else {
            return Self {
                fault: Some(format!("'nbqa' is a tool and its options, not '{command}'")),
                ..Self::named("", level)
            };
        };
        Self {
            tool: LintTool {
                tool,
                nbqa: true,
                args: words.collect(),
                level,
            },
            fault: None,
        }
    }
}

impl<'de> Deserialize<'de> for LintEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kinds;
        impl<'de> Visitor<'de> for Kinds {
            type Value = LintEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a lint tool such as ruff, {ruff: warn} or {nbqa: \"vulture --min-confidence 80\"}")
            }
            fn visit_str<E: de::Error>(self, tool: &str) -> Result<LintEntry, E> {
                Ok(LintEntry::named(tool, LintLevel::Error))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LintEntry, A::Error> {
                let (mut named, mut command, mut level) = (None, None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "nbqa" => command = Some(map.next_value::<Word>()?.0),
                        "level" => level = Some(map.next_value::<LintLevel>()?),
                        _ if named.is_none() => named = Some((key, map.next_value::<LintLevel>()?)),
                        _ => {
                            return Err(de::Error::custom(
                                "one tool for each item of the list: - ruff, - {black: warn}",
                            ));
                        }
                    }
                }
                match (named, command, level) {
                    (Some((name, level)), None, None) => Ok(LintEntry::named(&name, level)),
                    (None, Some(command), level) => Ok(LintEntry::through(
                        &command,
                        level.unwrap_or(LintLevel::Error),
                    )),
                    (None, None, _) => Err(de::Error::custom("the name of a lint tool is missing")),
                    (Some((name, _)), ..) => Err(de::Error::custom(format!(
                        "'{name}' stands beside 'nbqa' or 'level': write {{{name}: warn}}, or {{nbqa: \"{name} OPTIONS\", level: warn}}"
                    ))),
                }
            }
        }
        deserializer.deserialize_any(Kinds)
    }
}

/// A map in the order of the file, with the place of each key.
#[derive(Debug, Clone)]
pub struct Table<T>(pub Vec<(Spanned<String>, Spanned<T>)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table(Vec::new())
    }
}

impl<T> Table<T> {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0
            .iter()
            .map(|(name, value)| (name.value.as_str(), &value.value))
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    /// Names, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }
}

impl<T: JsonSchema> JsonSchema for Table<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Table{}", T::schema_name()).into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": value })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Table<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of names to values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(Table(all))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}
