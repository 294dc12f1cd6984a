//! What stands to the left of an equals sign in Python: `a`, `a: int`, `a, b`, `(a, *rest)`.

/// Deeper targets are none: no person writes them, and each level is a call.
const MAX_DEPTH: usize = 32;

/// One target of an assignment.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// The names that it assigns; `x.y` and `x[0]` assign none.
    pub(super) names: Vec<&'a str>,
    pub(super) annotation: Option<&'a str>,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    /// So many names, each with a value of its own.
    Flat,
    /// A tuple in a tuple, a star, or something that is no name.
    Deep,
}

impl<'a> Target<'a> {
    /// The first target of a statement, and what follows its equals sign. None: it assigns nothing.
    pub(super) fn read(text: &'a str, annotated: bool) -> Option<(Self, &'a str)> {
        let single = |at: usize| {
            !text[at + 1..].starts_with('=')
                && !text[..at].ends_with(|c| "=!<>:+-*/%&|^@".contains(c))
        };
        let (equals, _) = outside(text).find(|&(at, c)| c == '=' && single(at))?;
        let (mut head, value) = (&text[..equals], text[equals + 1..].trim_start());
        let mut annotation = None;
        if annotated && let Some((colon, _)) = outside(head).find(|&(_, c)| c == ':') {
            annotation = Some(head[colon + 1..].trim());
            head = &head[..colon];
        }
        let mut names = Vec::new();
        let mut shape = collect(head, &mut names, 0)?;
        if annotation.is_some() && (shape != Shape::One || names.is_empty()) {
            return None;
        }
        if shape == Shape::Flat && names.len() != parts(inner(head).unwrap_or(head)).len() {
            shape = Shape::Deep;
        }
        let target = Self {
            names,
            annotation,
            shape,
        };
        Some((target, value))
    }

    /// What each name is given of a value; empty where that cannot be told from the text.
    pub(super) fn share(&self, value: &'a str) -> Vec<&'a str> {
        let values = match self.shape {
            Shape::One => vec![value],
            Shape::Flat => parts(inner(value).unwrap_or(value)),
            Shape::Deep => Vec::new(),
        };
        match values.len() == self.names.len() && !values.iter().any(|one| one.starts_with('*')) {
            true => values,
            false => vec![""; self.names.len()],
        }
    }
}

/// Adds the names of a target; none: it is no target.
fn collect<'a>(text: &'a str, names: &mut Vec<&'a str>, depth: usize) -> Option<Shape> {
    if depth > MAX_DEPTH {
        return None;
    }
    let text = bare(text);
    if outside(text).any(|(_, c)| c == ',') {
        let mut shape = Shape::Flat;
        for part in parts(text) {
            if collect(part, names, depth + 1)? != Shape::One {
                shape = Shape::Deep;
            }
        }
        return Some(shape);
    }
    if let Some(rest) = text.strip_prefix('*') {
        return collect(rest, names, depth + 1).map(|_| Shape::Deep);
    }
    if let Some(inner) = inner(text) {
        return Some(match collect(inner, names, depth + 1)? {
            Shape::One if text.starts_with('[') => Shape::Flat,
            shape => shape,
        });
    }
    let begins = text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    if begins && text.chars().all(letter) {
        names.push(text);
        return Some(Shape::One);
    }
    // `x.y`, `x[0]`, `f(x).y`.
    (begins && outside(text).all(|(_, c)| letter(c) || c == '.')).then_some(Shape::One)
}

/// The parts between commas.
fn parts(text: &str) -> Vec<&str> {
    let mut from = 0;
    let mut found = Vec::new();
    let commas = outside(text).filter(|&(_, c)| c == ',').map(|(at, _)| at);
    for at in commas.chain([text.len()]) {
        found.push(bare(&text[from..at]));
        from = at + 1;
    }
    found.retain(|part| !part.is_empty());
    found
}

