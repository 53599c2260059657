//! What a sample says about the rest.
//!
//! An upper confidence bound on how many of `total` objects are corrupt, when `bad` of `sample` objects, drawn at random without
//! replacement, were: the largest number that would still show at most so few with a probability above 5 %. The distribution is
//! the hypergeometric one, exactly; with no corrupt object in a small sample of many it comes close to the rule of three, `3 / sample`.
//!
//! Sources: J. P. Buonaccorsi, "A Note on Confidence Intervals for Proportions in Finite Populations", The American Statistician 41
//! (1987), 215–218; J. A. Hanley, A. Lippman-Hand, "If Nothing Goes Wrong, Is Everything All Right?", JAMA 249 (1983), 1743–1745.

/// How sure the bound is.
pub const CONFIDENCE_PERCENT: u32 = 95;

/// At most this many of `total` objects are corrupt, with 95 % confidence, when `bad` of a random `sample` are.
pub fn most_corrupt(total: u64, sample: u64, bad: u64) -> u64 {
    let alpha = f64::from(100 - CONFIDENCE_PERCENT) / 100.0;
    // What was seen to be good is good.
    let (mut least, mut most) = (bad, total - sample.min(total) + bad);
    while least < most {
        let middle = least + (most - least).div_ceil(2);
        if at_most(total, middle, sample, bad) > alpha {
            least = middle;
        } else {
            most = middle - 1;
        }
    }
    least
}

/// The probability that a sample shows at most `bad` corrupt objects, if `corrupt` of `total` are.
fn at_most(total: u64, corrupt: u64, sample: u64, bad: u64) -> f64 {
    let all = ln_choose(total, sample);
    let good = total - corrupt;
    let possible = (0..=bad.min(corrupt)).filter(|shown| *shown <= sample && sample - shown <= good);
    possible.map(|shown| (ln_choose(corrupt, shown) + ln_choose(good, sample - shown) - all).exp()).sum()
}

fn ln_choose(from: u64, take: u64) -> f64 {
    ln_factorial(from) - ln_factorial(take) - ln_factorial(from - take)
}

/// Stirling's series from 64 on, where its next term is below 1e-12; the product itself below.
fn ln_factorial(n: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "numbers of objects are far below 2^53")]
    let real = |number: u64| number as f64;
    if n < 64 {
        return (2..=n).map(|factor| real(factor).ln()).sum();
    }
    let n = real(n);
    let series = 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3)) + 1.0 / (1260.0 * n.powi(5));
    n * n.ln() - n + 0.5 * (2.0 * std::f64::consts::PI * n).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same probability by counting every sample of a small population.
    fn counted(total: u32, corrupt: u32, sample: u32, bad: u32) -> f64 {
        let samples = (0u32..1 << total).filter(|set| set.count_ones() == sample);
        let shown = samples.clone().filter(|set| (set & ((1 << corrupt) - 1)).count_ones() <= bad);
        f64::from(u32::try_from(shown.count()).unwrap()) / f64::from(u32::try_from(samples.count()).unwrap())
    }

    #[test]
    fn probabilities_are_those_of_counting() {
        for (total, corrupt, sample, bad) in
            [(10, 3, 4, 0), (12, 5, 6, 2), (9, 9, 3, 2), (8, 0, 5, 0), (11, 2, 11, 1)]
        {
            let exact = counted(total, corrupt, sample, bad);
            let ours = at_most(total.into(), corrupt.into(), sample.into(), bad.into());
            assert!((ours - exact).abs() < 1e-9, "{total} {corrupt} {sample} {bad}: {ours}, {exact}");
        }
    }

    #[test]
    fn the_bound_is_the_last_number_that_is_not_refuted() {
        for (total, sample, bad) in [(10, 4, 0), (12, 6, 1), (13, 5, 5), (14, 1, 0)] {
            let refuted = |corrupt| counted(total, corrupt, sample, bad) <= 0.05;
            let bound = u32::try_from(most_corrupt(total.into(), sample.into(), bad.into())).unwrap();
            assert!(
                !refuted(bound) && (bound == total - sample + bad || refuted(bound + 1)),
                "{total} {sample} {bad}: {bound}"
            );
        }
    }

    #[test]
    fn extremes_and_the_rule_of_three() {
        // Everything was looked at: the bound is what was found.
        assert_eq!((most_corrupt(500, 500, 0), most_corrupt(500, 500, 7)), (0, 7));
        assert_eq!((most_corrupt(0, 0, 0), most_corrupt(1, 0, 0), most_corrupt(3, 3, 3)), (0, 1, 3));
        // 3 in 300 of ten million; exactly 1 - 0.05^(1/300).
        let share = most_corrupt(10_000_000, 300, 0) as f64 / 1e7;
        assert!((share - (1.0 - 0.05f64.powf(1.0 / 300.0))).abs() < 1e-5, "{share}");
    }
}
