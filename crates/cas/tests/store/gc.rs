use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;
use proptest::prelude::*;
use requiem_cas::audit::{Extent, Progress};
use requiem_cas::gc::{GcError, Object, Plan, Root, Swept};
use requiem_cas::{Entry, Exclusive, Manifest, Node, Store, Tenant, TenantStore};
use requiem_model::{BlobDigest, TreeDigest};

use crate::common::*;

const NOW: &str = "2026-01-01T00:00:00.000Z";

fn nothing(_: &[u8]) -> Vec<Object> {
    Vec::new()
}

fn go_on(_: &Swept) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A time after which nothing was put yet.
fn far() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

fn tree_digest(digest: &BlobDigest) -> TreeDigest {
    TreeDigest::from_bytes(*digest.as_bytes())
}

fn root(object: Object) -> Root {
    Root { tenant: Tenant::default(), object, by: "a test".to_owned() }
}

fn plan(folder: &Path, roots: &[Root], young_from: SystemTime) -> Result<Plan, GcError> {
    Exclusive::take(folder).unwrap().plan(roots, &nothing, young_from)
}

fn collect(folder: &Path, roots: &[Root], young_from: SystemTime) -> (Plan, Swept) {
    let alone = Exclusive::take(folder).unwrap();
    let plan = alone.plan(roots, &nothing, young_from).unwrap();
    let swept = alone.sweep(&plan, &mut go_on).unwrap();
    (plan, swept)
}

/// Digests of a tenant's object files.
fn held(folder: &Path, tenant: &str) -> BTreeSet<BlobDigest> {
    let fan_outs = fs::read_dir(folder.join("tenants").join(tenant).join("objects")).unwrap();
    let files = fan_outs.flat_map(|fan_out| fs::read_dir(fan_out.unwrap().path()).unwrap());
    let name = |file: fs::DirEntry| file.file_name().to_string_lossy().chars().take(64).collect::<String>();
    files.map(|file| format!("blake3:{}", name(file.unwrap())).parse().unwrap()).collect()
}

fn verifies(folder: &Path) {
    let store = Store::open(folder).unwrap();
    let shelves = store.shelves().unwrap();
    let tenants = shelves.tenants().to_vec();
    let stop = AtomicBool::new(false);
    let found = shelves.audit(&tenants, Extent::All, 2, &Progress::default(), &stop).unwrap();
    assert!(found.damaged.is_empty() && found.strays.is_empty(), "{found:?}");
}

fn put_tree(store: &TenantStore, entries: Vec<Node>) -> BlobDigest {
    let name = |number: usize| format!("{number:04}").into_bytes();
    let entries =
        entries.into_iter().enumerate().map(|(number, node)| Entry { name: name(number), node }).collect();
    store.put_bytes(&Manifest::new(entries).unwrap().encode().unwrap(), Volatile).unwrap().digest
}

fn blob_node(digest: BlobDigest) -> Node {
    Node::Blob { digest, bytes: 0, executable: false }
}

/// Waits until the file system's clock has passed everything that was put, and gives back its time.
fn next_moment(folder: &Path) -> SystemTime {
    let changed = |path: &Path| fs::metadata(path).map(|meta| (meta.ctime(), meta.ctime_nsec())).unwrap();
    let last = objects(folder).iter().map(|path| changed(path)).max().unwrap_or_default();
    let probe = Folder::new();
    let file = probe.path().join("probe");
    loop {
        fs::write(&file, "x").unwrap();
        let (seconds, nanos) = changed(&file);
        if (seconds, nanos) > last {
            return SystemTime::UNIX_EPOCH
                + Duration::new(seconds.try_into().unwrap(), nanos.try_into().unwrap());
        }
    }
}

// --- exactly the unreachable

/// One object of a random graph: a blob, or a folder of earlier objects.
#[derive(Debug, Clone)]
enum Shape {
    Blob(u64),
    Tree(Vec<usize>),
}

/// What a random graph looks like, and what is to be kept of it.
#[derive(Debug, Clone)]
struct Case {
    shapes: Vec<Shape>,
    /// Objects from this one on are put after the grace period began.
    young_from: usize,
    roots: Vec<usize>,
    pins: Vec<usize>,
    copies: Vec<usize>,
}

