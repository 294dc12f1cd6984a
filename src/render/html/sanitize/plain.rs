//! Markup that needs no HTML parser: tables as pandas and Polars write them, and the simplest of Markdown. Of
//! a few elements, well nested, in small letters, every attribute quoted. Whatever is anything else is left to
//! the parser, which reads as browsers do and costs twenty times as much: a table of many megabytes is common.
//!
//! What comes out is made of the names below and of text; no other character of the input opens a tag.

/// Where an element may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    Paragraph,
    Inline,
    Void,
    Table,
    Caption,
    Section,
    Row,
    Cell,
}

/// The elements.
const ELEMENTS: [(&str, Kind); 28] = [
    ("td", Kind::Cell),
    ("th", Kind::Cell),
    ("tr", Kind::Row),
    ("tbody", Kind::Section),
    ("thead", Kind::Section),
    ("tfoot", Kind::Section),
    ("table", Kind::Table),
    ("caption", Kind::Caption),
    ("div", Kind::Block),
    ("blockquote", Kind::Block),
    ("p", Kind::Paragraph),
    ("h1", Kind::Paragraph),
    ("h2", Kind::Paragraph),
    ("h3", Kind::Paragraph),
    ("h4", Kind::Paragraph),
    ("h5", Kind::Paragraph),
    ("h6", Kind::Paragraph),
    ("pre", Kind::Paragraph),
    ("br", Kind::Void),
    ("span", Kind::Inline),
    ("strong", Kind::Inline),
    ("em", Kind::Inline),
    ("small", Kind::Inline),
    ("code", Kind::Inline),
    ("del", Kind::Inline),
    ("sub", Kind::Inline),
    ("sup", Kind::Inline),
    ("i", Kind::Inline),
];

/// Attributes that the parser's rules drop too.
const DROPPED: [&str; 8] = [
    "border",
    "class",
    "data-quarto-table-cell-role",
    "id",
    "scope",
    "style",
    "halign",
    "data-root-id",
];

/// Deeper markup is left to the parser.
const MAX_DEPTH: usize = 32;

/// The sanitised markup, as the parser's rules would give it. None: let them.
pub(super) fn html(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 16);
    let mut open: Vec<(&str, Kind)> = Vec::new();
    let mut rest = text;
    loop {
        let at = rest.find('<');
        let (words, tag) = rest.split_at(at.unwrap_or(rest.len()));
        put_text(&mut out, words, open.last().map(|(_, kind)| *kind))?;
        if tag.is_empty() {
            return open.is_empty().then_some(out);
        }
        rest = match tag.strip_prefix("</") {
            Some(tag) => {
                let (name, _) = open.pop()?;
                out.push_str("</");
                out.push_str(name);
                out.push('>');
                tag.strip_prefix(name)?.strip_prefix('>')?
            }
            None => match tag.strip_prefix("<style") {
                Some(style) => past_style(style, open.last().map(|(_, kind)| *kind))?,
                None => opened(&mut out, &tag[1..], &mut open)?,
            },
        };
    }
}

/// Text, where text may stand. What it says in entities stays as it says it.
fn put_text(out: &mut String, words: &str, parent: Option<Kind>) -> Option<()> {
    let odd = |b: u8| (b < b' ' && b != b'\n' && b != b'\t') || b == 0x7f || b == b'&' || b == b'>';
    let blank = || words.bytes().all(|b| b.is_ascii_whitespace());
    match parent {
        Some(Kind::Table | Kind::Section | Kind::Row) if !blank() => return None,
        Some(_) | None => {}
    }
    if words.contains('\u{a0}') {
        return None; // the rules write it as an entity
    }
    if !words.bytes().any(odd) {
        out.push_str(words);
        return Some(());
    }
    let mut rest = words;
    while let Some(at) = rest.bytes().position(odd) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let entity = ["&lt;", "&gt;", "&amp;"]
            .into_iter()
            .find(|e| rest.starts_with(e))?;
        out.push_str(entity);
        rest = &rest[entity.len()..];
    }
    out.push_str(rest);
    Some(())
}

/// Past a style sheet, which is dropped. Only where an element may stand.
fn past_style(rest: &str, parent: Option<Kind>) -> Option<&str> {
    match parent {
        None | Some(Kind::Block) => {}
        Some(_) => return None,
    }
    let (attributes, sheet) = rest.split_once('>')?;
    let plain = attributes
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b == b' ');
    let end = sheet.find("</")?;
    sheet[end..].strip_prefix("</style>").filter(|_| plain)
}

/// Past an opening tag, the name of which begins `rest`.
fn opened<'a>(out: &mut String, rest: &'a str, open: &mut Vec<(&str, Kind)>) -> Option<&'a str> {
    let length = rest.bytes().position(|b| !b.is_ascii_alphanumeric())?;
    let (name, mut rest) = rest.split_at(length);
    let (name, kind) = ELEMENTS.iter().copied().find(|(known, _)| *known == name)?;
    if open.len() >= MAX_DEPTH || !fits(kind, open.last().map(|(_, kind)| *kind)) {
        return None;
    }
    out.push('<');
    out.push_str(name);
    while let Some(attribute) = rest.strip_prefix(' ') {
        let (key, value) = attribute.split_once("=\"")?;
        let (value, after) = value.split_once('"')?;
        put_attribute(out, kind, key, value)?;
        rest = after;
    }
    out.push('>');
    if kind != Kind::Void {
        open.push((name, kind));
    }
    // A browser drops a line end there.
    rest.strip_prefix('>')
        .filter(|rest| name != "pre" || !rest.starts_with('\n'))
}

