//! Does the proof of an earlier run answer this Execution? What may answer is decided by a pure function; the search is
//! a list of metadata and one read of the newest candidate, and only for Executions that want it.
//!
//! The list comes from the API server's cache first: for the latest state it waits until its store has told it how far that is, a
//! tenth of a second (KEP-2340). What that cache does not know, it is asked for once more before anything runs.
//!
//! A user can create a ProofBundle with any label and any honest body. So a bundle answers only if its status says that
//! this operator saw it run, which no user can write; and its body is recomputed here again.

use std::cmp::Reverse;

use kube::ResourceExt;
use kube::api::{ListParams, PartialObjectMeta};
use requiem_crds::ProofBundle;
use requiem_crds::proof_bundle::{Origin, REQUEST_LABEL, request_label};
use requiem_crds::status::{OriginalStatus, ResultReason};
use requiem_proof::{Expect, Verified, verify};

use super::validate::Plan;
use crate::context::Context;
use crate::kubeapi::{ApiError, Freshness};
use crate::queue::Key;

/// Candidates that are read at most. More than one only where somebody has tampered with labels.
const MAX_READ: usize = 3;
/// The engine whose results answer: the one of our own executors, of our own version. Equal versions agree on equal
/// requests; others need not.
const ENGINE: (&str, &str) = ("requiem", env!("CARGO_PKG_VERSION"));

/// An earlier result that answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Recalled {
    /// Whose it was.
    pub original: OriginalStatus,
    /// What was proven, recomputed now.
    pub verified: Verified,
}

/// The newest result that answers `plan`, if there is one.
///
/// # Errors
/// The API server did not answer.
pub async fn find(context: &Context, plan: &Plan) -> Result<Option<Recalled>, ApiError> {
    for freshness in [Freshness::Cached, Freshness::Latest] {
        if let Some(recalled) = search(context, plan, freshness).await? {
            return Ok(Some(recalled));
        }
    }
    Ok(None)
}

async fn search(context: &Context, plan: &Plan, freshness: Freshness) -> Result<Option<Recalled>, ApiError> {
    let label = format!("{REQUEST_LABEL}={}", request_label(&plan.request_digest));
    let selected = ListParams::default().labels(&label).fields("status.origin=Executed");
    let listing = context.writer.list_metadata::<ProofBundle>(&plan.key.namespace, selected, freshness);
    let mut found = listing.await?;
    found.sort_by_key(|bundle| Reverse(age(bundle)));
    for candidate in found.iter().take(MAX_READ) {
        if let Some(recalled) = read(context, plan, &candidate.name_any()).await? {
            return Ok(Some(recalled));
        }
    }
    Ok(None)
}

