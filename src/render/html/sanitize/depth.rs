//! Where markup becomes so deep that reading it costs the square of its length. The parser goes through all open
//! elements for most tags, and opens formatting anew in each paragraph until it is closed.
//!
//! No second parser: what is open is never less than what the parser has open, give or take the elements that tables
//! imply. An end tag counts only where it surely ends what was opened last.

/// More open elements are not read.
const MAX_DEPTH: usize = 256;
/// More attributes of one tag are not read: the parser compares each with all.
const MAX_ATTRIBUTES: usize = 256;
/// Formatting that is opened anew, beside half a time for each byte.
const MAX_REOPENED: usize = 64 << 10;

/// Elements that stand in a table and in no cell of it: the parser puts each before the table, and looks for that place.
const MAX_MOVED: usize = 2_000;

/// They hold nothing, in HTML.
const VOID: [&str; 15] = [
    "area", "base", "br", "col", "embed", "hr", "image", "img", "input", "link", "meta", "param",
    "source", "track", "wbr",
];
/// They go on in the next paragraph until they are closed.
const FORMATTING: [&str; 14] = [
    "a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u",
];
/// Their content is text.
const RAW: [&str; 9] = [
    "iframe",
    "noembed",
    "noframes",
    "noscript",
    "plaintext",
    "style",
    "textarea",
    "title",
    "xmp",
];
/// They end where their like begins, or what holds them ends.
const IMPLIED: [&str; 5] = ["dd", "dt", "li", "option", "p"];
/// The same, for tables.
const CELLS: [&str; 6] = ["tbody", "td", "tfoot", "th", "thead", "tr"];
/// What a table has beside them.
const COLUMNS: [&str; 3] = ["caption", "col", "colgroup"];
/// They end with all that is [`IMPLIED`] in them.
const HOLDERS: [&str; 11] = [
    "article",
    "blockquote",
    "center",
    "details",
    "div",
    "dl",
    "li",
    "ol",
    "section",
    "select",
    "ul",
];
/// Pictures and formulas in the markup are made of them; `/>` ends them there.
const DRAWN: [&str; 49] = [
    "annotation",
    "circle",
    "clippath",
    "defs",
    "ellipse",
    "g",
    "image",
    "line",
    "lineargradient",
    "marker",
    "mask",
    "menclose",
    "mfrac",
    "mi",
    "mn",
    "mo",
    "mover",
    "mpadded",
    "mphantom",
    "mroot",
    "mrow",
    "ms",
    "mspace",
    "msqrt",
    "mstyle",
    "msub",
    "msubsup",
    "msup",
    "mtable",
    "mtd",
    "mtext",
    "mtr",
    "munder",
    "munderover",
    "path",
    "pattern",
    "polygon",
    "polyline",
    "radialgradient",
    "rect",
    "semantics",
    "stop",
    "symbol",
    "text",
    "textpath",
    "tspan",
    "use",
    "mmultiscripts",
    "mprescripts",
];
/// Of these, those in which HTML stands.
const WORDS: [&str; 5] = ["mi", "mn", "mo", "ms", "mtext"];

/// Where a text is to be cut. None: all of it may be read.
pub(super) fn cut(text: &str) -> Option<usize> {
    let mut reader = Reader {
        text,
        open: Vec::new(),
        hidden: 0,
        raw: 0,
        closes: [0; 4],
        drawing: false,
        moved: 0,
        doubt: false,
    };
    let (mut reopened, most) = (0, MAX_REOPENED + text.len() / 2);
    for (at, _) in text.match_indices('<') {
        let attributes = reader.read(at);
        reopened += reader.open.last().map_or(0, |last| last.formatting);
        let deep = reader.open.len() > MAX_DEPTH || reader.moved > MAX_MOVED;
        if deep || attributes > MAX_ATTRIBUTES || reopened > most {
            return Some(at);
        }
    }
    None
}

struct Open {
    /// In small letters.
    name: String,
    /// How many up to this one are formatting.
    formatting: usize,
    /// How many up to this one are pictures or formulas, in which HTML's rules do not hold.
    foreign: usize,
    /// Whether it is in a table and in no cell of it.
    loose: bool,
}

