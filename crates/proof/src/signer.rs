//! What a signer is asked and what it answers: protocol `requiem-signer/1`, one JSON object in, one out.
//!
//! A signer is another program, so its answers are claims: of one form, within bounds, and checked against what was asked before
//! anything is done with them. How it is run stands in `docs/signers.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use requiem_model::BundleRoot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json;
use crate::trust::Algorithm;

/// The protocol.
pub const SIGNER_PROTOCOL: &str = "requiem-signer/1";
/// What a signature is for. A signer may refuse any other purpose.
pub const PURPOSE: &str = "requiem-bundle/1";
/// Longest answer, in bytes.
pub const MAX_REPLY_BYTES: usize = 64 * 1024;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Ask {
    /// Who are you?
    Info {},
    /// Which keys do you have, and which did you have?
    PublicKeys {},
    /// Sign these bytes.
    Sign {
        /// Always [`PURPOSE`].
        purpose: String,
        /// Type of the payload inside the PAE.
        payload_type: String,
        /// What is to be signed, in base64.
        pae: String,
        /// With which key; the signer's first if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_id: Option<String>,
        /// What it is about, for the signer's own policy and its log.
        context: Context,
    },
    /// Is this signature yours?
    Verify {
        /// What was signed, in base64.
        pae: String,
        /// By which key.
        key_id: String,
        /// The signature, in base64.
        signature: String,
    },
}

/// What a signature is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Context {
    /// Namespace of the Execution.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Root of its bundle.
    pub bundle_root: BundleRoot,
}

/// A question as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Question {
    protocol: &'static str,
    #[serde(flatten)]
    ask: Ask,
}

impl From<Ask> for Question {
    fn from(ask: Ask) -> Self {
        Self { protocol: SIGNER_PROTOCOL, ask }
    }
}

/// Answer to `info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Info {
    /// What the signer speaks.
    pub protocols: Vec<String>,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The verbs that it answers.
    pub verbs: Vec<String>,
}

/// Answer to `publicKeys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublicKeys {
    /// Present and past keys.
    pub keys: Vec<PublicKey>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublicKey {
    /// What envelopes call it.
    pub key_id: String,
    /// How it signs.
    pub algorithm: Algorithm,
    /// As in a trust file.
    pub public_key: String,
    /// Begin of its epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// End of its epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Answer to `sign`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signed {
    /// The key that signed.
    pub key_id: String,
    /// How.
    pub algorithm: Algorithm,
    /// The signature, in base64.
    pub signature: String,
    /// The key, as in a trust file, for the caller to check the signature with.
    pub public_key: String,
}

/// Answer to `verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checked {
    /// Whether it is.
    pub valid: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer of a signer that does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    error: Refused,
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// Why an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Longer than 64 KiB.
    #[error("it answers with more than {MAX_REPLY_BYTES} bytes")]
    TooLarge,
    /// Not the one JSON object that answers the question.
    #[error("it gives no answer that can be read: {0}")]
    Form(String),
    /// It says that it cannot.
    #[error("it refuses: {} ({})", .0.message, .0.code)]
    Refused(Refused),
    /// What it says and how it ended do not agree.
    #[error("it ended {0}")]
    Contradiction(&'static str),
}

impl ReplyError {
    /// Stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "E_PLUGIN_OUTPUT",
            Self::Form(_) => "E_PLUGIN_REPLY",
            Self::Refused(_) => "E_PLUGIN_REFUSED",
            Self::Contradiction(_) => "E_PLUGIN_CONTRADICTION",
        }
    }
}

/// Reads an answer of a signer that ended with success or not. Unknown members are refused, and so are an error after a success
/// and an answer after a failure.
///
/// # Errors
/// [`ReplyError`].
pub fn read<T: DeserializeOwned + Serialize>(reply: &[u8], ended_well: bool) -> Result<T, ReplyError> {
    if reply.len() > MAX_REPLY_BYTES {
        return Err(ReplyError::TooLarge);
    }
    let value = json::parse(reply).map_err(|error| ReplyError::Form(error.to_string()))?;
    let refusal = json::strict::<Refusal>(value.clone()).ok();
    match (refusal, ended_well) {
        (Some(Refusal { error }), false) => Err(ReplyError::Refused(clipped(error))),
        (Some(_), true) => Err(ReplyError::Contradiction("well, and answers with an error")),
        (None, false) => Err(ReplyError::Contradiction("badly, and does not answer with an error")),
        (None, true) => answer(value),
    }
}

fn answer<T: DeserializeOwned + Serialize>(value: Value) -> Result<T, ReplyError> {
    json::strict(value).map_err(|error| ReplyError::Form(error.to_string()))
}

fn clipped(refused: Refused) -> Refused {
    let clip = |text: String, most| text.chars().take(most).collect();
    Refused { code: clip(refused.code, 80), message: clip(refused.message, 300) }
}

/// Bytes as the protocol carries them.
pub fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Bytes of a text of the protocol.
///
/// # Errors
/// [`ReplyError::Form`].
pub fn decoded(text: &str) -> Result<Vec<u8>, ReplyError> {
    STANDARD.decode(text).map_err(|_| ReplyError::Form("its base64 is not in the one spelling".to_owned()))
}
