//! `requiem cas ls`, `info`, `stats`, `verify`, `gc` and `pin`, as their users run them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Desk, Said, repository};
use requiem_cas::{Durability, Store, Tenant, TenantStore};
use requiem_executor::archive::Archive;
use requiem_executor::journal::{Asked, InlineBlob, Journal, JournalOptions, Record};
use requiem_model::attempt::SealedAttempt;
use requiem_model::request::InputSource;
use requiem_model::result::OutputContent;
use requiem_model::{BlobDigest, RequestDigest, TreeDigest};
use requiem_proof::{BundleBody, Sealed, seal};
use serde_json::Value;

/// Everything is old enough.
const NOW: &[&str] = &["--older-than", "0s"];

fn open(desk: &Desk, tenant: &str) -> TenantStore {
    Store::open(&desk.path("store")).unwrap().tenant(&Tenant::parse(tenant).unwrap()).unwrap()
}

fn put(desk: &Desk, content: &[u8]) -> BlobDigest {
    open(desk, "default").put_bytes(content, Durability::Volatile).unwrap().digest
}

fn cas(desk: &Desk, arguments: &[&str]) -> Said {
    desk.requiem(&[&["cas"], arguments, &["--cas", "store"]].concat())
}

fn put_tree(desk: &Desk, name: &str, files: &[(&str, &str)]) -> String {
    for (path, content) in files {
        desk.write(&format!("{name}/{path}"), content);
    }
    let said = cas(desk, &["put", name]);
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout.trim().to_owned()
}

/// Digests of all objects, as `ls` tells them.
fn listed(desk: &Desk) -> BTreeSet<String> {
    let document = cas(desk, &["ls", "--json"]).json();
    let digest = |row: &Value| row["digest"].as_str().unwrap().to_owned();
    document["objects"].as_array().unwrap().iter().map(digest).collect()
}

fn object_file(desk: &Desk, digest: &BlobDigest) -> PathBuf {
    let hex = digest.to_hex();
    let raw = desk.path("store/tenants/default/objects").join(&hex[..2]).join(&hex);
    if raw.exists() { raw } else { raw.with_extension("zst") }
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        }
        found.insert(entry.path());
    }
    found
}

// --- ls

