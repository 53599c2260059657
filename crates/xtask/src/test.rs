//! `cargo xtask test`: everything CI runs, set up by itself, and one line of counts at the end.
//!
//! Flow: choose suites → check prerequisites → control plane and programs, if a chosen suite needs them → each suite, its
//! output passed on and its counts added up → control plane down → `N passed, N failed`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use crate::cluster::{self, Access, Ephemeral};
use crate::process::Background;
use crate::progress::{Step, print, say};
use crate::suites::{KUBECONFIG_VARIABLE, Needs, PROGRAMS_VARIABLE, SUITES, Suite};
use crate::{Error, Result, cargo, prerequisites};

/// What the user asked for.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only say which suites there are.
    #[arg(long)]
    list: bool,
    /// Use the cluster of this context of your own kubeconfig instead of starting one.
    #[arg(long)]
    context: Option<String>,
    /// Only these suites.
    suites: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

/// What suites with [`Needs::Cluster`] are given.
struct Setting {
    access: Access,
    programs: PathBuf,
    /// Held so that the cluster lives as long as the suites run; `None` where it is not ours.
    owned: Option<Ephemeral>,
    scratch: Option<crate::scratch::Scratch>,
}

/// Runs the suites.
///
/// # Errors
/// A missing prerequisite, or a test that failed.
pub fn run(options: &Options) -> Result<()> {
    if options.list {
        SUITES.iter().for_each(|suite| print(&format!("{:<14}{}", suite.name, suite.covers)));
        return Ok(());
    }
    let chosen = choose(&options.suites)?;
    let setting = prepare(&chosen, options.context.as_deref())?;
    let mut total = Counts::default();
    for suite in &chosen {
        let counts = run_suite(suite, setting.as_ref())?;
        total.add(counts);
    }
    if let Some(setting) = setting {
        setting.close()?;
    }
    print(&format!("{} passed, {} failed", total.passed, total.failed));
    if total.failed == 0 { Ok(()) } else { Err(Error::Told) }
}

fn choose(names: &[String]) -> Result<Vec<&'static Suite>> {
    if names.is_empty() {
        return Ok(SUITES.iter().collect());
    }
    let find = |name: &String| {
        SUITES.iter().find(|suite| suite.name == name).ok_or_else(|| {
            Error::usage(format!("There is no suite {name:?}"), "See `cargo xtask test --list`")
        })
    };
    names.iter().map(find).collect()
}

fn prepare(chosen: &[&Suite], context: Option<&str>) -> Result<Option<Setting>> {
    prerequisites::c_compiler()?;
    if chosen.iter().any(|suite| suite.needs != Needs::Nothing) {
        prerequisites::sandbox()?;
    }
    if !chosen.iter().any(|suite| suite.needs == Needs::Cluster) {
        return Ok(None);
    }
    let programs = cargo::build_programs(cargo::Profile::Dev)?;
    let setting = match context {
        Some(context) => {
            let scratch = crate::scratch::Scratch::new("test")?;
            let access = cluster::existing(context, scratch.path())?;
            Setting { access, programs, owned: None, scratch: Some(scratch) }
        }
        None => {
            let owned = cluster::up_ephemeral()?;
            Setting { access: owned.access().clone(), programs, owned: Some(owned), scratch: None }
        }
    };
    Ok(Some(setting))
}

impl Setting {
    fn close(self) -> Result<()> {
        if let Some(owned) = self.owned {
            owned.down()?;
        }
        drop(self.scratch);
        Ok(())
    }
}

fn run_suite(suite: &Suite, setting: Option<&Setting>) -> Result<Counts> {
    let step = Step::begin(format!("suite {}: {}", suite.name, suite.covers));
    let mut command = cargo::command(suite.cargo);
    if let Some(setting) = setting {
        command
            .env(KUBECONFIG_VARIABLE, &setting.access.kubeconfig)
            .env("REQUIEM_TEST_KUBECTL", &setting.access.kubectl);
        command.env(PROGRAMS_VARIABLE, &setting.programs);
    }
    let mut child = Background::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut counts = Counts::default();
    if let Some(stdout) = child.child().stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
            print(&line);
            counts.add(Counts::of_line(&line));
        }
    }
    let status = child.wait()?;
    let counts = counts.with_end(suite, status.success());
    if counts.failed == 0 {
        step.done()
    } else {
        step.failed()
    }
    Ok(counts)
}

// === impl Counts ===

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Reads libtest's closing line. An ignored test is one that did not run: it counts as failed, so that nothing
    /// is skipped in silence.
    fn of_line(line: &str) -> Self {
        let Some(rest) = line.strip_prefix("test result: ") else { return Self::default() };
        let count = |what: &str| {
            let words: Vec<&str> = rest.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
            let position = words.iter().position(|word| *word == what)?;
            words.get(position.checked_sub(1)?)?.parse::<u64>().ok()
        };
        Self {
            passed: count("passed").unwrap_or(0),
            failed: count("failed").unwrap_or(0) + count("ignored").unwrap_or(0),
        }
    }

    /// A check without tests of its own (a formatter, a linter, or a suite that did not build) counts as one.
    fn with_end(mut self, suite: &Suite, success: bool) -> Self {
        if !success && self.failed == 0 {
            self.failed = 1;
        } else if success && self == Self::default() && suite.cargo.first() != Some(&"test") {
            self.passed = 1;
        } else if success && self == Self::default() {
            say(&format!("error: suite {} ran no test", suite.name));
            self.failed = 1;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_of_libtest_is_read() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(Counts::of_line(line), Counts { passed: 12, failed: 3 });
        assert_eq!(Counts::of_line("12 passed"), Counts::default());
    }

    #[test]
    fn an_end_without_counts_is_one_check() {
        let end = |name: &str, success| {
            let suite = SUITES.iter().find(|suite| suite.name == name).unwrap();
            Counts::default().with_end(suite, success)
        };
        assert_eq!(end("fmt", true), Counts { passed: 1, failed: 0 });
        assert_eq!(end("fmt", false), Counts { passed: 0, failed: 1 });
        assert_eq!(end("unit", true), Counts { passed: 0, failed: 1 });
        assert_eq!(end("unit", false), Counts { passed: 0, failed: 1 });
    }

    #[test]
    fn an_unknown_suite_is_refused() {
        assert!(choose(&["nothing".to_owned()]).is_err());
        assert_eq!(choose(&[]).unwrap().len(), SUITES.len());
    }
}