/// What the bundle called `name` answers to `plan`, if anything.
///
/// # Errors
/// The API server did not answer.
pub async fn read(context: &Context, plan: &Plan, name: &str) -> Result<Option<Recalled>, ApiError> {
    let key = Key { namespace: plan.key.namespace.clone(), name: name.to_owned() };
    match context.writer.get::<ProofBundle>(&key).await {
        Ok(bundle) => Ok(answer(plan, &bundle)),
        Err(ApiError::Gone { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What `bundle` answers to `plan`: nothing, unless everything is right.
pub fn answer(plan: &Plan, bundle: &ProofBundle) -> Option<Recalled> {
    let seen = bundle.status.as_ref().is_some_and(|status| status.origin == Some(Origin::Executed));
    if !seen || bundle.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let expect = Expect {
        execution_root: Some(bundle.spec.execution_root),
        bundle_root: Some(bundle.spec.bundle_root),
        request_digest: Some(plan.request_digest),
        identity: None,
    };
    let verified = verify(&bundle.spec.body, &expect).ok()?;
    let (run, facts) = (&verified.body.run, &verified.body.execution);
    let ours = run.identity.namespace == plan.key.namespace
        && bundle.metadata.namespace.as_ref() == Some(&plan.key.namespace)
        && run.identity.uid == bundle.spec.execution_ref.uid;
    let succeeded = ResultReason::from(&facts.result) == ResultReason::Succeeded;
    let engine = (facts.engine.name.as_str(), facts.engine.version.as_str()) == ENGINE;
    let original = OriginalStatus {
        name: run.identity.name.clone(),
        uid: run.identity.uid.clone(),
        bundle: bundle.name_any(),
    };
    // The same references need not mean the same values. Nobody asks, and nothing is answered.
    let whole = facts.request.env_refs.is_empty();
    (ours && succeeded && engine && whole).then_some(Recalled { original, verified })
}

/// Newest last. Creation times have seconds; resource versions rise.
fn age(bundle: &PartialObjectMeta<ProofBundle>) -> (i64, u64) {
    let meta = &bundle.metadata;
    let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let version = meta.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0);
    (created, version)
}

#[cfg(test)]
mod tests {
    use requiem_crds::ProofBundleStatus;
    use requiem_model::Outcome;
    use requiem_model::confidence::assess_of;
    use requiem_model::report::{Evidence, LayerReport, Status};
    use requiem_proof::BundleBody;

    use super::super::samples::{body, planned, sealed};
    use super::*;
    use crate::proof_bundle::object;

    fn answers(facts: impl FnOnce(&mut BundleBody), change: impl FnOnce(&mut ProofBundle)) -> bool {
        answers_with(Outcome::Exited { code: 0 }, facts, change)
    }

    fn answers_with(
        outcome: Outcome,
        facts: impl FnOnce(&mut BundleBody),
        change: impl FnOnce(&mut ProofBundle),
    ) -> bool {
        let plan = planned();
        let mut body = body(&plan, 1, outcome);
        body.execution.engine.version = ENGINE.1.to_owned();
        facts(&mut body);
        let sealed = sealed(&body);
        let verified = verify(&sealed.body, &Expect::default()).unwrap();
        let mut bundle = object(&plan, &verified, &sealed.body);
        bundle.spec.execution_ref.uid = body.run.identity.uid.clone();
        bundle.status = Some(ProofBundleStatus { origin: Some(Origin::Executed), ..Default::default() });
        change(&mut bundle);
        answer(&plan, &bundle).is_some()
    }

    /// Which may not call a layer enforced.
    fn by_another_engine(body: &mut BundleBody) {
        body.execution.engine.name = "other".into();
        for row in &mut body.run.sandbox.layers {
            let (status, evidence) = (Status::Delegated, Evidence::AssertedByOuter);
            *row = LayerReport::short_of(row.layer, row.requested, status, "other", evidence, "it says so");
        }
        body.run.confidence = assess_of("other", &body.run.sandbox);
    }

    #[test]
    fn an_earlier_success_of_the_same_request_answers() {
        assert!(answers(|_| {}, |_| {}));
        assert!(answers(|body| body.run.identity.uid = "earlier".into(), |_| {}));
    }

    #[test]
    fn nothing_else_does() {
        let origin = |origin| move |bundle: &mut ProofBundle| bundle.status.as_mut().unwrap().origin = origin;
        assert!(!answers(|_| {}, origin(None)), "a bundle without a verdict");
        assert!(!answers(|_| {}, origin(Some(Origin::Imported))), "a bundle that somebody else created");
        assert!(!answers(|_| {}, |bundle| bundle.status = None));
        assert!(!answers(|_| {}, |bundle| bundle.spec.body = bundle.spec.body.replace("12345", "12346")));
        assert!(!answers(|_| {}, |bundle| bundle.spec.execution_ref.uid = "other".into()));
        assert!(!answers(|_| {}, |bundle| bundle.metadata.namespace = Some("other".into())));
        assert!(!answers(|body| body.run.identity.namespace = "other".into(), |_| {}));
        assert!(!answers(|body| body.execution.request.argv = vec!["/bin/false".into()], |_| {}));
        assert!(!answers(|body| body.execution.engine.version = "0.0.1".into(), |_| {}));
        assert!(!answers(by_another_engine, |_| {}));
        for outcome in [Outcome::Exited { code: 1 }, Outcome::Signalled { signal: 9 }, Outcome::TimedOut] {
            assert!(!answers_with(outcome, |_| {}, |_| {}), "{outcome:?}");
        }
    }
}
