//! Bundles after their attempt has left the journal: one file per bundle root and tenant.
//!
//! The files prove themselves: what is read is verified against the root that it is asked for by.

use std::path::{Path, PathBuf};
use std::{fs, io};

use requiem_model::BundleRoot;
use requiem_proof::{Expect, verify};

use crate::journal::{Logged, Phase};

/// The folder of bundles.
#[derive(Debug, Clone)]
pub struct Archive {
    root: PathBuf,
}

impl Archive {
    /// The archive of the store at `store`.
    pub fn new(store: &Path) -> Self {
        Self { root: store.join("proofs") }
    }

    /// Keeps the bundle of every sealed attempt. Nothing is synced: the caller syncs the file system that
    /// archive and store share, once for all of them.
    ///
    /// # Errors
    /// Whatever the file system refuses; what was kept so far stays.
    pub fn keep(&self, attempts: &[Logged]) -> io::Result<()> {
        for logged in attempts {
            if let Phase::Sealed { sealed, .. } = &logged.phase {
                let path = self.path(&logged.asked.identity.namespace, &sealed.bundle_root);
                write_whole(&path, sealed.body.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The body with this root, if it is here and still what it was.
    pub fn body(&self, namespace: &str, root: &BundleRoot) -> Option<String> {
        let body = fs::read_to_string(self.path(namespace, root)).ok()?;
        let expect = Expect { bundle_root: Some(*root), ..Expect::default() };
        match verify(&body, &expect) {
            Ok(verified) if verified.body.run.identity.namespace == namespace => Some(body),
            Ok(_other_tenant) => None,
            Err(error) => {
                tracing::error!(%root, %error, "an archived bundle is damaged and is not served");
                None
            }
        }
    }

    /// The caller has parsed `namespace` as a tenant, so it is one harmless path component.
    fn path(&self, namespace: &str, root: &BundleRoot) -> PathBuf {
        let hex = root.to_hex();
        self.root.join(namespace).join(&hex[..2]).join(hex + ".json")
    }
}

/// Whoever sees the name sees the whole file, unless power fails; then the next retirement, which has the
/// attempt still in the journal, writes it again.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let temp = path.with_extension("new");
    fs::write(&temp, content)?;
    fs::rename(&temp, path)
}
