//! `requiem bench run`: one request many times in the sandbox of this machine, and what it took.

use std::time::SystemTime;

use requiem_executor::check_request;
use requiem_model::RequestDigest;

use crate::bench::document::{RESULT_SCHEMA, RUN_FAILED, ResultDocument, Spread, Summary};
use crate::bench::environment::Environment;
use crate::bench::measure::{Bench, Measured};
use crate::bench::spec::Spec;
use crate::bench_arguments::BenchRun;
use crate::document::{Document, Keeper, MAX_DOCUMENT_BYTES};
use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::local::LocalExecutor;
use crate::report::Report;
use crate::text::{bytes, micros, printable, table};
use crate::{sandbox, store};

/// Runs the command. Exit code 1 if a run did not succeed.
pub(crate) fn run(arguments: &BenchRun) -> Result<Report, CommandError> {
    if let Some(path) = &arguments.out {
        store::check_writable(path)?;
    }
    let outcome = finished(arguments);
    store::write_outcome(arguments.out.as_deref(), outcome.as_ref())?;
    let document = outcome?;
    Ok(Report::new(&document, text(&document), document.ok))
}

fn finished(arguments: &BenchRun) -> Result<ResultDocument, CommandError> {
    let spec = Spec::parse(&store::read(&arguments.spec, MAX_DOCUMENT_BYTES)?)?;
    let document = Document::parse(&spec.request, &arguments.whose.tenant)?;
    // While this process has one thread, as the name spaces demand.
    sandbox::enter()?;
    let interrupt = Interrupt::watch()?;
    let namespace = document.tenant_id.clone();
    let objects = store::open(arguments.store.cas.as_deref(), &namespace)?;
    let request = document.request(&mut Keeper::Store(&objects), store::folder_of(&arguments.spec))?;
    let request_digest = check_request(&request)?;
    let executor = LocalExecutor::start(usize::try_from(spec.concurrency).unwrap_or(1))?;
    let started = SystemTime::now();
    let bench = Bench {
        executor: &executor,
        objects: &objects,
        namespace: &namespace,
        request: &request,
        interrupt: &interrupt,
        warmup: spec.warmup,
        repeats: spec.repeats,
        concurrency: spec.concurrency,
    };
    let measured = bench.measure()?;
    document_of(spec, request_digest, measured, started)
}

fn document_of(
    spec: Spec,
    request_digest: RequestDigest,
    measured: Measured,
    started: SystemTime,
) -> Result<ResultDocument, CommandError> {
    let environment = Environment::here(measured.engine, &measured.sandbox)?;
    let environment_digest = environment.digest().map_err(|error| {
        let message = format!("this machine has no fingerprint: {error}");
        CommandError::unusable("Environment", message, "please report this defect")
    })?;
    let ok = measured.first_failure.is_none();
    Ok(ResultDocument {
        ok,
        error_code: (!ok).then(|| RUN_FAILED.to_owned()),
        schema: RESULT_SCHEMA.to_owned(),
        name: spec.name,
        request_digest,
        warmup: spec.warmup,
        repeats: spec.repeats,
        concurrency: spec.concurrency,
        outcomes: measured.outcomes,
        first_failure: measured.first_failure,
        summary: Summary::of(&measured.samples),
        environment,
        environment_digest,
        started_at: store::rfc3339(started),
        completed_at: store::rfc3339(SystemTime::now()),
        samples: measured.samples,
    })
}

fn text(document: &ResultDocument) -> String {
    let row = |name: &str, value: String| [name.to_owned(), value];
    let warmup = if document.warmup == 0 {
        String::new()
    } else {
        format!(", after {} that do not count", document.warmup)
    };
    let outcomes = document.outcomes.iter().map(|(reason, count)| format!("{count} {reason}"));
    let mut rows = vec![
        row("name", printable(&document.name)),
        row("request", document.request_digest.to_string()),
        row(
            "runs",
            format!(
                "{}; {} at a time{warmup}",
                outcomes.collect::<Vec<_>>().join(", "),
                document.concurrency
            ),
        ),
        row("environment", document.environment_digest.to_string()),
        row("", document.environment.line()),
    ];
    if let Some(failure) = &document.first_failure {
        let message = printable(&failure.message);
        rows.push(row(
            "failed",
            format!("run {} first, {}: {message} [{RUN_FAILED}]", failure.run, failure.reason),
        ));
    }
    format!("{}{}", table(&rows), document.summary.as_ref().map_or(String::new(), figures))
}

fn figures(summary: &Summary) -> String {
    let head = ["", "p50", "p95", "p99", "MAD", "min", "max"].map(str::to_owned);
    let row = |name: &str, spread: &Spread, unit: fn(u64) -> String| {
        let Spread { p50, p95, p99, mad, min, max } = *spread;
        let [p50, p95, p99, mad, min, max] = [p50, p95, p99, mad, min, max].map(unit);
        [name.to_owned(), p50, p95, p99, mad, min, max]
    };
    table(&[
        head,
        row("wall time", &summary.wall_us, micros),
        row("cpu time", &summary.cpu_us, micros),
        row("peak memory", &summary.peak_memory_bytes, bytes),
    ])
}