fn case() -> impl Strategy<Value = Case> {
    let shape = |number: usize| {
        let tree = prop::collection::vec(0..number.max(1), 0..4).prop_map(Shape::Tree);
        let blob = (0..12u64).prop_map(Shape::Blob);
        if number == 0 { blob.boxed() } else { prop_oneof![blob, tree].boxed() }
    };
    (2usize..24).prop_flat_map(move |count| {
        let shapes: Vec<_> = (0..count).map(shape).collect();
        let some = || prop::collection::vec(0..count, 0..4);
        (shapes, count / 2..=count, some(), some(), some()).prop_map(
            |(shapes, young_from, roots, pins, copies)| Case { shapes, young_from, roots, pins, copies },
        )
    })
}

/// The objects of a case as they were put.
struct Built {
    digests: Vec<BlobDigest>,
    children: BTreeMap<BlobDigest, Vec<BlobDigest>>,
    last_put: BTreeMap<BlobDigest, usize>,
}

fn build(case: &Case, store: &TenantStore, folder: &Path) -> (Built, SystemTime) {
    let mut built = Built { digests: vec![], children: BTreeMap::new(), last_put: BTreeMap::new() };
    let mut moment = None;
    for (number, shape) in case.shapes.iter().enumerate() {
        if number == case.young_from {
            moment = Some(next_moment(folder));
        }
        let digest = match shape {
            Shape::Blob(seed) => store.put_bytes(&noise(*seed, 300), Volatile).unwrap().digest,
            Shape::Tree(below) => {
                let digest_of = |index: &usize| built.digests[*index];
                let node = |index: &usize| match case.shapes[*index] {
                    Shape::Blob(_) => blob_node(digest_of(index)),
                    Shape::Tree(_) => Node::Tree { digest: tree_digest(&digest_of(index)) },
                };
                let digest = put_tree(store, below.iter().map(node).collect());
                built.children.insert(digest, below.iter().map(digest_of).collect());
                digest
            }
        };
        // Only the first put of a content counts: within ten minutes it is not noted again.
        built.last_put.entry(digest).or_insert(number);
        built.digests.push(digest);
    }
    (built, moment.unwrap_or_else(|| next_moment(folder)))
}

/// What must stay, found by the simplest way there is.
fn expected(case: &Case, built: &Built) -> BTreeSet<BlobDigest> {
    let chosen = case.roots.iter().chain(&case.pins).map(|index| built.digests[*index]);
    let young =
        built.last_put.iter().filter(|(_, number)| **number >= case.young_from).map(|(digest, _)| *digest);
    let mut stays = BTreeSet::new();
    let mut waiting: Vec<BlobDigest> = chosen.chain(young).collect();
    while let Some(digest) = waiting.pop() {
        if stays.insert(digest) {
            waiting.extend(built.children.get(&digest).into_iter().flatten());
        }
    }
    stays
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exactly_what_nothing_needs_goes(case in case()) {
        let folder = Folder::new();
        let ours = folder.store();
        let (built, moment) = build(&case, &ours, folder.path());
        case.pins.iter().for_each(|index| ours.pin(&built.digests[*index], None, NOW).unwrap());
        let is_tree = |index: &usize| matches!(case.shapes[*index], Shape::Tree(_));
        for index in &case.copies {
            if is_tree(index) {
                // Entries state sizes that are not true here, so only folders of folders can be written out.
                drop(ours.materialise_tree(&tree_digest(&built.digests[*index])));
            } else {
                ours.materialise_blob(&built.digests[*index], index % 2 == 0).unwrap();
            }
        }
        drop(ours);
        let roots: Vec<Root> = case.roots.iter().map(|index| {
            let digest = built.digests[*index];
            root(if is_tree(index) { Object::Tree(tree_digest(&digest)) } else { Object::Blob(digest) })
        }).collect();

        let stays = expected(&case, &built);
        let all: BTreeSet<BlobDigest> = built.digests.iter().copied().collect();
        let before = held(folder.path(), "default");
        prop_assert_eq!(&before, &all);
        // A plan alone removes nothing.
        let planned = plan(folder.path(), &roots, moment).unwrap();
        prop_assert_eq!(held(folder.path(), "default"), before);
        let (plan, swept) = collect(folder.path(), &roots, moment);
        prop_assert_eq!(held(folder.path(), "default"), stays.clone());
        prop_assert_eq!(planned.remove, plan.remove.clone());
        prop_assert_eq!(swept.objects.objects, plan.remove.len() as u64);
        let doomed: BTreeSet<_> = plan.remove.iter().map(requiem_cas::gc::Doomed::digest).collect();
        prop_assert_eq!(&doomed | &stays, all);
        prop_assert_eq!(plan.kept.objects, plan.named.objects + plan.young.objects);
        // Copies go with their objects, and only with them.
        for kind in ["blobs", "trees"] {
            for copy in fs::read_dir(tenant_folder(folder.path()).join("materialised").join(kind)).unwrap() {
                let name: String = copy.unwrap().file_name().to_string_lossy().chars().take(64).collect();
                prop_assert!(stays.contains(&format!("blake3:{name}").parse().unwrap()), "{}", name);
            }
        }
        verifies(folder.path());
        prop_assert!(leftovers(folder.path()).is_empty());
        // Once more there is nothing to do; and without roots, everything goes.
        prop_assert!(collect(folder.path(), &roots, moment).0.remove.is_empty());
        let mut store = Some(folder.store());
        case.pins.iter().for_each(|index| drop(store.as_ref().unwrap().unpin(&built.digests[*index], None).unwrap()));
        store.take();
        collect(folder.path(), &[], far());
        prop_assert!(held(folder.path(), "default").is_empty());
    }
}