#[test]
fn objects_are_listed_with_kind_and_sizes() {
    let desk = Desk::new();
    let hello = put(&desk, b"hello");
    let text = put(&desk, "many lines\n".repeat(1000).as_bytes());
    open(&desk, "team-a").put_bytes(b"hello", Durability::Volatile).unwrap();
    let tree = put_tree(&desk, "src", &[("a", "hello")]);
    // An object with both names is one, and its compressed form is the one that is read.
    fs::write(object_file(&desk, &text).with_extension(""), "many lines\n".repeat(1000)).unwrap();
    let document = cas(&desk, &["ls", "--json"]).json();
    assert_eq!(document["ok"], true);
    let rows = document["objects"].as_array().unwrap();
    let row = |digest: &str, tenant: &str| {
        rows.iter()
            .find(|row| row["digest"] == digest && row["tenant"] == tenant)
            .unwrap_or_else(|| panic!("{document}"))
    };
    assert_eq!(rows.len(), 4);
    assert_eq!(
        (&row(&hello.to_string(), "team-a")["kind"], &row(&hello.to_string(), "team-a")["bytes"]),
        (&"blob".into(), &5.into())
    );
    assert_eq!(
        (&row(&tree, "default")["kind"], &row(&text.to_string(), "default")["bytes"]),
        (&"tree".into(), &11_000.into())
    );
    let stored = fs::metadata(object_file(&desk, &text).with_extension("zst")).unwrap().len();
    assert!(stored < 1000 && row(&text.to_string(), "default")["stored_bytes"] == stored);

    let said = cas(&desk, &["ls", "--tenant", "team-a"]);
    assert_eq!(said.stdout, format!("{hello}  blob             5             5  team-a\n"));
    let said = cas(&desk, &["ls", "--tenant", "team-b", "--json"]);
    assert_eq!((said.code, &said.json()["error_code"]), (2, &"Tenant".into()));
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_list_quietly() {
    let desk = Desk::new();
    let store = open(&desk, "default");
    // Far more than a pipe holds.
    for number in 0..2000u32 {
        store.put_bytes(&number.to_le_bytes(), Durability::Volatile).unwrap();
    }
    for format in [&[][..], &["--json"]] {
        let mut command = desk.command(&[&["cas", "ls", "--cas", "store"], format].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(!first.is_empty());
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    }
}

#[test]
fn where_there_is_no_store_none_is_made() {
    let desk = Desk::new();
    let digest = BlobDigest::of(b"x").to_string();
    let commands: [&[&str]; 8] = [
        &["ls"],
        &["info", &digest],
        &["stats"],
        &["verify", "--all"],
        &["gc"],
        &["pin", "add", &digest],
        &["pin", "rm", &digest],
        &["pin", "ls"],
    ];
    for command in commands {
        let said = cas(&desk, &[command, &["--json"]].concat());
        assert_eq!((said.code, &said.json()["error_code"]), (2, &"NoStore".into()), "{command:?}");
        assert!(said.stderr.contains("--cas DIR"), "{said:?}");
    }
    assert_eq!(files(&desk.path(".")).len(), 0);
}

// --- info, stats

#[test]
fn info_tells_what_names_an_object() {
    let desk = Desk::new();
    let tree = put_tree(&desk, "src", &[("a", "hello")]);
    let hello = BlobDigest::of(b"hello").to_string();
    let alone = put(&desk, b"alone").to_string();
    assert_eq!(cas(&desk, &["pin", "add", &hello, "--name", "greeting"]).code, 0);
    let body = body_naming(&desk, &[("out", b"hello")]);
    let root = archive(&desk, &body).bundle_root;
    let info = cas(&desk, &["info", &hello, "--json"]).json();
    assert_eq!(
        (&info["kind"], &info["bytes"], &info["stored_bytes"]),
        (&"blob".into(), &5.into(), &5.into())
    );
    let named = &info["referenced_by"];
    assert_eq!(named["pins"], serde_json::json!([{"name": "greeting"}]));
    assert_eq!(named["trees"], serde_json::json!([tree]));
    assert_eq!(named["bundles"], serde_json::json!([root.to_string()]));
    assert_eq!(
        (named["results"].as_array().unwrap().len(), info["unknown"].as_array().unwrap().len()),
        (0, 0)
    );
    for time in ["created", "last_put"] {
        let text = info[time].as_str().unwrap_or_else(|| panic!("{info}"));
        assert!(text.len() == 24 && text.starts_with("20") && text.ends_with('Z'), "{text}");
    }
    let said = cas(&desk, &["info", &tree]);
    assert!(
        said.stdout.contains("kind        tree\n") && said.stdout.contains("by nothing in this store"),
        "{said:?}"
    );
    let said = cas(&desk, &["info", &alone]);
    assert!(said.stdout.contains("size        5 bytes (5)\n"), "{said:?}");
    let absent = BlobDigest::of(b"absent").to_string();
    let said = cas(&desk, &["info", &absent, "--json"]);
    assert_eq!((said.code, &said.json()["error_code"]), (2, &"NotFound".into()));
}

#[test]
fn stats_are_counted_and_what_is_not_understood_is_a_finding() {
    let desk = Desk::new();
    put(&desk, &[7; 100]);
    let text = "many lines\n".repeat(1000);
    let large = put(&desk, text.as_bytes());
    let stats = cas(&desk, &["stats", "--top", "1", "--json"]).json();
    let stored = 100 + fs::metadata(object_file(&desk, &large)).unwrap().len();
    assert_eq!(
        (&stats["objects"], &stats["bytes"], &stats["stored_bytes"]),
        (&2.into(), &11_100.into(), &stored.into())
    );
    assert_eq!(stats["largest"][0]["digest"], large.to_string());
    let ratio = stats["compression_ratio"].as_f64().unwrap();
    assert!((ratio - 11_100.0 / stored as f64).abs() < 0.001, "{ratio}");
    assert!(stats.get("hit_rate").is_none(), "nobody measures one");
    let shown = cas(&desk, &["stats"]).stdout;
    assert!(shown.contains("objects       2 objects of 1 tenant, 1 of them compressed\n"), "{shown}");
    fs::write(desk.path("store/tenants/default/objects/00/notes.txt"), "").unwrap();
    let said = cas(&desk, &["stats"]);
    assert!(said.code == 1 && said.stdout.contains("UnknownEntry"), "{said:?}");
}

// --- verify

#[test]
fn damage_is_named_and_left_where_it_is() {
    let desk = Desk::new();
    let (good, bad) = (put(&desk, b"good"), put(&desk, b"bad!"));
    let said = cas(&desk, &["verify", "--all"]);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, "verified 2 of 2 objects, 8 bytes: all of them are what their names say\n")
    );
    let path = object_file(&desk, &bad);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "evil").unwrap();
    let said = cas(&desk, &["verify", "--all", "--json"]);
    let document = said.json();
    assert_eq!(
        (said.code, &document["ok"], &document["objects"], &document["checked"]),
        (1, &false.into(), &2.into(), &2.into())
    );
    let damaged = document["damaged"].as_array().unwrap();
    assert_eq!(damaged.len(), 1);
    assert_eq!(
        (&damaged[0]["digest"], &damaged[0]["error_code"]),
        (&bad.to_string().into(), &"WrongDigest".into())
    );
    assert!(document.get("upper_bound").is_none());
    assert_eq!(fs::read(&path).unwrap(), b"evil");
    assert_eq!(cas(&desk, &["get", &good.to_string()]).stdout, "good");
}

