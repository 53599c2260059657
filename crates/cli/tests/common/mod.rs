//! Runs the built program as its users do.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The option of env(1) by which a program hears the signals of a terminal.
pub(crate) const ATTENTIVE: &str = "--default-signal=HUP,INT,TERM";

/// What came out of one call.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// The document on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A folder with a store of its own.
pub(crate) struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_requiem"));
        command.args(arguments).current_dir(self.folder.path());
        self.at_home(&mut command);
        command
    }

    /// Store and configuration of this desk, and not those of whoever runs the tests.
    fn at_home(&self, command: &mut Command) {
        command.env("XDG_DATA_HOME", self.path("data")).env("XDG_CONFIG_HOME", self.path("config"));
        command.stdin(Stdio::null());
    }

    /// A command that hears signals as on a terminal, whatever whoever started the tests ignores (`nohup`, `&` in a script).
    pub(crate) fn attentive(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("env");
        command.args([ATTENTIVE, env!("CARGO_BIN_EXE_requiem")]).args(arguments);
        command.current_dir(self.folder.path());
        self.at_home(&mut command);
        command
    }

    pub(crate) fn requiem(&self, arguments: &[&str]) -> Said {
        said(&self.command(arguments).output().unwrap())
    }

    pub(crate) fn requiem_with(&self, arguments: &[&str], stdin: &[u8]) -> Said {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        said(&child.wait_with_output().unwrap())
    }
}

pub(crate) fn said(output: &std::process::Output) -> Said {
    Said {
        // A program that a signal ended has no code.
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A committed file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
