//! Step 1: the bundle as it is now.

use requiem_crds::ProofBundle;

use super::is_unjudged;
use crate::context::Context;
use crate::kubeapi::ApiError;
use crate::queue::Key;

/// The bundle, if it is there and has no verdict.
///
/// # Errors
/// The API server did not answer.
pub async fn unjudged(context: &Context, key: &Key) -> Result<Option<ProofBundle>, ApiError> {
    match context.writer.get::<ProofBundle>(key).await {
        Ok(bundle) => Ok(is_unjudged(&bundle).then_some(bundle)),
        Err(ApiError::Gone { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
