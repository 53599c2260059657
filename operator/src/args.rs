//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::dispatch::TlsFiles;

/// Reconciles Executions, ProofBundles and ExecutorPools.
///
/// Without --kubeconfig and --context the usual rules hold: $KUBECONFIG, ~/.kube/config, then the service account
/// of the pod.
#[derive(Debug, Clone, Parser)]
#[command(name = "requiem-operator", version)]
pub struct Args {
    /// Kubeconfig file.
    #[arg(long, env = "REQUIEM_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long)]
    pub context: Option<String>,
    /// Only this namespace; all of them if absent.
    #[arg(long, env = "REQUIEM_NAMESPACE")]
    pub namespace: Option<String>,
    /// Client certificate shown to executors, PEM.
    #[arg(long, env = "REQUIEM_TLS_CERT")]
    pub tls_cert: PathBuf,
    /// Private key of the client certificate, PEM.
    #[arg(long, env = "REQUIEM_TLS_KEY")]
    pub tls_key: PathBuf,
    /// Authority that signs executors' certificates, PEM.
    #[arg(long, env = "REQUIEM_EXECUTOR_CA")]
    pub executor_ca: PathBuf,
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
    /// The files of the operator's identity.
    pub fn tls_files(&self) -> TlsFiles {
        TlsFiles {
            cert: self.tls_cert.clone(),
            key: self.tls_key.clone(),
            executor_ca: self.executor_ca.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