fn put_attribute(out: &mut String, kind: Kind, key: &str, value: &str) -> Option<()> {
    let number = || value.len() <= 6 && value.bytes().all(|b| b.is_ascii_digit());
    match (key, kind) {
        ("class", Kind::Table) if value.split_ascii_whitespace().any(|w| w == "dataframe") => {
            out.push_str(" class=\"dataframe\"");
        }
        // Classes of code's colours are the rules' business.
        ("class", Kind::Inline | Kind::Table) => return None,
        ("colspan" | "rowspan", Kind::Cell) if number() => {
            for part in [" ", key, "=\"", value, "\""] {
                out.push_str(part);
            }
        }
        (key, _) if DROPPED.contains(&key) => {}
        _ => return None,
    }
    Some(())
}

/// Whether a browser, too, would let an element stand there.
fn fits(kind: Kind, parent: Option<Kind>) -> bool {
    let wanted: &[Kind] = match parent {
        None | Some(Kind::Block | Kind::Cell) => &[
            Kind::Block,
            Kind::Paragraph,
            Kind::Inline,
            Kind::Void,
            Kind::Table,
        ],
        Some(Kind::Paragraph | Kind::Inline | Kind::Caption) => &[Kind::Inline, Kind::Void],
        Some(Kind::Table) => &[Kind::Section, Kind::Caption],
        Some(Kind::Section) => &[Kind::Row],
        Some(Kind::Row) => &[Kind::Cell],
        Some(Kind::Void) => &[],
    };
    wanted.contains(&kind)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[test]
    fn it_says_what_the_parser_would() {
        let table = "<div>\n<style scoped>\n    .dataframe tbody tr th { a: b > c }\n</style>\n\
            <table border=\"1\" class=\"dataframe\">\n  <caption>Of <em>é</em></caption>\n  <thead>\n    <tr style=\"text-align: right;\">\n      <th></th>\n      \
            <th colspan=\"2\" halign=\"left\">a&lt;b &amp; c &gt; d</th>\n    </tr>\n  </thead>\n  <tbody>\n    <tr>\n      <th>0</th>\n      \
            <td>\"quoted\" 'x'</td>\n      <td rowspan=\"3\"><p>x<br>y</p><div>z</div></td>\n    </tr>\n  </tbody>\n</table>\n<p>5 rows × 2 columns</p>\n</div>";
        for text in [
            table,
            "",
            "words",
            "<h2>T</h2>\n<p>a <strong>b <em>c</em></strong></p>\n<pre>x\n  y</pre>\n",
            "<blockquote>\n<p>a <del>b</del></p>\n</blockquote>",
        ] {
            let plain = html(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(plain, super::super::RULES.clean(text).to_string());
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_parser() {
        for text in [
            "<b>x</b>",
            "<script>x</script>",
            "<P>x</P>",
            "<p >x</p>",
            "<p>x",
            "x</p>",
            "<p>x</div>",
            "<p>x</p >",
            "<p/>",
            "<p x>y</p>",
            "<p x='1'>y</p>",
            "<p onclick=\"x\">y</p>",
            "<p title=\"x\">y</p>",
            "<p style=\"a\"onclick=\"x\">y</p>",
            "<p \"=\"x\">y</p>",
            "<table><tr><td>x</td></tr></table>",
            "<table>x<tbody></tbody></table>",
            "<table><tbody><tr>x</tr></tbody></table>",
            "<td>x</td>",
            "<p><div>x</div></p>",
            "<p><p>x</p></p>",
            "<td colspan=\"1x\">x</td>",
            "a & b",
            "a &nbsp; b",
            "a > b",
            "a\u{0}b",
            "<!-- x -->",
            "<",
            "</",
            "<p",
            "<br",
            "<style>a</style >",
            "<style>a</sty></style>",
            "<style onload=\"x\">a</style>",
            "<style>a",
            "<p><style>a</style></p>",
            "<span class=\"h-k\">x</span>",
            "<svg></svg>",
            "<math></math>",
        ] {
            assert_eq!(html(text), None, "{text}");
        }
        let deep = "<div>".repeat(100) + &"</div>".repeat(100);
        assert_eq!(html(&deep), None);
    }

    /// Markup of the elements above, well nested, wherever they may stand or not.
    fn markup() -> impl Strategy<Value = String> {
        let words = select(vec![
            "x",
            " ",
            "\n",
            "&lt;",
            "<br>",
            "<style>a</style>",
            "&",
        ]);
        let names: Vec<&str> = ELEMENTS.iter().map(|(name, _)| *name).collect();
        words.prop_map(str::to_owned).prop_recursive(5, 40, 5, move |inner| {
            let inner = vec(inner, 0..5).prop_map(|parts| parts.concat());
            prop_oneof![
                (select(names.clone()), inner.clone())
                    .prop_map(|(name, inner)| format!("<{name}>{inner}</{name}>")),
                inner.prop_map(|inner| format!(
                    "<table><thead></thead><tbody><tr><td rowspan=\"2\">{inner}</td><th>{inner}</th></tr></tbody></table>"
                )),
            ]
        })
    }

    proptest! {
        /// What it lets pass the parser's rules let pass unchanged.
        #[test]
        fn the_rules_find_nothing_to_change(text in markup()) {
            if let Some(plain) = html(&text) {
                prop_assert_eq!(super::super::RULES.clean(&plain).to_string(), plain);
            }
        }
    }
}
