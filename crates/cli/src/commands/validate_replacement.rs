//! `requiem validate-replacement`: whether an engine may take the place of another. The work is done in `replacement`.

use std::time::Duration;

use requiem_executor::engine::EngineName;
use requiem_model::dual::Tolerance;

use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::replacement::Validation;
use crate::replacement::corpus::Corpus;
use crate::replacement::report::{Readiness, Verdict};
use crate::replacement_arguments::ValidateReplacement;
use crate::report::Report;
use crate::{sandbox, store};

/// The exit code if the primary is no measure.
const UNUSABLE_EXIT: u8 = 2;

/// Runs the command. Exit code 0 if the candidate is ready, 1 if it is not, 2 if nobody can say.
pub(crate) fn run(arguments: &ValidateReplacement) -> Result<Report, CommandError> {
    if let Some(path) = &arguments.out {
        store::check_writable(path)?;
    }
    let outcome = validated(arguments);
    store::write_outcome(arguments.out.as_deref(), outcome.as_ref())?;
    let readiness = outcome?;
    let report = Report::new(&readiness, readiness.text(), readiness.ok);
    Ok(if readiness.verdict == Verdict::Unusable { report.exiting_with(UNUSABLE_EXIT) } else { report })
}

fn validated(arguments: &ValidateReplacement) -> Result<Readiness, CommandError> {
    let corpus = Corpus::open(arguments.corpus.as_deref())?;
    // For the sandbox alone, and not for it as a candidate: what a candidate needs must not change what the primary sees.
    if arguments.engine == EngineName::Requiem {
        // While this process has one thread, as the name spaces demand.
        sandbox::enter()?;
    }
    let interrupt = Interrupt::watch()?;
    let inputs = arguments.cas.as_deref().map(|cas| store::open(Some(cas), &arguments.tenant)).transpose()?;
    let validation = Validation {
        primary: arguments.engine.clone(),
        candidate: arguments.candidate.clone(),
        corpus,
        repeats: arguments.repeats,
        deadline: arguments.candidate_deadline.map(|seconds| Duration::from_secs(seconds.into())),
        tolerance: Tolerance { floor_us: u64::from(arguments.timing_floor) * 1000 },
        inputs,
        interrupt,
    };
    validation.run()
}
