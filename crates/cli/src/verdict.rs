//! What is said about a proof, never in one green word: integrity, who signed, how many replays agree, and what was not checked.

use std::fmt::Write as _;

use requiem_model::confidence::Level;
use requiem_model::report::Status;
use requiem_proof::Verified;
use requiem_proof::envelope::Bound;
use requiem_proof::replays::Tally;
use requiem_proof::trust::{Signers, Trust};
use schemars::JsonSchema;
use serde::Serialize;

use crate::crypto::made_by;
use crate::error::CommandError;
use crate::text::printable;

/// What was found out about a proof besides its integrity.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) signatures: usize,
    pub(crate) signers: Option<Signers>,
    pub(crate) tally: Option<Tally>,
    pub(crate) objects: Option<u64>,
}

/// The same as a document.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FindingsDocument {
    verdict: String,
    not_checked: String,
    signatures: usize,
    signed_by: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agreed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_divergence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    objects_in_store: Option<u64>,
}

/// Something that a user demands of a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// The bundle is intact and consistent.
    Integrity,
    /// So many distinct trusted keys have signed.
    Signed(usize),
    /// Every layer was enforced, proven from inside.
    FullSandbox,
    /// Determinism can be trusted at least so far.
    Determinism(Level),
    /// So many replays, and all agree.
    Replayed(usize),
}

// === impl Findings ===

impl Findings {
    /// The verdict in one line.
    pub(crate) fn verdict(&self) -> String {
        let mut line = match &self.signers {
            Some(signers) => format!("signed by {}", signers.names.join(", ")),
            None => "integrity only".to_owned(),
        };
        if let Some(tally) = &self.tally {
            // Writing to a String cannot fail.
            let _infallible = write!(line, "; replayed {} times, {} agree", tally.replayed, tally.agreed);
        }
        line
    }

    /// What the verdict does not say.
    pub(crate) fn not_checked(&self) -> String {
        let signed = match (&self.signers, self.signatures) {
            (Some(_), _) => None,
            (None, 0) => Some("who made it (no signature was checked)".to_owned()),
            (None, count) => {
                Some(format!("who made it ({count} signatures are there; --trust FILE checks them)"))
            }
        };
        let replayed = match &self.tally {
            Some(_) => "who made the receipts of its replays",
            None => "whether a re-run agrees (nothing was run)",
        };
        let store = (self.objects.is_none()).then(|| "whether its objects are in a store".to_owned());
        let parts: Vec<String> = signed.into_iter().chain([replayed.to_owned()]).chain(store).collect();
        parts.join("; ")
    }

    /// For people: what else there is to say, a line each.
    pub(crate) fn notes(&self) -> String {
        let mut notes = String::new();
        let mut note = |line: String| notes.push_str(&(line + "\n"));
        if let Some(signers) = &self.signers {
            note(format!(
                "signatures: {} distinct trusted keys, {} demanded",
                signers.names.len(),
                signers.threshold
            ));
            if !signers.outside_epoch.is_empty() {
                note(format!("  not counted, outside their epoch: {}", signers.outside_epoch.join(", ")));
            }
            if signers.unknown > 0 {
                note(format!("  not counted, by no trusted key: {}", signers.unknown));
            }
        }
        if let Some(item) = self.tally.as_ref().and_then(|tally| tally.first_divergence.as_ref()) {
            note(format!("first divergence of a replay: {}", printable(&item.to_string())));
        }
        if let Some(objects) = self.objects {
            note(format!("store: all {objects} objects that the bundle names are there and intact"));
        }
        notes
    }

    /// As a document.
    pub(crate) fn document(&self) -> FindingsDocument {
        FindingsDocument {
            verdict: self.verdict(),
            not_checked: self.not_checked(),
            signatures: self.signatures,
            signed_by: self.signers.as_ref().map(|signers| signers.names.clone()).unwrap_or_default(),
            threshold: self.signers.as_ref().map(|signers| signers.threshold),
            replayed: self.tally.as_ref().map(|tally| tally.replayed),
            agreed: self.tally.as_ref().map(|tally| tally.agreed),
            first_divergence: self
                .tally
                .as_ref()
                .and_then(|tally| Some(tally.first_divergence.as_ref()?.to_string())),
            objects_in_store: self.objects,
        }
    }
}

