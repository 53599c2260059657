//! Arguments of benchmarks.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::arguments::StoreArguments;
use crate::bench::comparison::{Allowed, Threshold};
use crate::config_arguments::TenantArgument;

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Run a command many times and say what it takes; exit code 1 if a run fails.
    Run(BenchRun),
    /// Say how much slower or faster a result is than another, with confidence intervals.
    Compare(Pair),
    /// Exit with 2 if p50 or p95 of a result is a regression.
    ///
    /// Exit codes: 0 no regression, 2 a regression, or two results that cannot be compared: the reason code tells, and is Regression for the
    /// first and nothing else.
    Gate(BenchGate),
}

#[derive(Debug, Args)]
pub(crate) struct BenchRun {
    /// Spec (JSON); - reads standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) spec: PathBuf,
    /// Also write the result document (JSON) to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    #[command(flatten)]
    pub(crate) whose: TenantArgument,
}

/// Two results.
#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// What `bench run --out` wrote before.
    pub(crate) base: PathBuf,
    /// What it wrote now.
    pub(crate) new: PathBuf,
    /// Compare results of different machines, kernels or engines too; what differs is said.
    #[arg(long)]
    pub(crate) across_environments: bool,
    /// Compare results of different requests too, for a program that is an input of its request.
    #[arg(long)]
    pub(crate) across_requests: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchGate {
    #[command(flatten)]
    pub(crate) pair: Pair,
    /// How much slower is still no regression.
    #[arg(long, value_name = "PERCENT", default_value = "5", allow_negative_numbers = true)]
    pub(crate) threshold: Threshold,
}

impl Pair {
    /// What need not be equal.
    pub(crate) const fn allowed(&self) -> Allowed {
        Allowed { across_environments: self.across_environments, across_requests: self.across_requests }
    }
}
