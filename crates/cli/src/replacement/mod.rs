//! Whether one engine may take the place of another: everything is run by both, looked at, and judged.
//!
//! ```text
//! corpus ─prepare→ Plan ─primary→ Runs ─┐
//!                       └candidate→ Runs ┴─judge→ checks ─→ Readiness
//! ```
//!
//! | step | file |
//! |---|---|
//! | fixtures: requests with what is known of their results | [`corpus`], [`expectation`], [`built_in`] |
//! | golden digests, and a payload that looks where it is | [`vectors`], [`probe`] |
//! | both engines run all of it, into a store that goes afterwards | [`runs`] |
//! | what differs, varies, is wrong or untrue | [`judge`] |
//! | the verdict | [`report`] |
//!
//! Nothing in a report is a constant: each check counts what it looked at, and one that looked at nothing has not been made.

mod built_in;
pub(crate) mod corpus;
mod expectation;
mod judge;
mod probe;
pub(crate) mod report;
mod runs;
mod vectors;

use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use requiem_cas::audit::{Extent, Progress};
use requiem_cas::{Store, TenantStore};
use requiem_executor::engine::EngineName;
use requiem_executor::engine::folder::Folder;
use requiem_model::dual::{Severity, Tolerance};
use requiem_model::{Layer, Requirement, SandboxPolicy};

use corpus::Corpus;
use judge::{Evidence, Judgement, judge, never_ran, unusable};
use probe::Probe;
use report::{Check, Item, Readiness, SCHEMA, Side, Subject, Verdict};
use runs::{Plan, Runs, Work};
use vectors::Vectors;

use crate::error::{CommandError, ErrorKind};
use crate::interrupt::Interrupt;
use crate::local::LocalExecutor;
use crate::proof_store::check_results;
use crate::{store, trial};

/// The tenants of the store that goes afterwards.
const INPUTS: &str = "inputs";
const PRIMARY: &str = "primary";
const CANDIDATE: &str = "candidate";

/// What is to be found out.
#[derive(Debug)]
pub(crate) struct Validation {
    pub(crate) primary: EngineName,
    pub(crate) candidate: EngineName,
    pub(crate) corpus: Corpus,
    pub(crate) repeats: u32,
    pub(crate) deadline: Option<Duration>,
    pub(crate) tolerance: Tolerance,
    /// Where the corpus' digests are from, if not of its own texts and files.
    pub(crate) inputs: Option<TenantStore>,
    pub(crate) interrupt: Interrupt,
}

/// The store of a validation.
struct Place {
    store: Store,
    inputs: TenantStore,
    primary: TenantStore,
    candidate: TenantStore,
    /// Removed with this value.
    folder: Folder,
}

/// A candidate that could not be asked anything, or what it did.
type Tried = Result<Runs, CommandError>;

impl Validation {
    /// Runs everything by both engines, the primary first, and judges.
    ///
    /// # Errors
    /// A signal; a corpus or a primary that cannot be used; a program that is no candidate's.
    pub(crate) fn run(self) -> Result<Readiness, CommandError> {
        let started = SystemTime::now();
        let place = Place::make()?;
        let plan = self.plan(&place)?;
        let primary = self.runs(&self.primary, PRIMARY, &place.primary, &plan, None, &place)?;
        // Before anybody else could have touched it.
        let (_, broken) = place.damaged()?;
        let tried = self.candidate(&plan, &place)?;
        let stored = place.check(&plan, &primary, tried.as_ref().ok())?;
        let nothing = Runs::none_of(&plan);
        let evidence = Evidence {
            fixtures: self.corpus.fixtures.iter().map(|each| (each.name.as_str(), &each.expect)).collect(),
            primary: &primary,
            candidate: tried.as_ref().unwrap_or(&nothing),
            probe: &plan.probe,
            tolerance: self.tolerance,
        };
        let unusable = broken.into_iter().chain(unusable(&evidence)).collect();
        let mut judgement = judge(&evidence);
        judgement.checks.push(stored);
        if let Err(error) = &tried {
            // It never ran, so why it did not is all that there is to say.
            judgement.checks[0] = never_ran(error);
        }
        Ok(self.report(started, (&primary, evidence.candidate), judgement, unusable))
    }

    fn report(
        &self,
        started: SystemTime,
        runs: (&Runs, &Runs),
        found: Judgement,
        unusable: Vec<Item>,
    ) -> Readiness {
        let verdict = Verdict::of(&found.checks, &unusable);
        Readiness {
            ok: verdict == Verdict::Ready,
            error_code: verdict.error_code(),
            schema: SCHEMA,
            verdict,
            primary: side(&self.primary, runs.0),
            candidate: side(&self.candidate, runs.1),
            corpus: self.corpus.source.clone(),
            fixtures: self.corpus.fixtures.len(),
            repeats: self.repeats,
            checks: found.checks,
            counts: trial::counts(&found.mismatches),
            unusable,
            started_at: store::rfc3339(started),
            completed_at: store::rfc3339(SystemTime::now()),
        }
    }

