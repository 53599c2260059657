//! What isolation was really in force. A report is made by the sandbox from what it observed; no code
//! path makes one from a policy.

use serde::{Deserialize, Serialize};

use crate::policy::{Layer, Requirement};

/// How we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Evidence {
    /// A forbidden act was tried from inside the finished sandbox and was refused.
    Probe,
    /// The kernel's own account of the state was read back from inside.
    Readback,
    /// The system call that sets it up reported success.
    SyscallReturn,
    /// Somebody outside the sandbox vouches for it.
    AssertedByOuter,
    /// Nothing was observed.
    None,
}

/// Evidence that is strong enough for `enforced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// See [`Evidence::Probe`].
    Probe,
    /// See [`Evidence::Readback`].
    Readback,
}

/// How far a layer is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// In force, proven from inside.
    Enforced,
    /// In force in part, or in force without proof; the detail says which.
    Partial,
    /// Asked for; this host cannot.
    Unsupported,
    /// Somebody outside enforces it; the mechanism names who.
    Delegated,
    /// Not asked for.
    Disabled,
}

/// What a layer covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// The payload and all its descendants.
    ProcessTree,
    /// The pod around the executor.
    Pod,
    /// The node.
    Node,
}

/// One row of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerReport {
    /// The layer.
    pub layer: Layer,
    /// What was asked for.
    pub requested: Requirement,
    /// What is so.
    pub status: Status,
    /// By what, with its version where it has one: `landlock:abi7`, `cgroup:v1`.
    pub mechanism: String,
    /// For whom.
    pub scope: Scope,
    /// How we know.
    pub evidence: Evidence,
    /// What was seen, in words; always present when the status is not `enforced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl LayerReport {
    /// A layer in force, proven from inside. The type of `proof` admits nothing weaker.
    pub fn enforced(
        layer: Layer,
        requested: Requirement,
        mechanism: impl Into<String>,
        proof: Proof,
    ) -> Self {
        let evidence = match proof {
            Proof::Probe => Evidence::Probe,
            Proof::Readback => Evidence::Readback,
        };
        Self {
            layer,
            requested,
            status: Status::Enforced,
            mechanism: mechanism.into(),
            scope: Scope::ProcessTree,
            evidence,
            detail: None,
        }
    }

    /// A layer that is not (wholly) in force, with the reason.
    pub fn short_of(
        layer: Layer,
        requested: Requirement,
        status: Status,
        mechanism: impl Into<String>,
        evidence: Evidence,
        detail: impl Into<String>,
    ) -> Self {
        // `Enforced` is only to be had with a `Proof`.
        let status = if status == Status::Enforced { Status::Partial } else { status };
        Self {
            layer,
            requested,
            status,
            mechanism: mechanism.into(),
            scope: Scope::ProcessTree,
            evidence,
            detail: Some(detail.into()),
        }
    }
}

/// A source of differences between two runs of the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// Environment variables, locale and time zone.
    Environment,
    /// Host name, user and group ids, umask.
    Identity,
    /// Process ids as the payload sees them.
    ProcessIds,
    /// Address-space layout.
    AddressLayout,
    /// Times of staged inputs.
    InputTimes,
    /// System folders of the root file system.
    RootFilesystem,
    /// Every clock.
    Clock,
    /// getrandom, /dev/urandom, processor instructions.
    Randomness,
    /// Interleaving of threads and processes.
    Scheduling,
    /// Host facts readable below /proc.
    HostFacts,
    /// The network.
    Network,
}

impl Source {
    /// Every source, in report order.
    pub const ALL: [Self; 11] = [
        Self::Environment,
        Self::Identity,
        Self::ProcessIds,
        Self::AddressLayout,
        Self::InputTimes,
        Self::RootFilesystem,
        Self::Clock,
        Self::Randomness,
        Self::Scheduling,
        Self::HostFacts,
        Self::Network,
    ];
}

/// How a source of differences was treated in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceState {
    /// The same in every run, proven from inside.
    Fixed,
    /// As the host has it.
    Real,
    /// Nobody looked.
    Unprobed,
    /// Made by values that the request only refers to, so the proof does not hold them.
    Undisclosed,
}

/// One source and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceReport {
    /// The source.
    pub source: Source,
    /// Its state.
    pub state: SourceState,
}

/// The whole truth about one run's isolation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SandboxReport {
    /// One row per layer, in the order of [`Layer::ALL`].
    pub layers: Vec<LayerReport>,
    /// One row per source, in the order of [`Source::ALL`].
    pub sources: Vec<SourceReport>,
}

impl SandboxReport {
    /// The row of `layer`.
    pub fn layer(&self, layer: Layer) -> Option<&LayerReport> {
        self.layers.iter().find(|row| row.layer == layer)
    }

    /// The state of `source`; [`SourceState::Unprobed`] when the report is silent.
    pub fn source(&self, source: Source) -> SourceState {
        self.sources.iter().find(|row| row.source == source).map_or(SourceState::Unprobed, |row| row.state)
    }

    /// Names of the layers with `status`, in report order.
    pub fn names(&self, status: Status) -> Vec<&'static str> {
        self.layers.iter().filter(|row| row.status == status).map(|row| row.layer.name()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enforced_needs_proof() {
        let row = LayerReport::short_of(
            Layer::Seccomp,
            Requirement::Required,
            Status::Enforced,
            "seccomp",
            Evidence::SyscallReturn,
            "not read back",
        );
        assert_eq!(row.status, Status::Partial);
    }
}
