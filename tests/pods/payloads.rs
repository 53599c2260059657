//! What a command has and does in a pod: inputs of many files, and more memory than there is.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use requiem_tests::Failure;
use serde_json::json;

use crate::pools::{in_pool, pods};
use crate::site::{Site, ask, attempts, is_over, policy, tail};

/// Two hundred folders of a hundred files.
const MAKE: &str = r#"
mkdir made && cd made
for folder in $(seq 200); do
  mkdir "$folder"
  for file in $(seq 100); do echo "$folder $file" > "$folder/$file"; done
done
"#;

/// Reads the input, and tries to change it: prints each way that is open. The same ways are tried in a folder of its own, where the
/// first ones must be open, so that what is missing in the image is not taken for a refusal.
const USE: &str = r#"
find input -type f | wc -l
cat input/200/100
mkdir -p own/1 && echo 1 > own/1/1
for folder in input own; do
  for way in "touch $folder/new" "echo more >> $folder/1/1" "rm $folder/1/1" \
      "mount -o remount,rw,bind none $folder" "mount --bind own $folder" "umount $folder"; do
    eval "$way" 2> /dev/null && echo "OPEN: $way"
  done
done
grep -q ' /workspace/input ro,' /proc/self/mountinfo && echo 'a mount that is read-only'
"#;

const USED: &str = "20000
200 100
OPEN: touch own/new
OPEN: echo more >> own/1/1
OPEN: rm own/1/1
a mount that is read-only
";

/// Twenty shells that keep 40 MB each, and one that says how the first of them ended.
const HOG: &str = r#"
for _ in $(seq 20); do (kept=$(yes | head -c 40000000); sleep 300) & done
wait -n
echo "one ended with $?"
exit 3
"#;

/// The value of a line without labels among an executor's figures.
fn figure(pod: &Pod, name: &str) -> Result<f64, Failure> {
    let figures = ask(pod, "/metrics")?;
    let value = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.ok_or_else(|| format!("no {name} in {figures}"))?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_of_twenty_thousand_files_is_one_locked_mount() -> Result<(), Failure> {
    let site = Site::start("inputs", "baseline").await?;
    site.pool("nested", json!({"tier": "T1"})).await?;
    site.settled("nested", 1).await?;
    let policy = policy("t1")?;
    let limits = json!({"memory": "256Mi", "scratchInodes": 50_000});
    let make = json!({"policy": policy, "timeoutSeconds": 300, "outputs": ["made"], "limits": limits});
    site.execute("make", MAKE, in_pool("nested", make)).await?;
    let made = site.success("make").await?.status.ok_or("no status")?.outputs.remove(0);
    assert_eq!(made.entries, Some(20_200));
    let inputs = json!([{"path": "input", "tree": made.tree}]);
    let spec = json!({"policy": policy, "timeoutSeconds": 300, "inputs": inputs});
    for name in ["first", "second"] {
        site.execute(name, USE, in_pool("nested", spec.clone())).await?;
        let used = site.success(name).await?;
        assert_eq!(tail(&used), USED, "{name}");
        let sandbox = used.status.and_then(|status| status.sandbox).ok_or("no sandbox")?;
        assert!(sandbox.enforced.iter().any(|layer| layer == "readOnlyInputs"), "{:?}", sandbox.enforced);
    }
    let pod = pods(&site, "nested").await?.remove(0);
    assert!(figure(&pod, "requiem_executor_mount_seconds_count")? >= 2.0);
    println!("mounted in {} s, two runs together", figure(&pod, "requiem_executor_mount_seconds_sum")?);
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_takes_the_memory_of_its_pod_ends_and_the_pod_serves_on() -> Result<(), Failure> {
    let site = Site::start("hogs", "baseline").await?;
    for tier in ["T1", "T3"] {
        let (pool, policy) = (tier.to_lowercase(), policy(&tier.to_lowercase())?);
        site.pool(&pool, json!({"tier": tier})).await?;
        site.settled(&pool, 1).await?;
        let before = pods(&site, &pool).await?.remove(0);
        let name = |what: &str| format!("{pool}-{what}");
        site.execute(&name("hog"), HOG, in_pool(&pool, json!({"policy": policy, "timeoutSeconds": 120})))
            .await?;
        let hog = site.watch(&name("hog"), is_over).await?;
        let status = hog.status.as_ref().ok_or("no status")?;
        assert!(status.exit_code == Some(3), "{}", json!(status));
        assert_eq!((tail(&hog).as_str(), attempts(&hog)), ("one ended with 137\n", 1));
        site.execute(&name("next"), "echo next", in_pool(&pool, json!({"policy": policy}))).await?;
        let next = site.success(&name("next")).await?;
        assert_eq!((tail(&next).as_str(), attempts(&next)), ("next\n", 1));
        let after = pods(&site, &pool).await?.remove(0);
        assert_eq!((after.uid(), restarts(&after)), (before.uid(), 0), "the pod paid for it");
    }
    site.close().await
}

/// How often containers of `pod` were started again.
fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let all = status.map(|status| (status.container_statuses.iter(), status.init_container_statuses.iter()));
    all.into_iter().flat_map(|(main, init)| main.chain(init)).flatten().map(|one| one.restart_count).sum()
}
