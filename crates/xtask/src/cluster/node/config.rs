//! Configuration files of a node, as functions of its names and addresses. JSON where YAML is asked for: JSON is YAML.
//!
//! Paths are those seen inside the node's room.

use serde_json::{Value, json};

use super::network::Network;

/// The image that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "requiem.dev/pause:1";
/// containerd's socket.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where configuration, keys and certificates lie.
pub const SETTINGS: &str = "/var/requiem";

/// containerd. Version 3 of its configuration: with 4 the section of the socket has moved and none appears, in silence.
pub fn containerd() -> String {
    // restrict_oom_score_adj: root in a container may lack CAP_SYS_RESOURCE, and no pod would start.
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  tolerate_missing_hugetlb_controller = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/run/requiem/cni"]
  conf_dir = "{SETTINGS}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "/run/requiem/runc/runc"
  SystemdCgroup = false
"#
    )
}

/// Pods hang on a bridge in the node's namespace; addresses are handed out per node.
pub fn cni(network: Network, number: u8) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "requiem",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": network.pods(number)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                // Gone with the room, as the pods are.
                "dataDir": "/run/cni",
            },
        }],
    })
}

/// The kubelet. It neither evicts nor collects images because the machine's disk is full: that is not the cluster's disk.
pub fn kubelet(network: Network, number: u8) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{SETTINGS}/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": format!("{SETTINGS}/kubelet.crt"),
        "tlsPrivateKeyFile": format!("{SETTINGS}/kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", network.cgroup(number)),
        // Hosts with version 1 of cgroups are refused otherwise.
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": 0,
        // A change of the node's state is told soon; unchanged it is told as seldom as everywhere.
        "nodeStatusUpdateFrequency": "2s",
        "nodeStatusReportFrequency": "5m",
        // A Secret that was renewed reaches pods when the kubelet looks at them again: soon, because tests wait for it.
        "syncFrequency": "10s",
        // There is no DNS here, and the host's answers nobody in these namespaces.
        "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    })
}

/// kube-proxy. It hides the senders of service traffic: the reply of a pod on the same bridge would else take the short way,
/// past the translation.
pub fn kube_proxy(network: Network, node: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": format!("{SETTINGS}/kube-proxy.kubeconfig")},
        "mode": "iptables",
        "iptables": {"masqueradeAll": true},
        "clusterCIDR": network.all_pods(),
        "hostnameOverride": node,
        // Zero: leave the machine's settings alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    })
}
