//! When two results are comparable, and what the gate makes of noise and of slowdowns.

use proptest::prelude::*;

use super::super::document::tests::document;
use super::*;

/// What the command line takes if nothing is said.
const DEFAULT: Threshold = Threshold(500);
const NONE: Threshold = Threshold(0);
const RUNS: usize = 120;

/// A generator of numbers that look random: SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
/// Generators", 2014).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between 0 and 1, neither of them.
    fn share(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.share().ln()).sqrt() * (std::f64::consts::TAU * self.share()).cos()
    }

    fn samples(&mut self, one: fn(&mut Self) -> f64) -> Vec<u64> {
        (0..RUNS).map(|_| micros(one(self))).collect()
    }

    /// A result of 300 runs on a quiet machine: a level of its own, mostly within half a percent of others; a drift that each
    /// run hands on to the next; 3 % of noise; and one run in thirty that is disturbed, by half as a rule and by far more at
    /// times.
    fn result(&mut self) -> Vec<u64> {
        let (level, mut drift) = (0.003 * self.normal(), 0.0);
        let run = |_| {
            drift = 0.95 * drift + 0.003 * self.normal();
            let disturbed = if self.share() < 1.0 / 30.0 { 1.0 - 0.5 * self.share().ln() } else { 1.0 };
            micros(5.0 * (level + drift + 0.03 * self.normal()).exp() * disturbed)
        };
        (0..300).map(run).collect()
    }
}

/// As whole microseconds; the unit of the samples below is a millisecond.
fn micros(millis: f64) -> u64 {
    format!("{:.0}", millis * 1000.0).parse().unwrap()
}