#[test]
fn a_pinned_document_keeps_what_it_names() {
    let folder = Folder::new();
    let store = folder.store();
    let blobs = [1, 2, 3].map(|seed| store.put_bytes(&noise(seed, 300), Volatile).unwrap().digest);
    let tree = put_tree(&store, vec![blob_node(blobs[1])]);
    let document = store.put_bytes(b"names 0 and the tree", Volatile).unwrap().digest;
    store.pin(&document, Some("result"), NOW).unwrap();
    drop(store);
    let expand = |bytes: &[u8]| {
        if bytes == b"names 0 and the tree" {
            vec![Object::Blob(blobs[0]), Object::Tree(tree_digest(&tree))]
        } else {
            vec![]
        }
    };
    let alone = Exclusive::take(folder.path()).unwrap();
    let plan = alone.plan(&[], &expand, far()).unwrap();
    let doomed: Vec<_> = plan.remove.iter().map(requiem_cas::gc::Doomed::digest).collect();
    assert_eq!(doomed, [blobs[2]]);
    assert_eq!((plan.pins, plan.named.objects), (1, 4));
}

#[test]
fn what_one_tenant_names_keeps_nothing_of_another() {
    let folder = Folder::new();
    let store = Store::open(folder.path()).unwrap();
    let [ours, other] = ["default", "other"].map(|name| store.tenant(&Tenant::parse(name).unwrap()).unwrap());
    let content = noise(1, 300);
    let digest = ours.put_bytes(&content, Volatile).unwrap().digest;
    let tree = put_tree(&ours, vec![blob_node(digest)]);
    assert_eq!(other.put_bytes(&content, Volatile).unwrap().digest, digest);
    assert_eq!(put_tree(&other, vec![blob_node(digest)]), tree);
    ours.pin(&digest, None, NOW).unwrap();
    drop((ours, other, store));
    let (plan, _) = collect(folder.path(), &[root(Object::Tree(tree_digest(&tree)))], far());
    assert_eq!(held(folder.path(), "default"), BTreeSet::from([digest, tree]));
    assert_eq!((held(folder.path(), "other").len(), plan.remove.len()), (0, 2));
}

