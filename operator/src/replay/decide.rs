//! Step 3, pure and total: what to do next about the replays of one bundle. No clock, no client, no chance.
//!
//! ```text
//! Unknown ─ask─▶ Nowhere ─start─▶ Sent ─answer─▶ At(queued, running) ─wait─▶ At(sealed, failed) ─▶ record ─▶ Nowhere, next number
//! ```
//!
//! A run that gave no result is recorded as such, and another number takes its place, a few times.

use std::time::Duration;

use requiem_crds::admission;
use requiem_crds::condition::Reason;
use requiem_crds::replay::{ReplayOutcome, ReplayRun, ReplaysStatus};
use requiem_model::attempt::{AttemptState, SealedAttempt};
use requiem_model::{Failure, FailureReason};
use requiem_proof::compare::divergences;

use super::memory::Place;
use super::observe::{Case, Obstacle};
use crate::dispatch::Endpoint;
use crate::dispatch::rendezvous::{self, Candidate};
use crate::execution::judge::judge;
use crate::execution::policy::Admission;
use crate::execution::validate::Plan;
use crate::fleet::Post;
use crate::health::{GRACE, Outage};

/// Runs without a result that others make good.
pub const SPARE: usize = 4;
/// A hold is ended by an event; this is for the event that never came.
const FALLBACK: Duration = Duration::from_secs(60);
/// Most bytes of one ProofBundle. The API server takes 1.5 MiB, in its own encoding.
pub const MAX_OBJECT_BYTES: usize = 1 << 20;
/// Longest message of a run, in characters.
const MAX_MESSAGE: usize = 1000;

/// The executors of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crew {
    /// There is no such pool.
    Missing,
    /// Its pods were not listed yet.
    Unlisted,
    /// Its pods cannot be seen.
    Unwatched(String),
    /// These.
    Posts(Vec<Post>),
}

/// Everything that was seen besides the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where the next replay is.
    pub place: Place,
    /// The executors of its pool.
    pub crew: Crew,
    /// What policies say; it counts before a start only. Absent if there is no plan.
    pub admission: Option<Admission>,
    /// Executors that do not answer.
    pub outages: Vec<Outage>,
    /// Executors that have a free slot, as far as this process knows.
    pub free: Vec<Endpoint>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing more can be replayed.
    Finish(Obstacle),
    /// Nothing can be done now, and this is why.
    Hold {
        /// Why.
        reason: Reason,
        /// For people.
        message: String,
        /// When to look again at the latest.
        again: Duration,
    },
    /// Nothing can be said now.
    Rest(Duration),
    /// Ask these executors whether they have it.
    Ask(Vec<Endpoint>),
    /// Start it, or adopt it, and wait a little for its end.
    Start(Endpoint),
    /// Wait for its end.
    Wait(Endpoint),
    /// It has ended: write that down.
    Record(Box<Ended>),
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// What is written down.
    pub run: ReplayRun,
    /// Who may forget it then.
    pub forget: Option<Endpoint>,
}

impl Crew {
    /// Those who are known.
    pub fn posts(&self) -> &[Post] {
        match self {
            Self::Posts(posts) => posts,
            Self::Missing | Self::Unlisted | Self::Unwatched(_) => &[],
        }
    }
}

/// The next step.
pub fn next(case: &Case, seen: &Seen) -> Step {
    let plan = match &case.plan {
        Ok(plan) => plan,
        Err(obstacle) => return Step::Finish(obstacle.clone()),
    };
    match &seen.place {
        Place::At(endpoint, state) => match state.as_ref() {
            AttemptState::Sealed { sealed } => {
                Step::Record(Box::new(compared(case, plan, seen, endpoint, sealed)))
            }
            AttemptState::Failed { failure } => Step::Record(Box::new(failed(case, seen, endpoint, failure))),
            AttemptState::Queued | AttemptState::Running => held(case, plan, seen, endpoint, Step::Wait),
        },
        Place::Sent(endpoint) => held(case, plan, seen, endpoint, Step::Start),
        Place::Unknown => ask(case, plan, seen),
        Place::Nowhere => begin(case, plan, seen),
    }
}

