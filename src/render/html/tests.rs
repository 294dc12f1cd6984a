use notebook::message::StreamName;
use serde_json::{Map, json};

use super::*;

mod bounds;
mod frames;

fn display(data: Value) -> OutputMessage {
    OutputMessage::DisplayData {
        data: data.as_object().unwrap().clone(),
        metadata: Map::new(),
        display_id: None,
    }
}

fn stream(text: &str) -> OutputMessage {
    OutputMessage::Stream {
        name: StreamName::Stdout,
        text: text.to_owned(),
    }
}

fn with_outputs(outputs: Vec<OutputMessage>) -> Notebook {
    let mut one = Cell::code("x", "");
    one.outputs = outputs.into_iter().map(Output::from).collect();
    Notebook {
        cells: vec![one],
        ..Notebook::default()
    }
}

/// Tags with their attributes, as a browser would find them outside of frames.
fn tags(html: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let mut quote = None;
        let end = rest.find(|c: char| {
            match (quote, c) {
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), c) if open == c => quote = None,
                (None, '>') => return true,
                _ => {}
            }
            false
        });
        let end = end.unwrap_or(rest.len());
        found.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
    found
}

#[test]
fn a_footnote_is_reached_and_left_again() {
    let mut one = Cell::code("a", "a[^1] b[^1]\n\n[^1]: note <li id=\"cell-1\">\n");
    one.kind = CellKind::Markdown;
    let mut two = one.clone();
    two.id = "b".to_owned();
    let shown = Notebook {
        cells: vec![one, two],
        ..Notebook::default()
    };
    let html = notebook(&shown, &Options::default());
    let part = |from: &str| -> Vec<String> {
        let links = html.split(from).skip(1);
        let ends = links.filter_map(|rest| rest.split('"').next());
        ends.map(str::to_owned).collect()
    };
    let ids = part(" id=\"");
    let unique: std::collections::HashSet<&String> = ids.iter().collect();
    assert_eq!((ids.len(), unique.len()), (8, 8), "{html}");
    let links = part("href=\"#");
    assert_eq!(links.len(), 8, "{html}");
    assert!(links.iter().all(|link| unique.contains(link)), "{html}");
}

#[test]
fn nothing_turns_the_text_of_a_page_around() {
    let mut words = Cell::code("a", "x \u{202e}y &#x202e;z `\u{2066}`");
    words.kind = CellKind::Markdown;
    let mut code = Cell::code("b", "# \u{202e}");
    let table = "<table><tr><td>\u{202e}</td></tr></table><b title='\u{202e}'>&#8238;</b>";
    code.outputs = [stream("\u{202e}"), display(json!({"text/html": table}))]
        .map(Output::from)
        .into();
    let shown = Notebook {
        cells: vec![words, code],
        ..Notebook::default()
    };
    let html = notebook(&shown, &Options::default());
    assert!(!html.contains(['\u{202e}', '\u{2066}']), "{html}");
    assert!(html.matches('\u{fffd}').count() >= 7, "{html}");
}

/// Nothing outside of a sandboxed frame may run, load or style.
fn assert_harmless(html: &str) {
    for tag in tags(html) {
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        let forbidden = [
            "script",
            "style",
            "object",
            "embed",
            "link",
            "meta",
            "base",
            "form",
            "input",
            "svg",
            "annotation",
            "maction",
            "mglyph",
            "semantics",
            "template",
            "textarea",
            "button",
            "video",
            "audio",
        ];
        assert!(!forbidden.contains(&name.as_str()), "<{tag}> in {html}");
        if name == "iframe" && !tag.starts_with('/') {
            assert!(tag.contains(" sandbox=\"allow-scripts\""), "{tag}");
            continue;
        }
        let lower = tag.to_ascii_lowercase();
        // Attribute values are quoted; what is inside the quotes is no attribute.
        let outside: String = lower.split('"').step_by(2).collect::<Vec<_>>().join("\"");
        for attribute in [" on", " style=", " id=\"x", " srcdoc=", " formaction="] {
            assert!(!outside.contains(attribute), "<{tag}> in {html}");
        }
        for url in [
            "javascript:",
            "vbscript:",
            "data:text",
            "=\"//",
            "src=\"http",
        ] {
            assert!(!lower.contains(url), "<{tag}> in {html}");
        }
    }
}

