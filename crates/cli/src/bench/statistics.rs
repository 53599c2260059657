//! Order statistics of whole numbers. Pure: equal samples give equal figures, in whatever order they came, and nothing
//! is drawn at random.
//!
//! # Definitions
//! - The `percent`-th percentile of n samples is the one of rank ⌈percent · n / 100⌉, counted from 1 in ascending order:
//!   *nearest rank*. It is always a sample that was seen; nothing is interpolated.
//! - MAD is the median of the absolute deviations from the median, both by nearest rank, and not scaled.
//! - An interval of a percentile lies between two order statistics. How many of n independent samples lie below the true
//!   percentile is binomial with n and percent/100, whatever the distribution, so the chance that one bound misses is
//!   known exactly; with ties it is smaller.
//! - The interval of a ratio of two percentiles goes from low/high to high/low of their intervals. It misses only if one
//!   of the four bounds does, so four bounds that miss with 0.25 % each make 99 % (Boole's inequality).
//!
//! Sources: H. A. David, H. N. Nagaraja, "Order Statistics", 3rd ed. (2003), 7.1; W. J. Conover, "Practical Nonparametric
//! Statistics", 3rd ed. (1999), 3.2; S. S. Wilks, "Determination of Sample Sizes for Setting Tolerance Limits", Annals of
//! Mathematical Statistics 12 (1941), 91–96; F. R. Hampel, "The Influence Curve and Its Role in Robust Estimation", JASA
//! 69 (1974), 383–393 (MAD).

/// How sure an interval of a ratio is.
pub(crate) const CONFIDENCE_PERCENT: u32 = 99;
/// How often each of the four bounds below it may miss.
const BOUND_ERROR: f64 = 0.0025;
/// The fewest samples that bound a 95th percentile from above at that error: 0.95^n ≤ 0.0025.
pub(crate) const MIN_SAMPLES: usize = 117;

/// Samples in ascending order; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sorted(Vec<u64>);

/// Between which samples a percentile lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) low: u64,
    pub(crate) high: u64,
}

impl Sorted {
    /// Sorts samples; nothing if there is none.
    pub(crate) fn new(samples: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut samples: Vec<u64> = samples.into_iter().collect();
        samples.sort_unstable();
        (!samples.is_empty()).then_some(Self(samples))
    }

    /// The percentile by nearest rank; `percent` from 1 to 100.
    pub(crate) fn percentile(&self, percent: u32) -> u64 {
        self.of_rank((percent as usize * self.0.len()).div_ceil(100))
    }

    /// The smallest sample.
    pub(crate) fn min(&self) -> u64 {
        self.of_rank(1)
    }

    /// The largest sample.
    pub(crate) fn max(&self) -> u64 {
        self.of_rank(self.0.len())
    }

    /// The median absolute deviation from the median.
    pub(crate) fn mad(&self) -> u64 {
        let median = self.percentile(50);
        let deviations = Self::new(self.0.iter().map(|sample| sample.abs_diff(median)));
        deviations.map_or(0, |deviations| deviations.percentile(50))
    }

    /// Where the true percentile lies; nothing if there are too few samples to say.
    pub(crate) fn interval(&self, percent: u32) -> Option<Interval> {
        let count = self.0.len();
        let below = lower_rank(count, percent, BOUND_ERROR);
        // That so many lie above is the same question, asked from the other end.
        let above = lower_rank(count, 100 - percent, BOUND_ERROR);
        let is_bounded = below > 0 && above > 0;
        is_bounded.then(|| Interval { low: self.of_rank(below), high: self.of_rank(count + 1 - above) })
    }

