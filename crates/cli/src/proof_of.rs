//! The proof of an Execution that has ended: fetched from the cluster, recomputed here, and held to what is known of the Execution.

use std::path::Path;

use kube::api::Api;
use kube::{Resource, ResourceExt};
use requiem_crds::{Execution, ProofBundle};

use crate::cluster::refused;
use crate::error::CommandError;
use crate::proof_input::{self, Bundle};
use crate::store;
use crate::text::printable;

/// The published bundle called `name`. A file for it gets what came, also if it is refused.
pub(crate) async fn published(
    bundles: &Api<ProofBundle>,
    name: &str,
    execution: &Execution,
    keep: Option<&Path>,
) -> Result<Bundle, CommandError> {
    let object = bundles.get(name).await;
    let object = object.map_err(|error| refused(&format!("get ProofBundle {name}"), &error))?;
    let content = serde_json::to_vec_pretty(&object)
        .map_err(|error| CommandError::unusable("Encoding", error.to_string(), "report this defect"))?;
    keep.map_or(Ok(()), |path| store::write(path, &content))?;
    let bundle = proof_input::whole(proof_input::parse(&content)?, name)?;
    held_to(&bundle, execution)?;
    Ok(bundle)
}

/// Whether the bundle is about this very Execution, or about the run that answered it, and has the root that its status names.
pub(crate) fn held_to(bundle: &Bundle, execution: &Execution) -> Result<(), CommandError> {
    let status = execution.status.as_ref();
    let original = status.and_then(|status| status.cache.as_ref()).and_then(|cache| cache.original.as_ref());
    let uid = match original {
        Some(original) => Some(original.uid.as_str()),
        None => execution.meta().uid.as_deref(),
    };
    let verified = &bundle.verified;
    if Some(verified.body.run.identity.uid.as_str()) == uid
        && Some(verified.bundle_root) == status.and_then(|status| status.proof_root)
    {
        return Ok(());
    }
    let message = format!("the bundle holds, but is not the proof of Execution {}", execution.name_any());
    Err(CommandError::finding("OtherProof", message, "examine who wrote its status"))
}

/// The error of an Execution that has ended, or not, and of which there is no proof.
pub(crate) fn unproven(execution: &Execution) -> CommandError {
    let name = execution.name_any();
    let status = execution.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|one| one.type_ == "Ready");
    let message = ready.map(|one| printable(&one.message)).unwrap_or_default();
    if !status.terminal {
        let reason = ready.map_or("no operator has looked at it", |one| one.reason.as_str());
        return CommandError::finding(
            "NotEnded",
            format!("Execution {name} has not ended: {reason}: {message}"),
            "wait for its end: kubectl wait --for=condition=Ready execution/NAME",
        );
    }
    let result = status.result.map_or("Unknown", |result| result.as_str());
    CommandError::finding(
        result,
        format!("Execution {name} ended without a proof: {result}: {message}"),
        "a command that ran has one, unless spec.proof.publish is Never",
    )
}