/// `endpoint` has it, or may have it; `on` is what is done if it is still there.
fn held(case: &Case, plan: &Plan, seen: &Seen, endpoint: &Endpoint, on: fn(Endpoint) -> Step) -> Step {
    let Crew::Posts(posts) = &seen.crew else { return unknown_crew(plan, &seen.crew) };
    // Who takes an executor out of a pool says that what it has does not count any more.
    let Some(post) = posts.iter().find(|post| post.endpoint.name == endpoint.name) else {
        let message = format!("executor {} left its pool before the run had ended", endpoint.name);
        let failure = Failure::new(FailureReason::ExecutorLost, message, "see why it is gone");
        return Step::Record(Box::new(failed(case, seen, endpoint, &failure)));
    };
    match silence(seen, post) {
        Some(step) => step,
        None if post.endpoint != *endpoint || is_draining(seen, post) => {
            Step::Ask(vec![post.endpoint.clone()])
        }
        None => on(endpoint.clone()),
    }
}

/// Somebody earlier may have started it on any executor of the pool.
fn ask(case: &Case, plan: &Plan, seen: &Seen) -> Step {
    let posts = seen.crew.posts();
    match posts.iter().find_map(|post| silence(seen, post)) {
        Some(step) => step,
        None if posts.is_empty() => begin(case, plan, seen),
        None => Step::Ask(posts.iter().map(|post| post.endpoint.clone()).collect()),
    }
}

/// Nobody has it.
fn begin(case: &Case, plan: &Plan, seen: &Seen) -> Step {
    if let Some(step) = exhausted(&case.replays).or_else(|| unadmitted(seen)) {
        return step;
    }
    let Crew::Posts(posts) = &seen.crew else { return unknown_crew(plan, &seen.crew) };
    if posts.is_empty() {
        return hold(Reason::NoEndpoints, format!("ExecutorPool {} has no executor; add one", plan.pool));
    }
    let unusable = |post: &Post| useless(&case.replays, post) || taken(&case.replays, post);
    let fit: Vec<&Post> = posts.iter().filter(|post| !unusable(post)).collect();
    if fit.is_empty() {
        return nobody_fits(case, plan, posts);
    }
    let takes = |post: &&Post| post.takes && post.absent.is_none() && outage(seen, post).is_none();
    let candidates: Vec<Candidate> =
        fit.into_iter().filter(takes).map(|post| candidate(seen, post)).collect();
    match rendezvous::choose(&plan.uid, 1, &candidates) {
        Some(endpoint) => Step::Start(endpoint.clone()),
        None => hold(
            Reason::NoExecutor,
            format!("no executor of ExecutorPool {} that may run it takes new work now", plan.pool),
        ),
    }
}

fn candidate(seen: &Seen, post: &Post) -> Candidate {
    let endpoint = post.endpoint.clone();
    Candidate { takes: true, free: seen.free.contains(&endpoint), absent: None, endpoint }
}

/// Whether too much was tried already.
fn exhausted(replays: &ReplaysStatus) -> Option<Step> {
    let last = replays.runs.iter().rev().find(|run| run.outcome == ReplayOutcome::Failed)?;
    let failed = replays.runs.iter().filter(|run| run.outcome == ReplayOutcome::Failed).count();
    let over = failed > SPARE || last.reason.as_deref() == Some(RECEIPT_TOO_LARGE);
    over.then(|| Step::Finish(because(last)))
}

fn because(run: &ReplayRun) -> Obstacle {
    let reason = run.reason.as_deref().unwrap_or("unknown");
    let message = run.message.as_deref().unwrap_or_default();
    let message =
        format!("run {} on executor {} gave no result: {reason}: {message}", run.number, run.executor);
    Obstacle { reason: "NoResult", message }
}

