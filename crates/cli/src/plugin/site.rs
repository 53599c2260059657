//! A namespace of a cluster, and the proofs of Executions in it.

use std::path::Path;

use kube::api::Api;
use kube::{Client, ResourceExt};
use requiem_crds::{Execution, ExecutorPool, ProofBundle};
use requiem_model::BundleRoot;
use requiem_proof::{Expect, ProofFile, Sealed, verify};

use super::arguments::ClusterArguments;
use super::holder;
use crate::cluster::{connect, refused};
use crate::error::CommandError;
use crate::proof_input::{self, Bundle};
use crate::proof_of;
use crate::store;

/// A namespace, reached with the user's rights.
pub(crate) struct Site {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Site {
    /// The namespace that the user means.
    pub(crate) async fn of(arguments: &ClusterArguments) -> Result<Self, CommandError> {
        let client = connect(arguments.kubeconfig.as_deref(), arguments.context.as_deref()).await?;
        let namespace = arguments.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        Ok(Self { client, namespace })
    }

    pub(crate) fn executions(&self) -> Api<Execution> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn pools(&self) -> Api<ExecutorPool> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// An Execution as it is now.
    pub(crate) async fn execution(&self, name: &str) -> Result<Execution, CommandError> {
        self.executions().get(name).await.map_err(|error| refused(&format!("get Execution {name}"), &error))
    }

    /// The proof of an Execution that has ended, held to it: published, or else as its executor keeps it.
    pub(crate) async fn proof(&self, execution: &Execution) -> Result<Bundle, CommandError> {
        self.proof_kept_in(execution, None).await
    }

    /// The same; a file for it gets what came.
    pub(crate) async fn proof_kept_in(
        &self,
        execution: &Execution,
        keep: Option<&Path>,
    ) -> Result<Bundle, CommandError> {
        let status = execution.status.clone().unwrap_or_default();
        match (&status.proof_bundle_ref, status.proof_root) {
            (Some(reference), _) => {
                let bundles: Api<ProofBundle> = Api::namespaced(self.client.clone(), &self.namespace);
                proof_of::published(&bundles, &reference.name, execution, keep).await
            }
            (None, Some(root)) => self.unpublished(execution, root, keep).await,
            (None, None) => Err(proof_of::unproven(execution)),
        }
    }

    /// The proof that was not published, from whoever ran it.
    async fn unpublished(
        &self,
        execution: &Execution,
        root: BundleRoot,
        keep: Option<&Path>,
    ) -> Result<Bundle, CommandError> {
        let remote = holder::of_result(self, execution).await?;
        let path = format!("/v1/proofs/{root}?namespace={}", self.namespace);
        let body = remote.small(&path).await?;
        let body = String::from_utf8(body).map_err(|_| other_proof(execution))?;
        let expect = Expect { bundle_root: Some(root), ..Expect::default() };
        let verified = verify(&body, &expect).map_err(|error| proof_input::refused(&error))?;
        let sealed = Sealed { body, execution_root: verified.execution_root, bundle_root: root };
        let file = ProofFile::from(sealed);
        if let Some(path) = keep {
            let content = file.to_json().map_err(|error| store::encoding(&error))?;
            store::write(path, format!("{content}\n").as_bytes())?;
        }
        let bundle = proof_input::judge(file)?;
        proof_of::held_to(&bundle, execution)?;
        Ok(bundle)
    }
}

fn other_proof(execution: &Execution) -> CommandError {
    let message = format!("what its executor keeps as the proof of {} is no text", execution.name_any());
    CommandError::finding("OtherProof", message, "examine that executor")
}