struct Reader<'a> {
    text: &'a str,
    open: Vec<Open>,
    /// Up to here end tags may be text: in a comment, an attribute, a script.
    hidden: usize,
    /// Up to here everything is text.
    raw: usize,
    /// By kind of [`MARKS`]: the last one known ends here.
    closes: [usize; 4],
    /// Whether all since the last `<svg>` or `<math>` was [`DRAWN`].
    drawing: bool,
    /// How many were in a table and in no cell.
    moved: usize,
    /// Whether a cell may have ended that is held for open.
    doubt: bool,
}

/// What is no tag, and where it ends.
const MARKS: [(&str, &str); 4] = [("!--", "-->"), ("![CDATA[", "]]>"), ("!", ">"), ("?", ">")];

impl Reader<'_> {
    /// Reads what begins at a `<`; how many attributes it has.
    fn read(&mut self, at: usize) -> usize {
        if at < self.raw {
            return 0;
        }
        let rest = &self.text[at + 1..];
        let seen = at >= self.hidden;
        let letter = |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic());
        let end = rest.strip_prefix('/');
        if !letter(end.unwrap_or(rest)) {
            self.no_tag(at, rest, seen);
            return 0;
        }
        let (name, tag) = name(end.unwrap_or(rest));
        let tag = Tag::read(tag);
        match end {
            None => self.begin(&name, &tag, seen),
            Some(_) if seen => self.close(&name),
            Some(_) => self.doubt |= is_of_table(&name) && self.has_table(),
        }
        self.hide(tag.end);
        tag.attributes
    }

    /// A comment or the like; `</` before no letter begins one, too.
    fn no_tag(&mut self, at: usize, rest: &str, seen: bool) {
        let kind = match rest.starts_with('/') {
            true => Some(3),
            false => MARKS.iter().position(|(begin, _)| rest.starts_with(begin)),
        };
        let Some(kind) = kind else {
            return;
        };
        let drawing = std::mem::take(&mut self.drawing);
        // Where one that began before ends, this one does.
        if at >= self.closes[kind] {
            let end = rest.find(MARKS[kind].1).unwrap_or(rest.len());
            // A comment that hides no tag changes nothing, wherever the parser ends it.
            self.drawing = drawing && seen && kind == 0 && !rest[..end].contains('<');
            self.closes[kind] = at + 1 + end;
            self.hide(&rest[end..]);
        }
    }

    fn begin(&mut self, name: &str, tag: &Tag<'_>, seen: bool) {
        let foreign = self.open.last().map_or(0, |last| last.foreign);
        let html = foreign == 0;
        let loose = self.open.last().is_some_and(|last| last.loose);
        self.moved += usize::from((loose || self.doubt) && (name == "table" || !is_of_table(name)));
        let root = matches!(name, "math" | "svg");
        let words = |last: &Open| WORDS.contains(&last.name.as_str());
        self.drawing &= DRAWN.contains(&name) && !self.open.last().is_some_and(words);
        let alone = self.drawing || (root && seen && html);
        // A table that stands loose in one ends it.
        self.doubt |= loose && name == "table";
        self.doubt |= COLUMNS.contains(&name) && !loose && self.has_table();
        if (VOID.contains(&name) && html) || (alone && tag.closed) {
            return;
        }
        if seen && html {
            self.end_implied(name);
        }
        self.drawing |= root && alone;
        let loose = self.open.last().is_some_and(|last| last.loose);
        let row = CELLS.contains(&name) && !matches!(name, "td" | "th");
        self.doubt |= row && !loose && self.has_table();
        let formatting = self.open.last().map_or(0, |last| last.formatting);
        self.open.push(Open {
            name: name.to_owned(),
            formatting: formatting + usize::from(FORMATTING.contains(&name)),
            foreign: foreign + usize::from(root),
            loose: name == "table" || (loose && !matches!(name, "caption" | "td" | "th")),
        });
        if name == "script" || RAW.contains(&name) {
            self.begin_raw(name, tag.end, seen && html);
        }
    }

    /// Hides what an element has whose content is text. Not everywhere it is: in a `<select>` or a picture it may be
    /// markup, for the parser or by its settings.
    fn begin_raw(&mut self, name: &str, text: &str, surely: bool) {
        let end = end_tag(text, name).unwrap_or(text.len());
        if surely && name != "noscript" && !self.open.iter().any(|one| one.name == "select") {
            self.raw = self.text.len() - text.len() + end;
        }
        // A script that has a comment may end later than it seems.
        let open = name == "plaintext" || (name == "script" && text[..end].contains("<!--"));
        self.hide(if open { "" } else { &text[end..] });
    }

    /// Ends what a start tag ends.
    fn end_implied(&mut self, name: &str) {
        let like: &[&str] = match name {
            "a" => &["a"],
            "dd" | "dt" => &["dd", "dt", "p"],
            "li" => &["li", "p"],
            "option" => &["option"],
            "p" => &["p"],
            "td" | "th" => &["td", "th"],
            "tr" => &["td", "th", "tr"],
            "tbody" | "tfoot" | "thead" => &CELLS,
            _ => return,
        };
        if CELLS.contains(&name) && !self.doubt && self.has_table() {
            // A cell ends with what is in it.
            let mut open = self.open.iter();
            let outer = open.rposition(|one| !IMPLIED.contains(&one.name.as_str()));
            let is_cell = |at: &usize| matches!(self.open[*at].name.as_str(), "td" | "th");
            if let Some(cell) = outer.filter(is_cell) {
                self.open.truncate(cell + 1);
            }
        }
        let ends = |one: &Open| like.contains(&one.name.as_str());
        while self.open.last().is_some_and(ends) {
            self.open.pop();
        }
    }

    /// Ends what an end tag surely ends.
    fn close(&mut self, name: &str) {
        self.drawing &= DRAWN.contains(&name);
        let table = name == "table" || CELLS.contains(&name);
        let holds = table || HOLDERS.contains(&name);
        let passes = |one: &Open| {
            let one = one.name.as_str();
            (table && CELLS.contains(&one)) || (holds && IMPLIED.contains(&one))
        };
        let mut open = self.open.iter();
        let place = open.rposition(|one| one.name == name || !passes(one));
        match place.filter(|place| self.open[*place].name == name) {
            Some(place) => self.open.truncate(place),
            None => self.doubt |= is_of_table(name) && self.has_table(),
        }
    }

    fn has_table(&self) -> bool {
        self.open.iter().any(|one| one.name == "table")
    }

    /// Hides what stands before the rest of the text.
    fn hide(&mut self, rest: &str) {
        self.hidden = self.hidden.max(self.text.len() - rest.len());
    }
}

