//! Corpora: requests, each with what is known of its result beforehand.
//!
//! ```text
//! file ─parse→ Fixture (named, its expectations typed) ─prepare→ ExecutionRequest (texts and folders kept in a store)
//! ```
//!
//! A file is a request document, or `{"request": …}` with `covers`, `layers`, `folders` and `expect` beside it: `docs/dual-run.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use requiem_cas::{Durability, Entry, Manifest, Node, TenantStore};
use requiem_model::{ExecutionRequest, Layer, RelPath, Requirement, TreeDigest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::built_in::BUILT_IN;
use super::expectation::Expectation;
use crate::document::{Document, Keeper, MAX_DOCUMENT_BYTES};
use crate::error::CommandError;
use crate::store;

/// Most fixtures of a corpus.
const MAX_FIXTURES: usize = 10_000;
/// Deepest folder that a fixture brings along.
const MAX_DEPTH: usize = 32;

/// Requests that two engines are to agree on.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// Where it is from, for people.
    pub(crate) source: String,
    pub(crate) fixtures: Vec<Fixture>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) expect: Expectation,
    request: Map<String, Value>,
    folders: BTreeMap<RelPath, BTreeMap<RelPath, String>>,
    /// Where relative paths in it begin.
    base: PathBuf,
}

/// The long form of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    /// What it is for; nobody but people reads it.
    #[serde(default, rename = "covers")]
    _covers: Option<String>,
    /// What is asked of each layer that the request does not name.
    layers: Option<Requirement>,
    request: Map<String, Value>,
    /// Inputs that are folders: path of the input → path in the folder → text.
    #[serde(default)]
    folders: BTreeMap<RelPath, BTreeMap<RelPath, String>>,
    #[serde(default)]
    expect: Expectation,
}

impl Corpus {
    /// The one that comes with the program, or that in a folder.
    ///
    /// # Errors
    /// A file that is no fixture, or a folder without any.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, CommandError> {
        let Some(folder) = folder else { return Self::built_in() };
        let failed = |error| store::cannot("read", folder, &error);
        let mut fixtures = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_file() && path.extension().is_some_and(|extension| extension == "json") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                fixtures.push(Fixture::parse(&name, &store::read(&path, MAX_DOCUMENT_BYTES)?, folder)?);
            }
        }
        fixtures.sort_by(|one, other| one.name.cmp(&other.name));
        if fixtures.is_empty() || fixtures.len() > MAX_FIXTURES {
            let message = format!("there are {} requests in {}", fixtures.len(), folder.display());
            let hint = "name a folder with 1 to 10,000 files NAME.json, each a request of exec run";
            return Err(CommandError::unusable("EmptyCorpus", message, hint));
        }
        Ok(Self { source: folder.display().to_string(), fixtures })
    }

    fn built_in() -> Result<Self, CommandError> {
        let fixture = |(name, text): &(&str, &str)| Fixture::parse(name, text.as_bytes(), Path::new("."));
        let fixtures = BUILT_IN.iter().map(fixture).collect::<Result<_, _>>()?;
        Ok(Self { source: "built in".to_owned(), fixtures })
    }
}

impl Fixture {
    fn parse(name: &str, bytes: &[u8], base: &Path) -> Result<Self, CommandError> {
        let hint =
            "give a request as exec run reads it, or {\"request\": …, \"expect\": …}: docs/dual-run.md";
        let wrong = |why: String| CommandError::unusable("InvalidFixture", format!("{name}: {why}"), hint);
        let value = requiem_proof::json::parse(bytes).map_err(|error| wrong(error.to_string()))?;
        let Value::Object(members) = value else { return Err(wrong("it is not an object".to_owned())) };
        let long = if members.contains_key("request") {
            serde_json::from_value(Value::Object(members)).map_err(|error| wrong(error.to_string()))?
        } else {
            Long::of(members)
        };
        let Long { _covers, layers, mut request, folders, expect } = long;
        expect.check().map_err(&wrong)?;
        layers.map_or(Ok(()), |level| name_layers(&mut request, level)).map_err(&wrong)?;
        Ok(Self { name: name.to_owned(), expect, request, folders, base: base.to_owned() })
    }

    /// Keeps texts, files and folders in `objects` and gives the complete, valid request.
    ///
    /// # Errors
    /// What is wrong with the request, with the name of its file.
    pub(crate) fn prepare(&self, objects: &TenantStore) -> Result<ExecutionRequest, CommandError> {
        let named = |mut error: CommandError| {
            error.message = format!("{}: {}", self.name, error.message);
            error
        };
        self.request(objects).map_err(named)
    }