#[test]
fn a_blob_that_is_missing_is_told_and_a_missing_tree_stops_everything() {
    let folder = Folder::new();
    let store = folder.store();
    let (absent, old) = (BlobDigest::of(b"absent"), store.put_bytes(b"old", Volatile).unwrap().digest);
    let tree = put_tree(&store, vec![blob_node(absent)]);
    let deep = put_tree(&store, vec![Node::Tree { digest: tree_digest(&absent) }]);
    let pinned = store.put_bytes(b"pinned", Volatile).unwrap().digest;
    store.pin(&pinned, None, NOW).unwrap();
    drop(store);
    let found =
        plan(folder.path(), &[root(Object::Tree(tree_digest(&tree))), root(Object::Blob(absent))], far())
            .unwrap();
    assert_eq!(found.missing, [(Tenant::default(), absent)]);
    assert_eq!(found.remove.len(), 2, "the old blob and the other tree");
    let error = plan(folder.path(), &[root(Object::Tree(tree_digest(&deep)))], far()).unwrap_err();
    assert!(matches!(&error, GcError::Missing { digest, .. } if *digest == absent), "{error}");
    let error = plan(folder.path(), &[root(Object::Tree(tree_digest(&old)))], far()).unwrap_err();
    assert_eq!(error.code(), "BadManifest", "{error}");
    // A tree that was put lately and is not complete yet is no reason to stop.
    assert!(plan(folder.path(), &[], SystemTime::UNIX_EPOCH).unwrap().remove.is_empty());
    fs::remove_file(object_of(folder.path(), &pinned)).unwrap();
    assert_eq!(plan(folder.path(), &[], far()).unwrap_err().code(), "NotFound");
}

// --- nobody else

#[test]
fn a_store_that_is_open_is_not_collected() {
    if let Some(root) = role() {
        let store = open(root.as_ref());
        eprintln!("OPEN");
        std::io::stdin().read_exact(&mut [0]).ok();
        drop(store);
        return;
    }
    let folder = Folder::new();
    folder.store().put_bytes(b"x", Volatile).unwrap();
    let mut child =
        again("gc::a_store_that_is_open_is_not_collected", &folder.path().to_string_lossy()).spawn().unwrap();
    await_line(&mut child, "OPEN");
    let ours = folder.store();
    let error = Exclusive::take(folder.path()).unwrap_err();
    assert!(error.code() == "StoreInUse" && error.to_string().contains("2 other processes"), "{error}");
    drop(ours);
    let error = Exclusive::take(folder.path()).unwrap_err();
    assert!(error.to_string().contains("1 other process"), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    let alone = Exclusive::take(folder.path()).unwrap();
    assert_eq!(sessions(folder.path()), 1, "what the dead process left is gone");
    assert_eq!(Exclusive::take(folder.path()).unwrap_err().code(), "StoreInUse");
    drop(alone);
    assert_eq!(sessions(folder.path()), 0);
}

#[test]
fn whoever_opens_meanwhile_waits() {
    if let Some(root) = role() {
        eprintln!("OPENING");
        drop(open(root.as_ref()));
        let released = Path::new(&root).parent().unwrap().join("released").exists();
        eprintln!("{}", if released { "AFTER" } else { "BEFORE" });
        return;
    }
    let folder = Folder::new();
    let root = folder.path().join("store");
    drop(open(&root));
    let alone = Exclusive::take(&root).unwrap();
    let mut child = again("gc::whoever_opens_meanwhile_waits", &root.to_string_lossy()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "OPENING");
    while !waits_for_a_lock(child.id()) {
        assert!(child.try_wait().unwrap().is_none(), "it did not wait");
    }
    fs::write(folder.path().join("released"), "").unwrap();
    drop(alone);
    assert_eq!(said.next().unwrap().unwrap(), "AFTER");
    assert!(child.wait().unwrap().success());
}

/// Whether the kernel has the process wait for a lock, see proc_locks(5).
fn waits_for_a_lock(process: u32) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let id = process.to_string();
    locks
        .lines()
        .any(|line| line.contains(" -> FLOCK ") && line.split_ascii_whitespace().any(|word| word == id))
}

#[test]
fn what_is_no_store_is_neither_made_nor_touched() {
    let folder = Folder::new();
    fs::write(folder.path().join("notes"), "mine").unwrap();
    for path in [folder.path().to_owned(), folder.path().join("absent"), folder.path().join("notes")] {
        assert_eq!(Exclusive::take(&path).unwrap_err().code(), "NoStore", "{}", path.display());
        assert_eq!(Store::open_existing(&path).unwrap_err().code(), "NoStore");
    }
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["notes"]);
    let other = Folder::new();
    fs::write(other.path().join("format"), "requiem-store/9\n").unwrap();
    assert_eq!(Exclusive::take(other.path()).unwrap_err().code(), "UnknownFormat");
}