const NASTY: [&str; 33] = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "<img src=\"javascript:alert(1)\">",
    "<img src=https://evil.example/pixel.gif>",
    "<a href=\"javascript:alert(1)\">x</a>",
    "<a href=\" java\nscript:alert(1)\">x</a>",
    "<a href=\"data:text/html,<script>alert(1)</script>\">x</a>",
    "<a href=\"//evil.example\">x</a>",
    "<svg onload=alert(1)><circle/></svg>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext></p><style><img src onerror=alert(1)></style></mtext></math>",
    "<style>body { background: url(https://evil.example) }</style>",
    "<div style=\"position:fixed;inset:0\">x</div>",
    "<iframe srcdoc=\"<script>parent.alert(1)</script>\"></iframe>",
    "<object data=javascript:alert(1)></object><embed src=x>",
    "<form action=https://evil.example><input name=token><button formaction=x>go</button></form>",
    "<base href=https://evil.example><meta http-equiv=refresh content=0>",
    "<link rel=stylesheet href=https://evil.example>",
    "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\"></noscript>",
    "<textarea></textarea><img src=x onerror=alert(1)>",
    "<details open ontoggle=alert(1)>x</details>",
    "<math href=\"javascript:alert(1)\"><mi xlink:href=\"javascript:alert(1)\" onclick=alert(1)>x</mi></math>",
    "<math><annotation-xml encoding=\"text/html\"><script>alert(1)</script></annotation-xml></math>",
    "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\"></mglyph></table></mtext></math>",
    "<math><maction actiontype=\"statusline\">x<mtext>y</mtext></maction><mtext style=\"color:red\"><script>1</script></mtext></math>",
    "$\\text{<script>alert(1)</script>}$ $<img src=x onerror=alert(1)>$ $\\nosuch<script>alert(1)</script>$",
    "$$\\begin{x}</code><script>alert(1)</script>$$ \\(\" onmouseover=alert(1)\\)",
    "\\begin{align}<svg onload=alert(1)>\\end{align} <img alt=\"$x$\" src=\"$\"onerror=alert(1)$\">",
    "\u{fdd0}0\u{fdd1} \u{fdd0}<script>alert(1)</script>\u{fdd1} $x$",
    "```html\n<script>alert(1)</script>\n```\n- [x] <script>alert(1)</script>",
    "<!--><img src=x onerror=alert(1)>-->\"><img src=x onerror=alert(1)>",
];

#[test]
fn nothing_that_a_notebook_says_runs_in_the_page() {
    for nasty in NASTY {
        for message in [
            stream(nasty),
            stream(&format!("\u{1b}[31{nasty}\u{1b}[31m{nasty}\u{1b}[0m")),
            display(json!({"text/html": nasty})),
            display(json!({"text/markdown": nasty})),
            display(json!({"text/plain": nasty})),
            display(json!({"text/latex": nasty})),
            display(json!({"image/png": nasty})),
            display(json!({"image/svg+xml": nasty})),
            display(json!({"application/javascript": nasty})),
            display(json!({"application/vnd.x+json": {"x": nasty}})),
            display(json!({nasty: nasty})),
            OutputMessage::Error {
                ename: nasty.into(),
                evalue: nasty.into(),
                traceback: vec![],
            },
            OutputMessage::Error {
                ename: "E".into(),
                evalue: "x".into(),
                traceback: vec![nasty.into()],
            },
        ] {
            assert_harmless(&output(&message));
            let no_frames = Options {
                frames: false,
                ..Options::default()
            };
            let html = output_with(&message, &no_frames);
            assert_harmless(&html);
            assert!(!html.contains("<iframe"), "{html}");
        }
        assert_harmless(&markdown(nasty));
        assert_harmless(&markdown(&format!(
            "[x]: {nasty}\n![a]({nasty}) [b]({nasty}) `{nasty}`"
        )));
        let mut one = Cell::code("x", nasty);
        one.metadata.insert("tags".into(), json!([nasty]));
        for kind in [
            CellKind::Code,
            CellKind::Markdown,
            CellKind::Raw,
            CellKind::Other(nasty.into()),
        ] {
            one.kind = kind;
            let language = nasty.to_owned();
            assert_harmless(&cell_with(
                &one,
                0,
                &Options {
                    language,
                    ..Options::default()
                },
            ));
        }
    }
}

