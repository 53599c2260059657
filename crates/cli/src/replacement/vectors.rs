//! Golden vectors through an engine's own path: bytes of which the digest is known from elsewhere go in as inputs and as standard input,
//! and must come out as outputs and as standard output.
//!
//! The blobs are the test vectors of BLAKE3 (byte number i is i modulo 251), whose digests its authors publish. The folder's digest follows
//! from docs/format/store.md.

use requiem_cas::{Durability, TenantStore};
use requiem_model::request::{Input, InputSource};
use requiem_model::result::{OutputContent, RunResult};
use requiem_model::{ExecutionRequest, RelPath};

use super::preferred;
use crate::error::CommandError;

/// Length, and digest of so many bytes.
const BLOBS: [(usize, &str); 8] = [
    (0, "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
    (1, "blake3:2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
    (1023, "blake3:10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"),
    (1024, "blake3:42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
    (1025, "blake3:d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
    (2049, "blake3:5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030"),
    (31744, "blake3:62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47"),
    (102_400, "blake3:bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"),
];

/// The folder that the script makes: a program of 1024 bytes, a folder with an empty file, and a link.
const TREE: &str = "blake3:7df77507af3ad3e141856d003fd9c67d07e32349bfc37f7fba824d3c5fce28df";

/// Copies each input to an output of its length, makes the folder, and hands on standard input.
const SCRIPT: &str = "mkdir -p out tree/folder && for each in in/*; do cat \"$each\" > \"out/${each#in/}\"; done && \
cat in/1024 > tree/program && chmod 755 tree/program && : > tree/folder/empty && ln -s folder/empty tree/link && exec cat";

/// The request that carries them.
#[derive(Debug)]
pub(crate) struct Vectors {
    pub(crate) request: ExecutionRequest,
}

/// A vector that was looked at: what it is, the digest that it has, and the one that came out.
pub(crate) type Looked = (String, String, String);

impl Vectors {
    /// Puts the vectors into the store, and the request together.
    ///
    /// # Errors
    /// The store fails, or gives a vector another digest than it has.
    pub(crate) fn prepare(objects: &TenantStore) -> Result<Self, CommandError> {
        let mut request = ExecutionRequest::new(["/bin/sh", "-c", SCRIPT].map(str::to_owned).to_vec());
        for (length, golden) in BLOBS {
            let digest = objects.put_bytes(&pattern(length), Durability::Volatile)?.digest;
            if digest.to_string() != golden {
                let message = format!("this program gives {length} bytes the digest {digest}, not {golden}");
                return Err(CommandError::unusable(
                    "E_DIGEST",
                    message,
                    "this is a defect; please report it",
                ));
            }
            let source = InputSource::Blob { digest, executable: false };
            request.inputs.push(Input { path: path(&format!("in/{length}"))?, source });
            request.outputs.push(path(&format!("out/{length}"))?);
            request.stdin = Some(digest);
        }
        request.outputs.push(path("tree")?);
        request.policy = preferred();
        let request =
            request.normalise().map_err(|error| CommandError::field(&error.field, &error.why, error.hint))?;
        Ok(Self { request })
    }

    /// Every vector beside what came out of a run.
    pub(crate) fn looked_at(result: &RunResult) -> Vec<Looked> {
        let output = |name: &str| {
            let found = result.outputs.iter().find(|output| output.path.as_str() == name);
            found.map_or_else(
                || "missing".to_owned(),
                |output| match &output.content {
                    OutputContent::Blob { digest, .. } => digest.to_string(),
                    OutputContent::Tree { digest, .. } => digest.to_string(),
                },
            )
        };
        let looked = |(length, golden): (usize, &str)| {
            (format!("{length} bytes, input to output"), golden.to_owned(), output(&format!("out/{length}")))
        };
        let mut all: Vec<Looked> = BLOBS.into_iter().map(looked).collect();
        let (longest, golden) = BLOBS[BLOBS.len() - 1];
        let through = format!("{longest} bytes, standard input to standard output");
        all.push((through, golden.to_owned(), result.stdout.digest.to_string()));
        all.push(("a folder that is made".to_owned(), TREE.to_owned(), output("tree")));
        all
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}

fn path(text: &str) -> Result<RelPath, CommandError> {
    RelPath::parse(text)
        .map_err(|error| CommandError::field(text, error, "this is a defect; please report it"))
}

#[cfg(test)]
mod tests {
    use requiem_model::BlobDigest;

    use super::*;

    #[test]
    fn digests_are_those_that_the_authors_publish() {
        for (length, golden) in BLOBS {
            assert_eq!(BlobDigest::of(&pattern(length)).to_string(), golden, "{length}");
        }
    }
}
