//! Every reason to refuse a bundle, each with a stable code.

use requiem_model::{BundleRoot, CanonError, ExecutionRoot, Layer, RequestDigest, RequestError};

use crate::tree::TreeError;

/// Why a bundle is not sealed or not believed. [`VerifyError::code`] is stable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The bytes are not a canonical document of the expected shape.
    #[error("the body is refused: {0}")]
    Canon(#[from] CanonError),
    /// The schema is not the one that this program knows.
    #[error("schema {found:?} is not {known:?}; this program cannot judge it", known = crate::SCHEMA)]
    Version {
        /// What the body says.
        found: String,
    },
    /// The leaves make no tree.
    #[error("the leaves make no tree: {0}")]
    Tree(#[from] TreeError),
    /// The execution root is another one.
    #[error("execution root {claimed} was claimed, the facts have {computed}")]
    ExecutionRoot {
        /// What was claimed.
        claimed: ExecutionRoot,
        /// What the body has.
        computed: ExecutionRoot,
    },
    /// The bundle root is another one.
    #[error("bundle root {claimed} was claimed, the body has {computed}")]
    BundleRoot {
        /// What was claimed.
        claimed: BundleRoot,
        /// What the body has.
        computed: BundleRoot,
    },
    /// The request in the body breaks a rule of requests.
    #[error("the request is not valid: {0}")]
    Request(#[from] RequestError),
    /// The request in the body is not in normal form.
    #[error("the request is not in normal form: lists are unsorted or hold duplicates")]
    RequestNotNormal,
    /// The bundle is about another request.
    #[error("the bundle is about request {found}, not {expected}")]
    RequestBinding {
        /// Digest that was expected.
        expected: RequestDigest,
        /// Digest of the request in the body.
        found: RequestDigest,
    },
    /// The bundle belongs to another Execution or attempt.
    #[error("the bundle belongs to another Execution: {field} is {found:?}, not {expected:?}")]
    IdentityBinding {
        /// Field of the identity.
        field: &'static str,
        /// What was expected.
        expected: String,
        /// What the body says.
        found: String,
    },
    /// A part of the identity has no valid form.
    #[error("identity.{field} {why}")]
    Identity {
        /// Field of the identity.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// A time is not in the one form, or the end lies before the start.
    #[error("{field} {value:?} {why}")]
    Time {
        /// Field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A claim about engine, executor or durability has no valid form.
    #[error("{field} {why}")]
    Claim {
        /// Field.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// The report is incomplete, out of order or contradicts the policy.
    #[error("the sandbox report is not consistent: {row}: {why}")]
    Report {
        /// Layer or source concerned.
        row: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A layer is called enforced or delegated without evidence for it.
    #[error("layer {layer} is not backed by its evidence: {why}")]
    Evidence {
        /// The layer.
        layer: Layer,
        /// What is wrong.
        why: &'static str,
    },
    /// A layer that the policy requires was not in force.
    #[error("layer {0} was required, and the report does not say that it was enforced or delegated")]
    RequiredLayer(Layer),
    /// The confidence does not follow from the report.
    #[error("the determinism confidence does not follow from the report: {0}")]
    Confidence(&'static str),
    /// Outputs do not agree with what the request declares.
    #[error("outputs disagree with the request: {path}: {why}")]
    Outputs {
        /// Path concerned.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A stream or an output contradicts itself or a limit.
    #[error("{name} contradicts itself: {why}")]
    Content {
        /// Stream or output path.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The request and the result it may have do not fit into one bundle.
    #[error("the proof of this request could take {bytes} bytes, more than {limit}")]
    DoesNotFit {
        /// Worst case.
        bytes: usize,
        /// Limit.
        limit: usize,
    },
    /// The bundle holds no output of that path.
    #[error("the bundle has no output {0:?}")]
    NoSuchOutput(String),
    /// The inclusion proof does not lead to the root.
    #[error("the inclusion proof does not lead to the execution root: {0}")]
    Inclusion(&'static str),
}

impl VerifyError {
    /// Every code, those of the canonical form and of the trees included.
    pub const CODES: [&'static str; 25] = [
        "E_BOUNDS",
        "E_PARSE",
        "E_DUP_KEY",
        "E_KEY",
        "E_NUMBER",
        "E_NULL",
        "E_NOT_CANONICAL",
        "E_SHAPE",
        "E_EMPTY",
        "E_LEAF_ORDER",
        "E_VERSION",
        "E_ROOT",
        "E_REQUEST",
        "E_REQUEST_BINDING",
        "E_IDENTITY",
        "E_TIME",
        "E_CLAIM",
        "E_REPORT",
        "E_EVIDENCE",
        "E_REQUIRED_LAYER",
        "E_CONFIDENCE",
        "E_OUTPUTS",
        "E_CONTENT",
        "E_NO_OUTPUT",
        "E_PROOF",
    ];

    /// Stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Canon(error) => error.code(),
            Self::Version { .. } => "E_VERSION",
            Self::Tree(error) => error.code(),
            Self::ExecutionRoot { .. } | Self::BundleRoot { .. } => "E_ROOT",
            Self::Request(_) | Self::RequestNotNormal => "E_REQUEST",
            Self::RequestBinding { .. } | Self::IdentityBinding { .. } => "E_REQUEST_BINDING",
            Self::Identity { .. } => "E_IDENTITY",
            Self::Time { .. } => "E_TIME",
            Self::Claim { .. } => "E_CLAIM",
            Self::Report { .. } => "E_REPORT",
            Self::Evidence { .. } => "E_EVIDENCE",
            Self::RequiredLayer(_) => "E_REQUIRED_LAYER",
            Self::Confidence(_) => "E_CONFIDENCE",
            Self::Outputs { .. } => "E_OUTPUTS",
            Self::Content { .. } => "E_CONTENT",
            Self::DoesNotFit { .. } => "E_BOUNDS",
            Self::NoSuchOutput(_) => "E_NO_OUTPUT",
            Self::Inclusion(_) => "E_PROOF",
        }
    }
}
