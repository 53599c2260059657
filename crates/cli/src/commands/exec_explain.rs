//! `requiem exec explain`: what `exec run` would do with a request. Nothing is run, and nothing is kept.

use requiem_cas::TenantStore;
use requiem_executor::check_request;
use requiem_model::confidence::assess;
use requiem_model::report::{LayerReport, Proof, Source, SourceReport, SourceState, Status};
use requiem_model::request::InputSource;
use requiem_model::{
    BlobDigest, ExecutionRequest, Layer, RequestDigest, Requirement, SandboxPolicy, SandboxReport,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::ExecExplain;
use crate::document::{Document, Keeper, MAX_DOCUMENT_BYTES};
use crate::error::CommandError;
use crate::report::Report;
use crate::result::ReportedConfidence;
use crate::text::{indented, printable, table};
use crate::{schema, store};

/// What would be run.
#[derive(Serialize, JsonSchema)]
pub(super) struct Explained {
    ok: bool,
    #[schemars(schema_with = "schema::digest")]
    request_digest: RequestDigest,
    tenant_id: String,
    /// After defaulting, in the form that is digested.
    #[schemars(schema_with = "schema::request")]
    request: ExecutionRequest,
    inputs: Vec<Found>,
    required: Vec<&'static str>,
    preferred: Vec<&'static str>,
    off: Vec<&'static str>,
    /// What the run could reach if every layer that is not off were enforced here.
    determinism_at_best: ReportedConfidence,
}

/// One input, or standard input.
#[derive(Serialize, JsonSchema)]
pub(super) struct Found {
    /// Its path below the workspace, or `stdin`.
    place: String,
    kind: &'static str,
    digest: String,
    /// Whether the run would find it: it is in the store, or the request brings it along.
    there: bool,
}

/// Runs the command. Exit code 1 if an input is missing.
pub(crate) fn run(arguments: &ExecExplain) -> Result<Report, CommandError> {
    let document =
        Document::parse(&store::read(&arguments.request, MAX_DOCUMENT_BYTES)?, &arguments.whose.tenant)?;
    let tenant_id = document.tenant_id.clone();
    let objects = existing(arguments, &tenant_id)?;
    let mut brought = Vec::new();
    let request =
        document.request(&mut Keeper::Digests(&mut brought), store::folder_of(&arguments.request))?;
    let request_digest = check_request(&request)?;
    let inputs = inputs(&request, &brought, objects.as_ref())?;
    let explained = Explained {
        ok: inputs.iter().all(|input| input.there),
        request_digest,
        tenant_id,
        inputs,
        required: at(&request.policy, Requirement::Required),
        preferred: at(&request.policy, Requirement::Preferred),
        off: at(&request.policy, Requirement::Off),
        determinism_at_best: ReportedConfidence::from(&assess(&best(&request.policy))),
        request,
    };
    let text = text(&explained);
    Ok(Report::new(&explained, text, explained.ok))
}

/// The tenant's objects, if there is such a store; none is made.
fn existing(arguments: &ExecExplain, tenant: &str) -> Result<Option<TenantStore>, CommandError> {
    store::parse_tenant(tenant)?;
    let folder = store::folder(arguments.store.cas.as_deref())?;
    let is_there = folder.join("tenants").join(tenant).is_dir();
    if is_there { store::open(Some(&folder), tenant).map(Some) } else { Ok(None) }
}

fn inputs(
    request: &ExecutionRequest,
    brought: &[BlobDigest],
    objects: Option<&TenantStore>,
) -> Result<Vec<Found>, CommandError> {
    let found = |place: String, kind: &'static str, digest: BlobDigest| {
        let kept = objects.map_or(Ok(false), |objects| objects.contains(&digest));
        let there = brought.contains(&digest) || kept?;
        Ok(Found { place, kind, digest: digest.to_string(), there })
    };
    let stdin = request.stdin.map(|digest| ("stdin".to_owned(), "blob", digest));
    let inputs = request.inputs.iter().map(|input| {
        let (kind, digest) = match &input.source {
            InputSource::Blob { digest, .. } => ("blob", *digest),
            InputSource::Tree { digest } => ("tree", BlobDigest::from_bytes(*digest.as_bytes())),
        };
        (input.path.to_string(), kind, digest)
    });
    stdin.into_iter().chain(inputs).map(|(place, kind, digest)| found(place, kind, digest)).collect()
}

fn at(policy: &SandboxPolicy, level: Requirement) -> Vec<&'static str> {
    let layers = Layer::ALL.into_iter().filter(|layer| policy.requirement(*layer) == level);
    layers.map(Layer::name).collect()
}

/// The report of a machine that enforces everything that is wanted: no run can have a better one under this policy.
fn best(policy: &SandboxPolicy) -> SandboxReport {
    let wanted = |layer| policy.requirement(layer) != Requirement::Off;
    let row = |layer| {
        let requested = policy.requirement(layer);
        let enforced = LayerReport::enforced(layer, requested, "at best", Proof::Probe);
        if wanted(layer) { enforced } else { LayerReport { status: Status::Disabled, ..enforced } }
    };
    let is_fixed = |source| match source {
        Source::Environment | Source::AddressLayout | Source::InputTimes => true,
        Source::Identity => wanted(Layer::UtsNamespace),
        Source::ProcessIds => wanted(Layer::PidNamespace),
        Source::Network => wanted(Layer::NetworkNamespace),
        Source::RootFilesystem
        | Source::Clock
        | Source::Randomness
        | Source::Scheduling
        | Source::HostFacts => false,
    };
    let state = |source| if is_fixed(source) { SourceState::Fixed } else { SourceState::Real };
    SandboxReport {
        layers: Layer::ALL.into_iter().map(row).collect(),
        sources: Source::ALL
            .into_iter()
            .map(|source| SourceReport { source, state: state(source) })
            .collect(),
    }
}

fn text(explained: &Explained) -> String {
    let request = &explained.request;
    let command: Vec<String> = request.argv.iter().map(|argument| printable(argument)).collect();
    let row = |name: &str, value: String| [name.to_owned(), value];
    let list = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let limits = &request.limits;
    let mut rows = vec![
        row("request", explained.request_digest.to_string()),
        row("command", command.join(" ")),
        row("tenant", explained.tenant_id.clone()),
        row(
            "limits",
            format!(
                "{} ms, {} bytes of memory, {} processes, {} bytes of scratch, {} bytes of each stream",
                limits.timeout_ms,
                limits.memory_bytes,
                limits.pids,
                limits.scratch_bytes,
                limits.max_output_bytes
            ),
        ),
        row("required", list(&explained.required)),
        row("preferred", list(&explained.preferred)),
        row("off", list(&explained.off)),
    ];
    for output in &request.outputs {
        rows.push(row("output", printable(output.as_str())));
    }
    let inputs: Vec<[String; 4]> = explained
        .inputs
        .iter()
        .map(|found| {
            let there = if found.there { "there" } else { "missing" };
            [printable(&found.place), found.kind.to_owned(), there.to_owned(), found.digest.clone()]
        })
        .collect();
    let inputs =
        if inputs.is_empty() { String::new() } else { format!("inputs\n{}", indented(&table(&inputs))) };
    format!(
        "{}{inputs}at best, {}nothing was run; what this machine can enforce: requiem sandbox probe\n",
        table(&rows),
        explained.determinism_at_best.text()
    )
}
