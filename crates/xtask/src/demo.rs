//! `cargo xtask demo`: from nothing to a verified proof, on this machine.
//!
//! Flow: prerequisites → programs → control plane (or `--context`) → CRDs → executor and operator → inputs into the store →
//! samples → wait → table, one status, twin builds compared → proof to a file → cluster down → proof verified → how to go on.
//!
//! With `--node` everything runs in pods: control plane and one node → images → the chart, by Helm → its pool is ready → samples →
//! `helm test` → and the rest as above. Inputs that must lie in a store are left out there: nobody but the executor reaches its own.
//!
//! | step | module |
//! |---|---|
//! | where it runs, what runs there, and what must go afterwards | [`site`] |
//! | the same in pods: images and the chart | [`pods`] |
//! | samples and their inputs | [`samples`] |
//! | what is shown, and checked | [`show`] |

mod pods;
mod samples;
mod show;
mod site;

use std::path::PathBuf;

use crate::progress::{Step, print, say};
use crate::{Result, cargo, paths, prerequisites};
use site::Site;

/// The namespace of everything that the demo makes; also the tenant of the store.
pub(crate) const NAMESPACE: &str = "requiem-demo";

/// What the user asked for.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Use the cluster of this context of your own kubeconfig instead of starting one.
    #[arg(long)]
    context: Option<String>,
    /// With a real node: operator and executor run as pods, installed by the Helm chart. Needs root.
    #[arg(long, conflicts_with = "context")]
    node: bool,
    /// Leave the control plane, the operator and the executor running.
    #[arg(long, conflicts_with = "context")]
    keep: bool,
    /// Take the three programs from this folder instead of building them.
    #[arg(long)]
    programs: Option<PathBuf>,
}

/// Runs the demo.
///
/// # Errors
/// A missing prerequisite, a program that does not come up, or a sample that does not end as it says.
pub fn run(options: &Options) -> Result<()> {
    prerequisites::c_compiler()?;
    if options.node {
        return on_a_node(options);
    }
    prerequisites::sandbox()?;
    let programs = options.programs.clone().map_or_else(build, Ok)?;
    let mut site = Site::open(options.context.as_deref(), programs)?;
    site.install_definitions()?;
    site.start_stack()?;
    let samples = samples::prepare(&site)?;
    samples::apply(&site, &samples)?;
    samples::wait(&site, &samples)?;

    show::staging(&site, &samples::records_again())?;
    show::table(&site)?;
    show::endings(&site, &samples)?;
    show::status(&site, "sqlite-1")?;
    show::twins(&site, "sqlite-1", "sqlite-2")?;
    let proof = show::fetch_proof(&site, "sqlite-1")?;
    finish(site, &proof, options.keep)
}

/// The demo on pods.
fn on_a_node(options: &Options) -> Result<()> {
    prerequisites::nodes()?;
    let programs = options.programs.clone().map_or_else(build, Ok)?;
    let site = Site::open_with_node(programs)?;
    pods::install(&site)?;
    let samples = samples::without_inputs()?;
    samples::apply(&site, &samples)?;
    samples::wait(&site, &samples)?;
    pods::table(&site)?;
    show::table(&site)?;
    show::endings(&site, &samples)?;
    pods::test(&site)?;
    show::status(&site, "hello")?;
    let proof = show::fetch_proof(&site, "hello")?;
    finish(site, &proof, options.keep)
}

/// The last act: the proof needs nobody.
fn finish(site: Site, proof: &std::path::Path, keep: bool) -> Result<()> {
    let requiem = site.program("requiem");
    if keep {
        show::verify(&requiem, proof, "the cluster still runs, but is not asked")?;
        return farewell_kept(site);
    }
    site.close()?;
    show::verify(&requiem, proof, "the cluster is stopped")?;
    farewell(&requiem, proof);
    Ok(())
}

fn build() -> Result<PathBuf> {
    let step = Step::begin("build requiem, requiem-executor and requiem-operator");
    let programs = cargo::build_programs(cargo::Profile::Dev)?;
    step.done();
    Ok(programs)
}

fn farewell(requiem: &std::path::Path, proof: &std::path::Path) {
    print("");
    print("Go on:");
    print(&format!("  {} proof verify {}   (change a byte first and see)", shown(requiem), shown(proof)));
    print("  cargo xtask demo --keep      leaves it running, so that you can apply Executions of your own");
    print("  cargo xtask test             everything CI runs");
}

fn farewell_kept(site: Site) -> Result<()> {
    let (name, access) = site.keep()?;
    print("");
    print("It is running. Go on:");
    print(&format!("  export KUBECONFIG={}", access.kubeconfig.display()));
    print(&format!("  alias kubectl='{} -n {NAMESPACE}'", access.kubectl.display()));
    print("  kubectl explain exn.spec");
    print("  kubectl get exn,proofbundle,executorpool");
    print(&format!("  cargo xtask cluster down {name}"));
    say("✓ demo");
    Ok(())
}

/// A path below the repository, shortened.
fn shown(path: &std::path::Path) -> String {
    path.strip_prefix(paths::repository()).unwrap_or(path).display().to_string()
}

/// Where the demo leaves its proof.
fn proof_file() -> Result<PathBuf> {
    Ok(cargo::target()?.join("demo/proof.json"))
}
