//! The main job against a real API server: what a user applies, and what comes back.

mod ends;
mod refusals;
