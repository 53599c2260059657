//! `cargo xtask bench pods`: an Execution on a real node, in a pool and in a pod of its own, beside a Job and a warm `kubectl exec`.
//!
//! One node (kubelet, containerd, runc), the chart with images as they ship, `/bin/true` everywhere:
//!
//! - one alone, the variants in turn;
//! - thirty and a hundred at once, as a rate until the last one is over;
//! - a pool that is given as much as it has slots, and four times that;
//! - API writes per Execution, from the API server's own counters.

use std::process::ExitCode;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Api, DeleteParams, DynamicObject, PostParams, PropagationPolicy};
use kube::core::{ApiResource, GroupVersionKind};
use requiem_benches::server::{Ends, Server, execution, published, sustained};
use requiem_benches::{Environment, Failure, Figure, Report, Samples, finish};
use requiem_xtask::cargo::Profile;
use requiem_xtask::cluster::{self, Ephemeral, Shape};
use requiem_xtask::images::{self, payload};
use requiem_xtask::progress::Step;
use requiem_xtask::{paths, tools};
use serde_json::{Value, json};

const NAMESPACE: &str = "bench";
/// Rounds of the variants that take a pod each.
const ROUNDS: usize = 10;
/// Samples of the quick variants in each of them.
const QUICK: usize = 20;
const AT_ONCE: [usize; 2] = [30, 100];
/// How often each crowd comes.
const REPEATS: usize = 3;
const SLOTS: usize = 4;
const SUSTAINED: usize = 400;

const JOB: &str = "batch/v1 Job";
/// Label of a pod that was made for one Execution.
const OWN_POD: &str = "requiem.dev/dedicated";
const EXEC: &str = "kubectl exec in a warm pod";

const NAMESPACES: &str = r#"[
  {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "requiem-system",
   "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
  {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench",
   "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
]"#;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::from);
    finish("pods", runtime.and_then(|runtime| runtime.block_on(run())))
}

async fn run() -> Result<Report, Failure> {
    let cluster = install()?;
    let mut bench = Bench::new(&cluster).await?;
    bench.warm_up().await?;
    let step = Step::begin("one alone");
    let mut figures = bench.alone().await?.figures();
    step.done();
    for crowd in AT_ONCE {
        let step = Step::begin(format!("{crowd} at once"));
        figures.extend(bench.at_once(crowd).await?);
        step.done();
    }
    let step = Step::begin("as much as there are slots, and four times that");
    figures.extend(bench.pressed().await?);
    step.done();
    let report = Report { environment: Environment::read(notes()), figures };
    cluster.down()?;
    Ok(report)
}

fn notes() -> Vec<String> {
    vec![
        "one node: kubelet, containerd, runc; etcd with its default durability and the API server beside it on the same processors"
            .to_owned(),
        "operator and executor are pods of the chart, images as they ship; pool: one pod of tier T1 with 4 slots, every layer required"
            .to_owned(),
        "durability: etcd and the executor's journal (on an emptyDir) sync before they answer; a Job keeps no result but its exit"
            .to_owned(),
        "a Job is over with its condition Complete, an Execution with its terminal status, an exec with kubectl's exit".to_owned(),
    ]
}

/// A cluster with one node and the chart in it; returns when the pool is ready.
fn install() -> Result<Ephemeral, Failure> {
    let cluster = cluster::up_ephemeral_with(Shape::nodes(1))?;
    images::give(&cluster.nodes()?, &cluster.folder().join("images"), Profile::Image)?;
    let access = cluster.access();
    for namespace in serde_json::from_str::<Vec<Value>>(NAMESPACES)? {
        apply(access, &namespace)?;
    }
    let chart = paths::repository().join("charts/requiem").display().to_string();
    let workload = format!("pool.workloadImage={}", payload::NAME);
    let slots = format!("pool.slots={SLOTS}");
    let values = [
        "image.pullPolicy=IfNotPresent",
        "pool.create=true",
        "pool.namespace=bench",
        "pool.tier=T1",
        "pool.resources.workload.limits.memory=1Gi",
        &workload,
        &slots,
    ];
    let mut helm = std::process::Command::new(tools::helm()?);
    helm.args(["install", "requiem", &chart, "--namespace", "requiem-system", "--wait", "--timeout", "5m"]);
    for value in values {
        helm.args(["--set", value]);
    }
    requiem_xtask::process::output(helm.env("KUBECONFIG", &access.kubeconfig))?;
    apply(access, &resident())?;
    access.kubectl(&[
        "--namespace",
        NAMESPACE,
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "pod/resident",
    ])?;
    Ok(cluster)
}

fn apply(access: &cluster::Access, object: &Value) -> Result<(), Failure> {
    let file = access.kubeconfig.with_file_name("object.json");
    std::fs::write(&file, object.to_string())?;
    access.kubectl(&["apply", "--server-side", "--filename", &file.display().to_string()])?;
    Ok(())
}

