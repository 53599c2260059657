//! `verify.py`, a verifier in another language that shares no code with ours and was written from `docs/format` alone: it
//! agrees on every vector, on every attack and a sample of the mutations of `crates/proof/tests` (which this file includes), and
//! on the proofs of real runs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]
#![expect(clippy::duplicate_mod, reason = "each included file brings the helpers that it has at home")]

#[path = "../../crates/proof/tests/attacks.rs"]
mod attacks;
#[path = "../../crates/proof/tests/envelopes.rs"]
mod envelopes;
#[path = "../../crates/proof/tests/mutation.rs"]
mod mutation;

mod docs;
mod interop;
mod python;
mod runs;
mod sigstore;
mod vectors;

pub(crate) use python::second_opinion;
