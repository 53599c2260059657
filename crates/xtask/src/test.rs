//! `cargo xtask test`: everything CI runs, set up by itself, and one line of counts at the end.
//!
//! Flow: choose suites → check prerequisites → tools from Go modules begin to be built → each suite, its output passed on and its
//! counts added up, with the cluster that it needs started when the first one needs it → clusters down → what was left out and why →
//! `N passed, N failed`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::cargo::Profile;
use crate::cluster::{self, Access, Ephemeral, Shape};
use crate::process::Background;
use crate::progress::{Step, print, say};
use crate::suites::{
    CLUSTER_VARIABLE, KUBECONFIG_VARIABLE, NODE_MODULES_VARIABLE, Needs, PROGRAMS_VARIABLE, PYTHON_VARIABLE,
    SIGSTORE_VARIABLE, SUITES, Suite, XTASK_VARIABLE,
};
use crate::tools::{self, Family};
use crate::{Error, Result, cargo, images, node, prerequisites, python};

/// How long a suite may say nothing before it counts as stuck. The longest silence is that of a build.
const SILENCE: Duration = Duration::from_secs(20 * 60);

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

/// Why there are no more lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The suite has ended, or closed its output.
    Closed,
    /// It says nothing any more.
    Stuck,
}

/// What suites that need more than cargo are given.
struct Setting {
    /// The cluster, if there is one.
    access: Option<Access>,
    variables: Vec<(&'static str, PathBuf)>,
    /// Held so that the cluster lives as long as the suites run; `None` where it is not ours.
    owned: Option<Ephemeral>,
    scratch: Option<crate::scratch::Scratch>,
}

/// The clusters of this run, each started when it is first needed.
#[derive(Default)]
struct Settings {
    plane: Option<Setting>,
    nodes: Option<Setting>,
    verifiers: Option<Setting>,
}

/// The suites of this run, and why others are not among them.
struct Choice {
    suites: Vec<&'static Suite>,
    left_out: Vec<String>,
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
    let choice = choose(&options.suites, prerequisites::nodes)?;
    check(&choice.suites)?;
    build_tools_ahead(&choice.suites);
    let mut settings = Settings::default();
    let mut total = Counts::default();
    for suite in &choice.suites {
        let setting = settings.provide(suite.needs, options.context.as_deref())?;
        total.add(run_suite(suite, setting)?);
    }
    settings.close()?;
    choice.left_out.iter().for_each(|line| print(line));
    print(&format!("{} passed, {} failed", total.passed, total.failed));
    if total.failed == 0 { Ok(()) } else { Err(Error::Told) }
}

/// Most of the time of a first run goes into these, and suites that wait for something leave it to them.
fn build_tools_ahead(suites: &[&Suite]) {
    let mut families: Vec<&'static Family> = Vec::new();
    for family in suites.iter().flat_map(|suite| suite.needs.tools()) {
        if families.iter().all(|other| other.name != family.name) {
            families.push(family);
        }
    }
    tools::build_ahead(families);
}

/// All suites that this machine can run, or the named ones whatever they need.
fn choose(names: &[String], nodes: impl Fn() -> Result<()>) -> Result<Choice> {
    if names.is_empty() {
        let impossible = nodes().err();
        let (suites, rest): (Vec<&Suite>, Vec<&Suite>) =
            SUITES.iter().partition(|suite| impossible.is_none() || suite.needs != Needs::Nodes);
        let why = impossible.map(|error| error.to_string()).unwrap_or_default();
        let left_out = rest.iter().map(|suite| format!("left out: {}. {why}", suite.name)).collect();
        return Ok(Choice { suites, left_out });
    }
    let find = |name: &String| {
        SUITES.iter().find(|suite| suite.name == name).ok_or_else(|| {
            Error::usage(format!("There is no suite {name:?}"), "See `cargo xtask test --list`")
        })
    };
    let suites = names.iter().map(find).collect::<Result<Vec<_>>>()?;
    if suites.iter().any(|suite| suite.needs == Needs::Nodes) {
        nodes()?;
    }
    Ok(Choice { suites, left_out: Vec::new() })
}

fn check(chosen: &[&Suite]) -> Result<()> {
    prerequisites::c_compiler()?;
    if chosen.iter().any(|suite| suite.needs != Needs::Nothing) {
        prerequisites::sandbox()?;
    }
    if chosen.iter().any(|suite| suite.needs == Needs::Verifiers) {
        python::interpreter()?;
        node::modules()?;
    }
    Ok(())
}

// === impl Settings ===

impl Settings {
    /// What a suite with such needs is given.
    fn provide(&mut self, needs: Needs, context: Option<&str>) -> Result<Option<&Setting>> {
        match needs {
            Needs::Nothing | Needs::Sandbox | Needs::Judges => return Ok(None),
            Needs::Cluster | Needs::Monitoring if self.plane.is_none() => {
                self.plane = Some(Setting::plane(context)?);
            }
            Needs::Nodes if self.nodes.is_none() => self.nodes = Some(Setting::nodes()?),
            Needs::Verifiers if self.verifiers.is_none() => self.verifiers = Some(Setting::verifiers()?),
            Needs::Cluster | Needs::Monitoring | Needs::Nodes | Needs::Verifiers => {}
        }
        Ok(match needs {
            Needs::Nodes => self.nodes.as_ref(),
            Needs::Verifiers => self.verifiers.as_ref(),
            _ => self.plane.as_ref(),
        })
    }

