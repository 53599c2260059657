//! `requiem doctor`: each thing is broken in turn, and is found. What can really be broken is: the store, its disk, its clock, user
//! namespaces, cgroups. The kernel's version and the switches of distributions that this kernel does not have are files laid over
//! /proc in a mount namespace. These tests need root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/edge.rs"]
mod edge;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{Desk, Said, said};
use edge::{files, on_a_small_disk, unprivileged};
use serde_json::Value;

/// A desk with a healthy store.
fn healthy() -> Desk {
    let desk = Desk::new();
    desk.write("one", "one");
    assert_eq!(desk.requiem(&["cas", "put", "one", "--cas", "store"]).code, 0);
    desk
}

/// Codes of the findings; exit code and verdict must agree with them.
fn codes(said: &Said) -> BTreeSet<String> {
    let document = said.json();
    let checks = document["checks"].as_array().unwrap_or_else(|| panic!("{said:?}"));
    let findings = checks.iter().flat_map(|check| check["findings"].as_array().unwrap());
    let codes: BTreeSet<String> = findings
        .map(|finding| {
            assert!(!finding["remedy"].as_str().unwrap().is_empty(), "{finding}");
            finding["code"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!((said.code, &document["ok"]), (i32::from(!codes.is_empty()), &Value::from(codes.is_empty())));
    codes
}

fn doctor(desk: &Desk) -> BTreeSet<String> {
    codes(&desk.requiem(&["doctor", "--cas", "store", "--json"]))
}

/// What is found in a mount namespace after `script`, and was not found before.
fn found_after(script: &str, command: &str) -> BTreeSet<String> {
    let desk = healthy();
    let before = doctor(&desk);
    let program = env!("CARGO_BIN_EXE_requiem");
    let all = format!("set -e\n{script}\n{command} {program} doctor --cas store --json");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", &all]);
    let said = said(&unshare.current_dir(desk.path(".")).output().unwrap());
    codes(&said).difference(&before).cloned().collect()
}

fn is_found(found: &BTreeSet<String>, code: &str) {
    assert!(found.contains(code), "{code} is not among {found:?}");
}

#[test]
fn every_area_is_looked_at_and_a_good_store_is_no_finding() {
    let desk = healthy();
    let said = desk.requiem(&["doctor", "--cas", "store", "--json"]);
    let areas: Vec<Value> =
        said.json()["checks"].as_array().unwrap().iter().map(|check| check["area"].clone()).collect();
    assert_eq!(areas, ["kernel", "sandbox", "store", "disk", "clock"]);
    let seen = said.json()["checks"][2]["seen"].as_str().unwrap().to_owned();
    assert!(seen.ends_with("1 of 1 objects read"), "{seen}");
    assert!(!codes(&said).iter().any(|code| code.starts_with("Store") || code.starts_with("Object")));
    let text = desk.requiem(&["doctor", "--cas", "store"]);
    assert!(text.stdout.starts_with("kernel   ") && text.stdout.contains("\nstore    ok "), "{text:?}");
    // Without a store there is nothing to find, unless it was named; and none is made.
    let said = desk.requiem(&["doctor", "--json"]);
    assert!(said.json()["checks"][2]["seen"].as_str().unwrap().ends_with("none yet"), "{said:?}");
    assert!(!desk.path("data").exists());
    let said = desk.requiem(&["doctor", "--cas", "absent", "--json"]);
    assert_eq!((said.code, said.json()["error_code"].as_str()), (2, Some("NoStore")), "{said:?}");
}

#[test]
fn an_empty_folder_stays_empty() {
    let desk = Desk::new();
    fs::create_dir(desk.path("empty")).unwrap();
    fs::set_permissions(desk.path("empty"), fs::Permissions::from_mode(0o777)).unwrap();
    let said = desk.requiem(&["doctor", "--cas", "empty", "--json"]);
    assert!(said.json()["checks"][2]["seen"].as_str().unwrap().ends_with("none yet"), "{said:?}");
    is_found(&codes(&said), "StoreOpenToOthers");
    assert_eq!(fs::read_dir(desk.path("empty")).unwrap().count(), 0, "it changes nothing");
}

#[test]
fn a_quarantine_is_counted_and_not_followed() {
    let desk = healthy();
    desk.write("elsewhere/file", "not of the store");
    let quarantine = desk.path("store/tenants/default/quarantine");
    fs::write(quarantine.join("bad"), "bad").unwrap();
    let said = desk.requiem(&["doctor", "--cas", "store", "--json"]);
    is_found(&codes(&said), "StoreQuarantine");
    assert!(said.stdout.contains("1 objects were found corrupt"), "{said:?}");
    fs::remove_dir_all(&quarantine).unwrap();
    std::os::unix::fs::symlink(desk.path("elsewhere"), &quarantine).unwrap();
    let said = desk.requiem(&["doctor", "--cas", "store", "--json"]);
    is_found(&codes(&said), "StoreUnusable");
    assert!(said.stdout.contains("default/quarantine is not a folder"), "{said:?}");
}

#[test]
fn a_store_that_others_may_change() {
    let desk = healthy();
    fs::set_permissions(desk.path("store"), fs::Permissions::from_mode(0o770)).unwrap();
    is_found(&doctor(&desk), "StoreOpenToOthers");
    fs::set_permissions(desk.path("store"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(!doctor(&desk).contains("StoreOpenToOthers"));
}

#[test]
fn a_store_of_another_user_and_one_that_cannot_be_used() {
    let desk = healthy();
    for folder in [".", "store"] {
        fs::set_permissions(desk.path(folder), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let found = codes(&unprivileged(&desk, &["doctor", "--cas", "store", "--json"]));
    is_found(&found, "StoreOfAnother");
    is_found(&found, "StoreUnusable");
    desk.write("store/format", "requiem-store/9\n");
    is_found(&doctor(&desk), "StoreUnusable");
}

#[test]
fn a_corrupt_object() {
    let desk = healthy();
    desk.write("two", "two");
    assert_eq!(desk.requiem(&["cas", "put", "two", "--cas", "store", "--tenant", "team"]).code, 0);
    assert!(!doctor(&desk).contains("ObjectCorrupt"));
    let objects = files(&desk.path("store/tenants/team/objects"));
    let object = objects.first().unwrap();
    fs::set_permissions(object, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(object, "TWO").unwrap();
    is_found(&doctor(&desk), "ObjectCorrupt");
    assert!(!doctor(&desk).contains("StoreQuarantine"), "looking changes nothing");
    // Whoever reads it has it moved away.
    let digest = desk.requiem(&["digest", "file", "two"]).stdout;
    assert_eq!(desk.requiem(&["cas", "get", digest.trim(), "--cas", "store", "--tenant", "team"]).code, 2);
    let found = doctor(&desk);
    is_found(&found, "StoreQuarantine");
    assert!(!found.contains("ObjectCorrupt"), "it is served no more");
    // A sample of none reads none.
    fs::write(files(&desk.path("store/tenants/default/objects")).first().unwrap(), "ONE").unwrap();
    let none = codes(&desk.requiem(&["doctor", "--cas", "store", "--sample", "0", "--json"]));
    assert!(!none.contains("ObjectCorrupt"), "{none:?}");
    is_found(&doctor(&desk), "ObjectCorrupt");
}

#[test]
fn a_disk_without_room() {
    let desk = Desk::new();
    let program = env!("CARGO_BIN_EXE_requiem");
    let on = |options: &str| {
        let script = format!(
            "{program} cas put - --cas disk/store < /dev/null > /dev/null; {program} doctor --cas disk/store --json"
        );
        codes(&on_a_small_disk(&desk, options, &script))
    };
    is_found(&on("size=4m"), "DiskFull");
    is_found(&on("size=500m"), "DiskLow");
    is_found(&on("size=2g,nr_inodes=2000"), "InodesLow");
    let good = on("size=2g,nr_inodes=50000");
    assert!(!good.iter().any(|code| code.starts_with("Disk") || code.starts_with("Inodes")), "{good:?}");
}

#[test]
fn a_clock_that_was_set_back() {
    let desk = healthy();
    assert!(!doctor(&desk).contains("ClockBehind"));
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(desk.path("store/format")).unwrap().set_modified(later).unwrap();
    is_found(&doctor(&desk), "ClockBehind");
}

#[test]
fn an_old_kernel() {
    let script = "echo 4.19.0 > osrelease; mount --bind osrelease /proc/sys/kernel/osrelease";
    is_found(&found_after(script, ""), "KernelTooOld");
}

#[test]
fn user_namespaces_that_are_off() {
    let desk = healthy();
    let before = doctor(&desk);
    let program = env!("CARGO_BIN_EXE_requiem");
    let inside = |command: &str| {
        let script = format!(
            "set -e; echo 0 > /proc/sys/user/max_user_namespaces
             {command} {program} doctor --cas store --json"
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount-proc", "--pid", "--fork", "sh", "-c", &script]);
        codes(&said(&unshare.current_dir(desk.path(".")).output().unwrap()))
    };
    assert!(!before.contains("UserNamespacesOff"));
    let found = inside("");
    is_found(&found, "UserNamespacesOff");
    is_found(&found, "LayerNotInForce");
    // Without any capability nothing can be run at all.
    is_found(&inside("setpriv --bounding-set=-all --inh-caps=-all"), "SandboxUnusable");
}

#[test]
fn switches_of_distributions() {
    let lay = |switch: &str, value: &str| {
        let script = format!(
            "mkdir kernel; cat /proc/sys/kernel/osrelease > kernel/osrelease; echo {value} > kernel/{switch}
             chmod -R a+rX . ; cp {} ./requiem; chmod 755 requiem kernel; mount --bind kernel /proc/sys/kernel",
            env!("CARGO_BIN_EXE_requiem")
        );
        let others =
            "setpriv --reuid 65534 --regid 65534 --clear-groups ./requiem doctor --cas store --json; exit;";
        (found_after(&script, others), found_after(&script, ""))
    };
    for (switch, bad, good, code) in [
        ("unprivileged_userns_clone", "0", "1", "UserNamespacesForbidden"),
        ("apparmor_restrict_unprivileged_userns", "1", "0", "UserNamespacesRestricted"),
    ] {
        let (others, root) = lay(switch, bad);
        is_found(&others, code);
        assert!(!root.contains(code), "root is not bound by {switch}");
        assert!(!lay(switch, good).0.contains(code), "{switch} is {good}");
    }
}

#[test]
fn cgroups_that_are_not_there() {
    let found = found_after("mount -t tmpfs none /sys/fs/cgroup", "");
    is_found(&found, "LayerNotInForce");
}
