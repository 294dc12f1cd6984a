//! Reading columns. What stands in a row was written by us, but perhaps by another version: it is
//! parsed like foreign data and never unwrapped.

use std::fmt::Display;
use std::str::FromStr;

use protocol::Timestamp;
use serde::Serialize;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Result, StoreError};

fn unreadable(column: &str, why: impl Display) -> StoreError {
    StoreError::Unreadable {
        column: column.to_owned(),
        why: why.to_string(),
    }
}

/// Typed access to the columns of a row.
pub trait Columns {
    /// Text.
    fn text(&self, column: &str) -> Result<String>;
    /// Text or null.
    fn maybe_text(&self, column: &str) -> Result<Option<String>>;
    /// A whole number.
    fn int(&self, column: &str) -> Result<i64>;
    /// A whole number or null.
    fn maybe_int(&self, column: &str) -> Result<Option<i64>>;
    /// A float or null.
    fn maybe_float(&self, column: &str) -> Result<Option<f64>>;
    /// Bytes.
    fn bytes(&self, column: &str) -> Result<Vec<u8>>;
    /// Bytes or null.
    fn maybe_bytes(&self, column: &str) -> Result<Option<Vec<u8>>>;

    /// A number that is never negative.
    fn size(&self, column: &str) -> Result<u64> {
        u64::try_from(self.int(column)?).map_err(|error| unreadable(column, error))
    }

    /// A number that fits 32 bits.
    fn small(&self, column: &str) -> Result<u32> {
        u32::try_from(self.int(column)?).map_err(|error| unreadable(column, error))
    }

    /// A point in time.
    fn time(&self, column: &str) -> Result<Timestamp> {
        self.int(column).map(Timestamp)
    }

    /// A point in time or null.
    fn maybe_time(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self.maybe_int(column)?.map(Timestamp))
    }

    /// An id, a digest, or anything else that is read from text.
    fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T> {
        parsed(column, &self.text(column)?)
    }

    /// The same, or null.
    fn maybe_parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>> {
        self.maybe_text(column)?
            .map(|text| parsed(column, &text))
            .transpose()
    }

    /// A value that stands as JSON.
    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        serde_json::from_str(&self.text(column)?).map_err(|error| unreadable(column, error))
    }

    /// The same, or null.
    fn maybe_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>> {
        self.maybe_text(column)?
            .map(|text| serde_json::from_str(&text).map_err(|error| unreadable(column, error)))
            .transpose()
    }

    /// A bare word of an enum, as serde names it.
    fn word<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        from_word(column, &self.text(column)?)
    }
}

impl Columns for AnyRow {
    fn text(&self, column: &str) -> Result<String> {
        Ok(self.try_get(column)?)
    }

    fn maybe_text(&self, column: &str) -> Result<Option<String>> {
        Ok(self.try_get(column)?)
    }

    fn int(&self, column: &str) -> Result<i64> {
        Ok(self.try_get(column)?)
    }

    fn maybe_int(&self, column: &str) -> Result<Option<i64>> {
        Ok(self.try_get(column)?)
    }

    fn maybe_float(&self, column: &str) -> Result<Option<f64>> {
        Ok(self.try_get(column)?)
    }

    fn bytes(&self, column: &str) -> Result<Vec<u8>> {
        Ok(self.try_get(column)?)
    }

    fn maybe_bytes(&self, column: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.try_get(column)?)
    }
}

/// What stands as text in a column.
pub fn parsed<T: FromStr<Err: Display>>(column: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error| unreadable(column, error))
}

/// A bare word of an enum that stands in a column, as serde names it.
pub fn from_word<T: DeserializeOwned>(column: &str, word: &str) -> Result<T> {
    let word: StrDeserializer<'_, serde::de::value::Error> = word.into_deserializer();
    T::deserialize(word).map_err(|error| unreadable(column, error))
}

/// JSON for a column.
///
/// # Errors
/// Where a map has keys that are no text; our types have none.
pub fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| unreadable("(to be written)", error))
}

/// The bare word of an enum that serde writes as text.
///
/// # Errors
/// Where it is not written as text.
pub fn to_word<T: Serialize>(value: &T) -> Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        Ok(other) => Err(unreadable("(to be written)", format!("{other} is no word"))),
        Err(error) => Err(unreadable("(to be written)", error)),
    }
}

/// A size for a BIGINT column; one that does not fit is kept as the largest.
#[must_use]
pub fn to_int(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// The smallest id of an hour before `id` was made. Ids sort by creation time, but a row may be written
/// some time after its id was made: whoever remembers how far it has looked goes back this far.
#[must_use]
pub fn id_before(id: &str) -> String {
    const HOUR: u64 = 3_600_000;
    match ulid::Ulid::from_string(&id.to_uppercase()) {
        Ok(id) => {
            let at = id.timestamp_ms().saturating_sub(HOUR);
            ulid::Ulid::from_parts(at, 0).to_string().to_lowercase()
        }
        Err(_) => String::new(),
    }
}

/// `($1,$2),($3,$4)`: placeholders for an insert of several rows.
#[must_use]
pub fn placeholders(rows: usize, columns: usize) -> String {
    let row = |r: usize| {
        let list: Vec<String> = (1..=columns)
            .map(|c| format!("${}", r * columns + c))
            .collect();
        format!("({})", list.join(","))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(",")
}

/// `$3,$4,$5`: so many placeholders from the number `first`.
#[must_use]
pub fn numbered(first: usize, count: usize) -> String {
    let list: Vec<String> = (first..first + count).map(|n| format!("${n}")).collect();
    list.join(",")
}

/// Named texts in pieces for inserts of several rows, each name once with its last value: one statement that meets a row
/// twice is refused by Postgres.
pub fn text_rows(list: &[(String, String)]) -> Vec<Vec<(&str, &str)>> {
    let last: std::collections::BTreeMap<&str, &str> = list
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let rows: Vec<(&str, &str)> = last.into_iter().collect();
    rows.chunks(ROWS_AT_ONCE).map(<[_]>::to_vec).collect()
}

/// Most rows of one insert. SQLite looks for each placeholder's name among all of them: with 5,000 that takes longer than
/// the insert, with a few hundred it is nothing, and a text that is always the same is read once.
pub const ROWS_AT_ONCE: usize = 50;
/// Most ids of one list.
pub const IDS_AT_ONCE: usize = 250;
