//! The images that ship, as a kubelet runs them: restricted, as nobody, with a read-only root.

use requiem_tests::Failure;
use requiem_xtask::images::{RECIPES, REGISTRY, reference};
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
