//! Why a command did not do what it was asked, and what to do next.

use std::fmt;

use requiem_cas::gc::GcError;
use requiem_cas::{IngestError, StoreError};
use requiem_executor::engine::EngineError;
use requiem_executor::retained::RetainedError;
use requiem_model::Failure;
use schemars::JsonSchema;
use serde::Serialize;

/// Which exit code an error has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The thing was judged, and the judgement is no: exit code 1.
    Finding,
    /// Input or environment cannot be used: exit code 2.
    Unusable,
    /// A signal ended it: exit code 128 and its number.
    Interrupted(u8),
}

/// An error for people: what failed with which value, and the next step.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct CommandError {
    #[serde(skip)]
    pub(crate) kind: ErrorKind,
    /// Stable code.
    pub(crate) error_code: String,
    /// What failed.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
}

/// The document of a command that could not do its work.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Refusal<'a> {
    ok: bool,
    #[serde(flatten)]
    error: &'a CommandError,
}

impl CommandError {
    /// Input or environment cannot be used.
    pub(crate) fn unusable(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let (error_code, message, hint) = (code.to_owned(), message.into(), hint.into());
        Self { kind: ErrorKind::Unusable, error_code, message, hint }
    }

    /// The thing was judged, and the judgement is no.
    pub(crate) fn finding(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Finding, ..Self::unusable(code, message, hint) }
    }

    /// A signal ended it; `message` says how far it came.
    pub(crate) fn interrupted(signal: u8, message: impl Into<String>) -> Self {
        let error = Self::unusable("Interrupted", message, "run it again");
        Self { kind: ErrorKind::Interrupted(signal), ..error }
    }

    /// A field of the request document is wrong.
    pub(crate) fn field(field: impl fmt::Display, why: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self::unusable("InvalidRequest", format!("{field}: {why}"), hint)
    }

    /// The error as a document.
    pub(crate) const fn document(&self) -> Refusal<'_> {
        Refusal { ok: false, error: self }
    }

    /// The exit code.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Finding => 1,
            ErrorKind::Unusable => 2,
            ErrorKind::Interrupted(signal) => 128_u8.saturating_add(signal),
        }
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::unusable(error.code(), error.to_string(), error.hint())
    }
}

impl From<GcError> for CommandError {
    fn from(error: GcError) -> Self {
        Self::unusable(error.code(), error.to_string(), error.hint())
    }
}

impl From<RetainedError> for CommandError {
    fn from(error: RetainedError) -> Self {
        Self::unusable(error.code(), error.to_string(), error.hint())
    }
}

impl From<IngestError> for CommandError {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Store(error) => error.into(),
            other => {
                let hint = "leave that entry out, or store the folder's parts one by one";
                Self::unusable(other.code(), other.to_string(), hint)
            }
        }
    }
}

impl From<EngineError> for CommandError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Failure(failure) => failure.into(),
            broken => Self::unusable(broken.code(), broken.to_string(), broken.hint()),
        }
    }
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self::unusable(failure.reason.as_str(), failure.message, failure.hint)
    }
}
