//! `cargo xtask images`: the images that ship, built without a daemon and the same on every machine with the same tool chain.
//!
//! Flow: programs linked statically ([`cargo::build_static`]) → bill of materials ([`sbom`]) → one layer, from scratch ([`oci`]) →
//! an archive, and its bill beside it. An image holds its programs and that bill, nothing else: no shell, no user database.

pub mod payload;
pub mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{self, Profile};
use crate::cluster::{self, Name, Node};
use crate::oci::{self, Packed};
use crate::progress::{Step, print, say};
use crate::{Error, Result, paths, process};

/// Nobody: no image runs as root, and none needs to know the name of its user.
const USER: &str = "65532:65532";
/// What no image may exceed: a node fetches it before the first Execution runs.
const MOST_BYTES: usize = 25 << 20;

/// What an image is made of.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Its name, without registry and tag.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Its programs, in `/usr/bin`. The first is what it runs.
    pub programs: &'static [&'static str],
}

/// The images that ship.
pub const RECIPES: [Recipe; 3] = [
    Recipe {
        name: "operator",
        about: "Reconciles Executions and dispatches them to executors",
        programs: &["requiem-operator"],
    },
    Recipe {
        name: "executor",
        about: "Runs attempts, keeps the store, seals proofs",
        programs: &["requiem-executor", "requiem-runner"],
    },
    Recipe { name: "cli", about: "Runs, stores and verifies without Kubernetes", programs: &["requiem"] },
];

/// What the user asked for.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where the archives go; `images` in cargo's target folder if absent.
    #[arg(long)]
    out: Option<PathBuf>,
    /// In front of every name.
    #[arg(long, default_value = REGISTRY)]
    registry: String,
    /// Also give them to the nodes of this cluster.
    #[arg(long)]
    load: Option<String>,
    /// Do not optimise: as the suites do, minutes quicker.
    #[arg(long)]
    trial: bool,
    /// Build everything a second time, from another folder into another folder, and compare.
    #[arg(long, conflicts_with = "load")]
    twice: bool,
}

/// In front of the names of images, unless the user says otherwise. No such registry needs to exist: nodes are given the images.
pub const REGISTRY: &str = "requiem.dev";

/// An image that lies in a file.
#[derive(Debug)]
pub struct Built {
    /// Its reference.
    pub name: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Its archive.
    pub archive: PathBuf,
    /// Bytes that a node fetches.
    pub size: usize,
}

/// Builds the images and says where they are.
///
/// # Errors
/// A program does not build, an image is too large, or, with `--twice`, the second build differs.
pub fn run(options: &Options) -> Result<()> {
    let out = options.out.clone().map_or_else(|| Ok(cargo::target()?.join("images")), Ok)?;
    let profile = if options.trial { Profile::Trial } else { Profile::Image };
    // Once, before anything is built: files that change meanwhile must not make two builds differ by their label.
    let revision = revision(&paths::repository());
    let built = build_labelled(profile, &out, &options.registry, revision.as_deref())?;
    for image in &built {
        let size = format!("{:.1} MiB", image.size as f64 / f64::from(1 << 20));
        print(&format!("{}\t{}\t{size}\t{}", image.name, image.digest, image.archive.display()));
    }
    if options.twice {
        compare(&built, &again(profile, &options.registry, revision.as_deref())?)?;
    }
    match &options.load {
        Some(cluster) => load(&built, &Name::parse(cluster)?),
        None => Ok(()),
    }
}

/// Builds all images into `out`.
///
/// # Errors
/// A program does not build, or an image is too large.
pub fn build(profile: Profile, out: &Path, registry: &str) -> Result<Vec<Built>> {
    build_labelled(profile, out, registry, revision(&paths::repository()).as_deref())
}

fn build_labelled(
    profile: Profile,
    out: &Path,
    registry: &str,
    revision: Option<&str>,
) -> Result<Vec<Built>> {
    let step = Step::begin("build the programs of the images, linked statically");
    let programs = cargo::build_static(&paths::repository(), &cargo::target()?, profile, &programs())?;
    step.done();
    pack(&paths::repository(), &programs, out, registry, revision)
}

