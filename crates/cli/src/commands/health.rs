//! `requiem health`: what this machine can do, by trying it.

use requiem_model::confidence::assess;
use requiem_model::report::{SandboxReport, Status};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::StoreArguments;
use crate::error::CommandError;
use crate::proof_text::{sandbox_line, sandbox_rows};
use crate::report::Report;
use crate::result::{AppliedSandbox, ReportedConfidence};
use crate::schema;
use crate::text::{indented, printable};
use crate::{sandbox, store};

/// What was found.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    ok: bool,
    version: &'static str,
    kernel: String,
    arch: &'static str,
    /// For reading: a byte that is not UTF-8 shows as U+FFFD.
    store: String,
    sandbox: AppliedSandbox,
    #[schemars(schema_with = "schema::report")]
    report: SandboxReport,
    determinism_confidence: ReportedConfidence,
}

/// Runs the command. Healthy is a machine on which every layer is in force; else the exit code is 1.
pub(crate) fn run(arguments: &StoreArguments) -> Result<Report, CommandError> {
    sandbox::enter()?;
    let folder = store::folder(arguments.cas.as_deref())?;
    store::open(Some(&folder), "default")?;
    let report = sandbox::probe()?;
    let health = Health {
        ok: report.layers.iter().all(|row| row.status == Status::Enforced),
        version: env!("CARGO_PKG_VERSION"),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim_end()
            .to_owned(),
        arch: std::env::consts::ARCH,
        store: folder.to_string_lossy().into_owned(),
        sandbox: AppliedSandbox::from(&report),
        determinism_confidence: ReportedConfidence::from(&assess(&report)),
        report,
    };
    Ok(Report::new(&health, text(&health), health.ok))
}

fn text(health: &Health) -> String {
    format!(
        "requiem {} on Linux {} {}\nstore: {} can be used\nsandbox: {}\n{}{}",
        health.version,
        printable(&health.kernel),
        health.arch,
        printable(&health.store),
        sandbox_line(&health.report),
        indented(&sandbox_rows(&health.report)),
        health.determinism_confidence.text(),
    )
}
