//! SIGKILL at random moments while work is going on: nothing is lost, nothing has two results.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;
use requiem_crds::Execution;
use requiem_executor::journal::{Journal, JournalOptions, Phase};
use requiem_tests::{Bed, Failure, processes_with};
use serde_json::json;

const EXECUTIONS: usize = 200;
const ROUNDS: usize = 24;

/// A small generator (xorshift64*), so that a failing run can be repeated from its seed.
struct Dice(u64);

impl Dice {
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        low + self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % (high - low)
    }
}

fn seed() -> u64 {
    let given = std::env::var("REQUIEM_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs());
    given.unwrap_or(now) | 1
}

fn roots(execution: &Execution) -> (Option<String>, Option<String>) {
    let status = execution.status.as_ref();
    (
        status.and_then(|status| status.proof_root).map(|root| root.to_string()),
        status.and_then(|status| status.result.as_ref()).map(|result| format!("{result:?}")),
    )
}

/// How many results the executor wrote down for each UID.
fn results(store: &Path) -> Result<BTreeMap<String, usize>, Failure> {
    let (_journal, replay) =
        Journal::open(&store.join("journal"), JournalOptions::default(), Box::new(|_| Ok(())))?;
    let mut results = BTreeMap::new();
    for (key, logged) in replay.attempts {
        *results.entry(key.uid).or_default() += usize::from(matches!(logged.phase, Phase::Sealed { .. }));
    }
    Ok(results)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_executions_survive_kills_of_operator_and_executor() -> Result<(), Failure> {
    let seed = seed();
    println!("REQUIEM_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut bed = Bed::start("kills", |_| {}).await?;
    let marker = format!("victim-of-{}", std::process::id());
    let names: Vec<String> = (0..EXECUTIONS).map(|index| format!("victim-{index}")).collect();
    let specs = names.iter().map(|name| {
        let script = format!("echo {name}; sleep 0.4; echo {name} > out # {marker}");
        (name, json!({"command": ["/bin/sh", "-c", script], "outputs": ["out"]}))
    });
    let created = stream::iter(specs).map(|(name, spec)| bed.create(name, spec));
    created.buffer_unordered(8).try_for_each(|_| async { Ok(()) }).await?;

    let mut first_seen: BTreeMap<String, Execution> = BTreeMap::new();
    let mut kills_during_work = 0;
    for round in 0..ROUNDS {
        // The moment is the point of the test; there is no event to wait for.
        tokio::time::sleep(Duration::from_millis(dice.between(20, 600))).await;
        for object in bed.executions.list(&Default::default()).await?.items {
            if object.status.as_ref().is_some_and(|status| status.terminal) {
                first_seen.entry(object.name_any()).or_insert(object);
            }
        }
        kills_during_work += usize::from(first_seen.len() < EXECUTIONS);
        let service = if round % 2 == 0 { &mut bed.stack.operator } else { &mut bed.stack.executor };
        service.kill()?;
        // Not awaited: the next kill may meet a service that is still starting.
        service.launch()?;
    }
    assert!(kills_during_work >= 20, "only {kills_during_work} kills met unfinished work");
    let last = bed.terminal(&names, Duration::from_secs(240)).await?;

    let bundles = bed.bundles.list(&Default::default()).await?.items;
    let mut bundles_of: BTreeMap<String, usize> = BTreeMap::new();
    for bundle in &bundles {
        *bundles_of.entry(bundle.spec.execution_ref.uid.clone()).or_default() += 1;
    }
    for (name, execution) in &last {
        let (root, result) = roots(execution);
        assert_eq!(result.as_deref(), Some("Succeeded"), "{name}: {:?}", execution.status);
        assert!(root.is_some(), "{name} has no proof");
        let stdout = execution.status.as_ref().and_then(|status| status.stdout.as_ref());
        assert_eq!(stdout.map(|stream| stream.tail.trim()), Some(name.as_str()));
        assert_eq!(bundles_of.get(&execution.uid().unwrap_or_default()), Some(&1), "bundles of {name}");
        if let Some(first) = first_seen.get(name) {
            assert_eq!(roots(first), roots(execution), "{name} changed its result");
        }
    }
    assert_eq!((last.len(), bundles.len()), (EXECUTIONS, EXECUTIONS));
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
    bed.stack.stop()?;
    let results = results(bed.stack.store())?;
    for (name, execution) in &last {
        assert_eq!(results.get(&execution.uid().unwrap_or_default()), Some(&1), "results of {name}");
    }
    Ok(())
}
