//! Proofs that are read: from a file of either kind, or from a result document, and always judged before anything is said.

use std::path::Path;

use requiem_proof::envelope::{About, Bound, EnvelopeError, bound};
use requiem_proof::file::MAX_FILE_BYTES;
use requiem_proof::{AnyFile, OutputFile, ProofFile, ProofFileError, Verified, VerifyError};

use crate::crypto::sha256;
use crate::error::CommandError;
use crate::store;

/// A bundle that is intact and consistent, with the signatures that are about it. Nobody has checked yet whose they are.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) file: ProofFile,
    pub(crate) verified: Verified,
    pub(crate) signatures: Vec<Bound>,
}

/// Either kind of file.
#[derive(Debug)]
pub(crate) enum Input {
    Bundle(Box<Bundle>),
    Output { file: Box<OutputFile>, signatures: Vec<Bound> },
}

/// Reads and judges a file.
pub(crate) fn read(path: &Path) -> Result<Input, CommandError> {
    parse(&store::read(path, MAX_FILE_BYTES as u64)?)
}

/// Judges the content of a file.
pub(crate) fn parse(content: &[u8]) -> Result<Input, CommandError> {
    match AnyFile::parse(content).map_err(|error| no_proof(&error))? {
        AnyFile::Bundle(file) => Ok(Input::Bundle(Box::new(judge(file)?))),
        AnyFile::Output(file) => {
            file.verify().map_err(|error| refused(&error))?;
            let about = About::roots(file.bundle_root, file.execution_root);
            let signatures = bound(&file.envelopes, &about).map_err(|error| unbound(&error))?;
            Ok(Input::Output { file: Box::new(file), signatures })
        }
    }
}

/// Reads and judges a file that must be a whole bundle.
pub(crate) fn read_bundle(path: &Path) -> Result<Bundle, CommandError> {
    whole(read(path)?, &path.display().to_string())
}

/// The bundle in `input`, which was found at `place`.
pub(crate) fn whole(input: Input, place: &str) -> Result<Bundle, CommandError> {
    match input {
        Input::Bundle(bundle) => Ok(*bundle),
        Input::Output { .. } => {
            let message = format!("{place} is the proof of one output, not of a bundle");
            Err(CommandError::unusable("E_SHAPE", message, "give the bundle that it was taken from"))
        }
    }
}

/// Judges a bundle and binds its envelopes.
pub(crate) fn judge(file: ProofFile) -> Result<Bundle, CommandError> {
    let verified = file.verify().map_err(|error| refused(&error))?;
    let about = About::bundle(&verified, sha256(file.body.as_bytes()));
    let signatures = bound(&file.envelopes, &about).map_err(|error| unbound(&error))?;
    Ok(Bundle { file, verified, signatures })
}

fn no_proof(error: &ProofFileError) -> CommandError {
    let hint = match error {
        ProofFileError::NotJson(_) => {
            "give JSON: kubectl get proofbundle NAME -o json, or the file of exec run --proof"
        }
        ProofFileError::OtherKind { kind, .. } if kind == "List" => {
            "name one bundle: kubectl get proofbundle NAME -o json"
        }
        _ => "give a ProofBundle (kubectl get proofbundle NAME -o json) or the file of exec run --proof",
    };
    CommandError::unusable(error.code(), error.to_string(), hint)
}

pub(crate) fn refused(error: &VerifyError) -> CommandError {
    let hint = match error {
        VerifyError::Version { .. } => "verify it with the version of requiem that knows this schema",
        VerifyError::IdentityBinding { .. } => {
            "the object names another Execution than its body; get it from its source again"
        }
        _ => "do not rely on this bundle; get it from its source again",
    };
    CommandError::finding(error.code(), format!("the bundle is refused: {error}"), hint)
}

fn unbound(error: &EnvelopeError) -> CommandError {
    let hint =
        "do not rely on what was signed here: get the bundle from its source again, or remove the envelope";
    CommandError::finding(error.code(), format!("a signature is refused: {error}"), hint)
}
