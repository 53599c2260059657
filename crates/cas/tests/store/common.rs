//! Folders that vanish, content that is reproducible, processes that are this test again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use requiem_cas::{Durability, Store, Tenant, TenantStore};
use requiem_model::BlobDigest;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

pub(crate) use Durability::{Strict, Volatile};

pub(crate) const MIB: usize = 1024 * 1024;
pub(crate) const LARGE: usize = 16 * MIB;

/// A folder that vanishes with the test, read-only parts included.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn store(&self) -> TenantStore {
        open(self.path())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Takes what was mounted there with it; mostly nothing was.
        if nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).is_ok() {
            return;
        }
        make_writable(self.0.path());
    }
}

pub(crate) fn open(root: &Path) -> TenantStore {
    Store::open(root).unwrap().tenant(&Tenant::default()).unwrap()
}

/// Lets an unprivileged user remove what was made read-only. Symbolic links are not followed.
pub(crate) fn make_writable(folder: &Path) {
    if fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).is_err() {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

/// Bytes that do not compress and differ by seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut content);
    content
}

/// Bytes that compress well and differ by seed.
pub(crate) fn text(seed: u64, bytes: usize) -> Vec<u8> {
    format!("line {seed} of some log, again and again\n")
        .into_bytes()
        .into_iter()
        .cycle()
        .take(bytes)
        .collect()
}

pub(crate) fn tenant_folder(root: &Path) -> PathBuf {
    root.join("tenants/default")
}

/// Every object file, whatever its name.
pub(crate) fn objects(root: &Path) -> Vec<PathBuf> {
    let fan_outs = fs::read_dir(tenant_folder(root).join("objects")).unwrap();
    let files = fan_outs.flat_map(|fan_out| fs::read_dir(fan_out.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

pub(crate) fn quarantined(root: &Path) -> usize {
    fs::read_dir(tenant_folder(root).join("quarantine")).unwrap().count()
}

pub(crate) fn object_of(root: &Path, digest: &BlobDigest) -> PathBuf {
    let hex = digest.to_hex();
    objects(root).into_iter().find(|path| path.to_string_lossy().contains(&hex)).expect("the object's file")
}

/// Temporary files of all sessions, locks not counted.
pub(crate) fn leftovers(root: &Path) -> Vec<PathBuf> {
    let sessions = fs::read_dir(root.join("tmp")).unwrap();
    let files = sessions.flat_map(|session| fs::read_dir(session.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).filter(|path| !path.ends_with("lock")).collect()
}

pub(crate) fn sessions(root: &Path) -> usize {
    fs::read_dir(root.join("tmp")).unwrap().count()
}

/// Changes a stored file in place, as a bad disk would.
pub(crate) fn tamper(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mode = fs::metadata(path).unwrap().permissions();
    let mut content = fs::read(path).unwrap();
    change(&mut content);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, mode).unwrap();
}

/// The value that a parent gave to this process, if it is a child.
pub(crate) fn role() -> Option<String> {
    std::env::var("REQUIEM_CAS_TEST_ROLE").ok()
}

/// This test again, in another process that is told its role. Acknowledgements come on its standard error.
pub(crate) fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command
        .env("REQUIEM_CAS_TEST_ROLE", role)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Runs `body` with mounts of its own: as root directly, else in a user namespace. Fails where neither is allowed.
pub(crate) fn with_own_mounts(test: &str, body: impl FnOnce()) {
    if role().is_some() {
        return body();
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let output = command.env("REQUIEM_CAS_TEST_ROLE", "mounts").output().expect("unshare (util-linux)");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "with mounts of its own: {said}");
}

/// A folder in memory, for tests that make very many files. Only within [`with_own_mounts`].
pub(crate) fn in_memory() -> Folder {
    let folder = Folder::new();
    mount_tmpfs(folder.path(), "mode=700");
    folder
}

pub(crate) fn mount_tmpfs(at: &Path, options: &str) {
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options)).expect("mount a small tmpfs");
}

/// Makes the kernel answer `syscalls` of this thread with `action` from now on.
pub(crate) fn intercept(syscalls: &[libc::c_long], action: SeccompAction) {
    let rules: BTreeMap<i64, _> = syscalls.iter().map(|number| (*number, vec![])).collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}
