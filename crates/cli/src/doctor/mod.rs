//! Checks of this machine, its store and a cluster. Each looks at one thing, says what it saw, and gives findings with a stable code and a remedy.

pub(crate) mod cluster;
pub(crate) mod host;
pub(crate) mod store;

use schemars::JsonSchema;
use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// It works today, and may not tomorrow.
    Warning,
    /// Something does not work, or is not safe.
    Error,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Finding {
    /// Stable.
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Check {
    pub(crate) area: &'static str,
    /// What was seen.
    pub(crate) seen: String,
    pub(crate) findings: Vec<Finding>,
}

impl Finding {
    /// Something does not work, or is not safe.
    pub(crate) fn error(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, severity: Severity::Error, message: message.into(), remedy: remedy.into() }
    }

    /// It works today, and may not tomorrow.
    pub(crate) fn warning(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message, remedy) }
    }
}

impl Check {
    /// A thing without a finding so far.
    pub(crate) fn of(area: &'static str, seen: impl Into<String>) -> Self {
        Self { area, seen: seen.into(), findings: Vec::new() }
    }

    /// The same with what is wrong about it.
    pub(crate) fn with(mut self, findings: impl IntoIterator<Item = Finding>) -> Self {
        self.findings.extend(findings);
        self
    }
}
