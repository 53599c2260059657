//! Files that carry a bundle: a `ProofBundle` as `kubectl get proofbundle NAME -o json` prints it, or our own
//! `{"body", "executionRoot", "bundleRoot"}`.
//!
//! Only `spec.body` is evidence. Everything else in the object is a view of it, and is compared with it.

use requiem_model::{BundleRoot, ExecutionRoot};
use serde::{Deserialize, Serialize};

use crate::error::VerifyError;
use crate::verify::{Expect, Sealed, Verified, verify};

/// Largest file that is read, in bytes: a body of 256 KiB written as a JSON string, and an object around it.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// A bundle with what its carrier says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofFile {
    /// The bytes under the roots.
    pub body: String,
    /// Execution root that the file claims.
    pub execution_root: ExecutionRoot,
    /// Bundle root that the file claims.
    pub bundle_root: BundleRoot,
    /// Where the object lies, if the file is a Kubernetes object.
    pub object: Option<ObjectView>,
}

/// What a `ProofBundle` object says about its Execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectView {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Name of the Execution.
    pub execution_name: String,
    /// UID of the Execution.
    pub execution_uid: String,
}

/// Why a file carries no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofFileError {
    /// The file is too large.
    #[error("the file has {0} bytes, more than {MAX_FILE_BYTES}")]
    TooLarge(usize),
    /// The file is not JSON.
    #[error("the file is not JSON: {0}")]
    NotJson(String),
    /// The file is a Kubernetes object of another kind.
    #[error("the file is a {kind} of {api_version}, not a ProofBundle of requiem.dev/v1alpha1")]
    OtherKind {
        /// Its kind.
        kind: String,
        /// Its API version.
        api_version: String,
    },
    /// A member is absent, unknown or of the wrong type.
    #[error("the file has not the shape of a proof: {0}")]
    Shape(String),
}

impl ProofFileError {
    /// Stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "E_BOUNDS",
            Self::NotJson(_) => "E_PARSE",
            Self::OtherKind { .. } => "E_KIND",
            Self::Shape(_) => "E_SHAPE",
        }
    }
}

/// Our own form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plain {
    body: String,
    execution_root: ExecutionRoot,
    bundle_root: BundleRoot,
}

/// The members that say what a JSON object is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
}

/// A `ProofBundle`. The API server adds members of its own, so unknown ones are let pass.
#[derive(Debug, Deserialize)]
struct Object {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    namespace: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    body: String,
    execution_root: ExecutionRoot,
    bundle_root: BundleRoot,
    execution_ref: ExecutionRef,
}

#[derive(Debug, Deserialize)]
struct ExecutionRef {
    name: String,
    uid: String,
}

impl ProofFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ProofFileError`] with the reason.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFileError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(ProofFileError::TooLarge(bytes.len()));
        }
        let shape = |error: serde_json::Error| ProofFileError::Shape(error.to_string());
        let what: TypeMeta = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => ProofFileError::Shape(error.to_string()),
            _ => ProofFileError::NotJson(error.to_string()),
        })?;
        match what {
            TypeMeta { api_version: None, kind: None } => {
                serde_json::from_slice::<Plain>(bytes).map(Self::from).map_err(shape)
            }
            TypeMeta { api_version, kind } => {
                let (api_version, kind) = (api_version.unwrap_or_default(), kind.unwrap_or_default());
                if kind != "ProofBundle" || api_version != "requiem.dev/v1alpha1" {
                    return Err(ProofFileError::OtherKind { kind, api_version });
                }
                serde_json::from_slice::<Object>(bytes).map(Self::from).map_err(shape)
            }
        }
    }

    /// Judges the bundle: the body against the claimed roots, and the object's view against the body.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn verify(&self) -> Result<Verified, VerifyError> {
        let expect = Expect {
            execution_root: Some(self.execution_root),
            bundle_root: Some(self.bundle_root),
            ..Expect::default()
        };
        let verified = verify(&self.body, &expect)?;
        if let Some(object) = &self.object {
            object.agrees_with(&verified)?;
        }
        Ok(verified)
    }
}

impl ObjectView {
    fn agrees_with(&self, verified: &Verified) -> Result<(), VerifyError> {
        let identity = &verified.body.run.identity;
        let rows = [
            ("namespace", &self.namespace, &identity.namespace),
            ("name", &self.execution_name, &identity.name),
            ("uid", &self.execution_uid, &identity.uid),
        ];
        match rows.into_iter().find(|(_, view, body)| view != body) {
            Some((field, view, body)) => {
                Err(VerifyError::IdentityBinding { field, expected: view.clone(), found: body.clone() })
            }
            None => Ok(()),
        }
    }
}

impl From<Plain> for ProofFile {
    fn from(plain: Plain) -> Self {
        let Plain { body, execution_root, bundle_root } = plain;
        Self { body, execution_root, bundle_root, object: None }
    }
}

impl From<Object> for ProofFile {
    fn from(object: Object) -> Self {
        let Spec { body, execution_root, bundle_root, execution_ref } = object.spec;
        let view = ObjectView {
            namespace: object.metadata.namespace,
            name: object.metadata.name,
            execution_name: execution_ref.name,
            execution_uid: execution_ref.uid,
        };
        Self { body, execution_root, bundle_root, object: Some(view) }
    }
}

impl Sealed {
    /// The bundle in our own file form, as JSON.
    ///
    /// # Errors
    /// Never for a sealed bundle; the type of the encoder is passed on.
    pub fn to_file(&self) -> Result<String, serde_json::Error> {
        let Self { body, execution_root, bundle_root } = self;
        let (execution_root, bundle_root) = (*execution_root, *bundle_root);
        serde_json::to_string_pretty(&Plain { body: body.clone(), execution_root, bundle_root })
    }
}
