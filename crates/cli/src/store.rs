//! Where the store of the command line is, and files that are read and written.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use requiem_cas::{Shelves, Store, StoreError, Tenant, TenantStore};
use serde::Serialize;

use crate::error::CommandError;

/// Opens the tenant's part of the store at `given`, or at the default place.
pub(crate) fn open(given: Option<&Path>, tenant: &str) -> Result<TenantStore, CommandError> {
    let tenant = parse_tenant(tenant)?;
    Ok(Store::open(&folder(given)?)?.tenant(&tenant)?)
}

/// The tenant of that name.
pub(crate) fn parse_tenant(name: &str) -> Result<Tenant, CommandError> {
    Tenant::parse(name).map_err(|error| match error {
        StoreError::Tenant(_) => CommandError::unusable(
            "Tenant",
            error.to_string(),
            "give the name of a Kubernetes namespace, or default",
        ),
        other => other.into(),
    })
}

/// A store to be looked at as a whole. It is open as long as this lives, which keeps garbage collection out.
pub(crate) struct Looked {
    pub(crate) folder: PathBuf,
    pub(crate) store: Store,
    pub(crate) shelves: Shelves,
}

/// Opens a store that is there; none is made.
pub(crate) fn look(given: Option<&Path>) -> Result<Looked, CommandError> {
    let folder = folder(given)?;
    let store = Store::open_existing(&folder)?;
    let shelves = store.shelves()?;
    Ok(Looked { folder, store, shelves })
}

impl Looked {
    /// The tenant of that name, or all.
    pub(crate) fn tenants(&self, name: Option<&str>) -> Result<Vec<Tenant>, CommandError> {
        let Some(name) = name else { return Ok(self.shelves.tenants().to_vec()) };
        let tenant = parse_tenant(name)?;
        if self.shelves.tenants().contains(&tenant) {
            return Ok(vec![tenant]);
        }
        let message = format!("the store at {} has no tenant {tenant}", self.folder.display());
        let hint = "leave --tenant out to see them all";
        Err(CommandError::unusable("Tenant", message, hint))
    }
}

/// Threads for work on the whole store.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A time as documents have it.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    requiem_proof::rfc3339_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The folder of the store.
pub(crate) fn folder(given: Option<&Path>) -> Result<PathBuf, CommandError> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("requiem/cas"))
        .ok_or_else(|| {
            let message = "there is no default store: neither XDG_DATA_HOME nor HOME is set";
            CommandError::unusable("NoStore", message, "name the folder of the store with --cas DIR")
        })
}

/// Reads a file, or standard input if it is `-`, up to `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, CommandError> {
    let mut content = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit + 1).read_to_end(&mut content)
    } else {
        File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut content))
    };
    read.map_err(|error| cannot("read", path, &error))?;
    if content.len() as u64 > limit {
        let message = format!("{} has more than {limit} bytes", path.display());
        return Err(CommandError::unusable("TooLarge", message, "check that it is the right file"));
    }
    Ok(content)
}

/// The folder that relative paths in a document at `path` start from: its own, or the current one for standard input.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if path != Path::new("-") && !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(crate) enum CopyError {
    Source(io::Error),
    Target(io::Error),
}

/// Copies everything, and says which side failed.
pub(crate) fn copy(source: &mut dyn Read, target: &mut dyn Write) -> Result<(), CopyError> {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match source.read(&mut chunk) {
            Ok(0) => return target.flush().map_err(CopyError::Target),
            Ok(read) => target.write_all(&chunk[..read]).map_err(CopyError::Target)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Source(error)),
        }
    }
}

/// Writes a file as a whole: a reader sees the old one or the new one, and a failure leaves the old one. Of a symbolic
/// link the file behind it is replaced; what is no file, like a device or a pipe, is written to and stays what it is.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), CommandError> {
    write_whole(path, content).map_err(|error| cannot("write", path, &error))
}

