//! `requiem sandbox probe`: which layers this machine can enforce, by a real run of nothing.

use requiem_model::confidence::assess;
use requiem_model::report::{SandboxReport, Status};
use schemars::JsonSchema;
use serde::Serialize;

use super::sandbox_explain::needs;
use crate::error::CommandError;
use crate::proof_text::{sandbox_line, sandbox_rows};
use crate::report::Report;
use crate::result::{AppliedSandbox, ReportedConfidence};
use crate::{sandbox, schema};

/// What was found.
#[derive(Serialize, JsonSchema)]
pub(super) struct Probed {
    ok: bool,
    sandbox: AppliedSandbox,
    #[schemars(schema_with = "schema::report")]
    report: SandboxReport,
    determinism_confidence: ReportedConfidence,
}

/// Runs the command. Exit code 1 if a layer is not in force.
pub(crate) fn run() -> Result<Report, CommandError> {
    sandbox::enter()?;
    let report = sandbox::probe()?;
    let ok = report.layers.iter().all(|row| row.status == Status::Enforced);
    let confidence = ReportedConfidence::from(&assess(&report));
    let text = format!(
        "{}\n{}{}{}",
        sandbox_line(&report),
        sandbox_rows(&report),
        needs(&report),
        confidence.text()
    );
    let sandbox = AppliedSandbox::from(&report);
    Ok(Report::new(&Probed { ok, sandbox, report, determinism_confidence: confidence }, text, ok))
}
