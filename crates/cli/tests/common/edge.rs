//! What the tests of edges look at: processes, cgroups, folders; and small disks and other users.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::common::{Desk, Said, said};

/// A process and all its descendants, by number and start time.
#[derive(Debug)]
pub(crate) struct Processes(BTreeMap<u32, u64>);

impl Processes {
    /// Waits until a descendant of `root` has `marker` in its command line, and takes down who is there then.
    pub(crate) fn wait_for(root: u32, marker: &str) -> Self {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            let found = Self::below(root);
            let is_it = |pid: &u32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(marker)
            };
            // More than the command, its runner, a supervisor and an init.
            if found.0.keys().any(is_it) && found.0.len() > 4 {
                return found;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("no process with {marker:?}");
    }

    fn below(root: u32) -> Self {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().parse::<u32>().ok();
            if let Some((pid, (parent, start))) = pid.and_then(|pid| Some((pid, stat(pid)?))) {
                all.insert(pid, (parent, start));
            }
        }
        let mut found = BTreeMap::new();
        let mut next = vec![root];
        while let Some(pid) = next.pop() {
            if let Some((_, start)) = all.get(&pid) {
                found.insert(pid, *start);
            }
            next.extend(all.iter().filter(|(_, (parent, _))| *parent == pid).map(|(pid, _)| *pid));
        }
        Self(found)
    }

    /// The cgroups that one of them made for its runs.
    pub(crate) fn groups(&self) -> BTreeSet<String> {
        let find = ["/sys/fs/cgroup", "-maxdepth", "6", "-type", "d", "-name", "requiem-*"];
        let output = Command::new("find").args(find).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // requiem-NAMESPACE-PID-START-RUN
        let is_ours = |path: &&str| {
            let parts: Vec<&str> = path.rsplit('/').next().unwrap_or_default().split('-').collect();
            let maker = |pid: &u32, start: &u64| {
                parts.get(2) == Some(&pid.to_string().as_str())
                    && parts.get(3) == Some(&start.to_string().as_str())
            };
            self.0.iter().any(|(pid, start)| maker(pid, start))
        };
        text.lines().filter(is_ours).map(str::to_owned).collect()
    }

    /// None of them is left, at the latest after `patience`.
    pub(crate) fn assert_gone(&self, patience: Duration) {
        let until = Instant::now() + patience;
        loop {
            let left: Vec<u32> = self
                .0
                .iter()
                .filter(|(pid, start)| stat(**pid).is_some_and(|(_, now)| now == **start))
                .map(|(pid, _)| *pid)
                .collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "left: {left:?} of {:?}", self.0);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Parent and start time of a process that has not ended.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if fields[0] == "Z" || fields[0] == "X" {
        return None;
    }
    Some((fields[1].parse().ok()?, fields[19].parse().ok()?))
}

/// Names in a folder, sorted.
pub(crate) fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> BTreeSet<std::path::PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path);
        }
    }
    found
}

/// Runs a script beside a folder `disk` that is a file system of its own, in a user namespace where this process is not root.
pub(crate) fn on_a_small_disk(desk: &Desk, options: &str, script: &str) -> Said {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let mount = format!("mkdir -p disk; mount -t tmpfs -o {options} tmpfs disk\n{script}");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &mount]);
    command.current_dir(desk.path(".")).env("XDG_DATA_HOME", desk.path("data"));
    said(&command.output().unwrap())
}

/// Runs a command as somebody to whom nothing here belongs.
pub(crate) fn unprivileged(desk: &Desk, arguments: &[&str]) -> Said {
    if !rustix::process::geteuid().is_root() {
        return desk.requiem(arguments);
    }
    // Where the program was built may be closed to others.
    let program = desk.path("requiem");
    if !program.exists() {
        // By another process: one that another test starts meanwhile would hold our copy open for writing, and it could not be executed.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_requiem")).arg(&program).status().unwrap();
        assert!(copied.success(), "{copied}");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(&program);
    command.args(arguments).current_dir(desk.path(".")).env("XDG_DATA_HOME", desk.path("home"));
    said(&command.uid(65534).gid(65534).output().unwrap())
}
