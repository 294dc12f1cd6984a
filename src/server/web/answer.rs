//! Answers that are errors: one shape for programs (`ApiError`), one page for people.

use axum::Json;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use protocol::agent_api::ApiError;

use super::mlflow;
use super::pages::Sorry;
use crate::registry::mlflow::Fault;
use crate::store::StoreError;

/// What routes of the API give.
pub(crate) type Answer<T> = Result<T, Problem>;

/// An error answer.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    body: ApiError,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            body: ApiError {
                code: code.to_owned(),
                message: message.into(),
            },
        }
    }

    /// 404 for a thing that is not there.
    pub(crate) fn missing(what: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no {what}"),
        )
    }

    /// 404 in words of their own.
    pub(crate) fn not_found(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message.to_string())
    }

    /// 400 for what cannot be read.
    pub(crate) fn invalid(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message.to_string())
    }

    /// 409 for what the present state does not allow.
    pub(crate) fn conflict(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message.to_string())
    }

    /// 503 while the server ends.
    pub(crate) fn stopping() -> Self {
        let words = "the server is stopping; ask again in a moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", words)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn message(&self) -> &str {
        &self.body.message
    }
}

/// An error in the form of the API that was called.
pub(super) fn in_form(path: &str, problem: Problem) -> Response {
    if mlflow::is_mlflows(path) {
        Fault::from(problem).into_response()
    } else {
        problem.into_response()
    }
}

/// What is asked for under an address that is nobody's.
pub(super) async fn no_such_page(uri: Uri) -> Response {
    if mlflow::is_mlflows(uri.path()) {
        return mlflow::no_such_call(uri.path()).into_response();
    }
    let problem = Problem::missing(format!("page '{}'", uri.path()));
    if uri.path().starts_with("/api/") {
        return problem.into_response();
    }
    Sorry::from(problem).into_response()
}

impl From<StoreError> for Problem {
    /// The database's own words stay in the log.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing(what) => Self::missing(what),
            StoreError::Illegal(illegal) => Self::conflict(illegal),
            StoreError::Changed(_) => {
                Self::conflict("somebody else changed it in this moment; try again")
            }
            error @ (StoreError::Database(_)
            | StoreError::Unreadable { .. }
            | StoreError::Newer { .. }
            | StoreError::Migration { .. }
            | StoreError::Address { .. }) => {
                tracing::error!(%error, "a request could not be answered");
                let words = "the server cannot answer now; its log says why";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", words)
            }
        }
    }
}

impl From<crate::fleet::Refused> for Problem {
    fn from(refused: crate::fleet::Refused) -> Self {
        match refused {
            crate::fleet::Refused::Store(error) => error.into(),
            other => Self::invalid(other),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
