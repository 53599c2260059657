//! A bundle for people. Everything in it was written by others, so nothing of it steers the terminal.

use requiem_model::RelPath;
use requiem_model::report::{SandboxReport, Status};
use requiem_model::result::{OutputContent, RunResult, Stream};
use requiem_proof::Verified;

use crate::result::{ReportedConfidence, engine_in_words};
use crate::text::{indented, printable, table, word};

/// What ran, with which isolation, and how far its determinism can be trusted.
pub(crate) fn bundle(verified: &Verified) -> String {
    let (facts, run) = (&verified.body.execution, &verified.body.run);
    let identity = &run.identity;
    let command: Vec<String> = facts.request.argv.iter().map(|argument| printable(argument)).collect();
    let row = |name: &str, value: String| [name.to_owned(), value];
    let rows = [
        row("bundle root", verified.bundle_root.to_string()),
        row("execution root", verified.execution_root.to_string()),
        row("request digest", verified.request_digest.to_string()),
        row("result digest", verified.result_digest.to_string()),
        row(
            "execution",
            format!(
                "{}/{} uid {} attempt {}",
                identity.namespace, identity.name, identity.uid, identity.attempt
            ),
        ),
        row("command", clip(&command.join(" "))),
        row("result", result_line(&facts.result)),
        row("engine", engine_in_words(&facts.engine)),
        row(
            "claimed by",
            printable(&format!(
                "{} {} ({}, Linux {})",
                run.executor.name, run.executor.version, run.executor.arch, run.executor.kernel
            )),
        ),
        row("claimed time", format!("{} to {}", run.started_at, run.completed_at)),
    ];
    format!(
        "{}\noutputs\n{}\nsandbox: {}\n{}\n{}",
        table(&rows),
        outputs(&facts.result),
        sandbox_line(&run.sandbox),
        indented(&sandbox_rows(&run.sandbox)),
        ReportedConfidence::from(&run.confidence).text(),
    )
}

fn result_line(result: &RunResult) -> String {
    let stream = |stream: &Stream| match stream.truncated {
        true => format!("{} bytes (truncated)", stream.bytes),
        false => format!("{} bytes", stream.bytes),
    };
    format!(
        "{}: {}; stdout {}, stderr {}",
        result.reason(),
        result.outcome,
        stream(&result.stdout),
        stream(&result.stderr)
    )
}

/// An output's path, kind, digest and size.
pub(crate) fn output(path: &RelPath, content: &OutputContent) -> (String, &'static str, String, u64) {
    let (kind, digest, bytes) = match content {
        OutputContent::Blob { digest, bytes, .. } => ("file", digest.to_string(), *bytes),
        OutputContent::Tree { digest, bytes, .. } => ("folder", digest.to_string(), *bytes),
    };
    (printable(path.as_str()), kind, digest, bytes)
}

fn outputs(result: &RunResult) -> String {
    let found = result.outputs.iter().map(|found| {
        let (path, kind, digest, bytes) = output(&found.path, &found.content);
        [path, kind.to_owned(), format!("{bytes} bytes"), digest]
    });
    let missing = result.missing_outputs.iter().map(|missing| {
        [printable(missing.path.as_str()), "missing".to_owned(), printable(&missing.why), String::new()]
    });
    let rows: Vec<[String; 4]> = found.chain(missing).collect();
    if rows.is_empty() { "  none declared\n".to_owned() } else { indented(&table(&rows)) }
}

/// How many layers there are of each status.
pub(crate) fn sandbox_line(report: &SandboxReport) -> String {
    let count = |status, word: &str| match report.names(status).len() {
        0 => None,
        count => Some(format!("{count} {word}")),
    };
    let parts = [
        count(Status::Enforced, "enforced"),
        count(Status::Partial, "partial"),
        count(Status::Unsupported, "unsupported"),
        count(Status::Delegated, "delegated"),
        count(Status::Disabled, "disabled"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// One row per layer: its name, status, evidence and mechanism, and why it falls short.
pub(crate) fn sandbox_rows(report: &SandboxReport) -> String {
    let head = ["LAYER", "STATUS", "EVIDENCE", "MECHANISM", "DETAIL"].map(str::to_owned);
    let rows = report.layers.iter().map(|row| {
        [
            row.layer.name().to_owned(),
            word(&row.status),
            word(&row.evidence),
            printable(&row.mechanism),
            printable(row.detail.as_deref().unwrap_or_default()),
        ]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
