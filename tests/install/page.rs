//! The commands of docs/install.md, as a stranger would type them: on a cluster that has never seen Requiem, with images where the
//! page says that they are.

#[path = "../../crates/cli/tests/common/page.rs"]
mod reader;

use std::path::{Path, PathBuf};

use reader::Place;
use requiem_tests::helm::{kubectl, kubectl_command};
use requiem_tests::{Failure, KUBECONFIG, setting};
use requiem_xtask::cargo::Profile;
use requiem_xtask::images::{self, payload};
use requiem_xtask::scratch::Scratch;
use requiem_xtask::{paths, tools};

use crate::nodes;

/// What the page calls the registry, and the image that has the user's programs.
const REGISTRY: &str = "registry.example/requiem";
const WORKLOAD: &str = "docker.io/library/debian:stable-slim";

/// Gives every node the images under the names of the page, as if it had pulled them.
fn publish(scratch: &Path) -> Result<(), Failure> {
    let workload = scratch.join("workload.tar");
    let mut image = payload::image()?;
    WORKLOAD.clone_into(&mut image.name);
    image.pack()?.write_archive(&workload)?;
    let built = images::build(Profile::Trial, scratch, REGISTRY)?;
    for node in nodes()? {
        let archives = built.iter().map(|image| &image.archive).chain([&workload]);
        archives.into_iter().try_for_each(|archive| node.load_image(archive))?;
    }
    Ok(())
}

fn page(name: &str) -> PathBuf {
    paths::repository().join("docs").join(name)
}

/// A folder in which `charts` and `config` are those of the repository, and the reader's own files are not.
fn desk(scratch: &Path) -> Result<Place, Failure> {
    for folder in ["charts", "config"] {
        std::os::unix::fs::symlink(paths::repository().join(folder), scratch.join(folder))?;
    }
    let kubectl = PathBuf::from(kubectl_command(&[])?.get_program());
    let programs = [kubectl, tools::helm()?].map(|program| program.parent().map(Path::to_owned));
    Ok(Place {
        folder: scratch.to_owned(),
        programs: programs.into_iter().flatten().collect(),
        variables: vec![("KUBECONFIG", setting(KUBECONFIG)?)],
    })
}

/// Helm, the first Executions, what may be deleted by hand, the way back, and kustomize.
pub(crate) fn is_followed() -> Result<(), Failure> {
    let scratch = Scratch::new("page")?;
    publish(scratch.path())?;
    let place = desk(scratch.path())?;
    let install = page("install.md");
    let scripts =
        ["## Helm", "### The first Executions"].map(|part| place.follow_section(&install, part).scripts);
    assert_eq!((scripts, place.follow(&page("gitops.md")).scripts), ([1, 1], 1));
    let proofs: serde_json::Value =
        serde_json::from_slice(&std::fs::read(scratch.path().join("proofs.json"))?)?;
    assert_eq!(proofs["items"].as_array().map(Vec::len), Some(2), "{proofs}");
    assert_eq!(place.follow_section(&install, "## Uninstall").scripts, 2);
    kubectl(&["delete", "namespace", "team-a", "--timeout=120s"])?;

    assert_eq!(place.follow_section(&install, "## Kustomize").scripts, 1);
    kubectl(&["delete", "--kustomize", "config/default", "--timeout=120s"])?;
    Ok(())
}