/// The pod that `kubectl exec` goes into.
fn resident() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "resident", "namespace": NAMESPACE},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container(&["/bin/sleep", "infinity"])]},
    })
}

fn container(command: &[&str]) -> Value {
    json!({"name": "main", "image": payload::NAME, "imagePullPolicy": "IfNotPresent", "command": command})
}

fn job(name: &str) -> Result<DynamicObject, Failure> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false, "containers": [container(&["/bin/true"])],
        }}},
    }))?)
}

/// The `spec.executor` of an Execution with a pod of its own. Nothing is requested, as the Job requests nothing: what is compared is
/// speed, not what fits on a node.
fn dedicated() -> Value {
    json!({"executor": {"pod": {
        "image": payload::NAME, "tier": "T1",
        "resources": {
            "executor": {"requests": {"cpu": "0", "memory": "0"}},
            "workload": {"requests": {"memory": "0"}, "limits": {"memory": "256Mi"}},
        },
    }}})
}

/// Everything that is measured against.
struct Bench {
    server: Server,
    jobs: Api<DynamicObject>,
    access: cluster::Access,
    executions_end: Ends,
    jobs_end: Ends,
    runs: usize,
}

/// One alone, each way.
#[derive(Default)]
struct Alone {
    published: Samples,
    kept: Samples,
    dedicated: Samples,
    job: Samples,
    exec: Samples,
}

impl Alone {
    fn figures(&self) -> Vec<Figure> {
        vec![
            Figure::latency("pool, published: one alone", &self.published, JOB, &self.job),
            Figure::latency("pool, published: one alone", &self.published, EXEC, &self.exec),
            Figure::latency("pool, proof in the store: one alone", &self.kept, EXEC, &self.exec),
            Figure::latency("own pod: one alone", &self.dedicated, JOB, &self.job),
        ]
    }
}

impl Bench {
    async fn new(cluster: &Ephemeral) -> Result<Self, Failure> {
        let access = cluster.access().clone();
        let server = Server::connect(&access.kubeconfig, NAMESPACE).await?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("batch", "v1", "Job"));
        let jobs = Api::namespaced_with(server.client.clone(), NAMESPACE, &resource);
        let complete = |object: &DynamicObject| {
            let conditions = object.data["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|one| one["type"] == "Complete" && one["status"] == "True")
        };
        Ok(Self {
            executions_end: Ends::of_executions(&server).await?,
            jobs_end: Ends::watch(jobs.clone(), complete).await?,
            server,
            jobs,
            access,
            runs: 0,
        })
    }

    fn name(&mut self, kind: &str) -> String {
        self.runs += 1;
        format!("{kind}-{}", self.runs)
    }

    async fn warm_up(&mut self) -> Result<(), Failure> {
        self.execution(&dedicated()).await?;
        self.job().await?;
        self.exec().await?;
        for _ in 0..QUICK {
            self.execution(&published("Always")).await?;
        }
        Ok(())
    }

    async fn execution(&mut self, spec: &Value) -> Result<std::time::Duration, Failure> {
        let name = self.name("execution");
        let object = execution(&name, spec.clone())?;
        let begin = Instant::now();
        self.server.executions.create(&PostParams::default(), &object).await?;
        let took = self.executions_end.of(&name).await? - begin;
        self.succeeded(&name).await?;
        Ok(took)
    }

    /// A figure of something that failed would be none.
    async fn succeeded(&self, name: &str) -> Result<(), Failure> {
        let object = self.server.executions.get(name).await?;
        let status = &object.data["status"];
        if status["exitCode"] == json!(0) { Ok(()) } else { Err(format!("{name}: {status}").into()) }
    }

    async fn job(&mut self) -> Result<std::time::Duration, Failure> {
        let name = self.name("job");
        let object = job(&name)?;
        let begin = Instant::now();
        self.jobs.create(&PostParams::default(), &object).await?;
        Ok(self.jobs_end.of(&name).await? - begin)
    }

    async fn exec(&self) -> Result<std::time::Duration, Failure> {
        let begin = Instant::now();
        let mut kubectl = tokio::process::Command::from(self.access.command());
        let output =
            kubectl.args(["--namespace", NAMESPACE, "exec", "resident", "--", "/bin/true"]).output().await?;
        let took = begin.elapsed();
        if output.status.success() {
            Ok(took)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
        }
    }

    async fn alone(&mut self) -> Result<Alone, Failure> {
        let mut alone = Alone::default();
        for _ in 0..ROUNDS {
            alone.job.push(self.job().await?);
            alone.dedicated.push(self.execution(&dedicated()).await?);
            self.gone(OWN_POD)?;
            for _ in 0..QUICK {
                alone.published.push(self.execution(&published("Always")).await?);
                alone.kept.push(self.execution(&published("Never")).await?);
                alone.exec.push(self.exec().await?);
            }
        }
        self.clear().await?;
        Ok(alone)
    }

