//! Answers of the JSON API: what happened and, when it did not work, what to do.

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A JSON answer with status 200.
#[derive(Debug)]
pub(super) struct Answer(pub(super) Value);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        with_json(StatusCode::OK, &self.0)
    }
}

/// Why nothing was done, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    error: String,
    hint: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: hint.into() }
    }

    pub(super) fn bad_request(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, hint)
    }

    pub(super) fn forbidden(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, error, hint)
    }

    pub(super) fn not_found(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, hint)
    }

    pub(super) fn wrong_method(method: &Method) -> Self {
        let error = format!("this path does not take {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, error, "the header Allow names the methods it takes")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = with_json(self.status, &json!({ "error": self.error, "hint": self.hint }));
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A JSON answer, indented, since people read it with curl.
pub(super) fn with_json(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(format!("{value:#}\n").into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
