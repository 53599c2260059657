//! The little of the tar format (POSIX ustar) that images need: plain files and folders of root, from the beginning of time.

use crate::{Error, Result};

const BLOCK: usize = 512;

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Archive(Vec<u8>);

impl Archive {
    /// Adds a folder.
    pub(super) fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.header(&format!("{path}/"), mode, 0, b'5')
    }

    /// Adds a file.
    pub(super) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.header(path, mode, bytes.len(), b'0')?;
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    /// Two empty blocks are the end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, kind: u8) -> Result<()> {
        let mut header = [0_u8; BLOCK];
        put(&mut header, 0, 100, path)?;
        put(&mut header, 100, 8, &format!("{mode:07o}"))?;
        for (at, width) in [(108, 8), (116, 8), (136, 12)] {
            put(&mut header, at, width, &"0".repeat(width - 1))?;
        }
        put(&mut header, 124, 12, &format!("{size:011o}"))?;
        header[156] = kind;
        put(&mut header, 257, 8, "ustar\x0000")?;
        // The sum is taken with its own field full of spaces.
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut header, 148, 8, &format!("{sum:06o}\x00 "))?;
        self.0.extend_from_slice(&header);
        Ok(())
    }
}

fn put(header: &mut [u8; BLOCK], at: usize, width: usize, text: &str) -> Result<()> {
    if text.len() > width {
        let remedy = format!("Its field in a tar header has {width} bytes");
        return Err(Error::check(format!("{text:?} does not fit into an archive"), remedy));
    }
    header[at..at + text.len()].copy_from_slice(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn the_systems_tar_reads_it() {
        let mut archive = Archive::default();
        archive.folder("usr/bin", 0o755).unwrap();
        archive.file("usr/bin/a", 0o755, &[b'x'; 513]).unwrap();
        archive.file("empty", 0o644, b"").unwrap();
        let mut tar = Command::new("tar")
            .args(["-tv", "--utc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        let lines = String::from_utf8(output.stdout).unwrap();
        let words: Vec<Vec<&str>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["drwxr-xr-x", "0/0", "0", "1970-01-01", "00:00", "usr/bin/"]);
        assert_eq!(words[1], ["-rwxr-xr-x", "0/0", "513", "1970-01-01", "00:00", "usr/bin/a"]);
        assert_eq!(words[2], ["-rw-r--r--", "0/0", "0", "1970-01-01", "00:00", "empty"]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Archive::default().file(&"a".repeat(101), 0o644, b"").is_err());
    }
}
