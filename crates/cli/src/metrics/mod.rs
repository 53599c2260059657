//! What the command line counts: in one small file in the store, so that it outlives the process. `requiem metrics` shows it.
//!
//! Nothing depends on it. What cannot be counted (no permission, another process that holds the file) is not counted, and the run is none the
//! worse. Names, meanings and buckets are those of the executor wherever both count the same.

pub(crate) mod figures;
mod slots;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use requiem_executor::metrics::{ATTEMPT, COLLECT, FETCH, MOUNT, RUN, SEAL, STAGE, Step, reasons};
use requiem_executor::{Stored, Timings};
use requiem_model::SandboxReport;
use serde::{Deserialize, Serialize};

use crate::error::{CommandError, ErrorKind};
use crate::local::Ran;
use crate::text::word;

/// The reason of an attempt whose engine, a program of somebody else, broke the rules between it and us.
pub(crate) const ENGINE: &str = "EngineFault";
/// The steps that are timed, in their order.
pub(crate) const STEPS: [Step; 7] = [FETCH, STAGE, MOUNT, RUN, COLLECT, SEAL, ATTEMPT];

/// Everything that was counted. What another version wrote and this one does not know is not shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Totals {
    /// Attempts, by the reason of their end.
    pub(crate) attempts: BTreeMap<String, u64>,
    /// Replays, by whether they agreed.
    pub(crate) replays: BTreeMap<String, u64>,
    /// Candidates beside a primary, by verdict.
    pub(crate) trials: BTreeMap<String, u64>,
    /// Items in which candidates differed, by category.
    pub(crate) mismatches: BTreeMap<String, u64>,
    /// Times, by the name of their histogram.
    pub(crate) steps: BTreeMap<String, Spread>,
    pub(crate) stored_bytes: u64,
    /// Objects that were put, by whether they were new.
    pub(crate) puts: BTreeMap<String, u64>,
    /// The status of each layer in the last run by the sandbox.
    pub(crate) layers: BTreeMap<String, String>,
}

/// Times of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// How many in each bucket, the last being beyond all bounds.
    pub(crate) counts: Vec<u64>,
    pub(crate) sum_us: u64,
}

/// Counts in the store at `folder`, if it can be done at once.
pub(crate) fn count(folder: &Path, change: impl FnOnce(&mut Totals)) {
    // See above: nobody's result depends on it.
    let _uncounted = slots::update(folder, change);
}

/// What was counted in the store at `folder`.
pub(crate) fn totals(folder: &Path) -> std::io::Result<Totals> {
    slots::read(folder)
}

impl Totals {
    /// A run that has a result.
    pub(crate) fn ran(&mut self, ran: &Ran) {
        let claims = &ran.verified.body;
        add(&mut self.attempts, claims.execution.result.reason(), 1);
        self.timed(&ran.timings, ran.took);
        let Stored { bytes, new, known } = ran.stored;
        self.stored_bytes = self.stored_bytes.saturating_add(bytes);
        add(&mut self.puts, "new", new);
        add(&mut self.puts, "known", known);
        if claims.execution.engine.name == requiem_model::confidence::SANDBOX {
            self.saw(&claims.run.sandbox);
        }
    }

    /// A run that has none. Only what kept a request from being run counts: not a file that could not be read.
    pub(crate) fn failed(&mut self, error: &CommandError) {
        let code = error.error_code.as_str();
        let reason = match error.kind {
            ErrorKind::Interrupted(_) => Some("Cancelled"),
            _ if code.starts_with("E_ENGINE_") => Some(ENGINE),
            _ => reasons().find(|reason| *reason == code),
        };
        reason.into_iter().for_each(|reason| add(&mut self.attempts, reason, 1));
    }

    /// A replay, beside its original.
    pub(crate) fn replayed(&mut self, agrees: bool) {
        add(&mut self.replays, if agrees { "agrees" } else { "differs" }, 1);
    }

    /// A candidate, beside its primary.
    pub(crate) fn tried(&mut self, verdict: &str, mismatches: &BTreeMap<&'static str, u64>) {
        add(&mut self.trials, verdict, 1);
        mismatches.iter().for_each(|(category, number)| add(&mut self.mismatches, category, *number));
    }

    fn timed(&mut self, timings: &Timings, took: Duration) {
        let Timings { fetch, stage, mount, run, collect, seal } = *timings;
        for (step, time) in STEPS.iter().zip([fetch, stage, mount, run, collect, seal, took]) {
            self.steps.entry(step.name.to_owned()).or_default().observe(step, time);
        }
    }

    fn saw(&mut self, report: &SandboxReport) {
        let row = |row: &requiem_model::report::LayerReport| (row.layer.name().to_owned(), word(&row.status));
        self.layers = report.layers.iter().map(row).collect();
    }
}

impl Spread {
    fn observe(&mut self, step: &Step, time: Duration) {
        let bounds = step.bounds();
        // Anything else was not written by us.
        self.counts.resize(bounds.len() + 1, 0);
        let bucket = bounds.iter().position(|bound| time.as_secs_f64() <= *bound).unwrap_or(bounds.len());
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.sum_us = self.sum_us.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: &str, number: u64) {
    let count = counts.entry(name.to_owned()).or_default();
    *count = count.saturating_add(number);
}