/// What policies have against a start, if anything.
fn unadmitted(seen: &Seen) -> Option<Step> {
    match seen.admission.as_ref()? {
        Admission::Admitted => None,
        Admission::Unlisted => Some(Step::Rest(FALLBACK)),
        Admission::Unavailable(why) => Some(hold(Reason::PolicyUnavailable, why.clone())),
        Admission::Refused(violations) => {
            let message = admission::told(violations, 0);
            Some(Step::Finish(Obstacle { reason: "PolicyViolation", message }))
        }
    }
}

fn unknown_crew(plan: &Plan, crew: &Crew) -> Step {
    match crew {
        Crew::Missing => hold(
            Reason::PoolNotFound,
            format!("ExecutorPool {} does not exist; create it, and this goes on", plan.pool),
        ),
        Crew::Unwatched(why) => hold(Reason::NoExecutor, why.clone()),
        Crew::Unlisted | Crew::Posts(_) => Step::Rest(FALLBACK),
    }
}

/// Every executor was used up. More of them help if nodes are short, and not if each lacks something.
fn nobody_fits(case: &Case, plan: &Plan, posts: &[Post]) -> Step {
    let last = case.replays.runs.iter().rev().find(|run| run.outcome == ReplayOutcome::Failed);
    match last {
        Some(last) if !posts.iter().any(|post| taken(&case.replays, post)) => Step::Finish(because(last)),
        last => {
            let why = last.map(|last| format!("; {}", because(last).message)).unwrap_or_default();
            let message = format!(
                "something of this bundle ran on every node of ExecutorPool {} that can run it; add an executor on another \
                 node, and this goes on{why}",
                plan.pool
            );
            hold(Reason::NotEnoughNodes, message)
        }
    }
}

/// Whether this executor has shown that it cannot run it.
fn useless(replays: &ReplaysStatus, post: &Post) -> bool {
    let of = |run: &&ReplayRun| run.executor == post.endpoint.name && run.outcome == ReplayOutcome::Failed;
    replays.runs.iter().filter(of).any(|run| !is_transient(run))
}

/// Whether something of this bundle ran at the executor's place, where each place is to be another one.
fn taken(replays: &ReplaysStatus, post: &Post) -> bool {
    let at = |executor: Option<&str>, node: Option<&str>| {
        executor == Some(post.endpoint.name.as_str()) || (node.is_some() && node == post.node.as_deref())
    };
    let ran = replays.runs.iter().filter(|run| run.outcome != ReplayOutcome::Failed);
    replays.distinct_nodes
        && (at(replays.executor.as_deref(), replays.node.as_deref())
            || ran.into_iter().any(|run| at(Some(&run.executor), run.node.as_deref())))
}

/// Whether the same executor may well give a result the next time.
pub fn is_transient(run: &ReplayRun) -> bool {
    let transient =
        |reason: &FailureReason| reason.is_transient() && Some(reason.as_str()) == run.reason.as_deref();
    FailureReason::ALL.iter().any(transient)
}

/// What to do while an executor that has it, or may have it, does not answer. Said after a while only: a restart is shorter.
fn silence(seen: &Seen, post: &Post) -> Option<Step> {
    let away = outage(seen, post).filter(|outage| !outage.draining);
    if let Some(outage) = away.filter(|outage| outage.lasted < GRACE) {
        return Some(Step::Rest(GRACE - outage.lasted));
    }
    let why = post.absent.clone().or_else(|| away.map(|outage| outage.why.clone()))?;
    let name = &post.endpoint.name;
    let message = format!("executor {name} has, or may have, the next replay and does not answer: {why}");
    Some(hold(Reason::ExecutorUnavailable, message))
}

fn is_draining(seen: &Seen, post: &Post) -> bool {
    matches!(seen.place, Place::Sent(_)) && outage(seen, post).is_some_and(|outage| outage.draining)
}

fn outage<'a>(seen: &'a Seen, post: &Post) -> Option<&'a Outage> {
    seen.outages.iter().find(|outage| outage.endpoint == post.endpoint)
}

fn hold(reason: Reason, message: String) -> Step {
    Step::Hold { reason, message, again: FALLBACK }
}

// === what has ended ===

const RECEIPT_TOO_LARGE: &str = "ReceiptTooLarge";

