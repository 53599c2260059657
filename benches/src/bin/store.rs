//! `cargo xtask bench store`: putting, getting, verifying and counting, each beside a program or a plain file operation that does the
//! least of the same work. Everything is read from the page cache; what is synced is said.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use requiem_benches::{Environment, Failure, Figure, Report, Samples, finish};
use requiem_cas::{Durability, Store, Tenant, TenantStore};
use requiem_model::BlobDigest;
use requiem_xtask::suites::PROGRAMS_VARIABLE;

const ROUNDS: usize = 5;
const GIB: u64 = 1 << 30;
const MIB: usize = 1 << 20;
const SMALL: u32 = 5_000;
const SMALL_BYTES: usize = 4096;
/// Objects of the store that is counted; half of them compressed.
const COUNTED: u32 = 100_000;

fn main() -> ExitCode {
    finish("store", run())
}

fn run() -> Result<Report, Failure> {
    let b3sum = version_of_b3sum()?;
    let folder = tempfile::tempdir()?;
    let bench = Bench { folder: folder.path(), requiem: requiem()? };
    let mut figures = bench.one_gibibyte()?;
    figures.extend(bench.many_mebibytes()?);
    figures.extend(bench.small_objects()?);
    figures.push(bench.counting()?);
    let notes = vec![
        format!(
            "peer: {b3sum}, with its own threads and memory maps; cp and sync of coreutils, find of findutils"
        ),
        "put of 1 GiB is strict: content, name and folders are synced; its peer syncs the copy as well"
            .to_owned(),
        format!(
            "small objects: {SMALL} of {SMALL_BYTES} bytes that do not compress, one thread, in this process, nothing synced"
        ),
        format!(
            "counting: {COUNTED} objects in 256 folders, half of them compressed, so that their frames' headers are read; inodes cached"
        ),
    ];
    Ok(Report { environment: Environment::read(notes), figures })
}

struct Bench<'a> {
    folder: &'a Path,
    requiem: PathBuf,
}

