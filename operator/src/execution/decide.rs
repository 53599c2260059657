//! Step 3, pure and total: what to do next, given the plan and what is known. No clock, no client, no chance.
//!
//! ```text
//! Unknown ─ask─▶ Nowhere ─start─▶ Sent ─answer─▶ At(queued, running) ─follow─▶ At(sealed) ─▶ finish
//!    │              │               │                    │                     At(failed) ─▶ finish, or next attempt
//!    └──────────────┴── hold: suspended, no pool, executor away, cancelled before the start
//! ```

use std::time::Duration;

use requiem_crds::admission::Violation;
use requiem_crds::condition::Reason;
use requiem_crds::execution::CacheMode;
use requiem_crds::status::ResultReason;
use requiem_model::attempt::{AttemptState, SealedAttempt};
use requiem_model::{Failure, FailureReason, Outcome};
use requiem_proof::Verified;

use super::judge::judge;
use super::policy::Admission;
use super::tracker::{Known, Place};
use super::validate::Plan;
use crate::backoff;
use crate::dedicated::Own;
use crate::dispatch::Endpoint;
use crate::dispatch::rendezvous::{self, Candidate};
use crate::health::{GRACE, Outage};

/// Attempts that may be lost with their executors before the Execution is given up. They do not count against
/// the user's own limit.
pub const MAX_LOSSES: u32 = 20;
/// A hold is ended by an event; this is for the event that never came.
const FALLBACK: Duration = Duration::from_secs(60);
const SLOWEST_AFTER_LOSS: Duration = Duration::from_secs(10);

/// The pool as the cache has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pool {
    /// There is none of that name.
    Missing,
    /// Its pods were not listed yet.
    Unlisted,
    /// Its pods cannot be seen, and so it is not known where an attempt may be.
    Unwatched(String),
    /// These are its executors.
    Executors(Vec<Candidate>),
}

/// What the pool says about an endpoint that has, or may have, the attempt.
enum Standing<'a> {
    /// Nothing against it.
    Here,
    /// The same executor has another address now.
    Moved(&'a Endpoint),
    /// It is not in the pool any more: what it has does not count.
    Gone,
}

/// Everything that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The pool, or the executor in the pod of this attempt.
    pub pool: Pool,
    /// The pod of this attempt, if it is to have one of its own.
    pub own: Option<Own>,
    /// What policies say. It counts before a start only.
    pub admission: Admission,
    /// What this process knows.
    pub known: Known,
    /// Endpoints that do not answer, of those that matter here.
    pub outages: Vec<Outage>,
    /// What the pod of this attempt says of its end, if it has one of its own and says something.
    pub last_word: Option<String>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing: it is over.
    Rest,
    /// Ask these endpoints whether they have the attempt.
    Ask {
        /// Number of the attempt.
        attempt: u32,
        /// All that may have it.
        endpoints: Vec<Endpoint>,
    },
    /// Make the pod in which the attempt is to run.
    Make {
        /// Number of the attempt.
        attempt: u32,
    },
    /// Look for an earlier result that answers; or wait for an identical Execution that runs.
    Recall,
    /// Start the attempt, or adopt it, and wait a little for its end.
    Start {
        /// Number of the attempt.
        attempt: u32,
        /// Where.
        endpoint: Endpoint,
    },
    /// Tell the executor to end the attempt.
    Cancel {
        /// Number of the attempt.
        attempt: u32,
        /// Who has it.
        endpoint: Endpoint,
    },
    /// Wait for the attempt's end in the background, and say how far it is.
    Follow {
        /// Number of the attempt.
        attempt: u32,
        /// Who has it.
        endpoint: Endpoint,
        /// What to say; nothing while an outage is young.
        report: Option<Progress>,
        /// When to look again, if not at the next change.
        again: Option<Duration>,
    },
    /// Go on with the next attempt.
    Advance {
        /// Number of the next attempt.
        attempt: u32,
        /// Whether the last one was lost with its executor.
        lost: bool,
        /// How long to wait first.
        wait: Duration,
        /// Why the last one is of no use.
        why: String,
    },
    /// Policies do not admit it: say so, for good.
    Refuse {
        /// Attempts so far.
        attempts: u32,
        /// What is against it.
        violations: Vec<Violation>,
    },
    /// Nothing can be done now.
    Hold {
        /// What to say, if anything.
        report: Option<Progress>,
        /// When to look again at the latest.
        again: Duration,
    },
    /// It is over: publish and report.
    Finish(Box<Final>),
}

/// A state that is not the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Why.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
    /// Attempts so far.
    pub attempts: u32,
}

/// The end.
#[derive(Debug, Clone, PartialEq)]
pub struct Final {
    /// How it ended.
    pub result: ResultReason,
    /// The same for people, with what to do.
    pub message: String,
    /// Attempts in all.
    pub attempts: u32,
    /// What was proven, if there is a result.
    pub proof: Option<Proof>,
    /// Code of the proof's verdict, if a proof was sent.
    pub verdict: Option<&'static str>,
    /// Who may forget the attempt once the status is written.
    pub endpoint: Option<Endpoint>,
}

/// A verified result and what is shown of its streams.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// The recomputed bundle.
    pub verified: Verified,
    /// Its exact bytes and the tails.
    pub sealed: SealedAttempt,
}

