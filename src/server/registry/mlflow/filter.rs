//! The language of searches: conditions that are all to hold, `metrics.loss < 0.5 AND tags.kind = 'a'`, and the terms of an
//! order, `metrics.loss DESC`. It is read into values here and never becomes part of a statement. Pure.

use super::check::quoted;
use super::{Answer, Fault};
use crate::store::search::Op;

/// Longest filter.
const LONGEST: usize = 20_000;
/// Most conditions of a filter, and most values of a list.
const MOST: usize = 200;

/// What a condition or an order is about: `metrics.loss`, or `name` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// What stands before the first dot.
    pub(super) kind: Option<String>,
    /// What stands behind it.
    pub(super) key: String,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    /// `= 'text'` and its kin.
    Text(Op, String),
    /// `= 1` and its kin; the number as it stood there.
    Number(Op, String),
    /// `LIKE 'pattern'`; with `ILIKE` case does not matter.
    Like {
        /// The pattern.
        pattern: String,
        /// Whether `a` is like `A`.
        any_case: bool,
    },
    /// `IN ('a', 'b')`
    OneOf {
        /// The values.
        list: Vec<String>,
        /// `NOT IN`
        not: bool,
    },
    /// `IS NOT NULL`, or `IS NULL`
    There(bool),
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clause {
    /// Where it stands: the number of its first character.
    pub(super) at: usize,
    /// What it is about.
    pub(super) name: Name,
    /// What is asked.
    pub(super) asked: Asked,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A bare word; dots belong to it.
    Word(String),
    /// In backticks.
    Name(String),
    /// In single or double quotes.
    Text(String, char),
    Number(String),
    Op(Op),
    Dot,
    Open,
    Close,
    Comma,
}

/// Reads text into tokens, each with the number of its first character.
fn tokens(text: &str) -> Answer<Vec<(usize, Token)>> {
    let wrong = |what: &str, at: usize| {
        Fault::invalid(format!(
            "{what} at character {} of {}",
            at + 1,
            quoted(text)
        ))
    };
    if text.len() > LONGEST {
        return Err(Fault::invalid(format!(
            "a filter has at most {LONGEST} bytes"
        )));
    }
    if text.contains('\0') {
        return Err(Fault::invalid("a filter has no NUL character"));
    }
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied();
        let (token, length) = match c {
            ' ' | '\t' | '\n' | '\r' => {
                at += 1;
                continue;
            }
            '`' | '\'' | '"' => {
                let (inside, length) =
                    quoted_text(&chars[at..]).ok_or_else(|| wrong("a quote is not closed", at))?;
                let token = match c {
                    '`' => Token::Name(inside),
                    quote => Token::Text(inside, quote),
                };
                (token, length)
            }
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '.' if !next.is_some_and(|c| c.is_ascii_digit()) => (Token::Dot, 1),
            '=' => (
                Token::Op(Op::Equal),
                if next == Some('=') {
                    return Err(wrong("'==' (it is '=')", at));
                } else {
                    1
                },
            ),
            '!' if next == Some('=') => (Token::Op(Op::NotEqual), 2),
            '<' if next == Some('=') => (Token::Op(Op::LessOrEqual), 2),
            '>' if next == Some('=') => (Token::Op(Op::GreaterOrEqual), 2),
            '<' if next == Some('>') => return Err(wrong("'<>' (it is '!=')", at)),
            '<' => (Token::Op(Op::Less), 1),
            '>' => (Token::Op(Op::Greater), 1),
            c if c.is_ascii_digit()
                || ((c == '-' || c == '.') && next.is_some_and(starts_number)) =>
            {
                let length = number_length(&chars[at..]);
                (
                    Token::Number(chars[at..at + length].iter().collect()),
                    length,
                )
            }
            c if is_word(c) => {
                let length = chars[at..]
                    .iter()
                    .take_while(|c| is_word(**c) || **c == '.')
                    .count();
                (Token::Word(chars[at..at + length].iter().collect()), length)
            }
            other => {
                let what = format!("'{}' is not understood", other.escape_debug());
                return Err(wrong(&what, at));
            }
        };
        tokens.push((at + 1, token));
        at += length;
    }
    Ok(tokens)
}