#[test]
fn a_sample_states_its_size_and_what_it_says_of_the_rest() {
    let desk = Desk::new();
    let store = open(&desk, "default");
    for number in 0..400u32 {
        store.put_bytes(&number.to_le_bytes(), Durability::Volatile).unwrap();
    }
    let document = cas(&desk, &["verify", "--sample", "59", "--json"]).json();
    assert_eq!(
        (&document["extent"], &document["objects"], &document["checked"]),
        (&"sample".into(), &400.into(), &59.into())
    );
    let bound = &document["upper_bound"];
    assert_eq!((&bound["confidence_percent"], &bound["method"]), (&95.into(), &"hypergeometric".into()));
    // C(400 - d, 59) / C(400, 59) is above 5 % up to d = 18.
    assert_eq!((bound["objects"].as_u64(), bound["share"].as_f64()), (Some(18), Some(0.045)));
    let said = cas(&desk, &["verify", "--sample", "59"]);
    assert!(
        said.stdout.contains("at most 18 of all (4.500 %) are damaged, with 95 % confidence"),
        "{said:?}"
    );
    for wrong in [&["verify"][..], &["verify", "--all", "--sample", "3"], &["verify", "--sample", "0"]] {
        assert_eq!(cas(&desk, wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn ctrl_c_ends_verifying_at_once_and_says_how_far_it_came() {
    let desk = Desk::new();
    let small = put(&desk, b"small");
    // A hole of 256 GiB under some name: reading it takes minutes.
    let hex = BlobDigest::of(b"never read to its end").to_hex();
    let path = desk.path("store/tenants/default/objects").join(&hex[..2]).join(&hex);
    fs::File::create(&path).unwrap().set_len(256 << 30).unwrap();
    let mut command = desk.attentive(&["cas", "verify", "--all", "--cas", "store"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It reads the hole when the small object is done.
    await_that(&format!("{} reads", child.id()), || has_open(child.id(), &path));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("broken off after 1 object: none of them is damaged [Interrupted]"), "{stderr}");
    assert_eq!(fs::read_dir(desk.path("store/tmp")).unwrap().count(), 0);
    assert_eq!(cas(&desk, &["get", &small.to_string()]).stdout, "small");
}

fn has_open(process: u32, path: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let mut targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.any(|target| target.file_name() == path.file_name())
}

/// Asks until it is so; a minute is the bound of a test that has gone wrong.
fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !is_so() {
        assert!(begin.elapsed().as_secs() < 60, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

// --- pins

#[test]
fn pins_are_added_listed_and_removed() {
    let desk = Desk::new();
    let tree = put_tree(&desk, "src", &[("a", "one"), ("b/c", "two")]);
    let said = cas(&desk, &["pin", "add", &tree, "--name", "release 1"]);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, format!("pinned {tree} and 3 objects that it names\n").as_str())
    );
    let blob = BlobDigest::of(b"one").to_string();
    assert_eq!(cas(&desk, &["pin", "add", &blob]).stdout, format!("pinned {blob}\n"));
    let pins = cas(&desk, &["pin", "ls", "--json"]).json();
    assert_eq!(pins["pins"].as_array().unwrap().len(), 2);
    assert!(cas(&desk, &["pin", "ls"]).stdout.contains("release 1"));
    let said = cas(&desk, &["pin", "rm", &tree, "--name", "release 2", "--json"]);
    assert_eq!((said.code, &said.json()["error_code"]), (1, &"NotPinned".into()));
    assert_eq!(cas(&desk, &["pin", "rm", &tree]).code, 0);
    assert_eq!(cas(&desk, &["pin", "ls", "--json"]).json()["pins"].as_array().unwrap().len(), 1);
    let said = cas(&desk, &["pin", "add", &blob, "--name", "two\nlines", "--json"]);
    assert_eq!((said.code, &said.json()["error_code"]), (2, &"BadPinName".into()));
}

#[test]
fn what_is_not_complete_is_not_pinned() {
    let desk = Desk::new();
    let tree = put_tree(&desk, "src", &[("a", "one"), ("b/c", "two")]);
    fs::remove_file(object_file(&desk, &BlobDigest::of(b"two"))).unwrap();
    let said = cas(&desk, &["pin", "add", &tree, "--json"]);
    assert_eq!((said.code, &said.json()["error_code"]), (2, &"NotFound".into()));
    assert!(said.stderr.contains(&BlobDigest::of(b"two").to_string()), "{said:?}");
    assert!(cas(&desk, &["pin", "ls"]).stdout.is_empty());
}

// --- gc

#[test]
fn a_dry_run_removes_nothing_and_says_what_would_go() {
    let desk = Desk::new();
    let (kept, lost) = (put(&desk, b"kept"), put(&desk, b"lost!"));
    assert_eq!(cas(&desk, &["pin", "add", &kept.to_string()]).code, 0);
    let before = files(&desk.path("store"));
    let said = cas(&desk, &[&["gc"], NOW].concat());
    assert_eq!(said.code, 0, "{said:?}");
    let expected = format!(
        "{lost}  5 bytes  default\n\
         would remove  1 object, 5 bytes\n\
         would keep    1 object, 4 bytes, named by 1 pin and 0 results\n\
         {:14}0 objects, 0 bytes, put less than 0s ago\n\
         nothing was removed: this was a dry run; --delete removes\n",
        ""
    );
    assert_eq!(said.stdout, expected);
    assert_eq!(files(&desk.path("store")), before);
    // Without an age, everything here is too young.
    let document = cas(&desk, &["gc", "--delete", "--json"]).json();
    assert_eq!((&document["remove"]["objects"], &document["keep_young"]["objects"]), (&0.into(), &1.into()));
    assert_eq!((&document["older_than_seconds"], &document["deleted"]), (&1_209_600.into(), &true.into()));
    let document = cas(&desk, &[&["gc", "--delete", "--json"], NOW].concat()).json();
    assert_eq!(document["objects"][0]["digest"], lost.to_string());
    assert_eq!(listed(&desk), BTreeSet::from([kept.to_string()]));
    for bad in ["", "3", "-1d", "1y"] {
        assert_eq!(cas(&desk, &["gc", "--older-than", bad]).code, 2, "{bad:?}");
    }
}

#[test]
fn a_store_in_use_is_left_alone() {
    let desk = Desk::new();
    put(&desk, b"lost");
    let mut writer = desk.command(&["cas", "put", "-", "--cas", "store"]);
    let mut child = writer.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    await_that("a session", || fs::read_dir(desk.path("store/tmp")).unwrap().count() == 1);
    for more in [&[][..], &["--delete"]] {
        let said = cas(&desk, &[&["gc", "--json"], NOW, more].concat());
        assert_eq!((said.code, &said.json()["error_code"]), (2, &"StoreInUse".into()));
        assert!(
            said.stderr.contains("in use by 1 other process") && said.stderr.contains("stop the executors"),
            "{said:?}"
        );
    }
    child.stdin.take().unwrap().write_all(b"new").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(listed(&desk).len(), 2);
    assert_eq!(cas(&desk, &[&["gc", "--delete"], NOW].concat()).code, 0);
    assert!(listed(&desk).is_empty());
}

#[test]
fn a_run_is_kept_with_everything_that_its_result_names() {
    let desk = Desk::new();
    let tree = put_tree(&desk, "src", &[("in", "b\na\n")]);
    let lost = put(&desk, b"lost");
    let layers: serde_json::Map<String, Value> = ["cgroup", "cgroupNamespace", "landlock"]
        .map(|layer| (layer.to_owned(), "preferred".into()))
        .into_iter()
        .collect();
    let request = serde_json::json!({
        "command": "/bin/sh", "argv": ["-c", "sort src/in > out; echo done"],
        "inputs": {"src": {"tree": tree}}, "outputs": ["out"], "policy": {"layers": layers},
    });
    desk.write("request.json", request.to_string());
    let run = desk.requiem(&[
        "exec",
        "run",
        "--request",
        "request.json",
        "--proof",
        "proof.json",
        "--cas",
        "store",
        "--json",
    ]);
    assert_eq!(run.code, 0, "{run:?}");
    let bundle = run.json()["bundle_root"].as_str().unwrap().to_owned();
    let document = cas(&desk, &[&["gc", "--delete", "--json"], NOW].concat()).json();
    assert_eq!(document["results"], serde_json::json!({"journal": 0, "archive": 1}));
    assert_eq!(
        (document["missing"].as_array().unwrap().len(), &document["objects"][0]["digest"]),
        (0, &lost.to_string().into())
    );
    assert_eq!(document["objects"].as_array().unwrap().len(), 1);
    let verified = desk.requiem(&["proof", "verify", "proof.json", "--cas", "store"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    assert_eq!(cas(&desk, &["get", &BlobDigest::of(b"a\nb\n").to_string()]).stdout, "a\nb\n");
    // Who lets go of the result lets go of its objects.
    let hex = bundle.strip_prefix("blake3:").unwrap();
    fs::remove_file(desk.path("store/proofs/default").join(&hex[..2]).join(format!("{hex}.json"))).unwrap();
    assert_eq!(cas(&desk, &[&["gc", "--delete"], NOW].concat()).code, 0);
    assert!(listed(&desk).is_empty());
}

#[test]
fn a_pinned_result_document_keeps_its_objects() {
    let desk = Desk::new();
    let body = body_naming(&desk, &[("out", b"output")]);
    let sealed = seal(&body).unwrap();
    let (proof, result) =
        (sealed.to_file().unwrap(), serde_json::json!({"proof_body": sealed.body}).to_string());
    let objects = listed(&desk);
    assert_eq!(objects.len(), 3, "the output and two empty streams are {objects:?}");
    for document in [proof, result, sealed.body] {
        let digest = put(&desk, document.as_bytes()).to_string();
        let said = cas(&desk, &["pin", "add", &digest, "--name", "a result"]);
        assert!(said.stdout.contains("and 3 objects that it names"), "{said:?}");
        let info = cas(&desk, &["info", &BlobDigest::of(b"output").to_string(), "--json"]).json();
        assert_eq!(info["referenced_by"]["pinned_documents"], serde_json::json!([digest]));
        assert_eq!(cas(&desk, &[&["gc", "--delete"], NOW].concat()).code, 0);
        let kept: BTreeSet<String> = objects.iter().cloned().chain([digest.clone()]).collect();
        assert_eq!(listed(&desk), kept);
        assert_eq!(cas(&desk, &["pin", "rm", &digest]).code, 0);
    }
    assert_eq!(cas(&desk, &[&["gc", "--delete"], NOW].concat()).code, 0);
    assert!(listed(&desk).is_empty());
}

/// A bundle of tenant `default` whose only objects are these outputs, an input, and its streams, all of them put.
fn body_naming(desk: &Desk, outputs: &[(&str, &[u8])]) -> BundleBody {
    let vector: Value =
        serde_json::from_slice(&fs::read(repository("crates/proof/tests/vectors/bundle.json")).unwrap())
            .unwrap();
    let mut body: BundleBody = serde_json::from_str(vector["body"].as_str().unwrap()).unwrap();
    body.run.identity.namespace = "default".to_owned();
    let store = open(desk, "default");
    let keep = |content: &[u8]| store.put_bytes(content, Durability::Volatile).unwrap().digest;
    let (request, result) = (&mut body.execution.request, &mut body.execution.result);
    request.stdin = None;
    request.inputs.retain_mut(|input| match &mut input.source {
        InputSource::Blob { digest, .. } => {
            *digest = keep(b"input");
            true
        }
        InputSource::Tree { .. } => false,
    });
    result.missing_outputs.clear();
    let mut output = result.outputs[0].clone();
    result.outputs.clear();
    request.outputs.clear();
    for (path, content) in outputs {
        output.path = requiem_model::RelPath::parse(path).unwrap();
        let digest = keep(content);
        output.content = OutputContent::Blob { digest, bytes: content.len() as u64, executable: false };
        request.outputs.push(output.path.clone());
        result.outputs.push(output.clone());
    }
    for stream in [&mut result.stdout, &mut result.stderr] {
        (stream.digest, stream.bytes, stream.truncated) = (keep(b""), 0, false);
    }
    body
}

fn archive(desk: &Desk, body: &BundleBody) -> Sealed {
    let sealed = seal(body).unwrap();
    Archive::new(&desk.path("store")).keep_durably("default", &sealed).unwrap();
    sealed
}

/// A journal with one sealed attempt of that body, as an executor leaves it.
fn journal(desk: &Desk, body: &BundleBody, blobs: Vec<InlineBlob>) -> Journal {
    let options = JournalOptions::default();
    let (journal, _) = Journal::open(&desk.path("store/journal"), options, Box::new(|_| Ok(()))).unwrap();
    let Sealed { body: text, execution_root, bundle_root } = seal(body).unwrap();
    let (stdout_tail, stderr_tail) = (String::new(), String::new());
    let sealed = SealedAttempt { body: text, execution_root, bundle_root, stdout_tail, stderr_tail };
    let asked =
        Asked { identity: body.run.identity.clone(), request_digest: RequestDigest::from_bytes([1; 32]) };
    journal.append_durable(&Record::Sealed { asked, sealed: Box::new(sealed), blobs }).unwrap();
    journal
}

#[test]
fn what_an_executor_leaves_is_kept() {
    let desk = Desk::new();
    let body = body_naming(&desk, &[("out", b"output")]);
    let carried = InlineBlob::new(BlobDigest::of(b""), Vec::new());
    let held = journal(&desk, &body, vec![carried]);
    put(&desk, b"lost");
    // The executor's journal is in use, although its store is not open.
    let said = cas(&desk, &[&["gc", "--json"], NOW].concat());
    assert_eq!((said.code, &said.json()["error_code"]), (2, &"StoreInUse".into()));
    let info = cas(&desk, &["info", &BlobDigest::of(b"output").to_string(), "--json"]).json();
    assert_eq!(info["referenced_by"]["results"].as_array().unwrap().len(), 1, "{info}");
    drop(held);
    let before = listed(&desk);
    // A stream that the journal carries may be gone from the store: it comes back.
    fs::remove_file(object_file(&desk, &BlobDigest::of(b""))).unwrap();
    let document = cas(&desk, &[&["gc", "--delete", "--json"], NOW].concat()).json();
    assert_eq!(
        (&document["results"]["journal"], &document["remove"]["objects"]),
        (&1.into(), &1.into()),
        "{document}"
    );
    assert_eq!(document["missing"].as_array().unwrap().len(), 0);
    let after: BTreeSet<String> = before
        .into_iter()
        .filter(|digest| {
            ![&b"lost"[..], b""].map(BlobDigest::of).map(|gone| gone.to_string()).contains(digest)
        })
        .collect();
    assert_eq!(listed(&desk), after);
    // Any other object that is missing is told.
    fs::remove_file(object_file(&desk, &BlobDigest::of(b"output"))).unwrap();
    let document = cas(&desk, &[&["gc", "--json"], NOW].concat()).json();
    assert_eq!(document["missing"][0]["digest"], BlobDigest::of(b"output").to_string());
}

/// The code that something leads to, and how it is done to a store.
type Spoiler<'a> = (&'static str, &'a dyn Fn(&Desk));

#[test]
fn what_cannot_be_understood_stops_it_before_anything_goes() {
    let spoilers: [Spoiler<'_>; 9] = [
        ("UnknownEntry", &|desk| drop(desk.write("store/notes.txt", ""))),
        ("UnknownEntry", &|desk| drop(desk.write("store/journal/notes.txt", ""))),
        ("UnknownEntry", &|desk| drop(desk.write("store/proofs/notes.txt", ""))),
        ("UnknownEntry", &|desk| drop(desk.write("store/proofs/default/notes.txt", ""))),
        ("UnknownEntry", &|desk| std::os::unix::fs::symlink("/etc", desk.path("store/proofs/etc")).unwrap()),
        ("BadBundle", &|desk| {
            let path = files(&desk.path("store/proofs")).into_iter().find(|path| path.is_file()).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replacen("team-a", "team-b", 1).replacen("sandbox", "Sandbox", 1)).unwrap();
        }),
        ("BadJournal", &|desk| {
            let mut file =
                fs::OpenOptions::new().append(true).open(desk.path("store/journal/attempts.log")).unwrap();
            file.write_all(b"half a record").unwrap();
        }),
        ("BadJournal", &|desk| {
            let path = desk.path("store/journal/attempts.log");
            let mut bytes = fs::read(&path).unwrap();
            bytes[10] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("NotFound", &|desk| {
            let mut body = body_naming(desk, &[("out", b"output")]);
            let tree = TreeDigest::from_bytes([7; 32]);
            let path = requiem_model::RelPath::parse("tree").unwrap();
            body.execution
                .request
                .inputs
                .push(requiem_model::request::Input { path, source: InputSource::Tree { digest: tree } });
            archive(desk, &body);
        }),
    ];
    for (code, spoil) in spoilers {
        let desk = Desk::new();
        put(&desk, b"lost");
        let body = body_naming(&desk, &[("out", b"output")]);
        archive(&desk, &body);
        drop(journal(&desk, &body, vec![]));
        spoil(&desk);
        let before = files(&desk.path("store"));
        let said = cas(&desk, &[&["gc", "--delete", "--json"], NOW].concat());
        assert_eq!((said.code, &said.json()["error_code"]), (2, &code.into()), "{said:?}");
        assert!(said.stderr.contains("hint: "), "{said:?}");
        assert_eq!(files(&desk.path("store")), before, "{code}");
    }
}

#[test]
fn a_killed_collection_is_completed_by_the_next() {
    let desk = Desk::new();
    let kept = put_tree(&desk, "src", &[("a", "one"), ("b/c", "two")]);
    assert_eq!(cas(&desk, &["pin", "add", &kept]).code, 0);
    let store = open(&desk, "default");
    for number in 0..3000u32 {
        store.put_bytes(&number.to_le_bytes(), Durability::Volatile).unwrap();
    }
    drop(store);
    let all = listed(&desk).len();
    let objects = desk.path("store/tenants/default/objects");
    let mut child: Child = desk
        .command(&[&["cas", "gc", "--delete", "--cas", "store"], NOW].concat())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while files(&objects).len() - 256 > all - 500 && child.try_wait().unwrap().is_none() {}
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(cas(&desk, &["verify", "--all"]).code, 0);
    assert_eq!(cas(&desk, &["get", &kept, "--tree", "--out", "first"]).code, 0);
    assert_eq!(cas(&desk, &[&["gc", "--delete"], NOW].concat()).code, 0);
    assert_eq!(listed(&desk).len(), 4);
    assert_eq!(cas(&desk, &["get", &kept, "--tree", "--out", "second"]).code, 0);
    assert_eq!(fs::read_to_string(desk.path("second/b/c")).unwrap(), "two");
}