/// The programs of all images.
fn programs() -> Vec<&'static str> {
    RECIPES.iter().flat_map(|recipe| recipe.programs).copied().collect()
}

/// The reference of image `name` as built from this source.
pub fn reference(registry: &str, name: &str) -> String {
    format!("{registry}/{name}:{}", env!("CARGO_PKG_VERSION"))
}

fn pack(
    repository: &Path,
    programs: &Path,
    out: &Path,
    registry: &str,
    revision: Option<&str>,
) -> Result<Vec<Built>> {
    fs::create_dir_all(out).map_err(Error::io(format!("make {}", out.display())))?;
    let source = sbom::Source::read(repository)?;
    let pack_one = |recipe: &Recipe| pack_one(recipe, programs, out, registry, &source, revision);
    RECIPES.iter().map(pack_one).collect()
}

fn pack_one(
    recipe: &Recipe,
    programs: &Path,
    out: &Path,
    registry: &str,
    source: &sbom::Source,
    revision: Option<&str>,
) -> Result<Built> {
    let name = reference(registry, recipe.name);
    let bill = format!("{:#}\n", source.bill(&name, recipe)?);
    let beside = out.join(format!("{}.cdx.json", recipe.name));
    fs::write(&beside, &bill).map_err(Error::io(format!("write {}", beside.display())))?;
    let mut files = vec![oci::File::data("usr/share/doc/requiem/sbom.cdx.json", bill.into_bytes())];
    for program in recipe.programs {
        let path = programs.join(program);
        let bytes = fs::read(&path).map_err(Error::io(format!("read {}", path.display())))?;
        files.push(oci::File::program(format!("usr/bin/{program}"), bytes));
    }
    let entrypoint = recipe.programs.iter().take(1).map(|program| format!("/usr/bin/{program}")).collect();
    let labels = labels(recipe, revision);
    let image = oci::Image { name, files, entrypoint, user: USER.to_owned(), labels };
    let packed = image.pack()?;
    check_size(&packed)?;
    let archive = out.join(format!("{}.tar", recipe.name));
    packed.write_archive(&archive)?;
    Ok(Built {
        name: packed.name().to_owned(),
        digest: packed.digest().to_owned(),
        size: packed.size(),
        archive,
    })
}