/// Counts the trusted keys that signed.
pub(crate) fn signers(trust: &Trust, signatures: &[Bound]) -> Result<Signers, CommandError> {
    trust.judge(signatures, made_by).map_err(|error| {
        let hint =
            "do not rely on who is said to have signed; get the bundle with all signatures from its source";
        CommandError::finding(error.code(), format!("the signatures are refused: {error}"), hint)
    })
}

// === impl Requirement ===

impl std::str::FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not one of integrity, signed[=N], sandbox=full, determinism=LEVEL, replayed[=N]; \
                 LEVEL is best_effort, medium or high"
            )
        };
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let count = || match value {
            None => Ok(1),
            Some(value) => value.parse().ok().filter(|count| *count > 0).ok_or_else(wrong),
        };
        match (name, value) {
            ("integrity", None) => Ok(Self::Integrity),
            ("signed", _) => Ok(Self::Signed(count()?)),
            ("replayed", _) => Ok(Self::Replayed(count()?)),
            ("sandbox", Some("full")) => Ok(Self::FullSandbox),
            ("determinism", Some("best_effort")) => Ok(Self::Determinism(Level::BestEffort)),
            ("determinism", Some("medium")) => Ok(Self::Determinism(Level::Medium)),
            ("determinism", Some("high")) => Ok(Self::Determinism(Level::High)),
            _ => Err(wrong()),
        }
    }
}

impl Requirement {
    /// Checks the requirement; `verified` is absent where there is one output only.
    pub(crate) fn check(&self, findings: &Findings, verified: Option<&Verified>) -> Result<(), CommandError> {
        let why = match self {
            // Whatever is checked here has passed.
            Self::Integrity => None,
            Self::Signed(count) => match &findings.signers {
                None => Some("no trust file was given (--trust FILE)".to_owned()),
                Some(signers) => (signers.names.len() < *count)
                    .then(|| format!("{} distinct trusted keys have signed", signers.names.len())),
            },
            Self::Replayed(count) => match &findings.tally {
                None => Some("no receipts were given (--receipts FILE)".to_owned()),
                Some(tally) => (tally.agreed < *count || !tally.all_agree())
                    .then(|| format!("replayed {} times, {} agree", tally.replayed, tally.agreed)),
            },
            Self::FullSandbox | Self::Determinism(_) => match verified {
                None => Some("this is the proof of one output; its bundle says it".to_owned()),
                Some(verified) => self.about_run(verified),
            },
        };
        why.map_or(Ok(()), |why| Err(self.unmet(&why)))
    }

    fn about_run(&self, verified: &Verified) -> Option<String> {
        let run = &verified.body.run;
        match self {
            Self::Determinism(level) => (run.confidence.level < *level).then(|| {
                format!("it is {}: {}", run.confidence.level.as_str(), run.confidence.reasons.join(", "))
            }),
            _ => {
                let rows = &run.sandbox.layers;
                let short: Vec<&str> = rows
                    .iter()
                    .filter(|row| row.status != Status::Enforced)
                    .map(|row| row.layer.name())
                    .collect();
                (!short.is_empty()).then(|| format!("not enforced: {}", short.join(", ")))
            }
        }
    }

    fn unmet(&self, why: &str) -> CommandError {
        let name = match self {
            Self::Integrity => "integrity".to_owned(),
            Self::Signed(count) => format!("signed={count}"),
            Self::FullSandbox => "sandbox=full".to_owned(),
            Self::Determinism(level) => format!("determinism={}", level.as_str()),
            Self::Replayed(count) => format!("replayed={count}"),
        };
        let hint = "the proof is intact, but is not what you require; do not use it for that purpose";
        CommandError::finding("E_REQUIRE", format!("requirement {name} is not met: {why}"), hint)
    }
}
