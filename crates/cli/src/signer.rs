//! Asks a signer: another program, run once for each question and trusted with nothing but its answer.
//!
//! Flow: look at the file → start it in a process group of its own, with an empty environment, in `/` → question to its standard
//! input, end of file → answer from its standard output, up to 64 KiB, until the deadline → whatever is left of it is killed → how
//! it ended and what it said must agree.

use std::path::{Path, PathBuf};
use std::time::Duration;

use requiem_executor::engine::companion::{self, AskError, check_program};
use requiem_proof::signer::{Ask, MAX_REPLY_BYTES, Question, read};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CommandError;

/// A program that speaks `requiem-signer/1`.
#[derive(Debug)]
pub(crate) struct Signer {
    program: PathBuf,
    arguments: Vec<String>,
    deadline: Duration,
}

impl Signer {
    /// A signer at an absolute path.
    pub(crate) fn new(
        program: &Path,
        arguments: &[String],
        deadline: Duration,
    ) -> Result<Self, CommandError> {
        check_program(program).map_err(|why| refused("E_PLUGIN_PROGRAM", why))?;
        Ok(Self { program: program.to_owned(), arguments: arguments.to_vec(), deadline })
    }

    /// Asks, and gives back the answer if it is one.
    pub(crate) fn ask<T: DeserializeOwned + Serialize>(&self, question: Ask) -> Result<T, CommandError> {
        let text = serde_json::to_vec(&Question::from(question))
            .map_err(|error| refused("E_PLUGIN_REPLY", format!("the question has no JSON form: {error}")))?;
        let asked = companion::ask(&companion::Question {
            program: &self.program,
            arguments: &self.arguments,
            text: &text,
            limit: MAX_REPLY_BYTES,
            deadline: self.deadline,
            cancel: None,
            check: &|| None,
        });
        let answer = asked.map_err(|error| refused(code(&error), error.to_string()))?;
        read(&answer.bytes, answer.ended_well).map_err(|error| refused(error.code(), error.to_string()))
    }
}

const fn code(error: &AskError) -> &'static str {
    match error {
        AskError::Start(_) | AskError::Cancelled | AskError::Stopped(_) => "E_PLUGIN_START",
        AskError::Unreadable(_) => "E_PLUGIN_REPLY",
        AskError::Late(_) => "E_PLUGIN_DEADLINE",
        AskError::TooLong(_) => "E_PLUGIN_OUTPUT",
    }
}

/// A signer that cannot be used.
pub(crate) fn refused(code: &str, why: impl Into<String>) -> CommandError {
    let message = format!("the signer cannot be used: {}", why.into());
    CommandError::unusable(
        code,
        message,
        "see docs/signers.md; ask it yourself: echo '{\"protocol\":\"requiem-signer/1\",\"verb\":\"info\"}' | PROGRAM",
    )
}
