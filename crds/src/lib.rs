//! The Kubernetes API of Requiem, `requiem.dev/v1alpha1`, and the one way from a spec to a request.
//!
//! | part | module |
//! |---|---|
//! | what users write: [`Execution`] | [`execution`] |
//! | what they read back: [`ExecutionStatus`] | [`status`] |
//! | a sealed proof as an object: [`ProofBundle`] | [`proof_bundle`] |
//! | later runs of the same request | [`replay`] |
//! | where executors are: [`ExecutorPool`] | [`executor_pool`] |
//! | what Executions must be like: [`ExecutionPolicy`], [`ClusterExecutionPolicy`] | [`policy`] |
//! | whether policies admit an Execution | [`admission`] |
//! | who would create a deleted object again | [`keeper`] |
//! | condition types and reasons | [`condition`] |
//! | byte quantities such as `512Mi` | [`quantity`] |
//! | spec → [`requiem_model::ExecutionRequest`] | [`convert`] |
//! | definitions as the API server gets them | [`definition`] |
//! | generated files: `config/crd`, `docs/reference/api.md` | [`generate`], [`reference`] |
//!
//! The derived `Execution::crd()` is raw material: only [`definition::all`] gives the definitions that are
//! installed, with defaults of `status` and without the nulls that would blind the rules.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat the attributes of one another")]
#![expect(unreachable_pub, reason = "the KubeSchema derive copies public structs into function bodies")]

pub mod admission;
pub mod condition;
pub mod convert;
pub mod definition;
pub mod execution;
pub mod executor_pool;
mod from_model;
pub mod generate;
pub mod keeper;
pub mod policy;
pub mod proof_bundle;
pub mod quantity;
pub mod reference;
pub mod replay;
mod rules;
mod schema;
pub mod status;

pub use execution::{Execution, ExecutionSpec};
pub use executor_pool::{ExecutorPool, ExecutorPoolSpec, ExecutorPoolStatus};
pub use policy::{
    ClusterExecutionPolicy, ClusterExecutionPolicySpec, ExecutionPolicy, ExecutionPolicySpec, PolicyRules,
};
pub use proof_bundle::{ProofBundle, ProofBundleSpec, ProofBundleStatus};
pub use quantity::ByteQuantity;
pub use status::ExecutionStatus;

/// The API group.
pub const GROUP: &str = "requiem.dev";
/// The version of the API.
pub const VERSION: &str = "v1alpha1";
/// The pool that takes an Execution which names none.
pub const DEFAULT_POOL: &str = "default";
