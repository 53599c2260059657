//! `cargo xtask bench proof`: building trees beside bare BLAKE3, the largest bundle sealed and verified, and `requiem proof verify`
//! from its start to its verdict beside the start of a program that does nothing.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use requiem_benches::{Environment, Failure, Figure, Report, Samples, finish};
use requiem_model::digest::context::EXECUTION_ROOT;
use requiem_model::result::{Output, OutputContent};
use requiem_model::{BlobDigest, RelPath};
use requiem_proof::tree::{Leaf, MAX_LEAVES, Tree};
use requiem_proof::{BundleBody, Expect, Sealed, seal, verify};
use requiem_xtask::suites::PROGRAMS_VARIABLE;

const ROUNDS: usize = 200;
const WARM_UP: usize = 20;
/// Most outputs that a request may declare.
const OUTPUTS: usize = 256;

fn main() -> ExitCode {
    finish("proof", run())
}

fn run() -> Result<Report, Failure> {
    let body = largest_body()?;
    let sealed = seal(&body)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("proof.json");
    std::fs::write(&file, sealed.to_file()?)?;
    let requiem = requiem()?;
    let leaves = leaves();
    let (mut trees, mut bare) = (Vec::new(), Vec::new());
    let [mut sealing, mut verifying, mut parsing, mut starting, mut nothing] =
        [(); 5].map(|()| Samples::default());
    for round in 0..WARM_UP + ROUNDS {
        let tree = rate(&leaves, building)?;
        let limit = rate(&leaves, hashing)?;
        let samples = [
            timed(|| seal(&body).map(drop))?,
            timed(|| checked(&sealed))?,
            timed(|| serde_json::from_str::<serde_json::Value>(&sealed.body).map(drop))?,
            spawned(Command::new(&requiem).args(["proof", "verify"]).arg(&file))?,
            spawned(&mut Command::new("/bin/true"))?,
        ];
        if round < WARM_UP {
            continue;
        }
        trees.push(tree);
        bare.push(limit);
        let into = [&mut sealing, &mut verifying, &mut parsing, &mut starting, &mut nothing];
        into.into_iter().zip(samples).for_each(|(into, sample)| into.push(sample));
    }
    Ok(Report {
        environment: Environment::read(vec![
            format!("tree: {MAX_LEAVES} leaves (the most of one tree) of {} bytes, one thread", leaves[0].body.len()),
            "bare BLAKE3: the same bytes hashed one by one with hashers set up once, and 64 bytes for each node; no tree".to_owned(),
            format!(
                "largest bundle: {OUTPUTS} outputs, the most that a request may declare, {} bytes; 10,000 outputs do not fit the \
                 format (an output may be a folder of 100,000 files)",
                sealed.body.len()
            ),
            "start to verdict: a new process each time, the file in the page cache".to_owned(),
        ]),
        figures: vec![
            Figure::scalar("leaves per second, tree built", "M/s", &trees, "bare BLAKE3, same bytes", &bare),
            Figure::latency("largest bundle sealed (and verified in it)", &sealing, "serde_json parse of its body", &parsing),
            Figure::latency("largest bundle verified", &verifying, "serde_json parse of its body", &parsing),
            Figure::latency("requiem proof verify, start to verdict", &starting, "bare spawn of /bin/true", &nothing),
        ],
    })
}

/// The good bundle of the vectors, with as many outputs as there may be.
fn largest_body() -> Result<BundleBody, Failure> {
    let vector = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/proof/tests/vectors/bundle.json");
    let vector: serde_json::Value = serde_json::from_slice(&std::fs::read(vector)?)?;
    let mut body: BundleBody =
        serde_json::from_str(vector["body"].as_str().ok_or("the vector has no body")?)?;
    let paths = (0..OUTPUTS)
        .map(|index| RelPath::parse(&format!("out/{index:05}.bin")))
        .collect::<Result<Vec<_>, _>>()?;
    body.execution.result.missing_outputs.clear();
    body.execution.result.outputs = paths
        .iter()
        .map(|path| {
            let digest = BlobDigest::of(path.as_str().as_bytes());
            Output {
                path: path.clone(),
                content: OutputContent::Blob { digest, bytes: 1 << 20, executable: false },
            }
        })
        .collect();
    body.execution.request.outputs = paths;
    Ok(body)
}

/// As many leaves as a tree may have, of the size of an output's leaf.
fn leaves() -> Vec<Leaf> {
    let body = format!(
        r#"{{"bytes":1048576,"digest":"{}","executable":false,"kind":"blob"}}"#,
        BlobDigest::of(b"x")
    );
    (0..MAX_LEAVES)
        .map(|index| Leaf { tag: format!("20/output/out/{index:05}.bin"), body: body.clone().into_bytes() })
        .collect()
}

/// Millions of leaves per second.
fn rate(leaves: &[Leaf], work: impl Fn(&[Leaf]) -> Result<(), Failure>) -> Result<f64, Failure> {
    let begun = Instant::now();
    work(black_box(leaves))?;
    Ok(leaves.len() as f64 / begun.elapsed().as_secs_f64() / 1e6)
}

fn building(leaves: &[Leaf]) -> Result<(), Failure> {
    black_box(Tree::build(leaves)?.root(EXECUTION_ROOT));
    Ok(())
}

fn hashing(leaves: &[Leaf]) -> Result<(), Failure> {
    let mut hasher = blake3::Hasher::new_derive_key("bench");
    for leaf in leaves {
        black_box(hasher.reset().update(leaf.tag.as_bytes()).update(&leaf.body).finalize());
    }
    for _node in 1..leaves.len() {
        black_box(hasher.reset().update(black_box(&[7; 64])).finalize());
    }
    Ok(())
}

fn checked(sealed: &Sealed) -> Result<(), requiem_proof::VerifyError> {
    let expect = Expect {
        execution_root: Some(sealed.execution_root),
        bundle_root: Some(sealed.bundle_root),
        ..Expect::default()
    };
    verify(&sealed.body, &expect).map(drop)
}

fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> Result<std::time::Duration, E> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

fn spawned(command: &mut Command) -> Result<std::time::Duration, Failure> {
    let begun = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let took = begun.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{command:?} ended with {status}").into()) }
}

fn requiem() -> Result<PathBuf, Failure> {
    let programs = std::env::var_os(PROGRAMS_VARIABLE).ok_or("run this with `cargo xtask bench proof`")?;
    Ok(PathBuf::from(programs).join("requiem"))
}
