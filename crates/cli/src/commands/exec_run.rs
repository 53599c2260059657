//! `requiem exec run`: the same steps as the executor's, on this machine and without Kubernetes.

use requiem_cas::TenantStore;
use requiem_executor::engine::EngineName;
use requiem_model::attempt::Identity;
use requiem_model::confidence::SANDBOX;
use requiem_model::result::Stream;
use requiem_proof::Verified;

use crate::arguments::ExecRun;
use crate::document::{Document, Keeper, MAX_DOCUMENT_BYTES};
use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::local::{Ran, execute_here, random_id};
use crate::report::Report;
use crate::result::{RunDocument, engine_in_words};
use crate::text::{indented, printable, table};
use crate::trial::{Trial, Tried};
use crate::{metrics, sandbox, store};

/// Lines of each stream that people are shown.
const SHOWN_LINES: usize = 40;

/// Runs the command.
pub(crate) fn run(arguments: &ExecRun) -> Result<Report, CommandError> {
    for path in [&arguments.out, &arguments.proof, &arguments.trial.diff].into_iter().flatten() {
        store::check_writable(path)?;
    }
    let outcome = finished(arguments);
    let place = store::folder(arguments.store.cas.as_deref()).ok();
    if let Some(place) = &place {
        metrics::count(place, |totals| match &outcome {
            Ok(Finished { ran, .. }) => totals.ran(ran),
            Err(error) => totals.failed(error),
        });
    }
    store::write_outcome(arguments.out.as_deref(), outcome.as_ref().map(|finished| &finished.document))?;
    let Finished { ran, document, trial } = outcome?;
    let text = text(&ran.verified, &document);
    let report = Report::new(&document, text, document.ok);
    Ok(match trial {
        None => report,
        Some(trial) => report.then(move || {
            let Tried { text, verdict, counts } = trial.run(&ran.verified);
            if let Some(place) = place {
                metrics::count(&place, |totals| totals.tried(&verdict, &counts));
            }
            text
        }),
    })
}

/// A run that has a result, and what is to be tried after it.
struct Finished {
    ran: Ran,
    document: RunDocument,
    trial: Option<Trial>,
}

fn finished(arguments: &ExecRun) -> Result<Finished, CommandError> {
    let document =
        Document::parse(&store::read(&arguments.request, MAX_DOCUMENT_BYTES)?, &arguments.whose.tenant)?;
    // For the sandbox alone, and not for it as a candidate: what a candidate needs must not change what the primary sees.
    if arguments.by.engine == EngineName::Requiem {
        // While this process has one thread, as the name spaces demand.
        sandbox::enter()?;
    }
    let interrupt = Interrupt::watch()?;
    let identity = identity(&document)?;
    let cas = arguments.store.cas.as_deref();
    let objects = store::open(cas, &identity.namespace)?;
    let request = document.request(&mut Keeper::Store(&objects), store::folder_of(&arguments.request))?;
    let ran = execute_here(&arguments.by.engine, cas, &objects, &identity, &request, &interrupt)?;
    let Ran { sealed, verified, .. } = &ran;
    if let Some(path) = &arguments.proof {
        let text = sealed.to_file().map_err(|error| store::encoding(&error))?;
        store::write(path, format!("{text}\n").as_bytes())?;
    }
    let result = &verified.body.execution.result;
    let (stdout, stderr) = (stream(&objects, &result.stdout)?, stream(&objects, &result.stderr)?);
    let document = RunDocument::new(verified, stdout, stderr, sealed.body.clone());
    let trial = Trial::of(&arguments.trial, objects, identity, request, interrupt);
    Ok(Finished { ran, document, trial })
}

/// Who asks: the tenant, and an id of the user's or of ours.
fn identity(document: &Document) -> Result<Identity, CommandError> {
    let uid = match &document.request_id {
        Some(id) => id.clone(),
        None => random_id()?,
    };
    Ok(Identity {
        namespace: document.tenant_id.clone(),
        name: "local".to_owned(),
        uid,
        generation: 1,
        attempt: 1,
    })
}

fn stream(objects: &TenantStore, stream: &Stream) -> Result<String, CommandError> {
    let bytes = objects.get_bytes(&stream.digest, stream.bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn text(verified: &Verified, document: &RunDocument) -> String {
    let result = &verified.body.execution.result;
    let row = |name: &str, value: String| [name.to_owned(), value];
    let mut rows = vec![
        row("result", format!("{}: {}, {} ms", result.reason(), result.outcome, document.duration_ms)),
        row("request", document.request_digest.to_string()),
    ];
    if document.engine.name != SANDBOX {
        rows.push(row("engine", engine_in_words(&document.engine)));
    }
    rows.push(row("execution root", document.execution_root.to_string()));
    rows.push(row("bundle root", document.bundle_root.to_string()));
    for (path, digest) in &document.output_digests {
        rows.push(row("output", format!("{digest}  {}", printable(path))));
    }
    for missing in &document.missing_outputs {
        let path = printable(missing.path.as_str());
        rows.push(row("missing", format!("{path}: {}", printable(&missing.why))));
    }
    let stdout = shown("stdout", &document.stdout, &result.stdout);
    let stderr = shown("stderr", &document.stderr, &result.stderr);
    let shortfalls = document.sandbox_applied.shortfalls();
    format!("{}{stdout}{stderr}{shortfalls}{}", table(&rows), document.determinism_confidence.text())
}

/// The end of a stream, with nothing in it that could steer the terminal.
fn shown(name: &str, text: &str, stream: &Stream) -> String {
    if stream.bytes == 0 {
        return String::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(SHOWN_LINES);
    let above = if from == 0 {
        String::new()
    } else {
        format!("  … {from} lines above; all of it: requiem cas get {}\n", stream.digest)
    };
    let cut = if stream.truncated { ", truncated" } else { "" };
    let body: String = lines[from..].iter().map(|line| printable(line) + "\n").collect();
    format!("{name} ({} bytes{cut})\n{above}{}", stream.bytes, indented(&body))
}
