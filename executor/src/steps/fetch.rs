//! Fetch: texts of the call go into the store, and everything that the request names must be there.

use requiem_cas::{Durability, StoreError, TenantStore};
use requiem_model::request::InputSource;
use requiem_model::result::FailureReason;
use requiem_model::{BlobDigest, ExecutionRequest, Failure};

use super::store_failure;
use crate::execute::Stored;

/// One object that the request names, with the place where it does.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    place: String,
    digest: BlobDigest,
}

/// Puts `inline` and looks for every input. Gives back what was new.
///
/// A tree is looked for by its root manifest; the rest of it is found missing when it is staged.
pub(crate) fn fetch(
    store: &TenantStore,
    request: &ExecutionRequest,
    inline: &[String],
) -> Result<Stored, Failure> {
    let stored = put_inline(store, inline)?;
    for Named { place, digest } in named(request) {
        match store.contains(&digest) {
            Ok(true) => {}
            Ok(false) => return Err(missing(&place, &digest)),
            Err(error) => return Err(store_failure(&place, &error)),
        }
    }
    Ok(stored)
}

/// Puts the texts of the call. They are inputs, not results: losing them to a power failure loses nothing
/// that was promised, so they are not synced.
pub(crate) fn put_inline(store: &TenantStore, inline: &[String]) -> Result<Stored, Failure> {
    inline.iter().try_fold(Stored::default(), |stored, text| {
        let put = store.put_bytes(text.as_bytes(), Durability::Volatile);
        let receipt = put.map_err(|error| store_failure("cannot keep an inline text", &error))?;
        Ok(stored + Stored::of(&receipt))
    })
}

/// The failure of an attempt whose input cannot be had: absent, corrupt, or no tree.
pub(crate) fn input_failure(place: &str, digest: &BlobDigest, error: &StoreError) -> Failure {
    match error {
        StoreError::NotFound { digest: found } if found == digest => missing(place, digest),
        StoreError::NotFound { digest: part } => {
            let message = format!("{place} is the tree {digest}, and its part {part} is not in the store");
            Failure::new(
                FailureReason::InputMissing,
                message,
                "put the whole tree into this namespace of the store",
            )
        }
        other => store_failure(&format!("{place} ({digest})"), other),
    }
}

fn missing(place: &str, digest: &BlobDigest) -> Failure {
    let message = format!("{place} is {digest}, which is not in this namespace of the store");
    Failure::new(FailureReason::InputMissing, message, "put it with `requiem cas put`, or correct the digest")
}

fn named(request: &ExecutionRequest) -> Vec<Named> {
    let stdin = request.stdin.map(|digest| Named { place: "stdin".to_owned(), digest });
    let inputs = request.inputs.iter().map(|input| {
        let digest = match input.source {
            InputSource::Blob { digest, .. } => digest,
            InputSource::Tree { digest } => BlobDigest::from_bytes(*digest.as_bytes()),
        };
        Named { place: format!("input {}", input.path), digest }
    });
    stdin.into_iter().chain(inputs).collect()
}

#[cfg(test)]
mod tests {
    use requiem_model::request::Input;
    use requiem_model::{RelPath, TreeDigest};

    use super::*;

    #[test]
    fn everything_that_the_request_names_is_looked_for() {
        let mut request = ExecutionRequest::new(vec!["/bin/true".into()]);
        request.stdin = Some(BlobDigest::of(b"in"));
        let tree = TreeDigest::from_bytes([9; 32]);
        request.inputs =
            vec![Input { path: RelPath::parse("src").unwrap(), source: InputSource::Tree { digest: tree } }];
        let places: Vec<_> = named(&request).into_iter().map(|named| (named.place, named.digest)).collect();
        let expected = [
            ("stdin".to_owned(), BlobDigest::of(b"in")),
            ("input src".to_owned(), BlobDigest::from_bytes([9; 32])),
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn a_missing_part_of_a_tree_names_both() {
        let (tree, part) = (BlobDigest::of(b"tree"), BlobDigest::of(b"part"));
        let failure = input_failure("input src", &tree, &StoreError::NotFound { digest: part });
        assert_eq!(failure.reason, FailureReason::InputMissing);
        assert!(failure.message.contains(&tree.to_string()) && failure.message.contains(&part.to_string()));
    }
}
