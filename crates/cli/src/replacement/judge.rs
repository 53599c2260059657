//! What runs of two engines say about one another. Pure: everything that is judged was seen before.

use std::collections::BTreeSet;

use requiem_model::Layer;
use requiem_model::dual::{self, Mismatch, Severity, Tolerance};
use requiem_model::report::{SandboxReport, Source, SourceState, Status as LayerStatus};
use requiem_proof::Verified;

use super::expectation::Expectation;
use super::probe::{Probe, Sight};
use super::report::{Check, Item, Subject};
use super::runs::{Outcome, Runs};
use super::vectors::Vectors;
use crate::error::CommandError;
use crate::text::word;
use crate::trial::seen;

/// What is judged: the runs of both engines, fixture by fixture.
pub(super) struct Evidence<'a> {
    /// Name of each fixture, and what is known of its result.
    pub(super) fixtures: Vec<(&'a str, &'a Expectation)>,
    pub(super) primary: &'a Runs,
    pub(super) candidate: &'a Runs,
    pub(super) probe: &'a Probe,
    pub(super) tolerance: Tolerance,
}

/// The judgement, but for the store.
pub(super) struct Judgement {
    pub(super) checks: Vec<Check>,
    /// Every difference between first runs.
    pub(super) mismatches: Vec<Mismatch>,
}

/// A fixture with its runs.
struct Pair<'a> {
    name: &'a str,
    expect: &'a Expectation,
    primary: Vec<&'a Verified>,
    candidate: Vec<&'a Verified>,
    outcomes: &'a [Outcome],
}

/// Judges the candidate by the primary.
pub(super) fn judge(evidence: &Evidence<'_>) -> Judgement {
    let mut mismatches = Vec::new();
    let parity = parity(evidence, &mut mismatches);
    let checks = vec![parity, determinism(evidence), vectors(evidence), truth(evidence)];
    Judgement { checks, mismatches }
}

/// What of the primary makes it no measure: a run without result, and what is not as the corpus expects.
pub(super) fn unusable(evidence: &Evidence<'_>) -> Vec<Item> {
    let mut found = Vec::new();
    for ((name, expect), outcomes) in evidence.fixtures.iter().zip(&evidence.primary.fixtures) {
        found.extend(outcomes.iter().filter_map(|run| Some(Item::no_result(name, run.as_ref().err()?))));
        let runs = results(outcomes);
        if let Some(first) = runs.first() {
            let missed = expect.missed_by(&first.body.execution.result);
            found.extend(missed.iter().map(|row| Item::mismatch(name, row)));
        }
        found.extend(unexpected_repeats(name, expect, &runs));
    }
    match &evidence.primary.vectors {
        Some(Err(error)) => found.push(Item::no_result("golden vectors", error)),
        Some(Ok(run)) => found.extend(wrong_digests(run)),
        None => {}
    }
    match &evidence.primary.probe {
        Some(Err(error)) => found.push(Item::no_result("the payload that looks", error)),
        Some(Ok((run, said))) => {
            let claims = &run.body.run.sandbox;
            found.extend(
                evidence
                    .probe
                    .sights(said)
                    .iter()
                    .filter_map(|(layer, sight)| contradicted(*layer, claims, sight)),
            );
        }
        None => {}
    }
    found
}

fn results(outcomes: &[Outcome]) -> Vec<&Verified> {
    outcomes.iter().filter_map(|run| run.as_ref().ok()).collect()
}

impl<'a> Evidence<'a> {
    fn pairs(&self) -> impl Iterator<Item = Pair<'a>> {
        let runs = self.primary.fixtures.iter().zip(&self.candidate.fixtures);
        self.fixtures.iter().zip(runs).map(|((name, expect), (primary, candidate))| Pair {
            name,
            expect,
            primary: results(primary),
            candidate: results(candidate),
            outcomes: candidate,
        })
    }
}

impl Pair<'_> {
    /// Items in which the primary differs from itself: the command's own.
    fn own(&self) -> BTreeSet<String> {
        varying(&self.primary).into_iter().map(|row| row.item).collect()
    }
}

