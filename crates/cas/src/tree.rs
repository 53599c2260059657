//! Folder manifests, `requiem.dev/tree/v1`: one canonical JSON document per folder, stored as a blob.
//!
//! # Byte specification
//!
//! `{"entries":[…],"schema":"requiem.dev/tree/v1"}` in the canonical JSON of [`requiem_model::canon`], at most 32 MiB.
//! Entries are sorted by their *raw* names, byte-wise, and no name occurs twice. An entry is one of
//!
//! - `{"bytes":N,"digest":"blake3:…","executable":B,"kind":"blob","name":"…"}`
//! - `{"digest":"blake3:…","kind":"tree","name":"…"}` (the digest of another manifest)
//! - `{"kind":"symlink","name":"…","target":"…"}`
//!
//! Names and targets are byte strings, written as text: bytes that are not part of valid UTF-8, the byte `%`, and the
//! bytes below 0x20 and 0x7f are written `%XX` with upper-case digits; everything else stands for itself. A reader
//! takes only the one spelling that this rule gives. A raw name has 1 to 255 bytes, no `/`, no NUL, and is not `.` or
//! `..`; a raw target has 1 to 4095 bytes and no NUL.
//!
//! A tree's digest is the plain BLAKE3 of its root manifest, so it covers every name and byte below it. Owners, times,
//! extended attributes and permissions other than "its owner may execute it" are not part of a tree.

use std::fmt::Write as _;

use requiem_model::canon::{self, CanonError};
use requiem_model::digest::{BlobDigest, TreeDigest};
use serde::{Deserialize, Serialize};

/// Identifier of the format.
pub const SCHEMA: &str = "requiem.dev/tree/v1";
/// Largest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 32 * 1024 * 1024;

const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4095;

/// How large a tree may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeLimits {
    /// Files, links and folders in it.
    pub entries: u64,
    /// Folders above the deepest entry, the root included.
    pub depth: u64,
    /// Bytes of all files together, holes included.
    pub bytes: u64,
}

/// One folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Raw name.
    pub name: Vec<u8>,
    /// What it names.
    pub node: Node,
}

/// What an entry names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file.
    Blob {
        /// Its content.
        digest: BlobDigest,
        /// Its size.
        bytes: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A folder.
    Tree {
        /// Its manifest.
        digest: TreeDigest,
    },
    /// A symbolic link; its target is kept, never followed.
    Symlink {
        /// Raw target.
        target: Vec<u8>,
    },
}

