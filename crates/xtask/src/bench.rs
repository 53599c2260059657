//! `cargo xtask bench NAME`: one benchmark of `benches/`, optimised, against its peer in the same run.

use std::path::PathBuf;
use std::process::Command;

use crate::progress::print;
use crate::suites::PROGRAMS_VARIABLE;
use crate::{Error, Result, cargo, paths, process};

/// What the user asked for.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Which one; without it, all names.
    name: Option<String>,
    /// Also write the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs one benchmark, or lists all.
///
/// # Errors
/// There is no such benchmark, or it failed.
pub fn run(options: &Options) -> Result<()> {
    let Some(name) = options.check()? else {
        names()?.iter().for_each(|name| print(name));
        return Ok(());
    };
    let programs = cargo::build_programs(cargo::Profile::Release)?;
    let mut command = Command::new(cargo::build_bins(cargo::Profile::Release, &[name])?.join(name));
    command.env(PROGRAMS_VARIABLE, programs).current_dir(paths::repository());
    if let Some(json) = &options.json {
        let path = std::path::absolute(json).map_err(Error::io(format!("resolve {}", json.display())))?;
        command.arg("--json").arg(path);
    }
    process::run(&mut command)
}

impl Options {
    /// The benchmark that was asked for, if it exists.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self) -> Result<Option<&str>> {
        let names = names()?;
        match &self.name {
            Some(name) if !names.contains(name) => Err(Error::usage(
                format!("There is no benchmark {name:?}"),
                format!("Choose one of: {}", names.join(", ")),
            )),
            name => Ok(name.as_deref()),
        }
    }
}

/// Every program below `benches/src/bin` is a benchmark.
fn names() -> Result<Vec<String>> {
    let folder = paths::repository().join("benches/src/bin");
    let reading = || Error::io(format!("read {}", folder.display()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(reading())? {
        let path = entry.map_err(reading())?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}
