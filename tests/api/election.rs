//! Several operators, as processes: one works, and another takes over when it ends, dies, or falls silent.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use requiem_xtask::ports;
use requiem_xtask::stack::http_get;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::puppet::{self, Call, Puppet};
use crate::{PATIENCE, Rig, result};
use requiem_crds::status::ResultReason;

const LEASE: &str = "requiem-operator";
/// What an operator says, in its folder.
const LOG: &str = "log";
/// Two thirds of it without one answered renewal end a leader, as they should: more than a loaded machine needs for a write.
const TERM: Duration = Duration::from_secs(12);
/// How often one that stands by looks.
const LOOK: Duration = Duration::from_secs(1);

/// One operator process.
struct Operator {
    name: &'static str,
    child: Child,
    admin: SocketAddr,
    folder: TempDir,
}

impl Operator {
    fn start(rig: &Rig, name: &'static str) -> Self {
        let program = requiem_tests::setting(requiem_tests::PROGRAMS).unwrap().join("requiem-operator");
        let admin = ports::loopback().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join(LOG)).unwrap();
        let files = rig.pki.operator();
        let mut command = Command::new(program);
        command.arg("--kubeconfig").arg(requiem_tests::setting(requiem_tests::KUBECONFIG).unwrap());
        command.args(["--namespace", &rig.namespace, "--own-namespace", &rig.namespace]);
        command.args(["--leader-elect", "--lease-seconds", &TERM.as_secs().to_string()]);
        command.arg("--tls-cert").arg(files.cert).arg("--tls-key").arg(files.key);
        command.arg("--executor-ca").arg(files.executor_ca).args(["--admin-listen", &admin.to_string()]);
        command.env("HOSTNAME", name).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.kill_on_drop(true).spawn().unwrap();
        Self { name, child, admin, folder }
    }

    async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
    }

    async fn ended(&mut self) -> ExitStatus {
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(ended) => ended.unwrap(),
            Err(_elapsed) => panic!("{} does not end:\n{}", self.name, self.log()),
        }
    }

    /// Nothing tells when a foreign process is ready, so this asks.
    async fn until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.get("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended: {ended:?}\n{}", self.name, self.log());
            let waited = Instant::now() >= deadline;
            assert!(!waited, "{} is not ready: {:?}\n{}", self.name, self.get("/readyz"), self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn get(&self, path: &str) -> Option<String> {
        http_get(self.admin, path).ok()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(LOG)).unwrap()
    }

    fn leads(&self) -> bool {
        self.get("/metrics").is_some_and(|text| text.lines().any(|line| line == "requiem_operator_leader 1"))
    }
}

impl Rig {
    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until somebody whose name is in `names` holds the Lease.
    async fn holder(&self, names: &[&str]) -> String {
        let holder = |lease: &Lease| lease.spec.as_ref()?.holder_identity.clone();
        let wanted = |lease: Option<&Lease>| {
            let holder = lease.and_then(holder);
            holder.is_some_and(|holder| names.iter().any(|name| holder.starts_with(&format!("{name}_"))))
        };
        let waiting = await_condition(self.leases(), LEASE, wanted);
        let lease = tokio::time::timeout(PATIENCE, waiting).await.expect("somebody leads").unwrap().unwrap();
        let holder = holder(&lease).unwrap();
        holder.split('_').next().unwrap().to_owned()
    }

    /// Runs `name` and says how often it was started.
    async fn starts_of(&self, puppet: &mut Puppet, name: &str) -> usize {
        self.create(name, |_| {}).await;
        assert_eq!(result(&self.ended(name).await), ResultReason::Succeeded);
        puppet.until(|call| matches!(call, Call::Ack { .. })).await;
        puppet.seen().iter().filter(|call| matches!(call, Call::Start(_))).count()
    }
}

/// A namespace with a pool and no operator.
async fn without_operator(purpose: &str) -> (Rig, Puppet) {
    let mut rig = Rig::start(purpose).await;
    rig.kill_operator().await;
    let puppet = rig.puppet(puppet::seals).await;
    rig.pool(&[("a", &puppet.server)]).await;
    (rig, puppet)
}

#[tokio::test]
async fn one_of_two_works_and_the_other_takes_over() {
    let (rig, mut puppet) = without_operator("election").await;
    let mut both = [Operator::start(&rig, "first"), Operator::start(&rig, "second")];
    let holder = rig.holder(&["first", "second"]).await;
    for operator in &mut both {
        operator.until_ready().await;
    }
    assert_eq!(rig.starts_of(&mut puppet, "one").await, 1);
    let [mut leader, mut other] = both;
    if leader.name != holder {
        std::mem::swap(&mut leader, &mut other);
    }
    assert_eq!((leader.leads(), other.leads()), (true, false));

    leader.signal("-TERM").await;
    let told = Instant::now();
    rig.holder(&[other.name]).await;
    assert!(told.elapsed() < TERM, "it was given back: {:?}", told.elapsed());
    assert!(leader.ended().await.success());
    assert_eq!(rig.starts_of(&mut puppet, "two").await, 1);

    let mut third = Operator::start(&rig, "third");
    third.until_ready().await;
    other.child.kill().await.unwrap();
    let killed = Instant::now();
    rig.holder(&["third"]).await;
    // It counts from when it saw the last renewal, at most one look after that; a second one for the calls themselves.
    assert!(killed.elapsed() <= TERM + 2 * LOOK, "{:?}", killed.elapsed());
    assert_eq!(rig.starts_of(&mut puppet, "three").await, 1);
    assert!(third.leads());
    let lease = rig.leases().get(LEASE).await.unwrap().spec.unwrap();
    assert_eq!(lease.lease_transitions, Some(3));
}

#[tokio::test]
async fn one_that_was_silent_for_too_long_ends_and_does_not_take_the_lease_back() {
    let (rig, mut puppet) = without_operator("silent").await;
    let mut silent = Operator::start(&rig, "silent");
    rig.holder(&["silent"]).await;
    // It knows, too: one that is stopped before it has the answer has never led, and just stands by afterwards.
    silent.until_ready().await;
    let other = Operator::start(&rig, "other");
    silent.signal("-STOP").await;
    rig.holder(&["other"]).await;
    silent.signal("-CONT").await;
    assert_eq!(silent.ended().await.code(), Some(2));
    assert_eq!(rig.holder(&["silent", "other"]).await, "other");
    assert_eq!(rig.starts_of(&mut puppet, "one").await, 1);
    assert!(other.leads());
}

#[tokio::test]
async fn one_whose_lease_is_taken_ends_at_once() {
    let (rig, _puppet) = without_operator("robbed").await;
    let mut robbed = Operator::start(&rig, "robbed");
    rig.holder(&["robbed"]).await;
    robbed.until_ready().await;
    let thief = Patch::Merge(json!({"spec": {"holderIdentity": "thief_1"}}));
    rig.leases().patch(LEASE, &PatchParams::default(), &thief).await.unwrap();
    let taken = Instant::now();
    assert_eq!(robbed.ended().await.code(), Some(2));
    assert!(taken.elapsed() < TERM, "{:?}", taken.elapsed());
    assert_eq!(rig.holder(&["thief", "robbed"]).await, "thief");
}
