//! A second engine, on trial: the request once more, by the candidate, and where the two results differ.
//!
//! It begins when the result is written and told, in a store and folders of its own that go afterwards. Whatever it does, result and exit
//! code are those of the primary.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use requiem_cas::{Store, TenantStore};
use requiem_executor::Keep;
use requiem_executor::engine::EngineName;
use requiem_executor::engine::folder::Folder;
use requiem_model::attempt::Identity;
use requiem_model::dual::{self, Category, Mismatch, Sample, Seen, Tolerance};
use requiem_model::{ExecutionRequest, ExecutionRoot, Layer, RequestDigest, Requirement};
use requiem_proof::{Engine, Verified};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::TrialArguments;
use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::local::{LocalExecutor, Ran};
use crate::text::{count, indented, printable, table, word};
use crate::{schema, store};

/// Which form the document of a trial has.
const SCHEMA: &str = "requiem-diff/1";
/// How much longer than the request's own limit a candidate may take if nothing else was said.
pub(crate) const GRACE: Duration = Duration::from_secs(15);

/// A trial to be made.
#[derive(Debug)]
pub(crate) struct Trial {
    candidate: EngineName,
    sample: Sample,
    diff: Option<PathBuf>,
    deadline: Duration,
    tolerance: Tolerance,
    unisolated: bool,
    objects: TenantStore,
    identity: Identity,
    request: ExecutionRequest,
    interrupt: Interrupt,
}

/// What is to be told and counted of a trial.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) text: String,
    pub(crate) verdict: String,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// What came of a trial.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DiffDocument {
    schema: &'static str,
    verdict: Verdict,
    #[schemars(schema_with = "schema::digest")]
    request_digest: RequestDigest,
    /// Share of requests that are run twice, in percent.
    sample_percent: String,
    primary: Side,
    /// What --candidate named.
    candidate_engine: String,
    /// Layers that the request requires and that were only preferred of the candidate.
    candidate_unisolated: bool,
    /// The candidate's run, if it came to a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate: Option<Side>,
    /// Why it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_error: Option<CommandError>,
    mismatches: Vec<Row>,
    /// How many of each category.
    counts: BTreeMap<&'static str, u64>,
}

/// The whole of it in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// The request is not of the sample; the candidate was not run.
    NotSampled,
    /// The two are the same in every item.
    Agrees,
    /// They are not.
    Differs,
    /// The candidate came to no result.
    CandidateFailed,
}

/// One of the two runs.
#[derive(Debug, Serialize, JsonSchema)]
struct Side {
    #[schemars(schema_with = "schema::engine")]
    engine: Engine,
    #[schemars(schema_with = "schema::digest")]
    execution_root: ExecutionRoot,
    termination_reason: &'static str,
    wall_us: u64,
}

/// One item in which they differ.
#[derive(Debug, Serialize, JsonSchema)]
struct Row {
    category: &'static str,
    severity: &'static str,
    /// `output PATH`, `exit`, `stdout`, `stderr`, `sandbox LAYER`, `source NAME` or `wall time`.
    item: String,
    primary: String,
    candidate: String,
}

impl Trial {
    /// The trial that was asked for, if any.
    pub(crate) fn of(
        arguments: &TrialArguments,
        objects: TenantStore,
        identity: Identity,
        request: ExecutionRequest,
        interrupt: Interrupt,
    ) -> Option<Self> {
        let candidate = arguments.candidate.clone()?;
        let limit = Duration::from_millis(request.limits.timeout_ms);
        let asked = arguments.candidate_deadline.map(|seconds| Duration::from_secs(seconds.into()));
        Some(Self {
            candidate,
            sample: arguments.sample,
            diff: arguments.diff.clone(),
            deadline: asked.unwrap_or(limit + GRACE),
            tolerance: Tolerance { floor_us: u64::from(arguments.timing_floor) * 1000 },
            unisolated: arguments.candidate_unisolated,
            objects,
            identity,
            request,
            interrupt,
        })
    }

    /// Makes it, writes its document, and says what came of it.
    pub(crate) fn run(self, primary: &Verified) -> Tried {
        let diff = self.diff.clone();
        let document = self.document(primary);
        let written = match &diff {
            None => Ok(()),
            Some(_) => store::write_outcome(diff.as_deref(), Ok(&document)),
        };
        let mut text = document.text();
        if let Err(error) = written {
            let (message, hint) = (printable(&error.message), printable(&error.hint));
            text += &format!("error: {message} [{}]\n hint: {hint}\n", error.error_code);
        }
        Tried { text, verdict: word(&document.verdict), counts: document.counts }
    }

