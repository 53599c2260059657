//! From findings to the report. A row comes from what was seen of its layer and from nothing else; the policy
//! only says what was asked for.

use requiem_model::report::{
    Evidence, LayerReport, SandboxReport, Scope, Source, SourceReport, SourceState, Status,
};
use requiem_model::{Layer, Requirement, SandboxPolicy};

use crate::finding::{Finding, Journal};

/// Longest mechanism and detail that a proof document takes, in bytes.
const MAX_MECHANISM: usize = 128;
const MAX_DETAIL: usize = 1024;

/// The report of a run whose payload is ready to start. `fixed` are sources that were seen to be the same in every run,
/// `undisclosed` those that depend on values which the proof will not hold.
pub(crate) fn fold(
    policy: &SandboxPolicy,
    seen: &Journal,
    fixed: &[Source],
    undisclosed: &[Source],
) -> SandboxReport {
    let state = |source| match () {
        () if undisclosed.contains(&source) => SourceState::Undisclosed,
        () if fixed.contains(&source) => SourceState::Fixed,
        () => SourceState::Real,
    };
    SandboxReport {
        layers: Layer::ALL
            .into_iter()
            .map(|layer| row(layer, policy.requirement(layer), seen.of(layer)))
            .collect(),
        sources: Source::ALL
            .into_iter()
            .map(|source| SourceReport { source, state: state(source) })
            .collect(),
    }
}

/// The first required layer that is not in force, and why. What somebody outside sees to is in force, and the row says
/// who.
pub(crate) fn refusal(report: &SandboxReport) -> Option<(Layer, String)> {
    let row = report.layers.iter().find(|row| {
        let in_force = matches!(row.status, Status::Enforced | Status::Delegated);
        row.requested == Requirement::Required && !in_force
    })?;
    Some((row.layer, row.detail.clone().unwrap_or_else(|| "it is not enforced".to_owned())))
}

fn row(layer: Layer, requested: Requirement, seen: Option<&Finding>) -> LayerReport {
    let short = |status, mechanism: &str, evidence, detail: &str| {
        let (mechanism, detail) = (tidy(mechanism, MAX_MECHANISM), tidy(detail, MAX_DETAIL));
        LayerReport::short_of(layer, requested, status, mechanism, evidence, detail)
    };
    match (requested, seen) {
        (Requirement::Off, _) => {
            short(Status::Disabled, "none", Evidence::None, "switched off by the policy")
        }
        (_, Some(Finding::InForce { witness, mechanism })) => {
            LayerReport::enforced(layer, requested, tidy(mechanism, MAX_MECHANISM), (*witness).into())
        }
        (_, Some(Finding::Short { mechanism, evidence, detail })) => {
            short(Status::Partial, mechanism, *evidence, detail)
        }
        (_, Some(Finding::Delegated { mechanism, detail })) => LayerReport {
            scope: Scope::Pod,
            ..short(Status::Delegated, mechanism, Evidence::AssertedByOuter, detail)
        },
        (_, Some(Finding::Impossible { mechanism, detail })) => {
            short(Status::Unsupported, mechanism, Evidence::None, detail)
        }
        (_, None) => short(Status::Unsupported, "none", Evidence::None, "nothing was seen of it"),
    }
}

/// `text` without control characters and at most `limit` bytes long.
fn tidy(text: &str, limit: usize) -> String {
    let mut kept = String::new();
    for character in text.chars().map(|character| if character.is_control() { ' ' } else { character }) {
        if kept.len() + character.len_utf8() > limit {
            break;
        }
        kept.push(character);
    }
    if kept.is_empty() { "unnamed".to_owned() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_is_nothing_enforced() {
        let report = fold(&SandboxPolicy::default(), &Journal::default(), &[], &[]);
        assert_eq!(report.layers.len(), Layer::ALL.len());
        assert!(report.layers.iter().all(|row| row.status == Status::Unsupported && row.detail.is_some()));
        assert!(report.sources.iter().all(|row| row.state == SourceState::Real));
        assert_eq!(refusal(&report).unwrap().0, Layer::ALL[0]);
    }

    #[test]
    fn a_layer_that_is_off_is_disabled_whatever_was_seen() {
        let mut seen = Journal::default();
        seen.note(Layer::Seccomp, Finding::probed("seccomp"));
        let policy = SandboxPolicy::default().with(Layer::Seccomp, Requirement::Off);
        let report = fold(&policy, &seen, &[], &[]);
        assert_eq!(report.layer(Layer::Seccomp).unwrap().status, Status::Disabled);
    }

    #[test]
    fn what_depends_on_values_from_elsewhere_is_never_fixed() {
        let source = [Source::Environment];
        let report = fold(&SandboxPolicy::default(), &Journal::default(), &source, &source);
        assert_eq!(report.source(Source::Environment), SourceState::Undisclosed);
    }

    #[test]
    fn only_a_required_layer_refuses() {
        let mut seen = Journal::default();
        for layer in Layer::ALL {
            seen.note(layer, Finding::read_back("test"));
        }
        assert_eq!(refusal(&fold(&SandboxPolicy::default(), &seen, &[], &[])), None);
        seen.note(Layer::Cgroup, Finding::impossible("cgroup", "read-only"));
        let refused = refusal(&fold(&SandboxPolicy::default(), &seen, &[], &[]));
        assert_eq!(refused, Some((Layer::Cgroup, "read-only".to_owned())));
        let policy = SandboxPolicy::default().with(Layer::Cgroup, Requirement::Preferred);
        assert_eq!(refusal(&fold(&policy, &seen, &[], &[])), None);
        seen.substitute(Layer::Cgroup, Finding::delegated("pod", "limited by the pod"));
        let report = fold(&SandboxPolicy::default(), &seen, &[], &[]);
        assert_eq!(refusal(&report), None, "somebody sees to it");
        let row = report.layer(Layer::Cgroup).unwrap();
        assert_eq!((row.status, row.scope), (Status::Delegated, Scope::Pod));
    }

    #[test]
    fn texts_keep_to_the_document_s_bounds() {
        assert_eq!(tidy("a\nb", 10), "a b");
        assert_eq!(tidy("ééé", 5), "éé");
        assert_eq!(tidy("", 5), "unnamed");
    }
}
