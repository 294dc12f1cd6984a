//! What wants to run, in a frame of its own origin: `sandbox="allow-scripts"` and nothing more, so that
//! it reaches neither the page around it, nor cookies, nor forms, nor pop-ups.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// Where viewers come from that a notebook does not bring itself. The frame fetches them when it is seen.
const REQUIRE: &str = "https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.6/require.min.js";
const PLOTLY: &str = "https://cdn.plot.ly/plotly-3.0.1.min.js";
const WIDGETS: &str =
    "https://cdn.jsdelivr.net/npm/@jupyter-widgets/html-manager@1.0.14/dist/embed-amd.js";
const NPM: &str = "https://cdn.jsdelivr.net/npm";

/// What runs together in one frame.
#[derive(Debug, Default)]
pub(super) struct Frame<'a> {
    /// Scripts of other cells that must have run before, such as one that loads Bokeh.
    pub(super) loads: Vec<&'a str>,
    /// In the order of the outputs.
    pub(super) parts: Vec<Part<'a>>,
}

/// An output that wants to run.
#[derive(Debug)]
pub(super) enum Part<'a> {
    /// HTML, with scripts, styles or embedded content, or a place for another part to draw in.
    Html(&'a str),
    /// A script.
    Script(&'a str),
    /// A figure of Plotly.
    Plotly(&'a Value),
    /// A chart of Vega or Vega-Lite.
    Vega {
        chart: &'a Value,
        lite: bool,
        major: u32,
    },
    /// A Jupyter widget: where it stands, the states of all widgets by their ids, its own id.
    Widget {
        view: &'a Value,
        all: &'a Map<String, Value>,
        model: &'a str,
    },
}

impl Frame<'_> {
    pub(super) fn of(part: Part<'_>) -> Frame<'_> {
        Frame {
            loads: Vec::new(),
            parts: vec![part],
        }
    }

    /// About how much it holds, in bytes.
    pub(super) fn size(&self) -> usize {
        let parts = self.parts.iter().map(|part| match part {
            Part::Html(text) | Part::Script(text) => text.len(),
            Part::Plotly(value)
            | Part::Vega { chart: value, .. }
            | Part::Widget { view: value, .. } => json(value).len(),
        });
        parts.sum()
    }

    /// The frame, its document in it.
    pub(super) fn element(document: &str) -> String {
        // `srcdoc` is an attribute in double quotes: with quotes and ampersands escaped nothing can end it;
        // angle brackets are escaped for those who look at pages with less than a parser.
        let mut escaped = String::with_capacity(document.len() + document.len() / 8);
        let mut plain = 0;
        for (at, byte) in document.bytes().enumerate() {
            let with = match byte {
                b'&' => "&amp;",
                b'"' => "&quot;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                _ => continue,
            };
            escaped.push_str(&document[plain..at]);
            escaped.push_str(with);
            plain = at + 1;
        }
        escaped.push_str(&document[plain..]);
        format!("{}srcdoc=\"{escaped}\"></iframe>\n", Self::OPENING)
    }

    /// A frame that fetches its document.
    pub(super) fn linked(prefix: &str, (cell, output): (usize, usize)) -> String {
        let prefix = super::escape(prefix);
        format!(
            "{}src=\"{prefix}/{cell}/{output}\"></iframe>\n",
            Self::OPENING
        )
    }

    const OPENING: &'static str = "<iframe class=\"nb-frame\" sandbox=\"allow-scripts\" loading=\"lazy\" \
                                   referrerpolicy=\"no-referrer\" title=\"interactive output\" ";

    /// What stands in the frame.
    pub(super) fn document(&self) -> String {
        let mut body = String::new();
        let asks = |html: &str| html.contains("require(") || html.contains("requirejs(");
        let mut parts = self.parts.iter();
        if parts.any(|part| matches!(part, Part::Html(text) | Part::Script(text) if asks(text))) {
            body += &loaded(REQUIRE);
        }
        for script in &self.loads {
            body += &inline(script);
        }
        for (number, part) in self.parts.iter().enumerate() {
            body += &part.html(number);
        }
        format!(
            "<!doctype html>\n<html><head><meta charset=\"utf-8\"><title>interactive output</title>\n\
             <meta name=\"color-scheme\" content=\"light\">\n\
             <style>body {{ margin: 0; font: 14px system-ui, sans-serif; background: #fff; color: #111 }}</style>\n\
             </head><body>\n{body}</body></html>\n"
        )
    }
}

impl Part<'_> {
    fn html(&self, number: usize) -> String {
        let place = format!("<div id=\"output-{number}\"></div>\n");
        let element = format!("document.getElementById(\"output-{number}\")");
        match self {
            Part::Html(html) => format!("{html}\n"),
            Part::Script(script) => place + &inline(&format!("var element = {element};\n{script}")),
            Part::Plotly(figure) => {
                let draw = format!(
                    "var figure = {};\nPlotly.newPlot({element}, figure.data, figure.layout, Object.assign({{responsive: true}}, figure.config));",
                    json(figure)
                );
                place + &loaded(PLOTLY) + &inline(&draw)
            }
            Part::Vega { chart, lite, major } => {
                // Vega-Lite 5 draws with Vega 5, and both with vega-embed 6; 6 likewise with 6 and 7.
                let vega = (*major).max(5);
                let mut scripts = loaded(&format!("{NPM}/vega@{vega}"));
                if *lite {
                    scripts += &loaded(&format!("{NPM}/vega-lite@{major}"));
                }
                scripts += &loaded(&format!("{NPM}/vega-embed@{}", vega + 1));
                let mode = if *lite { "vega-lite" } else { "vega" };
                let draw = format!(
                    "vegaEmbed({element}, {}, {{mode: \"{mode}\"}});",
                    json(chart)
                );
                place + &scripts + &inline(&draw)
            }
            Part::Widget { view, all, model } => {
                let kind = "application/vnd.jupyter.widget";
                let states = json(&reached(all, model));
                format!(
                    "{}{}<script type=\"{kind}-state+json\">{{\"version_major\":2,\"version_minor\":0,\"state\":{states}}}</script>\n<script type=\"{kind}-view+json\">{}</script>\n",
                    loaded(REQUIRE),
                    loaded(WIDGETS),
                    json(view)
                )
            }
        }
    }
}

/// The states of a widget and of all widgets that it names.
fn reached<'a>(all: &'a Map<String, Value>, model: &'a str) -> BTreeMap<&'a str, &'a Value> {
    let mut wanted = vec![model];
    let mut states = BTreeMap::new();
    while let Some(id) = wanted.pop() {
        let Some(state) = all.get(id) else {
            continue;
        };
        if states.insert(id, state).is_none() {
            names(state, &mut wanted);
        }
    }
    states
}

