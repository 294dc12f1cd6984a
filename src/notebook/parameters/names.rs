//! What the cell tagged `parameters` assigns: names, defaults, types and help. Python only; what stands at
//! the left margin.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::PARAMETERS;
use super::kinds::{Kind, Type};
use super::targets::Target;
use crate::model::{Cell, Notebook};

/// A longer cell is not looked at, in bytes: a commit of anybody is read, and no person writes so many parameters.
const MAX_SOURCE: usize = 64 << 10;
/// A cell with more parameters is not looked at.
const MOST_PARAMETERS: usize = 1_000;
/// A longer default, and a longer type, is not kept, in bytes.
const MAX_TEXT: usize = 4 << 10;
/// More of a comment is not kept, in bytes.
const MAX_HELP: usize = 1 << 10;

/// A parameter that a notebook offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its default as the cell has it, without comments. Empty where a tuple is assigned and the text does not tell
    /// what each name gets, and where it is longer than 4 KiB.
    pub default: String,
    /// Its type: annotated, else from a comment `# type: X`, else what the default is. None: not known.
    pub type_name: Option<String>,
    /// What is written after it: the comment on its last line, without a type.
    pub help: String,
    /// Line of the cell's source where it is assigned, from 1.
    pub line: usize,
}

impl Parameter {
    /// Why a value does not fit: `a text, where the notebook has an int`. None where it does, or the type says
    /// nothing about values.
    #[must_use]
    pub fn mismatch(&self, value: &serde_json::Value) -> Option<String> {
        let wanted = Type::of(self.type_name.as_deref()?)?;
        let given = Kind::of(value);
        let fits = wanted.takes(given) || (given == Kind::None && self.default == "None");
        let (given, wanted) = (given.words(), self.type_name.as_deref()?);
        (!fits).then(|| format!("{given}, where the notebook has '{wanted}'"))
    }
}

/// The cell with the defaults: the first that is tagged `parameters`.
#[must_use]
pub fn defaults(notebook: &Notebook) -> Option<(usize, &Cell)> {
    let mut cells = notebook.code_cells();
    cells.find(|(_, cell)| cell.has_tag(PARAMETERS))
}

/// Names that the first cell tagged `parameters` assigns, in order. None where there is no such cell or
/// its language is not Python, and where the cell is longer than 64 KiB or assigns more than 1,000. Assignments under `if`, by `for`, by `with` or by `import` are not seen.
#[must_use]
pub fn names(notebook: &Notebook) -> Option<Vec<String>> {
    let found = offered(notebook)?.into_iter();
    Some(found.map(|parameter| parameter.name).collect())
}

/// The parameters that the first cell tagged `parameters` assigns, in the order of their first mention, as they
/// are last assigned. None as for [`names`].
#[must_use]
pub fn offered(notebook: &Notebook) -> Option<Vec<Parameter>> {
    if notebook.language()? != "python" {
        return None;
    }
    let (_, cell) = defaults(notebook)?;
    if cell.source.len() > MAX_SOURCE {
        return None;
    }
    let mut all: Vec<Parameter> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for statement in statements(&cell.source) {
        for parameter in parameters(&statement)? {
            match places.entry(parameter.name.clone()) {
                Entry::Occupied(place) => all[*place.get()] = parameter,
                Entry::Vacant(place) => {
                    place.insert(all.len());
                    all.push(parameter);
                }
            }
        }
        if all.len() > MOST_PARAMETERS {
            return None;
        }
    }
    Some(all)
}

/// What a statement assigns: the targets of `a = b = 1`, `a: int = 1` or `a, b = 1, 2`. None: too many to be looked at.
fn parameters(statement: &Statement) -> Option<Vec<Parameter>> {
    let mut targets: Vec<Target<'_>> = Vec::new();
    let mut names = 0;
    let mut rest = statement.code.as_str();
    while let Some((target, value)) = Target::read(rest, targets.is_empty()) {
        names += target.names.len();
        targets.push(target);
        rest = value;
        if names.max(targets.len()) > MOST_PARAMETERS {
            return None;
        }
    }
    let (comment, help) = typed(&statement.comment);
    let help = &help[..help.floor_char_boundary(MAX_HELP)];
    let value = rest.trim_end_matches([' ', '\t', ';']);
    let short = |text: &&str| text.len() <= MAX_TEXT;
    let mut found = Vec::new();
    for target in &targets {
        let annotation = target.annotation.map(|text| text.trim_matches(['"', '\'']));
        for (name, default) in target.names.iter().zip(target.share(value)) {
            let literal = || Type::of_literal(default).map(str::to_owned);
            // What is said of a tuple is not said of its parts.
            let said = annotation.or(comment.filter(|_| default == value));
            let said = said.filter(short);
            found.push(Parameter {
                name: (*name).to_owned(),
                default: Some(default).filter(short).unwrap_or_default().to_owned(),
                type_name: said.map(str::to_owned).or_else(literal),
                help: help.to_owned(),
                line: statement.line,
            });
        }
    }
    Some(found)
}

/// The type and the rest of a comment `type: int  how many`, as papermill reads it.
fn typed(comment: &str) -> (Option<&str>, &str) {
    let Some(rest) = comment.strip_prefix("type:") else {
        return (None, comment);
    };
    let rest = rest.trim_start();
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (name, help) = rest.split_at(end);
    ((!name.is_empty()).then_some(name), help.trim_start())
}

/// A statement that begins at the left margin.
struct Statement {
    /// Its lines without comments.
    code: String,
    /// The comment on its last line that has code, without `#`.
    comment: String,
    line: usize,
}

/// The statements at the left margin. What continues a bracket or a string belongs to its statement; what
/// is indented belongs to none.
fn statements(source: &str) -> Vec<Statement> {
    let mut found: Vec<Statement> = Vec::new();
    let mut state = State::default();
    let mut ours = false;
    for (index, line) in source.lines().enumerate() {
        let begins = state.is_between();
        if begins {
            ours = line.starts_with(|c: char| c.is_alphabetic() || "_([*".contains(c));
            if ours {
                found.push(Statement {
                    code: String::new(),
                    comment: String::new(),
                    line: index + 1,
                });
            }
        }
        let comment = state.read(line);
        if let Some(statement) = found.last_mut().filter(|_| ours) {
            let (code, comment) = line.split_at(comment.unwrap_or(line.len()));
            if !begins {
                statement.code.push('\n');
            }
            statement.code.push_str(code.trim_end());
            let comment = comment.trim_start_matches('#').trim();
            comment.clone_into(&mut statement.comment);
        }
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

    /// Reads a line; where its comment begins.
    fn read(&mut self, line: &str) -> Option<usize> {
        self.joined = false;
        let mut single: Option<char> = None;
        let mut chars = line.char_indices().peekable();
        let mut run = 0; // quotes of one kind in a row
        let mut last = ' ';
        while let Some((at, c)) = chars.next() {
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
                    if run == 2 && chars.peek().is_some_and(|(_, next)| *next == quote) {
                        chars.next();
                        self.triple = Some(quote);
                        last = ' ';
                    }
                }
                (None, Some(_)) => {}
                (None, None) => match c {
                    '#' => return Some(at),
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
        None
    }
}