/// Where runs of one engine differ from the first of them. Their times and their isolation are no results.
fn varying(runs: &[&Verified]) -> Vec<Mismatch> {
    let Some((first, rest)) = runs.split_first() else { return Vec::new() };
    let rows = rest.iter().flat_map(|run| dual::compare(seen(first), seen(run), Tolerance::default()));
    rows.filter(|row| row.category.severity() >= Severity::High).collect()
}

// === fixture parity ===

/// What the fixtures are called that were looked at.
const BY_BOTH: &str = "fixtures run by both";

/// The check of a candidate that could not be asked anything.
pub(super) fn never_ran(error: &CommandError) -> Check {
    Check::of(Subject::FixtureParity, BY_BOTH, 0, vec![Item::no_result("engine", error)], Vec::new())
}

fn parity(evidence: &Evidence<'_>, all: &mut Vec<Mismatch>) -> Check {
    let (mut looked_at, mut failures, mut notes) = (0, Vec::new(), Vec::new());
    for pair in evidence.pairs() {
        let name = pair.name;
        if pair.outcomes.is_empty() {
            let why = "not run: the engine had to be ended too often";
            failures.push(Item::new("not_run", Severity::Critical, name, "result").seen("a result", why));
        }
        failures
            .extend(pair.outcomes.iter().filter_map(|run| Some(Item::no_result(name, run.as_ref().err()?))));
        let (Some(primary), Some(candidate)) = (pair.primary.first(), pair.candidate.first()) else {
            continue;
        };
        looked_at += 1;
        let own = pair.own();
        let mut rows = dual::compare(seen(primary), seen(candidate), evidence.tolerance);
        rows.retain(|row| !own.contains(&row.item));
        let named: BTreeSet<&str> = rows.iter().map(|row| row.item.as_str()).collect();
        let missed = pair.expect.missed_by(&candidate.body.execution.result);
        let missed = missed.iter().filter(|row| !named.contains(row.item.as_str()));
        failures.extend(missed.map(|row| Item::mismatch(name, row)));
        for row in &rows {
            match row.category.severity() {
                Severity::High | Severity::Critical => failures.push(Item::mismatch(name, row)),
                Severity::Low => notes.push(Item::mismatch(name, row)),
                // What layers and sources are like is judged once, by the payload that looks.
                Severity::Medium => {}
            }
        }
        all.extend(rows);
    }
    Check::of(Subject::FixtureParity, BY_BOTH, looked_at, failures, notes)
}

// === determinism ===

fn determinism(evidence: &Evidence<'_>) -> Check {
    let (mut looked_at, mut failures, mut notes) = (0, Vec::new(), Vec::new());
    for pair in evidence.pairs() {
        if pair.primary.len() < 2 || pair.candidate.len() < 2 {
            continue;
        }
        looked_at += 1;
        let own = pair.own();
        let differing = |row: &Mismatch| {
            Item::new("not_deterministic", Severity::High, pair.name, &row.item)
                .seen(format!("{} each time", row.primary), row.candidate.clone())
        };
        let mut told = BTreeSet::new();
        for row in varying(&pair.candidate) {
            if !own.contains(&row.item) && told.insert(row.item.clone()) {
                failures.push(differing(&row));
            }
        }
        if pair.expect.deterministic == Some(false) {
            failures.extend(unexpected_repeats(pair.name, pair.expect, &pair.candidate));
        }
        let first = varying(&pair.primary).into_iter().next();
        notes.extend(first.map(|row| differing(&row)).filter(|_| pair.expect.deterministic != Some(false)));
    }
    Check::of(Subject::Determinism, "fixtures run more than once by both", looked_at, failures, notes)
}

/// Repeats that are the same and cannot be, or are not the same and should be.
fn unexpected_repeats(name: &str, expect: &Expectation, runs: &[&Verified]) -> Option<Item> {
    let (first, rest) = runs.split_first()?;
    if rest.is_empty() {
        return None;
    }
    let all_equal = rest.iter().all(|run| run.execution_root == first.execution_root);
    let root = first.execution_root.to_string();
    match (expect.deterministic?, all_equal) {
        (false, true) => {
            let item = Item::new("answered_without_running", Severity::Critical, name, "execution root");
            Some(item.seen("another one each time", format!("{root} each time")))
        }
        (true, false) => {
            let item = Item::new("not_deterministic", Severity::High, name, "execution root");
            Some(item.seen(format!("{root} each time"), "another one"))
        }
        _ => None,
    }
}

