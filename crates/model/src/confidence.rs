//! How far a run's determinism can be trusted: a published pure function of evidence, formula `dc/1`; for what another engine
//! than the sandbox ran, `dc/2`.
//!
//! The score is the sum of fixed weights, in integers, of the sources that were proven fixed ([`WEIGHTS`],
//! 100 in all). The level follows from the same evidence:
//!
//! - `high`: every source is fixed and every layer is enforced;
//! - `medium`: every layer is enforced, clock and randomness are fixed, some other source is not;
//! - `best_effort`: anything else, and whatever depends on values that the proof does not hold.
//!
//! Every condition that keeps a level from being higher is named by a coded reason.
//!
//! `dc/2` has the score of `dc/1`, the level `best_effort`, and the reason `engine:NAME` before all others: nobody proved anything
//! from inside.

use serde::{Deserialize, Serialize};

use crate::report::{SandboxReport, Source, SourceState, Status};

/// Identifier of the formula, stored beside its result.
pub const FORMULA: &str = "dc/1";

/// Identifier of the formula for every engine but [`SANDBOX`].
pub const FORMULA_OF_OTHERS: &str = "dc/2";

/// The one engine whose report was made from inside: the sandbox.
pub const SANDBOX: &str = "requiem";

/// Points per source proven fixed.
pub const WEIGHTS: [(Source, u8); 11] = [
    (Source::Environment, 10),
    (Source::Identity, 5),
    (Source::ProcessIds, 5),
    (Source::AddressLayout, 10),
    (Source::InputTimes, 5),
    (Source::RootFilesystem, 10),
    (Source::Clock, 15),
    (Source::Randomness, 15),
    (Source::Scheduling, 10),
    (Source::HostFacts, 5),
    (Source::Network, 10),
];

/// The level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A clock, randomness or a layer was not controlled.
    BestEffort,
    /// The main sources were controlled.
    Medium,
    /// All sources were controlled.
    High,
}

impl Level {
    /// The level as documents spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "best_effort",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Level, score and reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Confidence {
    /// Which formula was used.
    pub formula: String,
    /// The level.
    pub level: Level,
    /// Points of 100.
    pub score: u8,
    /// What keeps the level from being higher: `clock:real`, `layer:cgroup:partial`.
    pub reasons: Vec<String>,
}

/// The confidence that `report` supports.
pub fn assess(report: &SandboxReport) -> Confidence {
    let fixed = |source| report.source(source) == SourceState::Fixed;
    let score = WEIGHTS.iter().filter(|(source, _)| fixed(*source)).map(|(_, points)| points).sum();
    let mut reasons: Vec<String> = Source::ALL
        .into_iter()
        .filter(|source| !fixed(*source))
        .map(|source| format!("{}:{}", label(&source), label(&report.source(source))))
        .collect();
    let all_sources = reasons.is_empty();
    let layers = crate::policy::Layer::ALL;
    for layer in layers {
        match report.layer(layer) {
            Some(row) if row.status == Status::Enforced => {}
            Some(row) => reasons.push(format!("layer:{layer}:{}", label(&row.status))),
            None => reasons.push(format!("layer:{layer}:unreported")),
        }
    }
    let full_sandbox =
        layers.into_iter().all(|layer| report.layer(layer).is_some_and(|row| row.status == Status::Enforced));
    let disclosed = Source::ALL.into_iter().all(|source| report.source(source) != SourceState::Undisclosed);
    let level = if full_sandbox && all_sources {
        Level::High
    } else if full_sandbox && disclosed && fixed(Source::Clock) && fixed(Source::Randomness) {
        Level::Medium
    } else {
        Level::BestEffort
    };
    Confidence { formula: FORMULA.to_owned(), level, score, reasons }
}

/// The confidence that `report` supports if the engine of that name ran the command.
pub fn assess_of(engine: &str, report: &SandboxReport) -> Confidence {
    let mut assessed = assess(report);
    if engine != SANDBOX {
        assessed.formula = FORMULA_OF_OTHERS.to_owned();
        assessed.level = Level::BestEffort;
        assessed.reasons.insert(0, format!("engine:{engine}"));
    }
    assessed
}

/// The serialised name of a unit variant.
pub(crate) fn label<T: Serialize>(variant: &T) -> String {
    serde_json::to_value(variant).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Layer, Requirement};
    use crate::report::{LayerReport, Proof, SourceReport};

    fn perfect() -> SandboxReport {
        SandboxReport {
            layers: Layer::ALL
                .into_iter()
                .map(|layer| LayerReport::enforced(layer, Requirement::Required, "test", Proof::Probe))
                .collect(),
            sources: Source::ALL
                .into_iter()
                .map(|source| SourceReport { source, state: SourceState::Fixed })
                .collect(),
        }
    }

    #[test]
    fn the_weights_cover_every_source_once_and_add_up() {
        assert_eq!(WEIGHTS.map(|(source, _)| source), Source::ALL);
        assert_eq!(WEIGHTS.iter().map(|(_, points)| u32::from(*points)).sum::<u32>(), 100);
    }

    #[test]
    fn only_complete_evidence_is_high() {
        let assessed = assess(&perfect());
        assert_eq!((assessed.level, assessed.score, assessed.reasons.len()), (Level::High, 100, 0));
        for index in 0..Source::ALL.len() {
            let mut report = perfect();
            report.sources[index].state = SourceState::Real;
            let assessed = assess(&report);
            assert!(assessed.level < Level::High && assessed.reasons.len() == 1, "{assessed:?}");
        }
        for index in 0..Layer::ALL.len() {
            let mut report = perfect();
            report.layers[index].status = Status::Partial;
            let assessed = assess(&report);
            assert_eq!(assessed.level, Level::BestEffort);
            assert_eq!(assessed.reasons, [format!("layer:{}:partial", Layer::ALL[index])]);
        }
    }

    #[test]
    fn silence_is_not_evidence() {
        let assessed = assess(&SandboxReport::default());
        assert_eq!((assessed.level, assessed.score), (Level::BestEffort, 0));
        assert_eq!(assessed.reasons.len(), Source::ALL.len() + Layer::ALL.len());
    }

    #[test]
    fn what_depends_on_values_that_the_proof_does_not_hold_is_best_effort() {
        let mut report = perfect();
        report.sources[0].state = SourceState::Undisclosed;
        let assessed = assess(&report);
        assert_eq!((assessed.level, assessed.score), (Level::BestEffort, 90));
        assert_eq!(assessed.reasons, ["environment:undisclosed"]);
        report.sources[0].state = SourceState::Real;
        assert_eq!(assess(&report).level, Level::Medium);
    }

    #[test]
    fn another_engine_is_best_effort_and_named() {
        let assessed = assess_of("rust", &perfect());
        assert_eq!((assessed.formula.as_str(), assessed.level), ("dc/2", Level::BestEffort));
        assert_eq!(assessed.reasons, ["engine:rust"]);
        assert_eq!(assess_of("requiem", &perfect()), assess(&perfect()));
    }

    #[test]
    fn a_host_clock_is_best_effort() {
        let mut report = perfect();
        let clock = Source::ALL.iter().position(|source| *source == Source::Clock).unwrap();
        report.sources[clock].state = SourceState::Real;
        let assessed = assess(&report);
        assert_eq!((assessed.level, assessed.score), (Level::BestEffort, 85));
        assert_eq!(assessed.reasons, ["clock:real"]);
    }
}
