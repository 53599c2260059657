//! The flags of `requiem-operator`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory, Parser};

use crate::keys::Keys;

/// Reconciles Executions, ProofBundles and ExecutorPools.
///
/// Without --kubeconfig and --context the usual rules hold: $KUBECONFIG, ~/.kube/config, then the service account
/// of the pod.
#[derive(Debug, Clone, Parser)]
#[command(name = "requiem-operator", version)]
pub struct Args {
    /// Settings below the environment and the flags, as a file: configVersion = 1, and flags by their names in camelCase.
    #[arg(long, env = "REQUIEM_OPERATOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kubeconfig file.
    #[arg(long, env = "REQUIEM_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long)]
    pub context: Option<String>,
    /// Only this namespace; all of them if absent.
    #[arg(long, env = "REQUIEM_NAMESPACE")]
    pub namespace: Option<String>,
    /// Obey ClusterExecutionPolicies also with --namespace; without it they always are.
    #[arg(long, env = "REQUIEM_CLUSTER_POLICIES")]
    pub cluster_policies: bool,
    /// Client certificate shown to executors at fixed addresses, PEM.
    #[arg(long, env = "REQUIEM_TLS_CERT", requires_all = ["tls_key", "executor_ca"])]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM.
    #[arg(long, env = "REQUIEM_TLS_KEY", requires_all = ["tls_cert", "executor_ca"])]
    pub tls_key: Option<PathBuf>,
    /// Authority that signs certificates of executors at fixed addresses, PEM.
    #[arg(long, env = "REQUIEM_EXECUTOR_CA", requires_all = ["tls_cert", "tls_key"])]
    pub executor_ca: Option<PathBuf>,
    /// Namespace that the operator runs in and keeps its authority in: executors in pods get their certificates from it.
    #[arg(long, env = "REQUIEM_OPERATOR_NAMESPACE")]
    pub own_namespace: Option<String>,
    /// Image of executors in pods whose pool names none.
    #[arg(long, env = "REQUIEM_EXECUTOR_IMAGE")]
    pub executor_image: Option<String>,
    /// Stand for election, so that of several operators one works: it holds a Lease in --own-namespace.
    #[arg(long, env = "REQUIEM_LEADER_ELECT", requires = "own_namespace")]
    pub leader_elect: bool,
    /// Seconds after which a Lease that is not renewed is somebody else's.
    #[arg(long, env = "REQUIEM_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=300))]
    pub lease_seconds: u16,
    /// Address of /healthz, /readyz and /metrics (plain HTTP).
    #[arg(long, env = "REQUIEM_ADMIN_LISTEN", default_value = "127.0.0.1:8081")]
    pub admin_listen: SocketAddr,
    /// Executions that are reconciled at the same time.
    #[arg(long, env = "REQUIEM_CONCURRENCY", default_value_t = 256)]
    pub concurrency: u16,
    /// Log lines as JSON.
    #[arg(long, env = "REQUIEM_LOG_JSON")]
    pub log_json: bool,
}

impl Args {
    /// Whether ClusterExecutionPolicies are obeyed. Whoever watches one namespace need not have a right beyond it.
    pub const fn obeys_cluster(&self) -> bool {
        self.cluster_policies || self.namespace.is_none()
    }
}

/// The keys of its file.
pub fn keys() -> Keys {
    Keys::of("operator", Args::command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_election_needs_a_namespace() {
        let parse = |words: &[&str]| Args::try_parse_from(["requiem-operator"].iter().chain(words));
        let error = parse(&["--leader-elect"]).unwrap_err().to_string();
        assert!(error.contains("--own-namespace"), "{error}");
        assert!(parse(&["--leader-elect", "--own-namespace", "here"]).unwrap().leader_elect);
        assert!(parse(&["--lease-seconds", "2"]).is_err());
    }

    #[test]
    fn policies_of_the_cluster_are_obeyed_unless_one_namespace_is_watched() {
        let obeys = |words: &[&str]| {
            Args::try_parse_from(["requiem-operator"].iter().chain(words)).unwrap().obeys_cluster()
        };
        assert!(obeys(&[]) && obeys(&["--namespace", "a", "--cluster-policies"]));
        assert!(!obeys(&["--namespace", "a"]));
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