// === hash vectors ===

fn vectors(evidence: &Evidence<'_>) -> Check {
    let (looked_at, failures) = match &evidence.candidate.vectors {
        None => (0, Vec::new()),
        Some(Err(error)) => (0, vec![Item::no_result("golden vectors", error)]),
        Some(Ok(run)) => (Vectors::looked_at(&run.body.execution.result).len() as u64, wrong_digests(run)),
    };
    Check::of(Subject::HashVectors, "golden digests", looked_at, failures, Vec::new())
}

fn wrong_digests(run: &Verified) -> Vec<Item> {
    let looked = Vectors::looked_at(&run.body.execution.result).into_iter();
    let wrong = looked.filter(|(_, golden, found)| golden != found);
    let item = |(what, golden, found): (String, String, String)| {
        Item::new("wrong_digest", Severity::Critical, "golden vectors", &what).seen(golden, found)
    };
    wrong.map(item).collect()
}

// === sandbox truth ===

fn truth(evidence: &Evidence<'_>) -> Check {
    let unit = "layers seen by a payload, of both";
    let (Some(Ok((primary, saw))), Some(candidate)) = (&evidence.primary.probe, &evidence.candidate.probe)
    else {
        return Check::of(Subject::SandboxTruth, unit, 0, Vec::new(), Vec::new());
    };
    let (candidate, sees) = match candidate {
        Ok((candidate, sees)) => (candidate, sees),
        Err(error) => {
            let failure = vec![Item::no_result("the payload that looks", error)];
            return Check::of(Subject::SandboxTruth, unit, 0, failure, Vec::new());
        }
    };
    let (one, other) = (&primary.body.run.sandbox, &candidate.body.run.sandbox);
    let (before, after) = (evidence.probe.sights(saw), evidence.probe.sights(sees));
    let looked_at = before.iter().chain(&after).filter(|(_, sight)| *sight != Sight::Unseen).count() as u64;
    let sights = before.iter().zip(&after);
    let layers = sights.map(|((layer, before), (_, after))| of_layer(*layer, (one, before), (other, after)));
    let sources = Source::ALL.into_iter().map(|source| of_source(source, one, other));
    let (mut failures, mut notes) = (Vec::new(), Vec::new());
    for found in layers.chain(sources) {
        match found {
            Found::Failure(item) => failures.push(item),
            Found::Note(item) => notes.push(item),
            Found::Nothing => {}
        }
    }
    Check::of(Subject::SandboxTruth, unit, looked_at, failures, notes)
}

/// What there is to say of one thing.
enum Found {
    Failure(Item),
    Note(Item),
    Nothing,
}

/// A layer: what each report says of it, and what a payload saw.
fn of_layer(layer: Layer, before: (&SandboxReport, &Sight), after: (&SandboxReport, &Sight)) -> Found {
    let ((one, saw), (other, sees)) = (before, after);
    let item = |code| Item::new(code, Severity::Medium, "isolation", &format!("sandbox {layer}"));
    if let Some(lie) = contradicted(layer, other, sees) {
        return Found::Failure(lie);
    }
    match (enforces(one, layer), enforces(other, layer)) {
        (true, false) => {
            return Found::Failure(item("isolation_lost").seen(status(one, layer), status(other, layer)));
        }
        (false, true) => {
            return Found::Note(item("isolation_gained").seen(status(one, layer), status(other, layer)));
        }
        (true, true) => return Found::Nothing,
        (false, false) => {}
    }
    match (saw, sees) {
        (Sight::Holds, Sight::Absent(why)) => {
            Found::Failure(item("isolation_lost").seen("as behind the layer", why))
        }
        (_, Sight::Holds) if status(other, layer) != word(&LayerStatus::Partial) => {
            Found::Note(item("isolation_unclaimed").seen(status(other, layer), "as behind the layer"))
        }
        _ => Found::Nothing,
    }
}

