//! What runs, and where.

use super::*;

/// What the frames of a notebook hold, as a browser reads it.
fn documents(notebook: &Notebook) -> Vec<String> {
    let html = crate::html::notebook(notebook, &Options::default());
    let frames = html.split("srcdoc=\"").skip(1);
    let documents = frames.map(|rest| {
        let text = rest.split('"').next().unwrap_or_default();
        let text = text.replace("&lt;", "<").replace("&gt;", ">");
        text.replace("&quot;", "\"").replace("&amp;", "&")
    });
    documents.collect()
}

#[test]
fn what_bokeh_spreads_over_outputs_and_cells_meets_in_one_frame() {
    let mut shown = with_outputs(vec![
        display(json!({"text/html": "<style>.bk {}</style><span>Loading BokehJS ...</span>"})),
        display(
            json!({"application/javascript": "load_bokeh()", "application/vnd.bokehjs_load.v0+json": "load_bokeh()"}),
        ),
        display(json!({"text/html": "<table><tr><td>versions of bk-things</td></tr></table>"})),
        display(json!({"text/html": "<p>a word</p>"})),
    ]);
    let plot = with_outputs(vec![
        stream("before"),
        display(json!({"text/html": "<div id=\"p1001\"></div>"})),
        display(
            json!({"application/javascript": "embed(\"p1001\")", "application/vnd.bokehjs_exec.v0+json": ""}),
        ),
        display(json!({"text/plain": "after"})),
    ]);
    shown.cells.extend(plot.cells);
    let documents = documents(&shown);
    let [document] = documents.as_slice() else {
        panic!("one frame: {documents:?}")
    };
    let at = |part: &str| {
        document
            .find(part)
            .unwrap_or_else(|| panic!("{part} in {document}"))
    };
    assert!(at("load_bokeh()") < at("<div id=\"p1001\">"));
    assert!(at("<div id=\"p1001\">") < at("embed(\"p1001\")"));
    assert_eq!(frame_document(&shown, 1, 1).as_ref(), Some(document));
    assert_eq!(frame_document(&shown, 1, 2), None);
    let html = crate::html::notebook(&shown, &Options::default());
    assert!(
        html.contains(">before</pre>") && html.contains(">after</pre>"),
        "{html}"
    );
    assert!(!html.contains("Loading BokehJS"), "{html}");
    assert!(
        html.contains(">versions of bk-things<") && html.contains(">a word<"),
        "{html}"
    );
}

#[test]
fn figures_and_charts_bring_their_viewers() {
    let figure = json!({"data": [{"x": ["</script><script>alert(1)</script>"]}], "layout": {}});
    let chart = json!({"mark": "bar"});
    let shown = with_outputs(vec![
        display(
            json!({"application/vnd.plotly.v1+json": figure, "text/html": "<script>require(['plotly'])</script>"}),
        ),
        display(json!({"application/vnd.vegalite.v5+json": chart, "text/plain": "<Chart>"})),
        display(json!({"application/vnd.vegalite.v99+json": chart, "text/plain": "<Chart>"})),
        display(json!({"text/html": "<script>require(['d3'], draw)</script>"})),
    ]);
    let documents = documents(&shown);
    let [plotly, vega, own] = documents.as_slice() else {
        panic!("three frames: {documents:?}")
    };
    assert!(
        plotly.contains("Plotly.newPlot(") && !plotly.contains("<script>alert"),
        "{plotly}"
    );
    assert!(
        vega.contains("vega-lite@5\"") && vega.contains("vegaEmbed("),
        "{vega}"
    );
    assert!(
        own.contains("require.min.js") && own.contains("require(['d3'], draw)"),
        "{own}"
    );
}

#[test]
fn a_widget_has_its_state_and_no_other() {
    let view = json!({"model_id": "a", "version_major": 2});
    let mut shown = with_outputs(vec![
        display(
            json!({"application/vnd.jupyter.widget-view+json": view, "text/plain": "IntSlider()"}),
        ),
        display(
            json!({"application/vnd.jupyter.widget-view+json": {"model_id": "lost"}, "text/plain": "Lost()"}),
        ),
    ]);
    assert_eq!(
        documents(&shown),
        [""; 0],
        "without a state there is nothing to draw"
    );
    let state = json!({"application/vnd.jupyter.widget-state+json": {"version_major": 2, "version_minor": 0, "state": {
        "a": {"state": {"layout": "IPY_MODEL_b", "children": ["IPY_MODEL_a"]}},
        "b": {"state": {"width": "</script>"}},
        "c": {"state": {"secret": "other"}},
    }}});
    shown.metadata.insert("widgets".into(), state);
    let documents = documents(&shown);
    let [document] = documents.as_slice() else {
        panic!("one frame: {documents:?}")
    };
    assert!(
        document.contains("\\u003c/script>") && document.contains("\"layout\":\"IPY_MODEL_b\""),
        "{document}"
    );
    assert!(!document.contains("secret"), "{document}");
    assert!(crate::html::notebook(&shown, &Options::default()).contains(">Lost()</pre>"));
}

#[test]
fn a_frame_cannot_be_left() {
    let nasty = "\"><script>alert(1)</script><iframe></iframe>&quot;'";
    let html = output(&display(json!({"text/html": nasty})));
    assert_eq!(html.matches('<').count(), 4, "{html}");
    assert!(
        html.contains("srcdoc=\"<!doctype html>") || html.contains("srcdoc=\"&lt;"),
        "{html}"
    );
    let script = "document.write('</script><b>');";
    let shown = with_outputs(vec![
        display(json!({"application/javascript": script})),
        stream("<script>"),
    ]);
    let document = frame_document(&shown, 0, 0).unwrap();
    assert_eq!(document.matches("</script>").count(), 1, "{document}");
    assert_eq!(frame_document(&shown, 0, 1), None);
    assert_eq!(frame_document(&shown, 0, 2), None);
    assert_eq!(frame_document(&shown, 1, 0), None);
}

#[test]
fn many_views_of_one_widget_have_a_bound() {
    let view =
        json!({"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "W()"});
    let mut shown = with_outputs(vec![display(view); 2_000]);
    let state = json!({"application/vnd.jupyter.widget-state+json": {"state": {"a": {"state": {"v": "x".repeat(1 << 20)}}}}});
    shown.metadata.insert("widgets".into(), state);
    let options = Options {
        max_total: 5 << 20,
        ..Options::default()
    };
    let html = crate::html::notebook(&shown, &options);
    assert_eq!(html.matches("<iframe").count(), 4);
    assert_eq!(html.matches(">W()</pre>").count(), 1_996);
}
