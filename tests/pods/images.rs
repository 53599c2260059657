//! Images in the nodes: those that ship, as a kubelet runs them (restricted, as nobody, with a read-only root), and anybody's.

use std::process::Command;

use requiem_tests::{Failure, setting};
use requiem_xtask::images::{RECIPES, REGISTRY, payload, reference};
use requiem_xtask::oci::Image;
use requiem_xtask::scratch::Scratch;
use requiem_xtask::suites::{CLUSTER_VARIABLE, XTASK_VARIABLE};
use serde_json::{Value, json};

use crate::bed::{Bed, once, restricted};

#[tokio::test(flavor = "multi_thread")]
async fn every_image_starts_in_a_restricted_pod() -> Result<(), Failure> {
    let bed = Bed::new("images", "restricted").await?;
    for recipe in RECIPES {
        // No command: the image's own.
        let mut container = restricted(&reference(REGISTRY, recipe.name), &[]);
        container["args"] = json!(["--version"]);
        let said = bed.run(recipe.name, once(&container)).await?;
        assert_eq!(said.trim(), format!("{} {}", recipe.programs[0], env!("CARGO_PKG_VERSION")));
    }
    bed.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_runs_as_nobody_without_being_told() -> Result<(), Failure> {
    let bed = Bed::new("nobody", "restricted").await?;
    let image = reference(REGISTRY, "executor");
    let mut container = restricted(&image, &["/usr/bin/requiem-executor", "--version"]);
    container["securityContext"]["runAsUser"] = Value::Null;
    // runAsNonRoot stays: a kubelet refuses an image of root, or one whose user is a name.
    bed.run("nobody", once(&container)).await?;
    bed.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_loaded_runs() -> Result<(), Failure> {
    const LOADED: &str = "requiem.dev/loaded:1";
    let bed = Bed::new("loaded", "restricted").await?;
    let scratch = Scratch::new("loaded")?;
    let archive = scratch.path().join("archive.tar");
    Image { name: LOADED.to_owned(), ..payload::image()? }.pack()?.write_archive(&archive)?;
    let mut load = Command::new(setting(XTASK_VARIABLE)?);
    load.args(["cluster", "load"]).arg(&archive).arg(setting(CLUSTER_VARIABLE)?);
    assert!(load.status()?.success());
    assert_eq!(bed.run("loaded", once(&restricted(LOADED, &["echo", "here"]))).await?.trim(), "here");
    bed.close().await
}
