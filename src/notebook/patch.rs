//! Unified diffs of one text, applied only where the text is what the diff says. Must not know whose text it is.

use std::str::Lines;

/// Why a diff does not fit a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It is no unified diff.
    #[error("this is no unified diff: {0}")]
    Malformed(&'static str),
    /// The text is not the one that the diff was made of.
    #[error("line {0} is not as the patch expects it")]
    Other(usize),
}

/// The text with the diff's hunks applied. Hunks without `---` and `+++` lines. Whether the text ends in a newline is
/// left as it is, but where `\\ No newline at end of file` stands below the new last line.
///
/// # Errors
/// Where the diff is none, or the text is not the one it was made of: nothing is guessed.
pub fn apply(text: &str, diff: &str) -> Result<String, PatchError> {
    let old: Vec<&str> = text.lines().collect();
    let mut new: Vec<&str> = Vec::with_capacity(old.len());
    let mut at = 0;
    let mut lines = diff.lines();
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with('\\') {
            continue;
        }
        let mut hunk = Hunk::read(line)?;
        let begin = hunk.begin;
        if begin < at || begin > old.len() {
            return Err(PatchError::Other(begin.saturating_add(1)));
        }
        new.extend(&old[at..begin]);
        at = hunk.take(&mut lines, &old, begin, &mut new)?;
    }
    new.extend(&old[at..]);
    let mut text_out = new.join("\n");
    if text.ends_with('\n') && !new.is_empty() && !ends_open(diff) {
        text_out.push('\n');
    }
    Ok(text_out)
}

/// Whether the diff takes the newline from the last line: `\ No newline at end of file` after the new one.
fn ends_open(diff: &str) -> bool {
    let mut lines = diff.lines().rev().filter(|line| !line.is_empty());
    let mark = lines.next().is_some_and(|line| line.starts_with('\\'));
    mark && lines.next().is_some_and(|line| line.starts_with('+'))
}

/// How much of a hunk is still to come.
struct Hunk {
    /// Index of its first line in the old text.
    begin: usize,
    old: usize,
    new: usize,
}

impl Hunk {
    /// `@@ -1,7 +1,8 @@`.
    fn read(line: &str) -> Result<Self, PatchError> {
        let no = PatchError::Malformed("a hunk begins with '@@ -LINE,COUNT +LINE,COUNT @@'");
        let numbers = line
            .strip_prefix("@@ -")
            .and_then(|rest| rest.split_once(" @@"))
            .and_then(|(numbers, _)| numbers.split_once(" +"));
        let range = |text: &str| {
            let (line, count) = text.split_once(',').unwrap_or((text, "1"));
            Some((line.parse::<usize>().ok()?, count.parse::<usize>().ok()?))
        };
        let (old, new) = numbers.ok_or(no.clone())?;
        let ((line, old), (_, new)) = range(old).zip(range(new)).ok_or(no)?;
        // Where no old line is meant, the number is that of the line before.
        let begin = if old == 0 {
            line
        } else {
            line.saturating_sub(1)
        };
        Ok(Self { begin, old, new })
    }

    /// Takes the hunk's lines; gives the index after its last old line.
    fn take<'a>(
        &mut self,
        lines: &mut Lines<'a>,
        old: &[&'a str],
        mut at: usize,
        new: &mut Vec<&'a str>,
    ) -> Result<usize, PatchError> {
        let long = PatchError::Malformed("a hunk has more lines than it says");
        while self.old > 0 || self.new > 0 {
            // Blanks at the diff's very end may have been cut.
            let line = lines.next().unwrap_or_default();
            let (mark, text) = match line.chars().next() {
                Some(mark @ (' ' | '-' | '+')) => (mark, &line[1..]),
                Some('\\') => continue,
                None => (' ', ""),
                Some(_) => return Err(PatchError::Malformed("a line begins with ' ', '-' or '+'")),
            };
            if mark != '+' {
                self.old = self.old.checked_sub(1).ok_or(long.clone())?;
                if old.get(at) != Some(&text) {
                    return Err(PatchError::Other(at + 1));
                }
                at += 1;
            }
            if mark != '-' {
                self.new = self.new.checked_sub(1).ok_or(long.clone())?;
                new.push(text);
            }
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_change_their_lines_and_nothing_else() {
        let text = "a\nb\nc\nd\ne\nf\ng\nh";
        let diff = "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n@@ -7,2 +7,3 @@\n g\n+new\n h";
        assert_eq!(apply(text, diff).unwrap(), "a\nB\nc\nd\ne\nf\ng\nnew\nh");
        let ended = apply(&format!("{text}\n"), diff).unwrap();
        assert!(ended.ends_with("h\n"));
        let open = "@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file";
        assert_eq!(apply("a\n", open).unwrap(), "a");
        assert_eq!(apply("a", "").unwrap(), "a");
        assert_eq!(apply("a\nb", "@@ -1,0 +2 @@\n+x").unwrap(), "a\nx\nb");
        assert_eq!(apply("a", "@@ -1 +0,0 @@\n-a").unwrap(), "");
    }

    #[test]
    fn another_text_is_not_touched() {
        let diff = "@@ -1,2 +1,2 @@\n a\n-b\n+c";
        assert_eq!(apply("a\nx", diff), Err(PatchError::Other(2)));
        assert_eq!(apply("", diff), Err(PatchError::Other(1)));
        for wrong in [
            "@@ -1 +1 @@\n?a",
            "a",
            "@@ -x +1 @@",
            "@@ -1,1 +1,1 @@\n-a\n-b",
        ] {
            assert!(apply("a\nb", wrong).is_err(), "{wrong:?}");
        }
        assert!(apply("a", "@@ -99999999999999999999 +1 @@\n-a").is_err());
        assert!(apply("a", "@@ -1,999999999 +1,1 @@\n a").is_err());
        assert!(apply("a", &format!("@@ -{},0 +1 @@\n+a", usize::MAX)).is_err());
    }
}