// --- nothing that is not understood

/// Garbage, and a tree that a root names.
fn littered() -> (Folder, BlobDigest, Root) {
    let folder = Folder::new();
    let store = folder.store();
    let kept = store.put_bytes(&noise(1, 300), Volatile).unwrap().digest;
    let tree = put_tree(&store, vec![blob_node(kept)]);
    for seed in 2..8 {
        store.put_bytes(&noise(seed, 300), Volatile).unwrap();
    }
    store.pin(&kept, None, NOW).unwrap();
    drop(store);
    (folder, tree, root(Object::Tree(tree_digest(&tree))))
}

/// The plan is refused with `code`, and nothing has gone.
fn stops(code: &str, spoil: impl FnOnce(&Path, &BlobDigest)) {
    let (folder, tree, root) = littered();
    spoil(folder.path(), &tree);
    let before = everything(folder.path());
    let error = plan(folder.path(), &[root], far()).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert_eq!(everything(folder.path()), before, "{error}");
}

fn everything(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

#[test]
fn an_entry_that_the_store_did_not_put_there_stops_everything() {
    let write =
        |way: &'static str| move |root: &Path, _: &BlobDigest| fs::write(root.join(way), "x").unwrap();
    stops("UnknownEntry", write("notes.txt"));
    stops("UnknownEntry", write("tenants/file"));
    stops("UnknownEntry", |root, _| fs::create_dir(root.join("tenants/No_Tenant")).unwrap());
    stops("UnknownEntry", write("tenants/default/notes.txt"));
    stops("UnknownEntry", write("tenants/default/objects/notes.txt"));
    stops("UnknownEntry", |root, _| fs::create_dir(root.join("tenants/default/objects/zz")).unwrap());
    stops("UnknownEntry", write("tenants/default/objects/00/notes.txt"));
    stops("UnknownEntry", write("tenants/default/materialised/notes.txt"));
    stops("UnknownEntry", write("tenants/default/materialised/blobs/notes.txt"));
    stops("UnknownEntry", write("tenants/default/materialised/trees/notes.txt"));
    stops("BadPin", write("tenants/default/pins/notes.txt"));
    let hex = BlobDigest::of(b"misplaced").to_hex();
    let place = format!("tenants/default/objects/{}/{hex}", if hex.starts_with("00") { "01" } else { "00" });
    stops("UnknownEntry", move |root, _| fs::write(root.join(place), "misplaced").unwrap());
    let in_place = format!("tenants/default/objects/{}/{hex}", &hex[..2]);
    let (folder, fifo) = (in_place.clone(), in_place.clone());
    stops("UnknownEntry", move |root, _| fs::create_dir(root.join(folder)).unwrap());
    stops("UnknownEntry", move |root, _| nix::unistd::mkfifo(&root.join(fifo), Mode::S_IRWXU).unwrap());
}

#[test]
fn a_tree_that_cannot_be_read_stops_everything() {
    stops("Corrupt", |root, tree| tamper(&object_of(root, tree), |bytes| bytes[20] ^= 1));
    stops("Corrupt", |root, tree| tamper(&object_of(root, tree), |bytes| bytes.truncate(bytes.len() - 1)));
    stops("NotFound", |root, tree| fs::remove_file(object_of(root, tree)).unwrap());
    // Whatever byte is changed, a damaged tree is not taken for a blob: it stops everything, or (a few bits of a frame mean nothing)
    // its content is what it was.
    let (folder, tree, root) = littered();
    let path = object_of(folder.path(), &tree);
    let mut stopped = 0;
    for at in 0..60 {
        tamper(&path, |bytes| bytes[at] ^= 0x10);
        match plan(folder.path(), std::slice::from_ref(&root), far()) {
            Ok(plan) => assert_eq!((plan.named.objects, plan.remove.len()), (2, 6), "byte {at}"),
            Err(error) => {
                assert_eq!(error.code(), "Corrupt", "byte {at}: {error}");
                stopped += 1;
            }
        }
        tamper(&path, |bytes| bytes[at] ^= 0x10);
    }
    assert!(stopped > 50, "{stopped}");
    // A damaged object that is pinned may have been a tree.
    stops("Corrupt", |root, _| {
        tamper(&object_of(root, &BlobDigest::of(&noise(1, 300))), |bytes| bytes[0] ^= 1);
    });
}

#[test]
fn nothing_leads_out_of_the_store() {
    let elsewhere = || {
        let folder = Folder::new();
        fs::create_dir_all(folder.path().join("objects/00")).unwrap();
        fs::write(folder.path().join("objects/00").join("0".repeat(64)), "precious").unwrap();
        fs::create_dir(folder.path().join("precious")).unwrap();
        folder
    };
    for way in [
        "tenants",
        "tenants/default",
        "tenants/default/objects",
        "tenants/default/objects/00",
        "tenants/default/pins",
        "tenants/default/materialised",
        "tenants/default/materialised/blobs",
        "tenants/default/materialised/trees",
        "tmp",
    ] {
        let (folder, _, root) = littered();
        let outside = elsewhere();
        let before = everything(outside.path());
        let path = folder.path().join(way);
        fs::rename(
            &path,
            folder
                .path()
                .parent()
                .unwrap()
                .join(format!("{}-aside", folder.path().file_name().unwrap().to_string_lossy())),
        )
        .unwrap();
        symlink(outside.path(), &path).unwrap();
        let outcome = Exclusive::take(folder.path()).map_err(GcError::from);
        let outcome = outcome.and_then(|alone| alone.plan(&[root], &nothing, far()).map(drop));
        let aside = folder
            .path()
            .parent()
            .unwrap()
            .join(format!("{}-aside", folder.path().file_name().unwrap().to_string_lossy()));
        fs::remove_dir_all(aside).unwrap();
        assert_eq!(outcome.unwrap_err().code(), "UnknownEntry", "{way}");
        assert_eq!(everything(outside.path()), before, "{way}");
        // Nor does anybody else follow such a link when the store is opened.
        if ["tenants", "tmp"].contains(&way) {
            assert_eq!(Store::open(folder.path()).unwrap_err().code(), "UnknownEntry", "{way}");
        }
        if way == "tenants/default" {
            let store = Store::open(folder.path()).unwrap();
            assert_eq!(store.tenant(&Tenant::default()).unwrap_err().code(), "UnknownEntry");
        }
        assert_eq!(everything(outside.path()), before, "{way}");
    }
}

// --- crashes

fn await_line(child: &mut Child, expected: &str) {
    let mut line = String::new();
    let mut said = BufReader::new(child.stderr.as_mut().unwrap());
    said.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), expected);
}

