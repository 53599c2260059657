//! `cargo xtask bench pipeline`: what an Execution costs from create to terminal status.
//!
//! - latency, one at a time, at an open-loop rate of 20/s, and where an earlier proof answers;
//! - sustained rate, beside the *bare write pipeline*: the same objects and statuses written to the same API server
//!   by sixteen clients with no operator and no executor, which no operator with these writes can beat;
//! - API writes per Execution, from the API server's own counters.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use requiem_benches::server::{Ends, Server, execution, published, sustained};
use requiem_benches::{Environment, Failure, Figure, Report, Samples, finish, used_by};
use requiem_xtask::stack::{Options, Stack};
use requiem_xtask::suites::PROGRAMS_VARIABLE;
use serde_json::{Value, json};
use tokio::sync::mpsc;

const SEQUENTIAL: usize = 200;
const PACED: usize = 400;
const PACE: Duration = Duration::from_millis(50);
const SUSTAINED: usize = 600;
const ROUNDS: usize = 3;
const CLIENTS: usize = 16;
const NAMESPACE: &str = "default";
const TWO_WRITES: &str = "bare: create, status";
const THREE_WRITES: &str = "bare: create, bundle, status";

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::from);
    finish("pipeline", runtime.and_then(|runtime| runtime.block_on(run())))
}

/// What a finished Execution and its bundle look like, so that the bare pipeline writes the same bytes.
struct Template {
    status: Value,
    bundle: Value,
    bundle_status: Value,
}

async fn run() -> Result<Report, Failure> {
    let cluster = requiem_xtask::cluster::up_ephemeral()?;
    let programs = std::env::var_os(PROGRAMS_VARIABLE).ok_or("run this with `cargo xtask bench pipeline`")?;
    let kubeconfig = cluster.access().kubeconfig.clone();
    cluster.access().kubectl(&["apply", "--server-side", "-k", "config/crd"])?;
    let mut stack = Stack::start(&Options {
        kubeconfig: kubeconfig.clone(),
        programs: programs.into(),
        namespace: None,
        slots: 2,
        executor_wrapper: Vec::new(),
        operator_arguments: Vec::new(),
    })?;
    let server = Server::connect(&kubeconfig, NAMESPACE).await?;
    server.pools.create(&PostParams::default(), &serde_json::from_str(&stack.pool(NAMESPACE))?).await?;
    let mut terminal = Ends::of_executions(&server).await?;

    let one_at_a_time = sequential(&server, &mut terminal, "Always").await?;
    let unpublished = sequential(&server, &mut terminal, "Never").await?;
    let answered = answered(&server, &mut terminal).await?;
    let paced = paced(&server, &mut terminal).await?;
    let template = template(&server, "sequential-always-0").await?;
    stack.operator.stop()?;
    let (two_writes, three_writes) = bare_round_trips(&server, &template).await?;
    stack.operator.start()?;
    terminal.drain();

    let (mut ours, mut bare, mut writes) = (Vec::new(), Vec::new(), Vec::new());
    let mut usage = Vec::new();
    for round in 0..ROUNDS {
        let before = server.writes().await?;
        let prefix = format!("sustained-{round}");
        ours.push(
            sustained(&server, &mut terminal, &prefix, &published("Always"), SUSTAINED, CLIENTS).await?,
        );
        let after = server.writes().await?;
        writes.push((after - before - SUSTAINED as f64) / SUSTAINED as f64);
        let executed = 2 * SEQUENTIAL + 1 + PACED + SUSTAINED * (round + 1);
        usage = vec![
            used_by("operator since its start", stack.operator.id().unwrap_or(0), SUSTAINED),
            used_by("executor without its runs", stack.executor.id().unwrap_or(0), executed),
        ];
        stack.operator.stop()?;
        bare.push(bare_pipeline(&server, &template, round).await?);
        stack.operator.start()?;
        terminal.drain();
    }
    let bare_name = "bare write pipeline, 16 clients";
    let mut notes = notes();
    notes.append(&mut usage);
    Ok(Report {
        environment: Environment::read(notes),
        figures: vec![
            Figure::latency("create to terminal, one at a time", &one_at_a_time, THREE_WRITES, &three_writes),
            Figure::latency("the same, proof not published", &unpublished, TWO_WRITES, &two_writes),
            Figure::latency("answered by an earlier proof (cache: Use)", &answered, TWO_WRITES, &two_writes),
            Figure::latency("create to terminal, at 20/s", &paced, THREE_WRITES, &three_writes),
            Figure::scalar("sustained Executions per second", "1/s", &ours, bare_name, &bare),
            Figure::scalar(
                "API writes of the operator per Execution",
                "writes",
                &writes,
                "design: proof published",
                &[3.0],
            ),
        ],
    })
}

/// What a reader of the figures must know.
fn notes() -> Vec<String> {
    vec![
            "control plane: etcd with its default durability, kube-apiserver, on the same machine".to_owned(),
            "durability: etcd and the executor's journal sync before they answer; small blobs are covered by the journal".to_owned(),
            "command: /bin/true, every sandbox layer required; client, servers, operator, executor share the processors"
            .to_owned(),
    ]
}

async fn sequential(server: &Server, terminal: &mut Ends, publish: &str) -> Result<Samples, Failure> {
    let mut samples = Samples::default();
    for index in 0..SEQUENTIAL {
        let name = format!("sequential-{}-{index}", publish.to_lowercase());
        let begin = Instant::now();
        server.executions.create(&PostParams::default(), &execution(&name, published(publish))?).await?;
        samples.push(terminal.of(&name).await? - begin);
    }
    Ok(samples)
}

