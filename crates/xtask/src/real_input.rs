//! The inputs of the samples that are too large for the repository: SQLite's amalgamation (a real C project of 270,000 lines),
//! and 128 MiB of records from a fixed generator. Both are pinned by digest; the samples name the digests.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::progress::Step;
use crate::{Error, Result, paths, prerequisites, process};

/// The Go module that carries the amalgamation; its version and checksum are in `tools/sqlite`.
const SQLITE_MODULE: &str = "github.com/mattn/go-sqlite3";
/// What is taken from it, with the BLAKE3 of each file.
const SQLITE_FILES: [(&str, &str); 2] = [
    ("sqlite3-binding.c", "904861fc974fc11027ae558200f3dfafc73eac7604cf18df19fe3b5bca6693cf"),
    ("sqlite3-binding.h", "4ab674591e90c4691a7e0a0602b2dfcdb063efc2c94d83a1a3a9594df8f23970"),
];
/// What the sample adds, from `config/samples/real/sqlite`.
const SQLITE_OURS: [&str; 2] = ["build.sh", "workload.c"];

/// The generated records: so many parts of at least so many bytes.
const RECORD_PARTS: u32 = 128;
const RECORD_PART_BYTES: usize = 1 << 20;
/// BLAKE3 of the generated records.
pub const RECORDS_DIGEST: &str = "c96ff5e30ab79474bcc482cb3f260235aa090c55c6e0af1ec7a9d35c5b40dc7c";

/// Prepares the folder that the SQLite samples have as their input tree, below `scratch`.
///
/// # Errors
/// The module cannot be fetched, or a file is not the pinned one.
pub fn sqlite(scratch: &Path) -> Result<PathBuf> {
    let step = Step::begin("fetch SQLite's source (a Go module carries it)");
    let module = fetch_module()?;
    let folder = scratch.join("sqlite");
    paths::make_private(&folder)?;
    for (name, digest) in SQLITE_FILES {
        check_digest(&module.join(name), digest)?;
        copy(&module.join(name), &folder.join(name))?;
    }
    let ours = paths::repository().join("config/samples/real/sqlite");
    for name in SQLITE_OURS {
        copy(&ours.join(name), &folder.join(name))?;
    }
    step.done();
    Ok(folder)
}

/// Writes the records below `scratch`: lines of `sensor,reading`, in 128 parts of 1 MiB, each with a line of its own first.
///
/// # Errors
/// The disk is full, or the generator no longer makes what it made.
pub fn records(scratch: &Path) -> Result<PathBuf> {
    let step = Step::begin("generate 128 MiB of records");
    let path = scratch.join("records.csv");
    let doing = || Error::io(format!("write {}", path.display()));
    let mut file = BufWriter::new(File::create(&path).map_err(doing())?);
    let part = part();
    for number in 0..RECORD_PARTS {
        writeln!(file, "part-{number:03},{:010}", part.len()).map_err(doing())?;
        file.write_all(&part).map_err(doing())?;
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error).map_err(doing())?;
    check_digest(&path, RECORDS_DIGEST)?;
    step.done();
    Ok(path)
}

/// 1 MiB of records, from a fixed linear congruence.
fn part() -> Vec<u8> {
    let mut part = Vec::with_capacity(RECORD_PART_BYTES + 32);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    while part.len() < RECORD_PART_BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let line = format!("sensor-{:02},{:010}\n", (state >> 33) % 64, (state >> 31) % 10_000_000_000);
        part.extend_from_slice(line.as_bytes());
    }
    part
}

/// Downloads the module (checked against go.sum) and returns the folder it was unpacked into.
fn fetch_module() -> Result<PathBuf> {
    prerequisites::go()?;
    let mut download = std::process::Command::new("go");
    download
        .current_dir(paths::repository().join("crates/xtask/tools/sqlite"))
        .args(["mod", "download", "-json", SQLITE_MODULE])
        .env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly");
    let answer = process::output(&mut download)?;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    answer["Dir"].as_str().map(PathBuf::from).ok_or_else(|| {
        Error::check(
            "`go mod download` names no folder",
            "Run it by hand in crates/xtask/tools/sqlite and look at what it prints",
        )
    })
}

fn check_digest(path: &Path, expected: &str) -> Result<()> {
    let doing = || Error::io(format!("read {}", path.display()));
    let mut file = File::open(path).map_err(doing())?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(doing())? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        };
    }
    let found = hasher.finalize().to_hex();
    if found.as_str() == expected {
        return Ok(());
    }
    Err(Error::check(
        format!("{} has digest {found}, pinned is {expected}", path.display()),
        "Do not use it; if the change is meant, pin the new digest here and in config/samples",
    ))
}

/// A copy that is ours to read and write, whatever the mode of the original (a module's files are read-only).
fn copy(from: &Path, to: &Path) -> Result<()> {
    let doing = format!("copy {} to {}", from.display(), to.display());
    fs::read(from).and_then(|bytes| fs::write(to, bytes)).map_err(Error::io(doing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_the_pinned_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "x").unwrap();
        check_digest(&path, blake3::hash(b"x").to_hex().as_str()).unwrap();
        assert!(check_digest(&path, RECORDS_DIGEST).unwrap_err().to_string().contains("pinned is"));
    }
}
