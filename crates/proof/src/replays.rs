//! Receipts of replays: the bundles of later runs of one request, counted.
//!
//! A receipt is no statement that somebody agreed, but the whole proof of the other run, so that every verifier counts anew. One
//! divergence sticks: agreements beside it do not outweigh it.

use requiem_model::BundleRoot;
use serde::{Deserialize, Serialize};

use crate::compare::{Divergence, divergences};
use crate::error::VerifyError;
use crate::json::{self, JsonError};
use crate::verify::{Expect, Sealed, Verified, verify};

/// The schema of receipts.
pub const REPLAYS_SCHEMA: &str = "requiem-replays/1";
/// Most replays of one file.
pub const MAX_REPLAYS: usize = 64;
/// Largest file, in bytes.
pub const MAX_REPLAYS_BYTES: usize = 32 * 1024 * 1024;

/// Later runs of the request of one bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Replays {
    schema: String,
    bundle_root: BundleRoot,
    replays: Vec<Sealed>,
}

/// What replays say about a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many there are.
    pub replayed: usize,
    /// How many have the bundle's execution root.
    pub agreed: usize,
    /// First item in which the first of the others differs.
    pub first_divergence: Option<Divergence>,
}

/// Why receipts do not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Not the JSON that is expected.
    #[error("the receipts cannot be read: {0}")]
    Json(#[from] JsonError),
    /// Too large, too many, or of another schema.
    #[error("the receipts {0}")]
    File(&'static str),
    /// They are about another bundle.
    #[error("the receipts are about bundle {found}, not {expected}")]
    OtherBundle {
        /// The bundle at hand.
        expected: BundleRoot,
        /// What they are about.
        found: BundleRoot,
    },
    /// A receipt is no proof.
    #[error("receipt {at} is refused: {source}")]
    Receipt {
        /// Which one, from 0.
        at: usize,
        /// Why.
        source: VerifyError,
    },
    /// A receipt is a run of something else.
    #[error("receipt {at} is a run of another request")]
    OtherRequest {
        /// Which one, from 0.
        at: usize,
    },
    /// A run is there twice, or is the bundle itself.
    #[error("receipt {at} is a run that was counted already")]
    Twice {
        /// Which one, from 0.
        at: usize,
    },
}

impl ReplayError {
    /// Stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Json(_) | Self::File(_) => "E_RECEIPTS",
            Self::OtherBundle { .. } | Self::OtherRequest { .. } => "E_REQUEST_BINDING",
            Self::Receipt { source, .. } => source.code(),
            Self::Twice { .. } => "E_RECEIPT_TWICE",
        }
    }
}

impl Replays {
    /// No replay of this bundle yet.
    pub fn of(original: &Verified) -> Self {
        Self { schema: REPLAYS_SCHEMA.to_owned(), bundle_root: original.bundle_root, replays: Vec::new() }
    }

    /// Reads receipts.
    ///
    /// # Errors
    /// [`ReplayError::Json`] or [`ReplayError::File`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReplayError> {
        if bytes.len() > MAX_REPLAYS_BYTES {
            return Err(ReplayError::File("are larger than 32 MiB"));
        }
        let receipts: Self = json::strict(json::parse(bytes)?)?;
        if receipts.schema != REPLAYS_SCHEMA {
            return Err(ReplayError::File("are not of the schema requiem-replays/1"));
        }
        if receipts.replays.len() > MAX_REPLAYS {
            return Err(ReplayError::File("are more than 64"));
        }
        Ok(receipts)
    }

    /// These, and `others` that are not the same to the byte.
    #[must_use]
    pub fn and(mut self, others: &[Sealed]) -> Self {
        let new = others.iter().filter(|other| !self.replays.contains(other)).cloned();
        let new: Vec<Sealed> = new.collect();
        self.replays.extend(new);
        self
    }

    /// Adds one.
    pub fn push(&mut self, replay: Sealed) {
        self.replays.push(replay);
    }

    /// Counts them anew.
    ///
    /// # Errors
    /// The first receipt that is no proof of another run of the bundle's request.
    pub fn tally(&self, original: &Verified) -> Result<Tally, ReplayError> {
        if self.bundle_root != original.bundle_root {
            return Err(ReplayError::OtherBundle { expected: original.bundle_root, found: self.bundle_root });
        }
        let mut runs = vec![&original.body.run.identity.uid];
        let mut replays = Vec::new();
        for (at, sealed) in self.replays.iter().enumerate() {
            let expect = Expect {
                execution_root: Some(sealed.execution_root),
                bundle_root: Some(sealed.bundle_root),
                ..Expect::default()
            };
            let again = verify(&sealed.body, &expect);
            replays.push(again.map_err(|source| ReplayError::Receipt { at, source })?);
        }
        let mut tally = Tally::default();
        for (at, again) in replays.iter().enumerate() {
            if again.request_digest != original.request_digest {
                return Err(ReplayError::OtherRequest { at });
            }
            let uid = &again.body.run.identity.uid;
            if runs.contains(&uid) {
                return Err(ReplayError::Twice { at });
            }
            runs.push(uid);
            tally.count(original, again);
        }
        Ok(tally)
    }
}

impl Tally {
    fn count(&mut self, original: &Verified, again: &Verified) {
        self.replayed += 1;
        if again.execution_root == original.execution_root {
            self.agreed += 1;
        } else if self.first_divergence.is_none() {
            let differing = divergences(&original.body.execution, &again.body.execution);
            self.first_divergence = differing.into_iter().next();
        }
    }

    /// Whether there is a replay, and all agree.
    pub const fn all_agree(&self) -> bool {
        self.replayed > 0 && self.agreed == self.replayed
    }
}
