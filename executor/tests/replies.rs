//! Answers of engines, mutated from a committed corpus: nothing panics, and what is taken is of the one form. A long run is asked for as in
//! `crates/proof/tests/fuzz.rs`: `REQUIEM_FUZZ_SECONDS=600 cargo test -p requiem-executor --test replies -- --nocapture`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

#[path = "../../crates/proof/tests/common/fuzzing.rs"]
mod fuzzing;

use std::path::Path;

use requiem_executor::engine::EngineName;
use requiem_executor::engine::protocol::{Info, Ran, answer};

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/engine");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn answers_of_engines() {
    fuzzing::fuzz("engine", &corpus(), |input| {
        assert!(answer::<Ran>(input, false).is_err(), "an answer after a failure");
        let (info, ran) = (answer::<Info>(input, true), answer::<Ran>(input, true));
        assert!(info.is_err() || ran.is_err(), "one answer to two questions");
        if let Ok(info) = info {
            let named = info.check().is_ok();
            assert!(!named || !EngineName::BUILT_IN.contains(&info.name.as_str()), "{info:?}");
            assert!(!named || info.version.chars().all(|c| !c.is_control()), "{info:?}");
            return named;
        }
        let Ok(ran) = ran else { return false };
        for output in ran.outputs.iter().flatten() {
            let path = output.path.as_str();
            assert!(!path.starts_with('/') && path.split('/').all(|part| part != ".."), "{path:?}");
        }
        let read: serde_json::Value = serde_json::from_slice(input).unwrap();
        assert_eq!(serde_json::to_value(&ran).unwrap(), read, "a member was passed over");
        true
    });
}