fn put_blob(store: &TenantStore, seed: u64) -> BlobDigest {
    store.put_bytes(&noise(seed, 2000), Volatile).unwrap().digest
}

fn blob_of(store: &TenantStore, seed: u64) -> Node {
    Node::Blob { digest: put_blob(store, seed), bytes: 2000, executable: false }
}

/// A tree that nothing names.
fn put_lost(store: &TenantStore) -> BlobDigest {
    put_tree(store, [1, 5, 6].map(|seed| blob_of(store, seed)).to_vec())
}

/// A pinned tree in two folders, one of them materialised, a root, and garbage of every kind.
fn crash_store(folder: &Path, garbage: u64) -> (BTreeSet<BlobDigest>, BlobDigest, BlobDigest) {
    let store = open(folder);
    let put = |seed| put_blob(&store, seed);
    let blob = |seed| blob_of(&store, seed);
    let below = put_tree(&store, vec![blob(1), blob(2)]);
    let kept = put_tree(&store, vec![blob(3), Node::Tree { digest: tree_digest(&below) }]);
    let named = put(4);
    store.pin(&kept, Some("kept"), NOW).unwrap();
    store.materialise_tree(&tree_digest(&kept)).unwrap();
    store.materialise_tree(&tree_digest(&put_lost(&store))).unwrap();
    store.materialise_blob(&put(7), true).unwrap();
    for seed in 100..100 + garbage {
        put(seed);
    }
    let stays =
        [below, kept, named].into_iter().chain([1, 2, 3].map(|seed| BlobDigest::of(&noise(seed, 2000))));
    (stays.collect(), kept, named)
}

