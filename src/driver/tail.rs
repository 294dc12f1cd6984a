//! The end of a text of any length.

/// How much of it is kept.
const KEPT: usize = 16 << 10;

/// Keeps the last 16 KiB of a text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    text: String,
}

impl Tail {
    /// Adds text.
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
        if self.text.len() > 2 * KEPT {
            let cut = self.text.len() - KEPT;
            let cut = (cut..=self.text.len()).find(|at| self.text.is_char_boundary(*at));
            self.text.drain(..cut.unwrap_or(0));
        }
    }

    /// The text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Its last line that is not blank, for a message; of a line that was written over and over the last one.
    #[must_use]
    pub(crate) fn last_line(&self) -> Option<&str> {
        self.text
            .lines()
            .rev()
            .flat_map(|line| line.rsplit('\r'))
            .map(str::trim)
            .find(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_memory_is_bounded() {
        let mut tail = Tail::default();
        for n in 0..10_000 {
            tail.push(&format!("é line {n}\n"));
            assert!(tail.as_str().len() <= 2 * KEPT);
        }
        tail.push("  \n");
        assert_eq!(tail.last_line(), Some("é line 9999"));
        tail.push(" 10%|#  \r 20%|## \r\n\n");
        assert_eq!(tail.last_line(), Some("20%|##"));
    }
}
