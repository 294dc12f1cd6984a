//! A text that grows by whole lines and never beyond its room.

/// Markdown of at most so many bytes.
#[derive(Debug)]
pub(super) struct Text {
    out: String,
    most: usize,
}

impl Text {
    pub(super) fn new(most: usize) -> Self {
        Self {
            out: String::new(),
            most,
        }
    }

    /// Bytes that are left.
    pub(super) fn room(&self) -> usize {
        self.most.saturating_sub(self.out.len())
    }

    /// A line, or several; left out where there is no room for all of it.
    pub(super) fn put(&mut self, lines: &str) -> bool {
        let fits = lines.len() < self.room();
        if fits {
            self.out.push_str(lines);
            self.out.push('\n');
        }
        fits
    }

    /// A blank line, unless there is one.
    pub(super) fn gap(&mut self) {
        if !self.out.ends_with("\n\n") {
            self.put("");
        }
    }

    /// The first of these lines that fit into `room` bytes, and what `rest` says of the others.
    pub(super) fn put_list(
        &mut self,
        lines: &[String],
        room: usize,
        rest: impl Fn(usize) -> String,
    ) {
        let end = rest(lines.len());
        let mut left = room.min(self.room()).saturating_sub(end.len() + 1);
        let mut put = 0;
        for line in lines {
            if line.len() >= left || !self.put(line) {
                break;
            }
            left -= line.len() + 1;
            put += 1;
        }
        if put < lines.len() {
            self.put(&rest(lines.len() - put));
        }
    }

    pub(super) fn finish(self) -> String {
        self.out.trim_end().to_owned() + "\n"
    }
}
