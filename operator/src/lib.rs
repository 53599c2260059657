//! The operator: reconciles Executions, ProofBundles and ExecutorPools; hands requests to executors; believes
//! nothing that it has not recomputed; never sees payload bytes.
//!
//! ```text
//! watch ─▶ cache ─▶ queue ─▶ reconcile: observe → validate → decide → apply → report ─▶ one status write
//!                     ▲                                        │
//!                     └── follower, health, gates ◀────────────┴──▶ executors (HTTP/2 over mTLS)
//! ```
//!
//! | part | module |
//! |---|---|
//! | start and end | [`run`]; the command line is [`requiem_config::operator`] |
//! | what reconcilers share | [`context`] |
//! | events to caches and queues; whether caches can be believed | [`watching`], [`view`], [`queue`], [`backoff`] |
//! | the three kinds | [`execution`], [`proof_bundle`], [`executor_pool`] |
//! | executors: who counts, calls, outages, full queues | [`fleet`], [`dispatch`], [`health`], [`gates`] |
//! | pods of single Executions | [`dedicated`] |
//! | certificates of executors in pods | [`certificates`] |
//! | the API server: writes, events | [`kubeapi`], [`events`] |
//! | which of several operators works | [`leader`] |
//! | figures, health, readiness | [`metrics`], [`admin`] |

pub mod admin;
pub mod backoff;
pub mod certificates;
pub mod context;
pub mod dedicated;
pub mod dispatch;
pub mod events;
pub mod execution;
pub mod executor_pool;
pub mod fleet;
pub mod gates;
pub mod health;
pub mod kubeapi;
pub mod leader;
pub mod metrics;
pub mod proof_bundle;
pub mod queue;
pub mod replay;
pub mod run;
pub mod view;
pub mod watching;