/// Executions of one request, the first of which ran before: nothing runs, the operator recomputes the proof.
async fn answered(server: &Server, terminal: &mut Ends) -> Result<Samples, Failure> {
    let spec = json!({"cache": "Use", "nonce": "one and the same"});
    let mut samples = Samples::default();
    for index in 0..=SEQUENTIAL {
        let name = format!("answered-{index}");
        let begin = Instant::now();
        server.executions.create(&PostParams::default(), &execution(&name, spec.clone())?).await?;
        let took = terminal.of(&name).await? - begin;
        let done = server.executions.get(&name).await?;
        match (index, done.data["status"]["cache"]["original"].is_null()) {
            (0, true) => {}
            (1.., false) => samples.push(took),
            _ => return Err(format!("{name}: {}", done.data["status"]).into()),
        }
    }
    Ok(samples)
}

async fn paced(server: &Server, terminal: &mut Ends) -> Result<Samples, Failure> {
    let mut ticks = tokio::time::interval(PACE);
    let (api, mut begun) = (server.executions.clone(), BTreeMap::new());
    let (send, mut created) = mpsc::unbounded_channel();
    let producer = tokio::spawn(async move {
        for index in 0..PACED {
            ticks.tick().await;
            let (api, send) = (api.clone(), send.clone());
            let name = format!("paced-{index}");
            let object = execution(&name, published("Always"))?;
            let _reason = send.send((name, Instant::now()));
            tokio::spawn(async move { api.create(&PostParams::default(), &object).await });
        }
        Ok::<_, Failure>(())
    });
    let mut samples = Samples::default();
    while samples.len() < PACED {
        let (name, at) = terminal.next().await?;
        while let Ok((name, begin)) = created.try_recv() {
            begun.insert(name, begin);
        }
        if let Some(begin) = begun.remove(&name) {
            samples.push(at - begin);
        }
    }
    producer.await??;
    Ok(samples)
}

/// The status and the bundle of a real finished Execution.
async fn template(server: &Server, name: &str) -> Result<Template, Failure> {
    let done = server.executions.get(name).await?;
    let bundle_name =
        done.data["status"]["proofBundleRef"]["name"].as_str().ok_or("no proofBundleRef")?.to_owned();
    let bundle = server.bundles.get(&bundle_name).await?;
    Ok(Template {
        status: done.data["status"].clone(),
        bundle: bundle.data["spec"].clone(),
        bundle_status: bundle.data["status"].clone(),
    })
}

/// The writes of a published Execution. Those that somebody waits for, and then the bundle's verdict.
async fn bare_execution(server: &Server, template: &Template, name: &str) -> Result<(), Failure> {
    let bundle = bare_result(server, template, name, true).await?.ok_or("no bundle was created")?;
    write_status(&server.bundles, bundle, &template.bundle_status).await
}

/// The writes up to the terminal status, one after the other.
async fn bare_result(
    server: &Server,
    template: &Template,
    name: &str,
    publish: bool,
) -> Result<Option<DynamicObject>, Failure> {
    let created =
        server.executions.create(&PostParams::default(), &execution(name, published("Always"))?).await?;
    let bundle = match publish {
        true => Some(server.bundles.create(&PostParams::default(), &bundle(template, name)?).await?),
        false => None,
    };
    write_status(&server.executions, created, &template.status).await?;
    Ok(bundle)
}

fn bundle(template: &Template, name: &str) -> Result<DynamicObject, Failure> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "ProofBundle",
        "metadata": {"name": name}, "spec": template.bundle,
    }))?)
}

async fn write_status(
    api: &Api<DynamicObject>,
    mut object: DynamicObject,
    status: &Value,
) -> Result<(), Failure> {
    object.data["status"] = status.clone();
    let name = object.metadata.name.clone().unwrap_or_default();
    api.replace_status(&name, &PostParams::default(), &object).await?;
    Ok(())
}

/// The same writes one after the other, without and with the bundle, while no operator runs: what the API server alone takes.
async fn bare_round_trips(server: &Server, template: &Template) -> Result<(Samples, Samples), Failure> {
    let (mut two, mut three) = (Samples::default(), Samples::default());
    for index in 0..SEQUENTIAL {
        for (samples, publish) in [(&mut two, false), (&mut three, true)] {
            let begin = Instant::now();
            bare_result(server, template, &format!("bare-{publish}-{index}"), publish).await?;
            samples.push(begin.elapsed());
        }
    }
    clear(server).await?;
    Ok((two, three))
}

async fn bare_pipeline(server: &Server, template: &Template, round: usize) -> Result<f64, Failure> {
    let begin = Instant::now();
    let names = Arc::new((0..SUSTAINED).map(|index| format!("bare-{round}-{index}")).collect::<Vec<_>>());
    stream::iter(names.iter())
        .map(|name| bare_execution(server, template, name))
        .buffer_unordered(CLIENTS)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    let rate = SUSTAINED as f64 / begin.elapsed().as_secs_f64();
    clear(server).await?;
    Ok(rate)
}

/// Nothing is left before the operator comes back, so that it does not look at it.
async fn clear(server: &Server) -> Result<(), Failure> {
    server.executions.delete_collection(&DeleteParams::default(), &Default::default()).await?;
    server.bundles.delete_collection(&DeleteParams::default(), &Default::default()).await?;
    Ok(())
}