/// The next step.
pub fn next(plan: &Plan, seen: &Observed) -> Step {
    match &seen.known.place {
        Place::Finished => Step::Rest,
        Place::At(endpoint, state) => at(plan, seen, endpoint, state),
        Place::Sent(endpoint) => sent(plan, seen, endpoint),
        Place::Unknown => ask(plan, seen),
        Place::Nowhere => begin(plan, seen),
    }
}

/// Somebody earlier may have started the attempt on any endpoint of the pool.
fn ask(plan: &Plan, seen: &Observed) -> Step {
    let Pool::Executors(candidates) = &seen.pool else { return begin(plan, seen) };
    if candidates.is_empty() {
        return begin(plan, seen);
    }
    let silent = candidates.iter().find_map(|candidate| silence(seen, candidate));
    match silent {
        // Nothing is started while it is suspended, so nothing is lost by not knowing.
        Some(_) if plan.suspend && !plan.cancel => suspended(seen),
        Some(outage) => away(seen, &outage),
        None => {
            let endpoints = candidates.iter().map(|candidate| candidate.endpoint.clone()).collect();
            Step::Ask { attempt: seen.known.attempt, endpoints }
        }
    }
}

/// Nobody has the attempt.
fn begin(plan: &Plan, seen: &Observed) -> Step {
    if plan.cancel {
        return Step::Finish(Box::new(cancelled_early(seen)));
    }
    if plan.suspend {
        return suspended(seen);
    }
    match unadmitted(seen) {
        None if plan.cache == CacheMode::Use && !seen.known.unanswered => return Step::Recall,
        Some(step) if !may_run(seen) => return step,
        // It may have been admitted once and run now; what holds it below holds it until that is known.
        None | Some(_) => {}
    }
    let candidates = match &seen.pool {
        Pool::Executors(candidates) => candidates,
        Pool::Unlisted => return Step::Hold { report: None, again: FALLBACK },
        Pool::Unwatched(why) => return hold(seen, Reason::NoExecutor, why.clone()),
        Pool::Missing => {
            let message =
                format!("ExecutorPool {} does not exist; create it, or name another pool", plan.pool);
            return hold(seen, Reason::PoolNotFound, message);
        }
    };
    if !seen.known.wait.is_zero() && (seen.own.is_some() || !candidates.is_empty()) {
        return Step::Hold { report: None, again: seen.known.wait };
    }
    if let Some(step) = seen.own.as_ref().and_then(|own| own_pod(plan, seen, own)) {
        return step;
    }
    let attempt = seen.known.attempt;
    let takes = || candidates.iter().filter(|candidate| candidate.takes && candidate.absent.is_none());
    let answers = takes().filter(|candidate| outage(seen, &candidate.endpoint).is_none());
    if let Some(endpoint) = rendezvous::choose(&plan.uid, attempt, answers) {
        return Step::Start { attempt, endpoint: endpoint.clone() };
    }
    match rendezvous::choose(&plan.uid, attempt, takes()).and_then(|endpoint| outage(seen, endpoint)) {
        Some(outage) => away(seen, outage),
        None => nobody_takes(plan, seen, candidates),
    }
}

/// What policies have against a start, if anything.
fn unadmitted(seen: &Observed) -> Option<Step> {
    match &seen.admission {
        Admission::Admitted => None,
        Admission::Unlisted => Some(Step::Hold { report: None, again: FALLBACK }),
        Admission::Unavailable(why) => Some(hold(seen, Reason::PolicyUnavailable, why.clone())),
        Admission::Refused(violations) => {
            Some(Step::Refuse { attempts: begun(seen), violations: violations.clone() })
        }
    }
}

/// Whether somebody may have the attempt who cannot be asked now.
fn may_run(seen: &Observed) -> bool {
    seen.known.place == Place::Unknown && seen.own != Some(Own::Missing)
}

/// What comes before the start in a pod of its own; nothing when it serves.
fn own_pod(plan: &Plan, seen: &Observed, own: &Own) -> Option<Step> {
    let attempt = seen.known.attempt;
    match own {
        Own::Serving => None,
        Own::Missing => Some(Step::Make { attempt }),
        Own::Starting(Some(trouble)) => Some(hold(seen, trouble.reason, trouble.message.clone())),
        Own::Starting(None) => {
            let message = format!("the pod of attempt {attempt} starts");
            Some(hold(seen, Reason::PodStarting, message))
        }
        Own::Lost => {
            let message = format!("the pod of attempt {attempt} ended before its executor served");
            let failure =
                Failure::new(FailureReason::ExecutorLost, message, "see the events of the namespace");
            Some(failed(plan, seen, None, &failure))
        }
    }
}

fn nobody_takes(plan: &Plan, seen: &Observed, candidates: &[Candidate]) -> Step {
    if candidates.is_empty() {
        let message = format!(
            "ExecutorPool {} has no executor; add one to spec.endpoints, or see why its pods do not start: kubectl \
             describe executorpool {}",
            plan.pool, plan.pool.name
        );
        return hold(seen, Reason::NoEndpoints, message);
    }
    let message =
        format!("no executor of ExecutorPool {} takes new work now; this goes on when one does", plan.pool);
    hold(seen, Reason::NoExecutor, message)
}