#[test]
fn a_table_of_pandas_stays_in_the_page() {
    let table = "<div>\n<style scoped>.dataframe th { text-align: right }</style>\n\
                 <table border=\"1\" class=\"dataframe evil\"><tr><th>a</th></tr><tr><td>1</td></tr></table></div>";
    assert_eq!(
        output(&display(json!({"text/html": table, "text/plain": "a 1"}))),
        "<div class=\"nb-output nb-display\">\n<div class=\"nb-html\"><div>\n\n\
         <table class=\"dataframe\"><tbody><tr><th>a</th></tr><tr><td>1</td></tr></tbody></table></div>\n</div>\n</div>\n"
    );
}

#[test]
fn a_cell_with_its_outputs() {
    let mut one = Cell::code("x", "print(1)");
    one.execution_count = Some(3);
    one.metadata
        .insert("trainyard".into(), json!({"duration_ms": 1_234}));
    one.outputs = vec![
        stream("\u{1b}[32mok\u{1b}[0m <1>\n").into(),
        display(json!({"image/png": "iVBO\nRw0K", "text/plain": "<Figure>"})).into(),
    ];
    assert_eq!(
        cell(&one, 4),
        "<section class=\"nb-cell nb-code\" id=\"cell-5\">\n\
         <header class=\"nb-head\"><a href=\"#cell-5\">Cell 5</a> <span class=\"nb-count\">[3]</span> <span class=\"nb-time\">1.2 s</span></header>\n\
         <pre class=\"nb-source\"><code class=\"language-python\"><span class=\"h-f\">print</span>(<span class=\"h-n\">1</span>)</code></pre>\n\
         <div class=\"nb-outputs\">\n\
         <pre class=\"nb-output nb-stdout\"><span class=\"a-f2\">ok</span> &lt;1&gt;\n</pre>\n\
         <div class=\"nb-output nb-display\">\n<img class=\"nb-image\" alt=\"output\" loading=\"lazy\" src=\"data:image/png;base64,iVBORw0K\">\n</div>\n\
         </div>\n</section>\n"
    );
}

#[test]
fn a_progress_bar_over_many_outputs_is_one_line() {
    let mut one = Cell::code("x", "");
    one.outputs = (0..=9)
        .map(|n| stream(&format!("\r{n}0% ")).into())
        .collect();
    let html = cell(&one, 0);
    assert!(
        html.contains("<pre class=\"nb-output nb-stdout\">90% </pre>"),
        "{html}"
    );
}

#[test]
fn markdown_has_tables_math_and_attachments() {
    let mut one = Cell::code(
        "x",
        "# T\n\n| a |\n|---|\n| $x_1$ |\n\n![p](attachment:p.png) ![q](attachment:q.png)",
    );
    one.kind = CellKind::Markdown;
    one.extra.insert(
        "attachments".into(),
        json!({"p.png": {"image/png": "QUJD"}, "q.png": {"text/html": "<b>"}}),
    );
    let html = cell(&one, 0);
    for part in [
        "<h1>T</h1>",
        "<td><math display=\"inline\"><msub><mi>x</mi><mn>1</mn></msub></math></td>",
        "<img src=\"data:image/png;base64,QUJD\" alt=\"p\">",
        "<img alt=\"q\">",
    ] {
        assert!(html.contains(part), "{part} in {html}");
    }
}

