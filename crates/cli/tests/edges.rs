//! Where commands meet the world: pipes that close, Ctrl-C, no terminal, strange names, full disks, missing permissions,
//! streams without an end. Each leaves nothing half-written, and says what to do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/edge.rs"]
mod edge;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use common::{ATTENTIVE, Desk, Said, said};
use edge::{Processes, entries, on_a_small_disk, unprivileged};
use requiem_model::BlobDigest;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

fn shell(script: &str) -> Value {
    let layers = json!({"cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "preferred"});
    json!({"command": "/bin/sh", "argv": ["-c", script], "policy": {"layers": layers}})
}

/// A desk with a request, its result and its proof, and 1 MiB of text in the store.
fn busy() -> (Desk, String) {
    let desk = Desk::new();
    desk.write("request.json", shell("seq 1 1000").to_string());
    let arguments =
        ["exec", "run", "--request", "request.json", "--out", "result.json", "--proof", "proof.json"];
    let ran = desk.requiem(&arguments);
    assert_eq!(ran.code, 0, "{ran:?}");
    desk.write("large", "0123456789abcde\n".repeat(1 << 16));
    let digest = desk.requiem(&["cas", "put", "large"]).stdout.trim().to_owned();
    (desk, digest)
}

fn code(said: &Said) -> String {
    said.json()["error_code"].as_str().unwrap_or("ok").to_owned()
}

// === pipes and terminals ===

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (desk, digest) = busy();
    for command in [
        "--help",
        "exec run --help",
        "--version",
        "health",
        "exec run --request request.json",
        "exec run --request request.json --json",
        "exec replay --bundle proof.json",
        &format!("cas get {digest}"),
        "cas put large",
        "digest file large",
        "proof show proof.json",
        "proof show proof.json --json",
        "proof verify proof.json",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let arguments: Vec<&str> = command.split(' ').collect();
        let said = said(&desk.command(&arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap());
        let good = if command == "health" { said.code <= 1 } else { said.code == 0 };
        assert!(good && said.stderr.is_empty(), "{command}: {said:?}");
    }
}

#[test]
fn an_output_that_is_full_is_an_error_about_the_output() {
    let (desk, digest) = busy();
    for command in ["--help", "proof show proof.json --json", &format!("cas get {digest}")] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let said = said(&desk.command(&arguments).stdout(full).stderr(Stdio::piped()).output().unwrap());
        assert_eq!(said.code, 2, "{command}: {said:?}");
        assert!(said.stderr.contains("cannot write to standard output: No space left"), "{said:?}");
    }
}

#[test]
fn without_a_terminal_nothing_is_coloured() {
    let (desk, _) = busy();
    for arguments in [&["--help"][..], &["nonsense"], &["health"], &["proof", "show", "proof.json"]] {
        let mut command = desk.command(arguments);
        let said = said(&command.env("TERM", "xterm-256color").env_remove("NO_COLOR").output().unwrap());
        assert!(!said.stdout.contains('\u{1b}') && !said.stderr.contains('\u{1b}'), "{said:?}");
    }
}

#[test]
fn wrong_usage_is_a_document_too() {
    let desk = Desk::new();
    let said = desk.requiem(&["cas", "get", "sha256:00", "--json"]);
    assert_eq!((said.code, code(&said).as_str()), (2, "Usage"), "{said:?}");
    assert!(said.json()["message"].as_str().unwrap().contains("sha256:00"), "{said:?}");
    assert!(said.stderr.contains("sha256:00"), "{said:?}");
    assert_eq!(desk.requiem(&["cas", "get", "sha256:00"]).stdout, "");
}

// === interruption ===

/// Starts a run that does not end, in a process group of its own as a shell would, and ends it by `signals`.
fn interrupted(arguments: &[&str], signals: &[Signal]) -> (Desk, Said) {
    let desk = Desk::new();
    let marker = format!("sleep 600 # {}", desk.path(".").display());
    desk.write("request.json", shell(&marker).to_string());
    fs::create_dir(desk.path("tmp")).unwrap();
    let mut command = desk.attentive(arguments);
    command.env("TMPDIR", desk.path("tmp")).process_group(0);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let payload = Processes::wait_for(child.id(), &marker);
    let has_cgroups =
        desk.requiem(&["sandbox", "explain", "cgroup", "--json"]).json()["here"]["status"] == "enforced";
    assert_eq!(has_cgroups, !payload.groups().is_empty());
    for signal in signals {
        kill_process_group(Pid::from_child(&child), *signal).unwrap();
    }
    child.stdin.take();
    let said = said(&child.wait_with_output().unwrap());
    payload.assert_gone(Duration::ZERO);
    assert_eq!(payload.groups(), BTreeSet::new(), "a cgroup is left");
    assert_eq!(entries(&desk.path("tmp")), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(desk.path(".").to_str().unwrap()), "{mounts}");
    assert_eq!(entries(&desk.path("data/requiem/cas/tmp")), Vec::<String>::new());
    (desk, said)
}

#[test]
fn ctrl_c_ends_the_run_and_leaves_nothing() {
    let arguments = ["exec", "run", "--request", "request.json", "--out", "out.json", "--json"];
    let (desk, said) = interrupted(&arguments, &[Signal::INT]);
    assert_eq!((said.code, code(&said).as_str()), (130, "Interrupted"), "{said:?}");
    assert!(said.stderr.contains("interrupted by signal 2"), "{said:?}");
    let out: Value = serde_json::from_str(&desk.read("out.json")).unwrap();
    assert_eq!((&out["ok"], &out["error_code"]), (&json!(false), &json!("Interrupted")));
    let left = entries(&desk.path("."));
    assert_eq!(left, ["data", "out.json", "request.json", "tmp"]);
    // The store is as good as before.
    desk.write("request.json", shell("echo hi").to_string());
    assert_eq!(desk.requiem(&["exec", "run", "--request", "request.json"]).code, 0);
}

#[test]
fn termination_and_hang_up_end_it_too() {
    let arguments = ["exec", "run", "--request", "request.json"];
    assert_eq!(interrupted(&arguments, &[Signal::TERM]).1.code, 143);
    assert_eq!(interrupted(&arguments, &[Signal::HUP]).1.code, 129);
}

#[test]
fn what_the_caller_ignores_stays_ignored() {
    let desk = Desk::new();
    let marker = format!("sleep 600 # {}", desk.path(".").display());
    desk.write("request.json", shell(&marker).to_string());
    let program = env!("CARGO_BIN_EXE_requiem");
    let ignoring = format!("{ATTENTIVE} --ignore-signal=HUP");
    let script = format!("exec env {ignoring} {program} exec run --request request.json");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).current_dir(desk.path(".")).env("XDG_DATA_HOME", desk.path("data"));
    let child = shell.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let payload = Processes::wait_for(child.id(), &marker);
    let group = Pid::from_child(&child);
    kill_process_group(group, Signal::HUP).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "the hang-up was ignored, Ctrl-C was not");
    payload.assert_gone(Duration::ZERO);
}