fn is_of_table(name: &str) -> bool {
    name == "table" || CELLS.contains(&name) || COLUMNS.contains(&name)
}

/// A name in small letters, and what follows it.
fn name(text: &str) -> (String, &str) {
    let end = text.find(|c: char| is_blank(c) || c == '/' || c == '>');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    (name.to_ascii_lowercase(), rest)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}')
}

/// What stands behind a tag's name.
struct Tag<'a> {
    attributes: usize,
    /// Whether it ends with `/>`.
    closed: bool,
    /// The text behind it.
    end: &'a str,
}

impl<'a> Tag<'a> {
    /// As <https://html.spec.whatwg.org/multipage/parsing.html#before-attribute-name-state> reads it.
    fn read(mut rest: &'a str) -> Self {
        let mut attributes = 0;
        loop {
            let next = rest.trim_start_matches(|c| is_blank(c) || c == '/');
            let closed = rest[..rest.len() - next.len()].ends_with('/');
            if next.is_empty() || next.starts_with('>') || attributes > MAX_ATTRIBUTES {
                let end = next.strip_prefix('>').unwrap_or(next);
                return Self {
                    attributes,
                    closed,
                    end,
                };
            }
            attributes += 1;
            // An equals sign may begin a name.
            let first = next.chars().next().map_or(0, char::len_utf8);
            let name = next[first..].find(|c| is_blank(c) || matches!(c, '/' | '>' | '='));
            rest = &next[name.map_or(next.len(), |end| first + end)..];
            if let Some(value) = rest.trim_start_matches(is_blank).strip_prefix('=') {
                rest = past_value(value.trim_start_matches(is_blank));
            }
        }
    }
}

fn past_value(text: &str) -> &str {
    let (text, end) = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => (&text[1..], text[1..].find(quote).map(|end| end + 1)),
        Some(_) | None => (text, text.find(|c| is_blank(c) || c == '>')),
    };
    &text[end.unwrap_or(text.len())..]
}

