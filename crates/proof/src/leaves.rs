//! Which fact is which leaf. Structs are taken apart without `..`, so a new field cannot be forgotten here.
//!
//! Leaf bodies are canonical JSON. Paths stand in tags percent-encoded (RFC 3986: everything but
//! `A-Z a-z 0-9 - . _ ~` and `/`, in upper case), and every kind of leaf has a prefix of its own, so no path
//! that a user chooses can pose as another fact. The table of tags stands in `docs/format/proof.md`.

use requiem_model::digest::context;
use requiem_model::result::{MissingOutput, Output, OutputContent};
use requiem_model::{
    BundleRoot, CanonError, ExecutionRequest, ExecutionRoot, PolicyDigest, RelPath, RunResult, SandboxReport,
    canon,
};
use serde::Serialize;

use crate::body::{BundleBody, ExecutionFacts, RunClaims};
use crate::error::VerifyError;
use crate::tree::{Leaf, Tree};

/// Tag of the leaf that wraps the execution root.
pub const EXECUTION_TAG: &str = "01/execution";

/// Body of the first leaf of each tree.
#[derive(Serialize)]
struct Header {
    schema: &'static str,
    suite: &'static str,
}

/// Body of the leaf that binds the effective policy.
#[derive(Serialize)]
struct Policy {
    digest: PolicyDigest,
}

/// Body of a leaf of an output that is not there.
#[derive(Serialize)]
struct Missing<'a> {
    why: &'a str,
}

/// Body of the leaf that wraps the execution root.
#[derive(Serialize)]
struct Wrapped {
    root: ExecutionRoot,
}

/// Body of the leaf of times.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Times<'a> {
    started_at: &'a str,
    completed_at: &'a str,
}

/// Body of the leaf of durability.
#[derive(Serialize)]
struct Durability<'a> {
    class: &'a str,
}

/// Body of the leaf of one source of differences.
#[derive(Serialize)]
struct SourceState {
    state: requiem_model::report::SourceState,
}

/// Both roots of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roots {
    /// Over what a re-run must reproduce.
    pub execution: ExecutionRoot,
    /// Over everything.
    pub bundle: BundleRoot,
}

/// Computes both roots.
///
/// # Errors
/// Facts outside canonical JSON's bounds, or rows that occur twice.
pub fn roots(body: &BundleBody) -> Result<Roots, VerifyError> {
    let execution = execution_tree(&body.execution)?;
    let execution = ExecutionRoot::from_bytes(execution.root(context::EXECUTION_ROOT));
    let bundle = bundle_tree(&body.run, execution)?;
    Ok(Roots { execution, bundle: BundleRoot::from_bytes(bundle.root(context::BUNDLE_ROOT)) })
}

/// The tree under the execution root.
///
/// # Errors
/// As [`roots`].
pub fn execution_tree(facts: &ExecutionFacts) -> Result<Tree, VerifyError> {
    let ExecutionFacts { request, engine, result } = facts;
    let mut leaves = vec![
        leaf("00/header", &Header { schema: "requiem-execution/1", suite: "blake3-derive/1" })?,
        leaf("01/contract", request)?,
        leaf("02/engine", engine)?,
        leaf("03/policy", &Policy { digest: request.policy.digest()? })?,
    ];
    push_inputs(&mut leaves, request)?;
    push_result(&mut leaves, result)?;
    sorted_tree(leaves)
}

/// The tree under the bundle root.
///
/// # Errors
/// As [`roots`].
pub fn bundle_tree(run: &RunClaims, execution: ExecutionRoot) -> Result<Tree, VerifyError> {
    let RunClaims { identity, sandbox, confidence, executor, started_at, completed_at, usage, durability } =
        run;
    let mut leaves = vec![
        leaf("00/header", &Header { schema: crate::SCHEMA, suite: "blake3-derive/1" })?,
        Leaf { tag: EXECUTION_TAG.to_owned(), body: execution_body(execution)? },
        leaf("02/identity", identity)?,
        leaf("04/executor", executor)?,
        leaf("05/time", &Times { started_at, completed_at })?,
        leaf("06/usage", usage)?,
        leaf("07/determinism", confidence)?,
        leaf("08/durability", &Durability { class: durability })?,
    ];
    push_report(&mut leaves, sandbox)?;
    sorted_tree(leaves)
}

/// Bytes of the leaf that wraps the execution root.
///
/// # Errors
/// Never; the type of the encoder is passed on.
pub fn execution_body(root: ExecutionRoot) -> Result<Vec<u8>, CanonError> {
    canon::to_vec(&Wrapped { root })
}

/// Tag of the leaf of the output at `path`.
pub fn output_tag(path: &RelPath) -> String {
    format!("20/output/{}", percent_encode(path))
}

/// Bytes of the leaf of an output.
///
/// # Errors
/// A size outside canonical JSON's bounds.
pub fn output_body(content: &OutputContent) -> Result<Vec<u8>, CanonError> {
    canon::to_vec(content)
}

fn push_inputs(leaves: &mut Vec<Leaf>, request: &ExecutionRequest) -> Result<(), CanonError> {
    for input in &request.inputs {
        leaves.push(leaf(&format!("10/input/{}", percent_encode(&input.path)), &input.source)?);
    }
    Ok(())
}

fn push_result(leaves: &mut Vec<Leaf>, result: &RunResult) -> Result<(), CanonError> {
    let RunResult { outcome, stdout, stderr, outputs, missing_outputs } = result;
    for Output { path, content } in outputs {
        leaves.push(Leaf { tag: output_tag(path), body: output_body(content)? });
    }
    for MissingOutput { path, why } in missing_outputs {
        leaves.push(leaf(&format!("21/missing/{}", percent_encode(path)), &Missing { why })?);
    }
    leaves.push(leaf("30/stream/stderr", stderr)?);
    leaves.push(leaf("30/stream/stdout", stdout)?);
    leaves.push(leaf("40/outcome", outcome)?);
    Ok(())
}

fn push_report(leaves: &mut Vec<Leaf>, report: &SandboxReport) -> Result<(), CanonError> {
    let SandboxReport { layers, sources } = report;
    for row in layers {
        leaves.push(leaf(&format!("03/capability/{}", row.layer), row)?);
    }
    for row in sources {
        let name = serde_json::to_value(row.source).map_err(|error| CanonError::Shape(error.to_string()))?;
        let name = name.as_str().unwrap_or_default();
        leaves.push(leaf(&format!("03/source/{name}"), &SourceState { state: row.state })?);
    }
    Ok(())
}

fn leaf<T: Serialize>(tag: &str, body: &T) -> Result<Leaf, CanonError> {
    Ok(Leaf { tag: tag.to_owned(), body: canon::to_vec(body)? })
}

fn sorted_tree(mut leaves: Vec<Leaf>) -> Result<Tree, VerifyError> {
    // The order of tags is not the order of paths once they are encoded. Equal tags stay neighbours and are
    // refused by the tree.
    leaves.sort_by(|one, other| one.tag.cmp(&other.tag));
    Ok(Tree::build(&leaves)?)
}

fn percent_encode(path: &RelPath) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(path.as_str().len());
    for byte in path.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_one_to_one() {
        let encoded = |text| percent_encode(&RelPath::parse(text).unwrap());
        assert_eq!(encoded("a/b-c_d.e~f"), "a/b-c_d.e~f");
        assert_eq!(encoded("@stdout"), "%40stdout");
        assert_eq!(encoded("a%2F b"), "a%252F%20b");
        assert_ne!(encoded("\u{e9}"), encoded("e\u{301}"));
    }
}
