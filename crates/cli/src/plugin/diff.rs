//! `kubectl requiem diff`: two Executions by their proofs, item by item.

use super::arguments::{ClusterArguments, Diff};
use super::site::Site;
use crate::cluster::runtime;
use crate::commands::drift_analyze;
use crate::error::CommandError;
use crate::report::Report;

/// Runs the command. Exit code 1 if they differ.
pub(crate) fn run(cluster: &ClusterArguments, arguments: &Diff) -> Result<Report, CommandError> {
    let Diff { one, other } = arguments;
    let (a, b) = runtime()?.block_on(async {
        let site = Site::of(cluster).await?;
        let (a, b) = (site.execution(one).await?, site.execution(other).await?);
        Ok::<_, CommandError>((site.proof(&a).await?, site.proof(&b).await?))
    })?;
    Ok(drift_analyze::compare(format!("{one} and {other}"), &a, &b))
}
