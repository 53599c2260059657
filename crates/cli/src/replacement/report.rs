//! The readiness report: what was looked at, what was found, and the verdict that follows from both.

use std::collections::BTreeMap;

use requiem_model::dual::{Mismatch, Severity};
use requiem_proof::Engine;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::CommandError;
use crate::schema;
use crate::text::{count, indented, printable, table};

/// Which form the document has.
pub(super) const SCHEMA: &str = "requiem-replacement/1";

/// Whether a candidate may take over, and why.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Readiness {
    /// Whether the verdict is `ready`.
    pub(crate) ok: bool,
    /// `NotReady` or `Unusable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_code: Option<&'static str>,
    pub(super) schema: &'static str,
    pub(crate) verdict: Verdict,
    pub(super) primary: Side,
    pub(super) candidate: Side,
    /// The folder of the corpus, or `built in`.
    pub(super) corpus: String,
    pub(super) fixtures: usize,
    /// How often each engine ran each fixture.
    pub(super) repeats: u32,
    pub(super) checks: Vec<Check>,
    /// How many differences of each category there are between the first runs of each fixture.
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// What of the primary makes it no measure for another.
    pub(super) unusable: Vec<Item>,
    pub(super) started_at: String,
    pub(super) completed_at: String,
}

/// The whole of it in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Every check was made, and none failed.
    Ready,
    /// A check failed, or was not made.
    NotReady,
    /// The primary is no measure: the corpus, this machine or the primary itself is to be mended first.
    Unusable,
}

/// One of the two engines.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Side {
    /// What it was called on the command line.
    pub(super) name: String,
    /// Who it says it is, if it came to any result.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::engine")]
    pub(super) engine: Option<Engine>,
    /// Runs that were begun.
    pub(super) runs: u64,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    /// The first runs of each fixture by both engines are the same, and as expected.
    FixtureParity,
    /// What the primary does the same each time the candidate does the same each time.
    Determinism,
    /// Bytes of a known digest come out with that digest.
    HashVectors,
    /// Everything that the runs put into the store is there and is what its name says.
    StoreVerify,
    /// What reports say of layers is what a payload sees; the candidate protects no less than the primary.
    SandboxTruth,
}

/// One check.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Check {
    pub(crate) check: Subject,
    pub(crate) status: Status,
    /// How many things were looked at. A check that looked at none has not been made.
    pub(crate) looked_at: u64,
    /// What those are.
    pub(super) unit: &'static str,
    pub(crate) failures: Vec<Item>,
    /// What was seen and is no failure.
    pub(crate) notes: Vec<Item>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Passed,
    Failed,
    /// Nothing was looked at.
    NotMade,
}

/// One thing that is not as it should be, or worth a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Item {
    /// A category of differences, a code of errors, or one of `not_run`, `not_deterministic`, `answered_without_running`, `wrong_digest`,
    /// `claim_contradicted`, `isolation_lost`, `isolation_gained`, `isolation_unclaimed`, `source_lost`, `source_gained`.
    pub(crate) code: String,
    pub(super) severity: &'static str,
    /// A fixture, or what else was looked at.
    pub(crate) subject: String,
    /// What of it, as differences name it.
    pub(crate) item: String,
    pub(super) expected: String,
    pub(super) actual: String,
}

impl Verdict {
    /// What follows from the checks. Nothing is ready by default: each check must have looked at something.
    pub(super) fn of(checks: &[Check], unusable: &[Item]) -> Self {
        if !unusable.is_empty() {
            Self::Unusable
        } else if !checks.is_empty() && checks.iter().all(|check| check.status == Status::Passed) {
            Self::Ready
        } else {
            Self::NotReady
        }
    }

    pub(super) const fn error_code(self) -> Option<&'static str> {
        match self {
            Self::Ready => None,
            Self::NotReady => Some("NotReady"),
            Self::Unusable => Some("Unusable"),
        }
    }
}

impl Check {
    pub(super) const fn of(
        check: Subject,
        unit: &'static str,
        looked_at: u64,
        failures: Vec<Item>,
        notes: Vec<Item>,
    ) -> Self {
        let status = match (failures.is_empty(), looked_at) {
            (false, _) => Status::Failed,
            (true, 0) => Status::NotMade,
            (true, _) => Status::Passed,
        };
        Self { check, status, looked_at, unit, failures, notes }
    }
}

