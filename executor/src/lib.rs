//! The executor: takes attempts from operators, runs each behind the sandbox, keeps its result until somebody
//! else has it, and never runs an Execution to a second result.
//!
//! ```text
//! call ─admission→ attempts ─queue→ worker ─execute: fetch → stage → run → collect → seal→ journal → state
//! ```
//!
//! | part | module |
//! |---|---|
//! | one attempt from request to result | [`execute`](mod@execute) |
//! | what runs it | [`engine`] |
//! | may it start? | [`admission`] |
//! | every attempt and its state | [`attempts`] |
//! | what was promised, across crashes | [`journal`] |
//! | bundles that left the journal | [`archive`] |
//! | what both still name | [`retained`] |
//! | waiting and running | [`queue`], `workers`, [`runners`] |
//! | listeners, and the way to the local one | [`server`], [`relay`] |
//! | what a run has written so far | `live` |
//! | the runner's way into a pod, who waits for it, and the profile's way onto a node | [`install`], [`awaiting`], [`profile`] |
//! | a container's first process | [`first`] |
//! | health; the end | `health`, `farewell` |
//! | figures | [`metrics`] |
//! | all of it together | [`daemon`] |

pub mod admission;
pub mod archive;
pub mod args;
pub mod attempts;
pub mod awaiting;
pub mod daemon;
pub mod engine;
pub mod execute;
pub mod first;
pub mod install;
pub mod journal;
pub mod metrics;
pub mod profile;
pub mod queue;
pub mod relay;
pub mod retained;
pub mod runners;
pub mod server;

mod farewell;
mod health;
mod live;
mod recover;
mod steps;
mod workers;

pub use execute::{Deps, Keep, SealedRun, Stored, Timings, check_request, execute, executor_claim};
