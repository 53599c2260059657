//! How long to wait before trying again: doubling, capped, spread out by the object's own name.

use std::time::Duration;

use requiem_model::BlobDigest;

/// Longest wait between two tries for one object.
pub const CAP: Duration = Duration::from_secs(60);
const BASE: Duration = Duration::from_millis(250);

/// The wait before try `failures + 1` of the thing called `seed`.
///
/// Jitter is a hash of seed and count, not a random number: many objects that failed together come back
/// spread over half the interval, and a test sees the same value twice.
pub fn delay(seed: &str, failures: u32) -> Duration {
    let factor = 1u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX);
    let full = BASE.saturating_mul(factor).min(CAP);
    let spread = u32::from(BlobDigest::of(format!("{seed}#{failures}").as_bytes()).as_bytes()[0]);
    full / 2 + full * spread / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_never_pass_it() {
        assert!(delay("a", 0) >= BASE / 2 && delay("a", 0) < BASE);
        for failures in 0..200 {
            assert!(delay("a", failures) <= CAP, "{failures}");
            assert!(delay("a", failures) >= BASE / 2, "{failures}");
        }
        assert!(delay("a", 30) >= CAP / 2);
    }

    #[test]
    fn objects_that_fail_together_do_not_come_back_together() {
        let waits: std::collections::BTreeSet<_> = (0..100).map(|n| delay(&format!("uid-{n}"), 6)).collect();
        assert!(waits.len() > 50, "{} different waits of 100", waits.len());
    }
}
