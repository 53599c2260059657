//! What went wrong, and what to do about it. One variant per kind of remedy.

use std::io;

/// Result of every step of xtask.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a command of xtask could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine lacks something; nothing was started.
    #[error("{what}. {remedy}.")]
    Prerequisite {
        /// What is missing.
        what: String,
        /// What to do, as a sentence without its full stop.
        remedy: String,
    },
    /// The command line asks for something that does not exist.
    #[error("{what}. {remedy}.")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A file or process operation was refused by the system.
    #[error("cannot {doing}: {source}")]
    Io {
        /// The operation.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program that xtask started failed.
    #[error("{program} failed ({status}){}", said(.output))]
    Program {
        /// What was run.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// A program did not become ready in time, or ended instead.
    #[error("{what}; the end of its log{}", said(.tail))]
    NotReady {
        /// What was awaited.
        what: String,
        /// The log's last lines.
        tail: String,
    },
    /// A certificate could not be made.
    #[error("cannot make the certificate of {name}: {source}")]
    Certificate {
        /// Its common name.
        name: String,
        /// The generator's answer.
        source: rcgen::Error,
    },
    /// Findings that were told already, as the last line of standard output.
    #[error("there were findings")]
    Told,
    /// Something is not what it was pinned to be, or a command's claim did not hold.
    #[error("{what}. {remedy}.")]
    Check {
        /// What was found.
        what: String,
        /// What to do.
        remedy: String,
    },
}

impl Error {
    /// A missing prerequisite.
    pub fn prerequisite(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Prerequisite { what: what.into(), remedy: remedy.into() }
    }

    /// A wrong command line.
    pub fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), remedy: remedy.into() }
    }

    /// A claim that did not hold.
    pub fn check(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Check { what: what.into(), remedy: remedy.into() }
    }

    /// Wraps an I/O error with what was being done.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// 1 for findings, 2 for unusable input or environment.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Program { .. } | Self::Check { .. } | Self::NotReady { .. } | Self::Told => 1,
            Self::Prerequisite { .. } | Self::Usage { .. } | Self::Io { .. } | Self::Certificate { .. } => 2,
        }
    }
}

fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(":\n{output}") }
}