#[test]
fn markdown_is_read_as_jupyter_reads_it() {
    for (source, shown) in [
        (
            "$a_1$ and $b_1$ *c*",
            "<p><math display=\"inline\"><msub><mi>a</mi><mn>1</mn></msub></math> and \
             <math display=\"inline\"><msub><mi>b</mi><mn>1</mn></msub></math> <em>c</em></p>\n",
        ),
        (
            "$$\na\n- b\n$$",
            "<p><math display=\"block\"><mi>a</mi><mo>−</mo><mi>b</mi></math></p>\n",
        ),
        (
            "`$a$` and ``` $b$ ```",
            "<p><code>$a$</code> and <code>$b$</code></p>\n",
        ),
        (
            "    $a$ and\n    $b$",
            "<pre><code>$a$ and\n$b$\n</code></pre>\n",
        ),
        (
            "```python\nif x: pass\n```",
            "<pre><code><span class=\"h-k\">if</span> x: <span class=\"h-k\">pass</span>\n</code></pre>\n",
        ),
        (
            "<b>$a$</b> <a title=\"$b$\">c</a>",
            "<p><b><math display=\"inline\"><mi>a</mi></math></b> <a title=\"$b$\" rel=\"noopener noreferrer\">c</a></p>\n",
        ),
        (
            "$\\nosuch$ < 2",
            "<p><code class=\"nb-tex\" title=\"this formula is shown as it was written\">$\\nosuch$</code> &lt; 2</p>\n",
        ),
        (
            "- [x] **done**\n- [ ] open",
            "<ul>\n<li>☑ <strong>done</strong></li>\n<li>☐ open</li>\n</ul>\n",
        ),
        (
            "costs $5 or $10, ~~no~~",
            "<p>costs $5 or $10, <del>no</del></p>\n",
        ),
        (
            "[a](https://x.example/$b$)",
            "<p><a href=\"https://x.example/$b$\" rel=\"noopener noreferrer\">a</a></p>\n",
        ),
    ] {
        assert_eq!(markdown(source), shown, "{source}");
    }
    let note = markdown("a[^1]\n\n[^1]: why $x$");
    assert!(
        note.contains("<sup>") && note.contains("why <math"),
        "{note}"
    );
}

#[test]
fn everything_has_a_bound_and_says_so() {
    let small = Options {
        max_text: 100,
        max_html: 100,
        max_media: 100,
        max_total: 250,
        ..Options::default()
    };
    let long = "x".repeat(10_000);
    for message in [
        stream(&long),
        display(json!({"text/html": format!("<b>{long}</b>")})),
        display(json!({"text/html": format!("<script>{long}</script>")})),
        display(json!({"image/png": long})),
        display(json!({"text/markdown": long})),
        display(json!({"application/vnd.x+json": {"x": long}})),
    ] {
        let html = output_with(&message, &small);
        assert!(html.len() < 600, "{html}");
        assert!(
            html.contains("left out") || html.contains("not shown"),
            "{html}"
        );
    }
    let mut one = Cell::code("x", "");
    one.outputs = (0..9)
        .map(|_| display(json!({"text/plain": "y".repeat(90)})).into())
        .collect();
    let html = cell_with(&one, 0, &small);
    assert_eq!(html.matches("yyy").count() / 30, 2, "{html}");
    assert_eq!(html.matches("not shown").count(), 7, "{html}");
}

#[test]
fn a_page_stands_alone() {
    let shown = Notebook {
        cells: vec![Cell::code("a", "1")],
        ..Notebook::default()
    };
    let html = page("</title><script>", &shown, &Options::default());
    assert!(html.starts_with("<!doctype html>"), "{html}");
    assert!(html.contains("<title>&lt;/title&gt;&lt;script&gt;</title>"));
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("name=\"viewport\""));
}

