//! `kubectl requiem verify`: the proof of an Execution, recomputed here. The cluster is believed in nothing but where it is.

use super::arguments::{ClusterArguments, Verify};
use super::site::Site;
use crate::arguments::ProofVerify;
use crate::cluster::runtime;
use crate::commands::proof_verify;
use crate::error::CommandError;
use crate::report::Report;
use crate::store;

/// Runs the command.
pub(crate) fn run(cluster: &ClusterArguments, arguments: &Verify) -> Result<Report, CommandError> {
    arguments.proof.as_deref().map_or(Ok(()), store::check_writable)?;
    let bundle = runtime()?.block_on(async {
        let site = Site::of(cluster).await?;
        let execution = site.execution(&arguments.name).await?;
        site.proof_kept_in(&execution, arguments.proof.as_deref()).await
    })?;
    let judged = ProofVerify {
        file: arguments.name.clone().into(),
        trust: arguments.trust.clone(),
        receipts: arguments.receipts.clone(),
        cas: None,
        tenant: None,
        require: arguments.require.clone(),
    };
    proof_verify::whole(&judged, &bundle)
}
