//! An image with a shell, for tests and demos: programs of this machine with the libraries that they load. There is no registry to
//! fetch one from, and this needs none. Not reproducible, and not to be published.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::oci::{File, Image};
use crate::{Error, Result, packages, process};

/// Its reference.
pub const NAME: &str = "requiem.dev/payload:test";
/// What ordinary commands and hostile ones use.
const PROGRAMS: [&str; 33] = [
    "sh",
    "bash",
    "cat",
    "ls",
    "id",
    "echo",
    "head",
    "env",
    "sleep",
    "touch",
    "mkdir",
    "rm",
    "dd",
    "date",
    "true",
    "false",
    "grep",
    "sed",
    "find",
    "sha256sum",
    "wc",
    "mount",
    "umount",
    "unshare",
    "stat",
    "seq",
    "timeout",
    "sort",
    "yes",
    "hostname",
    "tee",
    "ln",
    "chmod",
];

/// See os-release(5).
const RELEASE: &str = "/usr/lib/os-release";

/// Collects it.
///
/// # Errors
/// A program is not on this machine.
pub fn image() -> Result<Image> {
    let mut files = BTreeMap::new();
    for program in PROGRAMS {
        let path = packages::find(program).ok_or_else(|| {
            let remedy =
                format!("Install it: `apt-get install coreutils util-linux bash` or the like has {program}");
            Error::prerequisite(format!("{program} is not on this machine"), remedy)
        })?;
        for library in libraries(&path)? {
            add(&mut files, library.display().to_string().trim_start_matches('/'), &library)?;
        }
        add(&mut files, &format!("bin/{program}"), &path)?;
    }
    let mut files: Vec<File> = files.into_iter().map(|(path, bytes)| File::program(path, bytes)).collect();
    // By which a command can tell whose image it is in.
    let release = fs::read(RELEASE).map_err(Error::io(format!("read {RELEASE}")))?;
    files.push(File::data(RELEASE.trim_start_matches('/'), release));
    Ok(Image {
        name: NAME.to_owned(),
        files,
        entrypoint: vec!["/bin/sh".to_owned()],
        user: "65532:65532".to_owned(),
        labels: Vec::new(),
    })
}

fn add(files: &mut BTreeMap<String, Vec<u8>>, name: &str, path: &Path) -> Result<()> {
    if !files.contains_key(name) {
        let bytes = fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
        files.insert(name.to_owned(), bytes);
    }
    Ok(())
}

/// What the dynamic linker would load for `program`, itself included.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    Ok(loaded(&process::output(Command::new("ldd").arg(program))?))
}

/// Reads `ldd`: `name => /path (address)`, or `/path (address)` for the linker itself.
fn loaded(said: &str) -> Vec<PathBuf> {
    let paths = said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_and_what_it_loads_are_found() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let wanted = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(loaded(said), wanted);
    }
}
