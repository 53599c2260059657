//! One output by itself: the path from its leaf to the execution root, without the rest of the bundle.

use std::fmt;

use requiem_model::digest::context;
use requiem_model::result::{Output, OutputContent};
use requiem_model::{ExecutionRoot, RelPath};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::VerifyError;
use crate::leaves;
use crate::tree::{leaf_hash, root_from_path};
use crate::verify::Verified;

/// Shows that an execution root covers one output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutputProof {
    /// Path of the output.
    pub path: RelPath,
    /// What it is.
    pub content: OutputContent,
    /// Place of its leaf, from 0.
    pub index: u64,
    /// Number of leaves.
    pub leaf_count: u64,
    /// Siblings from the leaf upwards.
    pub siblings: Vec<Sibling>,
}

/// A hash on the way; 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sibling(pub [u8; 32]);

impl fmt::Debug for Sibling {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl Serialize for Sibling {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl<'de> Deserialize<'de> for Sibling {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let hash = blake3::Hash::from_hex(&text).map_err(serde::de::Error::custom)?;
        if hash.to_hex().as_str() != text {
            return Err(serde::de::Error::custom("a sibling is not in lower case"));
        }
        Ok(Self(*hash.as_bytes()))
    }
}

/// Makes the proof of the output at `path`.
///
/// # Errors
/// [`VerifyError::NoSuchOutput`].
pub fn prove_output(verified: &Verified, path: &RelPath) -> Result<OutputProof, VerifyError> {
    let missing = || VerifyError::NoSuchOutput(path.to_string());
    let outputs = &verified.body.execution.result.outputs;
    let Output { path, content } = outputs.iter().find(|output| output.path == *path).ok_or_else(missing)?;
    let tree = leaves::execution_tree(&verified.body.execution)?;
    let index = tree.index_of(&leaves::output_tag(path)).ok_or_else(missing)?;
    let siblings = tree.path(index).ok_or_else(missing)?.into_iter().map(Sibling).collect();
    let (index, leaf_count) = (index as u64, tree.leaf_count());
    Ok(OutputProof { path: path.clone(), content: *content, index, leaf_count, siblings })
}

/// Checks that `root` covers the output that `proof` shows.
///
/// # Errors
/// [`VerifyError::Inclusion`].
pub fn verify_output(proof: &OutputProof, root: &ExecutionRoot) -> Result<(), VerifyError> {
    let OutputProof { path, content, index, leaf_count, siblings } = proof;
    let leaf = leaf_hash(&leaves::output_tag(path), &leaves::output_body(content)?)?;
    let siblings: Vec<[u8; 32]> = siblings.iter().map(|sibling| sibling.0).collect();
    match root_from_path(context::EXECUTION_ROOT, leaf, *index, *leaf_count, &siblings) {
        None => Err(VerifyError::Inclusion("index, leaf count and number of siblings do not agree")),
        Some(found) if found != *root.as_bytes() => Err(VerifyError::Inclusion("it leads to another root")),
        Some(_) => Ok(()),
    }
}