/// Why bytes or entries are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not canonical JSON of this shape, or too large.
    #[error(transparent)]
    Canon(#[from] CanonError),
    /// Another schema.
    #[error("its schema is {0:?}, not {SCHEMA:?}")]
    Schema(String),
    /// A name is not allowed, or not spelled in the one allowed way.
    #[error("name {name:?} {why}")]
    Name {
        /// The name as written, clipped.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A link's target is not allowed, or not spelled in the one allowed way.
    #[error("target {target:?} {why}")]
    Target {
        /// The target as written, clipped.
        target: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Entries are not in order, or one occurs twice.
    #[error("entry {name:?} is not greater than the one before it")]
    Order {
        /// The entry as written, clipped.
        name: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireManifest {
    schema: String,
    entries: Vec<WireEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
enum WireEntry {
    Blob { name: String, digest: BlobDigest, bytes: u64, executable: bool },
    Tree { name: String, digest: TreeDigest },
    Symlink { name: String, target: String },
}

// === impl TreeLimits ===

impl TreeLimits {
    /// For what a payload made.
    pub const OUTPUT: Self = Self { entries: 100_000, depth: 64, bytes: 64 << 30 };
    /// For what a user put, and for materialising: a forged tree may name the same folder 2^60 times.
    pub const INPUT: Self = Self { entries: 1_000_000, depth: 64, bytes: 256 << 30 };
}

// === impl Manifest ===

impl Manifest {
    /// A manifest of these entries, which are sorted here.
    ///
    /// # Errors
    /// Names or targets outside the rules, a name that occurs twice.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, ManifestError> {
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let manifest = Self { entries };
        manifest.check()?;
        Ok(manifest)
    }

    /// The entries, sorted by raw name.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries, sorted by raw name.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The canonical bytes.
    ///
    /// # Errors
    /// A manifest that would be larger than [`MAX_MANIFEST_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        let entries = self.entries.iter().map(WireEntry::from).collect();
        let wire = WireManifest { schema: SCHEMA.to_owned(), entries };
        Ok(canon::to_vec_limited(&wire, MAX_MANIFEST_BYTES)?)
    }

    /// Reads a manifest; takes nothing but what [`Manifest::encode`] gives.
    ///
    /// # Errors
    /// Anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let wire: WireManifest = canon::from_slice_limited(bytes, MAX_MANIFEST_BYTES)?;
        if wire.schema != SCHEMA {
            return Err(ManifestError::Schema(clip(&wire.schema)));
        }
        let entries = wire.entries.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?;
        let manifest = Self { entries };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        for entry in &self.entries {
            check_name(&entry.name)
                .map_err(|why| ManifestError::Name { name: clip(&escape(&entry.name)), why })?;
            if let Node::Symlink { target } = &entry.node {
                check_target(target)
                    .map_err(|why| ManifestError::Target { target: clip(&escape(target)), why })?;
            }
        }
        match self.entries.windows(2).find(|pair| pair[0].name >= pair[1].name) {
            Some(pair) => Err(ManifestError::Order { name: clip(&escape(&pair[1].name)) }),
            None => Ok(()),
        }
    }
}

impl From<&Entry> for WireEntry {
    fn from(entry: &Entry) -> Self {
        let name = escape(&entry.name);
        match &entry.node {
            Node::Blob { digest, bytes, executable } => {
                Self::Blob { name, digest: *digest, bytes: *bytes, executable: *executable }
            }
            Node::Tree { digest } => Self::Tree { name, digest: *digest },
            Node::Symlink { target } => Self::Symlink { name, target: escape(target) },
        }
    }
}

impl TryFrom<WireEntry> for Entry {
    type Error = ManifestError;

    fn try_from(wire: WireEntry) -> Result<Self, ManifestError> {
        let (name, node) = match wire {
            WireEntry::Blob { name, digest, bytes, executable } => {
                (name, Node::Blob { digest, bytes, executable })
            }
            WireEntry::Tree { name, digest } => (name, Node::Tree { digest }),
            WireEntry::Symlink { name, target } => {
                let raw = unescape(&target);
                let raw = raw.map_err(|why| ManifestError::Target { target: clip(&target), why })?;
                (name, Node::Symlink { target: raw })
            }
        };
        let raw = unescape(&name).map_err(|why| ManifestError::Name { name: clip(&name), why })?;
        Ok(Self { name: raw, node })
    }
}

const fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name {
        b"" => return Err("is empty"),
        b"." | b".." => return Err("is '.' or '..'"),
        long if long.len() > MAX_NAME => return Err("is longer than 255 bytes"),
        _ => {}
    }
    let mut at = 0;
    while at < name.len() {
        match name[at] {
            b'/' => return Err("holds a '/'"),
            0 => return Err("holds a NUL"),
            _ => at += 1,
        }
    }
    Ok(())
}

fn check_target(target: &[u8]) -> Result<(), &'static str> {
    match target {
        b"" => Err("is empty"),
        long if long.len() > MAX_TARGET => Err("is longer than 4095 bytes"),
        nul if nul.contains(&0) => Err("holds a NUL"),
        _ => Ok(()),
    }
}

/// The text form of a raw name.
pub(crate) fn escape(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    let percent = |text: &mut String, byte: u8| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "%{byte:02X}");
    };
    for chunk in raw.utf8_chunks() {
        for character in chunk.valid().chars() {
            match u8::try_from(character) {
                Ok(byte) if byte == b'%' || byte < b' ' || byte == 0x7f => percent(&mut text, byte),
                _ => text.push(character),
            }
        }
        chunk.invalid().iter().for_each(|byte| percent(&mut text, *byte));
    }
    text
}

/// The raw name of a text form, if it is the one that [`escape`] gives.
fn unescape(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut raw = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            raw.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or("has a '%' without two digits")?;
        let high = char::from(digits[0]).to_digit(16);
        let value =
            high.zip(char::from(digits[1]).to_digit(16)).and_then(|(h, l)| u8::try_from(h * 16 + l).ok());
        raw.push(value.ok_or("has a '%' without two digits")?);
        rest = after;
    }
    if escape(&raw) == text { Ok(raw) } else { Err("is not spelled in the one allowed way") }
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
