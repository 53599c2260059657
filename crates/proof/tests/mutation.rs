//! Any byte of body or roots changed, removed or added is refused; and each single fact is under a root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use common::{judge_file, judge_loosely, roots_of, sealed};
use requiem_proof::{BundleBody, Expect, leaves, verify};
use serde_json::Value;

/// Here there is none. The suite `verifier` has one, and includes this file.
#[allow(unused_imports, reason = "the including file has its own")]
pub(crate) use common::none as second_opinion;

/// Every so many mutations go to the second verifier.
const SAMPLE: usize = 23;

#[test]
fn any_changed_byte_of_the_body_is_refused() {
    let honest = sealed();
    let expect = roots_of(&honest);
    let bytes = honest.body.as_bytes();
    let mut tried = 0;
    for at in 0..bytes.len() {
        // Bit 5 makes other cases of letters, bit 0 other digits; every seventh byte also gets the rest.
        let bits: &[u8] = if at % 7 == 0 { &[1, 2, 4, 8, 16, 32, 64] } else { &[1, 32] };
        let flipped = bits.iter().map(|bit| {
            let mut forged = bytes.to_vec();
            forged[at] ^= bit;
            forged
        });
        let mut removed = bytes.to_vec();
        removed.remove(at);
        for forged in flipped.chain([removed]) {
            // What is no text cannot be handed in.
            let Ok(text) = String::from_utf8(forged) else { continue };
            // Each is judged here, a sample of them by the second verifier too.
            let verdict =
                if tried % SAMPLE == 0 { judge_loosely(&text, &expect) } else { verify(&text, &expect) };
            assert!(verdict.is_err(), "byte {at} is not covered: {text}");
            tried += 1;
        }
    }
    assert!(tried > 3 * bytes.len(), "{tried} of {} bytes", bytes.len());
}

#[test]
fn any_changed_byte_of_a_root_is_refused() {
    let honest = sealed();
    for root in [honest.execution_root.to_string(), honest.bundle_root.to_string()] {
        for at in 0..root.len() {
            let mut forged = root.clone().into_bytes();
            forged[at] ^= 1;
            let file = honest.to_file().unwrap().replace(&root, &String::from_utf8(forged).unwrap());
            assert_ne!(judge_file(file.as_bytes()), "ok", "byte {at} of {root}");
        }
    }
}

/// Paths to every number, text and truth value of the body.
fn scalars(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                scalars(member, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                scalars(item, &format!("{at}/{index}"), found);
            }
        }
        _ => found.push(at.to_owned()),
    }
}

/// Other values that a scalar might take and still fit its type.
fn others(value: &Value) -> Vec<Value> {
    const NAMES: [&str; 18] = [
        "off",
        "preferred",
        "required",
        "probe",
        "none",
        "enforced",
        "partial",
        "delegated",
        "pod",
        "node",
        "fixed",
        "real",
        "best_effort",
        "high",
        "procfs",
        "seccomp",
        "clock",
        "network",
    ];
    match value {
        Value::Bool(flag) => vec![Value::Bool(!flag)],
        Value::Number(number) => vec![Value::from(number.as_u64().unwrap() ^ 1)],
        Value::String(text) => {
            let mut all = Vec::new();
            if text.starts_with("blake3:") {
                let last = if text.ends_with('0') { "1" } else { "0" };
                all.push(Value::from(format!("{}{last}", &text[..text.len() - 1])));
            }
            all.extend(NAMES.iter().filter(|name| *name != text).map(|name| Value::from(*name)));
            all.push(Value::from(format!("{text}x")));
            all
        }
        other => panic!("{other} is not a scalar"),
    }
}

#[test]
fn each_single_fact_is_under_its_root() {
    let body = common::body();
    let honest = leaves::roots(&body).unwrap();
    let document = serde_json::to_value(&body).unwrap();
    let mut paths = Vec::new();
    scalars(&document, "", &mut paths);
    let mut changed = 0;
    for path in paths {
        let variants = others(document.pointer(&path).unwrap());
        let mut fitting = variants.into_iter().filter_map(|other| {
            let mut forged = document.clone();
            *forged.pointer_mut(&path).unwrap() = other;
            serde_json::from_value::<BundleBody>(forged).ok()
        });
        let Some(forged) = fitting.find(|forged| *forged != body) else {
            // A tag of an enum decides about its other members, so it cannot change alone.
            assert!(path.ends_with("/kind"), "{path} has no other value");
            continue;
        };
        // Rows of equal layers or sources make no tree at all, which is as good.
        let Ok(roots) = leaves::roots(&forged) else { continue };
        changed += 1;
        match path.as_str() {
            // The one fact that is under no root: verification admits a single value.
            "/schema" => assert_eq!(roots, honest),
            execution if execution.starts_with("/execution/") => {
                assert!(roots.execution != honest.execution && roots.bundle != honest.bundle, "{path}");
            }
            _ => assert!(roots.execution == honest.execution && roots.bundle != honest.bundle, "{path}"),
        }
    }
    assert!(changed > 150, "only {changed} facts could be changed");
}

#[test]
fn times_and_node_change_the_bundle_root_only() {
    let honest = sealed();
    let changes: [fn(&mut BundleBody); 4] = [
        |body| body.run.completed_at = "2026-11-22T23:00:00.000Z".into(),
        |body| body.run.executor.name = "executor-9".into(),
        |body| body.run.executor.kernel = "7.0".into(),
        |body| body.run.identity.uid = "another".into(),
    ];
    for change in changes {
        let mut other = common::body();
        change(&mut other);
        let other = requiem_proof::seal(&other).unwrap();
        assert_eq!(other.execution_root, honest.execution_root);
        assert_ne!(other.bundle_root, honest.bundle_root);
    }
}

#[test]
fn without_claimed_roots_a_changed_body_never_has_the_honest_roots() {
    let honest = sealed();
    let text = honest.body.as_str();
    for (at, _) in text.char_indices().filter(|(at, _)| at % 3 == 0) {
        let mut forged = text.as_bytes().to_vec();
        forged[at] ^= 1;
        let Ok(forged) = String::from_utf8(forged) else { continue };
        if let Ok(verified) = verify(&forged, &Expect::default()) {
            assert_ne!(verified.bundle_root, honest.bundle_root, "byte {at}");
        }
    }
}
