//! `requiem config validate`: a configuration file against the settings of the program that it is for.

use std::path::PathBuf;

use clap::ValueEnum;
use requiem_config::{File, Problem, Severity, Value, check};
use schemars::JsonSchema;
use serde::Serialize;

use crate::config_arguments::{ConfigValidate, Kind};
use crate::error::CommandError;
use crate::report::Report;
use crate::settings;
use crate::text::{count, printable, shown};

/// What is wrong with a file.
#[derive(Serialize, JsonSchema)]
pub(super) struct Judged {
    /// Whether nothing is.
    ok: bool,
    /// For reading: a byte that is not UTF-8 shows as U+FFFD.
    file: String,
    /// For which program the file is: `cli`, `operator` or `executor`.
    kind: &'static str,
    /// How many settings the file makes.
    settings: usize,
    problems: Vec<Row>,
}

/// One thing that is wrong.
#[derive(Serialize, JsonSchema)]
struct Row {
    /// `warning`: the rest of the file is used. `error`: the file is not used.
    severity: &'static str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    field: String,
    message: String,
    hint: String,
}

/// Runs the command. Exit code 1 if something would be passed over, 2 if the file would be refused.
pub(crate) fn run(arguments: &ConfigValidate) -> Result<Report, CommandError> {
    let path = arguments.file.clone().map_or_else(own, Ok)?;
    let file = File::read(&path)?;
    let keys = settings::keys(arguments.kind.unwrap_or_else(|| kind(&file)));
    let checked = check(&file, &keys);
    let judged = Judged {
        ok: checked.problems.is_empty(),
        file: path.to_string_lossy().into_owned(),
        kind: keys.kind,
        settings: checked.settings.len(),
        problems: checked.problems.iter().map(Row::from).collect(),
    };
    let is_unusable = checked.problems.iter().any(|problem| problem.severity == Severity::Error);
    let report = Report::new(&judged, text(&judged, &path, &checked.problems), judged.ok);
    Ok(if is_unusable { report.exiting_with(2) } else { report })
}

/// The file that this program reads.
fn own() -> Result<PathBuf, CommandError> {
    settings::place().0.ok_or_else(|| {
        let message =
            format!("there is no file to judge: {} is empty, or HOME is not set", settings::VARIABLE);
        CommandError::unusable("Usage", message, "name the file")
    })
}

/// What the file says of itself. One that says nothing that is understood is judged as our own.
fn kind(file: &File) -> Kind {
    let said = file.entries.iter().find_map(|entry| match &entry.value {
        Value::Text(text) if entry.key == "kind" => Kind::from_str(text, false).ok(),
        _ => None,
    });
    said.unwrap_or(Kind::Cli)
}

impl From<&Problem> for Row {
    fn from(problem: &Problem) -> Self {
        let Problem { severity, code, line, field, message, hint } = problem.clone();
        Self { severity: severity.as_str(), code: code.as_str(), line, field, message, hint }
    }
}

fn text(judged: &Judged, path: &std::path::Path, problems: &[Problem]) -> String {
    if problems.is_empty() {
        let settings = count(judged.settings as u64, "setting", "settings");
        return format!("{}: ok, {settings} for {}\n", shown(path), judged.kind);
    }
    let told = problems.iter().map(|problem| {
        let (line, hint) = (printable(&problem.line(path)), printable(&problem.hint));
        format!("{}: {line}\n hint: {hint}\n", problem.severity.as_str())
    });
    told.collect()
}