#[test]
fn a_cell_has_the_number_that_it_has_in_the_file() {
    let bytes = br#"{"nbformat":4,"nbformat_minor":5,"metadata":{},"cells":[
        {"cell_type":"code","id":"a","metadata":{"tags":["parameters"]},"source":"x = 1","outputs":[],"execution_count":1},
        {"cell_type":"code","id":"b","metadata":{"tags":["injected-parameters"]},"source":"x = 2","outputs":[],"execution_count":2},
        {"cell_type":"code","id":"c","metadata":{},"source":"x","execution_count":3,"outputs":[
          {"output_type":"display_data","metadata":{},"data":{"text/html":"<script>draw()</script>"}}]}]}"#;
    let options = Options {
        frame_prefix: Some("/f".to_owned()),
        ..Options::default()
    };
    let html = notebook(&::notebook::nbformat::read(bytes).unwrap(), &options);
    assert!(
        html.contains(">Cell 1</a>") && html.contains(">Values of this run</a>"),
        "{html}"
    );
    assert!(
        html.contains(">Cell 2</a>") && !html.contains(">Cell 3</a>"),
        "{html}"
    );
    assert!(
        html.contains("src=\"/f/2/0\""),
        "the frame goes by the executed notebook's own place: {html}"
    );
}

#[test]
fn every_kind_of_output_has_a_look() {
    for (data, shown) in [
        (
            json!({"text/latex": "$x_1$", "image/png": "QUJD"}),
            "<msub><mi>x</mi><mn>1</mn></msub>",
        ),
        (
            json!({"text/latex": "$\\nosuch$", "image/png": "QUJD"}),
            "<img class=\"nb-image\"",
        ),
        (
            json!({"text/latex": "\\begin{tabular}a\\end{tabular}"}),
            "nb-source-only\">\\begin{tabular}",
        ),
        (
            json!({"application/json": {"a": [1]}, "text/plain": "<JSON>"}),
            "<details class=\"nb-data\" open>",
        ),
        (
            json!({"application/pdf": "QUJD", "text/plain": "<Figure>"}),
            "href=\"data:application/pdf;base64,QUJD\"",
        ),
        (
            json!({"application/pdf": "\"><script>", "text/plain": "x"}),
            "application/pdf: 10 bytes not shown",
        ),
        (
            json!({"image/gif": "QUJD"}),
            "src=\"data:image/gif;base64,QUJD\"",
        ),
        (
            json!({"image/svg+xml": "<svg onload=alert(1)/>"}),
            "src=\"data:image/svg+xml;base64,",
        ),
        (
            json!({"text/plain": "x\n".repeat(500)}),
            "<details class=\"nb-fold\"><summary>500 lines, 1000 bytes</summary>",
        ),
        (
            json!({"text/html": format!("<table><td>{}</table>", "x".repeat(70_000))}),
            "<details class=\"nb-fold\"><summary>a table or text, 68.4 KiB",
        ),
    ] {
        let html = output(&display(data));
        assert_harmless(&html);
        assert!(html.contains(shown), "{shown} in {html}");
    }
}

#[test]
fn a_page_has_the_colours_that_it_uses() {
    let shown = with_outputs(vec![stream(
        "\u{1b}[38;5;196mred\u{1b}[48;2;255;255;0mon\u{1b}[0m",
    )]);
    let html = page("t", &shown, &Options::default());
    assert!(
        html.contains("<span class=\"a-f1 x-f196\">red</span>"),
        "{html}"
    );
    assert!(
        html.contains("\n.x-f196 { color: #ff0000; color: light-dark(#ff0000, "),
        "{html}"
    );
    assert!(
        html.contains("\n.x-b226 { background: #ffff00; color: #000; }\n"),
        "{html}"
    );
    assert!(!html.contains("\n.x-f197"), "{html}");
}