#[test]
fn a_killed_command_takes_its_run_with_it() {
    let desk = Desk::new();
    let marker = format!("sleep 600 # {}", desk.path(".").display());
    desk.write("request.json", shell(&marker).to_string());
    let mut command = desk.command(&["exec", "run", "--request", "request.json"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let payload = Processes::wait_for(child.id(), &marker);
    child.kill().unwrap();
    child.wait().unwrap();
    payload.assert_gone(Duration::from_secs(10));
}

// === names ===

#[test]
fn paths_may_be_any_bytes() {
    let (desk, digest) = busy();
    let odd = |name: &str| {
        let bytes: Vec<u8> = name.bytes().chain(*b"-\xff\x1b[2J").collect();
        desk.path(".").join(OsStr::from_bytes(&bytes))
    };
    for name in ["large", "request.json", "proof.json", "result.json"] {
        fs::copy(desk.path(name), odd(name)).unwrap();
    }
    let check = |line: &[&str], path: &str, rest: &[&str]| {
        for json in [false, true] {
            let mut command = desk.command(line);
            command.arg(odd(path)).args(rest).args(json.then_some("--json"));
            let said = said(&command.output().unwrap());
            let good = if line == ["health", "--cas"] { said.code <= 1 } else { said.code == 0 };
            assert!(good, "{line:?}: {said:?}");
            assert!(!said.stdout.contains('\u{1b}') && !said.stderr.contains('\u{1b}'), "{said:?}");
            if json {
                assert!(said.json().is_object());
            }
        }
    };
    check(&["cas", "put"], "large", &[]);
    check(&["digest", "file"], "large", &[]);
    check(&["digest", "verify"], "large", &[&digest]);
    check(&["exec", "run", "--request", "request.json", "--out"], "new-result", &[]);
    check(&["exec", "run", "--request"], "request.json", &[]);
    check(&["exec", "replay", "--bundle"], "proof.json", &[]);
    check(&["proof", "show"], "proof.json", &[]);
    check(&["proof", "verify"], "proof.json", &[]);
    check(&["proof", "generate", "--result", "result.json", "--out"], "new-proof", &[]);
    check(&["proof", "generate", "--out", "again.json", "--result"], "result.json", &[]);
    check(&["health", "--cas"], "store", &[]);
    let errors = desk.command(&["proof", "show"]).arg(odd("absent")).output().unwrap();
    assert!(errors.status.code() == Some(2) && !errors.stderr.contains(&0x1b), "{errors:?}");
}

// === where output goes ===

#[test]
fn output_is_refused_before_anything_runs() {
    let desk = Desk::new();
    desk.write("request.json", shell("echo ran").to_string());
    desk.write("file", "");
    fs::create_dir(desk.path("folder")).unwrap();
    for (option, path) in [
        ("--out", "folder"),
        ("--proof", "folder"),
        ("--out", "folder/"),
        ("--out", "absent/out.json"),
        ("--out", "file/out.json"),
        ("--out", ".."),
    ] {
        let said = desk.requiem(&["exec", "run", "--request", "request.json", option, path, "--json"]);
        assert_eq!((said.code, code(&said).as_str()), (2, "File"), "{option} {path}: {said:?}");
        assert!(!desk.path("data").exists(), "{option} {path}: it ran");
    }
    assert_eq!(entries(&desk.path("folder")), Vec::<String>::new());
    assert_eq!(entries(&desk.path(".")), ["file", "folder", "request.json"]);
}

#[test]
fn a_file_is_replaced_as_a_whole_and_keeps_its_mode() {
    let (desk, _) = busy();
    desk.write("private", "old");
    fs::set_permissions(desk.path("private"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("private", desk.path("link")).unwrap();
    let said = desk.requiem(&["proof", "generate", "--result", "result.json", "--out", "link"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(desk.path("link").is_symlink(), "the link is still one");
    assert_eq!(desk.read("private"), desk.read("proof.json"));
    assert_eq!(fs::metadata(desk.path("private")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_device_or_pipe_is_written_to_and_stays() {
    let (desk, _) = busy();
    // Stands for /dev/stdout and /dev/null, which no test should lose.
    symlink("/dev/null", desk.path("null")).unwrap();
    let status = std::process::Command::new("mkfifo").arg(desk.path("pipe")).status().unwrap();
    assert!(status.success());
    for device in ["null", "/dev/null"] {
        let said = desk.requiem(&["proof", "generate", "--result", "result.json", "--out", device]);
        assert_eq!(said.code, 0, "{said:?}");
        let meta = fs::metadata("/dev/null").unwrap();
        assert!(!meta.is_file(), "/dev/null is a device");
    }
    let path = desk.path("pipe");
    let reader = std::thread::spawn(move || fs::read_to_string(path).unwrap());
    let said = desk.requiem(&["proof", "generate", "--result", "result.json", "--out", "pipe"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(reader.join().unwrap(), desk.read("proof.json"));
}

// === full disks ===

#[test]
fn a_full_disk_keeps_what_was_there_and_nothing_half() {
    let (desk, digest) = busy();
    desk.write("small/file", "kept");
    let program = env!("CARGO_BIN_EXE_requiem");
    // 64 KiB of disk, of which 60 are taken.
    let fill = "head -c 61440 /dev/zero > disk/filler; echo old > disk/there";
    for (command, error) in [
        (format!("{program} cas get {digest} --out disk/new"), "[File]"),
        (format!("{program} proof generate --result result.json --out disk/new"), "[File]"),
        (format!("{program} proof generate --result result.json --out disk/there"), "[File]"),
        (format!("{program} exec run --request request.json --out disk/there"), "[File]"),
        (format!("{program} exec run --request request.json --proof disk/new"), "[File]"),
    ] {
        let said = on_a_small_disk(
            &desk,
            "size=64k",
            &format!("{fill}; {command}; echo code $?; ls -A disk; cat disk/there"),
        );
        assert!(said.stdout.ends_with("code 2\nfiller\nthere\nold\n"), "{command}: {said:?}");
        assert!(said.stderr.contains(error) && said.stderr.contains("No space left"), "{command}: {said:?}");
        assert!(said.stderr.contains("hint: make room"), "{command}: {said:?}");
    }
}

#[test]
fn a_full_store_keeps_what_was_there_and_nothing_half() {
    let desk = Desk::new();
    desk.write("small/file", "kept");
    // 3 MiB that do not compress.
    let noise: Vec<u8> =
        (0..100_000_u32).flat_map(|number| *blake3::hash(&number.to_le_bytes()).as_bytes()).collect();
    desk.write("large", &noise);
    desk.write("tree/large", &noise);
    let program = env!("CARGO_BIN_EXE_requiem");
    for source in ["large", "- < large", "tree"] {
        let script = format!(
            "{program} cas put small/file --cas disk/store; find disk | sort > before;
             {program} cas put {source} --cas disk/store; echo code $?; find disk | sort | diff before - && echo same"
        );
        let said = on_a_small_disk(&desk, "size=1500k", &script);
        assert!(said.stdout.ends_with("code 2\nsame\n"), "{source}: {said:?}");
        assert!(said.stderr.contains("the store is full") && said.stderr.contains("[StoreFull]"), "{said:?}");
    }
}

#[test]
fn a_folder_that_does_not_fit_is_not_left_half() {
    let desk = Desk::new();
    for number in 0..40 {
        desk.write(&format!("tree/{number}"), format!("{number}\n").repeat(2000));
    }
    let digest = desk.requiem(&["cas", "put", "tree"]).stdout;
    let program = env!("CARGO_BIN_EXE_requiem");
    let script =
        format!("{program} cas get {} --tree --out disk/out; echo code $?; ls -A disk", digest.trim());
    let said = on_a_small_disk(&desk, "size=64k", &script);
    assert_eq!(said.stdout, "code 2\n", "{said:?}");
    assert!(said.stderr.contains("No space left"), "{said:?}");
}

// === permissions ===

#[test]
fn a_missing_permission_is_named() {
    let (desk, _) = busy();
    let secret = |name: &str, mode| {
        fs::set_permissions(desk.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    for name in ["request.json", "proof.json", "large"] {
        secret(name, 0);
    }
    fs::create_dir(desk.path("locked")).unwrap();
    secret("locked", 0o555);
    secret(".", 0o755);
    desk.write("open.json", shell("echo hi").to_string());
    for (arguments, part) in [
        (&["proof", "show", "proof.json"][..], "cannot read proof.json"),
        (&["exec", "run", "--request", "request.json"], "cannot read request.json"),
        (&["cas", "put", "large", "--cas", "locked/store"], "locked/store"),
        (&["digest", "file", "large"], "cannot read large"),
        (&["exec", "run", "--request", "open.json", "--out", "locked/out"], "cannot write locked/out"),
        (&["cas", "put", "open.json", "--cas", "data/requiem/cas"], "data/requiem"),
    ] {
        let said = unprivileged(&desk, arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {said:?}");
        assert!(said.stderr.contains(part) && said.stderr.contains("Permission denied"), "{said:?}");
        assert!(said.stderr.contains("hint: check"), "{arguments:?}: {said:?}");
    }
    for name in ["locked", "request.json", "proof.json", "large"] {
        secret(name, 0o755);
    }
}

// === streams without an end ===

#[test]
fn a_stream_without_an_end_is_cut_off_and_leaves_nothing() {
    let desk = Desk::new();
    desk.requiem(&["cas", "put", "-"]);
    let objects = || edge::files(&desk.path("data/requiem/cas"));
    let before = objects();
    // More than the store keeps in memory, so that it has begun to write.
    let limit = (20 << 20).to_string();
    for path in ["-", "/dev/zero"] {
        let endless = fs::File::open("/dev/zero").unwrap();
        let mut command = desk.command(&["cas", "put", path, "--max-bytes", &limit, "--json"]);
        let said = said(&command.stdin(endless).output().unwrap());
        assert_eq!((said.code, code(&said).as_str()), (2, "TooLarge"), "{said:?}");
        assert!(said.stderr.contains(&format!("more than {limit} bytes")), "{said:?}");
        assert_eq!(objects(), before);
    }
    // The limit itself is allowed, for files, streams and folders alike.
    desk.write("tree/file", "12345");
    for (limit, code) in [("5", 0), ("4", 2)] {
        for path in ["-", "tree/file", "tree"] {
            let mut command = desk.command(&["cas", "put", path, "--max-bytes", limit]);
            let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(b"12345").unwrap();
            let said = said(&child.wait_with_output().unwrap());
            assert_eq!(said.code, code, "{path} {limit}: {said:?}");
        }
    }
    assert_eq!(
        BlobDigest::of(b"12345").to_string(),
        desk.requiem(&["digest", "file", "tree/file"]).stdout.trim()
    );
}

#[test]
fn documents_without_an_end_are_cut_off_too() {
    let desk = Desk::new();
    for arguments in
        [&["exec", "run", "--request", "-"][..], &["proof", "show", "-"], &["proof", "verify", "-"]]
    {
        let endless = fs::File::open("/dev/zero").unwrap();
        let said = said(&desk.command(arguments).stdin(endless).output().unwrap());
        assert!(said.code == 2 && said.stderr.contains("[TooLarge]"), "{arguments:?}: {said:?}");
    }
}
