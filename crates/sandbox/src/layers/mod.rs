//! The layers: how each is applied and how each is proven from inside.

pub(crate) mod cgroup;
pub(crate) mod descriptors;
pub(crate) mod inputs;
pub(crate) mod landlock;
pub(crate) mod namespaces;
pub(crate) mod network;
pub(crate) mod owner;
pub(crate) mod privileges;
pub(crate) mod procfs;
pub(crate) mod rlimits;
pub(crate) mod root;
pub(crate) mod scratch;
pub(crate) mod seccomp;