/// Where the end tag of an element stands whose content is text.
fn end_tag(text: &str, name: &str) -> Option<usize> {
    let ends = |at: &usize| {
        let rest = &text[at + 2..];
        let head = rest.get(..name.len());
        let after = rest.get(name.len()..).and_then(|rest| rest.chars().next());
        head.is_some_and(|head| head.eq_ignore_ascii_case(name))
            && after.is_some_and(|c| is_blank(c) || c == '/' || c == '>')
    };
    let mut found = text.match_indices("</").map(|(at, _)| at);
    found.find(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_counted_whatever_hides_the_end() {
        for piece in [
            "<div>",
            "<DIV x>",
            "<div/>",
            "<svg><path>",
            "<svg><link/>",
            "<svg></svg><path/>",
            "<!-- <svg> --><path/>",
            "<svg/><path/>",
            "<math><mi><mspace/></mi>",
            "<math></math><mspace/>",
            "<math><mtext><mrow><mspace/></mrow>",
            "<svg><!--> </svg> --><path/>",
            "<div><!-- </div> -->",
            "<div><!-- <!-- </div> -->",
            "<div><? </div> ?>",
            "<div></ </div>",
            "<div title=\"</div>\">",
            "<div><p title='</div>'>",
            "<div><i x= \"></i></div>\"></i>",
            "<div><script>'</div>'</script>",
            "<div><script><!--<script></script></div></script>",
            "<div><style></styles></div></style>",
            "<div><svg><style><!-- </style></svg></div> -->",
            "<b><object></b></object>",
            "<b><div></b>",
            "<span><div></span>",
            "<select><xmp><template></xmp>",
            "<svg><style><g></style>",
            "<script><!--<script></script><b></script>",
            "<li><dd>",
            "<svg><td>",
            "<dd><tr><li><tr>",
            "<table><table></table><td><dd><tr><td><li><tr>",
            "<table><tr><td>",
        ] {
            let text = piece.repeat(600);
            assert!(cut(&text).is_some(), "{piece}");
        }
    }

    #[test]
    fn what_people_write_is_read_whole() {
        for piece in [
            "<div><p>a<p>b<br></div>",
            "<ul><li>a<li><p>b</ul>",
            "<dl><dt>a<dd>b</dl>",
            "<table><tr><td>a<td><p>b<tr><th>c</table>",
            "<table><caption>a <b>b</b></caption><colgroup><col></colgroup><tr><td>a<td><p>b <b>c</b><tr><th><i>c</i></table><i>x</i>",
            "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td><b>b</b></td></tr></tbody></table>",
            "<p>a <img src=\"x\"> < b <!-- c --> <a href='#'>d</a></p>",
            "<svg viewBox=\"0 0 1 1\"><g><path d=\"M0\"/><circle r=\"1\" /></g><text>a</text></svg>",
            "<td><svg><!-- END OF HEADER --><rect x='1'/><path d='M0'/><!-- a --><path d='M1'/></svg></td>",
            "<math><mrow><mi>x</mi><mspace width=\"1em\" /><mo>+</mo><mfrac><mn>1</mn><mn/></mfrac></mrow></math>",
            "<style>.a > b { c: d }</style><script>if (a<b) { c(\"</p>\") }</script></b>",
            "<pre><code><span class=\"k\">a</span></code></pre>",
            "<select><option>a<option>b</select><input>",
        ] {
            let text = piece.repeat(2_000);
            assert_eq!(cut(&text), None, "{piece}");
        }
    }

    #[test]
    fn hostile_markup_is_read_in_linear_time() {
        for piece in [
            "<",
            "</a",
            "<a ",
            "</a ",
            "<!--",
            "<![CDATA[",
            "<?",
            "</b x='",
            "<br x=\"",
            "<p></i><p>",
            "<style>",
            "<b id=1><p>",
            "</p<",
        ] {
            let text = piece.repeat((2 << 20) / piece.len());
            assert!(cut(&text).is_none_or(|at| at < text.len()));
        }
        for piece in [
            "<i>x</i>",
            "<br>",
            "<tr><td><b></td>",
            "<td><!--x--!></td> --><i></i>",
            "<tr><td><col><i></i>",
            "<tr><td><span><tr><i></i>",
        ] {
            let text = format!("<table>{}", piece.repeat(5_000));
            assert!(cut(&text).is_some(), "{piece}");
        }
        let wide = format!("<p {}>", "a ".repeat(500));
        assert_eq!(cut(&wide), Some(0));
        let reopened = format!("{}{}", "<b id=1>".repeat(200), "<p>x".repeat(100_000));
        assert!(cut(&reopened).is_some_and(|at| at < 100_000));
    }
}
