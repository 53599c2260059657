//! `requiem bench gate`: whether p50 or p95 of a result is a regression. The rule stands in `bench::comparison`.

use schemars::JsonSchema;
use serde::Serialize;

use super::bench_compare::{read, text as compared_text};
use crate::bench::comparison::{Comparison, Judgement, Threshold, Verdict, compare, judge};
use crate::bench_arguments::BenchGate;
use crate::error::CommandError;
use crate::report::Report;

/// The reason code of a regression.
const REGRESSION: &str = "Regression";
/// Its exit code.
const REGRESSION_EXIT: u8 = 2;

/// What came of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Gated {
    /// Whether there is no regression.
    ok: bool,
    /// `Regression`, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    threshold_percent: f64,
    judgements: Vec<Judgement>,
    #[serde(flatten)]
    comparison: Comparison,
}

/// Runs the command. Exit code 2 at a regression; an error, which has that exit code too, has another reason code.
pub(crate) fn run(arguments: &BenchGate) -> Result<Report, CommandError> {
    let (base, new) = read(&arguments.pair)?;
    let comparison = compare(&base, &new, arguments.pair.allowed())?;
    let judgements = judge(&base, &new, &comparison.figures, arguments.threshold);
    let ok = judgements.iter().all(|judgement| judgement.verdict != Verdict::Regression);
    let text = compared_text(&comparison) + &verdict(&judgements, arguments.threshold);
    let error_code = (!ok).then_some(REGRESSION);
    let threshold_percent = arguments.threshold.percent();
    let gated = Gated { ok, error_code, threshold_percent, judgements, comparison };
    let report = Report::new(&gated, text, ok);
    Ok(if ok { report } else { report.exiting_with(REGRESSION_EXIT) })
}

fn verdict(judgements: &[Judgement], threshold: Threshold) -> String {
    let named = |verdict: Verdict| {
        let figures = judgements.iter().filter(|judgement| judgement.verdict == verdict);
        figures.map(|judgement| judgement.figure).collect::<Vec<_>>().join(" and ")
    };
    let (regressions, unsteady) = (named(Verdict::Regression), named(Verdict::Unsteady));
    let percent = threshold.percent();
    let mut text = String::new();
    if !unsteady.is_empty() {
        text +=
            &format!("unsteady: {unsteady} above {percent} %, but runs of one result differ by as much; ");
        text += "measure again, with more repeats, on a machine that does nothing else\n";
    }
    text + &if regressions.is_empty() {
        format!("no regression above {percent} %\n")
    } else {
        format!("regression: {regressions} slower by more than {percent} % [{REGRESSION}]\n")
    }
}
