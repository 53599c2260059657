//! Step 4: creating the bundle of an Execution, and the verdict that belongs to it.

use kube::ResourceExt;
use requiem_crds::proof_bundle::{ExecutionRef, Origin, REQUEST_LABEL, request_label};
use requiem_crds::replay::ReplaysStatus;
use requiem_crds::status::ResultReason;
use requiem_crds::{ProofBundle, ProofBundleSpec};
use requiem_proof::Verified;

use super::decide::Judgement;
use super::{is_unjudged, report};
use crate::context::Context;
use crate::execution::validate::Plan;
use crate::kubeapi::ApiError;
use crate::queue::Key;

/// Characters of an Execution's name that a bundle's name keeps.
const MAX_NAME: usize = 200;

/// A bundle that the API server has.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its name.
    pub key: Key,
    /// The object as the server answered.
    bundle: ProofBundle,
    judgement: Judgement,
}

/// The bundle that belongs to a verified result. Its name follows from Execution and attempt, so whoever tries
/// again makes the same one.
pub fn object(plan: &Plan, verified: &Verified, body: &str) -> ProofBundle {
    let spec = ProofBundleSpec {
        body: body.to_owned(),
        execution_root: verified.execution_root,
        bundle_root: verified.bundle_root,
        execution_ref: ExecutionRef { name: plan.key.name.clone(), uid: plan.uid.clone() },
    };
    let mut bundle = ProofBundle::new(&name(plan, verified.body.run.identity.attempt), spec);
    bundle.metadata.namespace = Some(plan.key.namespace.clone());
    bundle.metadata.owner_references = plan.owner.clone().map(|owner| vec![owner]);
    // By this others find it; a failure answers nobody.
    if ResultReason::from(&verified.body.execution.result) == ResultReason::Succeeded {
        let label = (REQUEST_LABEL.to_owned(), request_label(&verified.request_digest));
        bundle.metadata.labels = Some([label].into());
    }
    bundle
}

fn name(plan: &Plan, attempt: u32) -> String {
    let name: String = plan.key.name.chars().take(MAX_NAME).collect();
    let uid: String = plan.uid.chars().take(8).collect();
    format!("{}-{uid}-{attempt}", name.trim_end_matches(['.', '-']))
}

/// Creates `bundle`. One of the same name and the same spec is taken for it.
///
/// From here until [`conclude`], the reconciler of bundles leaves it alone.
///
/// # Errors
/// The API server refused it, or a bundle of that name says something else ([`ApiError::Exists`]).
pub async fn publish(
    context: &Context,
    bundle: ProofBundle,
    verified: &Verified,
) -> Result<Published, ApiError> {
    let key = Key::of(&bundle);
    context.own_bundles.claim(&key);
    let created = match context.writer.create(&bundle).await {
        Err(ApiError::Exists { kind, key }) => match context.writer.get::<ProofBundle>(&key).await {
            Ok(there) if there.spec == bundle.spec => Ok(there),
            Ok(_) => Err(ApiError::Exists { kind, key }),
            Err(error) => Err(error),
        },
        other => other,
    };
    match created {
        Ok(bundle) => Ok(Published { key, bundle, judgement: verified.into() }),
        Err(error) => {
            context.own_bundles.release(&key);
            Err(error)
        }
    }
}

/// Writes the verdict of a published bundle, that this operator saw it run, and which replays are wanted; returns its name if
/// all that stands there now. If writing fails, the reconciler of bundles takes over.
pub async fn conclude(
    context: &Context,
    published: Published,
    replays: Option<ReplaysStatus>,
) -> Option<String> {
    let Published { key, bundle, judgement } = published;
    let marked = bundle.status.as_ref().is_some_and(|status| status.origin == Some(Origin::Executed));
    let written = if is_unjudged(&bundle) || !marked {
        if replays.is_some() {
            // Nobody can have begun one: that they are wanted is written now.
            context.replays.see(&key, bundle.metadata.uid.as_deref().unwrap_or_default(), true);
        }
        report::report(context, &bundle, &judgement, Origin::Executed, replays).await
    } else {
        Ok(true)
    };
    if !matches!(written, Ok(true)) {
        context.replays.forget(&key);
    }
    match written {
        Ok(written) => {
            context.own_bundles.release(&key);
            written.then(|| key.name.clone())
        }
        Err(error) => {
            tracing::warn!(bundle = bundle.name_any(), %error, "verdict is not written yet");
            context.hand_over_bundle(&key);
            None
        }
    }
}