/// A start was sent and not answered: that endpoint, and no other, may have the attempt.
fn sent(plan: &Plan, seen: &Observed, endpoint: &Endpoint) -> Step {
    let attempt = seen.known.attempt;
    let ask = |endpoint: &Endpoint| Step::Ask { attempt, endpoints: vec![endpoint.clone()] };
    match standing(seen, endpoint) {
        // Who takes an endpoint out of a pool says that what it has does not count any more.
        Standing::Gone => return begin(plan, seen),
        Standing::Moved(now) => {
            return silence_of(seen, now).map_or_else(|| ask(now), |outage| away(seen, &outage));
        }
        Standing::Here => {}
    }
    match outage(seen, endpoint) {
        Some(outage) if outage.draining => ask(endpoint),
        Some(outage) => away(seen, outage),
        None if plan.cancel || plan.suspend => ask(endpoint),
        None => Step::Start { attempt, endpoint: endpoint.clone() },
    }
}

fn at(plan: &Plan, seen: &Observed, endpoint: &Endpoint, state: &AttemptState) -> Step {
    match state {
        AttemptState::Sealed { sealed } => {
            return Step::Finish(Box::new(ended(plan, seen, endpoint, sealed)));
        }
        AttemptState::Failed { failure } => return failed(plan, seen, Some(endpoint), failure),
        AttemptState::Queued | AttemptState::Running => {}
    }
    match (standing(seen, endpoint), state) {
        (Standing::Gone, _) => failed(plan, seen, Some(endpoint), &gone(endpoint)),
        (Standing::Moved(now), _) => match silence_of(seen, now) {
            Some(outage) => away(seen, &outage),
            None => Step::Ask { attempt: seen.known.attempt, endpoints: vec![now.clone()] },
        },
        (Standing::Here, AttemptState::Queued) => {
            follow(plan, seen, endpoint, Reason::Queued, "waits for a free slot of")
        }
        (Standing::Here, _) => follow(plan, seen, endpoint, Reason::Running, "runs on"),
    }
}

/// An executor that has left its pool with an attempt that had not ended.
fn gone(endpoint: &Endpoint) -> Failure {
    let message = format!("executor {endpoint} left its pool before the attempt had ended");
    Failure::new(FailureReason::ExecutorLost, message, "see why its pod, or its place in the pool, is gone")
}

fn follow(plan: &Plan, seen: &Observed, endpoint: &Endpoint, reason: Reason, what: &str) -> Step {
    let attempt = seen.known.attempt;
    let step = |report, again| Step::Follow { attempt, endpoint: endpoint.clone(), report, again };
    match outage(seen, endpoint).filter(|outage| !outage.draining) {
        Some(outage) if outage.lasted < GRACE => return step(None, Some(GRACE - outage.lasted)),
        Some(outage) => return step(Some(unavailable(seen, outage)), None),
        None => {}
    }
    if plan.cancel && !seen.known.cancelling {
        return Step::Cancel { attempt, endpoint: endpoint.clone() };
    }
    let (reason, message) = if plan.cancel {
        (Reason::Cancelling, format!("executor {endpoint} was told to end attempt {attempt}"))
    } else {
        (reason, format!("attempt {attempt} {what} executor {endpoint}"))
    };
    step(Some(progress(seen, reason, message)), None)
}

fn failed(plan: &Plan, seen: &Observed, endpoint: Option<&Endpoint>, failure: &Failure) -> Step {
    let attempt = seen.known.attempt;
    let lost = failure.reason == FailureReason::ExecutorLost;
    if plan.cancel && failure.reason.is_transient() {
        return Step::Finish(Box::new(Final { endpoint: endpoint.cloned(), ..cancelled_early(seen) }));
    }
    let again = if lost {
        seen.known.losses < MAX_LOSSES && attempt < MAX_LOSSES + plan.retry_limit
    } else {
        failure.reason.is_transient() && seen.known.failures < plan.retry_limit
    };
    // A claim about why, for people. Whether there is a result is not decided by it.
    let word = seen.last_word.as_ref().filter(|_| lost).map(|word| format!("; {word}")).unwrap_or_default();
    if again {
        let place = endpoint.map(|endpoint| format!(" on executor {endpoint}")).unwrap_or_default();
        let why = format!("attempt {attempt} failed{place}: {failure}{word}");
        let wait = match (lost, seen.known.losses) {
            (true, 0) => Duration::ZERO,
            (true, losses) => backoff::delay(&plan.uid, losses).min(SLOWEST_AFTER_LOSS),
            (false, _) => backoff::delay(&plan.uid, seen.known.failures + 1),
        };
        return Step::Advance { attempt: attempt + 1, lost, wait, why };
    }
    let tried = if attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
    Step::Finish(Box::new(Final {
        result: failure.reason.into(),
        message: format!("{}{tried}{word}; {}", failure.message, failure.hint),
        attempts: attempt,
        proof: None,
        verdict: None,
        endpoint: endpoint.cloned(),
    }))
}

fn ended(plan: &Plan, seen: &Observed, endpoint: &Endpoint, sealed: &SealedAttempt) -> Final {
    let attempts = seen.known.attempt;
    match judge(plan, attempts, sealed) {
        Ok(verified) => Final {
            result: (&verified.body.execution.result).into(),
            message: summary(plan, &verified),
            attempts,
            proof: Some(Proof { verified, sealed: sealed.clone() }),
            verdict: Some("Verified"),
            endpoint: Some(endpoint.clone()),
        },
        // Not acknowledged: the journal of an executor that sends such proofs is evidence.
        Err(refusal) => Final {
            result: ResultReason::ProofRejected,
            message: format!(
                "{}: the proof that executor {endpoint} sent is refused: {refusal}; nothing of it was kept; \
                 examine that executor, and run the command again as a new Execution",
                refusal.code()
            ),
            attempts,
            proof: None,
            verdict: Some(refusal.code()),
            endpoint: None,
        },
    }
}

