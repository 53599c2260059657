//! Answers from earlier proofs, with real executors and real commands.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;
use requiem_crds::Execution;
use requiem_proof::{Expect, verify};
use requiem_tests::{Bed, Failure, PATIENCE};
use serde_json::{Value, json};

fn is_hit(execution: &Execution) -> bool {
    execution.status.as_ref().and_then(|status| status.cache.as_ref()).is_some_and(|cache| cache.hit)
}

/// A command whose every run gives another output: whoever shows the same output as another did not run.
fn unique(cache: &str) -> Value {
    json!({
        "command": ["/bin/sh", "-c", "sleep 0.3; head -c 16 /dev/urandom > out"], "outputs": ["out"], "cache": cache,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_identical_run_once_though_the_operator_is_killed() -> Result<(), Failure> {
    let mut bed = Bed::start("identical", |_| {}).await?;
    let names: Vec<String> = (0..100).map(|index| format!("same-{index}")).collect();
    let created = stream::iter(&names).map(|name| bed.create(name, unique("Use")));
    created.buffer_unordered(16).try_for_each(|_| async { Ok(()) }).await?;
    // Wherever it is now, it must not matter.
    bed.stack.operator.kill()?;
    bed.stack.operator.launch()?;
    let done = bed.terminal(&names, PATIENCE).await?;
    let ran: Vec<&Execution> = done.values().filter(|execution| !is_hit(execution)).collect();
    assert_eq!(ran.len(), 1, "{:?}", ran.iter().map(|execution| execution.name_any()).collect::<Vec<_>>());
    let (first, uid) = (ran[0].status.clone().unwrap(), ran[0].uid());
    let bundles = bed.bundles.list(&Default::default()).await?.items;
    assert_eq!(bundles.len(), 1, "more than one run was proven");
    for execution in done.values() {
        let status = execution.status.as_ref().unwrap();
        assert_eq!((&status.outputs, status.proof_root), (&first.outputs, first.proof_root));
        if let Some(original) = status.cache.as_ref().and_then(|cache| cache.original.as_ref()) {
            assert_eq!((Some(&original.uid), status.attempts), (uid.as_ref(), 0));
        }
    }
    // The bundle that everybody names still says whose run it was.
    let verified =
        verify(&bundles[0].spec.body, &Expect { bundle_root: first.proof_root, ..Expect::default() })?;
    assert_eq!(Some(verified.body.run.identity.uid), uid);
    let other = bed.run("fresh", unique("Refresh")).await?;
    assert_ne!(other.status.unwrap().outputs, first.outputs, "Refresh did not run");
    Ok(())
}

/// What a hit costs beyond the creation of its object, for the record of the tests.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_quick() -> Result<(), Failure> {
    let bed = Bed::start("quick", |_| {}).await?;
    bed.run("original", unique("Use")).await?;
    let mut taken = Vec::new();
    for index in 0..20 {
        let begun = std::time::Instant::now();
        let hit = bed.run(&format!("hit-{index}"), unique("Use")).await?;
        assert!(is_hit(&hit));
        taken.push(begun.elapsed());
    }
    taken.sort();
    println!("create to answer: p50 {:?}, max {:?}", taken[taken.len() / 2], taken[taken.len() - 1]);
    assert!(taken[taken.len() / 2] < Duration::from_millis(300), "slower than the command itself: {taken:?}");
    Ok(())
}
