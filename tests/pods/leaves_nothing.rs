//! A cluster that goes leaves nothing on the host, whether it is told to go or its maker is killed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use requiem_tests::{Failure, setting};
use requiem_xtask::cluster::{self, Layout, Name, Node};
use requiem_xtask::suites::XTASK_VARIABLE;

/// A killed maker's reaper has so long.
const GOING: Duration = Duration::from_secs(30);

/// What a running cluster has on the host: enough to find it again after its names are forgotten.
#[derive(Debug)]
struct Traces {
    folder: PathBuf,
    link: PathBuf,
    cgroups: Vec<PathBuf>,
    /// Namespaces of its processes.
    namespaces: BTreeSet<PathBuf>,
}

fn xtask() -> Result<Command, Failure> {
    Ok(Command::new(setting(XTASK_VARIABLE)?))
}

/// What `cluster` has now, and that it has it.
fn traces(name: &Name) -> Result<Traces, Failure> {
    let layout = Layout::of(name)?;
    let index = fs::read_to_string(layout.network())?;
    let index = index.split(' ').next().unwrap_or_default().to_owned();
    let hierarchies = fs::read_to_string("/proc/self/mounts")?;
    let hierarchies = hierarchies.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        (words[2] == "cgroup" || words[2] == "cgroup2").then(|| PathBuf::from(words[1]))
    });
    let own = fs::read_link("/proc/self/ns/net")?;
    let holders = ["network", "node-1"].map(|program| fs::read_to_string(layout.pid(program)));
    let ids = holders.into_iter().map(|note| Ok(note?.split(' ').next().unwrap_or_default().to_owned()));
    let ids = ids.collect::<Result<Vec<_>, std::io::Error>>()?;
    let namespaces = ids.iter().map(|id| fs::read_link(format!("/proc/{id}/ns/net")));
    let traces = Traces {
        folder: layout.folder().to_owned(),
        link: PathBuf::from(format!("/sys/class/net/requiem{index}")),
        cgroups: hierarchies.map(|mount| mount.join(format!("requiem{index}-node-1"))).collect(),
        namespaces: namespaces.collect::<Result<_, _>>()?,
    };
    assert!(!traces.namespaces.contains(&own), "it is in the host's network");
    let there = traces.left();
    assert_eq!(there.len(), 2 + traces.cgroups.len() + 1, "not all of it is found while it runs: {there:?}");
    Ok(traces)
}

impl Traces {
    /// What of it is still there.
    fn left(&self) -> Vec<String> {
        let paths = [&self.folder, &self.link].into_iter().chain(&self.cgroups).filter(|path| path.exists());
        let mut left: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        let ids = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
        let inside = |process: &PathBuf| {
            fs::read_link(process.join("ns/net")).is_ok_and(|namespace| self.namespaces.contains(&namespace))
        };
        let processes = ids.filter(inside).count();
        if processes > 0 {
            left.push(format!("{processes} processes"));
        }
        left
    }

    /// Waits for nothing to be left; no event tells when somebody else's clean-up is over.
    fn wait_gone(&self) {
        let deadline = Instant::now() + GOING;
        while !self.left().is_empty() {
            assert!(Instant::now() < deadline, "still there after {GOING:?}: {:?}", self.left());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What belongs to the host and must be the same afterwards.
fn of_the_host() -> Result<Vec<String>, Failure> {
    let run = |program: &str| -> Result<String, Failure> {
        let path = requiem_xtask::packages::find(program).ok_or(format!("{program} is missing"))?;
        let text = String::from_utf8(Command::new(path).output()?.stdout)?;
        // Comments hold the time, and counters count.
        Ok(text.lines().filter(|line| !line.starts_with(['#', ':'])).collect())
    };
    let settings = ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"];
    let settings = settings.map(|name| Ok(fs::read_to_string(format!("/proc/sys/{name}"))?));
    let rules = ["iptables-save", "ip6tables-save"].map(run);
    rules.into_iter().chain(settings).collect()
}

#[test]
fn a_cluster_that_is_told_to_go_leaves_nothing() -> Result<(), Failure> {
    let before = of_the_host()?;
    let name = Name::parse(&format!("goes-{}", std::process::id()))?;
    assert!(xtask()?.args(["cluster", "up", "--node", name.as_str()]).status()?.success());
    let traces = traces(&name)?;
    assert_eq!(of_the_host()?, before, "a running cluster has changed the host");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(name.as_str()), "the host sees a mount of the cluster");
    let status = String::from_utf8(xtask()?.args(["cluster", "status"]).output()?.stdout)?;
    assert!(status.contains(&format!("{name}\trunning\t1 node\t")), "{status}");
    assert_eq!(cluster::nodes(&name)?.iter().map(Node::name).collect::<Vec<_>>(), ["node-1"]);
    assert!(xtask()?.args(["cluster", "down", name.as_str()]).status()?.success());
    assert_eq!(traces.left(), Vec::<String>::new());
    assert_eq!(of_the_host()?, before);
    Ok(())
}

#[test]
fn a_cluster_whose_maker_is_killed_half_way_leaves_nothing() -> Result<(), Failure> {
    let name = Name::parse(&format!("killed-{}", std::process::id()))?;
    let mut up = xtask()?;
    up.args(["cluster", "up", "--node", name.as_str()]).stderr(Stdio::piped());
    let mut child = up.spawn()?;
    let said = child.stderr.take().ok_or("no standard error")?;
    let announced = BufReader::new(said).lines().map_while(Result::ok);
    assert!(announced.into_iter().any(|line| line.contains("start node-1")), "it never began a node");
    let layout = Layout::of(&name)?;
    let deadline = Instant::now() + GOING;
    while !layout.node(1).join("kubelet.pid").exists() {
        assert!(Instant::now() < deadline, "its kubelet was not started");
        std::thread::sleep(Duration::from_millis(5));
    }
    let traces = traces(&name)?;
    child.kill()?;
    child.wait()?;
    traces.wait_gone();
    Ok(())
}
