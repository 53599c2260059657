use proptest::prelude::*;

use super::*;

fn blob(name: &[u8]) -> Entry {
    Entry {
        name: name.to_vec(),
        node: Node::Blob { digest: BlobDigest::of(b"x"), bytes: 1, executable: false },
    }
}

fn wire(entries: &str) -> Vec<u8> {
    format!("{{\"entries\":[{entries}],\"schema\":\"{SCHEMA}\"}}").into_bytes()
}

fn wire_blob(name: &str) -> String {
    let digest = BlobDigest::of(b"x");
    format!(
        "{{\"bytes\":1,\"digest\":\"{digest}\",\"executable\":false,\"kind\":\"blob\",\"name\":\"{name}\"}}"
    )
}

#[test]
fn the_golden_manifest_does_not_move() {
    // A change here is a new tree format: raise the version in `SCHEMA` instead.
    let digest = TreeDigest::from_bytes([7; 32]);
    let manifest = Manifest::new(vec![
        Entry { name: b"sub".to_vec(), node: Node::Tree { digest } },
        Entry { name: b"lin\nk".to_vec(), node: Node::Symlink { target: b"../50%".to_vec() } },
        blob(b"caf\xc3\xa9"),
        blob(b"caf\xe9"),
    ]);
    let bytes = manifest.unwrap().encode().unwrap();
    let expected = [
        wire_blob("café"),
        wire_blob("caf%E9"),
        "{\"kind\":\"symlink\",\"name\":\"lin%0Ak\",\"target\":\"../50%25\"}".to_owned(),
        format!("{{\"digest\":\"{digest}\",\"kind\":\"tree\",\"name\":\"sub\"}}"),
    ];
    assert_eq!(
        String::from_utf8(bytes.clone()).unwrap(),
        String::from_utf8(wire(&expected.join(","))).unwrap()
    );
    assert_eq!(
        BlobDigest::of(&bytes).to_string(),
        "blake3:e339880b6895a8248d29399b0d507ec576912317e97e198779133cf914e91808"
    );
}

#[test]
fn an_empty_folder_has_a_manifest() {
    assert_eq!(Manifest::default().encode().unwrap(), wire(""));
    assert_eq!(Manifest::decode(&wire("")).unwrap(), Manifest::default());
}

#[test]
fn forged_names_are_refused() {
    for bad in
        ["", ".", "..", "a/b", "/", "/etc", "../x", "%2F", "%2E%2E", "%00", "a%00", "%", "%4", "%zz", "%e9"]
    {
        assert!(Manifest::decode(&wire(&wire_blob(bad))).is_err(), "{bad:?} was accepted");
    }
    for bad in
        ["x".repeat(256), "%E9".repeat(256), "%C3%A9".into(), "%41".into(), "\\u0007".into(), "%+1".into()]
    {
        assert!(Manifest::decode(&wire(&wire_blob(&bad))).is_err(), "{bad:?} was accepted");
    }
    for good in ["...", "a b", "%25", "%0A", "%E9", "é", &"x".repeat(255), &"%FF".repeat(255)] {
        assert!(Manifest::decode(&wire(&wire_blob(good))).is_ok(), "{good:?} was refused");
    }
}

#[test]
fn forged_targets_are_refused() {
    let link =
        |target: &str| wire(&format!("{{\"kind\":\"symlink\",\"name\":\"l\",\"target\":\"{target}\"}}"));
    for bad in ["", "%00", "%41", "%", &"x".repeat(4096)] {
        assert!(Manifest::decode(&link(bad)).is_err(), "{bad:?} was accepted");
    }
    for good in ["/etc/passwd", "../..", ".", "%FF", &"x".repeat(4095)] {
        assert!(Manifest::decode(&link(good)).is_ok(), "{good:?} was refused");
    }
}

#[test]
fn order_and_uniqueness_are_those_of_raw_names() {
    let pair =
        |one: &str, other: &str| Manifest::decode(&wire(&[wire_blob(one), wire_blob(other)].join(",")));
    assert!(pair("a", "b").is_ok());
    assert!(matches!(pair("b", "a"), Err(ManifestError::Order { .. })));
    assert!(matches!(pair("a", "a"), Err(ManifestError::Order { .. })));
    // '$' < '%' < '&' as text, but the raw newline sorts first.
    assert!(pair("%0A", "$").is_ok());
    assert!(matches!(pair("$", "%0A"), Err(ManifestError::Order { .. })));
    assert!(Manifest::new(vec![blob(b"a"), blob(b"a")]).is_err());
}

#[test]
fn other_shapes_are_refused() {
    let mut unknown = wire_blob("a");
    unknown.insert_str(unknown.len() - 1, ",\"zone\":\"x\"");
    for bad in [
        wire(&unknown),
        wire("{\"kind\":\"device\",\"name\":\"a\"}"),
        wire("{\"kind\":\"tree\",\"name\":\"a\"}"),
        wire("null"),
        b"{\"entries\":[],\"schema\":\"requiem.dev/tree/v2\"}".to_vec(),
        b"{\"schema\":\"requiem.dev/tree/v1\",\"entries\":[]}".to_vec(),
        b"{\"entries\":[],\"schema\":\"requiem.dev/tree/v1\"}\n".to_vec(),
        b"{\"entries\":[],\"extra\":1,\"schema\":\"requiem.dev/tree/v1\"}".to_vec(),
        b"hello".to_vec(),
        vec![],
    ] {
        assert!(Manifest::decode(&bad).is_err(), "{} was accepted", String::from_utf8_lossy(&bad));
    }
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'%'), Just(0xc3), Just(0xa9)], 1..40)
        .prop_filter("names without NUL and slash", |name| check_name(name).is_ok())
}

proptest! {
    #[test]
    fn every_byte_string_has_one_spelling(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
        let text = escape(&raw);
        prop_assert_eq!(unescape(&text), Ok(raw));
        prop_assert!(text.bytes().all(|byte| byte >= b' ' && byte != 0x7f));
    }

    #[test]
    fn what_is_decoded_is_encoded_to_the_same_bytes(names in proptest::collection::btree_set(any_name(), 0..20)) {
        let manifest = Manifest::new(names.iter().rev().map(|name| blob(name)).collect()).unwrap();
        let bytes = manifest.encode().unwrap();
        prop_assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    }

    #[test]
    fn a_changed_byte_is_never_the_same_manifest(at in 0usize..400, flip in 1u8..=255) {
        let manifest = Manifest::new(vec![blob(b"a"), blob(b"b\xff"), blob(b"c")]).unwrap();
        let mut bytes = manifest.encode().unwrap();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(other) = Manifest::decode(&bytes) {
            prop_assert_eq!(other.encode().unwrap(), bytes);
            prop_assert_ne!(other, manifest);
        }
    }
}
