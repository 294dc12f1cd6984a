//! Which names the cell tagged `parameters` assigns. Python only; what stands at the left margin.

use super::PARAMETERS;
use crate::model::Notebook;

/// Names that the first cell tagged `parameters` assigns, in order. None where there is no such cell or
/// its language is not Python. Assignments under `if`, by `for`, to tuples or by `import` are not seen.
#[must_use]
pub fn names(notebook: &Notebook) -> Option<Vec<String>> {
    if notebook.language()? != "python" {
        return None;
    }
    let cell = notebook
        .cells
        .iter()
        .find(|cell| cell.is_code() && cell.has_tag(PARAMETERS))?;
    let mut names: Vec<String> = Vec::new();
    for line in logical_lines(&cell.source) {
        for name in targets(line) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    Some(names)
}

/// The targets of `a = b = 1` or `a: int = 1`.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    loop {
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return found;
        }
        let mut after = after.trim_start();
        if after.starts_with(':')
            && found.is_empty()
            && let Some(equals) = after.find('=')
        {
            after = &after[equals..];
        }
        match after.strip_prefix('=') {
            Some(value) if !value.starts_with('=') => {
                found.push(name);
                rest = value.trim_start();
            }
            _ => return found,
        }
    }
}

/// First physical lines of statements at the left margin: what continues a bracket or a string in
/// triple quotes is passed over.
fn logical_lines(source: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut state = State::default();
    for line in source.lines() {
        if state.is_between() && line.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            found.push(line);
        }
        state.read(line);
    }
    found
}

/// Where a line ends: in brackets, in a triple quote, after a backslash.
#[derive(Default)]
struct State {
    depth: usize,
    triple: Option<char>,
    joined: bool,
}

impl State {
    fn is_between(&self) -> bool {
        self.depth == 0 && self.triple.is_none() && !self.joined
    }

    fn read(&mut self, line: &str) {
        self.joined = false;
        let mut single: Option<char> = None;
        let mut chars = line.chars().peekable();
        let mut run = 0; // quotes of one kind in a row
        let mut last = ' ';
        while let Some(c) = chars.next() {
            run = if c == last && (c == '"' || c == '\'') {
                run + 1
            } else {
                1
            };
            last = c;
            match (self.triple, single) {
                (Some(_), _) | (None, Some(_)) if c == '\\' => {
                    chars.next();
                    last = ' ';
                }
                (Some(quote), _) if c == quote && run == 3 => {
                    self.triple = None;
                    last = ' ';
                }
                (Some(_), _) => {}
                (None, Some(quote)) if c == quote => {
                    single = None;
                    // An empty string, or the beginning of a triple quote.
                    if run == 2 && chars.peek() == Some(&quote) {
                        chars.next();
                        self.triple = Some(quote);
                        last = ' ';
                    }
                }
                (None, Some(_)) => {}
                (None, None) => match c {
                    '#' => return,
                    '"' | '\'' => {
                        single = Some(c);
                        run = 1;
                    }
                    '(' | '[' | '{' => self.depth += 1,
                    ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
                    '\\' => self.joined = chars.peek().is_none(),
                    _ => {}
                },
            }
        }
    }
}
