//! ProofBundles: every bundle without a verdict is recomputed, whoever made it.
//!
//! ```text
//! 1 observe   the object as it is now (no cache: bodies are large, and most bundles have their verdict)
//! 2 validate  nothing to convert: the body is judged as it is
//! 3 decide    body × spec → verdict                   pure
//! 4 apply     creates a bundle for an Execution
//! 5 report    one status write
//! ```
//!
//! The flow that created a bundle for an Execution writes its verdict itself, beside the Execution's status; the
//! reconciler leaves such a bundle alone.

pub mod apply;
pub mod decide;
pub mod observe;
pub mod report;

use kube::Resource;
use requiem_crds::ProofBundle;
use requiem_crds::proof_bundle::Origin;

use crate::context::{Context, kinds};
use crate::kubeapi::ApiError;
use crate::queue::{Key, Verdict};

pub use apply::{Published, conclude, object, publish};

/// Gives the bundle called `key` its verdict.
pub async fn reconcile(context: Context, key: Key) -> Verdict {
    if context.own_bundles.is_claimed(&key) {
        return Verdict::Done;
    }
    let failed = |error: ApiError| {
        tracing::warn!(bundle = %key, %error, "reconcile failed and is tried again");
        error.retry_after()
    };
    context.reconciled(kinds::BUNDLE, drive(&context, &key), failed).await
}

async fn drive(context: &Context, key: &Key) -> Result<Verdict, ApiError> {
    let Some(bundle) = observe::unjudged(context, key).await? else { return Ok(Verdict::Done) };
    let judgement = decide::judge(&bundle);
    let (origin, replays) = if judgement.is_verified() {
        observe::origin(context, &bundle).await?
    } else {
        (Origin::Imported, None)
    };
    context.metrics.proof_verdict(judgement.code());
    if report::report(context, &bundle, &judgement, origin, replays).await? && !judgement.is_verified() {
        context.events.warn(bundle.object_ref(&()), "Verify", judgement.code(), &judgement.message());
    }
    Ok(Verdict::Done)
}

/// Whether the operator still has to judge `bundle`. The spec is immutable: one verdict is enough.
pub fn is_unjudged(bundle: &ProofBundle) -> bool {
    let generation = bundle.metadata.generation.unwrap_or(0);
    bundle.status.as_ref().is_none_or(|status| status.observed_generation < generation)
}
