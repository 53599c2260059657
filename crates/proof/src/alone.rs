//! One output in a file of its own: shown to be under an execution root, and that to be under a bundle root, which is what
//! signatures are about. The rest of the bundle stays unknown.

use requiem_model::digest::context;
use requiem_model::{BundleRoot, ExecutionRoot, RelPath};
use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::error::VerifyError;
use crate::inclusion::{OutputProof, Sibling, prove_output, verify_output};
use crate::leaves;
use crate::tree::{leaf_hash, root_from_path};
use crate::verify::Verified;

/// The schema of an output proof.
pub const OUTPUT_SCHEMA: &str = "requiem-output-proof/1";

/// One output without the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutputFile {
    /// Always [`OUTPUT_SCHEMA`].
    pub schema: String,
    /// Root that covers the output.
    pub execution_root: ExecutionRoot,
    /// Root that covers the execution root.
    pub bundle_root: BundleRoot,
    /// From the execution root's leaf to the bundle root.
    pub execution: Path,
    /// The output, and the way from its leaf to the execution root.
    pub output: OutputProof,
    /// What was signed about the bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub envelopes: Vec<Envelope>,
}

/// A way from a leaf to a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Path {
    /// Place of the leaf, from 0.
    pub index: u64,
    /// Number of leaves.
    pub leaf_count: u64,
    /// Siblings from the leaf upwards.
    pub siblings: Vec<Sibling>,
}

impl OutputFile {
    /// Shows the output at `path` of a bundle, with the bundle's envelopes.
    ///
    /// # Errors
    /// [`VerifyError::NoSuchOutput`].
    pub fn new(verified: &Verified, path: &RelPath, envelopes: Vec<Envelope>) -> Result<Self, VerifyError> {
        let output = prove_output(verified, path)?;
        let tree = leaves::bundle_tree(&verified.body.run, verified.execution_root)?;
        let missing = VerifyError::Inclusion("the bundle tree has no leaf of the execution root");
        let index = tree.index_of(leaves::EXECUTION_TAG).ok_or(missing.clone())?;
        let siblings = tree.path(index).ok_or(missing)?.into_iter().map(Sibling).collect();
        Ok(Self {
            schema: OUTPUT_SCHEMA.to_owned(),
            execution_root: verified.execution_root,
            bundle_root: verified.bundle_root,
            execution: Path { index: index as u64, leaf_count: tree.leaf_count(), siblings },
            output,
            envelopes,
        })
    }

    /// Checks both ways. Envelopes are judged elsewhere.
    ///
    /// # Errors
    /// [`VerifyError::Version`] or [`VerifyError::Inclusion`].
    pub fn verify(&self) -> Result<(), VerifyError> {
        verify_output(&self.output, &self.execution_root)?;
        let body = leaves::execution_body(self.execution_root)?;
        let leaf = leaf_hash(leaves::EXECUTION_TAG, &body)?;
        let Path { index, leaf_count, siblings } = &self.execution;
        let siblings: Vec<[u8; 32]> = siblings.iter().map(|sibling| sibling.0).collect();
        match root_from_path(context::BUNDLE_ROOT, leaf, *index, *leaf_count, &siblings) {
            Some(found) if found == *self.bundle_root.as_bytes() => Ok(()),
            _ => Err(VerifyError::Inclusion("the execution root is not under the bundle root")),
        }
    }
}