    /// `crowd` of each at once.
    async fn at_once(&mut self, crowd: usize) -> Result<Vec<Figure>, Failure> {
        let [mut published_rate, mut kept, mut own, mut jobs, mut execs] = [(); 5].map(|()| Vec::new());
        for _ in 0..REPEATS {
            jobs.push(self.jobs_at_once(crowd).await?);
            self.clear().await?;
            own.push(self.executions(&dedicated(), crowd, crowd).await?);
            self.clear().await?;
            published_rate.push(self.executions(&published("Always"), crowd, crowd).await?);
            kept.push(self.executions(&published("Never"), crowd, crowd).await?);
            execs.push(self.execs_at_once(crowd).await?);
            self.clear().await?;
        }
        let rate = |name: &str, ours: &[f64], peer: &str, theirs: &[f64]| {
            Figure::scalar(&format!("{name}: {crowd} at once"), "1/s", ours, peer, theirs)
        };
        Ok(vec![
            rate("pool, published", &published_rate, JOB, &jobs),
            rate("pool, proof in the store", &kept, JOB, &jobs),
            rate("pool, proof in the store", &kept, EXEC, &execs),
            rate("own pod", &own, JOB, &jobs),
        ])
    }

    /// A pool with as much to do as it has slots, and with four times that; and what each Execution writes.
    async fn pressed(&mut self) -> Result<Vec<Figure>, Failure> {
        let mut figures = Vec::new();
        for (word, publish, expected) in [("published", "Always", 3.0), ("proof in the store", "Never", 1.0)]
        {
            let [mut fits, mut queues, mut writes] = [(); 3].map(|()| Vec::new());
            for _ in 0..REPEATS {
                let before = self.server.writes().await?;
                fits.push(self.executions(&published(publish), SUSTAINED, SLOTS).await?);
                queues.push(self.executions(&published(publish), SUSTAINED, 4 * SLOTS).await?);
                let all = (2 * SUSTAINED) as f64;
                writes.push((self.server.writes().await? - before - all) / all);
            }
            let name = |what: &str| format!("pool, {word}: {what}");
            figures.push(Figure::scalar(&name("16 clients"), "1/s", &queues, "the same, 4 clients", &fits));
            figures.push(Figure::scalar(&name("API writes"), "writes", &writes, "design", &[expected]));
        }
        Ok(figures)
    }

    async fn executions(&mut self, spec: &Value, count: usize, clients: usize) -> Result<f64, Failure> {
        let name = self.name("crowd");
        let rate = sustained(&self.server, &mut self.executions_end, &name, spec, count, clients).await?;
        self.succeeded(&format!("{name}-{}", count - 1)).await?;
        Ok(rate)
    }

    async fn jobs_at_once(&mut self, crowd: usize) -> Result<f64, Failure> {
        let name = self.name("crowd");
        let begin = Instant::now();
        let create = async |index| {
            let object = job(&format!("{name}-{index}"))?;
            self.jobs.create(&PostParams::default(), &object).await?;
            Ok::<_, Failure>(())
        };
        let creating =
            stream::iter(0..crowd).map(create).buffer_unordered(crowd).try_for_each(async |()| Ok(()));
        let prefix = format!("{name}-");
        let ((), last) = tokio::try_join!(creating, self.jobs_end.all(&prefix, crowd))?;
        Ok(crowd as f64 / (last - begin).as_secs_f64())
    }

    async fn execs_at_once(&self, crowd: usize) -> Result<f64, Failure> {
        let begin = Instant::now();
        let all = stream::iter(0..crowd).map(|_| self.exec()).buffer_unordered(crowd);
        all.try_for_each(|_| async { Ok(()) }).await?;
        Ok(crowd as f64 / begin.elapsed().as_secs_f64())
    }

    /// Nothing that was made is in the way of what comes next.
    async fn clear(&self) -> Result<(), Failure> {
        let all = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        self.jobs.delete_collection(&all, &Default::default()).await?;
        self.server.executions.delete_collection(&all, &Default::default()).await?;
        self.server.bundles.delete_collection(&all, &Default::default()).await?;
        self.gone(OWN_POD)?;
        self.gone("batch.kubernetes.io/job-name")
    }

    /// Waits until no pod has `label`.
    fn gone(&self, label: &str) -> Result<(), Failure> {
        let waiting = ["wait", "--for=delete", "--timeout=120s", "pod", "--selector", label];
        self.access.kubectl(&[&["--namespace", NAMESPACE], waiting.as_slice()].concat())?;
        Ok(())
    }
}
