//! What a command says, and the one place that says it.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::error::CommandError;
use crate::text::printable;

/// What a command found out, for people and as a document.
pub(crate) struct Report {
    json: Result<String, serde_json::Error>,
    text: String,
    exit_code: u8,
    after: Option<After>,
}

/// What is still to be done once the report is out. What it has to say goes to standard error, and changes nothing.
type After = Box<dyn FnOnce() -> String>;

impl Report {
    /// A report; `is_good` decides between the exit codes 0 and 1.
    pub(crate) fn new<T: Serialize>(document: &T, text: String, is_good: bool) -> Self {
        Self {
            json: serde_json::to_string_pretty(document),
            text,
            exit_code: u8::from(!is_good),
            after: None,
        }
    }

    /// The same with another exit code, for a command whose own rules say so.
    pub(crate) fn exiting_with(self, exit_code: u8) -> Self {
        Self { exit_code, ..self }
    }

    /// The same with something to do when nobody waits for the report any more.
    pub(crate) fn then(self, after: impl FnOnce() -> String + 'static) -> Self {
        Self { after: Some(Box::new(after)), ..self }
    }

    /// Says nothing more: the command's output has been written.
    pub(crate) const fn silent() -> Self {
        Self { json: Ok(String::new()), text: String::new(), exit_code: 0, after: None }
    }
}

/// Prints what came out and gives the exit code. Errors go to standard error; with `as_json` also as a document
/// to standard output, so that a program that reads it always gets one.
pub(crate) fn finish(outcome: Result<Report, CommandError>, as_json: bool) -> ExitCode {
    match outcome.and_then(|report| Ok((print(&report, as_json)?, report.after))) {
        Ok((code, after)) => {
            after.into_iter().for_each(follow_up);
            ExitCode::from(code)
        }
        Err(error) => {
            if as_json {
                let text = serde_json::to_string_pretty(&error.document()).unwrap_or_default();
                // The error is told below as well, so a closed pipe loses nothing.
                let _told_on_stderr = write_stdout(&text);
            }
            complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Does what is left to do. Who reads standard output has seen its end by then.
fn follow_up(after: After) {
    if let Ok(nowhere) = std::fs::File::options().write(true).open("/dev/null") {
        // Else its end is seen when this process ends.
        let _stays_open = rustix::stdio::dup2_stdout(nowhere);
    }
    // There is nobody left to tell.
    let _nobody_listens = io::stderr().write_all(after().as_bytes());
}

fn print(report: &Report, as_json: bool) -> Result<u8, CommandError> {
    let text = match (&report.json, as_json) {
        (_, false) => &report.text,
        (Ok(json), true) => json,
        (Err(error), true) => {
            let message = format!("the result has no JSON form: {error}");
            return Err(CommandError::unusable(
                "Encoding",
                message,
                "leave --json out and report this defect",
            ));
        }
    };
    write_stdout(text).map_err(|error| no_stdout(&error))?;
    Ok(report.exit_code)
}

/// Standard output takes nothing more.
pub(crate) fn no_stdout(error: &io::Error) -> CommandError {
    let message = format!("cannot write to standard output: {error}");
    CommandError::unusable("Output", message, "see where standard output leads to")
}

/// Prints what the command line's grammar has to say: help, the version, or what is wrong with the arguments.
pub(crate) fn usage(error: &clap::Error, as_json: bool) -> ExitCode {
    let is_wrong = error.use_stderr();
    if is_wrong && as_json {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let wrong =
            CommandError::unusable("Usage", message, "see requiem --help, and --help of each command");
        let text = serde_json::to_string_pretty(&wrong.document()).unwrap_or_default();
        // It is told below as well.
        let _told_on_stderr = write_stdout(&text);
    }
    match error.print() {
        Err(failed) if !is_wrong && failed.kind() != ErrorKind::BrokenPipe => {
            complain(&no_stdout(&failed));
            ExitCode::from(2)
        }
        _ => ExitCode::from(if is_wrong { 2 } else { 0 }),
    }
}

/// Writes to standard output. A reader that has gone (`| head`) has seen what it wanted.
fn write_stdout(text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(text.trim_end_matches('\n').as_bytes());
    match written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Says on standard error what is no reason to stop.
pub(crate) fn warn(text: &str) {
    // There is nobody left to tell.
    let _nobody_listens = io::stderr().write_all(format!("warning: {}\n", printable(text)).as_bytes());
}

fn complain(error: &CommandError) {
    let (message, hint) = (printable(&error.message), printable(&error.hint));
    let text = format!("error: {message} [{}]\n hint: {hint}\n", error.error_code);
    // There is nobody left to tell.
    let _nobody_listens = io::stderr().write_all(text.as_bytes());
}
