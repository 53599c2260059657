//! The folder of a run that has no mounts of its own: `workspace` with copies of the inputs, and room beside it.
//!
//! Payloads leave anything in there: folders without permissions, trees deeper than a path is long. Removing it copes with all of that.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use requiem_model::{Limits, RelPath};
use requiem_sandbox::{INPUT_MTIME, InputMount};
use rustix::fs::OFlags;

/// Numbers the folders of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A folder that goes with this value.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

/// The workspace of an ended run, open; its folder goes with it.
#[derive(Debug)]
pub(super) struct Left {
    workspace: OwnedFd,
    _folder: Folder,
}

/// What a folder takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

impl Folder {
    /// Makes one that only this user can enter, where the system keeps temporary files.
    ///
    /// # Errors
    /// There is no room, or this user may not write there.
    pub fn make() -> io::Result<Self> {
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("requiem-run-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let made = Self { path };
                    fs::create_dir(made.workspace())?;
                    return Ok(made);
                }
                // A process of this number was killed here; or somebody guesses our names.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 10_000 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn workspace(&self) -> PathBuf {
        self.path.join("workspace")
    }

    /// Copies the inputs into the workspace, with their permissions and the one time that inputs have.
    pub(super) fn stage(&self, inputs: &[InputMount]) -> io::Result<()> {
        for input in inputs {
            let target = self.workspace().join(input.path.as_str());
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            copy_all(&input.source, &target)?;
        }
        Ok(())
    }

    /// The working directory, made if it is not there. Inputs may hold links to anywhere: none is followed.
    pub(super) fn enter(&self, working_dir: Option<&RelPath>) -> io::Result<PathBuf> {
        let mut at = self.workspace();
        for part in working_dir.into_iter().flat_map(|path| path.as_str().split('/')) {
            at.push(part);
            match fs::symlink_metadata(&at) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&at)?,
                Err(error) => return Err(error),
            }
        }
        Ok(at)
    }

    /// What lies in it, counted no further than beyond `limits`.
    pub(super) fn size(&self, limits: &Limits) -> Size {
        let mut size = Size::default();
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            // What goes away meanwhile, or cannot be read, is not counted.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                size.entries += 1;
                size.bytes = size.bytes.saturating_add(meta.blocks().saturating_mul(512));
                if meta.is_dir() {
                    folders.push(entry.path());
                }
                if size.exceeds(limits) {
                    return size;
                }
            }
        }
        size
    }

    /// Says so if it holds more than it may.
    pub(super) fn check(&self, limits: &Limits) -> Option<String> {
        let size = self.size(limits);
        let (bytes, entries) = (limits.scratch_bytes, limits.scratch_inodes);
        let why = || format!("its workspace holds more than {bytes} bytes or {entries} entries");
        size.exceeds(limits).then(why)
    }

    /// Keeps it for as long as its workspace is wanted.
    pub(super) fn left(self) -> io::Result<Left> {
        let workspace =
            File::options().read(true).custom_flags(careful(OFlags::DIRECTORY)).open(self.workspace())?;
        Ok(Left { workspace: workspace.into(), _folder: self })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A leftover has a name that says what it is.
        let _gone = remove(&self.path);
    }
}

impl Size {
    const fn exceeds(self, limits: &Limits) -> bool {
        self.bytes > limits.scratch_bytes || self.entries > limits.scratch_inodes
    }
}

impl AsFd for Left {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.workspace.as_fd()
    }
}

/// Opens a regular file that a payload may have left, and nothing else; a link or a pipe is none.
pub(super) fn open_left(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(careful(OFlags::NONBLOCK)).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

fn careful(more: OFlags) -> i32 {
    (OFlags::NOFOLLOW | OFlags::CLOEXEC | more).bits().cast_signed()
}

/// Copies a file, a link or a folder. The source is ours and nobody changes it.
fn copy_all(source: &Path, target: &Path) -> io::Result<()> {
    let mut folders = Vec::new();
    let mut open = vec![(source.to_owned(), target.to_owned())];
    while let Some((from, to)) = open.pop() {
        let meta = fs::symlink_metadata(&from)?;
        if meta.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else if meta.is_dir() {
            fs::create_dir(&to)?;
            for entry in fs::read_dir(&from)? {
                let name = entry?.file_name();
                open.push((from.join(&name), to.join(&name)));
            }
            folders.push((to, meta.permissions()));
        } else {
            fs::copy(&from, &to)?;
            File::open(&to)?.set_modified(input_time())?;
        }
    }
    // What is in a folder changes its time, and needs its permissions.
    for (folder, permissions) in folders.into_iter().rev() {
        File::open(&folder)?.set_modified(input_time())?;
        fs::set_permissions(&folder, permissions)?;
    }
    Ok(())
}

fn input_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(INPUT_MTIME.unsigned_abs())
}