fn summary(plan: &Plan, verified: &Verified) -> String {
    let body = &verified.body;
    let limits = &plan.request.limits;
    let missing = || {
        let missing = body.execution.result.missing_outputs.iter().take(3);
        missing.map(|output| format!("{} ({})", output.path, output.why)).collect::<Vec<_>>().join(", ")
    };
    match body.execution.result.outcome {
        Outcome::Exited { code: 0 } if !body.execution.result.missing_outputs.is_empty() => {
            format!(
                "the command exited with 0 but did not leave {}; make it write them, or do not declare them",
                missing()
            )
        }
        Outcome::Exited { code: 0 } => {
            format!("the command exited with 0 on executor {}", body.run.executor.name)
        }
        Outcome::Exited { code } => {
            format!(
                "the command exited with {code}; see status.stderr.tail, or fetch the whole stream by its digest"
            )
        }
        Outcome::Signalled { signal } => {
            format!(
                "signal {signal} ended the command; see status.stderr.tail and the sandbox report of the proof"
            )
        }
        Outcome::TimedOut => format!(
            "the command was killed when it reached its limit of {} s; raise spec.timeoutSeconds if it needs longer",
            limits.timeout_ms / 1000
        ),
        Outcome::OutOfMemory => format!(
            "the command was killed when it reached its limit of {} bytes of memory; raise spec.limits.memory",
            limits.memory_bytes
        ),
    }
}

fn cancelled_early(seen: &Observed) -> Final {
    Final {
        result: ResultReason::Cancelled,
        message: "cancelled by spec.cancel or by deletion; no result was recorded".to_owned(),
        attempts: seen.known.attempt,
        proof: None,
        verdict: None,
        endpoint: None,
    }
}

fn suspended(seen: &Observed) -> Step {
    let message = "spec.suspend is true; set it to false to start the command".to_owned();
    hold(seen, Reason::Suspended, message)
}

fn away(seen: &Observed, outage: &Outage) -> Step {
    if outage.lasted < GRACE {
        return Step::Hold { report: None, again: GRACE - outage.lasted };
    }
    Step::Hold { report: Some(unavailable(seen, outage)), again: FALLBACK }
}

fn unavailable(seen: &Observed, outage: &Outage) -> Progress {
    let message = format!(
        "{}; this Execution goes on when it answers; it is not started elsewhere, because that executor may have it",
        outage.why
    );
    progress(seen, Reason::ExecutorUnavailable, message)
}

fn hold(seen: &Observed, reason: Reason, message: String) -> Step {
    Step::Hold { report: Some(progress(seen, reason, message)), again: FALLBACK }
}

fn progress(seen: &Observed, reason: Reason, message: String) -> Progress {
    Progress { reason, message, attempts: begun(seen) }
}

/// Attempts so far. One that nobody has is not counted yet.
fn begun(seen: &Observed) -> u32 {
    let begun = matches!(seen.known.place, Place::At(..) | Place::Sent(_));
    seen.known.attempt.saturating_sub(u32::from(!begun))
}

fn standing<'a>(seen: &'a Observed, endpoint: &Endpoint) -> Standing<'a> {
    // Without the pool nobody has said anything about its executors.
    let Pool::Executors(candidates) = &seen.pool else { return Standing::Here };
    let named = candidates.iter().map(|candidate| &candidate.endpoint).find(|one| one.name == endpoint.name);
    match named {
        Some(now) if now == endpoint => Standing::Here,
        Some(now) => Standing::Moved(now),
        None => Standing::Gone,
    }
}

/// Why `candidate` cannot be asked about an attempt now. One that drains can.
fn silence(seen: &Observed, candidate: &Candidate) -> Option<Outage> {
    let away = candidate.absent.as_ref().map(|why| Outage {
        endpoint: candidate.endpoint.clone(),
        lasted: GRACE,
        why: why.clone(),
        draining: false,
    });
    away.or_else(|| outage(seen, &candidate.endpoint).filter(|outage| !outage.draining).cloned())
}

fn silence_of(seen: &Observed, endpoint: &Endpoint) -> Option<Outage> {
    let Pool::Executors(candidates) = &seen.pool else { return None };
    candidates.iter().find(|candidate| candidate.endpoint == *endpoint).and_then(|one| silence(seen, one))
}

