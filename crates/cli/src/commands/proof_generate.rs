//! `requiem proof generate`: a proof file from what `exec run --out` wrote. Nothing of the result document is trusted: the bundle is
//! judged, and every field must be what follows from it.

use requiem_model::result::Stream;
use requiem_model::{BlobDigest, BundleRoot, ExecutionRoot};
use requiem_proof::{BundleBody, ProofFile, Sealed, seal};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::arguments::ProofGenerate;
use crate::error::CommandError;
use crate::proof_input::{self, Bundle, refused};
use crate::report::Report;
use crate::result::RunDocument;
use crate::schema;
use crate::text::shown;
use crate::{proof_store, store};

/// Largest result document, in bytes: two streams of which JSON may escape every byte, and a body.
pub(crate) const MAX_RESULT_BYTES: u64 = 64 << 20;

#[derive(Serialize, JsonSchema)]
pub(super) struct Generated {
    ok: bool,
    #[schemars(schema_with = "schema::digest")]
    execution_root: ExecutionRoot,
    #[schemars(schema_with = "schema::digest")]
    bundle_root: BundleRoot,
    #[serde(skip_serializing_if = "Option::is_none")]
    objects_in_store: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(arguments: &ProofGenerate) -> Result<Report, CommandError> {
    let bundle = read_result(&arguments.result)?;
    let verified = &bundle.verified;
    let objects = match &arguments.cas {
        Some(cas) => Some(proof_store::check(verified, cas, &verified.body.run.identity.namespace)?),
        None => None,
    };
    let text = bundle.file.to_json().map_err(|error| store::encoding(&error))?;
    store::write(&arguments.out, format!("{text}\n").as_bytes())?;
    let generated = Generated {
        ok: true,
        execution_root: verified.execution_root,
        bundle_root: verified.bundle_root,
        objects_in_store: objects,
    };
    let checked = objects.map_or(String::new(), |count| format!("; its {count} objects are in the store"));
    let said = format!("wrote {}: bundle root {}{checked}", shown(&arguments.out), verified.bundle_root);
    Ok(Report::new(&generated, said, true))
}

/// Reads a result document and gives back the bundle in it, after both were compared.
pub(crate) fn read_result(path: &std::path::Path) -> Result<Bundle, CommandError> {
    result_of(&store::read(path, MAX_RESULT_BYTES)?, path)
}

/// The bundle in the content of a result document, which was found at `path`.
pub(crate) fn result_of(content: &[u8], path: &std::path::Path) -> Result<Bundle, CommandError> {
    let hint = "give the file that `requiem exec run --out FILE` wrote of a run that has a result";
    let wrong = |why: String| CommandError::unusable("E_RESULT", format!("{}: {why}", path.display()), hint);
    let said = requiem_proof::json::parse(content).map_err(|error| wrong(error.to_string()))?;
    let text = |name: &str| {
        let text = said.get(name).and_then(Value::as_str).map(str::to_owned);
        text.ok_or_else(|| wrong(format!("it has no {name}")))
    };
    let (body, stdout, stderr) = (text("proof_body")?, text("stdout")?, text("stderr")?);
    let parsed: BundleBody =
        requiem_model::canon::from_slice(body.as_bytes()).map_err(|error| refused(&error.into()))?;
    let sealed = seal(&parsed).map_err(|error| refused(&error))?;
    let file = ProofFile::from(Sealed { body: body.clone(), ..sealed });
    let bundle = proof_input::judge(file)?;
    let result = &bundle.verified.body.execution.result;
    check_text("stdout", &stdout, &result.stdout)?;
    check_text("stderr", &stderr, &result.stderr)?;
    let recomputed = RunDocument::new(&bundle.verified, stdout, stderr, body);
    let recomputed = serde_json::to_value(&recomputed).map_err(|error| store::encoding(&error))?;
    match differing(&recomputed, &said) {
        None => Ok(bundle),
        Some(field) => Err(CommandError::finding(
            "E_RESULT",
            format!("field {field} of the result is not what follows from its proof"),
            "do not rely on this result: run the request again",
        )),
    }
}

/// A stream's text is its bytes, or stands for bytes that are no text; then only the store has them.
fn check_text(name: &str, text: &str, stream: &Stream) -> Result<(), CommandError> {
    if text.contains('\u{fffd}') || BlobDigest::of(text.as_bytes()) == stream.digest {
        return Ok(());
    }
    let message = format!("the text of {name} does not have the digest that the proof has");
    Err(CommandError::finding("E_RESULT", message, "do not rely on this result: run the request again"))
}

/// The first field that differs, or is missing on one side.
fn differing(ours: &Value, theirs: &Value) -> Option<String> {
    let names = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
    let all = names(ours)?.into_iter().chain(names(theirs)?);
    all.into_iter().find(|name| ours.get(name) != theirs.get(name))
}
