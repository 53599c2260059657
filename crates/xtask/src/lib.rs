//! `cargo xtask`: the one door for people and CI. A library too, so that suites and benchmarks start the same cluster.
//!
//! | concern | module |
//! |---|---|
//! | command line | [`cli`] |
//! | what must be there before anything starts | [`prerequisites`] |
//! | from nothing to a verified proof | [`demo`], [`real_input`] |
//! | generated files; the page about the values of the chart | [`generate`], [`values`] |
//! | suites, as data, and running them | [`suites`], [`test`] |
//! | benchmarks | [`bench`] |
//! | the images that ship; container images without a daemon | [`images`], [`oci`] |
//! | what comes from the system's package manager | [`packages`] |
//! | programs built once from pinned Go modules | [`tools`] |
//! | etcd and kube-apiserver on loopback | [`cluster`] |
//! | executor and operator beside them | [`stack`] |
//! | certificates for development | [`pki`] |
//! | nothing is left behind, however the process ends | [`reaper`] |
//! | child processes, cargo, folders that go away | [`process`], [`cargo`], [`scratch`] |
//! | where things lie; free ports | [`paths`], [`ports`] |
//! | what the user sees while waiting | [`progress`] |
//! | what went wrong, and what to do | [`error`] |

pub mod bench;
pub mod cargo;
pub mod cli;
pub mod cluster;
pub mod demo;
pub mod error;
pub mod generate;
pub mod images;
pub mod node;
pub mod oci;
pub mod packages;
pub mod paths;
pub mod pki;
pub mod ports;
pub mod prerequisites;
pub mod process;
pub mod progress;
pub mod python;
pub mod real_input;
pub mod reaper;
pub mod scratch;
pub mod stack;
pub mod suites;
pub mod test;
pub mod tools;
pub mod values;

pub use error::{Error, Result};
