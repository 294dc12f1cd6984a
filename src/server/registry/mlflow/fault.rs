//! Errors as MLflow's clients read them.

use serde_json::{Value, json};

use crate::store::StoreError;

/// What kind of error it is. A client repeats 429 and most of 5xx, whatever the call: what is permanent is never one of
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The call cannot be understood, or says what is not allowed.
    Invalid,
    /// There is one of this name.
    Exists,
    /// It does not fit to what is there now: something else has to be done before.
    Conflict,
    /// There is none.
    Missing,
    /// There is no such call.
    NoEndpoint,
    /// Nobody that is known asks.
    Unauthenticated,
    /// Who asks may not.
    Denied,
    /// This server does not do it.
    NotImplemented,
    /// It may work in a moment.
    Unavailable,
    /// The server's fault.
    Internal,
}

impl Code {
    /// MLflow's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Code::Invalid => "INVALID_PARAMETER_VALUE",
            Code::Exists => "RESOURCE_ALREADY_EXISTS",
            Code::Conflict => "RESOURCE_CONFLICT",
            Code::Missing => "RESOURCE_DOES_NOT_EXIST",
            Code::NoEndpoint => "ENDPOINT_NOT_FOUND",
            Code::Unauthenticated => "UNAUTHENTICATED",
            Code::Denied => "PERMISSION_DENIED",
            Code::NotImplemented => "NOT_IMPLEMENTED",
            Code::Unavailable => "TEMPORARILY_UNAVAILABLE",
            Code::Internal => "INTERNAL_ERROR",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Code::Invalid | Code::Exists => 400,
            Code::Unauthenticated => 401,
            Code::Denied => 403,
            Code::Missing | Code::NoEndpoint => 404,
            Code::Conflict => 409,
            Code::Internal => 500,
            Code::NotImplemented => 501,
            Code::Unavailable => 503,
        }
    }
}

/// Why a call was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.word())]
pub struct Fault {
    /// What kind of error it is.
    pub code: Code,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Fault {
    /// An error of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The call cannot be understood, or says what is not allowed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// There is none.
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(Code::Missing, message)
    }

    /// A parameter that has to be there.
    #[must_use]
    pub fn wanted(parameter: &str) -> Self {
        Self::invalid(format!("parameter '{parameter}' is missing"))
    }

    /// As it stands on the wire.
    #[must_use]
    pub fn body(&self) -> Value {
        json!({"error_code": self.code.word(), "message": self.message})
    }
}

impl From<StoreError> for Fault {
    /// The database's own words stay in the log.
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a call of the registry failed");
        let code = match error {
            StoreError::Database(_) => Code::Unavailable,
            StoreError::Unreadable { .. }
            | StoreError::Newer { .. }
            | StoreError::Migration { .. }
            | StoreError::Changed(_)
            | StoreError::Illegal(_)
            | StoreError::Missing(_)
            | StoreError::Address { .. } => Code::Internal,
        };
        Self::new(code, "the server cannot do this now; its log says why")
    }
}
