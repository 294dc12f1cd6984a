//! What wants to run, in a frame of its own origin: `sandbox="allow-scripts"` and nothing more, so that
//! it reaches neither the page around it, nor cookies, nor forms, nor pop-ups.

/// An output that wants to run.
pub(super) enum Active<'a> {
    /// HTML with scripts, styles or embedded content.
    Html(&'a str),
    /// A script.
    Script(&'a str),
}

impl Active<'_> {
    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Active::Html(text) | Active::Script(text) => text.len(),
        }
    }
}

/// The frame.
pub(super) fn element(active: &Active<'_>) -> String {
    // `srcdoc` is an attribute in double quotes: with quotes and ampersands escaped nothing can end it;
    // angle brackets are escaped for those who look at pages with less than a parser.
    let document = document(active)
        .replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!(
        "<iframe class=\"nb-frame\" sandbox=\"allow-scripts\" loading=\"lazy\" \
         referrerpolicy=\"no-referrer\" title=\"interactive output\" srcdoc=\"{document}\"></iframe>\n"
    )
}

/// A frame that fetches its document.
pub(super) fn linked(prefix: &str, (cell, output): (usize, usize)) -> String {
    format!(
        "<iframe class=\"nb-frame\" sandbox=\"allow-scripts\" loading=\"lazy\" \
         referrerpolicy=\"no-referrer\" title=\"interactive output\" src=\"{}/{cell}/{output}\"></iframe>\n",
        super::escape(prefix)
    )
}

/// What stands in the frame.
pub(super) fn document(active: &Active<'_>) -> String {
    let body = match active {
        Active::Html(html) => (*html).to_owned(),
        // A script element ends at `</script`, wherever it stands.
        Active::Script(script) => format!(
            "<div id=\"output\"></div>\n<script>\nvar element = document.getElementById(\"output\");\n{}\n</script>",
            script.replace("</", "<\\/")
        ),
    };
    format!(
        "<!doctype html>\n<html><head><meta charset=\"utf-8\"><title>interactive output</title>\n\
         <meta name=\"color-scheme\" content=\"light\">\n\
         <style>body {{ margin: 0; font: 14px system-ui, sans-serif; background: #fff; color: #111 }}</style>\n\
         </head><body>\n{body}\n</body></html>\n"
    )
}

/// Whether HTML wants to run something or to style more than itself. A table of pandas does not: its
/// scoped style is dropped.
pub(super) fn is_active(html: &str) -> bool {
    let html = html.to_ascii_lowercase();
    let wants = [
        "<script", "<iframe", "<object", "<embed", "<canvas", "<video", "<audio", "<form", "<link",
    ];
    let styles = html.matches("<style").count() > html.matches("<style scoped").count();
    styles || wants.iter().any(|tag| html.contains(tag))
}
