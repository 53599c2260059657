//! May this attempt start? A pure decision over what is known of one Execution.
//!
//! An Execution has at most one result. So the first sealed attempt answers for every number, nothing
//! starts beside an attempt that has not ended, and nothing starts behind a later attempt.

/// One known attempt of the Execution, seen from a new call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub attempt: u32,
    /// Whether it is about the same request for the same tenant as the call.
    pub same_request: bool,
    /// How far it is.
    pub stage: Stage,
}

/// How far an attempt is, as far as admission cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Queued or running.
    Open,
    /// It has a result.
    Sealed,
    /// It has none.
    Failed,
}

/// What to do with a call to start attempt `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Answer with the state of this known attempt.
    Adopt(u32),
    /// It is new: start it.
    Start,
    /// This attempt is about something else.
    Conflict(u32),
    /// This other attempt has not ended.
    Busy(u32),
    /// This later attempt exists already.
    Superseded(u32),
}

/// Decides about a call for attempt `wanted`; `known` is sorted by number.
pub fn admit(known: &[Known], wanted: u32) -> Admission {
    let of_stage = |stage| known.iter().find(move |attempt| attempt.stage == stage);
    let exact = known.iter().find(|attempt| attempt.attempt == wanted);
    if let Some(attempt) = of_stage(Stage::Sealed).or(exact) {
        return if attempt.same_request {
            Admission::Adopt(attempt.attempt)
        } else {
            Admission::Conflict(attempt.attempt)
        };
    }
    if let Some(open) = of_stage(Stage::Open) {
        return Admission::Busy(open.attempt);
    }
    match known.last() {
        Some(last) if last.attempt > wanted => Admission::Superseded(last.attempt),
        _ => Admission::Start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_never_a_second_result() {
        use Stage::{Failed, Open, Sealed};
        let same = |attempt, stage| Known { attempt, same_request: true, stage };
        let other = |attempt, stage| Known { attempt, same_request: false, stage };
        let table = [
            (vec![], 1, Admission::Start),
            (vec![], 7, Admission::Start),
            (vec![same(1, Open)], 1, Admission::Adopt(1)),
            (vec![other(1, Open)], 1, Admission::Conflict(1)),
            (vec![same(1, Open)], 2, Admission::Busy(1)),
            (vec![same(1, Failed)], 1, Admission::Adopt(1)),
            (vec![same(1, Failed)], 2, Admission::Start),
            (vec![other(1, Failed)], 2, Admission::Start),
            (vec![same(1, Failed), same(2, Open)], 1, Admission::Adopt(1)),
            (vec![same(2, Failed)], 1, Admission::Superseded(2)),
            (vec![same(2, Open)], 1, Admission::Busy(2)),
            (vec![same(1, Sealed)], 1, Admission::Adopt(1)),
            (vec![same(1, Sealed)], 2, Admission::Adopt(1)),
            (vec![other(1, Sealed)], 2, Admission::Conflict(1)),
            (vec![same(1, Failed), same(2, Sealed)], 1, Admission::Adopt(2)),
            (vec![same(1, Failed), same(2, Sealed)], 3, Admission::Adopt(2)),
        ];
        for (known, wanted, expected) in table {
            assert_eq!(admit(&known, wanted), expected, "{known:?}, {wanted}");
        }
    }
}
