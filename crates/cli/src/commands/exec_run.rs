//! `requiem exec run`: the same steps as the executor's, on this machine and without Kubernetes.

use std::path::Path;

use requiem_cas::TenantStore;
use requiem_executor::archive::Archive;
use requiem_executor::{Deps, Keep, execute, executor_claim};
use requiem_model::ExecutionRequest;
use requiem_model::attempt::{Identity, SealedAttempt};
use requiem_model::result::Stream;
use requiem_proof::{Expect, Sealed, Verified, verify};

use crate::arguments::ExecRun;
use crate::document::{Document, Keeper, MAX_DOCUMENT_BYTES};
use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::report::Report;
use crate::result::{RunDocument, outcome_in_words};
use crate::text::{indented, printable, table};
use crate::{random, sandbox, store};

/// Lines of each stream that people are shown.
const SHOWN_LINES: usize = 40;

/// Runs the command.
pub(crate) fn run(arguments: &ExecRun) -> Result<Report, CommandError> {
    for path in [&arguments.out, &arguments.proof].into_iter().flatten() {
        store::check_writable(path)?;
    }
    let outcome = finished(arguments);
    let document = match &outcome {
        Ok((_, document)) => serde_json::to_string_pretty(document),
        Err(error) => serde_json::to_string_pretty(&error.document()),
    };
    if let (Some(path), Ok(text)) = (&arguments.out, document) {
        store::write(path, format!("{text}\n").as_bytes())?;
    }
    let (verified, document) = outcome?;
    let text = text(&verified, &document);
    Ok(Report::new(&document, text, document.ok))
}

fn finished(arguments: &ExecRun) -> Result<(Verified, RunDocument), CommandError> {
    let document = Document::parse(&store::read(&arguments.request, MAX_DOCUMENT_BYTES)?)?;
    // While this process has one thread, as the name spaces demand.
    sandbox::enter()?;
    let interrupt = Interrupt::watch()?;
    let identity = identity(&document)?;
    let cas = arguments.store.cas.as_deref();
    let objects = store::open(cas, &identity.namespace)?;
    let request = document.request(&mut Keeper::Store(&objects), base(&arguments.request))?;
    let Ran { sealed, verified } = execute_here(cas, &objects, &identity, &request, &interrupt)?;
    if let Some(path) = &arguments.proof {
        let text = sealed.to_file().map_err(|error| store::encoding(&error))?;
        store::write(path, format!("{text}\n").as_bytes())?;
    }
    let result = &verified.body.execution.result;
    let (stdout, stderr) = (stream(&objects, &result.stdout)?, stream(&objects, &result.stderr)?);
    let document = RunDocument::new(&verified, stdout, stderr, sealed.body);
    Ok((verified, document))
}

/// A run, and what follows from its proof.
pub(crate) struct Ran {
    pub(crate) sealed: Sealed,
    pub(crate) verified: Verified,
}

/// Runs a request in the sandbox of this machine, judges its proof, and keeps it in the store of `objects`, which lies at `cas`.
pub(crate) fn execute_here(
    cas: Option<&Path>,
    objects: &TenantStore,
    identity: &Identity,
    request: &ExecutionRequest,
    interrupt: &Interrupt,
) -> Result<Ran, CommandError> {
    let runner = sandbox::start()?;
    let claim = executor_claim("requiem-cli").map_err(|error| {
        let message = format!("cannot read this program and the kernel's release: {error}");
        CommandError::unusable("Environment", message, "mount /proc")
    })?;
    let deps = Deps { store: objects, runner: &runner, claim: &claim, keep: Keep::Strict };
    let ran = execute(&deps, identity, request, &[], interrupt.cancel());
    let sealed = ran.map_err(|failure| interrupt.explain(failure))?.sealed;
    let verified = believed(&sealed)?;
    let SealedAttempt { body, execution_root, bundle_root, .. } = sealed;
    let sealed = Sealed { body, execution_root, bundle_root };
    remember(cas, identity, &sealed)?;
    Ok(Ran { sealed, verified })
}

/// Keeps the bundle of a run in the store, so that garbage collection knows what it names.
fn remember(cas: Option<&Path>, identity: &Identity, sealed: &Sealed) -> Result<(), CommandError> {
    let folder = store::folder(cas)?;
    Archive::new(&folder)
        .keep_durably(&identity.namespace, sealed)
        .map_err(|error| store::cannot("keep the bundle of the run in", &folder, &error))
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

/// A random id of the shape of a UUID, version 4.
pub(crate) fn random_id() -> Result<String, CommandError> {
    let mut bytes: [u8; 16] = random::bytes()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let group = |from: usize, to: usize| hex[from..to].concat();
    Ok([group(0, 4), group(4, 6), group(6, 8), group(8, 10), group(10, 16)].join("-"))
}

pub(super) fn base(request: &Path) -> &Path {
    match request.parent() {
        Some(folder) if request != Path::new("-") && !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What the executor says is a claim, here as everywhere.
fn believed(sealed: &SealedAttempt) -> Result<Verified, CommandError> {
    let expect = Expect {
        execution_root: Some(sealed.execution_root),
        bundle_root: Some(sealed.bundle_root),
        ..Expect::default()
    };
    verify(&sealed.body, &expect).map_err(|error| {
        let message = format!("the run's own proof is refused: {error}");
        CommandError::finding(error.code(), message, "this is a defect; please report it")
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
        row(
            "result",
            format!(
                "{}: {}, {} ms",
                result.reason(),
                outcome_in_words(&result.outcome),
                document.duration_ms
            ),
        ),
        row("request", document.request_digest.to_string()),
        row("execution root", document.execution_root.to_string()),
        row("bundle root", document.bundle_root.to_string()),
    ];
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
