//! Sealing and verifying. Sealing verifies what it made, so nothing is sealed that would be refused.

use requiem_model::attempt::Identity;
use requiem_model::{BundleRoot, CanonError, ExecutionRoot, RequestDigest, ResultDigest, canon};
use serde::{Deserialize, Serialize};

use crate::body::{BundleBody, SCHEMA};
use crate::error::VerifyError;
use crate::{leaves, rules};

/// A bundle as it is kept and sent: the exact bytes and their roots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sealed {
    /// Canonical bytes of the body.
    pub body: String,
    /// Root over what every honest re-run must reproduce.
    pub execution_root: ExecutionRoot,
    /// Root over everything.
    pub bundle_root: BundleRoot,
}

/// What the verifier knows from elsewhere. What is absent is not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expect {
    /// The execution root that was claimed.
    pub execution_root: Option<ExecutionRoot>,
    /// The bundle root that was claimed.
    pub bundle_root: Option<BundleRoot>,
    /// Digest of the request that was handed out.
    pub request_digest: Option<RequestDigest>,
    /// For whom it was handed out.
    pub identity: Option<Identity>,
}

/// A body that is intact and consistent, with everything recomputed from it. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The body.
    pub body: BundleBody,
    /// Root over what every honest re-run must reproduce.
    pub execution_root: ExecutionRoot,
    /// Root over everything.
    pub bundle_root: BundleRoot,
    /// Digest of the request.
    pub request_digest: RequestDigest,
    /// Digest of the result, bound to the request.
    pub result_digest: ResultDigest,
}

/// Brings a body into its exact bytes and computes its roots.
///
/// # Errors
/// Whatever [`verify`] would refuse.
pub fn seal(body: &BundleBody) -> Result<Sealed, VerifyError> {
    let bytes = canon::to_vec(body)?;
    let text = String::from_utf8(bytes).map_err(|error| CanonError::Shape(error.to_string()))?;
    let verified = verify(&text, &Expect::default())?;
    Ok(Sealed { body: text, execution_root: verified.execution_root, bundle_root: verified.bundle_root })
}

/// Judges a body.
///
/// In this order: canonical form and size; schema; shape; roots against the claimed ones; consistency of the
/// facts ([`rules::check`]); binding to the expected request and identity. The first failure ends it.
///
/// # Guarantees
/// Any change of any byte of `text`, or of a root in `expect`, is refused.
///
/// # Caveats
/// Without claimed roots only form and consistency are judged: anybody can make a consistent bundle.
///
/// # Errors
/// The first reason to refuse it.
pub fn verify(text: &str, expect: &Expect) -> Result<Verified, VerifyError> {
    let body = parse(text)?;
    let roots = leaves::roots(&body)?;
    check_roots(&roots, expect)?;
    rules::check(&body)?;
    let request_digest = body.execution.request.digest()?;
    let result_digest = body.execution.result.digest(&request_digest)?;
    check_binding(&body, request_digest, expect)?;
    Ok(Verified {
        body,
        execution_root: roots.execution,
        bundle_root: roots.bundle,
        request_digest,
        result_digest,
    })
}

fn parse(text: &str) -> Result<BundleBody, VerifyError> {
    let value = canon::parse(text.as_bytes())?;
    // The schema first: a later version may have another shape, and must be reported as such.
    let canon::Value::Object(members) = &value else {
        return Err(CanonError::Shape("the body is not an object".to_owned()).into());
    };
    match members.get("schema") {
        Some(canon::Value::String(schema)) if schema == SCHEMA => {}
        Some(canon::Value::String(other)) => {
            return Err(VerifyError::Version { found: other.chars().take(80).collect() });
        }
        _ => return Err(VerifyError::Version { found: String::new() }),
    }
    let body: BundleBody = canon::from_slice(text.as_bytes())?;
    // Defaults that the types fill in, and members that they skip, must not make two texts of one meaning.
    let again = canon::to_vec(&body)?;
    if again != text.as_bytes() {
        let at = again.iter().zip(text.as_bytes()).take_while(|(ours, theirs)| ours == theirs).count();
        return Err(CanonError::NotCanonical { at }.into());
    }
    Ok(body)
}

fn check_roots(roots: &leaves::Roots, expect: &Expect) -> Result<(), VerifyError> {
    if let Some(claimed) = expect.execution_root.filter(|claimed| *claimed != roots.execution) {
        return Err(VerifyError::ExecutionRoot { claimed, computed: roots.execution });
    }
    if let Some(claimed) = expect.bundle_root.filter(|claimed| *claimed != roots.bundle) {
        return Err(VerifyError::BundleRoot { claimed, computed: roots.bundle });
    }
    Ok(())
}

fn check_binding(body: &BundleBody, found: RequestDigest, expect: &Expect) -> Result<(), VerifyError> {
    if let Some(expected) = &expect.identity {
        same_identity(expected, &body.run.identity)?;
    }
    match expect.request_digest {
        Some(expected) if expected != found => Err(VerifyError::RequestBinding { expected, found }),
        _ => Ok(()),
    }
}

fn same_identity(expected: &Identity, found: &Identity) -> Result<(), VerifyError> {
    let Identity { namespace, name, uid, generation, attempt } = expected;
    let rows = [
        ("namespace", namespace.clone(), found.namespace.clone()),
        ("name", name.clone(), found.name.clone()),
        ("uid", uid.clone(), found.uid.clone()),
        ("generation", generation.to_string(), found.generation.to_string()),
        ("attempt", attempt.to_string(), found.attempt.to_string()),
    ];
    for (field, expected, found) in rows {
        if expected != found {
            return Err(VerifyError::IdentityBinding { field, expected, found });
        }
    }
    Ok(())
}
