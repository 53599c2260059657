//! What an engine of somebody else is asked and what it answers: protocol `requiem-engine/1`, one JSON object in, one out. Byte by byte:
//! `docs/engines.md`.
//!
//! Answers are claims: of one form, within bounds, and compared with what can be seen of them.

use requiem_model::{BlobDigest, ExecutionRequest, Outcome, RequestDigest};
use requiem_proof::signer::{ReplyError, read};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Claimed, EngineName, Fault};

/// The protocol.
pub const ENGINE_PROTOCOL: &str = "requiem-engine/1";
/// Longest answer, in bytes.
pub const MAX_REPLY_BYTES: usize = requiem_proof::signer::MAX_REPLY_BYTES;

/// A question.
#[derive(Debug, Serialize)]
#[serde(tag = "verb", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Ask<'a> {
    /// Who are you?
    Info {},
    /// Run this.
    Run {
        /// What to run, in the form that is digested.
        request: &'a ExecutionRequest,
        /// Its digest.
        request_digest: RequestDigest,
        /// A folder for this run alone.
        folder: &'a str,
        /// Where the inputs lie already, in `folder`; the command's `/workspace`. Outputs are to be left here.
        workspace: &'a str,
        /// File of the standard input, in `folder`.
        stdin: &'a str,
        /// File to leave the standard output in, in `folder`.
        stdout: &'a str,
        /// File to leave the standard error in, in `folder`.
        stderr: &'a str,
    },
}

/// A question with the protocol that it is asked by.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Question<'a> {
    protocol: &'static str,
    #[serde(flatten)]
    ask: Ask<'a>,
}

/// Who an engine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Info {
    /// What it speaks.
    pub protocols: Vec<String>,
    /// Its name: `[a-z][a-z0-9-]{0,62}`, none of ours.
    pub name: String,
    /// Its version. Equal versions agree on equal requests.
    pub version: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ran {
    /// How the command ended.
    pub outcome: Outcome,
    /// Digest of what was kept of the standard output: its first `limits.maxOutputBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<BlobDigest>,
    /// Likewise of the standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<BlobDigest>,
    /// The declared outputs that it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<Claimed>>,
}

/// The bytes of a question.
///
/// # Errors
/// It has no JSON form.
pub fn question(ask: Ask<'_>) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Question { protocol: ENGINE_PROTOCOL, ask })
}

/// Reads an answer of an engine that ended with success or not.
///
/// # Errors
/// Which rule it breaks, and how.
pub fn answer<T: DeserializeOwned + Serialize>(reply: &[u8], ended_well: bool) -> Result<T, (Fault, String)> {
    read(reply, ended_well).map_err(|error| {
        let fault = match error {
            ReplyError::TooLarge => Fault::Output,
            ReplyError::Form(_) => Fault::Reply,
            ReplyError::Refused(_) => Fault::Refused,
            ReplyError::Contradiction(_) => Fault::Contradiction,
        };
        (fault, error.to_string())
    })
}

impl Info {
    /// Whether we can speak with it, and may call it what it calls itself.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let Self { protocols, name, version } = self;
        if !protocols.iter().any(|protocol| protocol == ENGINE_PROTOCOL) {
            return Err(format!("it does not speak {ENGINE_PROTOCOL}"));
        }
        let mut bytes = name.bytes();
        let named = name.len() <= 63
            && bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
            && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !named {
            return Err("its name is not [a-z][a-z0-9-]{0,62}".to_owned());
        }
        if EngineName::BUILT_IN.contains(&name.as_str()) {
            return Err(format!("it calls itself {name}, which is an engine of ours"));
        }
        if version.is_empty() || version.len() > 64 || version.chars().any(char::is_control) {
            return Err("its version is empty, longer than 64 bytes or holds control characters".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours_and_names_that_are_none_are_refused() {
        let info = |name: &str, version: &str, protocol: &str| {
            let protocols = vec![protocol.to_owned()];
            Info { protocols, name: name.to_owned(), version: version.to_owned() }.check()
        };
        assert_eq!(info("gvisor", "1.2", "requiem-engine/1"), Ok(()));
        for name in ["requiem", "rust", "", "Rust", "a b", "-a", "1a", "a\n", &"a".repeat(64)] {
            assert!(info(name, "1", "requiem-engine/1").is_err(), "{name:?}");
        }
        for version in ["", "a\nb", &"1".repeat(65)] {
            assert!(info("a", version, "requiem-engine/1").is_err(), "{version:?}");
        }
        assert!(info("a", "1", "requiem-engine/2").is_err());
    }

    #[test]
    fn answers_are_of_one_form() {
        let read = |text: &str| answer::<Ran>(text.as_bytes(), true).map_err(|(fault, _)| fault);
        let outcome = r#""outcome":{"kind":"exited","code":0}"#;
        assert!(read(&format!("{{{outcome}}}")).is_ok());
        let refused = [
            String::new(),
            "{}".to_owned(),
            "[]".to_owned(),
            format!("{{{outcome}}} {{}}"),
            format!("{{{outcome},{outcome}}}"),
            format!("{{{outcome},\"sandbox\":[]}}"),
            format!("{{{outcome},\"stdout\":\"sha256:00\"}}"),
            r#"{"outcome":{"kind":"exited","code":256}}"#.to_owned(),
            r#"{"outcome":{"kind":"exited","code":0,"signal":9}}"#.to_owned(),
            r#"{"outcome":{"kind":"vanished"}}"#.to_owned(),
            format!("{{{outcome},\"outputs\":[{{\"path\":\"../x\"}}]}}"),
        ];
        for text in refused {
            assert_eq!(read(&text), Err(Fault::Reply), "{text}");
        }
        let error = r#"{"error":{"code":"x","message":"y"}}"#;
        assert_eq!(read(error), Err(Fault::Contradiction));
        assert_eq!(answer::<Ran>(error.as_bytes(), false).unwrap_err().0, Fault::Refused);
    }
}