fn labels(recipe: &Recipe, revision: Option<&str>) -> Vec<(String, String)> {
    let mut labels = vec![
        ("title", format!("requiem {}", recipe.name)),
        ("description", recipe.about.to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("licenses", "MIT".to_owned()),
        ("vendor", "Requiem".to_owned()),
    ];
    labels.extend(revision.map(|revision| ("revision", revision.to_owned())));
    labels.into_iter().map(|(key, value)| (format!("org.opencontainers.image.{key}"), value)).collect()
}

fn check_size(packed: &Packed) -> Result<()> {
    if packed.size() <= MOST_BYTES {
        return Ok(());
    }
    let what =
        format!("The image {} has {} bytes; at most {MOST_BYTES} are wanted", packed.name(), packed.size());
    Err(Error::check(what, "Look at what has grown: `cargo bloat --release`, or the newest dependency"))
}

/// The commit, if this is a clone and nothing in it has changed since.
fn revision(repository: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        process::output(Command::new("git").arg("-C").arg(repository).args(arguments)).ok()
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    changed.is_empty().then(|| git(&["rev-parse", "HEAD"])).flatten().map(|commit| commit.trim().to_owned())
}

/// Builds `programs` from a copy of the source, elsewhere, with nothing built before. Returns the folders of the copy and of the
/// programs, both below `scratch`.
///
/// # Errors
/// The copy cannot be made, or does not build.
pub fn build_elsewhere(scratch: &Path, profile: Profile, programs: &[&str]) -> Result<(PathBuf, PathBuf)> {
    let copy = scratch.join("a-copy-of-the-source");
    copy_source(&paths::repository(), &copy)?;
    let step = Step::begin(format!("build {} again, elsewhere", programs.join(", ")));
    let built = cargo::build_static(&copy, &scratch.join("elsewhere"), profile, programs)?;
    step.done();
    Ok((copy, built))
}

/// Copies the files that are in the repository, as they are now.
fn copy_source(from: &Path, to: &Path) -> Result<()> {
    let listed = process::output(Command::new("git").arg("-C").arg(from).args(["ls-files", "-z"]))?;
    for name in listed.split_terminator('\0') {
        let (source, target) = (from.join(name), to.join(name));
        // Listed, but removed since the last commit.
        if !source.exists() {
            continue;
        }
        let folder = target.parent().unwrap_or(to);
        fs::create_dir_all(folder)
            .and_then(|()| fs::copy(&source, &target))
            .map_err(Error::io(format!("copy {}", source.display())))?;
    }
    Ok(())
}

/// The same images from a copy of the source, elsewhere, with nothing built before.
fn again(profile: Profile, registry: &str, revision: Option<&str>) -> Result<Vec<Built>> {
    let scratch = crate::scratch::Scratch::new("images-again")?;
    let (copy, programs) = build_elsewhere(scratch.path(), profile, &programs())?;
    pack(&copy, &programs, &scratch.path().join("images"), registry, revision)
}

fn compare(first: &[Built], second: &[Built]) -> Result<()> {
    for (one, other) in first.iter().zip(second) {
        if one.digest != other.digest {
            return Err(Error::check(
                format!("Two builds of {} differ: {} and {}", one.name, one.digest, other.digest),
                "Unpack both layers and compare the programs: a path or a time has found its way into one",
            ));
        }
        say(&format!("✓ {} is the same in both builds", one.name));
    }
    Ok(())
}

/// Builds the images with `profile`, and one with a shell, and gives them to `nodes`; `folder` is used on the way.
///
/// # Errors
/// One does not build, or a node does not take it.
pub fn give(nodes: &[Node], folder: &Path, profile: Profile) -> Result<()> {
    let built = build(profile, folder, REGISTRY)?;
    let step = Step::begin("give the images to the nodes");
    let payload = folder.join("payload.tar");
    payload::image()?.pack()?.write_archive(&payload)?;
    for node in nodes {
        let archives = built.iter().map(|image| &image.archive).chain([&payload]);
        archives.into_iter().try_for_each(|archive| node.load_image(archive))?;
    }
    step.done();
    Ok(())
}

fn load(built: &[Built], cluster: &Name) -> Result<()> {
    for node in cluster::nodes(cluster)? {
        built.iter().try_for_each(|image| node.load_image(&image.archive))?;
        say(&format!("✓ {} has the images", node.name()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_too_large_is_refused() {
        // Random enough not to be compressed.
        let mut bytes = vec![0; MOST_BYTES + 1];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        let files = vec![oci::File::data("a", bytes)];
        let image = oci::Image {
            name: "requiem.dev/large:1".to_owned(),
            files,
            entrypoint: Vec::new(),
            user: USER.to_owned(),
            labels: Vec::new(),
        };
        let error = check_size(&image.pack().unwrap()).unwrap_err().to_string();
        assert!(error.contains("requiem.dev/large:1") && error.contains("at most 26214400"), "{error}");
    }

    #[test]
    fn a_difference_is_told_with_both_digests() {
        let built = |digest: &str| Built {
            name: "requiem.dev/a:1".to_owned(),
            digest: digest.to_owned(),
            archive: PathBuf::new(),
            size: 1,
        };
        let error = compare(&[built("sha256:1")], &[built("sha256:2")]).unwrap_err().to_string();
        assert!(error.contains("sha256:1 and sha256:2"), "{error}");
        assert!(compare(&[built("sha256:1")], &[built("sha256:1")]).is_ok());
    }
}
