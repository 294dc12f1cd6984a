//! Many small rows, or the columns of one, read as one text: a row and a column cost more on their way from the database
//! than what stands in them. A text stands with its length in bytes before it, so that it may hold anything.

use super::rows::{Columns as _, IDS_AT_ONCE, numbered};
use super::{Connection, Result, StoreError};

/// SQL of a text column, as a word.
pub(super) fn text(column: &str) -> String {
    format!("octet_length({column}) || ':' || {column}")
}

/// SQL of a text column that may be null, as a word; then the text is empty.
pub(super) fn maybe_text(column: &str) -> String {
    text(&format!("COALESCE({column}, '')"))
}

/// SQL of a column of whole numbers, as a word.
pub(super) fn int(column: &str) -> String {
    format!("{column} || ','")
}

/// SQL of a column of whole numbers that may be null, as a word.
pub(super) fn maybe_int(column: &str) -> String {
    format!("COALESCE(CAST({column} AS TEXT), '') || ','")
}

/// SQL of several words, one after the other.
pub(super) fn row(words: &[String]) -> String {
    words.join(" || ")
}

/// SQL of the words of all rows of a group, in no order.
fn all(words: &[String]) -> String {
    format!("string_agg({}, '')", row(words))
}

/// The words of all rows of `table` that belong to each of these, by the column `owner`; those that have none are left out.
pub(super) async fn of(
    db: &mut Connection,
    (table, owner): (&'static str, &'static str),
    words: &[String],
    ids: &[String],
) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for ids in ids.chunks(IDS_AT_ONCE) {
        let sql = format!(
            "SELECT {} AS words FROM (SELECT {owner} AS owner, {} AS words FROM {table} WHERE {owner} IN ({}) GROUP BY {owner}) g",
            all(&[text("owner"), text("words")]),
            all(words),
            numbered(1, ids.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for id in ids {
            query = query.bind(id);
        }
        let told = query.fetch_one(&mut *db).await?.maybe_text("words")?;
        let told = told.unwrap_or_default();
        let mut words = Words(&told);
        while !words.is_empty() {
            found.push((words.text()?.to_owned(), words.text()?.to_owned()));
        }
    }
    Ok(found)
}

/// Words that are left to be read.
pub(super) struct Words<'a>(pub &'a str);

impl<'a> Words<'a> {
    /// Whether all are read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next word, a text.
    pub(super) fn text(&mut self) -> Result<&'a str> {
        let length: usize = self.until(':')?;
        let read = self.0.split_at_checked(length);
        let (word, rest) = read.ok_or_else(|| self.unreadable())?;
        self.0 = rest;
        Ok(word)
    }

    /// The next word, a whole number.
    pub(super) fn int(&mut self) -> Result<i64> {
        self.until(',')
    }

    /// The next word, a whole number that may be null.
    pub(super) fn maybe_int(&mut self) -> Result<Option<i64>> {
        match self.0.strip_prefix(',') {
            Some(rest) => {
                self.0 = rest;
                Ok(None)
            }
            None => self.int().map(Some),
        }
    }

    fn until<T: std::str::FromStr>(&mut self, end: char) -> Result<T> {
        let read = self.0.split_once(end);
        let (number, rest) = read.ok_or_else(|| self.unreadable())?;
        let number = number.parse().map_err(|_| self.unreadable())?;
        self.0 = rest;
        Ok(number)
    }

    fn unreadable(&self) -> StoreError {
        let seen: String = self.0.chars().take(40).collect();
        StoreError::Unreadable {
            column: "words".to_owned(),
            why: format!("'{seen}' is no word"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_stand() {
        let mut words = Words("4:a:ü-12,,7,0:1:,");
        assert_eq!(words.text().unwrap(), "a:ü");
        assert_eq!(words.int().unwrap(), -12);
        assert_eq!(words.maybe_int().unwrap(), None);
        assert_eq!(words.maybe_int().unwrap(), Some(7));
        assert_eq!(words.text().unwrap(), "");
        assert_eq!(words.text().unwrap(), ",");
        assert!(words.is_empty());
        for bad in ["", "x:", "3", "-1:a", "2:a", "1:ü"] {
            assert!(Words(bad).text().is_err(), "{bad}");
        }
    }
}
