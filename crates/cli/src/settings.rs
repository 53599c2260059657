//! The configuration file of the command line: where it lies, and the command line with it below.

use std::ffi::OsString;
use std::path::PathBuf;
use std::{env, fs};

use clap::{Args, Command};
use requiem_config::{Checked, File, FileError, Keys, Problem, Severity, check, leaf, settle};

use crate::config_arguments::{Kind, Settings};
use crate::error::CommandError;
use crate::report;
use crate::text::printable;

/// Names the file; empty for none.
pub(crate) const VARIABLE: &str = "REQUIEM_CONFIG";

/// The file that this program reads, and what it comes to.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    pub(crate) file: Option<PathBuf>,
    pub(crate) checked: Checked,
}

/// The keys of a kind of file.
pub(crate) fn keys(kind: Kind) -> Keys {
    match kind {
        Kind::Cli => Keys::of("cli", Settings::augment_args(Command::new("requiem"))),
        Kind::Operator => requiem_config::operator::keys(),
        Kind::Executor => requiem_config::executor::keys(),
    }
}

/// The command line, with what the file says where nobody else says something. Only for a command that takes a setting is the file
/// looked at, so that none can be kept from it by a broken one: `config validate` above all.
pub(crate) fn command_line(root: &Command) -> Result<Vec<OsString>, CommandError> {
    let arguments: Vec<OsString> = env::args_os().collect();
    let keys = keys(Kind::Cli);
    let (command, _) = leaf(root, &arguments);
    if !keys.iter().any(|key| key.is_taken_by(command)) {
        return Ok(arguments);
    }
    let Configured { file, checked } = configured(&keys)?;
    if let Some(path) = file {
        for problem in &checked.problems {
            report::warn(&format!("{}; {}", problem.line(&path), problem.hint));
        }
    }
    Ok(settle(root, arguments, &keys, &checked))
}

/// Reads and judges the file, if there is one; what is left of problems are warnings.
pub(crate) fn configured(keys: &Keys) -> Result<Configured, CommandError> {
    let (path, must_be) = place();
    let Some(path) = path else { return Ok(Configured::default()) };
    // Where nobody has named a file, a home that is not there, or another user's, has none for us.
    if !must_be && fs::metadata(&path).is_err() {
        return Ok(Configured::default());
    }
    let file = File::read(&path)?;
    let checked = check(&file, keys);
    match checked.problems.iter().find(|problem| problem.severity == Severity::Error) {
        Some(problem) => Err(refused(problem, &file)),
        None => Ok(Configured { file: Some(path), checked }),
    }
}

/// Where the file is, and whether somebody has said so.
pub(crate) fn place() -> (Option<PathBuf>, bool) {
    if let Some(named) = env::var_os(VARIABLE) {
        return (Some(PathBuf::from(named)).filter(|path| !path.as_os_str().is_empty()), true);
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    (folder.map(|folder| folder.join("requiem/config.toml")), false)
}

fn refused(problem: &Problem, file: &File) -> CommandError {
    let message = printable(&problem.line(&file.path));
    let message = message.trim_end_matches(&format!(" [{}]", problem.code.as_str())).to_owned();
    CommandError::unusable(problem.code.as_str(), message, problem.hint.clone())
}

impl From<FileError> for CommandError {
    fn from(error: FileError) -> Self {
        Self::unusable(error.code(), error.to_string(), error.hint())
    }
}
