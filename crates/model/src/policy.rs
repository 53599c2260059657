//! What isolation is asked for: layers with requirement levels, and limits with units.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::{PolicyDigest, context, derive};
use crate::{CanonError, canon};

/// One layer of the sandbox. The order of the variants is the order of reports, not of application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Layer {
    /// Own user namespace; the payload's ids mean nothing outside.
    UserNamespace,
    /// Own process-id namespace; nothing outside can be seen or signalled.
    PidNamespace,
    /// Own mount table.
    MountNamespace,
    /// Own network stack without any interface but loopback.
    NetworkNamespace,
    /// Own System V IPC and POSIX message queues.
    IpcNamespace,
    /// Own host name.
    UtsNamespace,
    /// Own view of the cgroup tree.
    CgroupNamespace,
    /// `pivot_root` onto a minimal tree with read-only system folders; the old root is gone.
    MinimalRoot,
    /// Inputs are mounts that refuse writes, and the refusal cannot be lifted from inside.
    ReadOnlyInputs,
    /// Workspace and /tmp are memory file systems with byte and inode caps.
    Scratch,
    /// A /proc of the own process-id namespace.
    Procfs,
    /// `no_new_privs`: no set-id program can raise privileges.
    NoNewPrivileges,
    /// Every capability set is empty, bounding set included.
    Capabilities,
    /// POSIX resource limits.
    Rlimits,
    /// cgroup limits on memory and processes of the whole tree.
    Cgroup,
    /// Landlock: file access by path hierarchy.
    Landlock,
    /// seccomp allow-list of system calls; foreign ABIs closed.
    Seccomp,
    /// Only descriptors 0, 1 and 2 are open at exec.
    Descriptors,
}

impl Layer {
    /// Every layer, in report order.
    pub const ALL: [Self; 18] = [
        Self::UserNamespace,
        Self::PidNamespace,
        Self::MountNamespace,
        Self::NetworkNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::CgroupNamespace,
        Self::MinimalRoot,
        Self::ReadOnlyInputs,
        Self::Scratch,
        Self::Procfs,
        Self::NoNewPrivileges,
        Self::Capabilities,
        Self::Rlimits,
        Self::Cgroup,
        Self::Landlock,
        Self::Seccomp,
        Self::Descriptors,
    ];

    /// The name used in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserNamespace => "userNamespace",
            Self::PidNamespace => "pidNamespace",
            Self::MountNamespace => "mountNamespace",
            Self::NetworkNamespace => "networkNamespace",
            Self::IpcNamespace => "ipcNamespace",
            Self::UtsNamespace => "utsNamespace",
            Self::CgroupNamespace => "cgroupNamespace",
            Self::MinimalRoot => "minimalRoot",
            Self::ReadOnlyInputs => "readOnlyInputs",
            Self::Scratch => "scratch",
            Self::Procfs => "procfs",
            Self::NoNewPrivileges => "noNewPrivileges",
            Self::Capabilities => "capabilities",
            Self::Rlimits => "rlimits",
            Self::Cgroup => "cgroup",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Descriptors => "descriptors",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// How much a layer is wanted. The order is by strictness, so `max` of two is the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Requirement {
    /// Do not apply the layer.
    Off,
    /// Apply it where the host can; say so where it cannot.
    Preferred,
    /// Without it the run does not start.
    #[default]
    Required,
}

/// The effective policy of one run: every layer has a level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SandboxPolicy {
    /// Level per layer; complete after defaulting.
    #[serde(deserialize_with = "complete")]
    pub layers: BTreeMap<Layer, Requirement>,
}

/// A document may leave layers out: they are required.
fn complete<'de, D: serde::Deserializer<'de>>(input: D) -> Result<BTreeMap<Layer, Requirement>, D::Error> {
    let given = BTreeMap::<Layer, Requirement>::deserialize(input)?;
    let mut layers = SandboxPolicy::default().layers;
    layers.extend(given);
    Ok(layers)
}

impl Default for SandboxPolicy {
    fn default() -> Self {
        Self { layers: Layer::ALL.into_iter().map(|layer| (layer, Requirement::Required)).collect() }
    }
}

impl SandboxPolicy {
    /// The level of `layer`.
    pub fn requirement(&self, layer: Layer) -> Requirement {
        self.layers.get(&layer).copied().unwrap_or_default()
    }

    /// The default policy with one layer changed.
    #[must_use]
    pub fn with(mut self, layer: Layer, requirement: Requirement) -> Self {
        self.layers.insert(layer, requirement);
        self
    }

    /// Digest of the canonical form.
    ///
    /// # Errors
    /// Never for a policy made by this crate; the type of [`canon::to_vec`] is passed on.
    pub fn digest(&self) -> Result<PolicyDigest, CanonError> {
        Ok(PolicyDigest::from_bytes(derive(context::POLICY, &[&canon::to_vec(self)?])))
    }
}

/// Bounds on what one run may use. Every value is finite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock limit in milliseconds; the whole tree is killed when it is reached.
    pub timeout_ms: u64,
    /// Captured bytes per stream; the rest is read and dropped, and the stream is marked truncated.
    pub max_output_bytes: u64,
    /// Memory of the whole tree in bytes, scratch included.
    pub memory_bytes: u64,
    /// Processes and threads of the whole tree.
    pub pids: u64,
    /// Bytes that workspace and /tmp together may hold.
    pub scratch_bytes: u64,
    /// Files and folders that workspace and /tmp together may hold.
    pub scratch_inodes: u64,
    /// Open files per process.
    pub open_files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            timeout_ms: 300_000,
            max_output_bytes: 4 * MIB,
            memory_bytes: 1024 * MIB,
            pids: 256,
            scratch_bytes: 512 * MIB,
            scratch_inodes: 100_000,
            open_files: 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_names_are_the_serialised_names() {
        for layer in Layer::ALL {
            assert_eq!(serde_json::to_value(layer).unwrap(), layer.name());
        }
    }

    #[test]
    fn a_layer_that_a_document_leaves_out_is_required() {
        let policy: SandboxPolicy = serde_json::from_str(r#"{"layers":{"cgroup":"off"}}"#).unwrap();
        assert_eq!(policy.requirement(Layer::Cgroup), Requirement::Off);
        assert_eq!(policy.requirement(Layer::Seccomp), Requirement::Required);
        assert_eq!(policy.layers.len(), Layer::ALL.len());
    }

    #[test]
    fn the_stricter_requirement_is_the_greater() {
        assert_eq!(Requirement::Preferred.max(Requirement::Required), Requirement::Required);
        assert_eq!(Requirement::Off.max(Requirement::Preferred), Requirement::Preferred);
    }
}
