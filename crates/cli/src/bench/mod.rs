//! Benchmarks of commands in the sandbox.
//!
//! ```text
//! spec ─parse→ Spec ─request→ ExecutionRequest ─measure→ samples ─sum up→ ResultDocument
//! two ResultDocuments ─compare→ Comparison ─judge→ verdict
//! ```
//!
//! | step | module |
//! |---|---|
//! | what is to be measured | [`spec`] |
//! | the runs | [`measure`] |
//! | where | [`environment`] |
//! | the document | [`document`] |
//! | two documents beside one another; the gate's rule | [`comparison`] |
//! | the figures themselves, pure | [`statistics`] |

pub(crate) mod comparison;
pub(crate) mod document;
pub(crate) mod environment;
pub(crate) mod measure;
pub(crate) mod spec;
pub(crate) mod statistics;
