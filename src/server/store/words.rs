//! Many small rows of one owner, read as one text: a row costs more on its way from the database than what stands in it.
//! A text stands with its length before it, so that it may hold anything.

use super::{Result, StoreError};

/// SQL of a text column, as a word.
pub(super) fn text(column: &str) -> String {
    format!("length({column}) || ':' || {column}")
}

/// SQL of a column of whole numbers, as a word.
pub(super) fn int(column: &str) -> String {
    format!("{column} || ','")
}

/// SQL of the words of all rows of a group, in no order.
pub(super) fn all(words: &[String]) -> String {
    format!("string_agg({}, '')", words.join(" || "))
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
        let end = match self.0.char_indices().nth(length) {
            Some((end, _)) => end,
            None => self.0.len(),
        };
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        Ok(word)
    }

    /// The next word, a whole number.
    pub(super) fn int(&mut self) -> Result<i64> {
        self.until(',')
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
        let mut words = Words("3:a:ü-12,0:1:,");
        assert_eq!(words.text().unwrap(), "a:ü");
        assert_eq!(words.int().unwrap(), -12);
        assert_eq!(words.text().unwrap(), "");
        assert_eq!(words.text().unwrap(), ",");
        assert!(words.is_empty());
        for bad in ["", "x:", "3", "-1:a"] {
            assert!(Words(bad).text().is_err(), "{bad}");
        }
    }
}
