//! Proofs of executions: what a run claims, under two Merkle roots, verifiable offline by anyone.
//!
//! The flow: a [`BundleBody`] is [sealed](seal) into its exact canonical bytes and two roots. The
//! **execution root** covers what every honest re-run must reproduce; the **bundle root** wraps it with
//! what only this run can say. [`verify`] takes the bytes, recomputes both roots and everything that
//! follows from the facts, and refuses with a stable code; [`prove_output`] shows one output without the
//! rest. The byte specification stands in `docs/format/proof.md`.
//!
//! A verified bundle is intact and consistent. Who made it, and whether a re-run agrees, are other questions, with
//! answers of their own: [`trust`] counts the keys that signed, [`replays`] the runs that agreed.
//!
//! | part | module |
//! |---|---|
//! | documents | [`body`] |
//! | trees and paths | [`tree`] |
//! | which fact is which leaf | [`leaves`] |
//! | what must agree inside a body | [`rules`] |
//! | sealing and verifying | [`verify`](mod@verify) |
//! | one output by itself | [`inclusion`] |
//! | files that carry a bundle, or one output | [`file`](mod@file), [`alone`] |
//! | what was signed, and whose signatures count | [`envelope`], [`trust`] |
//! | what a signer is asked and answers | [`signer`] |
//! | a signature in the form of others | [`sigstore`] |
//! | the same request run again | [`compare`], [`replays`] |
//! | JSON that others wrote | [`json`] |

pub mod alone;
pub mod body;
pub mod compare;
pub mod envelope;
pub mod error;
pub mod file;
pub mod inclusion;
pub mod json;
pub mod leaves;
pub mod replays;
pub mod rules;
pub mod signer;
pub mod sigstore;
pub mod time;
pub mod tree;
pub mod trust;
pub mod verify;

pub use alone::OutputFile;
pub use body::{BundleBody, Engine, ExecutionFacts, ExecutorClaim, RunClaims, SCHEMA};
pub use error::VerifyError;
pub use file::{AnyFile, ProofFile, ProofFileError};
pub use inclusion::{OutputProof, prove_output, verify_output};
pub use rules::check_fits;
pub use time::rfc3339_millis;
pub use verify::{Expect, Sealed, Verified, seal, verify};
