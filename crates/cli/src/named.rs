//! What stored documents name: a pinned proof or result keeps its objects.

use requiem_cas::gc::Object;
use requiem_executor::retained::named;
use requiem_proof::{AnyFile, BundleBody};
use serde_json::Value;

/// The objects that a document names: a proof file, a ProofBundle, the body of one, or the result document of `exec run`. Nothing for
/// other bytes. The document is not judged: to keep too much does no harm.
pub(crate) fn objects_of(document: &[u8]) -> Vec<Object> {
    bodies(document)
        .iter()
        .filter_map(|body| serde_json::from_str::<BundleBody>(body).ok())
        .flat_map(|body| named(&body))
        .collect()
}

fn bodies(document: &[u8]) -> Vec<String> {
    if let Ok(AnyFile::Bundle(file)) = AnyFile::parse(document) {
        return vec![file.body];
    }
    let Ok(text) = std::str::from_utf8(document) else { return Vec::new() };
    let value: Option<Value> = serde_json::from_str(text).ok();
    let in_result =
        value.and_then(|value| value.get("proof_body").and_then(Value::as_str).map(str::to_owned));
    vec![in_result.unwrap_or_else(|| text.to_owned())]
}
