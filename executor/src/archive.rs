//! Bundles after their attempt has left the journal: one file per bundle root and tenant.
//!
//! The files prove themselves: what is read is verified against the root that it is asked for by.

use std::path::{Path, PathBuf};
use std::{fs, io};

use requiem_model::BundleRoot;
use requiem_proof::{Expect, Sealed, verify};

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

    /// Keeps one bundle. On return it is durable.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub fn keep_durably(&self, namespace: &str, sealed: &Sealed) -> io::Result<()> {
        let path = self.path(namespace, &sealed.bundle_root);
        let temp = write_aside(&path, sealed.body.as_bytes())?;
        fs::File::open(&temp)?.sync_all()?;
        fs::rename(&temp, &path)?;
        // Of the file's folder up to the one that holds the archive: any of them may be new.
        for folder in path.ancestors().skip(1).take(4) {
            fs::File::open(folder)?.sync_all()?;
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
    fs::rename(write_aside(path, content)?, path)
}

/// Writes the file under a name that means nothing, and gives back that name.
fn write_aside(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let temp = path.with_extension("new");
    fs::write(&temp, content)?;
    Ok(temp)
}
