//! What was seen of one layer, as the processes of a run tell each other. The report is a fold over findings.

use std::collections::BTreeMap;

use requiem_model::Layer;
use requiem_model::report::{Evidence, Proof};
use serde::{Deserialize, Serialize};

/// How a layer in force was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Witness {
    /// A forbidden act was tried and refused.
    Probe,
    /// The kernel's account of the state was read.
    Readback,
}

impl From<Witness> for Proof {
    fn from(witness: Witness) -> Self {
        match witness {
            Witness::Probe => Self::Probe,
            Witness::Readback => Self::Readback,
        }
    }
}

/// What was seen of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Finding {
    /// In force.
    InForce {
        /// How it was seen.
        witness: Witness,
        /// By what it is enforced.
        mechanism: String,
    },
    /// In force in part, or set up without being shown to hold.
    Short {
        /// By what it should be enforced.
        mechanism: String,
        /// What was seen after all.
        evidence: Evidence,
        /// What is missing.
        detail: String,
    },
    /// In force for more than the run, by somebody outside who vouches for it.
    Delegated {
        /// Who, and by what.
        mechanism: String,
        /// What exactly.
        detail: String,
    },
    /// This host, or this combination of layers, cannot.
    Impossible {
        /// By what it would be enforced.
        mechanism: String,
        /// Why not.
        detail: String,
    },
}

impl Finding {
    /// In force: a forbidden act was refused.
    pub(crate) fn probed(mechanism: impl Into<String>) -> Self {
        Self::InForce { witness: Witness::Probe, mechanism: mechanism.into() }
    }

    /// In force: the kernel says so.
    pub(crate) fn read_back(mechanism: impl Into<String>) -> Self {
        Self::InForce { witness: Witness::Readback, mechanism: mechanism.into() }
    }

    /// Not wholly in force.
    pub(crate) fn short(mechanism: impl Into<String>, evidence: Evidence, detail: impl Into<String>) -> Self {
        Self::Short { mechanism: mechanism.into(), evidence, detail: detail.into() }
    }

    /// Somebody outside sees to it.
    pub(crate) fn delegated(mechanism: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Delegated { mechanism: mechanism.into(), detail: detail.into() }
    }

    /// Not to be had.
    pub(crate) fn impossible(mechanism: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Impossible { mechanism: mechanism.into(), detail: detail.into() }
    }
}

/// The findings of one run so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(BTreeMap<Layer, Finding>);

impl Journal {
    /// Notes what was seen of `layer`. What has once been found wanting stays so: a later step cannot know
    /// better than the one that failed.
    pub(crate) fn note(&mut self, layer: Layer, finding: Finding) {
        match self.0.get(&layer) {
            Some(Finding::Short { .. } | Finding::Impossible { .. } | Finding::Delegated { .. }) => {}
            Some(Finding::InForce { .. }) | None => {
                self.0.insert(layer, finding);
            }
        }
    }

    /// Notes what stands in for `layer`, which cannot be had: the one way in which more is known later.
    pub(crate) fn substitute(&mut self, layer: Layer, finding: Finding) {
        if matches!(self.0.get(&layer), Some(Finding::Impossible { .. })) {
            self.0.insert(layer, finding);
        }
    }

    /// Whether `layer` was found wanting, so that nothing may build on it.
    pub(crate) fn lacks(&self, layer: Layer) -> bool {
        matches!(self.0.get(&layer), Some(finding) if !matches!(finding, Finding::InForce { .. }))
    }

    /// What was seen of `layer`.
    pub(crate) fn of(&self, layer: Layer) -> Option<&Finding> {
        self.0.get(&layer)
    }

    /// Everything, for the way to another process.
    pub(crate) fn into_vec(self) -> Vec<(Layer, Finding)> {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_not_made_good_by_a_later_success() {
        let mut journal = Journal::default();
        journal.note(Layer::Scratch, Finding::impossible("tmpfs", "no"));
        journal.note(Layer::Scratch, Finding::read_back("tmpfs"));
        assert!(journal.lacks(Layer::Scratch));
        journal.note(Layer::Procfs, Finding::read_back("procfs"));
        journal.note(Layer::Procfs, Finding::impossible("procfs", "gone"));
        assert!(journal.lacks(Layer::Procfs));
        journal.substitute(Layer::Procfs, Finding::delegated("pod", "somebody"));
        assert!(journal.lacks(Layer::Procfs), "what others do is not ours");
        journal.substitute(Layer::Seccomp, Finding::delegated("pod", "somebody"));
        assert_eq!(journal.of(Layer::Seccomp), None, "nothing stands in for what has not failed");
    }
}