/// A name, and what draws one sample, in milliseconds.
type Kind = (&'static str, fn(&mut Noise) -> f64);

/// Noise of the kinds that running commands shows.
const KINDS: [Kind; 4] = [
    ("narrow", |noise| 5.0 + 0.1 * noise.normal()),
    ("lognormal", |noise| 5.0 * (0.3 * noise.normal()).exp()),
    // So heavy that it has no variance.
    ("pareto", |noise| 4.0 + noise.share().powf(-1.0 / 1.2)),
    ("two modes", |noise| if noise.share() < 0.5 { 3.0 } else { 6.0 } + 0.05 * noise.normal()),
];

fn verdicts(base: &[u64], new: &[u64], threshold: Threshold) -> [Verdict; 2] {
    let (base, new) = (document(base), document(new));
    let figures = compare(&base, &new, Allowed::default()).unwrap().figures;
    let judged = judge(&base, &new, &figures, threshold);
    assert_eq!(judged.iter().map(|one| one.figure).collect::<Vec<_>>(), ["p50", "p95"]);
    [judged[0].verdict, judged[1].verdict]
}

fn is_regression(base: &[u64], new: &[u64], threshold: Threshold) -> bool {
    verdicts(base, new, threshold).contains(&Verdict::Regression)
}

fn slowed(samples: &[u64], percent: u64) -> Vec<u64> {
    samples.iter().map(|sample| sample * (100 + percent) / 100).collect()
}

// === what is comparable ===

#[test]
fn what_is_not_comparable_is_refused_with_its_reason() {
    let samples = vec![1000; RUNS];
    let base = document(&samples);
    let code = |new: &ResultDocument, allowed| {
        compare(&base, new, allowed).err().map(|error| (error.error_code, error.message))
    };
    let refused = |new: &ResultDocument, expected: &str, part: &str| {
        let (code, message) = code(new, Allowed::default()).unwrap();
        assert!(code == expected && message.contains(part), "{code} {message}");
    };
    let mut other = document(&samples);
    other.request_digest = RequestDigest::from_bytes([2; 32]);
    refused(&other, "RequestsDiffer", &other.request_digest.to_string());
    assert_eq!(code(&other, Allowed { across_requests: true, ..Allowed::default() }), None);
    let mut other = document(&samples);
    other.environment.kernel = "7.0".to_owned();
    refused(&other, "EnvironmentsDiffer", "kernel: 6.1.0 and 7.0");
    let allowed = Allowed { across_environments: true, ..Allowed::default() };
    assert_eq!(compare(&base, &other, allowed).unwrap().environment_differences, ["kernel: 6.1.0 and 7.0"]);
    let mut other = document(&samples);
    other.concurrency = 2;
    let all = Allowed { across_environments: true, across_requests: true };
    refused(&other, "ConcurrencyDiffers", "1 and 2");
    assert!(code(&other, all).is_some(), "no option makes different work of it the same");
    let few = document(&samples[..MIN_SAMPLES - 1]);
    refused(&few, "TooFewSamples", "NEW has 116 samples");
    assert!(compare(&few, &base, all).unwrap_err().message.starts_with("BASE has 116"));
    assert!(compare(&base, &document(&samples[..MIN_SAMPLES]), Allowed::default()).is_ok());
}

#[test]
fn ratios_lie_in_their_intervals() {
    let base: Vec<u64> = (1000..1000 + RUNS as u64).collect();
    let compared = compare(&document(&base), &document(&slowed(&base, 50)), Allowed::default()).unwrap();
    let [p50, p95] = &compared.figures[..] else { panic!("{compared:?}") };
    assert_eq!((p50.base.us, p50.new.us, p50.ratio, p50.change), (1059, 1588, 1.4995, Change::Slower));
    for figure in [p50, p95] {
        assert!(figure.new.low_us < figure.new.us && figure.new.us < figure.new.high_us, "{figure:?}");
        assert!(figure.ratio_low < figure.ratio && figure.ratio < figure.ratio_high, "{figure:?}");
        assert!(figure.ratio_low > 1.4 && figure.ratio_high < 1.6, "{figure:?}");
    }
    let back = compare(&document(&slowed(&base, 50)), &document(&base), Allowed::default()).unwrap();
    assert!(back.figures.iter().all(|figure| figure.change == Change::Faster), "{back:?}");
    let same = compare(&document(&base), &document(&base), Allowed::default()).unwrap();
    assert!(
        same.figures.iter().all(|figure| figure.ratio == 1.0 && figure.change == Change::Undecided),
        "{same:?}"
    );
}

#[test]
fn thresholds_are_percents() {
    let parse = |text: &str| text.parse::<Threshold>().map(|threshold| threshold.0);
    for (text, hundredths) in
        [("0", 0), ("10", 1000), ("7.5", 750), ("0.25", 25), ("1000", 100_000), ("05.05", 505)]
    {
        assert_eq!(parse(text), Ok(hundredths), "{text}");
    }
    for bad in ["", "-1", "+1", "1000.01", "99999", "1.234", "1.", ".5", "1,5", "10%", "ten", "NaN", "1e1"] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
    // Exactly at the threshold is not above it.
    assert!(!DEFAULT.is_exceeded(1050, 1000) && DEFAULT.is_exceeded(1051, 1000) && !NONE.is_exceeded(7, 7));
    assert!(!Threshold(100_000).is_exceeded(u64::MAX, u64::MAX));
}

// === no change is no regression ===

/// 4000 comparisons of samples of one distribution, heavy tails and two modes among them: not one is a regression, even
/// with no threshold.
#[test]
fn equal_distributions_are_no_regression_whatever_their_tail() {
    for (kind, one) in KINDS {
        let mut noise = Noise(1);
        for round in 0..1000 {
            let (base, new) = (noise.samples(one), noise.samples(one));
            assert!(!is_regression(&base, &new, NONE), "{kind} {round}");
        }
    }
}

/// The intervals hold what they should more often than they promise.
#[test]
fn intervals_hold_the_true_ratio() {
    for (kind, one) in KINDS {
        let mut noise = Noise(2);
        let misses = (0..1000).filter(|_| {
            let (base, new) = (document(&noise.samples(one)), document(&noise.samples(one)));
            let figures = compare(&base, &new, Allowed::default()).unwrap().figures;
            figures.iter().any(|figure| figure.change != Change::Undecided)
        });
        let misses = misses.count();
        assert!(misses <= 20, "{kind}: {misses} of 2000 intervals with 99 %");
    }
}

/// 200 comparisons of equal results with heavy tails, drift and a level of their own.
#[test]
fn results_that_drift_are_no_regression() {
    let mut noise = Noise(7);
    for round in 0..200 {
        let (base, new) = (noise.result(), noise.result());
        assert_eq!(verdicts(&base, &new, DEFAULT), [Verdict::Passed; 2], "{round}");
    }
}

/// Each of 24 results against each other one, as one busy machine gave them: 300 times the same command, a loop in a shell,
/// while compilers ran beside it. The bounds alone would call ten in a hundred of these a regression.
#[test]
fn recorded_results_of_equal_work_are_no_regression() {
    let results = recorded();
    let mut above = 0;
    for (base, new) in pairs(&results) {
        let found = verdicts(base, new, DEFAULT);
        assert!(!found.contains(&Verdict::Regression), "{found:?}: {base:?} {new:?}");
        above += usize::from(found.contains(&Verdict::Unsteady));
    }
    assert!(above > 40, "the record is not as rough as it was: {above} of 552");
}

// === a change is ===

#[test]
fn a_tenth_is_found_on_a_quiet_machine() {
    let mut noise = Noise(8);
    for round in 0..200 {
        let (base, new) = (noise.result(), noise.result());
        assert!(is_regression(&base, &slowed(&new, 10), DEFAULT), "{round}");
        assert!(!is_regression(&slowed(&base, 10), &new, DEFAULT), "{round}: getting faster is none");
    }
}

#[test]
fn twice_the_time_is_found_on_a_busy_machine() {
    let results = recorded();
    for (base, new) in pairs(&results) {
        assert_eq!(verdicts(base, &slowed(new, 100), DEFAULT), [Verdict::Regression; 2], "{base:?} {new:?}");
    }
}

/// Every one of 200 slowdowns of each kind of noise: by 30 % where the noise is of 2 %, to the double where it is of 30 %,
/// fourfold where there is no bound to it, and threefold where one run in two takes the double anyway.
#[test]
fn a_planted_slowdown_is_found() {
    for ((kind, one), percent) in KINDS.into_iter().zip([30, 100, 300, 200]) {
        let mut noise = Noise(3);
        for round in 0..200 {
            let (base, new) = (noise.samples(one), noise.samples(one));
            assert!(is_regression(&base, &slowed(&new, percent), DEFAULT), "{kind} {round}");
            assert!(
                !is_regression(&slowed(&base, percent), &new, DEFAULT),
                "{kind} {round}: getting faster is none"
            );
        }
    }
}

#[test]
fn a_slowdown_below_the_threshold_is_none() {
    let mut noise = Noise(4);
    let (base, new) = (noise.samples(KINDS[0].1), noise.samples(KINDS[0].1));
    assert!(!is_regression(&base, &slowed(&new, 4), DEFAULT));
    assert!(is_regression(&base, &slowed(&new, 12), DEFAULT));
}

/// A tail that grows alone is found at p95, where a rank-sum test would see nothing.
#[test]
fn a_tail_that_grows_alone_is_found() {
    let mut noise = Noise(5);
    let (base, mut new) = (noise.samples(KINDS[0].1), noise.samples(KINDS[0].1));
    new.iter_mut().step_by(5).for_each(|sample| *sample *= 3);
    assert_eq!(verdicts(&base, &new, DEFAULT), [Verdict::Passed, Verdict::Regression]);
}

/// Other work slows the other runs, too, and that is how it is told from a tail that grows alone.
#[test]
fn a_tail_that_grows_with_the_rest_is_unsteady() {
    let mut noise = Noise(9);
    let (base, new) = (noise.samples(KINDS[1].1), noise.samples(KINDS[1].1));
    let mut new = slowed(&new, 20);
    new.iter_mut().step_by(5).for_each(|sample| *sample *= 4);
    let found = verdicts(&base, &new, DEFAULT);
    assert_ne!(found[0], Verdict::Regression);
    assert_eq!(found[1], Verdict::Unsteady);
}

/// A burst of other work slows many runs in a row, and none of the others.
#[test]
fn a_burst_is_unsteady_and_no_regression() {
    let mut noise = Noise(6);
    let (base, mut new) = (noise.samples(KINDS[0].1), noise.samples(KINDS[0].1));
    // A short one makes a tail and leaves the rest alone, but it does so once.
    let mut short = new.clone();
    short[..RUNS / 5].iter_mut().for_each(|sample| *sample *= 3);
    assert_eq!(verdicts(&base, &short, DEFAULT), [Verdict::Passed, Verdict::Unsteady]);
    new[..RUNS * 2 / 3].iter_mut().for_each(|sample| *sample *= 3);
    // At the beginning, at the end, and at both.
    for _ in 0..3 {
        assert_eq!(verdicts(&base, &new, DEFAULT), [Verdict::Unsteady; 2]);
        new.rotate_right(RUNS / 3);
    }
    new.iter_mut().for_each(|sample| *sample *= 3);
    assert_eq!(verdicts(&base, &new, DEFAULT), [Verdict::Regression; 2], "but all of it is");
}

proptest! {
    #[test]
    fn a_result_is_no_regression_of_itself(samples in prop::collection::vec(1_u64..1 << 40, MIN_SAMPLES..200)) {
        prop_assert!(!is_regression(&samples, &samples, NONE));
        let compared = compare(&document(&samples), &document(&samples), Allowed::default()).unwrap();
        prop_assert!(compared.figures.iter().all(|figure| figure.change == Change::Undecided));
    }

    #[test]
    fn verdicts_do_not_depend_on_the_unit(
        samples in prop::collection::vec(1_u64..1 << 30, MIN_SAMPLES..150),
        others in prop::collection::vec(1_u64..1 << 30, MIN_SAMPLES..150),
        factor in 1_u64..1000,
    ) {
        let scaled = |samples: &[u64]| samples.iter().map(|sample| sample * factor).collect::<Vec<_>>();
        prop_assert_eq!(verdicts(&samples, &others, DEFAULT), verdicts(&scaled(&samples), &scaled(&others), DEFAULT));
    }

    #[test]
    fn a_smaller_threshold_finds_no_less(
        samples in prop::collection::vec(1_u64..1000, MIN_SAMPLES..150),
        others in prop::collection::vec(500_u64..5000, MIN_SAMPLES..150),
    ) {
        let found = [0, 1000, 5000, 50_000].map(|number| is_regression(&samples, &others, Threshold(number)));
        prop_assert!(found.windows(2).all(|pair| pair[0] >= pair[1]), "{found:?}");
    }
}

// === recorded samples ===

fn recorded() -> Vec<Vec<u64>> {
    let results: Vec<Vec<u64>> = serde_json::from_str(include_str!("recorded.json")).unwrap();
    assert!(results.len() == 24 && results.iter().all(|result| result.len() == 300));
    results
}

/// Every two different ones, in both orders.
fn pairs(results: &[Vec<u64>]) -> impl Iterator<Item = (&Vec<u64>, &Vec<u64>)> {
    let others = |base| results.iter().filter(move |new| !std::ptr::eq(base, *new));
    results.iter().flat_map(move |base| others(base).map(move |new| (base, new)))
}