/// The answer of an executor is a claim until it is recomputed; then it is the receipt.
fn compared(case: &Case, plan: &Plan, seen: &Seen, endpoint: &Endpoint, sealed: &SealedAttempt) -> Ended {
    let again = match judge(plan, 1, sealed) {
        Ok(again) => again,
        Err(error) => {
            let message = format!("{}: {error}; examine that executor", error.code());
            // Its journal is evidence, and stays.
            let run = without_result(case, seen, endpoint, "ProofRejected", message);
            return Ended { run, forget: None };
        }
    };
    let differing = divergences(&case.original.body.execution, &again.body.execution);
    let outcome = if again.execution_root == case.original.execution_root {
        ReplayOutcome::Agrees
    } else {
        ReplayOutcome::Diverges
    };
    let run = ReplayRun {
        outcome,
        reason: None,
        message: differing.first().map(|first| clip(&first.to_string())),
        execution_root: Some(sealed.execution_root),
        bundle_root: Some(sealed.bundle_root),
        body: Some(sealed.body.clone()),
        ..without_result(case, seen, endpoint, "", String::new())
    };
    Ended { run, forget: Some(endpoint.clone()) }
}

fn failed(case: &Case, seen: &Seen, endpoint: &Endpoint, failure: &Failure) -> Ended {
    let message = format!("{}; {}", failure.message, failure.hint);
    let run = without_result(case, seen, endpoint, failure.reason.as_str(), message);
    Ended { run, forget: Some(endpoint.clone()) }
}

/// A run that was lost with what its executor knew of it.
pub fn lost(case: &Case, seen: &[Post], endpoint: &Endpoint, why: &str) -> ReplayRun {
    blank(case, seen, endpoint, FailureReason::ExecutorLost.as_str(), why)
}

/// The same run when its receipt has no room beside the others.
pub fn too_large(run: &ReplayRun) -> ReplayRun {
    let message = format!("its ProofBundle would have more than {MAX_OBJECT_BYTES} bytes with its receipt");
    ReplayRun {
        outcome: ReplayOutcome::Failed,
        reason: Some(RECEIPT_TOO_LARGE.to_owned()),
        message: Some(message),
        execution_root: None,
        bundle_root: None,
        body: None,
        ..run.clone()
    }
}

fn without_result(case: &Case, seen: &Seen, endpoint: &Endpoint, reason: &str, message: String) -> ReplayRun {
    blank(case, seen.crew.posts(), endpoint, reason, &message)
}

