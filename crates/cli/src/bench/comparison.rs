//! Two results beside one another. Pure.
//!
//! # What may be compared
//! Results of the same request, taken in the same environment with the same concurrency, of enough runs that succeeded all.
//!
//! # When the gate calls it a regression
//! A percentile is a regression if all of these hold:
//! 1. The interval of its ratio lies wholly above the threshold: the lower bound of NEW is larger than the upper bound of
//!    BASE by more than that. Both are order statistics, so this is a rank test of that very percentile (a precedence
//!    test; Balakrishnan, Ng, "Precedence-Type Tests and Applications", 2006, ch. 3). For samples of one and the same
//!    distribution, whichever it is, the chance to see it is known by counting orders, and the threshold makes it smaller
//!    still. A rank-sum test (Mann–Whitney) asks another question, whether the whole sample has moved: it would overrule
//!    a tail that grew alone, which is what a p95 is watched for.
//! 2. It is so from beginning to end: in each third of NEW's runs, in the order in which they were taken, the percentile
//!    is above that of each third of BASE by more than the threshold. The first rule takes runs to be independent of one
//!    another; a burst of other work on the machine, which hits many runs in a row, is what breaks that.
//! 3. A median has left what is usual: NEW's lies above nine in ten of BASE's runs, and BASE's below nine in ten of NEW's.
//!    A busy machine changes its speed for seconds, so that whole results of equal work differ by more than the first rule
//!    allows for; but then the runs of one result are spread as well. `recorded.json` is what taught this. A p95 has left
//!    what is usual with its median, or alone: three in four of NEW's runs are as fast as before. Other work that comes and
//!    goes makes a tail grow too, but it slows the rest of the runs with it.

use std::str::FromStr;

use requiem_model::{EnvironmentDigest, RequestDigest};
use schemars::JsonSchema;
use serde::Serialize;

use super::document::ResultDocument;
use super::statistics::{CONFIDENCE_PERCENT, Interval, MIN_SAMPLES, Sorted};
use crate::error::CommandError;
use crate::schema;

/// The percentiles that are compared.
const FIGURES: [(&str, u32); 2] = [("p50", 50), ("p95", 95)];
/// Parts of a result, in the order of its runs: each of NEW must be slower than each of BASE.
const PARTS: usize = 3;
/// How much slower three in four of NEW's runs may be if its tail has grown alone; whatever the gate's threshold is, so that
/// a smaller one finds no less.
const ALONE: Threshold = Threshold(500);
const METHOD: &str = "binomial bounds by order statistics";

/// What need not be equal.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowed {
    pub(crate) across_environments: bool,
    pub(crate) across_requests: bool,
}

/// Two results, and where the ratios of their percentiles lie.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Comparison {
    pub(crate) base: Side,
    pub(crate) new: Side,
    pub(crate) concurrency: u64,
    /// How intervals are made.
    pub(crate) method: &'static str,
    /// How sure each interval of a ratio is.
    pub(crate) confidence_percent: u32,
    /// What differs between the two machines, with --across-environments.
    pub(crate) environment_differences: Vec<String>,
    pub(crate) figures: Vec<Figure>,
}

/// One of both results.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) samples: u64,
    #[schemars(schema_with = "schema::digest")]
    pub(crate) request_digest: RequestDigest,
    #[schemars(schema_with = "schema::digest")]
    pub(crate) environment_digest: EnvironmentDigest,
    pub(crate) started_at: String,
}

/// One percentile of the wall time in both.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Figure {
    /// `p50` or `p95`.
    pub(crate) figure: &'static str,
    pub(crate) base: Located,
    pub(crate) new: Located,
    /// NEW divided by BASE.
    pub(crate) ratio: f64,
    /// Between these two the true ratio lies.
    pub(crate) ratio_low: f64,
    pub(crate) ratio_high: f64,
    pub(crate) change: Change,
}

/// What an interval says about no change, which is a ratio of 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    /// It lies above 1.
    Slower,
    /// It lies below 1.
    Faster,
    /// It holds 1.
    Undecided,
}

/// How much slower is still no regression, in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Threshold(u32);

