//! What a Python kernel says twice: IPython shows what is written to the file descriptors 1 and 2 themselves as the
//! cell's output, and copies it to where the kernel was started from. The copy waits here for the output that has it.

use std::collections::{HashSet, VecDeque};

use notebook::message::StreamName;
use protocol::Timestamp;
use protocol::event::LogStream;

/// How long the output of a copy may take, in milliseconds.
const PATIENCE: i64 = 1_000;
/// Most bytes of outputs that are remembered, of each stream.
const MEMORY: usize = 256 << 10;

/// Copies that wait, and what was heard.
#[derive(Debug, Default)]
pub(super) struct Echo {
    held: VecDeque<(Timestamp, LogStream, String)>,
    stdout: String,
    stderr: String,
}

impl Echo {
    /// Text beside the outputs, said then.
    pub(super) fn hold(&mut self, at: Timestamp, stream: LogStream, text: &str) {
        match self.held.back_mut() {
            // A line is not parted.
            Some((_, last, held)) if *last == stream && !held.ends_with('\n') => {
                held.push_str(text);
            }
            Some(_) | None => self.held.push_back((at, stream, text.to_owned())),
        }
    }

    /// A cell said so.
    pub(super) fn hear(&mut self, name: StreamName, text: &str) {
        let heard = match name {
            StreamName::Stdout => &mut self.stdout,
            StreamName::Stderr => &mut self.stderr,
        };
        heard.push_str(text);
        if heard.len() > 2 * MEMORY {
            let start = (heard.len() - MEMORY..).find(|&at| heard.is_char_boundary(at));
            heard.drain(..start.unwrap_or_default());
        }
    }

    /// What has waited long enough at `now`, or all, without what was said as output.
    pub(super) fn due(&mut self, now: Option<Timestamp>) -> Vec<(LogStream, String)> {
        let is_due = |at: Timestamp| now.is_none_or(|now| now.0 >= at.0 + PATIENCE);
        let mut due = Vec::new();
        while let Some((_, stream, text)) = self.held.pop_front_if(|(at, ..)| is_due(*at)) {
            let news = self.news(stream, &text);
            if !news.is_empty() {
                due.push((stream, news));
            }
        }
        due
    }

    /// The lines that no output has; a blank one goes with the one before.
    fn news(&self, stream: LogStream, text: &str) -> String {
        let heard = match stream {
            LogStream::Stdout => &self.stdout,
            LogStream::Stderr => &self.stderr,
            LogStream::Platform => return text.to_owned(),
        };
        let lines: HashSet<&str> = heard.lines().collect();
        let mut known = false;
        let news = text.split_inclusive('\n').filter(|line| {
            let words = line.trim_end_matches(['\r', '\n']);
            if !words.trim().is_empty() {
                known = lines.contains(words) || heard.contains(words);
            }
            !known
        });
        news.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: LogStream = LogStream::Stdout;

    #[test]
    fn what_is_said_twice_is_shown_once() {
        let mut echo = Echo::default();
        echo.hold(Timestamp(0), OUT, "raw\nand mo");
        echo.hold(Timestamp(200), OUT, "re\n\n");
        echo.hold(Timestamp(200), LogStream::Stderr, "raw\n");
        echo.hear(StreamName::Stdout, "before raw\nand");
        assert_eq!(echo.due(Some(Timestamp(900))), []);
        echo.hear(StreamName::Stdout, " more\n");
        // The other stream said nothing of it.
        let rest = [(LogStream::Stderr, "raw\n".to_owned())];
        assert_eq!(echo.due(Some(Timestamp(1_200))), rest);
        assert_eq!(echo.due(None), []);
    }

    #[test]
    fn what_no_cell_said_is_shown_in_the_end() {
        let mut echo = Echo::default();
        echo.hear(StreamName::Stdout, "mine\n");
        echo.hold(Timestamp(0), OUT, "a child's\n\nmine\nlast");
        assert_eq!(echo.due(None), [(OUT, "a child's\n\nlast".to_owned())]);
        echo.hear(StreamName::Stdout, &"é".repeat(MEMORY));
        echo.hear(StreamName::Stdout, &"é".repeat(MEMORY));
        assert!(echo.stdout.len() <= 2 * MEMORY + 2);
    }
}