/// What is inside of brackets that are around all of it.
fn inner(text: &str) -> Option<&str> {
    let text = bare(text);
    let within = |open, close| text.strip_prefix(open)?.strip_suffix(close);
    let inner = within('(', ')').or_else(|| within('[', ']'))?;
    outside(text).next().is_none().then_some(inner)
}

/// Without the blanks and the line ends around it.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\\')
}

/// The characters that are in no brackets and no string.
fn outside(text: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut at, mut depth) = (0, 0_usize);
    std::iter::from_fn(move || {
        loop {
            let here = at;
            let c = text[here..].chars().next()?;
            at += match c {
                '"' | '\'' => string(&text[here..], c),
                _ => c.len_utf8(),
            };
            match c {
                '"' | '\'' => {}
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                _ if depth == 0 => return Some((here, c)),
                _ => {}
            }
        }
    })
}

/// Bytes of the string that a text begins with.
fn string(text: &str, quote: char) -> usize {
    let triple = [quote; 3].iter().collect::<String>();
    let mark = match text.starts_with(&triple) {
        true => triple.as_str(),
        false => &triple[..1],
    };
    let mut chars = text.char_indices().skip(mark.len());
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if text[at..].starts_with(mark) {
            return at + mark.len();
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of all targets, each with its share of the value.
    fn assigned(text: &str) -> Vec<(&str, &str)> {
        let (mut targets, mut rest) = (Vec::new(), text);
        while let Some((target, value)) = Target::read(rest, targets.is_empty()) {
            targets.push(target);
            rest = value;
        }
        let each = targets
            .iter()
            .flat_map(|target| target.names.iter().copied().zip(target.share(rest)));
        each.collect()
    }

    #[test]
    fn tuples_assign_each_of_their_names() {
        assert_eq!(assigned("a, b = 1, 2"), [("a", "1"), ("b", "2")]);
        assert_eq!(
            assigned("(a, b) = [1, (2, 3)]"),
            [("a", "1"), ("b", "(2, 3)")]
        );
        assert_eq!(assigned("[a] = 'x',"), [("a", "'x'")]);
        assert_eq!(assigned("a, \\\n  b = f(x, y)"), [("a", ""), ("b", "")]);
        assert_eq!(assigned("a, *b = 1, 2, 3"), [("a", ""), ("b", "")]);
        assert_eq!(
            assigned("a, (b, c) = 1, (2, 3)"),
            [("a", ""), ("b", ""), ("c", "")]
        );
        assert_eq!(assigned("a, d[\"k,\"], e.f = 1, 2, 3"), [("a", "")]);
        assert_eq!(assigned("a, b = *x, y"), [("a", ""), ("b", "")]);
    }

    #[test]
    fn chains_and_annotations_assign() {
        assert_eq!(assigned("a = b = 1"), [("a", "1"), ("b", "1")]);
        assert_eq!(
            assigned("p = a, b = 1, 2"),
            [("p", "1, 2"), ("a", "1"), ("b", "2")]
        );
        assert_eq!(assigned("a: Annotated[int, Field(gt=0)] = 3"), [("a", "3")]);
        assert_eq!(
            assigned("(a) = '''x = \\'''1'''"),
            [("a", "'''x = \\'''1'''")]
        );
    }

    #[test]
    fn what_is_no_target_assigns_nothing() {
        for text in [
            "a == 1",
            "a <= 1",
            "a += 1",
            "a.b = 1",
            "a[0] = 1",
            "f(x=1)",
            "if a: b = 1",
            "'a' = 1",
            "for a, b in c: d = 1",
            "print(a); b = 1",
            "a",
            "1 = 2",
            "a, b: int = 1, 2",
            "",
            &format!("{}a = 1", "*".repeat(20_000)),
            &format!("{}a{} = 1", "(".repeat(20_000), ")".repeat(20_000)),
        ] {
            assert!(assigned(text).is_empty(), "{text}: {:?}", assigned(text));
        }
        assert_eq!(assigned("f = lambda x=1: x"), [("f", "lambda x=1: x")]);
        assert_eq!(
            assigned("f = a if b == c else d"),
            [("f", "a if b == c else d")]
        );
    }
}