/// Widgets name others as `IPY_MODEL_<id>`.
fn names<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.extend(text.strip_prefix("IPY_MODEL_")),
        Value::Array(list) => list.iter().for_each(|one| names(one, found)),
        Value::Object(map) => map.values().for_each(|one| names(one, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn loaded(url: &str) -> String {
    format!("<script src=\"{url}\"></script>\n")
}

/// A script element ends at `</script`, wherever it stands.
fn inline(script: &str) -> String {
    format!("<script>\n{}\n</script>\n", script.replace("</", "<\\/"))
}

/// JSON that may stand in a script: brackets occur in its texts only, where they can be escaped.
fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    text.replace('<', "\\u003c")
}

/// Whether HTML wants to run something or to style more than itself. A table of pandas or Polars does not:
/// its style is dropped.
pub(super) fn is_active(html: &str) -> bool {
    const WANTS: [&str; 9] = [
        "script", "iframe", "object", "embed", "canvas", "video", "audio", "form", "link",
    ];
    let bytes = html.as_bytes();
    let begins = |rest: &[u8], word: &str| {
        let head = rest.get(..word.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(word.as_bytes()))
    };
    html.match_indices('<').any(|(at, _)| {
        let rest = &bytes[at + 1..];
        let styles = begins(rest, "style") && !begins(rest, "style scoped") && {
            let sheet = html[at..].split_once('>').map_or("", |(_, sheet)| sheet);
            !sheet.trim_start().starts_with(".dataframe")
        };
        styles || WANTS.iter().any(|tag| begins(rest, tag))
    })
}
