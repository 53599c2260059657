//! `requiem proof prove`: one output of a bundle in a file of its own, without the rest.

use requiem_model::{BundleRoot, ExecutionRoot};
use requiem_proof::OutputFile;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::ProofProve;
use crate::error::CommandError;
use crate::report::Report;
use crate::schema;
use crate::text::shown;
use crate::{proof_input, store};

#[derive(Serialize, JsonSchema)]
pub(super) struct Proven<'a> {
    ok: bool,
    path: &'a str,
    #[schemars(schema_with = "schema::digest")]
    execution_root: ExecutionRoot,
    #[schemars(schema_with = "schema::digest")]
    bundle_root: BundleRoot,
    bytes: usize,
}

/// Runs the command.
pub(crate) fn run(arguments: &ProofProve) -> Result<Report, CommandError> {
    let bundle = proof_input::read_bundle(&arguments.file)?;
    let file = OutputFile::new(&bundle.verified, &arguments.output, bundle.file.envelopes);
    let file = file.map_err(|error| {
        let outputs = &bundle.verified.body.execution.result.outputs;
        let names: Vec<&str> = outputs.iter().map(|output| output.path.as_str()).collect();
        let hint = format!("name one of its outputs: {}", names.join(", "));
        CommandError::unusable(error.code(), error.to_string(), hint)
    })?;
    let text = serde_json::to_string_pretty(&file).map_err(|error| store::encoding(&error))? + "\n";
    store::write(&arguments.out, text.as_bytes())?;
    let proven = Proven {
        ok: true,
        path: arguments.output.as_str(),
        execution_root: file.execution_root,
        bundle_root: file.bundle_root,
        bytes: text.len(),
    };
    let said = format!(
        "wrote {}: {} bytes, {} + {} hashes up to bundle root {}",
        shown(&arguments.out),
        text.len(),
        file.output.siblings.len(),
        file.execution.siblings.len(),
        file.bundle_root,
    );
    Ok(Report::new(&proven, said, true))
}
