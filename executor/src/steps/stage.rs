//! Stage: every input becomes one read-only path of the store that the sandbox can mount. Nothing is copied
//! for a run; an input of any size that was staged before costs a look-up.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use requiem_cas::{StoreError, TenantStore};
use requiem_model::request::{Input, InputSource};
use requiem_model::result::FailureReason;
use requiem_model::{BlobDigest, ExecutionRequest, Failure};
use requiem_sandbox::InputMount;

use super::fetch::{input_failure, put_inline};

/// What the sandbox takes.
pub(crate) struct Staged {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) inputs: Vec<InputMount>,
}

/// Makes standard input and every input ready. `inline` are the texts of the call: one of them that turns out
/// corrupt in the store (after a power failure, say) is put again, since we have its bytes.
pub(crate) fn stage(
    store: &TenantStore,
    request: &ExecutionRequest,
    inline: &[String],
) -> Result<Staged, Failure> {
    let stdin = request.stdin.map(|digest| stage_stdin(store, &digest, inline)).transpose()?;
    let inputs =
        request.inputs.iter().map(|input| stage_input(store, input, inline)).collect::<Result<_, _>>()?;
    Ok(Staged { stdin, inputs })
}

fn stage_stdin(store: &TenantStore, digest: &BlobDigest, inline: &[String]) -> Result<OwnedFd, Failure> {
    let path = retry_inline(store, "stdin", digest, inline, || {
        store.materialise_blob(digest, false).map(|materialised| materialised.path)
    })?;
    let opened = File::open(&path).map(OwnedFd::from);
    opened.map_err(|error| {
        let message = format!("stdin ({digest}) cannot be opened: {error}");
        Failure::new(FailureReason::StoreError, message, "check the executor's volume")
    })
}

fn stage_input(store: &TenantStore, input: &Input, inline: &[String]) -> Result<InputMount, Failure> {
    let place = format!("input {}", input.path);
    let source = match &input.source {
        InputSource::Blob { digest, executable } => retry_inline(store, &place, digest, inline, || {
            store.materialise_blob(digest, *executable).map(|materialised| materialised.path)
        })?,
        InputSource::Tree { digest } => {
            let root = BlobDigest::from_bytes(*digest.as_bytes());
            let materialised = store.materialise_tree(digest);
            materialised.map_err(|error| input_failure(&place, &root, &error))?.path
        }
    };
    Ok(InputMount { path: input.path.clone(), source })
}

fn retry_inline(
    store: &TenantStore,
    place: &str,
    digest: &BlobDigest,
    inline: &[String],
    materialise: impl Fn() -> Result<PathBuf, StoreError>,
) -> Result<PathBuf, Failure> {
    let first = materialise();
    if !matches!(first, Err(StoreError::Corrupt { .. } | StoreError::NotFound { .. })) {
        return first.map_err(|error| input_failure(place, digest, &error));
    }
    let Some(text) = inline.iter().find(|text| BlobDigest::of(text.as_bytes()) == *digest) else {
        return first.map_err(|error| input_failure(place, digest, &error));
    };
    put_inline(store, std::slice::from_ref(text))?;
    materialise().map_err(|error| input_failure(place, digest, &error))
}
