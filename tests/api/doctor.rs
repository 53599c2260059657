//! `requiem doctor --cluster` on a control plane of its own, in which each thing is broken in turn.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use requiem_tests::{PROGRAMS, setting};
use requiem_xtask::cluster::{Ephemeral, up_ephemeral};
use serde_json::{Value, json};

/// A cluster and a folder for files.
struct Ward {
    cluster: Ephemeral,
    folder: tempfile::TempDir,
}

impl Ward {
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.access().kubectl(arguments).unwrap()
    }

    fn apply(&self, object: &Value) {
        self.kubectl(&["apply", "--server-side", "-f", &self.write("object.json", &object.to_string())]);
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// The kubeconfig with a change.
    fn kubeconfig(&self, name: &str, change: impl FnOnce(&mut Value)) -> String {
        let text = std::fs::read_to_string(self.cluster.kubeconfig()).unwrap();
        let mut config: Value = serde_norway::from_str(&text).unwrap();
        change(&mut config);
        self.write(name, &config.to_string())
    }

    /// What the doctor finds about the cluster.
    fn findings(&self, kubeconfig: &Path) -> Vec<Value> {
        let program = setting(PROGRAMS).unwrap().join("requiem");
        let mut command = Command::new(program);
        command.args(["doctor", "--json", "--cluster", "--kubeconfig"]).arg(kubeconfig);
        let output = command.env("XDG_DATA_HOME", self.folder.path()).output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let areas = ["certificate", "cluster", "definitions", "rights", "pools"];
        let checks = document["checks"].as_array().unwrap_or_else(|| panic!("{output:?}"));
        let ours = checks.iter().filter(|check| areas.contains(&check["area"].as_str().unwrap()));
        ours.flat_map(|check| check["findings"].as_array().unwrap().clone()).collect()
    }

    /// Waits until exactly these are found: what an API server serves changes a moment after a definition has.
    fn expect(&self, expected: &[&str]) -> Vec<Value> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let findings = self.findings(self.cluster.kubeconfig());
            if codes(&findings) == expected {
                return findings;
            }
            assert!(Instant::now() < until, "{expected:?} is not {findings:#?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn codes(findings: &[Value]) -> Vec<&str> {
    findings.iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

/// A certificate that ends then, and its key.
fn certificate(not_after: u64) -> (String, String) {
    let mut params = rcgen::CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(not_after);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn base64(text: &str) -> String {
    let bytes = k8s_openapi::ByteString(text.as_bytes().to_vec());
    serde_json::to_value(bytes).unwrap().as_str().unwrap().to_owned()
}

/// A definition of the group in a version that nobody knows.
fn strange_definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "executions.requiem.dev"},
        "spec": {
            "group": "requiem.dev", "scope": "Namespaced",
            "names": {"plural": "executions", "singular": "execution", "kind": "Execution", "listKind": "ExecutionList"},
            "versions": [{
                "name": "v9", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }],
        },
    })
}

#[test]
fn the_doctor_finds_what_is_wrong_with_a_cluster() {
    let ward = Ward { cluster: up_ephemeral().unwrap(), folder: tempfile::tempdir().unwrap() };
    ward.expect(&["DefinitionsMissing"]);
    ward.apply(&strange_definition());
    ward.expect(&["DefinitionsOfOtherVersion"]);
    ward.kubectl(&["delete", "crd", "executions.requiem.dev"]);
    let execution = requiem_crds::definition::all().into_iter().next().unwrap();
    ward.apply(&serde_json::to_value(execution).unwrap());
    ward.expect(&["DefinitionMissing"; 4]);
    ward.cluster.access().install_definitions().unwrap();
    ward.expect(&["NoPool"]);
    ward.apply(&json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutorPool",
        "metadata": {"name": "default", "namespace": "default"},
        "spec": {"endpoints": [{"name": "one", "url": "https://127.0.0.1:7443"}]},
    }));
    let findings = ward.expect(&["PoolNotReady"]);
    assert!(findings[0]["message"].as_str().unwrap().contains("no operator"), "{findings:?}");
    let ready = |status: &str| {
        let condition = json!({
            "type": "Ready", "status": status, "reason": "NoExecutorReady", "message": "one: no answer",
            "lastTransitionTime": "2026-11-28T00:00:00Z", "observedGeneration": 1,
        });
        let patch = json!({"status": {"observedGeneration": 1, "conditions": [condition]}}).to_string();
        let pool = ["executorpool", "default", "--subresource=status", "--type=merge", "-p", patch.as_str()];
        ward.kubectl(&[&["patch"][..], &pool].concat());
    };
    ready("False");
    let findings = ward.expect(&["PoolNotReady"]);
    assert!(
        findings[0]["message"].as_str().unwrap().ends_with("NoExecutorReady: one: no answer"),
        "{findings:?}"
    );
    ready("True");
    ward.expect(&[]);
    // Somebody without any right of ours.
    let stranger = ward.kubeconfig("stranger", |config| {
        config["users"][0]["user"]["as"] = json!("stranger");
        config["users"][0]["user"]["as-groups"] = json!(["system:authenticated"]);
    });
    let findings = ward.findings(Path::new(&stranger));
    assert_eq!(codes(&findings), ["RightMissing"; 6], "{findings:#?}");
    // Certificates of the user's own; only the cluster's authority makes them good, so the rest may be anything.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    for (seconds, code) in
        [(-60, Some("CertificateExpired")), (86_400, Some("CertificateExpiring")), (30 * 86_400, None)]
    {
        let (certificate, key) = certificate(now.as_secs().checked_add_signed(seconds).unwrap());
        let known = ward.kubeconfig("known", |config| {
            let user = &mut config["users"][0]["user"];
            user["client-certificate-data"] = json!(base64(&certificate));
            user["client-key-data"] = json!(base64(&key));
        });
        let findings = ward.findings(Path::new(&known));
        let found = codes(&findings).into_iter().find(|code| code.starts_with("Certificate"));
        assert_eq!(found, code, "{findings:#?}");
    }
    // Nobody listens there.
    let nowhere = ward.kubeconfig("nowhere", |config| {
        config["clusters"][0]["cluster"]["server"] = json!("https://127.0.0.1:1");
    });
    assert_eq!(codes(&ward.findings(Path::new(&nowhere))), ["ClusterUnreachable"]);
    ward.cluster.down().unwrap();
}