/// Removes a folder and all in it, however deep: folders in it are first moved to its top.
fn remove(top: &Path) -> io::Result<()> {
    let mut number = 0_u64;
    // An entry that cannot be removed (it is somebody else's) ends it, rather than go round for ever.
    loop {
        let mut folders = 0;
        for entry in fs::read_dir(top)? {
            let path = entry?.path();
            if fs::symlink_metadata(&path)?.is_dir() {
                folders += 1;
                number = flatten(&path, top, number)?;
                fs::remove_dir(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
        if folders == 0 {
            return fs::remove_dir(top);
        }
    }
}

/// Empties a folder of the top: files go, folders go to the top under names of ours.
fn flatten(folder: &Path, top: &Path, mut number: u64) -> io::Result<u64> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if fs::symlink_metadata(&path)?.is_dir() {
            // A folder that is moved must be writable: its parent is written in it.
            fs::set_permissions(&path, Permissions::from_mode(0o700))?;
            number = rename_free(&path, top, number)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(number)
}

fn rename_free(path: &Path, top: &Path, mut number: u64) -> io::Result<u64> {
    loop {
        number += 1;
        let free = top.join(format!(".moved-{number}"));
        if fs::symlink_metadata(&free).is_err() {
            fs::rename(path, &free)?;
            return Ok(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_whatever_was_left_in_it() {
        let folder = Folder::make().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let closed = folder.workspace().join("closed");
        fs::create_dir_all(closed.join("in/it")).unwrap();
        fs::write(closed.join("in/it/file"), "x").unwrap();
        symlink("/etc", closed.join("link")).unwrap();
        fs::set_permissions(closed.join("in"), Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
        // Deeper than a path can be long: each half is moved below the other.
        let deep = folder.workspace().join("deep");
        fs::create_dir(&deep).unwrap();
        for _ in 0..60 {
            let chain = folder.workspace().join("chain");
            fs::create_dir_all(chain.join("d".repeat(200))).unwrap();
            let below = chain.join("d".repeat(200)).join("e");
            fs::rename(folder.workspace().join("deep"), below).unwrap();
            fs::rename(chain, folder.workspace().join("deep")).unwrap();
        }
        drop(folder);
        assert!(!path.exists());
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn size_is_counted_without_following_links_and_stops_beyond_the_limits() {
        let folder = Folder::make().unwrap();
        fs::write(folder.workspace().join("file"), vec![1; 100_000]).unwrap();
        symlink("/usr", folder.workspace().join("link")).unwrap();
        let limits = Limits { scratch_bytes: 1 << 20, scratch_inodes: 100, ..Limits::default() };
        let size = folder.size(&limits);
        assert!(size.entries == 3 && (100_000..200_000).contains(&size.bytes), "{size:?}");
        assert_eq!(folder.check(&limits), None);
        assert!(folder.check(&Limits { scratch_bytes: 65_536, ..limits.clone() }).is_some());
        assert!(folder.check(&Limits { scratch_inodes: 2, ..limits }).is_some());
    }

    #[test]
    fn a_working_directory_leads_through_no_link() {
        let folder = Folder::make().unwrap();
        symlink("/tmp", folder.workspace().join("link")).unwrap();
        let path = |text| RelPath::parse(text).unwrap();
        assert!(folder.enter(Some(&path("link/made-by-requiem"))).is_err());
        assert!(!Path::new("/tmp/made-by-requiem").exists());
        assert!(folder.enter(Some(&path("a/b"))).unwrap().ends_with("workspace/a/b"));
        assert!(folder.enter(None).unwrap().ends_with("workspace"));
    }
}
