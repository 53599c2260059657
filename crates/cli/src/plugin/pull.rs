//! Brings objects from an executor into a store of this machine. Each is hashed on the way and kept only if it is what was asked for.

use std::collections::BTreeSet;

use http_body_util::BodyExt;
use requiem_cas::{Durability, Manifest, Node, TenantStore};
use requiem_model::request::InputSource;
use requiem_model::result::OutputContent;
use requiem_model::{BlobDigest, ExecutionRequest, TreeDigest};

use super::remote::Remote;
use crate::error::CommandError;
use crate::text::bytes;

/// Largest input that is brought here; of an output the proof says the size.
const MAX_INPUT_BYTES: u64 = 64 << 30;
/// Largest manifest of a folder.
const MAX_MANIFEST_BYTES: u64 = requiem_cas::tree::MAX_MANIFEST_BYTES as u64;

/// From an executor into a store.
pub(crate) struct Puller<'a> {
    pub(crate) remote: &'a Remote,
    pub(crate) namespace: &'a str,
    pub(crate) store: &'a TenantStore,
}

impl Puller<'_> {
    /// Brings an output here.
    pub(crate) async fn output(&self, content: &OutputContent) -> Result<(), CommandError> {
        match content {
            OutputContent::Blob { digest, bytes, .. } => self.blob(digest, *bytes).await,
            OutputContent::Tree { digest, .. } => self.tree(*digest).await,
        }
    }

    /// Brings everything here that a request reads.
    pub(crate) async fn inputs(&self, request: &ExecutionRequest) -> Result<(), CommandError> {
        if let Some(stdin) = &request.stdin {
            self.blob(stdin, MAX_INPUT_BYTES).await?;
        }
        for input in &request.inputs {
            match &input.source {
                InputSource::Blob { digest, .. } => self.blob(digest, MAX_INPUT_BYTES).await?,
                InputSource::Tree { digest } => self.tree(*digest).await?,
            }
        }
        Ok(())
    }

    /// Brings a folder here, with everything in it.
    async fn tree(&self, root: TreeDigest) -> Result<(), CommandError> {
        // A folder that lies in many places is looked at once: their number may be without a bound.
        let (mut folders, mut seen) = (vec![root], BTreeSet::from([root]));
        while let Some(digest) = folders.pop() {
            self.blob(&BlobDigest::from_bytes(*digest.as_bytes()), MAX_MANIFEST_BYTES).await?;
            let manifest: Manifest = self.store.manifest(&digest)?;
            for entry in manifest.into_entries() {
                match entry.node {
                    Node::Blob { digest, bytes, .. } => self.blob(&digest, bytes).await?,
                    Node::Tree { digest } if seen.insert(digest) => folders.push(digest),
                    Node::Tree { .. } | Node::Symlink { .. } => {}
                }
            }
        }
        Ok(())
    }

    /// Brings one object of at most `limit` bytes here, unless it is here.
    async fn blob(&self, digest: &BlobDigest, limit: u64) -> Result<(), CommandError> {
        if self.store.contains(digest)? {
            return Ok(());
        }
        let path = format!("/v1/blobs/{digest}?namespace={}", self.namespace);
        let answer = self.remote.get(&path).await?;
        let mut body = answer.ok_or_else(|| self.remote.missing(&digest.to_string()))?.into_body();
        let (mut writer, mut hasher) = (self.store.writer(Durability::Volatile), blake3::Hasher::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.remote.broke_off(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            hasher.update(&data);
            if hasher.count() > limit {
                return Err(lied(digest, &format!("sent more than {}", bytes(limit))));
            }
            writer.push(&data)?;
        }
        if BlobDigest::from_bytes(*hasher.finalize().as_bytes()) != *digest {
            return Err(lied(digest, "sent other bytes"));
        }
        writer.finish()?;
        Ok(())
    }
}

fn lied(digest: &BlobDigest, how: &str) -> CommandError {
    let message = format!("asked for {digest}, the executor {how}; nothing of it was kept");
    CommandError::finding(
        "E_DIGEST",
        message,
        "do not rely on that executor; see requiem cas verify on its store",
    )
}

#[cfg(test)]
mod tests {
    use requiem_cas::{Store, Tenant};

    use super::super::forger::forger;
    use super::*;

    #[tokio::test]
    async fn nothing_is_kept_but_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap().tenant(&Tenant::parse("ns").unwrap()).unwrap();
        let remote = forger(b"forged").await;
        let puller = Puller { remote: &remote, namespace: "ns", store: &store };
        let (asked, sent) = (BlobDigest::of(b"true"), BlobDigest::of(b"forged"));
        for (digest, limit, said) in [(&asked, 100, "sent other bytes"), (&sent, 5, "sent more than 5 bytes")]
        {
            let error = puller.blob(digest, limit).await.unwrap_err();
            assert_eq!((error.error_code.as_str(), error.exit_code()), ("E_DIGEST", 1));
            assert!(error.message.contains(said), "{}", error.message);
            assert!(!store.contains(&asked).unwrap() && !store.contains(&sent).unwrap());
        }
        puller.blob(&sent, 6).await.unwrap();
        assert!(store.contains(&sent).unwrap());
        let folder = TreeDigest::from_bytes(*sent.as_bytes());
        assert!(puller.tree(folder).await.is_err(), "those bytes are no folder");
    }
}
