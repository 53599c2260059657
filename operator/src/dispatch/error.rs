//! What can go wrong between operator and executor, with stable codes.

use std::time::Duration;

/// Why a call to an executor gave no usable answer. [`DispatchError::code`] is the metric label.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// No connection, a broken one, or a certificate that does not fit.
    #[error("executor {endpoint} cannot be reached: {why}")]
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// Every cause in the chain, outermost first.
        why: String,
    },
    /// No answer in time.
    #[error("executor {endpoint} did not answer within {} ms", after.as_millis())]
    Timeout {
        /// The endpoint.
        endpoint: String,
        /// The deadline.
        after: Duration,
    },
    /// The operator has no certificate that such an executor would accept.
    #[error(
        "executor {endpoint} cannot be called: the operator has no client certificate for it; start it with --tls-cert, \
         --tls-key and --executor-ca for executors at fixed addresses, with --own-namespace for those in pods"
    )]
    NoIdentity {
        /// The endpoint.
        endpoint: String,
    },
    /// The executor answered and refused.
    #[error("executor {endpoint} refused ({status} {refusal}): {message}; {hint}")]
    Refused {
        /// The endpoint.
        endpoint: String,
        /// HTTP status.
        status: u16,
        /// Its code.
        refusal: Refusal,
        /// What it says.
        message: String,
        /// What it advises.
        hint: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer is not what the protocol allows.
    #[error("executor {endpoint} answered what the protocol does not allow: {why}")]
    Malformed {
        /// The endpoint.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
}

/// Refusal codes of the protocol, and everything else as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No room now.
    QueueFull,
    /// The executor does not know the attempt.
    UnknownAttempt,
    /// The attempt belongs to another Execution.
    IdentityMismatch,
    /// The attempt exists with another request.
    RequestConflict,
    /// The executor could not read the call.
    Malformed,
    /// No such route or object.
    NotFound,
    /// The executor is going down.
    ShuttingDown,
    /// The executor's disk is full or broken.
    StoreUnavailable,
    /// A code that this version does not know.
    Unknown,
}

impl DispatchError {
    /// Every code that is counted as an error: that an executor does not know an attempt answers the question.
    pub const CODES: [&'static str; 12] = [
        "Unreachable",
        "Timeout",
        "NoIdentity",
        "MalformedAnswer",
        "QueueFull",
        "IdentityMismatch",
        "RequestConflict",
        "Malformed",
        "NotFound",
        "ShuttingDown",
        "StoreUnavailable",
        "UnknownRefusal",
    ];

    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "Unreachable",
            Self::Timeout { .. } => "Timeout",
            Self::NoIdentity { .. } => "NoIdentity",
            Self::Refused { refusal, .. } => refusal.as_str(),
            Self::Malformed { .. } => "MalformedAnswer",
        }
    }

    /// Whether the executor did not take part: dead, cut off, or going down. The same call may succeed later,
    /// and nothing is known about the attempt.
    pub const fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Timeout { .. }
                | Self::NoIdentity { .. }
                | Self::Refused { refusal: Refusal::ShuttingDown, .. }
        )
    }

    /// Whether the executor says that it drains: it starts nothing, has not started what it was asked to, and still
    /// answers about what it has.
    pub const fn is_draining(&self) -> bool {
        matches!(self, Self::Refused { refusal: Refusal::ShuttingDown, .. })
    }

    /// When the executor wants to be asked again.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl Refusal {
    /// The refusal that an executor's `code` means.
    pub fn parse(code: &str) -> Self {
        match code {
            "QueueFull" => Self::QueueFull,
            "UnknownAttempt" => Self::UnknownAttempt,
            "IdentityMismatch" => Self::IdentityMismatch,
            "RequestConflict" => Self::RequestConflict,
            "Malformed" => Self::Malformed,
            "NotFound" => Self::NotFound,
            "ShuttingDown" => Self::ShuttingDown,
            "StoreUnavailable" => Self::StoreUnavailable,
            _ => Self::Unknown,
        }
    }

    /// Stable spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "QueueFull",
            Self::UnknownAttempt => "UnknownAttempt",
            Self::IdentityMismatch => "IdentityMismatch",
            Self::RequestConflict => "RequestConflict",
            Self::Malformed => "Malformed",
            Self::NotFound => "NotFound",
            Self::ShuttingDown => "ShuttingDown",
            Self::StoreUnavailable => "StoreUnavailable",
            Self::Unknown => "UnknownRefusal",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.as_str())
    }
}

/// An error and all its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