impl Bench<'_> {
    /// One object of 1 GiB: put, get and verify by the command line.
    fn one_gibibyte(&self) -> Result<Vec<Figure>, Failure> {
        let (source, copy, store) = (self.path("source"), self.path("copy"), self.path("large"));
        write_noise(&source, GIB)?;
        let [mut put, mut copied, mut got, mut verified, mut hashed] = [(); 5].map(|()| Samples::default());
        let digest = BlobDigest::from_bytes(
            *blake3::Hasher::new().update_reader(File::open(&source)?)?.finalize().as_bytes(),
        );
        for _ in 0..ROUNDS {
            let _absent = fs::remove_dir_all(&store);
            put.push(spawned(&mut self.cas(&store, ["put".as_ref(), source.as_ref()]))?);
            let _absent = fs::remove_file(&copy);
            copied.push(shell(
                r#"cp --reflink=never "$0" "$1" && sync "$1" "$(dirname "$1")" && b3sum "$1""#,
                &[&source, &copy],
            )?);
            got.push(spawned(&mut self.cas(&store, ["get".as_ref(), digest.to_string().as_ref()]))?);
            verified.push(spawned(&mut self.cas(&store, ["verify".as_ref(), "--all".as_ref()]))?);
            hashed.push(spawned(Command::new("b3sum").arg(object(&store, &digest)))?);
        }
        [&source, &copy].into_iter().try_for_each(fs::remove_file)?;
        fs::remove_dir_all(&store)?;
        Ok(vec![
            Figure::latency("put 1 GiB, synced", &put, "cp, sync and b3sum of the copy", &copied),
            Figure::latency("get 1 GiB, verified", &got, "b3sum of the same file", &hashed),
            Figure::latency("verify --all, 1 object of 1 GiB", &verified, "b3sum of the same file", &hashed),
        ])
    }

    /// 1024 objects of 1 MiB, verified by the command line.
    fn many_mebibytes(&self) -> Result<Vec<Figure>, Failure> {
        let store = self.path("many");
        let objects = open(&store)?;
        for seed in 0..1024 {
            objects.put_bytes(&noise(seed, MIB), Durability::Volatile)?;
        }
        drop(objects);
        let [mut verified, mut hashed] = [(); 2].map(|()| Samples::default());
        let files = store.join("tenants/default/objects");
        for _ in 0..ROUNDS {
            verified.push(spawned(&mut self.cas(&store, ["verify".as_ref(), "--all".as_ref()]))?);
            hashed.push(shell(r#"exec b3sum "$0"/*/*"#, &[&files])?);
        }
        fs::remove_dir_all(&store)?;
        Ok(vec![Figure::latency(
            "verify --all, 1024 objects of 1 MiB",
            &verified,
            "b3sum of the same files",
            &hashed,
        )])
    }

    /// Small objects, put and got in this process.
    fn small_objects(&self) -> Result<Vec<Figure>, Failure> {
        let contents: Vec<Vec<u8>> = (0..SMALL).map(|seed| noise(seed, SMALL_BYTES)).collect();
        let [mut put, mut written, mut got, mut read] = [(); 4].map(|()| Vec::new());
        for round in 0..ROUNDS {
            let (store, plain) = (self.path(&format!("small-{round}")), self.path(&format!("plain-{round}")));
            let objects = open(&store)?;
            put.push(rate(|| {
                contents
                    .iter()
                    .try_for_each(|content| objects.put_bytes(content, Durability::Volatile).map(drop))
            })?);
            let digests: Vec<_> = contents.iter().map(|content| BlobDigest::of(content)).collect();
            // Another handle: nothing is known of these objects.
            let objects = open(&store)?;
            got.push(rate(|| {
                digests.iter().try_for_each(|digest| objects.get_bytes(digest, MIB as u64).map(drop))
            })?);
            let names: Vec<PathBuf> =
                (0..SMALL).map(|number| plain.join(format!("{:02x}/{number}", number % 256))).collect();
            (0..256).try_for_each(|byte| fs::create_dir_all(plain.join(format!("{byte:02x}"))))?;
            written.push(rate(|| {
                names.iter().zip(&contents).try_for_each(|(name, content)| fs::write(name, content))
            })?);
            read.push(rate(|| names.iter().try_for_each(|name| fs::read(name).map(drop)))?);
            drop(objects);
            fs::remove_dir_all(&store)?;
            fs::remove_dir_all(&plain)?;
        }
        Ok(vec![
            Figure::scalar("put 4 KiB, not synced", "1/s", &put, "plain files written, not hashed", &written),
            Figure::scalar("get 4 KiB, verified", "1/s", &got, "plain files read, not hashed", &read),
        ])
    }

    /// `cas stats` of many objects.
    fn counting(&self) -> Result<Figure, Failure> {
        let store = self.path("counted");
        let objects = open(&store)?;
        let fill = |first: u32| -> Result<(), Failure> {
            for seed in (first..COUNTED).step_by(2) {
                let content = if seed % 4 < 2 {
                    noise(seed, 100)
                } else {
                    format!("line {seed}\n").repeat(20).into_bytes()
                };
                objects.put_bytes(&content, Durability::Volatile)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let threads = [0, 1].map(|first| scope.spawn(move || fill(first)));
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        drop(objects);
        let [mut counted, mut found] = [(); 2].map(|()| Samples::default());
        let files = store.join("tenants/default/objects");
        for _ in 0..ROUNDS {
            counted
                .push(spawned(&mut self.cas(&store, ["stats".as_ref(), "--top".as_ref(), "10".as_ref()]))?);
            found.push(spawned(Command::new("find").arg(&files).args(["-type", "f", "-printf", "%s\n"]))?);
        }
        fs::remove_dir_all(&store)?;
        Ok(Figure::latency("stats, 100,000 objects", &counted, "find -printf %s of the same files", &found))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A command of `requiem cas` on that store.
    fn cas<const N: usize>(&self, store: &Path, arguments: [&OsStr; N]) -> Command {
        let mut command = Command::new(&self.requiem);
        command.arg("cas").args(arguments).arg("--cas").arg(store);
        command
    }
}

fn open(store: &Path) -> Result<TenantStore, Failure> {
    Ok(Store::open(store)?.tenant(&Tenant::default())?)
}

fn object(store: &Path, digest: &BlobDigest) -> PathBuf {
    let hex = digest.to_hex();
    store.join("tenants/default/objects").join(&hex[..2]).join(hex)
}

/// Bytes that do not compress and differ by seed.
fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut content);
    content
}

fn write_noise(path: &Path, bytes: u64) -> Result<(), Failure> {
    let mut file = File::create(path)?;
    let chunks = u32::try_from(bytes / MIB as u64)?;
    (0..chunks).try_for_each(|seed| file.write_all(&noise(seed, MIB)))?;
    Ok(file.sync_all()?)
}

/// Operations per second.
fn rate<E>(work: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
    let begun = Instant::now();
    work()?;
    Ok(f64::from(SMALL) / begun.elapsed().as_secs_f64())
}

fn shell(script: &str, arguments: &[&Path]) -> Result<Duration, Failure> {
    spawned(Command::new("sh").args(["-euc", script]).args(arguments))
}

fn spawned(command: &mut Command) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let took = begun.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{command:?} ended with {status}").into()) }
}

fn requiem() -> Result<PathBuf, Failure> {
    let programs = std::env::var_os(PROGRAMS_VARIABLE).ok_or("run this with `cargo xtask bench store`")?;
    Ok(PathBuf::from(programs).join("requiem"))
}

fn version_of_b3sum() -> Result<String, Failure> {
    let missing =
        "b3sum is not installed; install it with your package manager, for example `apt-get install b3sum`";
    let output = Command::new("b3sum").arg("--version").output().map_err(|_| missing)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
