//! Every answer that is not 2xx: a status, a stable code, what happened, what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use requiem_model::attempt::ErrorBody;

/// An answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    fn new(status: StatusCode, code: &str, message: impl Into<String>, hint: &str) -> Self {
        let body = ErrorBody { code: code.to_owned(), message: message.into(), hint: hint.to_owned() };
        Self { status, body }
    }

    /// The call itself cannot be understood.
    pub(crate) fn malformed(message: impl Into<String>, hint: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Malformed", message, hint)
    }

    /// The body is larger than it may be.
    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        let hint = "put large inputs into the store and name them by digest";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Malformed", message, hint)
    }

    /// The identity in the body is not the one in the path.
    pub(crate) fn identity_mismatch(message: impl Into<String>) -> Self {
        let hint = "send the attempt to the path of its own UID and number";
        Self::new(StatusCode::BAD_REQUEST, "IdentityMismatch", message, hint)
    }

    /// The key is taken by something that this call is not about.
    pub(crate) fn conflict(message: impl Into<String>, hint: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "RequestConflict", message, hint)
    }

    /// Nobody has heard of the attempt.
    pub(crate) fn unknown_attempt(key: impl std::fmt::Display) -> Self {
        let message = format!("attempt {key} is not known here");
        Self::new(StatusCode::NOT_FOUND, "UnknownAttempt", message, "start it with PUT")
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>, hint: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message, hint)
    }

    /// The path has no such verb.
    pub(crate) fn method() -> Self {
        let hint = "see docs/executor.md for the endpoints";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Malformed", "this path does not know this method", hint)
    }

    /// All slots and all places of the queue are taken.
    pub(crate) fn queue_full() -> Self {
        let hint = "wait for the time in Retry-After, or choose another executor";
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "QueueFull",
            "every slot and every place of the queue is taken",
            hint,
        )
    }

    /// The executor ends.
    pub(crate) fn shutting_down() -> Self {
        let hint = "ask again when it is back, or choose another executor";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ShuttingDown", "the executor is shutting down", hint)
    }

    /// There is nobody to say what a sandbox would be like here.
    pub(crate) fn runner_missing(why: impl Into<String>) -> Self {
        let hint = "ask again soon; if it stays so, look at the workload container of the executor's pod";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "RunnerMissing", why, hint)
    }

    /// The executor's disk does not let it promise anything.
    pub(crate) fn store_unavailable(message: impl Into<String>) -> Self {
        let hint =
            "check the disk of the executor's store; after a failed sync the executor must be restarted";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "StoreUnavailable", message, hint)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body)).into_response();
        let retry = match self.status {
            StatusCode::TOO_MANY_REQUESTS => Some("1"),
            StatusCode::SERVICE_UNAVAILABLE => Some("5"),
            _ => None,
        };
        if let Some(seconds) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        response
    }
}