/// What the gate makes of one percentile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Judgement {
    pub(crate) figure: &'static str,
    pub(crate) verdict: Verdict,
}

/// Whether a percentile is a regression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// No: its interval does not lie above the threshold.
    Passed,
    /// No: it lies above, but not from beginning to end, or not beyond what runs of one result differ by.
    Unsteady,
    /// Yes.
    Regression,
}

/// One percentile of one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Located {
    pub(crate) us: u64,
    /// Between these two the true one lies.
    pub(crate) low_us: u64,
    pub(crate) high_us: u64,
}

/// Puts two results beside one another.
///
/// # Errors
/// They are not comparable: `RequestsDiffer`, `EnvironmentsDiffer`, `ConcurrencyDiffers`, `TooFewSamples`.
pub(crate) fn compare(
    base: &ResultDocument,
    new: &ResultDocument,
    allowed: Allowed,
) -> Result<Comparison, CommandError> {
    let environment_differences = comparable(base, new, allowed)?;
    let (old, fresh) = (figures(base, "BASE")?, figures(new, "NEW")?);
    let figures = FIGURES.into_iter().zip(old.into_iter().zip(fresh));
    Ok(Comparison {
        base: Side::of(base),
        new: Side::of(new),
        concurrency: new.concurrency,
        method: METHOD,
        confidence_percent: CONFIDENCE_PERCENT,
        environment_differences,
        figures: figures.map(|((name, _), (base, new))| Figure::of(name, base, new)).collect(),
    })
}