/// Writes what a command came to, if a file for it was named: its document, or that of its error.
pub(crate) fn write_outcome<T: Serialize>(
    path: Option<&Path>,
    outcome: Result<&T, &CommandError>,
) -> Result<(), CommandError> {
    let Some(path) = path else { return Ok(()) };
    let text = match outcome {
        Ok(document) => serde_json::to_string_pretty(document),
        Err(error) => serde_json::to_string_pretty(&error.document()),
    };
    write(path, format!("{}\n", text.map_err(|error| encoding(&error))?).as_bytes())
}

/// Whether [`write`] can write there. To be asked before work is done whose result goes there.
pub(crate) fn check_writable(path: &Path) -> Result<(), CommandError> {
    let checked = target(path).and_then(|target| match target {
        Target::File { path, .. } => Draft::beside(&path).map(drop),
        Target::Stream => Ok(()),
    });
    checked.map_err(|error| cannot("write", path, &error))
}

/// Copies `source` to a new file at `path`, which appears when it is complete and verified.
pub(crate) fn copy_new(path: &Path, source: &mut dyn Read) -> Result<(), CopyError> {
    let mut draft = Draft::beside(path).map_err(CopyError::Target)?;
    copy(source, &mut draft.file)?;
    // Unlike a rename, a link never replaces what is there.
    fs::hard_link(&draft.path, path).map_err(CopyError::Target)
}

/// The error of a file that cannot be read or written.
pub(crate) fn cannot(step: &str, path: &Path, error: &io::Error) -> CommandError {
    let message = format!("cannot {step} {}: {error}", path.display());
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "check the permissions of the file and of its folder",
        io::ErrorKind::AlreadyExists => "choose another path, or remove what is there",
        io::ErrorKind::IsADirectory => "name a file, not a folder",
        io::ErrorKind::StorageFull => "make room on that file system",
        _ => "see the system's message",
    };
    CommandError::unusable("File", message, hint)
}

/// The error of a document that has no JSON form.
pub(crate) fn encoding(error: &serde_json::Error) -> CommandError {
    CommandError::unusable("Encoding", format!("it has no JSON form: {error}"), "please report this defect")
}

/// What a path that is to be written leads to.
enum Target {
    /// A file, or the place for one; with the permissions that it keeps.
    File { path: PathBuf, permissions: Option<fs::Permissions> },
    /// A device, a pipe, a socket.
    Stream,
}

fn target(path: &Path) -> io::Result<Target> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(meta) if meta.is_file() => {
            Ok(Target::File { path: fs::canonicalize(path)?, permissions: Some(meta.permissions()) })
        }
        Ok(_) => Ok(Target::Stream),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(Target::File { path: path.to_owned(), permissions: None })
        }
        Err(error) => Err(error),
    }
}

fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    match target(path)? {
        Target::Stream => OpenOptions::new().write(true).open(path)?.write_all(content),
        Target::File { path, permissions } => {
            let mut draft = Draft::beside(&path)?;
            draft.file.write_all(content)?;
            permissions.map_or(Ok(()), |permissions| draft.file.set_permissions(permissions))?;
            // A full disk may show only here.
            draft.file.sync_all()?;
            fs::rename(&draft.path, &path)
        }
    }
}

/// A file that is not complete yet, in the folder where it will be. It vanishes unless it was renamed.
struct Draft {
    file: File,
    path: PathBuf,
}

impl Draft {
    /// Its name is not made from the other's, which may be as long as names can be.
    fn beside(path: &Path) -> io::Result<Self> {
        path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        let mut number = 0_u16;
        loop {
            let path = path.with_file_name(format!(".requiem-{}-{number}.part", std::process::id()));
            match File::create_new(&path) {
                Ok(file) => return Ok(Self { file, path }),
                // A process of this number was killed here; or somebody guesses our names.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename there is nothing; a leftover has a name that says what it is.
        let _gone = fs::remove_file(&self.path);
    }
}
