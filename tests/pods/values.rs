//! Values of Secrets and ConfigMaps for the command of an Execution with a pod of its own: they arrive, and are nowhere else.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::discovery::{Discovery, verbs};
use requiem_model::BlobDigest;
use requiem_tests::Failure;
use requiem_xtask::images::payload;
use serde_json::{Value, json};

use crate::bed::{PATIENCE, nodes};
use crate::site::{Site, ask, message, policy, reason_of, tail};

/// The name of the Secret, the one object that may hold the value.
const SECRET: &str = "registry";

/// A value that nobody can guess, and everything by which it would be found again.
struct Canary {
    value: String,
    needles: Vec<String>,
}

impl Canary {
    fn new() -> Result<Self, Failure> {
        let random = std::fs::read("/proc/sys/kernel/random/uuid")?;
        let value = format!("canary-{}", String::from_utf8(random)?.trim());
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut needles = vec![value.clone(), hex, BlobDigest::of(value.as_bytes()).to_hex()];
        // In base64 a text looks different at each of three places; its first and last characters depend on its neighbours.
        for before in ["", "x", "xx"] {
            let text = base64(format!("{before}{value}").as_bytes());
            needles.push(text[4..text.len() - 4].to_owned());
        }
        Ok(Self { value, needles })
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        let holds = |needle: &String| bytes.windows(needle.len()).any(|part| part == needle.as_bytes());
        self.needles.iter().any(holds)
    }

    fn must_not_be_in(&self, text: &str, place: &str) {
        assert!(!self.is_in(text.as_bytes()), "the value is in {place}:\n{text}");
    }

    /// Files below `folder` that hold it.
    fn files(&self, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            match kind {
                kind if kind.is_dir() => found.extend(self.files(&path)?),
                kind if kind.is_file() && self.is_in(&std::fs::read(&path)?) => found.push(path),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Standard base64, without its padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| bits << 8 | group.get(at).map_or(0, |byte| u32::from(*byte)));
        for at in 0..=group.len() {
            let index = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap_or_default();
            text.push(char::from(LETTERS[index]));
        }
    }
    text
}

/// Every object of the namespace, and of the cluster, of every kind that can be listed.
async fn objects(site: &Site) -> Result<Vec<(String, Value)>, Failure> {
    let discovery = Discovery::new(site.bed.client.clone()).run().await?;
    let mut found = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST) {
                continue;
            }
            let namespaced = capabilities.scope == kube::discovery::Scope::Namespaced;
            found.extend(list(site, &resource, namespaced).await?);
        }
    }
    Ok(found)
}

async fn list(
    site: &Site,
    resource: &ApiResource,
    namespaced: bool,
) -> Result<Vec<(String, Value)>, Failure> {
    let client = site.bed.client.clone();
    let api: Api<DynamicObject> = match namespaced {
        true => Api::namespaced_with(client, &site.bed.namespace, resource),
        false => Api::all_with(client, resource),
    };
    let name = |object: &DynamicObject| format!("{} {}", resource.kind, object.name_any());
    let listed = api.list(&ListParams::default()).await?;
    listed.items.into_iter().map(|object| Ok((name(&object), serde_json::to_value(object)?))).collect()
}

/// Looks for the value in all objects but the Secret, where it must be.
async fn search_objects(site: &Site, canary: &Canary) -> Result<usize, Failure> {
    let mut secrets = 0;
    let objects = objects(site).await?;
    for (name, object) in &objects {
        let text = object.to_string();
        if *name == format!("Secret {SECRET}") {
            assert!(canary.is_in(text.as_bytes()), "the search does not find what is there: {text}");
            secrets += 1;
        } else {
            canary.must_not_be_in(&text, name);
        }
    }
    assert_eq!(secrets, 1, "the Secret was not seen");
    Ok(objects.len())
}

async fn put_secret(site: &Site, name: &str, data: Value) -> Result<(), Failure> {
    let secrets: Api<Secret> = Api::namespaced(site.bed.client.clone(), &site.bed.namespace);
    let secret = json!({"metadata": {"name": name}, "stringData": data});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
    Ok(())
}

/// An Execution with a pod of its own and these variables.
fn referring(env: Value) -> Result<Value, Failure> {
    let pod = json!({"image": payload::NAME, "imagePullPolicy": "Never", "tier": "T3"});
    Ok(json!({"policy": policy("t3")?, "executor": {"pod": pod}, "env": env}))
}

