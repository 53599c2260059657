//! Files that carry a bundle: a `ProofBundle` as `kubectl get proofbundle NAME -o json` prints it, or our own
//! `{"body", "executionRoot", "bundleRoot", "envelopes"}`. One output by itself has a form of its own, [`OutputFile`].
//!
//! Only `spec.body` is evidence. Everything else in the object is a view of it, and is compared with it.

use requiem_model::{BundleRoot, ExecutionRoot};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::alone::{OUTPUT_SCHEMA, OutputFile};
use crate::envelope::Envelope;
use crate::error::VerifyError;
use crate::json::{self, JsonError};
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
    /// What was signed about it; to be judged with [`bound`](crate::envelope::bound).
    pub envelopes: Vec<Envelope>,
    /// Where the object lies, if the file is a Kubernetes object.
    pub object: Option<ObjectView>,
    /// Bundles of later runs that the operator keeps in the status of the object; to be judged with
    /// [`Replays::tally`](crate::replays::Replays::tally).
    pub receipts: Vec<Sealed>,
}

/// A file that `proof verify` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyFile {
    /// A whole bundle.
    Bundle(ProofFile),
    /// One output of one.
    Output(OutputFile),
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    envelopes: Vec<Envelope>,
}

impl ProofFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ProofFileError`] with the reason.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFileError> {
        match AnyFile::parse(bytes)? {
            AnyFile::Bundle(file) => Ok(file),
            AnyFile::Output(_) => {
                Err(ProofFileError::Shape("it is the proof of one output, not of a bundle".to_owned()))
            }
        }
    }

    /// The file in our own form, as JSON.
    ///
    /// # Errors
    /// Never for what was read or sealed; the type of the encoder is passed on.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let Self { body, execution_root, bundle_root, envelopes, object: _, receipts: _ } = self.clone();
        serde_json::to_string_pretty(&Plain { body, execution_root, bundle_root, envelopes })
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
        let Plain { body, execution_root, bundle_root, envelopes } = plain;
        Self { body, execution_root, bundle_root, envelopes, object: None, receipts: Vec::new() }
    }
}

impl From<JsonError> for ProofFileError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Syntax(why) => Self::NotJson(why),
            JsonError::Shape(why) => Self::Shape(why),
        }
    }
}

// === impl AnyFile ===

impl AnyFile {
    /// Reads a file of either kind.
    ///
    /// # Errors
    /// [`ProofFileError`] with the reason.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFileError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(ProofFileError::TooLarge(bytes.len()));
        }
        let value = json::parse(bytes)?;
        let Value::Object(members) = &value else {
            return Err(ProofFileError::Shape("it is no object".to_owned()));
        };
        if members.contains_key("schema") {
            let file: OutputFile = json::strict(value)?;
            return if file.schema == OUTPUT_SCHEMA {
                Ok(Self::Output(file))
            } else {
                Err(ProofFileError::Shape(format!("its schema is not {OUTPUT_SCHEMA}")))
            };
        }
        if members.contains_key("kind") || members.contains_key("apiVersion") {
            return object(members).map(Self::Bundle);
        }
        Ok(Self::Bundle(json::strict::<Plain>(value)?.into()))
    }
}

/// Reads a `ProofBundle`. The API server adds members of its own, so only those that are named here are looked at.
fn object(members: &Map<String, Value>) -> Result<ProofFile, ProofFileError> {
    let text = |of: &Value, name: &str| {
        let found = of.get(name).and_then(Value::as_str).map(str::to_owned);
        found.ok_or_else(|| ProofFileError::Shape(format!("{name} is missing or no text")))
    };
    let said = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, api_version) = (said("kind"), said("apiVersion"));
    if kind != "ProofBundle" || api_version != "requiem.dev/v1alpha1" {
        return Err(ProofFileError::OtherKind { kind, api_version });
    }
    let part =
        |name: &str| members.get(name).ok_or_else(|| ProofFileError::Shape(format!("{name} is missing")));
    let (metadata, spec) = (part("metadata")?, part("spec")?);
    let parts = ["body", "executionRoot", "bundleRoot", "envelopes"];
    let picked = parts.into_iter().filter_map(|name| Some((name.to_owned(), spec.get(name)?.clone())));
    let mut file = ProofFile::from(json::strict::<Plain>(Value::Object(picked.collect()))?);
    file.object = Some(ObjectView {
        namespace: text(metadata, "namespace")?,
        name: text(metadata, "name")?,
        execution_name: text(&spec["executionRef"], "name")?,
        execution_uid: text(&spec["executionRef"], "uid")?,
    });
    file.receipts = receipts(members.get("status"))?;
    Ok(file)
}

/// What `status.replays.runs` has of receipts. A run without a result has none.
fn receipts(status: Option<&Value>) -> Result<Vec<Sealed>, ProofFileError> {
    let runs = status.and_then(|status| status.pointer("/replays/runs")).and_then(Value::as_array);
    let receipt = |run: &Value| {
        let parts = ["body", "executionRoot", "bundleRoot"];
        let picked = parts.into_iter().filter_map(|name| Some((name.to_owned(), run.get(name)?.clone())));
        Ok(json::strict::<Sealed>(Value::Object(picked.collect()))?)
    };
    runs.into_iter().flatten().filter(|run| run.get("body").is_some()).map(receipt).collect()
}

impl Sealed {
    /// The bundle in our own file form, as JSON.
    ///
    /// # Errors
    /// Never for a sealed bundle; the type of the encoder is passed on.
    pub fn to_file(&self) -> Result<String, serde_json::Error> {
        ProofFile::from(self.clone()).to_json()
    }
}

impl From<Sealed> for ProofFile {
    fn from(sealed: Sealed) -> Self {
        let Sealed { body, execution_root, bundle_root } = sealed;
        let envelopes = Vec::new();
        Self { body, execution_root, bundle_root, envelopes, object: None, receipts: Vec::new() }
    }
}