fn outage<'a>(seen: &'a Observed, endpoint: &Endpoint) -> Option<&'a Outage> {
    seen.outages.iter().find(|outage| outage.endpoint == *endpoint)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{at, body, candidate, endpoint, observed, planned, sealed_state};
    use super::*;
    use crate::executor_pool::trouble::Trouble;

    /// The step in a few words, for tables.
    fn words(step: &Step) -> String {
        let report = |report: &Option<Progress>| match report {
            Some(progress) => format!("{} after {}", progress.reason.as_str(), progress.attempts),
            None => "silent".to_owned(),
        };
        match step {
            Step::Rest => "rest".into(),
            Step::Ask { attempt, endpoints } => {
                let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
                format!("ask {} about {attempt}", names.join("+"))
            }
            Step::Recall => "recall".into(),
            Step::Start { attempt, endpoint } => format!("start {attempt} on {}", endpoint.name),
            Step::Make { attempt } => format!("make the pod of {attempt}"),
            Step::Cancel { attempt, endpoint } => format!("cancel {attempt} on {}", endpoint.name),
            Step::Refuse { attempts, .. } => format!("refuse after {attempts}"),
            Step::Follow { attempt, report: said, .. } => format!("follow {attempt}: {}", report(said)),
            Step::Advance { attempt, lost, .. } => format!("advance to {attempt}, lost {lost}"),
            Step::Hold { report: said, .. } => format!("hold: {}", report(said)),
            Step::Finish(end) => {
                let acked = if end.endpoint.is_some() { "acked" } else { "kept" };
                format!("finish {} after {}, {acked}", end.result, end.attempts)
            }
        }
    }

    fn failure(reason: FailureReason) -> AttemptState {
        AttemptState::Failed { failure: Failure::new(reason, "why", "hint") }
    }

    fn down(name: &str, lasted: Duration) -> Outage {
        Outage { endpoint: endpoint(name), lasted, why: "cannot be reached".into(), draining: false }
    }

    type Change = fn(&mut Plan, &mut Observed);

    fn check(place: &Place, change: Change, expect: &str) {
        let (mut plan, mut seen) = (planned(), observed(place.clone()));
        change(&mut plan, &mut seen);
        assert_eq!(words(&next(&plan, &seen)), expect, "{place:?}");
    }

    const NO_CHANGE: Change = |_, _| {};
    const CANCEL: Change = |plan, _| plan.cancel = true;
    const SUSPEND: Change = |plan, _| plan.suspend = true;
    const NO_POOL: Change = |_, seen| seen.pool = Pool::Missing;
    const NO_ENDPOINTS: Change = |_, seen| seen.pool = Pool::Executors(vec![]);
    const BLINK: Change = |_, seen| seen.outages = vec![down("a", Duration::from_secs(1))];
    const DOWN: Change = |_, seen| seen.outages = vec![down("a", GRACE)];

    #[test]
    fn nobody_has_it() {
        let place = Place::Nowhere;
        check(&place, NO_CHANGE, "start 1 on a");
        check(&place, CANCEL, "finish Cancelled after 1, kept");
        check(&place, SUSPEND, "hold: Suspended after 0");
        check(&place, NO_POOL, "hold: PoolNotFound after 0");
        check(&place, NO_ENDPOINTS, "hold: NoEndpoints after 0");
        check(&place, BLINK, "hold: silent");
        check(&place, DOWN, "hold: ExecutorUnavailable after 0");
        check(&place, |_, seen| seen.known.wait = Duration::from_secs(1), "hold: silent");
        check(&place, |plan, _| (plan.cancel, plan.suspend) = (true, true), "finish Cancelled after 1, kept");
    }

    #[test]
    fn an_answer_is_looked_for_before_anything_is_started() {
        const USE: Change = |plan, _| plan.cache = CacheMode::Use;
        check(&Place::Nowhere, USE, "recall");
        check(&Place::Nowhere, |plan, seen| (USE(plan, seen), NO_POOL(plan, seen)).0, "recall");
        check(
            &Place::Nowhere,
            |plan, seen| (USE(plan, seen), SUSPEND(plan, seen)).0,
            "hold: Suspended after 0",
        );
        check(&Place::Nowhere, |plan, _| plan.cache = CacheMode::Refresh, "start 1 on a");
        let asked: Change = |plan, seen| (plan.cache, seen.known.unanswered) = (CacheMode::Use, true);
        check(&Place::Nowhere, asked, "start 1 on a");
        // What may be running already is not answered by anything else.
        check(&Place::Unknown, USE, "ask a about 1");
        check(&Place::Sent(endpoint("a")), USE, "start 1 on a");
        check(&at(AttemptState::Running), USE, "follow 1: Running after 1");
    }

    #[test]
    fn policies_are_asked_before_a_start_and_never_afterwards() {
        use requiem_crds::admission::Kind;
        let refused = || {
            let rule = Violation {
                kind: Kind::Namespaced,
                policy: "p".into(),
                rule: "pools",
                message: "why".into(),
            };
            Admission::Refused(vec![rule])
        };
        let blind = Admission::Unavailable("why".into());
        let step = |admission: &Admission, place: Place, change: Change| {
            let (mut plan, mut seen) = (planned(), observed(place));
            seen.admission = admission.clone();
            change(&mut plan, &mut seen);
            words(&next(&plan, &seen))
        };
        for change in [NO_CHANGE, NO_POOL, NO_ENDPOINTS, |plan, _| plan.cache = CacheMode::Use] {
            let step = |admission: &Admission| step(admission, Place::Nowhere, change);
            assert_eq!(step(&refused()), "refuse after 0");
            assert_eq!(step(&blind), "hold: PolicyUnavailable after 0");
            assert_eq!(step(&Admission::Unlisted), "hold: silent");
        }
        assert_eq!(step(&refused(), Place::Nowhere, CANCEL), "finish Cancelled after 1, kept");
        assert_eq!(step(&refused(), Place::Nowhere, SUSPEND), "hold: Suspended after 0");
        assert_eq!(step(&refused(), Place::Nowhere, |_, seen| seen.known.attempt = 2), "refuse after 1");
        let missing: Change = |_, seen| (seen.own, seen.pool) = (Some(Own::Missing), Pool::Executors(vec![]));
        assert_eq!(step(&refused(), Place::Nowhere, missing), "refuse after 0");
        assert_eq!(step(&refused(), Place::Unknown, missing), "refuse after 0");
        // A start that was sent to an executor which has left its pool would be another start.
        let replaced: Change = |_, seen| seen.pool = Pool::Executors(vec![candidate("b")]);
        assert_eq!(step(&refused(), Place::Sent(endpoint("a")), replaced), "refuse after 1");
        // Somebody has it, or may have it: it was admitted when that began.
        for admission in [&refused(), &blind, &Admission::Unlisted] {
            let step = |place, change| step(admission, place, change);
            assert_eq!(step(at(AttemptState::Running), NO_CHANGE), "follow 1: Running after 1");
            assert_eq!(step(Place::Sent(endpoint("a")), NO_CHANGE), "start 1 on a");
            assert_eq!(step(Place::Unknown, NO_CHANGE), "ask a about 1");
            assert_eq!(step(Place::Unknown, NO_POOL), "hold: PoolNotFound after 0");
            assert_eq!(step(Place::Unknown, NO_ENDPOINTS), "hold: NoEndpoints after 0");
            let starting: Change = |_, seen| {
                (seen.own, seen.pool) = (Some(Own::Starting(None)), Pool::Executors(vec![]));
            };
            assert_eq!(step(Place::Unknown, starting), "hold: PodStarting after 0");
            let use_it: Change = |plan, seen| (plan.cache = CacheMode::Use, NO_POOL(plan, seen)).1;
            assert_eq!(step(Place::Unknown, use_it), "hold: PoolNotFound after 0");
        }
    }

    #[test]
    fn somebody_may_have_it() {
        let place = Place::Unknown;
        check(&place, NO_CHANGE, "ask a about 1");
        check(&place, CANCEL, "ask a about 1");
        check(&place, SUSPEND, "ask a about 1");
        check(&place, NO_POOL, "hold: PoolNotFound after 0");
        check(&place, NO_ENDPOINTS, "hold: NoEndpoints after 0");
        check(&place, DOWN, "hold: ExecutorUnavailable after 0");
        check(&place, |plan, seen| (SUSPEND(plan, seen), DOWN(plan, seen)).0, "hold: Suspended after 0");
        let two: Change = |_, seen| seen.pool = Pool::Executors(vec![candidate("a"), candidate("b")]);
        check(&place, two, "ask a+b about 1");
    }

    #[test]
    fn while_another_endpoint_may_have_it_nothing_is_started() {
        let two = |seen: &mut Observed, away: &str| {
            seen.pool = Pool::Executors(vec![candidate("a"), candidate("b")]);
            seen.outages = vec![down(away, GRACE)];
        };
        for away in ["a", "b"] {
            let (plan, mut seen) = (planned(), observed(Place::Unknown));
            two(&mut seen, away);
            assert_eq!(words(&next(&plan, &seen)), "hold: ExecutorUnavailable after 0");
        }
        // A start that was sent to a and not answered stays with a, whoever else is there.
        let (plan, mut seen) = (planned(), observed(Place::Sent(endpoint("a"))));
        two(&mut seen, "a");
        assert_eq!(words(&next(&plan, &seen)), "hold: ExecutorUnavailable after 1");
        two(&mut seen, "b");
        assert_eq!(words(&next(&plan, &seen)), "start 1 on a");
    }

    #[test]
    fn a_start_was_not_answered() {
        let place = Place::Sent(endpoint("a"));
        check(&place, NO_CHANGE, "start 1 on a");
        check(&place, CANCEL, "ask a about 1");
        check(&place, SUSPEND, "ask a about 1");
        check(&place, BLINK, "hold: silent");
        check(&place, DOWN, "hold: ExecutorUnavailable after 1");
        let replaced: Change = |_, seen| seen.pool = Pool::Executors(vec![candidate("b")]);
        check(&place, replaced, "start 1 on b");
        check(&place, NO_ENDPOINTS, "hold: NoEndpoints after 1");
    }

    #[test]
    fn it_is_under_way() {
        for (state, reason) in [(AttemptState::Queued, "Queued"), (AttemptState::Running, "Running")] {
            let place = at(state);
            check(&place, NO_CHANGE, &format!("follow 1: {reason} after 1"));
            check(&place, SUSPEND, &format!("follow 1: {reason} after 1"));
            check(&place, NO_POOL, &format!("follow 1: {reason} after 1"));
            check(&place, CANCEL, "cancel 1 on a");
            check(
                &place,
                |plan, seen| (plan.cancel, seen.known.cancelling) = (true, true),
                "follow 1: Cancelling after 1",
            );
            check(&place, BLINK, "follow 1: silent");
            check(&place, DOWN, "follow 1: ExecutorUnavailable after 1");
        }
    }

    fn two(change: impl FnOnce(&mut [Candidate])) -> Pool {
        let mut both = vec![candidate("a"), candidate("b")];
        change(&mut both);
        Pool::Executors(both)
    }

    fn draining(name: &str) -> Outage {
        Outage { draining: true, ..down(name, GRACE) }
    }

    #[test]
    fn what_nobody_has_is_started_where_there_is_somebody_who_takes_it() {
        let place = Place::Nowhere;
        let step = |pool, outages| {
            let mut seen = observed(place.clone());
            (seen.pool, seen.outages) = (pool, outages);
            words(&next(&planned(), &seen))
        };
        assert_eq!(step(two(|_| ()), vec![down("a", GRACE)]), "start 1 on b");
        assert_eq!(step(two(|_| ()), vec![draining("b")]), "start 1 on a");
        for first in ["a", "b"] {
            let free = |both: &mut [Candidate]| {
                both.iter_mut().for_each(|one| one.free = one.endpoint.name == first);
            };
            assert_eq!(step(two(free), vec![]), format!("start 1 on {first}"));
            let takes = |both: &mut [Candidate]| {
                both.iter_mut().for_each(|one| one.takes = one.endpoint.name == first);
            };
            assert_eq!(step(two(takes), vec![]), format!("start 1 on {first}"));
        }
        let none = |both: &mut [Candidate]| both.iter_mut().for_each(|one| one.takes = false);
        assert_eq!(step(two(none), vec![]), "hold: NoExecutor after 0");
        assert_eq!(
            step(two(|_| ()), vec![draining("a"), draining("b")]),
            "hold: ExecutorUnavailable after 0"
        );
        assert_eq!(step(Pool::Unwatched("why".into()), vec![]), "hold: NoExecutor after 0");
        assert_eq!(step(Pool::Unlisted, vec![]), "hold: silent");
    }

    #[test]
    fn a_pod_of_its_own_is_made_waited_for_and_made_anew() {
        let trouble = |reason| Own::Starting(Some(Trouble { reason, message: "why".into() }));
        let step = |own, candidates: &[&str], place| {
            let mut seen = observed(place);
            seen.pool = Pool::Executors(candidates.iter().map(|name| candidate(name)).collect());
            seen.own = Some(own);
            words(&next(&planned(), &seen))
        };
        for place in [Place::Nowhere, Place::Unknown] {
            assert_eq!(step(Own::Missing, &[], place.clone()), "make the pod of 1");
            assert_eq!(step(Own::Starting(None), &[], place.clone()), "hold: PodStarting after 0");
            let stuck = trouble(Reason::ImageUnavailable);
            assert_eq!(step(stuck, &[], place.clone()), "hold: ImageUnavailable after 0");
            assert_eq!(step(Own::Lost, &[], place), "advance to 2, lost true");
        }
        assert_eq!(step(Own::Serving, &["a"], Place::Nowhere), "start 1 on a");
        assert_eq!(step(Own::Serving, &["a"], Place::Unknown), "ask a about 1");
        assert_eq!(step(Own::Lost, &[], at(AttemptState::Running)), "advance to 2, lost true");
        assert_eq!(step(Own::Lost, &["a"], at(AttemptState::Running)), "follow 1: Running after 1");
        let cancelled = |own| {
            let (mut plan, mut seen) = (planned(), observed(Place::Nowhere));
            (plan.cancel, seen.own) = (true, Some(own));
            words(&next(&plan, &seen))
        };
        assert_eq!(cancelled(Own::Missing), "finish Cancelled after 1, kept");
        assert_eq!(cancelled(Own::Starting(None)), "finish Cancelled after 1, kept");
    }

    #[test]
    fn the_last_word_of_a_lost_pod_is_told_and_decides_nothing() {
        let lost = at(failure(FailureReason::ExecutorLost));
        let step = |place, losses| {
            let mut seen = observed(place);
            (seen.own, seen.known.losses) = (Some(Own::Lost), losses);
            seen.last_word = Some("it said farewell".into());
            next(&planned(), &seen)
        };
        let Step::Advance { why, .. } = step(lost.clone(), 0) else { panic!("not tried again") };
        assert!(
            why.starts_with("attempt 1 failed on executor a") && why.ends_with("; it said farewell"),
            "{why}"
        );
        let Step::Finish(end) = step(lost, MAX_LOSSES) else { panic!("tried again") };
        assert!(end.message.contains("; it said farewell; hint"), "{}", end.message);
        let Step::Finish(end) = step(at(failure(FailureReason::InputMissing)), 0) else {
            panic!("tried again")
        };
        assert!(!end.message.contains("farewell"), "{}", end.message);
    }

    #[test]
    fn who_drains_is_asked_and_given_nothing() {
        let step = |place, outages| {
            let mut seen = observed(place);
            (seen.pool, seen.outages) = (two(|both| both[0].takes = false), outages);
            words(&next(&planned(), &seen))
        };
        assert_eq!(step(Place::Unknown, vec![draining("a")]), "ask a+b about 1");
        assert_eq!(step(Place::Sent(endpoint("a")), vec![draining("a")]), "ask a about 1");
        assert_eq!(step(at(AttemptState::Running), vec![draining("a")]), "follow 1: Running after 1");
    }

    #[test]
    fn an_executor_that_left_the_pool_has_lost_its_attempt() {
        let place = at(AttemptState::Running);
        const OTHER: Change = |_, seen| seen.pool = Pool::Executors(vec![candidate("b")]);
        check(&place, OTHER, "advance to 2, lost true");
        check(&at(AttemptState::Queued), NO_ENDPOINTS, "advance to 2, lost true");
        check(
            &place,
            |plan, seen| (CANCEL(plan, seen), OTHER(plan, seen)).0,
            "finish Cancelled after 1, acked",
        );
        // Without the pool, or without a view of its pods, nothing is known against it.
        check(&place, |_, seen| seen.pool = Pool::Unwatched("why".into()), "follow 1: Running after 1");
        // A result that has arrived counts, whatever became of the executor.
        let sealed = at(sealed_state(&body(&planned(), 1, Outcome::Exited { code: 0 })));
        check(&sealed, OTHER, "finish Succeeded after 1, acked");
    }

    #[test]
    fn an_executor_at_a_new_address_is_asked_what_it_still_has() {
        let moved = || Endpoint { url: "https://elsewhere:8443".into(), ..endpoint("a") };
        let here: Change = |_, seen| {
            let now = Endpoint { url: "https://elsewhere:8443".into(), ..endpoint("a") };
            seen.pool = Pool::Executors(vec![Candidate { endpoint: now, ..candidate("a") }, candidate("b")]);
        };
        let nowhere: Change = |_, seen| {
            let now = Endpoint { url: "https://elsewhere:8443".into(), ..endpoint("a") };
            let absent = Some("its pod has no address".into());
            seen.pool =
                Pool::Executors(vec![Candidate { endpoint: now, absent, ..candidate("a") }, candidate("b")]);
        };
        for place in [at(AttemptState::Running), Place::Sent(endpoint("a"))] {
            check(&place, here, "ask a about 1");
            let mut seen = observed(place.clone());
            here(&mut planned(), &mut seen);
            let Step::Ask { endpoints, .. } = next(&planned(), &seen) else { panic!("not asked") };
            assert_eq!(endpoints, [moved()]);
            check(&place, nowhere, "hold: ExecutorUnavailable after 1");
        }
        check(&Place::Unknown, nowhere, "hold: ExecutorUnavailable after 0");
        check(&Place::Nowhere, nowhere, "start 1 on b");
    }

    #[test]
    fn lost_attempts_are_followed_by_others_up_to_a_cap_of_their_own() {
        let place = at(failure(FailureReason::ExecutorLost));
        check(&place, NO_CHANGE, "advance to 2, lost true");
        check(&place, |plan, _| plan.retry_limit = 0, "advance to 2, lost true");
        check(&place, CANCEL, "finish Cancelled after 1, acked");
        check(&place, |_, seen| seen.known.losses = MAX_LOSSES, "finish ExecutorLost after 1, acked");
        check(&place, |_, seen| seen.known.attempt = 100, "finish ExecutorLost after 100, acked");
    }

    #[test]
    fn what_may_pass_is_repeated_up_to_the_users_limit_and_nothing_else_is() {
        use FailureReason::*;
        let all = [
            InvalidRequest,
            InputMissing,
            InputCorrupt,
            LayerUnavailable,
            CommandNotRunnable,
            StoreFull,
            StoreError,
            SandboxError,
            Cancelled,
        ];
        for reason in all {
            let place = at(failure(reason));
            let once = if reason.is_transient() {
                "advance to 2, lost false".to_owned()
            } else {
                format!("finish {reason} after 1, acked")
            };
            check(&place, NO_CHANGE, &once);
            let spent: Change = |plan, seen| seen.known.failures = plan.retry_limit;
            check(&place, spent, &format!("finish {reason} after 1, acked"));
        }
    }

    #[test]
    fn repeats_wait_longer_and_longer() {
        let waits: Vec<Duration> = (0..3)
            .map(|failures| {
                let mut seen = observed(at(failure(FailureReason::StoreFull)));
                seen.known.failures = failures;
                match next(&planned(), &seen) {
                    Step::Advance { wait, .. } => wait,
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        assert!(waits[0] > Duration::ZERO && waits[1] > waits[0] && waits[2] > waits[1], "{waits:?}");
    }

    #[test]
    fn each_outcome_has_its_reason() {
        let table = [
            (Outcome::Exited { code: 0 }, "Succeeded"),
            (Outcome::Exited { code: 3 }, "NonZeroExit"),
            (Outcome::Signalled { signal: 11 }, "Signalled"),
            (Outcome::TimedOut, "TimedOut"),
            (Outcome::OutOfMemory, "OutOfMemory"),
        ];
        for (outcome, reason) in table {
            let place = at(sealed_state(&body(&planned(), 1, outcome)));
            check(&place, NO_CHANGE, &format!("finish {reason} after 1, acked"));
            // A result that is there counts, whatever was wished for meanwhile.
            check(&place, CANCEL, &format!("finish {reason} after 1, acked"));
            check(&place, DOWN, &format!("finish {reason} after 1, acked"));
        }
    }

    #[test]
    fn a_proof_that_does_not_hold_ends_it_and_stays_with_the_executor() {
        let mut foreign = body(&planned(), 1, Outcome::Exited { code: 0 });
        foreign.run.identity.uid = "another".into();
        let place = at(sealed_state(&foreign));
        check(&place, NO_CHANGE, "finish ProofRejected after 1, kept");
        let Step::Finish(end) = next(&planned(), &observed(place)) else { panic!("not the end") };
        assert!(end.message.starts_with("E_REQUEST_BINDING: "), "{}", end.message);
        assert!(end.proof.is_none());
    }
}
