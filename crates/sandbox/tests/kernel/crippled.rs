//! Places where something is missing: the report must say so, and a required layer must refuse the run.

use std::process::{Command, Stdio};

use crate::support::*;
use requiem_model::report::Status;
use requiem_model::{Layer, Requirement};
use requiem_sandbox::{RunError, RunSpec, enter_trusted_namespace};

/// Layers and the limit of namespaces that takes them away, with what else is short then.
const LIMITS: [(Layer, &str, &[Layer]); 6] = [
    (Layer::NetworkNamespace, "max_net_namespaces", &[]),
    (Layer::IpcNamespace, "max_ipc_namespaces", &[]),
    (Layer::UtsNamespace, "max_uts_namespaces", &[]),
    (Layer::CgroupNamespace, "max_cgroup_namespaces", &[]),
    (Layer::PidNamespace, "max_pid_namespaces", &[Layer::Procfs]),
    (
        Layer::MountNamespace,
        "max_mnt_namespaces",
        &[Layer::MinimalRoot, Layer::ReadOnlyInputs, Layer::Scratch, Layer::Procfs],
    ),
];

/// Runs a helper of this binary as root of a user namespace with `limit` set to none, through `wrapper`.
fn in_crippled_namespace(helper: &str, limit: &str, wrapper: &str) {
    let binary = std::env::current_exe().unwrap();
    let script = format!("echo 0 > /proc/sys/user/{limit} && exec {wrapper} \"$@\"");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", &script, "sh"])
        .arg(binary)
        .args(helper_args(helper))
        .env("CRIPPLED", limit)
        .env(HELPER, "1")
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{limit}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_host_that_lacks_a_namespace_is_told_apart() {
    for (_, limit, _) in LIMITS {
        in_crippled_namespace("crippled::lacks_one", limit, "");
    }
}

#[test]
fn lacks_one() {
    if !is_helper() {
        return;
    }
    let limit = std::env::var("CRIPPLED").unwrap();
    let (layer, _, others) = LIMITS.into_iter().find(|(_, name, _)| *name == limit).unwrap();
    let ran = run(RunSpec { policy: lenient(), ..sh("echo ran") });
    assert_eq!(ran.out(), "ran", "{}", ran.err());
    let mut short: Vec<Layer> = ran.short().into_iter().map(|(layer, _)| layer).collect();
    // Whether this user may make cgroups is another matter.
    short.retain(|short| *short != Layer::Cgroup);
    let mut expected = [&[layer], others].concat();
    expected.sort();
    assert_eq!(short, expected, "{}", table(&ran.end.report));
    // Without a network of its own the payload has no IP sockets at all.
    let network = layer == Layer::NetworkNamespace;
    let status = if network { Status::Partial } else { Status::Unsupported };
    assert_eq!(ran.row(layer).status, status);
    let strict = lenient().with(layer, Requirement::Required);
    match try_run(&RUNNER, RunSpec { policy: strict, ..sh("echo must not run") }) {
        Err(RunError::Refused { layer: refused, .. }) => assert_eq!(refused, layer),
        other => panic!("{:?}", other.map(|ran| ran.out())),
    }
}

#[test]
fn a_host_without_user_namespaces_is_told_apart() {
    in_crippled_namespace("crippled::lacks_user_namespaces", "max_user_namespaces", "");
}

#[test]
fn lacks_user_namespaces() {
    if !is_helper() {
        return;
    }
    let ran = run(RunSpec { policy: lenient(), ..sh("echo ran") });
    assert_eq!(ran.out(), "ran", "{}", ran.err());
    assert_eq!(ran.row(Layer::UserNamespace).status, Status::Unsupported);
    let strict = lenient().with(Layer::UserNamespace, Requirement::Required);
    let refused = try_run(&RUNNER, RunSpec { policy: strict, ..sh("true") });
    assert!(matches!(refused, Err(RunError::Refused { layer: Layer::UserNamespace, .. })));
}

/// What a Restricted pod looks like: no namespaces, no capabilities.
#[test]
fn a_host_that_allows_no_namespace_at_all_still_restricts_files_and_calls() {
    let wrapper = "setpriv --bounding-set=-all --inh-caps=-all --no-new-privs --";
    in_crippled_namespace("crippled::lacks_everything", "max_user_namespaces", wrapper);
}

#[test]
fn lacks_everything() {
    if !is_helper() {
        return;
    }
    let secret = tempfile::NamedTempFile::new().unwrap();
    let script = format!(
        "echo made > made; cat made; cat {} 2>&1; grep -c Seccomp:.2 /proc/self/status",
        secret.path().display()
    );
    let ran = run(RunSpec { policy: lenient(), ..sh(&script) });
    assert!(ran.out().starts_with("made\n") && ran.out().ends_with("\n1"), "{} {}", ran.out(), ran.err());
    assert!(ran.out().contains("Permission denied"), "{}", ran.out());
    use Layer::*;
    for layer in [NoNewPrivileges, Rlimits, Landlock, Seccomp, Descriptors] {
        assert_eq!(ran.row(layer).status, Status::Enforced, "{}", table(&ran.end.report));
    }
    for layer in [
        UserNamespace,
        PidNamespace,
        MountNamespace,
        IpcNamespace,
        UtsNamespace,
        CgroupNamespace,
        MinimalRoot,
        ReadOnlyInputs,
        Scratch,
        Procfs,
    ] {
        assert_eq!(ran.row(layer).status, Status::Unsupported, "{}", table(&ran.end.report));
    }
    // What stands in for two of them: no sockets, and no capability although nobody may lock that.
    for layer in [NetworkNamespace, Capabilities] {
        assert_eq!(ran.row(layer).status, Status::Partial, "{}", table(&ran.end.report));
    }
    let refused = try_run(&RUNNER, sh("echo must not run"));
    assert!(matches!(refused, Err(RunError::Refused { layer: UserNamespace, .. })));
}

#[test]
fn an_ordinary_user_has_every_layer_but_the_cgroup() {
    let binary = std::env::current_exe().unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(binary)
        .args(helper_args("crippled::ordinary_user"))
        .env(HELPER, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn ordinary_user() {
    if !is_helper() {
        return;
    }
    let ran = run(RunSpec { policy: lenient(), ..sh("id -u; cat /etc/hostname 2>&1; touch f") });
    assert!(ran.out().starts_with("1000\n"), "{} {}", ran.out(), ran.err());
    assert_eq!(ran.short(), [(Layer::Cgroup, Status::Unsupported)], "{}", table(&ran.end.report));
    // libtest has threads, so this process cannot enter a namespace of its own: inputs are copied, and that is said.
    assert!(enter_trusted_namespace().is_err());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "content").unwrap();
    let inputs = vec![input("in", folder.path())];
    let ran = run(RunSpec { policy: lenient(), inputs, ..sh("cat in/file") });
    assert_eq!(ran.out(), "content", "{}", ran.err());
    assert_eq!(ran.row(Layer::ReadOnlyInputs).status, Status::Partial);
}