/// A layer that is called enforced while a payload sees that it is not there.
fn contradicted(layer: Layer, claims: &SandboxReport, sight: &Sight) -> Option<Item> {
    let Sight::Absent(why) = sight else { return None };
    let item = Item::new("claim_contradicted", Severity::Critical, "isolation", &format!("sandbox {layer}"));
    enforces(claims, layer).then(|| item.seen("enforced, as the report says", why))
}

fn of_source(source: Source, one: &SandboxReport, other: &SandboxReport) -> Found {
    let item = |code| {
        let item = Item::new(code, Severity::Medium, "isolation", &format!("source {}", word(&source)));
        item.seen(word(&one.source(source)), word(&other.source(source)))
    };
    match (one.source(source) == SourceState::Fixed, other.source(source) == SourceState::Fixed) {
        (true, false) => Found::Failure(item("source_lost")),
        (false, true) => Found::Note(item("source_gained")),
        _ => Found::Nothing,
    }
}

fn enforces(report: &SandboxReport, layer: Layer) -> bool {
    report.layer(layer).is_some_and(|row| row.status == LayerStatus::Enforced)
}

fn status(report: &SandboxReport, layer: Layer) -> String {
    report.layer(layer).map_or_else(|| "unreported".to_owned(), |row| word(&row.status))
}

#[cfg(test)]
mod tests {
    use requiem_model::Requirement;
    use requiem_model::report::{Evidence as How, LayerReport, Proof};

    use super::*;

    fn report(status: LayerStatus) -> SandboxReport {
        let row = match status {
            LayerStatus::Enforced => {
                LayerReport::enforced(Layer::Seccomp, Requirement::Preferred, "seccomp", Proof::Probe)
            }
            other => {
                LayerReport::short_of(Layer::Seccomp, Requirement::Preferred, other, "m", How::None, "why")
            }
        };
        SandboxReport { layers: vec![row], sources: Vec::new() }
    }

    fn of(one: (LayerStatus, Sight), other: (LayerStatus, Sight)) -> &'static str {
        let (before, after) = (report(one.0), report(other.0));
        match of_layer(Layer::Seccomp, (&before, &one.1), (&after, &other.1)) {
            Found::Failure(item) if item.code == "claim_contradicted" => "lie",
            Found::Failure(item) if item.code == "isolation_lost" => "lost",
            Found::Note(item) if item.code == "isolation_gained" => "gained",
            Found::Note(item) if item.code == "isolation_unclaimed" => "unclaimed",
            Found::Nothing => "nothing",
            Found::Failure(_) | Found::Note(_) => "other",
        }
    }

    #[test]
    fn claims_are_held_against_what_a_payload_saw() {
        use LayerStatus::{Enforced, Partial, Unsupported};
        let gone = || Sight::Absent("Seccomp=0".to_owned());
        for (one, other, wanted) in [
            ((Enforced, Sight::Holds), (Enforced, Sight::Holds), "nothing"),
            ((Enforced, Sight::Holds), (Enforced, gone()), "lie"),
            ((Unsupported, gone()), (Enforced, gone()), "lie"),
            ((Enforced, Sight::Holds), (Unsupported, gone()), "lost"),
            // Nobody but the sandbox can say that it enforces anything, so this is lost even if it seems to be there.
            ((Enforced, Sight::Holds), (Unsupported, Sight::Holds), "lost"),
            ((Enforced, Sight::Unseen), (Partial, Sight::Unseen), "lost"),
            ((Unsupported, Sight::Holds), (Unsupported, gone()), "lost"),
            ((Unsupported, gone()), (Enforced, Sight::Holds), "gained"),
            ((Unsupported, gone()), (Unsupported, Sight::Holds), "unclaimed"),
            ((Unsupported, gone()), (Unsupported, gone()), "nothing"),
            ((Unsupported, Sight::Unseen), (Unsupported, gone()), "nothing"),
        ] {
            assert_eq!(of(one.clone(), other.clone()), wanted, "{one:?} {other:?}");
        }
        assert!(contradicted(Layer::Seccomp, &report(Enforced), &gone()).is_some());
        assert!(contradicted(Layer::Seccomp, &report(Partial), &gone()).is_none());
        assert!(contradicted(Layer::Seccomp, &report(Enforced), &Sight::Unseen).is_none());
    }
}
