//! What runs, and ending it. A cluster is throw-away: its data goes with it, so there is nothing to flush and SIGKILL is clean.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use super::layout::{self, Layout, Name};
use super::node;
use crate::process::{Background, Target, start_time};
use crate::{Error, Result, paths, process, progress, reaper, tools};

/// The programs without which there is no control plane.
const PLANE: [&str; 2] = ["kube-apiserver", "etcd"];
/// The rest of a control plane with nodes. Like etcd's, its data is thrown away.
const CONTROLLERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];
/// What another program gets to end by itself: it may hold things outside the folder, and a node's processes end with its room.
const GRACE: Duration = Duration::from_secs(10);

/// A control plane that this process has started. Dropped: stopped and removed.
#[derive(Debug)]
pub struct ControlPlane {
    layout: Layout,
    children: Vec<(String, Background)>,
    released: bool,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Makes the folder, exclusively: of two commands that start the same cluster one is told so.
    ///
    /// # Errors
    /// The folder exists or cannot be made.
    pub fn prepare(layout: &Layout) -> Result<Self> {
        paths::make_private(&layout::clusters()?)?;
        let folder = layout.folder();
        // The guard first: from here on the folder goes whatever happens.
        let plane = Self { layout: layout.clone(), children: Vec::new(), released: false };
        if let Err(source) = fs::create_dir(folder) {
            std::mem::forget(plane);
            let doing = format!("make {} (is another command starting this cluster?)", folder.display());
            return Err(Error::Io { doing, source });
        }
        reaper::global()?.watch_folder(folder)?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(folder, private).map_err(Error::io(format!("protect {}", folder.display())))?;
        Ok(plane)
    }

    /// Takes a started program into its care and notes its process.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn add(&mut self, program: &str, child: Background) -> Result<&mut Background> {
        note(&self.layout.pid(program), child.id())?;
        Ok(&mut self.children.push_mut((program.to_owned(), child)).1)
    }

    /// The places of its files.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its name.
    pub const fn name(&self) -> &Name {
        self.layout.name()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.layout.folder()
    }

    /// Lets it run on after this process.
    ///
    /// # Errors
    /// The reaper cannot be told; then it is stopped.
    pub fn release(mut self) -> Result<()> {
        for (_, child) in self.children.drain(..) {
            child.release()?;
        }
        node::release(&self.layout)?;
        self.released = true;
        reaper::global()?.forget_folder(self.layout.folder())
    }

    /// Ends the programs, waits for them, removes the folder.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.released = true;
        while let Some((program, child)) = self.children.pop() {
            child.stop(grace(&program))?;
        }
        node::clear_away(&self.layout)?;
        remove(self.layout.folder())?;
        reaper::global()?.forget_folder(self.layout.folder())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if !self.released {
            // The reaper still knows the folder and tries again; a destructor has nobody to tell.
            let _left_to_the_reaper = self.end();
        }
    }
}

// === clusters that other commands have started ===

/// Whether every program of the cluster runs.
pub fn is_running(layout: &Layout) -> bool {
    let runs = |program: &str| process_of(layout, program).is_some();
    let nodes = || (1..=node::count(layout)).all(|number| runs(&node::name(number)));
    PLANE.into_iter().all(runs)
        && (node::count(layout) == 0 || (CONTROLLERS.into_iter().all(runs) && nodes()))
}

/// Removes what a crash or a reboot has left of a cluster.
///
/// # Errors
/// A process or the folder cannot be removed.
pub fn remove_stale(layout: &Layout) -> Result<()> {
    if !layout.folder().exists() {
        return Ok(());
    }
    progress::say(&format!("· cluster {} is no longer whole; starting it anew", layout.name()));
    end(layout)
}

/// Stops the cluster `name`; `false` if there was none.
///
/// # Errors
/// A process or the folder cannot be removed.
pub fn down(name: &Name) -> Result<bool> {
    let _lock = lock()?;
    let layout = Layout::of(name)?;
    let there = layout.folder().exists();
    if there {
        end(&layout)?;
    }
    Ok(there)
}

