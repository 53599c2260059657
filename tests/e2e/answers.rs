//! Answers from earlier proofs, with real executors and real commands.

use std::time::{Duration, Instant};

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

/// An answer takes less than the command itself. What both take is printed, for the record.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_quicker_than_the_command() -> Result<(), Failure> {
    let bed = Bed::start("quick", |_| {}).await?;
    bed.run("original", unique("Use")).await?;
    let (mut hits, mut runs, mut creations) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..20 {
        let begun = Instant::now();
        let hit = bed.run(&format!("hit-{index}"), unique("Use")).await?;
        hits.push(begun.elapsed());
        assert!(is_hit(&hit));
        let begun = Instant::now();
        bed.create(&format!("held-{index}"), json!({"command": ["true"], "suspend": true})).await?;
        creations.push(begun.elapsed());
    }
    for index in 0..5 {
        let begun = Instant::now();
        assert!(!is_hit(&bed.run(&format!("run-{index}"), unique("Never")).await?));
        runs.push(begun.elapsed());
    }
    let [hit, run, creation] = [hits, runs, creations].map(median);
    println!("median of creation alone {creation:?}, creation to answer {hit:?}, creation to result {run:?}");
    assert!(hit < run);
    Ok(())
}

fn median(mut taken: Vec<Duration>) -> Duration {
    taken.sort();
    taken[taken.len() / 2]
}
