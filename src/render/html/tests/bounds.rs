//! What hostile notebooks cost.

use super::*;

#[test]
fn an_attachment_that_is_named_very_often_is_shown_sometimes() {
    let mut one = Cell::code("a", "![p](attachment:p.png) ".repeat(1_000));
    one.kind = CellKind::Markdown;
    let image = json!({"p.png": {"image/png": "A".repeat(200 << 10)}});
    one.extra.insert("attachments".into(), image);
    let html = cell(&one, 0);
    assert_eq!(html.matches("src=\"data:image/png").count(), 2);
    assert!(html.len() < 1 << 20, "{}", html.len());
}

#[test]
fn markup_that_is_too_deep_is_shown_as_it_was_written() {
    let html = output(&display(json!({"text/html": "<div>".repeat(200_000)})));
    assert_eq!(html.matches("<div>").count(), 256, "in the output's own");
    assert!(html.contains("<pre>&lt;div&gt;"), "{}", &html[..4_000]);
}

#[test]
fn many_formulas_are_all_drawn() {
    let mut one = Cell::code(
        "a",
        "$a\\,b \\frac{1}{2} \\quad \\text{x}$ and\n".repeat(1_000),
    );
    one.kind = CellKind::Markdown;
    let html = cell(&one, 0);
    assert_eq!(html.matches("<math").count(), 1_000);
    assert!(!html.contains("&lt;"), "nothing is shown as it was written");
}
