//! The nouns of Requiem, on one page. Pure: no I/O, no async, no Kubernetes, no libc.
//!
//! | noun | module |
//! |---|---|
//! | digests, one type per kind | [`digest`] |
//! | canonical JSON | [`canon`] |
//! | validated paths and names | [`names`] |
//! | layers, requirement levels, limits | [`policy`] |
//! | what is to be run | [`request`] |
//! | values that a request only refers to | [`reference`] |
//! | what came out | [`result`] |
//! | which isolation was in force | [`report`] |
//! | how far determinism can be trusted | [`confidence`] |
//! | the same request by two engines | [`dual`] |
//! | what operator and executor say to one another | [`attempt`] |

pub mod attempt;
pub mod canon;
pub mod confidence;
pub mod digest;
pub mod dual;
pub mod names;
pub mod policy;
pub mod reference;
pub mod report;
pub mod request;
pub mod result;

pub use canon::CanonError;
pub use digest::{
    BlobDigest, BundleRoot, DigestError, EnvironmentDigest, ExecutionRoot, PolicyDigest, RequestDigest,
    ResultDigest, TreeDigest,
};
pub use names::{EnvName, NameError, RelPath};
pub use policy::{Layer, Limits, Requirement, SandboxPolicy};
pub use reference::{DataKey, EnvRef, ObjectName, ValueSource};
pub use report::SandboxReport;
pub use request::{ExecutionRequest, RequestError};
pub use result::{Failure, FailureReason, Outcome, RunResult};
