//! The sheet and the script of the pages, from the binary.

use axum::http::header;
use axum::response::IntoResponse;

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "max-age=300"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text)
}

/// `GET /assets/style.css`
pub(super) async fn style() -> impl IntoResponse {
    asset("text/css; charset=utf-8", include_str!("assets/style.css"))
}

/// `GET /assets/live.js`
pub(super) async fn live() -> impl IntoResponse {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("assets/live.js"),
    )
}
