//! Rooms: namespaces that live exactly as long as the process that holds them.
//!
//! The plane's room is a network namespace. A node's room is a network, a mount and a process namespace: what runs in it, pods
//! included, is killed by the kernel when the first process of the room dies, and its mounts, interfaces and firewall rules go
//! with it. So nothing needs to be undone one by one, and nothing can be forgotten, however the end comes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{Background, last_lines};
use crate::tools::NodeTools;
use crate::{Error, Result, packages, process};

/// Furnishes a node's room; see there.
const NODE_SCRIPT: &str = include_str!("room.sh");
/// Waits in a network namespace with the loopback interface up.
const PLANE_SCRIPT: &str = "ip link set lo up && echo ready && exec \"$1/pause\"";

/// A room, known by the process that holds it.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    holder: u32,
    whole: bool,
}

impl Room {
    /// The room of a plane that process `holder` keeps open.
    pub const fn plane(holder: u32) -> Self {
        Self { holder, whole: false }
    }

    /// The room of a node that process `holder` keeps open.
    pub const fn node(holder: u32) -> Self {
        Self { holder, whole: true }
    }

    /// Opens a network namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open_plane(tools: &NodeTools, log: &Path) -> Result<Background> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "sh", "-c", PLANE_SCRIPT, "room"]).arg(&tools.pause);
        hold(&mut command, log)
    }

    /// Opens the room of a node, with its `/var` in `folder`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open_node(tools: &NodeTools, folder: &Path, log: &Path) -> Result<Background> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child"]);
        command.args(["--propagation", "private", "--mount-proc", "--", "sh", "-c", NODE_SCRIPT, "room"]);
        command.arg(folder);
        command.args([&tools.pause, &tools.kubernetes, &tools.containerd, &tools.runc, &tools.cni]);
        hold(&mut command, log)
    }

    /// The process that holds it, as `ip` wants it.
    pub const fn holder(self) -> u32 {
        self.holder
    }

    /// A command in its network namespace that sees the host's files and processes.
    pub fn on_its_network(self) -> Command {
        let mut command = nsenter();
        command.arg(format!("--net=/proc/{}/ns/net", self.holder)).arg("--");
        command
    }

    /// A command in all its namespaces. What it starts ends with the room.
    pub fn inside(self) -> Command {
        let mut command = nsenter();
        command.arg(format!("--net=/proc/{}/ns/net", self.holder));
        if self.whole {
            command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder));
            // The holder itself is outside: its child is the room's first process.
            command.arg(format!("--pid=/proc/{}/ns/pid_for_children", self.holder));
        }
        command.arg("--");
        command
    }

    /// Hands `lines` to `ip` in its network namespace.
    ///
    /// # Errors
    /// `ip` refuses one.
    pub fn configure(self, lines: &str) -> Result<()> {
        lines.lines().try_for_each(|line| {
            let mut command = self.on_its_network();
            process::output(command.arg("ip").args(line.split_whitespace())).map(drop)
        })
    }
}

fn nsenter() -> Command {
    let mut command = Command::new("nsenter");
    command.env("PATH", packages::path_with_administration());
    command
}

/// Starts the holder and waits for its word that the room is furnished.
fn hold(command: &mut Command, log: &Path) -> Result<Background> {
    let doing = || Error::io(format!("write {}", log.display()));
    let errors = std::fs::File::create(log).map_err(doing())?;
    command.env("PATH", packages::path_with_administration()).current_dir("/");
    let mut child = Background::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors))?;
    let mut said = String::new();
    if let Some(stdout) = child.child().stdout.take() {
        BufReader::new(stdout).read_line(&mut said).map_err(Error::io("hear from a room"))?;
    }
    if said.trim() == "ready" {
        return Ok(child);
    }
    let tail = std::fs::read_to_string(log).map(|text| last_lines(&text, 15)).unwrap_or_default();
    Err(Error::NotReady { what: "a namespace for the cluster could not be made".to_owned(), tail })
}
