//! Foreign markup made harmless: a list of what may stay; everything else goes. Nothing is loaded from
//! elsewhere, so that reading a notebook tells nobody.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use serde_json::Value;

/// Markdown as sanitised HTML; `attachments` is the cell's field of that name.
pub(super) fn markdown(text: &str, attachments: Option<&Value>) -> String {
    let mut options = comrak::Options::default();
    options.extension.table = true;
    options.extension.strikethrough = true;
    options.extension.autolink = true;
    options.extension.footnotes = true;
    options.extension.math_dollars = true;
    options.render.r#unsafe = true; // what is made here is sanitised below, raw HTML included
    let images = attachments.map(images).unwrap_or_default();
    options.extension.image_url_rewriter = Some(Arc::new(move |url: &str| {
        let name = url.strip_prefix("attachment:");
        let found = name.and_then(|name| images.get(name));
        found.cloned().unwrap_or_else(|| url.to_owned())
    }));
    html(&comrak::markdown_to_html(text, &options))
}

/// Sanitised HTML.
pub(super) fn html(text: &str) -> String {
    static RULES: LazyLock<ammonia::Builder<'static>> = LazyLock::new(rules);
    let mut clean = RULES.clean(text).to_string();
    if !clean.ends_with('\n') {
        clean.push('\n');
    }
    clean
}

/// Data URIs of a cell's attachments by name.
fn images(attachments: &Value) -> HashMap<String, String> {
    let bundles = attachments.as_object().into_iter().flatten();
    let images = bundles.filter_map(|(name, bundle)| {
        let (mime, data) = bundle.as_object()?.iter().next()?;
        Some((name.clone(), image_uri(mime, data.as_str()?)?))
    });
    images.collect()
}

/// An image as a data URI; None where it is none, or its text is no base64.
pub(super) fn image_uri(mime: &str, data: &str) -> Option<String> {
    use base64::Engine as _;
    if mime == "image/svg+xml" {
        let encoded = base64::engine::general_purpose::STANDARD.encode(data);
        return Some(format!("data:image/svg+xml;base64,{encoded}"));
    }
    if !IMAGES.contains(&mime) {
        return None;
    }
    let data: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    (!data.is_empty() && data.chars().all(base64)).then(|| format!("data:{mime};base64,{data}"))
}

/// Images that are shown. In an `<img>` an SVG runs nothing and loads nothing.
pub(super) const IMAGES: [&str; 5] = [
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
        .add_tag_attributes("span", ["data-math-style"])
        .add_tag_attributes("details", ["open"])
        .add_allowed_classes("table", ["dataframe"])
        .url_schemes(HashSet::from(["http", "https", "mailto", "data"]))
        .attribute_filter(|element, attribute, value| {
            let keep = match attribute {
                "href" => element == "a" && is_link(value),
                "src" => is_image(value),
                "cite" => false,
                _ => true,
            };
            keep.then_some(Cow::Borrowed(value))
        });
    rules
}

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
