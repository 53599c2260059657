//! The test suites, as data. `cargo xtask test --list` prints this table; a test of this file keeps it complete.

use crate::tools::{self, Family};

/// One suite.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it covers, in one line.
    pub covers: &'static str,
    /// Arguments of cargo.
    pub cargo: &'static [&'static str],
    /// What it needs besides cargo.
    pub needs: Needs,
}

/// What a suite needs before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// User namespaces and cgroups.
    Sandbox,
    /// Those, the built programs, and programs of others that judge what they make: Python and Node.js with packages, a Go module.
    Verifiers,
    /// Programs that write manifests, and those that judge them; no cluster.
    Judges,
    /// User namespaces and cgroups, a control plane, and the built programs.
    Cluster,
    /// Those, and what judges dashboards.
    Monitoring,
    /// A cluster with two nodes that have the images. Only root can have one: elsewhere the suite is left out, and that is said.
    Nodes,
}

impl Needs {
    /// The programs from Go modules that are used on the way, in the order of need.
    pub const fn tools(self) -> &'static [&'static Family] {
        match self {
            Self::Nothing | Self::Sandbox => &[],
            Self::Verifiers => tools::VERIFIERS,
            Self::Judges => tools::JUDGES,
            Self::Cluster => tools::CLUSTER,
            Self::Monitoring => tools::MONITORING,
            Self::Nodes => tools::NODES,
        }
    }
}

/// The kubeconfig that suites with [`Needs::Cluster`] get. They fail where it is absent; they never skip.
pub const KUBECONFIG_VARIABLE: &str = "REQUIEM_TEST_KUBECONFIG";
/// The folder of the built programs that the same suites get.
pub const PROGRAMS_VARIABLE: &str = "REQUIEM_TEST_PROGRAMS";
/// The Python that suites with [`Needs::Verifiers`] get, beside the programs.
pub const PYTHON_VARIABLE: &str = "REQUIEM_TEST_PYTHON";
/// The folder of Node.js packages that the same suites get.
pub const NODE_MODULES_VARIABLE: &str = "REQUIEM_TEST_NODE_MODULES";
/// What judges Sigstore bundles by sigstore-go, for the same suites.
pub const SIGSTORE_VARIABLE: &str = "REQUIEM_TEST_SIGSTORE";

/// The name of the cluster that suites with [`Needs::Nodes`] get.
pub const CLUSTER_VARIABLE: &str = "REQUIEM_TEST_CLUSTER";
/// This program, for suites that start and kill it.
pub const XTASK_VARIABLE: &str = "REQUIEM_TEST_XTASK";

/// All suites, cheapest first.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "fmt",
        covers: "every file is formatted",
        cargo: &["fmt", "--all", "--check"],
        needs: Needs::Nothing,
    },
    Suite {
        name: "clippy",
        covers: "no warning in any target, missing documentation and unwraps outside tests included",
        cargo: &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        needs: Needs::Nothing,
    },
    Suite {
        name: "architecture",
        covers: "allowed edges between rooms, the place of unsafe, file sizes, generated files up to date",
        cargo: &["test", "--workspace", "--test", "architecture"],
        needs: Needs::Nothing,
    },
    Suite {
        name: "unit",
        covers: "every crate by itself: tables, properties, golden vectors, journal, protocol",
        cargo: &[
            "test",
            "--workspace",
            "--no-fail-fast",
            "--exclude=requiem-tests",
            "--exclude=requiem-cas",
            "--exclude=requiem-sandbox",
        ],
        needs: Needs::Sandbox,
    },
    Suite {
        name: "store",
        covers: "the store on this machine's file system: crashes, full disks, corruption, concurrency, hostile trees",
        cargo: &["test", "--package", "requiem-cas", "--no-fail-fast"],
        needs: Needs::Sandbox,
    },
    Suite {
        name: "kernel",
        covers: "every layer of the sandbox on this machine's kernel: attacks bare, sandboxed, and with the layer off",
        cargo: &["test", "--package", "requiem-sandbox", "--no-fail-fast"],
        needs: Needs::Sandbox,
    },
    Suite {
        name: "verifier",
        covers: "a verifier in another language agrees on every vector, bundle and attack; signatures judged by programs of others",
        cargo: &["test", "--workspace", "--test", "verifier", "--no-fail-fast"],
        needs: Needs::Verifiers,
    },
    Suite {
        name: "images",
        covers: "what images hold is linked statically, holds no path of its maker, and is the same when built elsewhere",
        cargo: &["test", "--workspace", "--test", "images", "--no-fail-fast"],
        needs: Needs::Nothing,
    },
    Suite {
        name: "schema",
        covers: "every manifest of chart and kustomize fits the types of Kubernetes 1.33 to 1.36; clusters show 1.37",
        cargo: &["test", "--workspace", "--test", "schema", "--no-fail-fast"],
        needs: Needs::Judges,
    },
    Suite {
        name: "api",
        covers: "the definitions on a real API server: immutability, fenced status, defaults, roles; the operator on it",
        cargo: &["test", "--workspace", "--test", "api", "--test", "api_operator", "--no-fail-fast"],
        needs: Needs::Cluster,
    },
    Suite {
        name: "chart",
        covers: "the Helm chart: linted, closed values, equal to config/default, taken by a real API server in every shape",
        cargo: &["test", "--workspace", "--test", "chart", "--no-fail-fast"],
        needs: Needs::Cluster,
    },
    Suite {
        name: "e2e",
        covers: "Executions applied to a real API server, run by a real executor: every way to end, every refusal",
        cargo: &["test", "--workspace", "--test", "e2e", "--no-fail-fast"],
        needs: Needs::Cluster,
    },
    Suite {
        name: "monitoring",
        covers: "a real Prometheus scrapes operator and executor under load: dashboard, alerts, kube-state-metrics' configuration",
        cargo: &["test", "--workspace", "--test", "monitoring", "--no-fail-fast"],
        needs: Needs::Monitoring,
    },
    Suite {
        name: "fault",
        covers: "SIGKILL of operator and executor while 200 Executions run: nothing lost, nothing run to a second result",
        cargo: &["test", "--workspace", "--test", "fault", "--no-fail-fast"],
        needs: Needs::Cluster,
    },
    Suite {
        name: "pods",
        covers: "real kubelets: pools of pods and pods of single Executions, images, nodes that are disturbed, and nothing left",
        // Most of the time is spent waiting for kubelets, so more tests than processors run side by side.
        cargo: &["test", "--workspace", "--test", "pods", "--no-fail-fast", "--", "--test-threads=4"],
        needs: Needs::Nodes,
    },
    Suite {
        name: "install",
        covers: "the chart on a real node, as a user has it: install, work, test, upgrade under load, rollback, uninstall",
        cargo: &["test", "--workspace", "--test", "install", "--no-fail-fast"],
        needs: Needs::Nodes,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_target_belongs_to_a_suite() {
        let manifest = std::fs::read_to_string(crate::paths::repository().join("tests/Cargo.toml")).unwrap();
        let targets = manifest.split("[[test]]").skip(1).filter_map(|section| {
            section.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        });
        for target in targets {
            assert!(SUITES.iter().any(|suite| suite.cargo.contains(&target)), "{target} is in no suite");
        }
    }

    #[test]
    fn suites_have_distinct_names() {
        let names: std::collections::BTreeSet<_> = SUITES.iter().map(|suite| suite.name).collect();
        assert_eq!(names.len(), SUITES.len());
    }
}