    fn close(self) -> Result<()> {
        self.plane.into_iter().chain(self.nodes).chain(self.verifiers).try_for_each(Setting::close)
    }
}

// === impl Setting ===

impl Setting {
    /// A control plane, our own or that of a context, with the definitions: each suite can run by itself.
    fn plane(context: Option<&str>) -> Result<Self> {
        let programs = cargo::build_programs(cargo::Profile::Dev)?;
        let (access, owned, scratch) = match context {
            Some(context) => {
                let scratch = crate::scratch::Scratch::new("test")?;
                (cluster::existing(context, scratch.path())?, None, Some(scratch))
            }
            None => {
                let owned = cluster::up_ephemeral()?;
                (owned.access().clone(), Some(owned), None)
            }
        };
        access.install_definitions()?;
        Ok(Self { access: Some(access), variables: vec![(PROGRAMS_VARIABLE, programs)], owned, scratch })
    }

    /// The built programs, and programs of others that have what they need to doubt them.
    fn verifiers() -> Result<Self> {
        let programs = cargo::build_programs(cargo::Profile::Dev)?;
        let variables = vec![
            (PROGRAMS_VARIABLE, programs),
            (PYTHON_VARIABLE, python::interpreter()?),
            (NODE_MODULES_VARIABLE, node::modules()?),
            (SIGSTORE_VARIABLE, tools::ensure(&tools::SIGSTORE)?.join("sigstore")),
        ];
        Ok(Self { access: None, variables, owned: None, scratch: None })
    }

    /// Two nodes with the images in them, and no definitions: the one suite begins where nobody has heard of Requiem, the other brings its
    /// own. A definition that is deleted right after it was made may take the API server minutes.
    fn nodes() -> Result<Self> {
        let programs = cargo::build_programs(cargo::Profile::Dev)?;
        let owned = cluster::up_ephemeral_with(Shape::nodes(2))?;
        images::give(&owned.nodes()?, &owned.folder().join("images"), Profile::Trial)?;
        let xtask = std::env::current_exe().map_err(Error::io("find this program"))?;
        let name = PathBuf::from(owned.name().as_str());
        let variables =
            vec![(PROGRAMS_VARIABLE, programs), (CLUSTER_VARIABLE, name), (XTASK_VARIABLE, xtask)];
        Ok(Self { access: Some(owned.access().clone()), variables, owned: Some(owned), scratch: None })
    }

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
        if let Some(access) = &setting.access {
            command.env(KUBECONFIG_VARIABLE, &access.kubeconfig).env("REQUIEM_TEST_KUBECTL", &access.kubectl);
        }
        command.envs(setting.variables.iter().map(|(name, value)| (name, value)));
    }
    let mut child = Background::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let (counts, end) = pass_on(&lines_of(child.child().stdout.take()), SILENCE, print);
    let status = match end {
        End::Closed => child.wait()?,
        End::Stuck => {
            let (name, minutes) = (suite.name, SILENCE.as_secs() / 60);
            say(&format!(
                "error: suite {name} said nothing for {minutes} minutes and was killed; its last lines name what hangs"
            ));
            child.stop(Duration::ZERO)?
        }
    };
    let counts = counts.with_end(suite, status.success());
    if counts.failed == 0 {
        step.done()
    } else {
        step.failed()
    }
    Ok(counts)
}

/// The lines of a suite, read by a thread of their own so that they can be waited for with a limit.
fn lines_of(stdout: Option<ChildStdout>) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let all = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
        let all = all.map_while(std::io::Result::ok);
        all.map(|line| sender.send(line)).take_while(std::result::Result::is_ok).count()
    });
    lines
}

/// Shows a suite's lines as they come and counts what they tell.
fn pass_on(lines: &Receiver<String>, silence: Duration, show: impl Fn(&str)) -> (Counts, End) {
    let mut counts = Counts::default();
    loop {
        match lines.recv_timeout(silence) {
            Ok(line) => {
                show(&line);
                counts.add(Counts::of_line(&line));
            }
            Err(RecvTimeoutError::Disconnected) => return (counts, End::Closed),
            Err(RecvTimeoutError::Timeout) => return (counts, End::Stuck),
        }
    }
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
    fn a_suite_that_falls_silent_is_told_from_one_that_ends() {
        let (counted, passed) = ("test result: ok. 2 passed; 0 failed;", Counts { passed: 2, failed: 0 });
        // Shown to nobody: on standard output the run that this test belongs to would count it.
        let shown = |_: &str| {};
        let (speaker, lines) = channel();
        speaker.send(counted.to_owned()).unwrap();
        assert_eq!(pass_on(&lines, Duration::from_millis(1), shown), (passed, End::Stuck));
        speaker.send(counted.to_owned()).unwrap();
        drop(speaker);
        assert_eq!(pass_on(&lines, Duration::MAX, shown), (passed, End::Closed));
    }

    #[test]
    fn an_unknown_suite_is_refused() {
        assert!(choose(&["nothing".to_owned()], || Ok(())).is_err());
        assert_eq!(choose(&[], || Ok(())).unwrap().suites.len(), SUITES.len());
    }

    #[test]
    fn what_a_machine_cannot_run_is_left_out_aloud_and_refused_by_name() {
        let cannot = || Err(Error::prerequisite("No root here", "Become root"));
        let choice = choose(&[], cannot).unwrap();
        assert_eq!(choice.suites.len(), SUITES.len() - 2);
        let reason = "No root here. Become root.";
        assert_eq!(choice.left_out, ["pods", "install"].map(|name| format!("left out: {name}. {reason}")));
        assert!(choose(&["pods".to_owned()], cannot).is_err());
        assert!(choose(&["unit".to_owned()], cannot).is_ok());
    }
}
