//! Who keeps an object as a file says, and so creates it again when it is gone. Pure, by the marks that these tools
//! put on what they apply.

use kube::api::ObjectMeta;

use crate::Execution;
use crate::execution::CacheMode;

/// A tool that creates again what is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// Flux: kustomize-controller or helm-controller.
    Flux,
    /// Argo CD.
    ArgoCd,
    /// Helm.
    Helm,
}

/// Marks that have any value: the label or annotation is enough.
const LABELS: [(&str, Keeper); 4] = [
    ("kustomize.toolkit.fluxcd.io/name", Keeper::Flux),
    ("helm.toolkit.fluxcd.io/name", Keeper::Flux),
    ("argocd.argoproj.io/instance", Keeper::ArgoCd),
    // Argo CD's own choice before version 3.
    ("app.kubernetes.io/instance", Keeper::ArgoCd),
];
const ANNOTATIONS: [(&str, Keeper); 5] = [
    ("argocd.argoproj.io/tracking-id", Keeper::ArgoCd),
    // A hook is not tracked, and is read until it is healthy.
    ("argocd.argoproj.io/hook", Keeper::ArgoCd),
    ("meta.helm.sh/release-name", Keeper::Helm),
    ("helm.sh/hook", Keeper::Helm),
    ("helm.sh/resource-policy", Keeper::Helm),
];

/// Who keeps the object with this metadata, if anybody says so.
pub fn of(meta: &ObjectMeta) -> Option<Keeper> {
    let (labels, annotations) = (meta.labels.as_ref(), meta.annotations.as_ref());
    let managed = labels.and_then(|labels| labels.get("app.kubernetes.io/managed-by"));
    let by_annotation =
        ANNOTATIONS.iter().find(|(name, _)| annotations.is_some_and(|a| a.contains_key(*name)));
    // A Helm release may carry the label that Argo CD once took for its own: the more telling mark first.
    if managed.is_some_and(|by| by == "Helm") {
        return Some(Keeper::Helm);
    }
    let by_label = LABELS.iter().find(|(name, _)| labels.is_some_and(|l| l.contains_key(*name)));
    by_annotation.or(by_label).map(|(_, keeper)| *keeper)
}

/// Whether an earlier result may answer `object`. What a GitOps tool creates again is the same wish, not a new one. Values
/// that a Secret holds may have changed, which no digest tells: then nothing answers.
pub fn cache_mode(object: &Execution) -> CacheMode {
    if object.spec.env.iter().any(|var| var.value_from.is_some()) {
        return CacheMode::Never;
    }
    // What is answered does not run, and so cannot be replayed: who asks for replays asks for a run.
    let default = || match object.spec.replay {
        Some(_) => CacheMode::Never,
        None => kept(object),
    };
    object.spec.cache.unwrap_or_else(default)
}

fn kept(object: &Execution) -> CacheMode {
    of(&object.metadata).map_or(CacheMode::Never, |_kept_by_a_tool| CacheMode::Use)
}

impl Keeper {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flux => "Flux",
            Self::ArgoCd => "Argo CD",
            Self::Helm => "Helm",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(label: Option<(&str, &str)>, annotation: Option<&str>) -> Option<Keeper> {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        of(&ObjectMeta {
            labels: label.map(|label| [pair(label)].into()),
            annotations: annotation.map(|name| [pair((name, "x"))].into()),
            ..ObjectMeta::default()
        })
    }

    #[test]
    fn each_mark_is_known() {
        assert_eq!(with(None, None), None);
        assert_eq!(with(Some(("app", "x")), Some("a.b/c")), None);
        assert_eq!(with(Some(("app.kubernetes.io/managed-by", "kubectl")), None), None);
        assert_eq!(with(Some(("app.kubernetes.io/managed-by", "Helm")), None), Some(Keeper::Helm));
        for (label, keeper) in LABELS {
            assert_eq!(with(Some((label, "x")), None), Some(keeper), "{label}");
        }
        for (annotation, keeper) in ANNOTATIONS {
            assert_eq!(with(None, Some(annotation)), Some(keeper), "{annotation}");
        }
    }
}
