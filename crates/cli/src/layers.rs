//! What each layer of the sandbox does, how it is proven and what it needs: the one table, which docs/reference/layers.md shows too.

use std::fmt::Write as _;

use requiem_model::Layer;

/// One layer, for people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub(crate) layer: Layer,
    /// What it keeps the payload from.
    pub(crate) does: &'static str,
    /// What is done, from inside the finished sandbox, before the payload starts.
    pub(crate) proof: &'static str,
    /// What the machine must have.
    pub(crate) needs: &'static str,
}

const USER: &str = "user namespaces for this user: user.max_user_namespaces above 0, and neither AppArmor \
(kernel.apparmor_restrict_unprivileged_userns) nor the seccomp filter of a container against them";
const NAMESPACE: &str = "userNamespace, or CAP_SYS_ADMIN";

/// Every layer, in the order of reports.
pub(crate) const LAYERS: [About; 18] = [
    about(
        Layer::UserNamespace,
        "User and group ids of the payload mean nothing outside; on the host it is nobody.",
        "The namespace is another one than the host's and the runner's.",
        USER,
    ),
    about(
        Layer::PidNamespace,
        "Processes outside can be neither seen nor signalled, and every process of the run ends with it.",
        "The namespace is another one than the host's and the runner's.",
        NAMESPACE,
    ),
    about(
        Layer::MountNamespace,
        "Mounts of the run are nobody else's, and go with it.",
        "The namespace is another one than the host's and the runner's.",
        NAMESPACE,
    ),
    about(
        Layer::NetworkNamespace,
        "There is no network but the run's own loopback.",
        "There is no other interface, and an address elsewhere cannot be reached.",
        NAMESPACE,
    ),
    about(
        Layer::IpcNamespace,
        "Shared memory, semaphores and message queues are the run's own.",
        "The namespace is another one than the host's and the runner's.",
        NAMESPACE,
    ),
    about(
        Layer::UtsNamespace,
        "The host name is a fixed one.",
        "The namespace is another one, and the name is read.",
        NAMESPACE,
    ),
    about(
        Layer::CgroupNamespace,
        "The path of the run's cgroup on the host cannot be read.",
        "The namespace is another one, and every cgroup that is seen is a root.",
        NAMESPACE,
    ),
    about(
        Layer::MinimalRoot,
        "The root is a small tree with read-only system folders; that of the host is gone.",
        "Writes to it are tried, and the host's root is looked for.",
        "mountNamespace",
    ),
    about(
        Layer::ReadOnlyInputs,
        "Inputs cannot be changed, and the mounts that see to it cannot be lifted.",
        "A write is tried, and lifting the flag with every capability of the namespace.",
        "mountNamespace; without it the payload has copies",
    ),
    about(
        Layer::Scratch,
        "Workspace and /tmp are in memory, with a limit on bytes and on files.",
        "Kind and limits are read back from the file system.",
        "mountNamespace",
    ),
    about(
        Layer::Procfs,
        "/proc shows the processes of the run and no others.",
        "It is listed.",
        "pidNamespace and mountNamespace; in a pod also procMount: Unmasked",
    ),
    about(
        Layer::NoNewPrivileges,
        "No program, set-id or not, can raise privileges.",
        "The flag is read back.",
        "nothing but Linux",
    ),
    about(
        Layer::Capabilities,
        "Every set of capabilities is empty, and stays so.",
        "All sets and the secure bits are read back.",
        "CAP_SETPCAP to lock the secure bits, which userNamespace gives",
    ),
    about(
        Layer::Rlimits,
        "Open files, core dumps, locked memory and the like are limited per process.",
        "Every limit is read back.",
        "nothing but Linux",
    ),
    about(
        Layer::Cgroup,
        "Memory and number of processes of the whole run are limited.",
        "The limits are read back, and the run's first process is found inside.",
        "a cgroup that this user may divide: version 2 with memory and pids delegated, or version 1 as root",
    ),
    about(
        Layer::Landlock,
        "Files outside the run's folders cannot be used, whatever mounts and modes allow; nor signals and abstract sockets.",
        "A file that modes allow and no rule covers is opened in vain.",
        "Landlock of ABI 7 (Linux 6.15) in the kernel's list of security modules; less of it is partial",
    ),
    about(
        Layer::Seccomp,
        "Only system calls of a list are taken; those of foreign ABIs kill.",
        "The mode is read back, and a call that is closed is tried.",
        "x86-64 or AArch64, and a kernel with seccomp filters",
    ),
    about(
        Layer::Descriptors,
        "The payload has the descriptors 0, 1 and 2, and no other.",
        "Those that are open are listed.",
        "Linux 5.12",
    ),
];

const fn about(layer: Layer, does: &'static str, proof: &'static str, needs: &'static str) -> About {
    About { layer, does, proof, needs }
}

/// The row of a layer.
pub(crate) fn of(layer: Layer) -> Option<&'static About> {
    LAYERS.iter().find(|row| row.layer == layer)
}

/// docs/reference/layers.md.
pub(crate) fn markdown() -> String {
    let mut page = "<!-- Generated by `cargo xtask generate` from crates/cli/src/layers.rs. Do not edit. -->\n\
        # Layers of the sandbox\n\n\
        A layer is `required`, `preferred` or `off`. It is `enforced` only if what stands in the third column was seen from inside the finished \
        sandbox, before the payload started. What a machine can enforce, and why not more: `requiem sandbox probe`; in pods: \
        [pod tiers](../pod-tiers.md).\n\n\
        | layer | what it does | how it is proven | what it needs |\n|---|---|---|---|\n"
        .to_owned();
    for About { layer, does, proof, needs } in &LAYERS {
        // Writing to a String cannot fail.
        let _infallible = writeln!(page, "| `{layer}` | {does} | {proof} | {needs} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_has_its_row() {
        assert_eq!(LAYERS.map(|row| row.layer), Layer::ALL);
        for row in &LAYERS {
            assert!(row.does.ends_with('.') && row.proof.ends_with('.') && !row.needs.is_empty(), "{row:?}");
        }
        assert_eq!(of(Layer::Seccomp).unwrap().layer, Layer::Seccomp);
    }
}
