//! `requiem exec replay`: the request of a bundle once more, in the sandbox of this machine, and the two results beside one another.

use requiem_executor::engine::EngineName;
use requiem_model::attempt::Identity;
use requiem_model::{BundleRoot, ExecutionRoot, RequestDigest};
use requiem_proof::replays::{MAX_REPLAYS_BYTES, Replays};
use requiem_proof::{ProofFile, Sealed, Verified};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::ExecReplay;
use crate::commands::proof_generate::read_result;
use crate::divergence::{Difference, of_execution};
use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::local::{Ran, execute_here, random_id};
use crate::proof_input::{self, Bundle};
use crate::report::Report;
use crate::result::{AppliedSandbox, ReportedConfidence};
use crate::schema;
use crate::text::{printable, table};
use crate::{metrics, sandbox, store};

/// What came of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Replayed {
    ok: bool,
    agrees: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_divergence: Option<String>,
    divergences: Vec<String>,
    #[schemars(schema_with = "schema::digest")]
    request_digest: RequestDigest,
    #[schemars(schema_with = "schema::digest")]
    execution_root: ExecutionRoot,
    #[schemars(schema_with = "schema::digest")]
    bundle_root: BundleRoot,
    #[schemars(schema_with = "schema::digest")]
    replay_execution_root: ExecutionRoot,
    #[schemars(schema_with = "schema::digest")]
    replay_bundle_root: BundleRoot,
    replay_uid: String,
    sandbox_applied: AppliedSandbox,
    determinism_confidence: ReportedConfidence,
}

/// Runs the command. Exit code 1 if the two differ.
pub(crate) fn run(arguments: &ExecReplay) -> Result<Report, CommandError> {
    replay(arguments, || original(arguments))
}

/// The same with a bundle that comes from elsewhere, with its inputs, when it is asked for.
pub(crate) fn replay(
    arguments: &ExecReplay,
    original: impl FnOnce() -> Result<Bundle, CommandError>,
) -> Result<Report, CommandError> {
    // While this process has one thread, as the name spaces demand.
    sandbox::enter()?;
    let interrupt = Interrupt::watch()?;
    for path in [&arguments.proof, &arguments.receipts].into_iter().flatten() {
        store::check_writable(path)?;
    }
    let original = original()?;
    repeatable(&original.verified)?;
    let receipts = receipts(arguments, &original.verified)?;
    let identity = Identity {
        namespace: arguments.whose.tenant.clone(),
        name: "replay".to_owned(),
        uid: random_id()?,
        generation: 1,
        attempt: 1,
    };
    let cas = arguments.store.cas.as_deref();
    let objects = store::open(cas, &identity.namespace)?;
    let request = &original.verified.body.execution.request;
    let ran = execute_here(&EngineName::Requiem, cas, &objects, &identity, request, &interrupt);
    let place = store::folder(cas)?;
    let ran = ran.inspect_err(|error| metrics::count(&place, |totals| totals.failed(error)))?;
    let agrees = original.verified.execution_root == ran.verified.execution_root;
    metrics::count(&place, |totals| {
        totals.ran(&ran);
        totals.replayed(agrees);
    });
    let Ran { sealed, verified: again, .. } = ran;
    keep(arguments, sealed, receipts)?;
    let differing = of_execution(&original.verified, &again);
    let document = document(&original.verified, &again, &differing);
    let text = text(&original.verified, &again, &differing);
    Ok(Report::new(&document, text, document.agrees))
}

fn original(arguments: &ExecReplay) -> Result<Bundle, CommandError> {
    match (&arguments.bundle, &arguments.result) {
        (Some(bundle), _) => proof_input::read_bundle(bundle),
        (None, Some(result)) => read_result(result),
        (None, None) => Err(CommandError::unusable(
            "Usage",
            "there is nothing to replay",
            "name a proof with --bundle FILE, or what exec run --out wrote with --result FILE",
        )),
    }
}

/// A proof holds where values of Secrets stood, and not what they were: then nobody can say that a re-run was given the same.
fn repeatable(original: &Verified) -> Result<(), CommandError> {
    let references = &original.body.execution.request.env_refs;
    if references.is_empty() {
        return Ok(());
    }
    let named = references.iter().map(|one| format!("{} from {}", printable(one.name.as_str()), one.source));
    let named = named.collect::<Vec<_>>().join(", ");
    let message = format!(
        "the run took values that its proof does not hold, and cannot be repeated without them: {named}"
    );
    let hint = "create the Execution again in the cluster that has them, and compare the two execution roots";
    Err(CommandError::unusable("ValuesUndisclosed", message, hint))
}

/// Receipts to be extended: read before anything is run, so that a run is not lost to a file that cannot be used.
fn receipts(arguments: &ExecReplay, original: &Verified) -> Result<Option<Replays>, CommandError> {
    let Some(path) = &arguments.receipts else { return Ok(None) };
    if !path.exists() {
        return Ok(Some(Replays::of(original)));
    }
    let receipts = Replays::parse(&store::read(path, MAX_REPLAYS_BYTES as u64)?);
    let checked = receipts.and_then(|receipts| receipts.tally(original).map(|_| receipts));
    checked.map(Some).map_err(|error| {
        CommandError::unusable(
            error.code(),
            error.to_string(),
            "name another file; it is made if it is not there",
        )
    })
}

fn keep(arguments: &ExecReplay, sealed: Sealed, receipts: Option<Replays>) -> Result<(), CommandError> {
    if let Some(path) = &arguments.proof {
        let text = ProofFile::from(sealed.clone()).to_json().map_err(|error| store::encoding(&error))?;
        store::write(path, format!("{text}\n").as_bytes())?;
    }
    if let (Some(path), Some(mut receipts)) = (&arguments.receipts, receipts) {
        receipts.push(sealed);
        let text = serde_json::to_string_pretty(&receipts).map_err(|error| store::encoding(&error))?;
        store::write(path, format!("{text}\n").as_bytes())?;
    }
    Ok(())
}

fn document(original: &Verified, again: &Verified, differing: &[Difference]) -> Replayed {
    let names: Vec<String> = differing.iter().map(|difference| difference.item.clone()).collect();
    let agrees = original.execution_root == again.execution_root;
    Replayed {
        ok: agrees,
        agrees,
        first_divergence: names.first().cloned(),
        divergences: names,
        request_digest: original.request_digest,
        execution_root: original.execution_root,
        bundle_root: original.bundle_root,
        replay_execution_root: again.execution_root,
        replay_bundle_root: again.bundle_root,
        replay_uid: again.body.run.identity.uid.clone(),
        sandbox_applied: AppliedSandbox::from(&again.body.run.sandbox),
        determinism_confidence: ReportedConfidence::from(&again.body.run.confidence),
    }
}

fn text(original: &Verified, again: &Verified, differing: &[Difference]) -> String {
    let head = match differing {
        [] => "replayed once, and it agrees: every item has the same content".to_owned(),
        [first, rest @ ..] => {
            let more =
                if rest.is_empty() { String::new() } else { format!(" and {} more items", rest.len()) };
            format!("replayed once, and it diverges: first in {}{more}", printable(&first.item))
        }
    };
    let row = |name: &str, one: String, other: String| [name.to_owned(), one, other];
    let mut rows = vec![
        row("", "THEN".to_owned(), "NOW".to_owned()),
        row("execution root", original.execution_root.to_string(), again.execution_root.to_string()),
    ];
    for Difference { item, one, other } in differing {
        rows.push(row(&printable(item), one.clone(), other.clone()));
    }
    format!("{head}\n{}", table(&rows))
}