/// What the gate makes of the figures of two results.
pub(crate) fn judge(
    base: &ResultDocument,
    new: &ResultDocument,
    figures: &[Figure],
    threshold: Threshold,
) -> Vec<Judgement> {
    let (old, fresh) = (base.wall_us(), new.wall_us());
    let whole = sorted(&old).zip(sorted(&fresh));
    let (is_apart, is_tail_alone) =
        whole.map_or((false, false), |(old, fresh)| (is_apart(&old, &fresh), is_tail_alone(&old, &fresh)));
    let judgement = |(figure, (name, percent)): (&Figure, (&'static str, u32))| {
        let is_above = threshold.is_exceeded(figure.new.low_us, figure.base.high_us);
        let is_steady = is_above_throughout(&old, &fresh, percent, threshold);
        let is_unusual = is_apart || (percent > 50 && is_tail_alone);
        let verdict = match (is_above, is_steady && is_unusual) {
            (false, _) => Verdict::Passed,
            (true, false) => Verdict::Unsteady,
            (true, true) => Verdict::Regression,
        };
        Judgement { figure: name, verdict }
    };
    figures.iter().zip(FIGURES).map(judgement).collect()
}

/// Whether each part of NEW is above each part of BASE by more than the threshold.
fn is_above_throughout(base: &[u64], new: &[u64], percent: u32, threshold: Threshold) -> bool {
    let of_parts = |taken: &[u64]| {
        let part = |number| &taken[number * taken.len() / PARTS..(number + 1) * taken.len() / PARTS];
        let parts = (0..PARTS).filter_map(|number| sorted(part(number)));
        parts.map(|part| part.percentile(percent)).collect::<Vec<_>>()
    };
    let (highest, lowest) = (of_parts(base).into_iter().max(), of_parts(new).into_iter().min());
    highest.zip(lowest).is_some_and(|(base, new)| threshold.is_exceeded(new, base))
}

/// Whether each median lies beyond nine in ten of the other's runs.
fn is_apart(base: &Sorted, new: &Sorted) -> bool {
    new.percentile(50) > base.percentile(90) && new.percentile(10) > base.percentile(50)
}

/// Whether three in four runs are as fast as before.
fn is_tail_alone(base: &Sorted, new: &Sorted) -> bool {
    !ALONE.is_exceeded(new.percentile(75), base.percentile(75))
}

fn sorted(taken: &[u64]) -> Option<Sorted> {
    Sorted::new(taken.iter().copied())
}

/// What differs between both machines, if two results may be compared at all.
fn comparable(
    base: &ResultDocument,
    new: &ResultDocument,
    allowed: Allowed,
) -> Result<Vec<String>, CommandError> {
    if base.request_digest != new.request_digest && !allowed.across_requests {
        let message = format!("the requests differ: {} and {}", base.request_digest, new.request_digest);
        let hint =
            "compare runs of one request; or, if what is measured is an input of it, give --across-requests";
        return Err(CommandError::unusable("RequestsDiffer", message, hint));
    }
    let differences = base.environment.differences(&new.environment);
    if !differences.is_empty() && !allowed.across_environments {
        let message = format!("the environments differ: {}", differences.join("; "));
        let hint =
            "take both on one machine; or, if its change is what you measure, give --across-environments";
        return Err(CommandError::unusable("EnvironmentsDiffer", message, hint));
    }
    if base.concurrency != new.concurrency {
        let message = format!("the concurrency differs: {} and {}", base.concurrency, new.concurrency);
        let hint = "run both with one spec";
        return Err(CommandError::unusable("ConcurrencyDiffers", message, hint));
    }
    Ok(differences)
}

/// Every percentile that is compared, of one side.
fn figures(document: &ResultDocument, side: &str) -> Result<Vec<Located>, CommandError> {
    let sorted = Sorted::new(document.wall_us());
    let found = |(_, percent)| located(sorted.as_ref()?, percent);
    FIGURES.into_iter().map(found).collect::<Option<_>>().ok_or_else(|| {
        let count = document.samples.len();
        let message =
            format!("{side} has {count} samples, and a p95 is bounded by no fewer than {MIN_SAMPLES}");
        let hint = format!("give the spec \"repeats\": {MIN_SAMPLES} or more");
        CommandError::unusable("TooFewSamples", message, hint)
    })
}

fn located(sorted: &Sorted, percent: u32) -> Option<Located> {
    let Interval { low, high } = sorted.interval(percent)?;
    Some(Located { us: sorted.percentile(percent), low_us: low, high_us: high })
}

// === impl Figure ===

impl Figure {
    fn of(figure: &'static str, base: Located, new: Located) -> Self {
        let change = if new.low_us > base.high_us {
            Change::Slower
        } else if new.high_us < base.low_us {
            Change::Faster
        } else {
            Change::Undecided
        };
        Self {
            figure,
            base,
            new,
            ratio: ratio(new.us, base.us),
            ratio_low: ratio(new.low_us, base.high_us),
            ratio_high: ratio(new.high_us, base.low_us),
            change,
        }
    }
}

/// To four decimals: for reading, never for a verdict.
fn ratio(new: u64, base: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a run are far below 2^53")]
    let (new, base) = (new as f64, base as f64);
    (new / base * 1e4).round() / 1e4
}

impl Side {
    fn of(document: &ResultDocument) -> Self {
        Self {
            name: document.name.clone(),
            samples: document.samples.len() as u64,
            request_digest: document.request_digest,
            environment_digest: document.environment_digest,
            started_at: document.started_at.clone(),
        }
    }
}

// === impl Threshold ===

impl Threshold {
    /// Whether `new` is above `base` by more than this. Exact.
    fn is_exceeded(self, new: u64, base: u64) -> bool {
        u128::from(new) * 10_000 > u128::from(base) * u128::from(10_000 + self.0)
    }

    /// In percent, for documents and people.
    pub(crate) fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            "it is not a number of percent from 0 to 1000 with at most two decimals, such as 10 or 7.5"
                .to_owned()
        };
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        // A sign is no digit.
        let digits = |part: &str, most: usize| {
            let is_good = (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            is_good.then(|| part.parse::<u32>().ok()).flatten()
        };
        let hundredths =
            digits(decimals, 2).map(|number| if decimals.len() == 1 { number * 10 } else { number });
        let number = digits(whole, 4).ok_or_else(bad)? * 100 + hundredths.ok_or_else(bad)?;
        if number <= 100_000 { Ok(Self(number)) } else { Err(bad()) }
    }
}

#[cfg(test)]
#[path = "comparison_tests.rs"]
mod tests;
