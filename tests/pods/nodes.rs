//! The nodes are what they claim: pods run on each, reach one another and the API server, have user namespaces and the profile;
//! and what disturbs a node disturbs it.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStateWaiting, Pod};
use kube::api::LogParams;
use requiem_tests::Failure;
use requiem_xtask::images::payload;
use serde_json::{Value, json};

use crate::bed::{Bed, PATIENCE, nodes, once, phase, restricted};

/// A command that nests namespaces and mounts a fresh /proc, as the runner does for every payload. In a pod's command `$$` stands
/// for one `$`.
const NEST: &str = "unshare --user --map-root-user --mount --pid --fork --mount-proc sh -c 'echo nested as $$$$; ls -d /proc/1'";

fn shell(script: &str) -> Value {
    restricted(payload::NAME, &["/bin/bash", "-c", script])
}

fn best_tier(script: &str) -> Value {
    let mut pod = once(&shell(script));
    let profile = json!({"type": "Localhost", "localhostProfile": "requiem/runner.json"});
    pod["hostUsers"] = json!(false);
    pod["containers"][0]["securityContext"]["procMount"] = json!("Unmasked");
    pod["containers"][0]["securityContext"]["seccompProfile"] = profile;
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_on_both_nodes_reach_the_api_server_and_the_host_reaches_them() -> Result<(), Failure> {
    let bed = Bed::new("network", "restricted").await?;
    for node in nodes()? {
        let mut pod = once(&shell("exec 3<>/dev/tcp/10.96.0.1/443 && echo connected"));
        pod["nodeName"] = json!(node.name());
        assert_eq!(bed.run(&format!("asks-{}", node.name()), pod).await?.trim(), "connected");
    }
    bed.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_user_namespace_and_the_profile_nests_namespaces() -> Result<(), Failure> {
    let bed = Bed::new("best", "baseline").await?;
    let said = bed.run("nests", best_tier(&format!("cat /proc/self/uid_map; {NEST}"))).await?;
    let mut lines = said.lines();
    let outside: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_ne!(outside.get(1), Some(&"0"), "the pod's root is the node's root: {said}");
    assert_eq!(lines.collect::<Vec<_>>(), ["nested as 1", "/proc/1"]);

    let plain = once(&shell(&format!("{NEST} || echo refused")));
    let said = bed.run("does-not", plain).await?;
    assert!(said.lines().any(|line| line == "refused"), "a restricted pod can do it too: {said}");
    bed.close().await
}

/// A pod that stays, on `node`; its address.
async fn resident(bed: &Bed, name: &str, node: &str) -> Result<IpAddr, Failure> {
    let mut pod = once(&shell("exec sleep infinity"));
    pod["nodeName"] = json!(node);
    bed.start(name, pod).await?;
    let pod = bed.until(name, |pod| phase(pod) == "Running").await?;
    let address = pod.status.and_then(|status| status.pod_ip).ok_or("it runs without an address")?;
    Ok(address.parse()?)
}

/// What a TCP connection to a port of `address` ends with, on which nobody listens: "refused" is the pod's own answer.
fn knock(address: IpAddr) -> ErrorKind {
    let end = TcpStream::connect_timeout(&(address, 9).into(), Duration::from_secs(2));
    end.map_or_else(|error| error.kind(), |_| ErrorKind::Other)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_reached_from_the_host_and_from_pods_of_the_other_node() -> Result<(), Failure> {
    let bed = Bed::new("across", "restricted").await?;
    let both = nodes()?;
    let address = resident(&bed, "resident", both[0].name()).await?;
    assert_eq!(knock(address), ErrorKind::ConnectionRefused);
    let mut caller = once(&shell(&format!("exec 3<>/dev/tcp/{address}/9 || true")));
    caller["nodeName"] = json!(both[1].name());
    let said = bed.run("caller", caller).await?;
    assert!(said.contains("Connection refused"), "{said}");
    bed.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_node_is_unreachable_until_its_cable_is_mended() -> Result<(), Failure> {
    let bed = Bed::alone("cut", "restricted").await?;
    let both = nodes()?;
    let node = &both[1];
    let address = resident(&bed, "resident", node.name()).await?;
    let logs = || async { bed.pods.logs("resident", &LogParams::default()).await };
    assert_eq!((knock(address), logs().await.is_ok()), (ErrorKind::ConnectionRefused, true));
    node.cut()?;
    let unreachable = knock(address);
    node.mend()?;
    assert!(matches!(unreachable, ErrorKind::TimedOut | ErrorKind::HostUnreachable), "{unreachable:?}");
    let back = Instant::now() + PATIENCE;
    // A mended cable tells nobody; bridge and neighbours need a moment.
    while knock(address) != ErrorKind::ConnectionRefused {
        assert!(Instant::now() < back, "the node did not come back");
    }
    bed.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_kubelet_a_node_starts_nothing_and_what_runs_goes_on() -> Result<(), Failure> {
    let bed = Bed::alone("kubelet", "restricted").await?;
    let both = nodes()?;
    let node = &both[0];
    let address = resident(&bed, "resident", node.name()).await?;
    node.stop_kubelet()?;
    let mut late = once(&shell("echo late"));
    late["nodeName"] = json!(node.name());
    bed.start("late", late).await?;
    // Nothing can announce that nothing happens: a kubelet that runs would have started it within a second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let waiting = bed.pods.get("late").await?;
    let survivor = knock(address);
    node.start_kubelet()?;
    assert_eq!((phase(&waiting), survivor), ("Pending", ErrorKind::ConnectionRefused));
    bed.until("late", |pod| phase(pod) == "Succeeded").await?;
    bed.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_profile_says_so() -> Result<(), Failure> {
    let bed = Bed::alone("profile", "baseline").await?;
    let both = nodes()?;
    let profile = both[0].var().join("lib/kubelet/seccomp/requiem/runner.json");
    let aside = profile.with_extension("aside");
    std::fs::rename(&profile, &aside)?;
    let mut pod = best_tier("echo ran");
    pod["nodeName"] = json!(both[0].name());
    bed.start("asks", pod).await?;
    let refused = bed.until("asks", |pod| waiting(pod).is_some_and(|state| state.message.is_some())).await;
    std::fs::rename(&aside, &profile)?;
    let refused = refused?;
    let state = waiting(&refused).ok_or("it waits for nothing")?;
    assert_eq!(state.reason.as_deref(), Some("CreateContainerError"), "{state:?}");
    assert!(state.message.as_deref().unwrap_or_default().contains("requiem/runner.json"), "{state:?}");
    // The kubelet tries again by itself.
    bed.until("asks", |pod| phase(pod) == "Succeeded").await?;
    bed.close().await
}

/// Why the first container of a pod does not start.
fn waiting(pod: &Pod) -> Option<&ContainerStateWaiting> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?.waiting.as_ref()
}
