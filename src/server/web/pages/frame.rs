//! What every page has around its content, and how a page becomes an answer.

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::super::access::{Access, Who};
use super::super::answer::Problem;
use super::super::guard::form_token;

/// Scripts and styles come from this server only. Styles may stand inline: phases have their width
/// there. Active output of notebooks lives in frames of its own, which have no access to the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; connect-src 'self'; frame-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// The head of every page.
pub(super) struct Frame {
    /// Which entry of the navigation is the present one.
    pub(super) section: &'static str,
    /// The form token of the log-out button; none where nobody is logged in.
    pub(super) log_out: Option<String>,
    /// Whose session it is.
    pub(super) who: String,
}

impl Frame {
    pub(super) fn new(section: &'static str, access: &Access, who: &Who) -> Self {
        let session = matches!(
            who,
            Who::Holder {
                session: Some(_),
                ..
            }
        );
        let log_out = session.then(|| form_token(access.form_secret(who)));
        Self {
            section,
            log_out,
            who: who.name().to_owned(),
        }
    }
}

/// What a page's route gives.
pub(in super::super) type Shown = Result<Response, Sorry>;

/// Renders a page.
pub(super) fn show(page: &impl Template) -> Shown {
    show_as(StatusCode::OK, page)
}

/// Renders a page with a status of its own.
pub(super) fn show_as(status: StatusCode, page: &impl Template) -> Shown {
    let html = page.render().map_err(|error| {
        tracing::error!(%error, "a page could not be drawn");
        let words = "this page could not be drawn; the server's log says why";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", words)
    })?;
    Ok((status, document(html)).into_response())
}

/// A whole HTML document, which may not do more than a page may.
pub(super) fn document(html: String) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(html)).into_response()
}

/// An error as a page.
#[derive(Debug)]
pub(in super::super) struct Sorry(Problem);

impl<E: Into<Problem>> From<E> for Sorry {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    headline: String,
    message: String,
}

impl IntoResponse for Sorry {
    fn into_response(self) -> Response {
        let status = self.0.status();
        let page = ErrorPage {
            frame: Frame {
                section: "",
                log_out: None,
                who: String::new(),
            },
            headline: status.canonical_reason().unwrap_or("Error").to_owned(),
            message: self.0.message().to_owned(),
        };
        match show_as(status, &page) {
            Ok(response) => response,
            Err(Sorry(problem)) => problem.into_response(),
        }
    }
}