    fn plan(&self, place: &Place) -> Result<Plan, CommandError> {
        let inputs = self.inputs.as_ref().unwrap_or(&place.inputs);
        let request = |fixture: &corpus::Fixture| Ok((fixture.name.clone(), fixture.prepare(inputs)?));
        Ok(Plan {
            fixtures: self.corpus.fixtures.iter().map(request).collect::<Result<_, CommandError>>()?,
            repeats: self.repeats,
            vectors: Vectors::prepare(inputs)?,
            probe: Probe::prepare(inputs, place.folder.path())?,
        })
    }

    fn candidate(&self, plan: &Plan, place: &Place) -> Result<Tried, CommandError> {
        let tried = self.runs(&self.candidate, CANDIDATE, &place.candidate, plan, self.deadline, place);
        match tried {
            Err(error) if is_nobodys_fault(&error) => Err(error),
            tried => Ok(tried),
        }
    }

    fn runs(
        &self,
        engine: &EngineName,
        side: &'static str,
        results: &TenantStore,
        plan: &Plan,
        deadline: Option<Duration>,
        place: &Place,
    ) -> Result<Runs, CommandError> {
        let executor = LocalExecutor::open(engine)?;
        let work = Work {
            executor: &executor,
            inputs: self.inputs.as_ref().unwrap_or(&place.inputs),
            results,
            side,
            deadline,
            interrupt: &self.interrupt,
            begun: Default::default(),
            late: Default::default(),
        };
        work.run(plan)
    }
}

/// Whether a candidate that could not be used says nothing about the candidate: it was interrupted, or there is no such program.
fn is_nobodys_fault(error: &CommandError) -> bool {
    matches!(error.kind, ErrorKind::Interrupted(_)) || error.error_code == "E_ENGINE_PROGRAM"
}

fn side(name: &EngineName, runs: &Runs) -> Side {
    Side { name: name.to_string(), engine: runs.engine.clone(), runs: runs.begun }
}

/// Every layer, where it is to be had.
fn preferred() -> SandboxPolicy {
    let all = Layer::ALL.into_iter();
    all.fold(SandboxPolicy::default(), |policy, layer| policy.with(layer, Requirement::Preferred))
}

impl Place {
    fn make() -> Result<Self, CommandError> {
        let failed =
            |error| store::cannot("make a folder for the validation in", &std::env::temp_dir(), &error);
        let folder = Folder::make().map_err(failed)?;
        let store = Store::open(&folder.path().join("cas"))?;
        let tenant = |name: &str| Ok::<_, CommandError>(store.tenant(&store::parse_tenant(name)?)?);
        let [inputs, primary, candidate] = [tenant(INPUTS)?, tenant(PRIMARY)?, tenant(CANDIDATE)?];
        Ok(Self { inputs, primary, candidate, store, folder })
    }

    /// Reads and hashes every object: how many there are, and what is not what its name says.
    fn damaged(&self) -> Result<(u64, Vec<Item>), CommandError> {
        let shelves = self.store.shelves()?;
        let tenants = shelves.tenants().to_vec();
        let never = AtomicBool::new(false);
        let audit = shelves.audit(&tenants, Extent::All, store::threads(), &Progress::default(), &never)?;
        let damaged = audit.damaged.iter().map(|object| {
            let item = Item::new(object.code, Severity::Critical, object.tenant.as_str(), "object");
            item.seen(object.digest.to_string(), object.why.clone())
        });
        let strays = shelves.strays().iter().chain(&audit.strays).map(|stray| {
            let path = stray.path.display().to_string();
            Item::new("UnknownEntry", Severity::Critical, "store", "entry")
                .seen("an object", format!("{path} {}", stray.why))
        });
        Ok((audit.checked, damaged.chain(strays).collect()))
    }

    /// The check of everything that was stored, after both have run.
    fn check(&self, plan: &Plan, primary: &Runs, candidate: Option<&Runs>) -> Result<Check, CommandError> {
        let (objects, damaged) = self.damaged()?;
        let failures = if damaged.is_empty() { self.missing(plan, primary, candidate) } else { damaged };
        // What a candidate that never ran has not touched says nothing of it.
        let looked_at = if candidate.is_some() { objects } else { 0 };
        let unit = "objects read and hashed";
        Ok(Check::of(Subject::StoreVerify, unit, looked_at, failures, Vec::new()))
    }

    /// What came out of each run must be there too, unless it is known already that the store is not whole.
    fn missing(&self, plan: &Plan, primary: &Runs, candidate: Option<&Runs>) -> Vec<Item> {
        let sides = [(PRIMARY, &self.primary, Some(primary)), (CANDIDATE, &self.candidate, candidate)];
        let mut found = Vec::new();
        for (side, results, runs) in
            sides.into_iter().filter_map(|(side, results, runs)| Some((side, results, runs?)))
        {
            let names = plan.fixtures.iter().map(|(name, _)| name.as_str());
            let fixtures =
                names.zip(&runs.fixtures).flat_map(|(name, runs)| runs.iter().map(move |run| (name, run)));
            for (name, run) in fixtures.chain(runs.vectors.iter().map(|run| ("golden vectors", run))) {
                let lost = run.as_ref().ok().and_then(|run| check_results(run, results).err());
                found.extend(lost.map(|error| Item::no_result(name, &error).of(side)));
            }
        }
        found.dedup();
        found
    }
}