fn starts_number(c: char) -> bool {
    c.is_ascii_digit() || c == '.'
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '/'
}

/// `-1`, `1.5`, `1e-5`: how long the number is that begins here.
fn number_length(chars: &[char]) -> usize {
    let mut length = 0;
    for (at, c) in chars.iter().enumerate() {
        let sign = matches!(c, '-' | '+');
        let exponent = at > 0 && matches!(chars[at - 1], 'e' | 'E');
        if c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E') || (sign && (at == 0 || exponent)) {
            length = at + 1;
        } else {
            break;
        }
    }
    length
}

/// What stands between quotes; a doubled quote, or one behind a backslash, does not end it, and stays as it stands there.
fn quoted_text(chars: &[char]) -> Option<(String, usize)> {
    let quote = chars[0];
    let mut at = 1;
    let mut inside = String::new();
    while at < chars.len() {
        let c = chars[at];
        let escaped =
            quote != '`' && (c == '\\' || c == quote) && chars.get(at + 1) == Some(&quote);
        // A backslash that is the text's last character ends nothing away.
        let closes_there = c == '\\' && !chars[at + 1..].iter().skip(1).any(|c| *c == quote);
        if escaped && !closes_there {
            inside.push(c);
            inside.push(quote);
            at += 2;
        } else if c == quote {
            return Some((inside, at + 1));
        } else {
            inside.push(c);
            at += 1;
        }
    }
    None
}