fn secret_key(variable: &str, name: &str, key: &str) -> Value {
    json!({"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}})
}

async fn own_pod(site: &Site) -> Result<Pod, Failure> {
    let dedicated = ListParams::default().labels("requiem.dev/dedicated=true");
    site.bed.pods.list(&dedicated).await?.items.pop().ok_or_else(|| "there is no pod".into())
}

/// What is on the node of a pod: its store, and the logs of its containers.
fn on_node(pod: &Pod) -> Result<(PathBuf, PathBuf), Failure> {
    let on = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let node = nodes()?.into_iter().find(|node| node.name() == on).ok_or("it is on no node")?;
    let (uid, namespace) = (pod.uid().unwrap_or_default(), pod.namespace().unwrap_or_default());
    let store = node.var().join(format!("lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/store"));
    let logs = node.var().join(format!("log/pods/{namespace}_{}_{uid}", pod.name_any()));
    Ok((store, logs))
}

/// Waits until the executor of `pod` has sealed its one result; nobody else tells while there is no operator.
async fn until_sealed(pod: &Pod) -> Result<String, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let figures = ask(pod, "/metrics")?;
        if figures.contains("requiem_executor_attempts_total{reason=\"Succeeded\"} 1") {
            return Ok(figures);
        }
        assert!(Instant::now() < deadline, "nothing was sealed: {figures}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_value_of_a_secret_reaches_the_command_and_nothing_else() -> Result<(), Failure> {
    let mut site = Site::start("values", "restricted").await?;
    let canary = Canary::new()?;
    put_secret(&site, SECRET, json!({"token": canary.value})).await?;
    let maps: Api<ConfigMap> = Api::namespaced(site.bed.client.clone(), &site.bed.namespace);
    let map = json!({"metadata": {"name": "settings"}, "data": {"mode": "careful"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
    let mode = json!({"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}});
    let mut spec = referring(json!([secret_key("TOKEN", SECRET, "token"), mode]))?;
    spec["outputs"] = json!(["got"]);
    // It says nothing of the value; its output has it, which is its own affair.
    let script = r#"printf 'got %s' "$TOKEN" > got; echo "$MODE ${#TOKEN}"; env | grep -c REQUIEM; sleep 5"#;
    site.execute("refers", script, spec).await?;
    site.watch("refers", |object| message(object).contains("runs on")).await?;
    search_objects(&site, &canary).await?;
    let pod = own_pod(&site).await?;
    let (store, logs) = on_node(&pod)?;

    // Without an operator the result stays with its executor, where it can be looked at.
    canary.must_not_be_in(&site.operator_figures()?, "the operator's figures");
    site.kill_operator()?;
    let figures = until_sealed(&pod).await?;
    canary.must_not_be_in(&figures, "the executor's figures");
    let output = BlobDigest::of(format!("got {}", canary.value).as_bytes()).to_hex();
    let found = canary.files(&store)?;
    assert!(matches!(&found[..], [only] if only.ends_with(&output)), "the value is in the store: {found:?}");
    for container in ["executor", "workload"] {
        assert!(logs.join(container).exists(), "no log of {container} was looked at");
    }
    assert_eq!(canary.files(&logs)?, Vec::<PathBuf>::new(), "the value is in a log");
    canary.must_not_be_in(&site.operator_log()?, "the log of the first operator");

    site.start_operator().await?;
    let execution = site.success("refers").await?;
    assert_eq!(tail(&execution), format!("careful {}\n0\n", canary.value.len()));
    site.bed.gone(&pod).await?;
    search_objects(&site, &canary).await?;
    canary.must_not_be_in(&site.operator_log()?, "the log of the second operator");
    canary.must_not_be_in(&site.operator_figures()?, "the operator's figures");
    let status = execution.status.ok_or("no status")?;
    assert_eq!(status.attempts, 1);
    let confidence = status.determinism_confidence.ok_or("no confidence")?;
    assert_eq!(confidence.level.as_str(), "best_effort");
    assert!(confidence.reasons.contains(&"environment:undisclosed".to_owned()), "{:?}", confidence.reasons);
    let bundles = site.bundles.list(&ListParams::default()).await?.items;
    let body: Value = serde_json::from_str(&bundles.first().ok_or("no proof")?.spec.body)?;
    let references = &body["execution"]["request"]["envRefs"];
    assert_eq!(references[1]["source"], json!({"kind": "secret", "name": SECRET, "key": "token"}));
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_missing_is_named_and_waited_for() -> Result<(), Failure> {
    let site = Site::start("values-missing", "restricted").await?;
    site.execute("waits", "test \"$LATER\" = here", referring(json!([secret_key("LATER", "later", "key")]))?)
        .await?;
    let says = |words: &'static str| {
        move |object: &requiem_crds::Execution| {
            reason_of(object) == "ValueUnavailable" && message(object).contains(words)
        }
    };
    site.watch("waits", says("secret \"later\" not found")).await?;
    put_secret(&site, "later", json!({"other": "x"})).await?;
    let without = site.watch("waits", says("couldn't find key key")).await?;
    assert!(message(&without).contains("create what is missing"), "{}", message(&without));
    let secrets: Api<Secret> = Api::namespaced(site.bed.client.clone(), &site.bed.namespace);
    let data = json!({"stringData": {"key": "here"}});
    secrets.patch("later", &PatchParams::default(), &Patch::Merge(&data)).await?;
    let execution = site.success("waits").await?;
    assert_eq!(execution.status.map(|status| status.attempts), Some(1));
    site.close().await
}
