//! Foreign markup made harmless: a list of what may stay; everything else goes. Nothing is loaded from
//! elsewhere, so that reading a notebook tells nobody.

mod depth;
mod plain;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use super::{escape, highlight};
use crate::text::straight;

static RULES: LazyLock<ammonia::Builder<'static>> = LazyLock::new(rules);

/// Sanitised HTML. From where it is too deep to be read it is shown as it was written.
pub(super) fn html(text: &str) -> String {
    let clean = plain::html(text).unwrap_or_else(|| match depth::cut(text) {
        None => RULES.clean(text).to_string(),
        Some(at) => {
            let (read, rest) = text.split_at(at);
            format!("{}<pre>{}</pre>", RULES.clean(read), escape(rest))
        }
    });
    // Afterwards: markup may name characters by their numbers.
    let mut clean = match straight(&clean) {
        Cow::Borrowed(_) => clean,
        Cow::Owned(straight) => straight,
    };
    if !clean.ends_with('\n') {
        clean.push('\n');
    }
    clean
}

/// An image as a data URI; None where it is none, or its text is no base64.
pub(crate) fn image_uri(mime: &str, data: &str) -> Option<String> {
    use base64::Engine as _;
    if mime == "image/svg+xml" {
        let encoded = base64::engine::general_purpose::STANDARD.encode(data);
        return Some(format!("data:image/svg+xml;base64,{encoded}"));
    }
    IMAGES.contains(&mime).then(|| data_uri(mime, data))?
}

/// Base64 as a data URI; None where it is none.
pub(super) fn data_uri(mime: &str, data: &str) -> Option<String> {
    /// 1 for base64, 2 for blank space between its lines, 4 for anything else.
    const SORTS: [u8; 256] = {
        let mut sorts = [4; 256];
        let mut byte = 0;
        while byte < 256 {
            let b = byte as u8;
            if b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=') {
                sorts[byte] = 1;
            } else if b.is_ascii_whitespace() {
                sorts[byte] = 2;
            }
            byte += 1;
        }
        sorts
    };
    let sorts = data.bytes().fold(0, |all, byte| all | SORTS[byte as usize]);
    let mut uri = String::with_capacity(data.len() + 40);
    for part in ["data:", mime, ";base64,"] {
        uri.push_str(part);
    }
    match sorts {
        1 => uri.push_str(data),
        3 => data
            .split_ascii_whitespace()
            .for_each(|line| uri.push_str(line)),
        _ => return None,
    }
    Some(uri)
}

/// Images that are shown. In an `<img>` an SVG runs nothing and loads nothing.
pub(crate) const IMAGES: [&str; 5] = [
    "image/svg+xml",
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
];

fn rules() -> ammonia::Builder<'static> {
    let mut rules = ammonia::Builder::default();
    rules
        .add_tags(["tfoot"])
        .rm_tags(["map", "area"])
        .add_clean_content_tags(["title", "textarea", "noscript", "template"])
        .add_tag_attributes("details", ["open"])
        .add_allowed_classes("table", ["dataframe"])
        .add_allowed_classes("span", highlight::CLASSES)
        .add_allowed_classes("code", ["nb-tex"])
        .add_tag_attributes("code", ["title"])
        .add_tag_attributes("a", ["id"])
        .add_tag_attributes("li", ["id"])
        .url_schemes(HashSet::from(["http", "https", "mailto", "data"]))
        .attribute_filter(|element, attribute, value| {
            let keep = match attribute {
                "href" => element == "a" && is_link(value),
                "src" => is_image(value),
                "cite" => false,
                // Footnotes and the places that refer to them; no other anchor of the page looks like that.
                "id" => value.starts_with("fn-") || value.starts_with("fnref-"),
                _ => true,
            };
            keep.then_some(Cow::Borrowed(value))
        });
    add_mathml(&mut rules);
    rules
}

/// What formulas are made of, and nothing more: no links, no scripts' `maction`, no markup of other kinds within.
fn add_mathml(rules: &mut ammonia::Builder<'static>) {
    const ELEMENTS: [&str; 19] = [
        "math",
        "mfrac",
        "mi",
        "mn",
        "mo",
        "mover",
        "mroot",
        "mrow",
        "mspace",
        "msqrt",
        "msub",
        "msubsup",
        "msup",
        "mtable",
        "mtd",
        "mtext",
        "mtr",
        "munder",
        "munderover",
    ];
    rules.add_tags(ELEMENTS);
    for element in ELEMENTS {
        rules.add_tag_attributes(element, ["displaystyle", "scriptlevel", "mathcolor"]);
    }
    rules
        .add_tag_attributes("math", ["display"])
        .add_tag_attributes("mfrac", ["linethickness"])
        .add_tag_attributes("mi", ["mathvariant"])
        .add_tag_attributes(
            "mo",
            [
                "stretchy",
                "symmetric",
                "largeop",
                "movablelimits",
                "maxsize",
                "minsize",
            ],
        )
        .add_tag_attributes("mspace", ["width", "height", "depth"])
        .add_allowed_classes("mtable", TABLE_CLASSES)
        .add_allowed_classes("mtr", ["menv-hline", "menv-hdashline"])
        .add_allowed_classes("mtd", CELL_CLASSES);
}

/// Classes of the formulas' tables; the style sheet knows them.
const TABLE_CLASSES: [&str; 7] = [
    "menv-alignlike",
    "menv-align",
    "menv-arraylike",
    "menv-cases",
    "menv-cells-left",
    "menv-cells-right",
    "menv-multline",
];

/// Classes of those tables' cells.
const CELL_CLASSES: [&str; 5] = [
    "cell-left",
    "cell-right",
    "menv-left-solid",
    "menv-right-solid",
    "menv-border-only",
];

fn is_link(url: &str) -> bool {
    let url = url.trim_start().to_ascii_lowercase();
    let schemes = ["https://", "http://", "mailto:"];
    url.starts_with('#') || schemes.iter().any(|scheme| url.starts_with(scheme))
}

fn is_image(url: &str) -> bool {
    IMAGES.iter().any(|mime| {
        url.strip_prefix("data:")
            .and_then(|url| url.strip_prefix(mime))
            .is_some_and(|url| url.starts_with(";base64,"))
    })
}