/// Reads tokens one after the other.
struct Reader<'a> {
    text: &'a str,
    tokens: std::iter::Peekable<std::vec::IntoIter<(usize, Token)>>,
    /// Where the token stands that was looked at last.
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Answer<Self> {
        Ok(Self {
            text,
            tokens: tokens(text)?.into_iter().peekable(),
            at: 1,
        })
    }

    /// Notes where the next token stands, or the end.
    fn look(&mut self) {
        let end = || self.text.chars().count() + 1;
        self.at = self.tokens.peek().map(|(at, _)| *at).unwrap_or_else(end);
    }

    fn next(&mut self) -> Option<Token> {
        self.look();
        self.tokens.next().map(|(_, token)| token)
    }

    /// Takes the next token where it is such a one.
    fn take(&mut self, is: impl Fn(&Token) -> bool) -> bool {
        self.look();
        self.tokens.next_if(|(_, token)| is(token)).is_some()
    }

    fn wrong(&self, wanted: &str) -> Fault {
        Fault::invalid(format!(
            "{} cannot be read at character {}: {wanted}; a filter is a list of comparisons such as metrics.loss < 0.5, \
             joined by AND",
            quoted(self.text),
            self.at
        ))
    }

    fn is_done(&mut self) -> bool {
        self.tokens.peek().is_none()
    }

    /// Takes a word, whatever its case.
    fn take_word(&mut self, word: &str) -> bool {
        self.take(|token| matches!(token, Token::Word(found) if found.eq_ignore_ascii_case(word)))
    }

    /// `kind.key`, either of them in quotes, or `key` alone.
    fn name(&mut self) -> Answer<Name> {
        let first = match self.next() {
            Some(Token::Word(word)) => match word.split_once('.') {
                Some((kind, "")) => {
                    let key = self.key()?;
                    return Ok(Name {
                        kind: Some(kind.to_owned()),
                        key,
                    });
                }
                Some((kind, key)) => {
                    return Ok(Name {
                        kind: Some(kind.to_owned()),
                        key: key.to_owned(),
                    });
                }
                None => word,
            },
            Some(Token::Name(name) | Token::Text(name, '"')) => name,
            _ => return Err(self.wrong("a name is wanted first")),
        };
        if !self.take(|token| *token == Token::Dot) {
            return Ok(Name {
                kind: None,
                key: first,
            });
        }
        Ok(Name {
            kind: Some(first),
            key: self.key()?,
        })
    }

    /// The key behind the dot.
    fn key(&mut self) -> Answer<String> {
        match self.next() {
            Some(Token::Word(key) | Token::Name(key) | Token::Text(key, '"' | '\'')) => Ok(key),
            _ => Err(self.wrong("a key is wanted behind the dot")),
        }
    }

    fn text(&mut self) -> Answer<String> {
        match self.next() {
            Some(Token::Text(text, _)) => Ok(text),
            _ => Err(self.wrong("a text in quotes is wanted")),
        }
    }

    fn list(&mut self) -> Answer<Vec<String>> {
        if self.next() != Some(Token::Open) {
            return Err(self.wrong("a list in parentheses is wanted"));
        }
        let mut list = vec![self.text()?];
        loop {
            match self.next() {
                Some(Token::Close) => return Ok(list),
                Some(Token::Comma) if self.take(|token| *token == Token::Close) => {
                    return Ok(list);
                }
                Some(Token::Comma) if list.len() < MOST => list.push(self.text()?),
                _ => return Err(self.wrong("a list has texts, commas between them, and an end")),
            }
        }
    }

    fn asked(&mut self) -> Answer<Asked> {
        if self.take_word("like") {
            let pattern = self.text()?;
            return Ok(Asked::Like {
                pattern,
                any_case: false,
            });
        }
        if self.take_word("ilike") {
            let pattern = self.text()?;
            return Ok(Asked::Like {
                pattern,
                any_case: true,
            });
        }
        if self.take_word("in") {
            let list = self.list()?;
            return Ok(Asked::OneOf { list, not: false });
        }
        if self.take_word("not") {
            if !self.take_word("in") {
                return Err(self.wrong("NOT is followed by IN"));
            }
            let list = self.list()?;
            return Ok(Asked::OneOf { list, not: true });
        }
        if self.take_word("is") {
            let there = self.take_word("not");
            return if self.take_word("null") {
                Ok(Asked::There(there))
            } else {
                Err(self.wrong("IS is followed by NULL or NOT NULL"))
            };
        }
        let Some(Token::Op(op)) = self.next() else {
            return Err(self.wrong("a comparison is wanted behind the name"));
        };
        match self.next() {
            Some(Token::Text(text, _)) => Ok(Asked::Text(op, text)),
            Some(Token::Number(number)) => Ok(Asked::Number(op, number)),
            _ => Err(self.wrong("a number, or a text in quotes, is wanted behind the comparison")),
        }
    }
}

/// Reads a filter; an empty one has no conditions.
pub(super) fn filter(text: &str) -> Answer<Vec<Clause>> {
    let mut reader = Reader::new(text)?;
    let mut clauses = Vec::new();
    while !reader.is_done() {
        if !clauses.is_empty() && !reader.take_word("and") {
            return Err(reader.wrong("AND is wanted between comparisons, and there is no OR"));
        }
        if clauses.len() == MOST {
            return Err(reader.wrong("there are too many comparisons"));
        }
        reader.look();
        let at = reader.at;
        let name = reader.name()?;
        let asked = reader.asked()?;
        clauses.push(Clause { at, name, asked });
    }
    Ok(clauses)
}

/// Reads a term of an order; true: from the highest.
pub(super) fn order(text: &str) -> Answer<(Name, bool)> {
    let mut reader = Reader::new(text)?;
    let name = reader.name()?;
    let descending = if reader.take_word("desc") {
        true
    } else {
        reader.take_word("asc");
        false
    };
    if !reader.is_done() {
        return Err(Fault::invalid(format!(
            "{} is no order: it is a name, and perhaps ASC or DESC",
            quoted(text)
        )));
    }
    Ok((name, descending))
}

#[cfg(test)]
mod tests;