fn blank(case: &Case, posts: &[Post], endpoint: &Endpoint, reason: &str, message: &str) -> ReplayRun {
    let post = posts.iter().find(|post| post.endpoint.name == endpoint.name);
    ReplayRun {
        number: case.number(),
        outcome: ReplayOutcome::Failed,
        executor: endpoint.name.clone(),
        node: post.and_then(|post| post.node.clone()),
        reason: Some(reason.to_owned()),
        message: Some(clip(message)),
        execution_root: None,
        bundle_root: None,
        body: None,
    }
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use requiem_crds::ProofBundle;
    use requiem_crds::admission::{Kind, Violation};
    use requiem_crds::replay::ReplayPhase;
    use requiem_model::Outcome;
    use requiem_proof::{BundleBody, Expect, verify};

    use super::super::{observe, report};
    use super::*;
    use crate::execution::samples::{body, endpoint, execution, planned, sealed, sealed_state};
    use crate::proof_bundle::object;

    const GOOD: Outcome = Outcome::Exited { code: 0 };

    /// A bundle whose first run took place on executor `a`, after these runs.
    fn case(wanted: u32, distinct: bool, runs: Vec<ReplayRun>) -> Case {
        let plan = planned();
        let first = sealed(&body(&plan, 1, GOOD));
        let original = verify(&first.body, &Expect::default()).unwrap();
        let mut bundle: ProofBundle = object(&plan, &original, &first.body);
        bundle.metadata.uid = Some("bundle".into());
        let count =
            |outcome| u32::try_from(runs.iter().filter(|run| run.outcome == outcome).count()).unwrap();
        let agreed = count(ReplayOutcome::Agrees);
        let replays = ReplaysStatus {
            phase: ReplayPhase::Running,
            wanted,
            distinct_nodes: distinct,
            replayed: agreed + count(ReplayOutcome::Diverges),
            agreed,
            first_divergence: None,
            executor: Some("a".into()),
            node: Some("node-a".into()),
            runs,
        };
        let plan = observe::plan(&bundle, &replays, &original, &execution());
        Case { bundle, replays, original, plan }
    }

    fn run(number: u32, executor: &str, node: Option<&str>, reason: Option<&str>) -> ReplayRun {
        let outcome = if reason.is_some() { ReplayOutcome::Failed } else { ReplayOutcome::Agrees };
        ReplayRun {
            number,
            outcome,
            executor: executor.into(),
            node: node.map(str::to_owned),
            reason: reason.map(str::to_owned),
            message: None,
            execution_root: None,
            bundle_root: None,
            body: None,
        }
    }

    fn post(name: &str, node: Option<&str>) -> Post {
        Post { endpoint: endpoint(name), takes: true, absent: None, node: node.map(str::to_owned) }
    }

    fn seen(place: Place, posts: Vec<Post>) -> Seen {
        let free = posts.iter().map(|post| post.endpoint.clone()).collect();
        Seen { place, crew: Crew::Posts(posts), admission: Some(Admission::Admitted), outages: vec![], free }
    }

    fn held_by(step: Step) -> (Reason, String) {
        match step {
            Step::Hold { reason, message, .. } => (reason, message),
            other => panic!("{other:?}"),
        }
    }

    fn outage(name: &str, seconds: u64) -> Outage {
        let (lasted, why) = (Duration::from_secs(seconds), "no route".to_owned());
        Outage { endpoint: endpoint(name), lasted, why, draining: false }
    }

    #[test]
    fn each_number_has_a_uid_of_its_own_and_the_request_of_the_bundle() {
        let case = case(2, false, vec![run(1, "b", None, None)]);
        let plan = case.plan.as_ref().unwrap();
        let start = plan.start(1);
        assert_eq!(start.identity.uid, "bundle-replay-2");
        assert_ne!(Some(&start.identity.uid), execution().metadata.uid.as_ref());
        assert_eq!(start.request.digest().unwrap(), case.original.request_digest);
        assert_eq!((start.identity.generation, start.identity.attempt), (1, 1));
    }

    #[test]
    fn nodes_are_distinct_if_that_is_wanted_and_the_first_run_counts() {
        let nobody = || seen(Place::Nowhere, vec![post("a", Some("node-a")), post("b", Some("node-a"))]);
        let (reason, message) = held_by(next(&case(2, true, vec![]), &nobody()));
        assert_eq!(reason, Reason::NotEnoughNodes);
        assert!(message.contains("ExecutorPool default/default"), "{message}");
        assert!(matches!(next(&case(2, false, vec![]), &nobody()), Step::Start(_)));

        let three = || vec![post("a", Some("node-a")), post("b", Some("node-b")), post("c", Some("node-c"))];
        let second = case(2, true, vec![run(1, "b", Some("node-b"), None)]);
        assert_eq!(next(&second, &seen(Place::Nowhere, three())), Step::Start(endpoint("c")));
        // A pod that was replaced is another executor on the same node.
        let mut replaced = three();
        replaced[2] = post("d", Some("node-b"));
        let step = next(&second, &seen(Place::Nowhere, replaced));
        assert_eq!(held_by(step).0, Reason::NotEnoughNodes);
        // A lost run used up nothing.
        let lost = case(2, true, vec![run(1, "b", Some("node-b"), Some("ExecutorLost"))]);
        let two = vec![post("a", Some("node-a")), post("b", Some("node-b"))];
        assert_eq!(next(&lost, &seen(Place::Nowhere, two)), Step::Start(endpoint("b")));
        // Executors at fixed addresses: each is a node of its own.
        let fixed = vec![post("a", None), post("b", None)];
        assert_eq!(next(&case(1, true, vec![]), &seen(Place::Nowhere, fixed)), Step::Start(endpoint("b")));
    }

    #[test]
    fn who_lacks_something_is_not_asked_twice_and_all_of_them_are_an_end() {
        let missing = |number, who| run(number, who, None, Some("InputMissing"));
        let two = || seen(Place::Nowhere, vec![post("a", None), post("b", None)]);
        let step = next(&case(1, false, vec![missing(1, "a")]), &two());
        assert_eq!(step, Step::Start(endpoint("b")));
        match next(&case(1, false, vec![missing(1, "a"), missing(2, "b")]), &two()) {
            Step::Finish(why) => assert!(why.message.contains("InputMissing"), "{why:?}"),
            other => panic!("{other:?}"),
        }
        let lost = (1..=5).map(|number| run(number, "a", None, Some("ExecutorLost"))).collect();
        assert!(matches!(next(&case(8, false, lost), &two()), Step::Finish(_)));
        let lost = (1..=4).map(|number| run(number, "a", None, Some("ExecutorLost"))).collect();
        assert!(matches!(next(&case(8, false, lost), &two()), Step::Start(_)));
        let large = vec![run(1, "a", None, Some(RECEIPT_TOO_LARGE))];
        assert!(matches!(next(&case(8, false, large), &two()), Step::Finish(_)));
    }

    #[test]
    fn while_somebody_may_have_it_nobody_else_starts_it() {
        let posts = || vec![post("a", None), post("b", None)];
        let both = vec![endpoint("a"), endpoint("b")];
        let wanted = case(1, false, vec![]);
        assert_eq!(next(&wanted, &seen(Place::Unknown, posts())), Step::Ask(both));
        for place in [
            Place::Unknown,
            Place::Sent(endpoint("a")),
            Place::At(endpoint("a"), Box::new(AttemptState::Running)),
        ] {
            let young = Seen { outages: vec![outage("a", 1)], ..seen(place.clone(), posts()) };
            assert_eq!(next(&wanted, &young), Step::Rest(GRACE - Duration::from_secs(1)));
            let old = Seen { outages: vec![outage("a", 9)], ..seen(place, posts()) };
            assert_eq!(held_by(next(&wanted, &old)).0, Reason::ExecutorUnavailable);
        }
        let away = Seen { outages: vec![outage("a", 9)], ..seen(Place::Nowhere, posts()) };
        assert_eq!(next(&wanted, &away), Step::Start(endpoint("b")));
        assert_eq!(next(&wanted, &seen(Place::Sent(endpoint("a")), posts())), Step::Start(endpoint("a")));
        // It left the pool: what it has does not count any more, and neither does its number.
        match next(&wanted, &seen(Place::Sent(endpoint("gone")), posts())) {
            Step::Record(ended) => assert_eq!(ended.run.reason.as_deref(), Some("ExecutorLost")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn policies_pools_and_executions_that_are_gone() {
        let wanted = case(1, false, vec![]);
        let with =
            |admission| Seen { admission: Some(admission), ..seen(Place::Nowhere, vec![post("a", None)]) };
        let step = next(&wanted, &with(Admission::Unavailable("forbidden".into())));
        assert_eq!(held_by(step), (Reason::PolicyUnavailable, "forbidden".into()));
        let violation = Violation {
            kind: Kind::Namespaced,
            policy: "p".into(),
            rule: "pools",
            message: "not this pool".into(),
        };
        match next(&wanted, &with(Admission::Refused(vec![violation]))) {
            Step::Finish(why) => assert_eq!(why.reason, "PolicyViolation"),
            other => panic!("{other:?}"),
        }
        for (crew, reason) in [
            (Crew::Missing, Reason::PoolNotFound),
            (Crew::Unwatched("blind".into()), Reason::NoExecutor),
            (Crew::Posts(vec![]), Reason::NoEndpoints),
        ] {
            let step = next(&wanted, &Seen { crew, ..seen(Place::Nowhere, vec![]) });
            assert_eq!(held_by(step).0, reason);
        }
        let mut gone = case(1, false, vec![]);
        let mut other = execution();
        other.metadata.uid = Some("other".into());
        gone.plan = observe::plan(&gone.bundle, &gone.replays, &gone.original, &other);
        let running = Place::At(endpoint("a"), Box::new(AttemptState::Running));
        assert!(
            matches!(next(&gone, &seen(running, vec![])), Step::Finish(why) if why.reason == "Cancelled")
        );
        other = execution();
        other.spec.args = vec!["more".into()];
        let changed = observe::plan(&gone.bundle, &gone.replays, &gone.original, &other).unwrap_err();
        assert_eq!(changed.reason, "RequestChanged");
    }

    /// What is recorded of an answer.
    fn answered(case: &Case, change: impl FnOnce(&mut BundleBody)) -> (ReplaysStatus, bool) {
        let mut body = body(case.plan.as_ref().unwrap(), 1, GOOD);
        change(&mut body);
        let place = Place::At(endpoint("b"), Box::new(sealed_state(&body)));
        match next(case, &seen(place, vec![post("b", Some("node-b"))])) {
            Step::Record(ended) => (report::recorded(case, &ended.run), ended.forget.is_some()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_is_recomputed_and_counted_with_those_before() {
        let (replays, forget) = answered(&case(2, false, vec![]), |_| {});
        assert_eq!((replays.phase, replays.replayed, replays.agreed), (ReplayPhase::Running, 1, 1));
        assert!(forget && replays.runs[0].body.is_some());
        assert_eq!(replays.runs[0].node.as_deref(), Some("node-b"));
        let told = report::condition(&replays, None);
        assert_eq!(
            (told.reason.as_str(), told.message.as_str()),
            ("Replaying", "replayed 1 of 2 times, 1 agree")
        );

        let mut second = case(2, false, replays.runs);
        second.replays.agreed = 1;
        let (replays, _) = answered(&second, |body| {
            body.execution.result.outputs.clear();
            let path = requiem_model::RelPath::parse("out").unwrap();
            let why = "absent".to_owned();
            body.execution.result.missing_outputs = vec![requiem_model::result::MissingOutput { path, why }];
        });
        assert_eq!((replays.phase, replays.replayed, replays.agreed), (ReplayPhase::Done, 2, 1));
        assert_eq!(replays.first_divergence.as_deref(), Some("output out"));
        let told = report::condition(&replays, None);
        assert_eq!(told.reason, "ReplayDiverged");
        // It sticks while others are still wanted, and whatever holds them up.
        let running = ReplaysStatus { phase: ReplayPhase::Running, wanted: 3, ..replays };
        let told = report::condition(&running, Some((Reason::NoExecutor, "nobody")));
        assert_eq!((told.reason.as_str(), told.status.as_str()), ("ReplayDiverged", "False"));
    }

    #[test]
    fn what_is_no_proof_of_this_replay_counts_for_nothing_and_stays_as_evidence() {
        for change in [
            |body: &mut BundleBody| body.run.identity.uid = "0b9c5d1e-0000-4000-8000-000000000001".into(),
            |body: &mut BundleBody| body.run.identity.uid = "bundle-replay-2".into(),
            |body: &mut BundleBody| body.execution.request.argv = vec!["/bin/true".into()],
        ] {
            let (replays, forget) = answered(&case(1, false, vec![]), change);
            assert_eq!((replays.phase, replays.replayed), (ReplayPhase::Running, 0));
            assert_eq!(replays.runs[0].reason.as_deref(), Some("ProofRejected"));
            assert!(!forget && replays.runs[0].body.is_none());
        }
    }

    #[test]
    fn a_receipt_without_room_is_a_run_without_a_result() {
        let mut crowded = case(2, false, vec![]);
        crowded.bundle.spec.body = " ".repeat(MAX_OBJECT_BYTES);
        let (replays, _) = answered(&crowded, |_| {});
        assert_eq!(replays.runs[0].reason.as_deref(), Some(RECEIPT_TOO_LARGE));
        assert_eq!((replays.replayed, replays.runs[0].body.as_ref()), (0, None));
    }
}
