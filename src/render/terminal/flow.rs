//! Text that comes in pieces, put together again on a terminal or in a file. Must not know whose text it is.

use super::clean;
use crate::text::overwritten;

/// A line that is longer than this is no progress bar: what is known of it is written, and it goes on from there.
const LONGEST: usize = 64 << 10;
const RESET: &str = "\u{1b}[0m";

/// One text that flows. A line is ended only where it ends, or by [`Flow::end`].
///
/// On a terminal carriage returns write over the line that stands there. Elsewhere nothing can be taken back: a line
/// with such returns is written when it ends, as it is then.
#[derive(Debug, Clone)]
pub struct Flow {
    terminal: bool,
    width: usize,
    /// The line that has not ended, as it came; what was overwritten in it is gone.
    line: String,
    /// What of it is written.
    shown: String,
    /// Whether the line overwrites itself.
    returns: bool,
    /// Whether something of the line is written that is not in `shown`.
    begun: bool,
}

impl Flow {
    /// Nothing yet. On a terminal of `width` columns there are colours, too.
    #[must_use]
    pub fn new(terminal: bool, width: usize) -> Self {
        Self {
            terminal,
            width,
            line: String::new(),
            shown: String::new(),
            returns: false,
            begun: false,
        }
    }

    /// Whether a line has begun and not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.begun || !self.line.is_empty()
    }

    /// More text; gives what is to be written for it, harmless to a terminal.
    pub fn push(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        if self.is_open()
            && let Some((end, after)) = rest.split_once('\n')
        {
            self.add(end);
            out += &self.end();
            rest = after;
        }
        if let Some(at) = rest.rfind('\n') {
            out += &clean(&rest[..=at], self.terminal);
            rest = &rest[at + 1..];
        }
        if rest.is_empty() {
            return out;
        }
        self.add(rest);
        if self.terminal || !self.returns || self.line.len() > LONGEST {
            out += &self.draw();
        }
        if self.line.len() > LONGEST {
            (self.begun, self.returns) = (true, false);
            self.line.clear();
            self.shown.clear();
        }
        out
    }

    /// Ends the line that is open: something else comes.
    pub fn end(&mut self) -> String {
        if !self.is_open() {
            return String::new();
        }
        let mut out = self.draw();
        if self.shown.contains('\u{1b}') {
            out += RESET;
        }
        out.push('\n');
        *self = Self::new(self.terminal, self.width);
        out
    }

    fn add(&mut self, text: &str) {
        self.returns |= text.contains(['\r', '\u{8}']);
        self.line.push_str(text);
        if let std::borrow::Cow::Owned(line) = overwritten(&self.line) {
            self.line = line;
        }
    }

    /// Brings what is written up to the line as it is now.
    fn draw(&mut self) -> String {
        let whole = clean(self.line.trim_matches('\r'), self.terminal);
        let whole = whole.strip_suffix(RESET).unwrap_or(&whole);
        if let Some(more) = whole.strip_prefix(self.shown.as_str()) {
            let more = more.to_owned();
            self.shown.push_str(&more);
            return more;
        }
        let before = match self.terminal && columns(&self.shown) < self.width {
            true => "\r\u{1b}[2K\u{1b}[0m",
            false => "\n",
        };
        // A line that wraps could not be written over.
        self.shown = match !self.terminal || columns(whole) < self.width {
            true => whole.to_owned(),
            false => start(&clean(whole, false), self.width.saturating_sub(1)),
        };
        format!("{before}{}", self.shown)
    }
}

/// How many characters are seen. Some take two columns; then a line may be left standing, and nothing worse.
fn columns(text: &str) -> usize {
    clean(text, false).chars().count()
}

fn start(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written for the pieces, and then for something else.
    fn flowing(terminal: bool, pieces: &[&str]) -> String {
        let mut flow = Flow::new(terminal, 20);
        let mut out: String = pieces.iter().map(|piece| flow.push(piece)).collect();
        out += &flow.end();
        out + &flow.end()
    }

    /// What stands on a terminal that wraps nothing after such text.
    fn screen(text: &str) -> String {
        let lines = text.split('\n').map(|line| {
            let last = line.rsplit("\r\u{1b}[2K").next().unwrap_or_default();
            clean(last, false)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn text_flows_as_it_was_printed() {
        for terminal in [true, false] {
            assert_eq!(flowing(terminal, &["a ", "b ", "c "]), "a b c \n");
            assert_eq!(
                flowing(terminal, &["li", "ne 1\nline", " 2\nline 3\n"]),
                "line 1\nline 2\nline 3\n"
            );
            assert_eq!(
                flowing(terminal, &["a", "\n", "\n", "b\r", "\nc"]),
                "a\n\nb\nc\n"
            );
            assert_eq!(flowing(terminal, &[]), "");
        }
        let mut flow = Flow::new(false, 20);
        assert_eq!((flow.push("a"), flow.push("b")), ("a".into(), "b".into()));
        assert!(flow.is_open());
    }

    #[test]
    fn a_progress_bar_is_one_line() {
        let steps = ["\r  0%", "\r 50%", "\r100%", "\ndone\n"];
        assert_eq!(flowing(false, &steps), "100%\ndone\n");
        let drawn = flowing(true, &steps);
        assert_eq!(drawn.matches("\u{1b}[2K").count(), 2, "{drawn:?}");
        assert_eq!(screen(&drawn), "100%\ndone\n");
        // Returns at the end of each step, words before them, and backspaces.
        assert_eq!(flowing(false, &["1%\r", "22%\r", "ok"]), "ok%\n");
        assert_eq!(flowing(false, &["loss: ", "1\u{8}", "2\n"]), "loss: 2\n");
        assert_eq!(
            screen(&flowing(true, &["loss: ", "1\u{8}", "2\n"])),
            "loss: 2\n"
        );
        // What stands in a file cannot be taken back.
        assert_eq!(
            flowing(false, &["long words", "\rnew"]),
            "long words\nnewg words\n"
        );
    }

    #[test]
    fn a_bar_that_would_wrap_is_cut_until_it_ends() {
        let wide = "x".repeat(30);
        let drawn = flowing(
            true,
            &["\r1", &format!("\r{wide}"), &format!("\ry{wide}"), "\n"],
        );
        let cut = "x".repeat(19);
        assert!(drawn.contains(&format!("\u{1b}[0m{cut}\r")), "{drawn:?}");
        assert_eq!(screen(&drawn), format!("y{wide}\n"));
    }

    #[test]
    fn nothing_reaches_the_terminal_and_colours_go_on() {
        let nasty = ["a\u{1b}", "[2Jb\u{1b}]0;title", "\u{7}c\u{202e}\n"];
        for terminal in [true, false] {
            let out = flowing(terminal, &nasty);
            let seen = screen(&out).replace('\n', "");
            assert!(
                seen.ends_with("abc\u{fffd}") && !out.contains("2J"),
                "{out:?}"
            );
        }
        let red = ["\u{1b}[31mred", " and red", "\u{1b}[0m\n"];
        assert_eq!(flowing(true, &red), "\u{1b}[31mred and red\u{1b}[0m\n");
        assert_eq!(flowing(false, &red), "red and red\n");
    }

    #[test]
    fn a_line_without_end_takes_no_more_than_its_room() {
        let mut flow = Flow::new(false, 20);
        let piece = "x".repeat(50_000);
        let out: String = (0..10).map(|_| flow.push(&piece)).collect();
        assert!(flow.line.len() <= LONGEST && flow.is_open());
        assert_eq!(out + &flow.end(), format!("{}\n", piece.repeat(10)));
    }
}
