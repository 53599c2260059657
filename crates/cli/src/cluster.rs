//! The way to a cluster, for the commands that ask one. Whoever runs them needs rights of their own.

use std::path::Path;

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use crate::error::CommandError;

/// A client of the cluster that the user means: of `kubeconfig` and `context`, else by the usual rules.
pub(crate) async fn connect(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Client, CommandError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = match (kubeconfig, context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(|error| no_cluster(&error))?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| no_cluster(&error))?
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| no_cluster(&error))?,
        (None, None) => Config::infer().await.map_err(|error| no_cluster(&error))?,
    };
    Client::try_from(config).map_err(|error| no_cluster(&error))
}

/// What the API server answered instead of doing it.
pub(crate) fn refused(what: &str, error: &kube::Error) -> CommandError {
    match error {
        kube::Error::Api(status) => {
            let hint = match status.code {
                401 => "log in to the cluster again",
                403 => "ask for the roles edit and view in that namespace",
                404 => "see that Requiem is installed: kubectl get crd executions.requiem.dev",
                409 => "choose another name, or metadata.generateName",
                _ => "change the file as the message says",
            };
            CommandError::unusable(&status.reason, format!("cannot {what}: {}", status.message), hint)
        }
        other => CommandError::unusable(
            "NoAnswer",
            format!("cannot {what}: {}", chain(other)),
            "see whether kubectl reaches the cluster",
        ),
    }
}

fn no_cluster(error: &dyn std::error::Error) -> CommandError {
    let hint = "give --kubeconfig or --context, or run it in a pod with a service account";
    CommandError::unusable("NoCluster", format!("no cluster is configured: {}", chain(error)), hint)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
