//! What is wrong with a pipeline file, where, and what was probably meant.

use std::fmt;

use serde_saphyr::{Error, Location};

/// Name of the file, at the root of the repository.
pub const FILE_NAME: &str = ".trainyard.yml";
/// Most characters of a message: it goes into statuses and comments.
const MESSAGE_CHARS: usize = 500;

/// One error of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub struct FileError {
    /// Line, from 1; 0: the whole file.
    pub line: u64,
    /// Column, from 1; 0: the whole file.
    pub column: u64,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{FILE_NAME}: {}", self.message)
        } else {
            write!(
                f,
                "{FILE_NAME}:{}:{}: {}",
                self.line, self.column, self.message
            )
        }
    }
}

impl FileError {
    /// An error at a place.
    pub(crate) fn at(location: Location, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self {
            line: location.line(),
            column: location.column(),
            message: message.chars().take(MESSAGE_CHARS).collect(),
        }
    }

    /// An error of the whole file.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self::at(Location::UNKNOWN, message)
    }

    /// The words of the YAML reader in ours.
    pub(crate) fn from_yaml(error: &Error) -> Self {
        let inner = error.without_snippet();
        let location = inner.location().unwrap_or(Location::UNKNOWN);
        let message = match inner {
            Error::SerdeUnknownField {
                field, expected, ..
            } => unknown("key", field, expected),
            Error::SerdeUnknownVariant {
                variant, expected, ..
            } => unknown("value", variant, expected),
            Error::SerdeMissingField { field, .. } => format!("the key '{field}' is missing"),
            Error::SerdeInvalidType {
                unexpected,
                expected,
                ..
            }
            | Error::SerdeInvalidValue {
                unexpected,
                expected,
                ..
            } => {
                format!("found {unexpected}, expected {expected}")
            }
            Error::DuplicateMappingKey { key: Some(key), .. } => {
                format!("the key '{key}' stands here a second time")
            }
            Error::NullIntoString { .. } => "a value is missing".to_owned(),
            Error::Message { msg, .. } => msg.clone(),
            Error::InvalidScalar { ty, .. } => format!("expected {}", kind(ty)),
            other => bare(other),
        };
        Self::at(location, message)
    }
}

/// A type in words.
fn kind(ty: &str) -> &str {
    match ty {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative",
        "f32" | "f64" => "a number",
        "bool" | "boolean" => "true or false",
        other => other,
    }
}

/// The reader's own words, without the place, which stands before them already.
fn bare(error: &Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let first = first.split(" at line ").next().unwrap_or(first);
    match first.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest.to_owned(),
        _ => first.to_owned(),
    }
}

/// `unknown key 'notebok'; did you mean 'notebook'?`
pub(crate) fn unknown<T: AsRef<str>>(what: &str, word: &str, known: &[T]) -> String {
    let word: String = word.chars().take(60).collect();
    match nearest(&word, known) {
        Some(near) => format!("unknown {what} '{word}'; did you mean '{near}'?"),
        None if known.is_empty() => format!("unknown {what} '{word}'"),
        None => {
            let list: Vec<&str> = known.iter().map(AsRef::as_ref).take(40).collect();
            format!("unknown {what} '{word}'; known are {}", list.join(", "))
        }
    }
}

/// The known word that was probably meant.
pub(crate) fn nearest<'a, T: AsRef<str>>(word: &str, known: &'a [T]) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let begins = known
        .iter()
        .map(AsRef::as_ref)
        .find(|k| word.len() >= 3 && k.to_lowercase().starts_with(&word));
    let score = |known: &str| strsim::damerau_levenshtein(&word, &known.to_lowercase());
    let scored = known.iter().map(|k| (score(k.as_ref()), k.as_ref()));
    let (distance, near) = scored.min()?;
    let limit = (near.chars().count().max(word.chars().count()) / 3).max(1);
    // Of words of one letter each is as near as any other.
    if distance <= limit && distance < word.chars().count() {
        Some(near)
    } else {
        begins
    }
}
