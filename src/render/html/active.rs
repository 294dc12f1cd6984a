//! Which outputs of a cell run in which frame. Knows libraries by the MIME types that they say; a library
//! that spreads one figure over several outputs finds them together in one frame.

use notebook::message::OutputMessage;
use notebook::{Notebook, Output};
use serde_json::{Map, Value};

use super::frame::{Frame, Part, is_active};

/// MIME type of a widget's place.
const WIDGET_VIEW: &str = "application/vnd.jupyter.widget-view+json";
/// MIME type, and key of the notebook's metadata, of all widgets' state.
const WIDGET_STATE: &str = "application/vnd.jupyter.widget-state+json";
/// Beside a script: it loads a library for later cells, and draws nothing.
const LOADS: [&str; 2] = [
    "application/vnd.bokehjs_load.v0+json",
    "application/vnd.holoviews_load.v0+json",
];
/// Beside a script: it needs what such a script has loaded.
const EXECS: [&str; 2] = [
    "application/vnd.bokehjs_exec.v0+json",
    "application/vnd.holoviews_exec.v0+json",
];
/// What the HTML has that such a library shows while it loads: a banner, a logo, a style for its figures.
const BANNERS: [&str; 4] = ["BokehJS", "bk-", "holoviews", "data-root-id"];
/// Most scripts that are put before those of one frame.
const MAX_LOADS: usize = 4;

/// What frames need of the whole notebook.
#[derive(Debug, Default, Clone)]
pub(super) struct Surroundings<'a> {
    loads: Vec<&'a str>,
    widgets: Option<&'a Map<String, Value>>,
}

impl<'a> Surroundings<'a> {
    pub(super) fn of(notebook: &'a Notebook) -> Self {
        let outputs = notebook.cells.iter().flat_map(|cell| &cell.outputs);
        let loads = outputs
            .filter_map(data)
            .filter(|data| says(data, &LOADS))
            .filter_map(script);
        let widgets = notebook.metadata.get("widgets");
        let widgets = widgets.and_then(|widgets| widgets.get(WIDGET_STATE)?.get("state"));
        Self {
            loads: loads.take(MAX_LOADS).collect(),
            widgets: widgets.and_then(Value::as_object),
        }
    }
}

/// What an output of a cell has to do with frames.
#[derive(Debug)]
pub(super) enum Role<'a> {
    /// Nothing.
    Passive,
    /// A frame stands in its place.
    Frame(Frame<'a>),
    /// It runs in an earlier output's frame, or is the banner of what only loads.
    Joined,
    /// It only loads a library.
    Load,
}

/// The roles of a cell's outputs.
pub(super) fn roles<'a>(outputs: &'a [Output], around: &Surroundings<'a>) -> Vec<Role<'a>> {
    let all: Vec<Option<&Map<String, Value>>> = outputs.iter().map(data).collect();
    let bundles = || all.iter().copied().flatten();
    let loads = bundles().any(|data| says(data, &LOADS));
    let linked = bundles().any(|data| script(data).is_some() && !says(data, &LOADS));
    let mut first: Option<usize> = None;
    let mut roles: Vec<Role<'a>> = Vec::with_capacity(all.len());
    for (index, data) in all.iter().enumerate() {
        let role = match data {
            None => Role::Passive,
            Some(data) if says(data, &LOADS) => Role::Load,
            Some(data) if linked => match markup(data) {
                None => alone(data, around),
                Some(part) => {
                    let at = *first.get_or_insert(index);
                    if at == index {
                        Role::Frame(Frame::of(part))
                    } else {
                        join(&mut roles[at], part);
                        Role::Joined
                    }
                }
            },
            Some(data) if loads && is_banner(&outputs[index], data) => Role::Joined,
            Some(data) => alone(data, around),
        };
        roles.push(role);
    }
    if bundles().any(|data| says(data, &EXECS))
        && let Some(Role::Frame(frame)) = first.map(|at| &mut roles[at])
    {
        frame.loads.clone_from(&around.loads);
    }
    roles
}

fn join<'a>(role: &mut Role<'a>, part: Part<'a>) {
    if let Role::Frame(frame) = role {
        frame.parts.push(part);
    }
}

/// Whether an output beside a script that loads is its banner: a table that stands in the same cell is none.
fn is_banner(output: &Output, data: &Map<String, Value>) -> bool {
    let shown = matches!(output.message(), Some(OutputMessage::DisplayData { .. }));
    let html = text(data, "text/html").filter(|html| shown && !html.contains("<table"));
    html.is_some_and(|html| BANNERS.iter().any(|word| html.contains(word)))
}

/// An output that needs no other.
fn alone<'a>(data: &'a Map<String, Value>, around: &Surroundings<'a>) -> Role<'a> {
    let viewer = viewer(data, around);
    let html = || {
        text(data, "text/html")
            .filter(|html| is_active(html))
            .map(Part::Html)
    };
    viewer
        .or_else(html)
        .map_or(Role::Passive, |part| Role::Frame(Frame::of(part)))
}

/// HTML or a script, as a part of what the cell draws together.
fn markup(data: &Map<String, Value>) -> Option<Part<'_>> {
    let html = text(data, "text/html").map(Part::Html);
    html.or_else(|| script(data).map(Part::Script))
}

/// Data for a viewer that is fetched.
fn viewer<'a>(data: &'a Map<String, Value>, around: &Surroundings<'a>) -> Option<Part<'a>> {
    data.iter().find_map(|(mime, value)| match mime.as_str() {
        "application/vnd.plotly.v1+json" => value.is_object().then_some(Part::Plotly(value)),
        WIDGET_VIEW => {
            let model = value.get("model_id")?.as_str()?;
            let all = around.widgets?;
            let (model, _) = all.get_key_value(model)?;
            Some(Part::Widget {
                view: value,
                all,
                model,
            })
        }
        mime => {
            let name = mime.strip_prefix("application/vnd.vega")?;
            let name = name.strip_suffix("+json")?;
            let (lite, version) = name.split_once(".v")?;
            let major = version.split('.').next()?.parse().ok()?;
            let known = (lite.is_empty() || lite == "lite") && (2..=6).contains(&major);
            (known && value.is_object()).then_some(Part::Vega {
                chart: value,
                lite: lite == "lite",
                major,
            })
        }
    })
}

fn data(output: &Output) -> Option<&Map<String, Value>> {
    match output.message()? {
        OutputMessage::DisplayData { data, .. }
        | OutputMessage::ExecuteResult { data, .. }
        | OutputMessage::UpdateDisplayData { data, .. } => Some(data),
        OutputMessage::Stream { .. }
        | OutputMessage::Error { .. }
        | OutputMessage::ClearOutput { .. }
        | OutputMessage::Widget(_) => None,
    }
}

fn says(data: &Map<String, Value>, mimes: &[&str]) -> bool {
    mimes.iter().any(|mime| data.contains_key(*mime))
}

fn script(data: &Map<String, Value>) -> Option<&str> {
    let mimes = ["application/javascript", "text/javascript"];
    let found = mimes.iter().find_map(|mime| text(data, mime));
    // A script beside a picture or HTML is a second way to show the same.
    found.filter(|_| text(data, "text/html").is_none() || says(data, &LOADS) || says(data, &EXECS))
}

fn text<'a>(data: &'a Map<String, Value>, mime: &str) -> Option<&'a str> {
    data.get(mime).and_then(Value::as_str)
}