    fn document(self, primary: &Verified) -> DiffDocument {
        let mut document = DiffDocument {
            schema: SCHEMA,
            verdict: Verdict::NotSampled,
            request_digest: primary.request_digest,
            sample_percent: self.sample.to_string(),
            primary: Side::of(primary),
            candidate_engine: self.candidate.to_string(),
            candidate_unisolated: self.unisolated,
            candidate: None,
            candidate_error: None,
            mismatches: Vec::new(),
            counts: counts(&[]),
        };
        if !self.sample.takes(&primary.request_digest) {
            return document;
        }
        let tolerance = self.tolerance;
        match self.candidate_run() {
            Ok(candidate) => {
                let found = dual::compare(seen(primary), seen(&candidate), tolerance);
                document.verdict = if found.is_empty() { Verdict::Agrees } else { Verdict::Differs };
                document.candidate = Some(Side::of(&candidate));
                document.counts = counts(&found);
                document.mismatches = found.into_iter().map(Row::of).collect();
            }
            Err(error) => {
                document.verdict = Verdict::CandidateFailed;
                document.candidate_error = Some(error);
            }
        }
        document
    }

    /// The candidate's run, into a store that nobody else reads and that goes afterwards.
    fn candidate_run(self) -> Result<Verified, CommandError> {
        let scratch = Folder::make().map_err(|error| {
            store::cannot("make a folder for the candidate in", &std::env::temp_dir(), &error)
        })?;
        let results = Store::open(&scratch.path().join("cas"))?
            .tenant(&store::parse_tenant(&self.identity.namespace)?)?;
        let executor = LocalExecutor::open(&self.candidate)?;
        let request = if self.unisolated { without_requirements(self.request) } else { self.request };
        let (interrupt, deadline) = (&self.interrupt, self.deadline);
        let (ran, late) = within(deadline, interrupt, || {
            executor.execute_into(
                &self.objects,
                &results,
                Keep::Volatile,
                &self.identity,
                &request,
                interrupt,
            )
        });
        match (ran, late) {
            (Ok(Ran { verified, .. }), _) => Ok(verified),
            (Err(_), true) => Err(ended(deadline)),
            (Err(error), false) => Err(error),
        }
    }
}

/// The error of a candidate that was not done in time.
pub(crate) fn ended(deadline: Duration) -> CommandError {
    CommandError::unusable(
        "E_ENGINE_DEADLINE",
        format!("the candidate came to no end within {deadline:?}, and was ended"),
        "see why it hangs, or give it longer with --candidate-deadline",
    )
}

/// Works, and cancels what is under way once the deadline has passed; says whether it has.
pub(crate) fn within<T>(deadline: Duration, interrupt: &Interrupt, work: impl FnOnce() -> T) -> (T, bool) {
    let (running, watched) = channel::<()>();
    let cancel = interrupt.cancel().clone();
    let watch = thread::spawn(move || {
        let late = watched.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout);
        if late {
            cancel.cancel();
        }
        late
    });
    let done = work();
    drop(running);
    (done, watch.join().unwrap_or_default())
}

/// The same request, by an engine that may lack any layer.
fn without_requirements(mut request: ExecutionRequest) -> ExecutionRequest {
    for layer in Layer::ALL {
        if request.policy.requirement(layer) == Requirement::Required {
            request.policy.layers.insert(layer, Requirement::Preferred);
        }
    }
    request
}

pub(crate) const fn seen(run: &Verified) -> Seen<'_> {
    let claims = &run.body.run;
    Seen { result: &run.body.execution.result, sandbox: &claims.sandbox, wall_us: claims.usage.wall_us }
}

pub(crate) fn counts(mismatches: &[Mismatch]) -> BTreeMap<&'static str, u64> {
    dual::counts(mismatches)
        .into_iter()
        .map(|(category, count)| (Category::as_str(category), count))
        .collect()
}

// === impl DiffDocument ===

impl DiffDocument {
    /// For people.
    fn text(&self) -> String {
        let (one, other) = (&self.primary.engine, printable(&self.candidate_engine));
        let primary = format!("{} {}", one.name, printable(&one.version));
        let error = self.candidate_error.as_ref();
        match self.verdict {
            Verdict::NotSampled => {
                format!("candidate {other}: not run, the request is not among {} %\n", self.sample_percent)
            }
            Verdict::Agrees => format!("candidate {other}: agrees with {primary}\n"),
            Verdict::CandidateFailed => {
                let (code, why) =
                    error.map_or(("", String::new()), |error| (&error.error_code, printable(&error.message)));
                format!("candidate {other}: came to no result: {why} [{code}]\n")
            }
            Verdict::Differs => {
                let rows: Vec<[String; 5]> = self.mismatches.iter().map(Row::cells).collect();
                let items = count(rows.len() as u64, "item", "items");
                format!("candidate {other}: differs from {primary} in {items}\n{}", indented(&table(&rows)))
            }
        }
    }
}

impl Side {
    fn of(run: &Verified) -> Self {
        let facts = &run.body.execution;
        Self {
            engine: facts.engine.clone(),
            execution_root: run.execution_root,
            termination_reason: facts.result.reason(),
            wall_us: run.body.run.usage.wall_us,
        }
    }
}

impl Row {
    fn of(mismatch: Mismatch) -> Self {
        let Mismatch { category, item, primary, candidate } = mismatch;
        let severity = category.severity().as_str();
        Self { category: category.as_str(), severity, item, primary, candidate }
    }

    fn cells(&self) -> [String; 5] {
        let Self { category, severity, item, primary, candidate } = self;
        [severity, category, item.as_str(), primary.as_str(), candidate.as_str()].map(printable)
    }
}