    fn request(&self, objects: &TenantStore) -> Result<ExecutionRequest, CommandError> {
        let mut members = self.request.clone();
        for (path, files) in &self.folders {
            let files: Vec<(&str, &str)> =
                files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            let digest = put_folder(objects, &files, 0)?;
            let inputs = members.entry("inputs").or_insert_with(|| json!({}));
            let Value::Object(inputs) = inputs else {
                return Err(CommandError::field("inputs", "is not an object", "see folders"));
            };
            inputs.insert(path.to_string(), json!({"tree": digest}));
        }
        let bytes = serde_json::to_vec(&members).map_err(|error| store::encoding(&error))?;
        Document::parse(&bytes, "default")?.request(&mut Keeper::Store(objects), &self.base)
    }
}

impl Long {
    /// The short form: a request and nothing else.
    fn of(request: Map<String, Value>) -> Self {
        Self {
            _covers: None,
            layers: None,
            request,
            folders: BTreeMap::new(),
            expect: Expectation::default(),
        }
    }
}

/// Asks `level` of every layer that the request does not name.
fn name_layers(request: &mut Map<String, Value>, level: Requirement) -> Result<(), String> {
    let none = || json!({});
    let policy = request.entry("policy").or_insert_with(none).as_object_mut();
    let layers = policy.and_then(|policy| policy.entry("layers").or_insert_with(none).as_object_mut());
    let layers = layers.ok_or("policy or policy.layers is not an object")?;
    for layer in Layer::ALL {
        layers.entry(layer.name()).or_insert_with(|| json!(level));
    }
    Ok(())
}

/// Puts a folder of texts, which stand in the order of their paths.
fn put_folder(
    objects: &TenantStore,
    files: &[(&str, &str)],
    depth: usize,
) -> Result<TreeDigest, CommandError> {
    let mut below: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut entries = Vec::new();
    for (path, text) in files {
        match path.split_once('/') {
            Some((folder, rest)) => below.entry(folder).or_default().push((rest, text)),
            None => {
                let receipt = objects.put_bytes(text.as_bytes(), Durability::Volatile)?;
                let node = Node::Blob { digest: receipt.digest, bytes: text.len() as u64, executable: false };
                entries.push(Entry { name: path.as_bytes().to_vec(), node });
            }
        }
    }
    let wrong =
        |why: String| CommandError::field("folders", why, "name each file once, by its path in the folder");
    if depth > MAX_DEPTH {
        return Err(wrong("is deeper than 32 folders".to_owned()));
    }
    for (name, files) in below {
        let digest = put_folder(objects, &files, depth + 1)?;
        entries.push(Entry { name: name.as_bytes().to_vec(), node: Node::Tree { digest } });
    }
    let manifest = Manifest::new(entries).and_then(|manifest| manifest.encode());
    let bytes = manifest.map_err(|error| wrong(error.to_string()))?;
    let receipt = objects.put_bytes(&bytes, Durability::Volatile)?;
    Ok(TreeDigest::from_bytes(*receipt.digest.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(text: &str) -> Result<Fixture, String> {
        Fixture::parse("one", text.as_bytes(), Path::new(".")).map_err(|error| error.message)
    }

    #[test]
    fn a_request_alone_is_a_fixture() {
        let short = fixture(r#"{"command": "true"}"#).unwrap();
        let long = fixture(r#"{"request": {"command": "true"}}"#).unwrap();
        assert_eq!((short.request, short.expect), (long.request, long.expect));
    }

    #[test]
    fn layers_that_are_named_stay_as_they_are() {
        let text = r#"{"layers": "preferred", "request": {"command": "true", "policy": {"layers": {"seccomp": "off"}}}}"#;
        let layers = fixture(text).unwrap().request["policy"]["layers"].clone();
        assert_eq!(layers.as_object().unwrap().len(), Layer::ALL.len());
        assert_eq!((&layers["seccomp"], &layers["cgroup"]), (&json!("off"), &json!("preferred")));
    }

    #[test]
    fn a_file_that_is_no_fixture_is_named() {
        for (text, part) in [
            ("[]", "one: it is not an object"),
            ("{", "one: "),
            (r#"{"request": {}, "request": {}}"#, "one: "),
            (r#"{"request": {}, "expects": {}}"#, "unknown field `expects`"),
            (r#"{"request": {}, "expect": {"exit": 1}}"#, "unknown field `exit`"),
            (r#"{"request": {}, "expect": {"exit_code": 1, "signal": 9}}"#, "more than one end"),
            (r#"{"request": {}, "expect": {"stdout": {"text": "", "digest": "blake3:00"}}}"#, "stdout"),
            (r#"{"request": {"policy": 1}, "layers": "off"}"#, "policy"),
            (r#"{"request": {}, "folders": {"../x": {}}}"#, "one: "),
        ] {
            let found = fixture(text).unwrap_err();
            assert!(found.contains(part), "{text}: {found}");
        }
    }
}