impl Item {
    pub(super) fn new(code: &str, severity: Severity, subject: &str, item: &str) -> Self {
        let (code, subject, item) = (code.to_owned(), subject.to_owned(), item.to_owned());
        Self {
            code,
            severity: severity.as_str(),
            subject,
            item,
            expected: String::new(),
            actual: String::new(),
        }
    }

    pub(super) fn seen(self, expected: impl Into<String>, actual: impl Into<String>) -> Self {
        Self { expected: expected.into(), actual: actual.into(), ..self }
    }

    /// A difference in the runs of a fixture.
    pub(super) fn mismatch(subject: &str, mismatch: &Mismatch) -> Self {
        let Mismatch { category, item, primary, candidate } = mismatch;
        Self::new(category.as_str(), category.severity(), subject, item).seen(primary, candidate)
    }

    /// A run that came to no result.
    pub(super) fn no_result(subject: &str, error: &CommandError) -> Self {
        Self::new(&error.error_code, Severity::Critical, subject, "result").seen("a result", &error.message)
    }

    /// The same of one engine's.
    pub(super) fn of(self, side: &str) -> Self {
        Self { item: format!("{} of the {side}", self.item), ..self }
    }

    fn cells(&self) -> [String; 5] {
        let Self { code, severity, subject, item, expected, actual } = self;
        let seen = format!("expected {expected}, found {actual}");
        [severity, code.as_str(), subject.as_str(), item.as_str(), seen.as_str()].map(printable)
    }
}

// === impl Readiness ===

impl Readiness {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let (primary, candidate) = (self.primary.text(), self.candidate.text());
        let head = match self.verdict {
            Verdict::Ready => format!("ready: {candidate} may replace {primary}\n"),
            Verdict::NotReady => format!("not ready: {candidate} may not replace {primary}\n"),
            Verdict::Unusable => format!("unusable: {primary} is no measure for {candidate}\n"),
        };
        let rows: Vec<[String; 3]> = self.checks.iter().map(Check::cells).collect();
        let mut text = head + &indented(&table(&rows));
        let fixtures = count(self.fixtures as u64, "fixture", "fixtures");
        text += &format!(
            "corpus: {}, {fixtures}, each {} times by each\n",
            printable(&self.corpus),
            self.repeats
        );
        text += &listed("of the primary", &self.unusable);
        for check in &self.checks {
            let name = check.check.name();
            text += &listed(name, &check.failures);
            text += &listed(&format!("{name}, no failure"), &check.notes);
        }
        text
    }
}

impl Side {
    fn text(&self) -> String {
        let engine = self.engine.as_ref().map(|engine| format!(" ({} {})", engine.name, engine.version));
        printable(&format!("{}{}", self.name, engine.unwrap_or_default()))
    }
}

impl Subject {
    const fn name(self) -> &'static str {
        match self {
            Self::FixtureParity => "fixture parity",
            Self::Determinism => "determinism",
            Self::HashVectors => "hash vectors",
            Self::StoreVerify => "store verify",
            Self::SandboxTruth => "sandbox truth",
        }
    }
}

impl Check {
    fn cells(&self) -> [String; 3] {
        let status = match self.status {
            Status::Passed => "passed".to_owned(),
            Status::Failed => format!("failed: {}", count(self.failures.len() as u64, "item", "items")),
            Status::NotMade => "not made".to_owned(),
        };
        [self.check.name().to_owned(), status, format!("{} {}", self.looked_at, self.unit)]
    }
}

fn listed(title: &str, items: &[Item]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let rows: Vec<[String; 5]> = items.iter().map(Item::cells).collect();
    format!("{title}:\n{}", indented(&table(&rows)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(looked_at: u64, failures: usize) -> Check {
        let item = Item::new("not_run", Severity::Critical, "one", "result");
        Check::of(Subject::FixtureParity, "fixtures", looked_at, vec![item; failures], Vec::new())
    }

    #[test]
    fn nothing_is_ready_that_was_not_looked_at() {
        assert_eq!(Verdict::of(&[], &[]), Verdict::NotReady);
        assert_eq!(Verdict::of(&[check(1, 0), check(0, 0)], &[]), Verdict::NotReady);
        assert_eq!(Verdict::of(&[check(1, 0), check(5, 1)], &[]), Verdict::NotReady);
        assert_eq!(Verdict::of(&[check(1, 0), check(5, 0)], &[]), Verdict::Ready);
        let wrong = Item::new("exit_code_mismatch", Severity::High, "one", "exit");
        assert_eq!(Verdict::of(&[check(1, 0)], &[wrong]), Verdict::Unusable);
    }
}
