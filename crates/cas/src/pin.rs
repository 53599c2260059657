//! Pins: objects that are never collected, with everything that they name.
//!
//! A pin is a file `pins/<64 hex>` of the tenant, or `pins/<64 hex>.<32 hex>` if it has a name (the second part is the beginning of
//! the BLAKE3 of the name). It holds canonical JSON: `{"digest":"blake3:…","name":"…","pinnedAt":"…","schema":"requiem.dev/pin/v1"}`,
//! without `name` if it has none. Written aside, synced, renamed into place, and its folder synced: a pin is there or not.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use nix::sys::stat::SFlag;
use requiem_model::canon;
use requiem_model::digest::BlobDigest;
use serde::{Deserialize, Serialize};

use crate::error::{At, StoreError};
use crate::fd::read_flags;
use crate::session::make_folder;
use crate::shelves::{Named, Shelves, beneath};
use crate::store::TenantStore;
use crate::tenant::Tenant;

/// Identifier of the format.
const SCHEMA: &str = "requiem.dev/pin/v1";
/// Longest name, in bytes.
pub const MAX_PIN_NAME: usize = 200;
/// Longest file: the name, escaped, and the rest.
const MAX_FILE: u64 = 4096;

/// One pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Whose object.
    pub tenant: Tenant,
    /// Which.
    pub digest: BlobDigest,
    /// What it is called. One object may have pins of several names.
    pub name: Option<String>,
    /// When it was last pinned under that name, as the caller said.
    pub pinned_at: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    schema: String,
    digest: BlobDigest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    pinned_at: String,
}

// === impl TenantStore ===

impl TenantStore {
    /// Pins an object. On return the pin is durable. It is the caller's to make sure that the object and what it names are there.
    ///
    /// # Errors
    /// A name outside its rules, an object that is not there, a disk that fails.
    pub fn pin(&self, digest: &BlobDigest, name: Option<&str>, pinned_at: &str) -> Result<(), StoreError> {
        if let Some(name) = name {
            check_name(name)?;
        }
        if !self.contains(digest)? {
            return Err(StoreError::NotFound { digest: *digest });
        }
        let shared = &self.inner.shared;
        shared.sync.check()?;
        let wire = Wire {
            schema: SCHEMA.to_owned(),
            digest: *digest,
            name: name.map(str::to_owned),
            pinned_at: pinned_at.to_owned(),
        };
        let folder = self.inner.folder.join("pins");
        make_folder(&folder)?;
        let target = folder.join(file_name(digest, name));
        let bytes = canon::to_vec(&wire).map_err(|error| unusable(&target, &error.to_string()))?;
        let mut temp = shared.session.file()?;
        temp.file.write_all(&bytes).at("write", &temp.path)?;
        shared.sync.content(&temp.file, &temp.path)?;
        fs::rename(&temp.path, &target).at("rename", &target)?;
        shared.sync.folder(&folder)?;
        self.sync_ancestors()
    }

    /// Removes the pin of that name; without a name, every pin of the object. Gives back those that were there.
    ///
    /// # Errors
    /// The pins cannot be read, or the disk fails.
    pub fn unpin(&self, digest: &BlobDigest, name: Option<&str>) -> Result<Vec<Pin>, StoreError> {
        let mut pins = self.pins()?;
        pins.retain(|pin| pin.digest == *digest && (name.is_none() || pin.name.as_deref() == name));
        let folder = self.inner.folder.join("pins");
        for pin in &pins {
            let path = folder.join(file_name(digest, pin.name.as_deref()));
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).at("remove", &path);
                }
                _ => {}
            }
        }
        if !pins.is_empty() {
            self.inner.shared.sync.folder(&folder)?;
        }
        Ok(pins)
    }

    /// Every pin of the tenant, by digest and name.
    ///
    /// # Errors
    /// Something among the pins is none.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let tenant = self.inner.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Shelves::open(&self.inner.shared.root)?.pins(&Tenant::parse(&tenant)?)
    }
}

// === impl Shelves ===

impl Shelves {
    /// Every pin of the tenant, by digest and name.
    ///
    /// # Errors
    /// Something among the pins is none.
    pub fn pins(&self, tenant: &Tenant) -> Result<Vec<Pin>, StoreError> {
        let way = format!("tenants/{tenant}/pins");
        let mut pins = Vec::new();
        for Named { name, kind } in self.list_if_there(&way)? {
            let path = self.at(&way, &name);
            if kind != SFlag::S_IFREG {
                return Err(StoreError::Stray { path, why: "is not a pin: it is not a regular file" });
            }
            let text = name.to_string_lossy();
            pins.push(self.read_pin(tenant, &text, &format!("{way}/{text}"), &path)?);
        }
        pins.sort_by(|one, other| (&one.digest, &one.name).cmp(&(&other.digest, &other.name)));
        Ok(pins)
    }

    fn read_pin(&self, tenant: &Tenant, name: &str, way: &str, path: &Path) -> Result<Pin, StoreError> {
        let file = File::from(beneath(self.root(), way, read_flags(), path)?);
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).at("read", path)?;
        let wire: Wire = canon::from_slice(&bytes).map_err(|error| unusable(path, &error.to_string()))?;
        if wire.schema != SCHEMA {
            return Err(unusable(path, "it is of another format"));
        }
        if file_name(&wire.digest, wire.name.as_deref()) != name {
            return Err(unusable(path, "its file has the name of another pin"));
        }
        let Wire { digest, name, pinned_at, .. } = wire;
        Ok(Pin { tenant: tenant.clone(), digest, name, pinned_at })
    }
}

/// A name is one line of text.
fn check_name(name: &str) -> Result<(), StoreError> {
    if name.is_empty() || name.len() > MAX_PIN_NAME || name.chars().any(char::is_control) {
        return Err(StoreError::PinName(name.chars().take(80).collect()));
    }
    Ok(())
}

fn file_name(digest: &BlobDigest, name: Option<&str>) -> String {
    let hex = digest.to_hex();
    match name {
        Some(name) => format!("{hex}.{}", &BlobDigest::of(name.as_bytes()).to_hex()[..32]),
        None => hex,
    }
}

fn unusable(path: &Path, why: &str) -> StoreError {
    StoreError::Pin { path: path.to_owned(), why: why.to_owned() }
}
