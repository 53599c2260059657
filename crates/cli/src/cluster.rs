//! The way to a cluster, for the commands that ask one. Whoever runs them needs rights of their own.

use std::path::Path;

use kube::Client;
use kube::api::Api;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use requiem_crds::Execution;

use crate::error::CommandError;

/// A client of the cluster that the user means, see [`config`].
pub(crate) async fn connect(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Client, CommandError> {
    client(config(kubeconfig, context).await?)
}

/// A client of a cluster.
pub(crate) fn client(config: Config) -> Result<Client, CommandError> {
    Client::try_from(config).map_err(|error| no_cluster(&error))
}

/// The cluster that the user means: of `kubeconfig` and `context`, else by the usual rules.
pub(crate) async fn config(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config, CommandError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    match (kubeconfig, context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(|error| no_cluster(&error))?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| no_cluster(&error))
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| no_cluster(&error)),
        (None, None) => Config::infer().await.map_err(|error| no_cluster(&error)),
    }
}

/// What asking a cluster runs in.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        CommandError::unusable("Runtime", error.to_string(), "see the limits of this process: ulimit -a")
    })
}

/// The Execution called `name` as soon as `is` holds for it.
pub(crate) async fn until(
    executions: &Api<Execution>,
    name: &str,
    is: impl Fn(&Execution) -> bool,
) -> Result<Execution, CommandError> {
    let holds = |object: Option<&Execution>| object.is_none_or(&is);
    match await_condition(executions.clone(), name, holds).await {
        Ok(Some(execution)) => Ok(execution),
        Ok(None) => Err(deleted(name)),
        Err(error) => {
            let message = format!("cannot watch Execution {name}: {error}");
            Err(CommandError::unusable("Watch", message, "ask for the rights to list and watch executions"))
        }
    }
}

/// The error of an Execution that is waited for and is not there any more.
pub(crate) fn deleted(name: &str) -> CommandError {
    let message = format!("Execution {name} was deleted before it ended");
    CommandError::finding("Deleted", message, "apply it again")
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
            CommandError::unusable(
                code(status.code, &status.reason),
                format!("cannot {what}: {}", status.message),
                hint,
            )
        }
        other => CommandError::unusable(
            "NoAnswer",
            format!("cannot {what}: {}", chain(other)),
            "see whether kubectl reaches the cluster",
        ),
    }
}

/// The API server's reason. An answer that is no Status, as proxies and missing paths give it, has none.
fn code(status: u16, reason: &str) -> &str {
    let is_reason = !reason.is_empty() && reason.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match status {
        _ if is_reason => reason,
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        _ => "ApiError",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_word_whatever_answers() {
        assert_eq!(code(409, "AlreadyExists"), "AlreadyExists");
        assert_eq!(code(404, "Failed to parse error data"), "NotFound");
        assert_eq!(code(502, ""), "ApiError");
    }
}
