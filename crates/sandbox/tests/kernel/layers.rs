//! Each layer off in turn: the report says exactly what is missing then, and so does the world inside.

use crate::support::*;
use requiem_model::report::{Evidence, Status};
use requiem_model::{Layer, Requirement};
use requiem_sandbox::{RunError, RunSpec};

/// Layers that cannot be had without `layer`.
fn dependents(layer: Layer) -> &'static [Layer] {
    match layer {
        Layer::PidNamespace => &[Layer::Procfs],
        Layer::MountNamespace => &[Layer::ReadOnlyInputs, Layer::Scratch, Layer::Procfs],
        _ => &[],
    }
}

#[test]
fn a_layer_that_is_off_is_disabled_and_only_its_dependents_are_short() {
    for layer in Layer::ALL {
        let ran = run(RunSpec { policy: without(layer), ..sh("true") });
        assert_eq!(ran.end.outcome, SUCCESS, "{layer}: {}", ran.err());
        let mut expected = vec![(layer, Status::Disabled)];
        expected.extend(dependents(layer).iter().map(|other| (*other, Status::Unsupported)));
        let mut short = ran.short();
        expected.sort();
        short.sort();
        assert_eq!(short, expected, "{layer}\n{}", table(&ran.end.report));
        assert_eq!(ran.row(layer).evidence, Evidence::None);
        assert!(
            ran.end.report.layers.iter().all(|row| row.status == Status::Enforced || row.detail.is_some())
        );
    }
}

#[test]
fn everything_off_still_runs() {
    let policy = Layer::ALL.into_iter().fold(lenient(), |policy, layer| policy.with(layer, Requirement::Off));
    let ran = run(RunSpec { policy, ..sh("echo hello > f; cat f") });
    assert_eq!(ran.out(), "hello", "{}", ran.err());
    assert!(ran.end.report.layers.iter().all(|row| row.status == Status::Disabled));
}

/// The twins: what a layer forbids is there without it.
#[test]
fn a_layer_that_is_off_is_really_off() {
    let checks: [(Layer, &str, &str, &str); 10] = [
        (Layer::PidNamespace, "[ $$ = 2 ] && echo in || echo out", "in", "out"),
        (Layer::UtsNamespace, "[ $(hostname) = requiem ] && echo in || echo out", "in", "out"),
        (Layer::MinimalRoot, "[ -e /sys ] && echo out || echo in", "in", "out"),
        (Layer::Procfs, "[ -e /proc/self ] && echo in || echo out", "in", "out"),
        (Layer::Landlock, "cat /.requiem/canary >/dev/null 2>&1 && echo out || echo in", "in", "out"),
        (Layer::Seccomp, "grep -q 'Seccomp:.2' /proc/self/status && echo in || echo out", "in", "out"),
        (
            Layer::Capabilities,
            "grep -q 'CapBnd:.0000000000000000' /proc/self/status && echo in || echo out",
            "in",
            "out",
        ),
        (
            Layer::Rlimits,
            "[ $(ulimit -c) = 0 ] && [ $(ulimit -n) = 1024 ] && echo in || echo out",
            "in",
            "out",
        ),
        (Layer::NetworkNamespace, "[ $(wc -l < /proc/net/dev) = 3 ] && echo in || echo out", "in", "out"),
        (Layer::UserNamespace, "[ $(wc -l < /proc/self/uid_map) = 1 ] && echo in || echo out", "in", "out"),
    ];
    for (layer, script, with, without_it) in checks {
        assert_eq!(ok(script).out(), with, "{layer}");
        let ran = run(RunSpec { policy: without(layer), ..sh(script) });
        assert_eq!(ran.out(), without_it, "{layer} off: {}", ran.err());
    }
}

#[test]
fn a_required_layer_whose_ground_is_off_refuses_the_run() {
    for layer in [Layer::PidNamespace, Layer::MountNamespace] {
        for dependent in dependents(layer) {
            let policy = without(layer).with(*dependent, Requirement::Required);
            match try_run(&RUNNER, RunSpec { policy, ..sh("echo must not run") }) {
                Err(RunError::Refused { layer: refused, why }) => {
                    assert_eq!(refused, *dependent);
                    assert!(!why.is_empty());
                }
                other => panic!("{dependent}: {:?}", other.map(|ran| ran.out())),
            }
        }
    }
}