/// Held while a named cluster is started or stopped: of two such commands the second waits. It goes with its holder.
///
/// # Errors
/// The state folder cannot be made or locked.
pub fn lock() -> Result<File> {
    let folder = layout::clusters()?;
    paths::make_private(&folder)?;
    let doing = format!("lock {}", folder.display());
    File::open(&folder).and_then(|file| file.lock().map(|()| file)).map_err(Error::io(doing))
}

/// Names of all clusters of this user.
///
/// # Errors
/// The state folder cannot be read.
pub fn list() -> Result<Vec<Name>> {
    let folder = layout::clusters()?;
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<Name> = names.filter_map(|name| Name::parse(&name).ok()).collect();
    names.sort();
    Ok(names)
}

/// One line about the cluster `name`.
///
/// # Errors
/// There is no home folder.
pub fn status(name: &Name) -> Result<String> {
    let layout = Layout::of(name)?;
    let state = if is_running(&layout) { "running" } else { "stopped" };
    let nodes = match node::count(&layout) {
        0 => "no node".to_owned(),
        1 => "1 node".to_owned(),
        count => format!("{count} nodes"),
    };
    Ok(format!("{name}\t{state}\t{nodes}\t{}", layout.kubeconfig().display()))
}

/// Stops every cluster and removes the built programs.
///
/// # Errors
/// Something cannot be removed.
pub fn clean() -> Result<()> {
    for name in list()? {
        down(&name)?;
    }
    remove(&tools::cache_folder()?)
}

fn end(layout: &Layout) -> Result<()> {
    for program in programs(layout)? {
        let Some((id, started)) = process_of(layout, &program) else { continue };
        let Some(target) = Target::of(id)? else { continue };
        // Between the note and the hold the id may have passed to another process: look again, now that it is held.
        if start_time(id) == Some(started) && !target.end(grace(&program))? {
            let what = format!("{program} (process {id}) does not end");
            return Err(Error::check(what, "Look at it with `ps`; the cluster's folder was kept"));
        }
    }
    node::clear_away(layout)?;
    remove(layout.folder())
}

/// Every program that left a note, the control plane last.
fn programs(layout: &Layout) -> Result<Vec<String>> {
    let doing = || Error::io(format!("read {}", layout.folder().display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(layout.folder()).map_err(doing())? {
        let name = entry.map_err(doing())?.file_name();
        found.extend(name.to_str().and_then(|name| name.strip_suffix(".pid")).map(str::to_owned));
    }
    // The room of the plane holds the network that the others use.
    found.sort_by_key(|program| match program.as_str() {
        node::PLANE_ROOM => 2,
        program if PLANE.contains(&program) => 1,
        _ => 0,
    });
    Ok(found)
}

fn grace(program: &str) -> Duration {
    if PLANE.contains(&program) || CONTROLLERS.contains(&program) { Duration::ZERO } else { GRACE }
}

/// Notes a process: id and start time, which together name one process for ever.
///
/// # Errors
/// The note cannot be written.
pub fn note(path: &Path, id: u32) -> Result<()> {
    let text = format!("{id} {}\n", start_time(id).unwrap_or_default());
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}

/// The live process that `program`'s note names.
fn process_of(layout: &Layout, program: &str) -> Option<(u32, u64)> {
    noted(&layout.pid(program))
}

/// The live process that the note at `path` names.
pub fn noted(path: &Path) -> Option<(u32, u64)> {
    let note = fs::read_to_string(path).ok()?;
    let (id, started) = note.trim().split_once(' ')?;
    let (id, started) = (id.parse().ok()?, started.parse().ok()?);
    (process::start_time(id) == Some(started)).then_some((id, started))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", folder.display()))(error))
        }
        _ => Ok(()),
    }
}
