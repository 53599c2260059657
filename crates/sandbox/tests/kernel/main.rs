//! The sandbox on a real kernel: every test makes real runs, and asserts what happened and what the report says.
//!
//! The suite expects a host that can enforce every layer; a layer that is missing fails it. Helpers that must be
//! processes of their own (an attacker, a caller that is killed, a caller in a crippled place) are tests of this same
//! binary that return at once unless they are started as helpers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; clippy only knows the tests themselves"
)]

mod attacks;
mod crippled;
mod happy;
mod inputs;
mod layers;
mod lifecycle;
mod support;
