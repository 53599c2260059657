//! Container images without a daemon: one layer of a few files, written as an OCI image layout in a tar archive.
//!
//! Flow: files → layer (tar, zstd) → configuration → manifest → index → archive. Nothing in it depends on when or where it was
//! made: times are zero, owners are root, the order is that of the names. Equal files give equal bytes, and so equal digests.
//! Format: OCI Image Format Specification 1.1; archive: the image layout as `docker load`, `ctr images import` and `skopeo` read it.

mod tar;

use std::path::Path;

use serde_json::{Value, json};

use crate::{Error, Result};

/// Strong enough to halve a program, and quick.
const ZSTD_LEVEL: i32 = 15;

/// A file in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    path: String,
    mode: u32,
    bytes: Vec<u8>,
}

/// What an image is made of.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its reference, `name:tag`.
    pub name: String,
    /// Its files.
    pub files: Vec<File>,
    /// What is run.
    pub entrypoint: Vec<String>,
    /// As whom: `uid:gid`.
    pub user: String,
    /// Labels, and annotations of the manifest.
    pub labels: Vec<(String, String)>,
}

/// An image in its final bytes.
#[derive(Debug, Clone)]
pub struct Packed {
    name: String,
    /// Blobs with their digests: layer, configuration, manifest.
    blobs: Vec<Blob>,
    index: Value,
}

#[derive(Debug, Clone)]
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl File {
    /// A program; its folders are made.
    pub fn program(path: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { path: path.into(), mode: 0o755, bytes }
    }

    /// A file to read.
    pub fn data(path: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { path: path.into(), mode: 0o644, bytes }
    }
}

impl Image {
    /// Makes its bytes.
    ///
    /// # Errors
    /// A path does not fit into an archive.
    pub fn pack(&self) -> Result<Packed> {
        let plain = self.layer()?;
        let diff = digest(&plain);
        let layer = zstd::encode_all(plain.as_slice(), ZSTD_LEVEL).map_err(Error::io("compress a layer"))?;
        let layer = Blob::new(layer);
        let config = Blob::of(&self.config(&diff));
        let manifest = Blob::of(&self.manifest(&config, &layer));
        let index = self.index(&manifest);
        Ok(Packed { name: self.name.clone(), blobs: vec![layer, config, manifest], index })
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut files: Vec<&File> = self.files.iter().collect();
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let mut folders: Vec<&str> = files.iter().flat_map(|file| parents(&file.path)).collect();
        folders.sort_unstable();
        folders.dedup();
        let mut archive = tar::Archive::default();
        for folder in folders {
            archive.folder(folder, 0o755)?;
        }
        for file in files {
            archive.file(&file.path, file.mode, &file.bytes)?;
        }
        Ok(archive.finish())
    }

    fn config(&self, diff: &str) -> Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": self.user,
                "Entrypoint": self.entrypoint,
                "Env": ["PATH=/usr/bin:/bin"],
                "WorkingDir": "/",
                "Labels": self.annotations(),
            },
            "rootfs": {"type": "layers", "diff_ids": [diff]},
            "history": [{"created_by": "cargo xtask images"}],
        })
    }

    fn manifest(&self, config: &Blob, layer: &Blob) -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar+zstd")],
            "annotations": self.annotations(),
        })
    }

    fn index(&self, manifest: &Blob) -> Value {
        let mut descriptor = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
        descriptor["platform"] = json!({"architecture": architecture(), "os": "linux"});
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        descriptor["annotations"] =
            json!({"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag});
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        })
    }

    fn annotations(&self) -> Value {
        self.labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect()
    }
}

impl Packed {
    /// Its reference.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Digest of its manifest: what `name@sha256:…` means.
    pub fn digest(&self) -> &str {
        self.blobs.last().map_or("", |manifest| &manifest.digest)
    }

    /// Bytes that a node downloads.
    pub fn size(&self) -> usize {
        self.blobs.iter().map(|blob| blob.bytes.len()).sum()
    }

    /// Writes the layout as one archive.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_archive(&self, path: &Path) -> Result<()> {
        let mut archive = tar::Archive::default();
        archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.file("index.json", 0o644, self.index.to_string().as_bytes())?;
        archive.folder("blobs", 0o755)?;
        archive.folder("blobs/sha256", 0o755)?;
        for blob in &self.blobs {
            archive.file(&format!("blobs/sha256/{}", blob.hex()), 0o644, &blob.bytes)?;
        }
        std::fs::write(path, archive.finish()).map_err(Error::io(format!("write {}", path.display())))
    }
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest(&bytes), bytes }
    }

    fn of(document: &Value) -> Self {
        Self::new(document.to_string().into_bytes())
    }

    fn hex(&self) -> &str {
        self.digest.trim_start_matches("sha256:")
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// `sha256:` and 64 digits.
fn digest(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let digits = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
    std::iter::once("sha256:".to_owned()).chain(digits).collect()
}

/// The folders above `path`, outermost first.
fn parents(path: &str) -> Vec<&str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).collect()
}

/// This machine's architecture, in Go's words, which are OCI's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(files: Vec<File>) -> Image {
        Image {
            name: "requiem.dev/example:1".to_owned(),
            files,
            entrypoint: vec!["/usr/bin/a".to_owned()],
            user: "65532:65532".to_owned(),
            labels: vec![("org.opencontainers.image.title".to_owned(), "example".to_owned())],
        }
    }

    #[test]
    fn the_digest_depends_on_the_files_and_not_on_their_order() {
        let (a, b) = (File::program("usr/bin/a", vec![1]), File::data("etc/b", vec![2]));
        let one = image(vec![a.clone(), b.clone()]).pack().unwrap();
        let other = image(vec![b, a.clone()]).pack().unwrap();
        let changed = image(vec![a, File::data("etc/b", vec![3])]).pack().unwrap();
        assert_eq!(one.digest(), other.digest());
        assert_ne!(one.digest(), changed.digest());
    }

    #[test]
    fn every_descriptor_names_a_blob_of_its_digest_and_size() {
        let packed = image(vec![File::program("usr/bin/a", vec![7; 1000])]).pack().unwrap();
        let [layer, config, manifest] = packed.blobs.as_slice() else { panic!("three blobs") };
        let text: Value = serde_json::from_slice(&manifest.bytes).unwrap();
        for (descriptor, blob) in [(&text["config"], config), (&text["layers"][0], layer)] {
            assert_eq!(descriptor["digest"], blob.digest);
            assert_eq!(descriptor["size"], blob.bytes.len());
        }
        assert_eq!(packed.index["manifests"][0]["digest"], packed.digest());
        let plain = zstd::decode_all(layer.bytes.as_slice()).unwrap();
        let config: Value = serde_json::from_slice(&config.bytes).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&plain));
    }

    #[test]
    fn sha256_is_sha256() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
    }
}