/// What must hold whenever collecting was ended, and that the next collection completes it.
fn sound_after_kill(folder: &Path, stays: &BTreeSet<BlobDigest>, kept: &BlobDigest, named: &BlobDigest) {
    verifies(folder);
    let store = open(folder);
    assert_eq!((sessions(folder), leftovers(folder).len()), (1, 0), "the ended process left files");
    assert!(held(folder, "default").is_superset(stays));
    store.materialise_tree(&tree_digest(kept)).unwrap();
    store.get_bytes(named, 2000).unwrap();
    assert_eq!(store.pins().unwrap().len(), 1);
    store.materialise_tree(&tree_digest(&put_lost(&store))).unwrap();
    assert_eq!(quarantined(folder), 0, "a half-removed copy was taken for a corrupt one");
    drop(store);
    collect(folder, &[root(Object::Blob(*named))], far());
    assert_eq!(held(folder, "default"), *stays);
    verifies(folder);
}

/// The other process: collects, and waits to be killed before its `at`-th removal.
fn collect_until(role: &str) {
    let mut parts = role.splitn(3, ' ');
    let (at, named) = (parts.next().unwrap().parse::<u64>().unwrap(), parts.next().unwrap().parse().unwrap());
    let alone = Exclusive::take(parts.next().unwrap().as_ref()).unwrap();
    let plan = alone.plan(&[root(Object::Blob(named))], &nothing, far()).unwrap();
    let mut steps = 0;
    let mut step = |_: &Swept| {
        if steps == at {
            eprintln!("AT");
            std::io::stdin().read_exact(&mut [0]).ok();
        }
        steps += 1;
        ControlFlow::Continue(())
    };
    alone.sweep(&plan, &mut step).unwrap();
    eprintln!("END {steps}");
}

#[test]
fn killed_between_any_two_steps_nothing_that_is_named_is_lost() {
    if let Some(role) = role() {
        return collect_until(&role);
    }
    let test = "gc::killed_between_any_two_steps_nothing_that_is_named_is_lost";
    let mut steps = 0;
    loop {
        let folder = Folder::new();
        let (stays, kept, named) = crash_store(folder.path(), 3);
        let mut child = again(test, &format!("{steps} {named} {}", folder.path().display())).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ended = line.starts_with("END");
        assert!(ended || line.trim_end() == "AT", "{line}");
        let before = held(folder.path(), "default").len();
        child.kill().unwrap();
        child.wait().unwrap();
        sound_after_kill(folder.path(), &stays, &kept, &named);
        if ended {
            assert_eq!(line.trim_end(), format!("END {steps}"));
            break;
        }
        // Two copies first, then seven objects.
        assert_eq!(before, stays.len() + 7 - usize::try_from(steps).unwrap().saturating_sub(2).min(7));
        steps += 1;
    }
    assert_eq!(steps, 9, "two copies and seven objects");
}

#[test]
fn killed_at_any_moment_nothing_that_is_named_is_lost() {
    if let Some(role) = role() {
        return collect_until(&role);
    }
    let test = "gc::killed_at_any_moment_nothing_that_is_named_is_lost";
    let mut partly = 0;
    for round in 0..8u64 {
        let folder = Folder::new();
        let (stays, kept, named) = crash_store(folder.path(), 1500);
        let all = held(folder.path(), "default").len();
        let mut child =
            again(test, &format!("{} {named} {}", u64::MAX, folder.path().display())).spawn().unwrap();
        // Killed when it has removed some, at a number that differs by round.
        let goal = all - 50 - usize::try_from(round).unwrap() * 150;
        while held(folder.path(), "default").len() > goal && child.try_wait().unwrap().is_none() {}
        child.kill().unwrap();
        child.wait().unwrap();
        let left = held(folder.path(), "default").len();
        partly += usize::from(left < all && left > stays.len());
        sound_after_kill(folder.path(), &stays, &kept, &named);
    }
    assert!(partly > 0, "no kill came in the middle");
}