    /// A rank outside of the samples gives the nearest one inside.
    fn of_rank(&self, rank: usize) -> u64 {
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}

/// The largest rank whose order statistic lies above the true percentile with a chance of at most `error`; 0 if there is
/// none. It does so if fewer samples than its rank lie below the percentile, and their number is binomial.
fn lower_rank(count: usize, percent: u32, error: f64) -> usize {
    let share = f64::from(percent) / 100.0;
    let odds = (share / (1.0 - share)).ln();
    // The chance that exactly so many lie below, as a logarithm, because the first ones are too small for a number.
    let mut ln_chance = real(count) * (1.0 - share).ln();
    let mut at_most = 0.0;
    for below in 0..count {
        at_most += ln_chance.exp();
        if at_most > error {
            return below;
        }
        ln_chance += (real(count - below) / real(below + 1)).ln() + odds;
    }
    count
}

#[expect(clippy::cast_precision_loss, reason = "numbers of samples are far below 2^53")]
const fn real(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(samples: &[u64]) -> Sorted {
        Sorted::new(samples.iter().copied()).unwrap()
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        // The example of the definition that is quoted most: 15, 20, 35, 40, 50.
        let five = sorted(&[35, 50, 15, 40, 20]);
        let of = |percents: [u32; 5]| percents.map(|percent| five.percentile(percent));
        assert_eq!(of([5, 30, 40, 50, 100]), [15, 20, 20, 35, 50]);
        let hundred = sorted(&(1..=100).rev().collect::<Vec<_>>());
        assert_eq!([1, 50, 95, 99, 100].map(|percent| hundred.percentile(percent)), [1, 50, 95, 99, 100]);
        assert_eq!([1, 50, 99].map(|percent| sorted(&[7]).percentile(percent)), [7, 7, 7]);
        assert_eq!((hundred.min(), hundred.max()), (1, 100));
        assert_eq!(Sorted::new([]), None);
    }

    #[test]
    fn the_mad_is_that_of_the_textbook() {
        // 1, 1, 2, 2, 4, 6, 9: median 2, deviations 1, 1, 0, 0, 2, 4, 7, their median 1.
        assert_eq!(sorted(&[1, 1, 2, 2, 4, 6, 9]).mad(), 1);
        // One wild sample moves it by nothing.
        assert_eq!(sorted(&[1, 1, 2, 2, 4, 6, u64::MAX]).mad(), 1);
        assert_eq!(sorted(&[5]).mad(), 0);
    }

    /// Distribution-free intervals of a median with at least 95 %, as published tables of the sign test have them: n and
    /// both ranks.
    #[test]
    fn ranks_of_the_median_are_those_of_the_table() {
        for (count, low, high) in
            [(6, 1, 6), (10, 2, 9), (20, 6, 15), (30, 10, 21), (50, 18, 33), (100, 40, 61)]
        {
            let below = lower_rank(count, 50, 0.025);
            assert_eq!((below, count + 1 - below), (low, high), "{count}");
        }
        assert_eq!(lower_rank(5, 50, 0.025), 0, "five samples say nothing with 95 %");
    }

    /// Wilks: the largest of 59 samples bounds the 95th percentile with 95 %, the second largest of 93, the third of 124,
    /// the fourth of 153.
    #[test]
    fn bounds_of_the_95th_percentile_are_those_of_wilks() {
        for (count, from_the_top) in
            [(58, 0), (59, 1), (92, 1), (93, 2), (123, 2), (124, 3), (152, 3), (153, 4)]
        {
            assert_eq!(lower_rank(count, 5, 0.05), from_the_top, "{count}");
        }
    }

    #[test]
    fn so_many_samples_are_needed_and_no_more() {
        let samples = |count: usize| sorted(&(1..=count as u64).collect::<Vec<_>>());
        assert_eq!(samples(MIN_SAMPLES - 1).interval(95), None);
        assert_eq!(samples(MIN_SAMPLES).interval(95), Some(Interval { low: 104, high: 117 }));
        assert_eq!(samples(MIN_SAMPLES).interval(50), Some(Interval { low: 43, high: 75 }));
        // Ten thousand, where the first chances are below any number.
        let many = samples(10_000).interval(95).unwrap();
        assert!((9430..9450).contains(&many.low) && (9550..9570).contains(&many.high), "{many:?}");
        assert!(4.0 * BOUND_ERROR * 100.0 <= f64::from(100 - CONFIDENCE_PERCENT));
    }

    proptest! {
        #[test]
        fn order_does_not_matter(samples in prop::collection::vec(1_u64..1 << 40, 1..400), seed in any::<prop::sample::Index>()) {
            let mut turned = samples.clone();
            turned.rotate_left(seed.index(samples.len()));
            turned.reverse();
            prop_assert_eq!(sorted(&samples), sorted(&turned));
        }

        #[test]
        fn figures_scale_and_shift_with_their_samples(samples in prop::collection::vec(1_u64..1 << 30, 1..400), factor in 1_u64..1000) {
            let (one, scaled) = (sorted(&samples), Sorted::new(samples.iter().map(|sample| sample * factor)).unwrap());
            let shifted = Sorted::new(samples.iter().map(|sample| sample + factor)).unwrap();
            for percent in [1, 50, 95, 99, 100] {
                prop_assert_eq!(scaled.percentile(percent), one.percentile(percent) * factor);
                prop_assert_eq!(shifted.percentile(percent), one.percentile(percent) + factor);
            }
            prop_assert_eq!(scaled.mad(), one.mad() * factor);
            prop_assert_eq!(shifted.mad(), one.mad());
            let ends = |interval: Option<Interval>| interval.map(|Interval { low, high }| (low, high));
            prop_assert_eq!(ends(scaled.interval(50)), ends(one.interval(50)).map(|(low, high)| (low * factor, high * factor)));
        }

        #[test]
        fn a_percentile_lies_in_its_interval(samples in prop::collection::vec(any::<u64>(), 1..400)) {
            let sorted = sorted(&samples);
            let (median, tail) = (sorted.percentile(50), sorted.percentile(95));
            prop_assert!(sorted.min() <= median && median <= tail && tail <= sorted.percentile(99) && tail <= sorted.max());
            for (percent, figure) in [(50, median), (95, tail)] {
                match sorted.interval(percent) {
                    Some(Interval { low, high }) => prop_assert!(low <= figure && figure <= high),
                    None => prop_assert!(samples.len() < MIN_SAMPLES),
                }
            }
        }
    }
}
