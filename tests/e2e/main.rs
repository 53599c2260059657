//! The main job against a real API server: what a user applies, and what comes back.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

mod answers;
mod command;
mod ends;
mod refusals;
mod replays;
