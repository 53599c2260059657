//! The samples: what they need in the store, and what each says of its own end.
//!
//! A sample is one file of `config/samples`; the comment at its head says `Ends with: REASON` (or several), and the demo
//! holds it to that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::NAMESPACE;
use super::site::Site;
use crate::progress::Step;
use crate::{Error, Result, paths, process, real_input};

/// Files that are not applied with the rest: the pool is the demo's own, and one sample comes later, alone.
const OTHERS: [&str; 3] = ["pool.yaml", "kustomization.yaml", "records-again.yaml"];

/// One sample.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Name of its Execution, which is the file's.
    pub(crate) name: String,
    file: PathBuf,
    /// Reasons that its comment promises; none for one that does not end by itself.
    pub(crate) endings: Vec<String>,
}

/// Reads the samples and puts what they need into the executor's store.
pub(crate) fn prepare(site: &Site) -> Result<Vec<Sample>> {
    let folder = paths::repository().join("config/samples");
    let mut samples = read_folder(&folder)?;
    samples.extend(read_folder(&folder.join("real"))?);
    for input in [real_input::sqlite(site.folder())?, real_input::records(site.folder())?] {
        put(site, &samples, &input)?;
    }
    Ok(samples)
}

/// The samples that need nothing in the store.
pub(crate) fn without_inputs() -> Result<Vec<Sample>> {
    read_folder(&paths::repository().join("config/samples"))
}

/// The sample that is applied alone, when the store is warm.
pub(crate) fn records_again() -> PathBuf {
    paths::repository().join("config/samples/real/records-again.yaml")
}

/// Applies all at once.
pub(crate) fn apply(site: &Site, samples: &[Sample]) -> Result<()> {
    let files: Vec<String> = samples.iter().map(|sample| sample.file.display().to_string()).collect();
    let mut arguments = vec!["apply", "--server-side"];
    files.iter().for_each(|file| arguments.extend(["--filename", file]));
    site.kubectl(&arguments)?;
    Ok(())
}

/// Waits until each has ended; then `kubectl wait` on the condition that its kind of end promises.
pub(crate) fn wait(site: &Site, samples: &[Sample]) -> Result<()> {
    let step = Step::begin("wait for the samples (two of them build SQLite)");
    let ending: Vec<&Sample> = samples.iter().filter(|sample| !sample.endings.is_empty()).collect();
    wait_for(site, "--for=jsonpath={.status.terminal}=true", &ending)?;
    let (good, bad): (Vec<_>, Vec<_>) =
        ending.into_iter().partition(|sample| sample.endings == ["Succeeded"]);
    wait_for(site, "--for=condition=Succeeded", &good)?;
    wait_for(site, "--for=condition=Succeeded=False", &bad)?;
    step.done();
    Ok(())
}

fn wait_for(site: &Site, what: &str, samples: &[&Sample]) -> Result<()> {
    let names: Vec<String> = samples.iter().map(|sample| format!("execution/{}", sample.name)).collect();
    let mut arguments = vec!["wait", what, "--timeout=300s"];
    arguments.extend(names.iter().map(String::as_str));
    site.kubectl(&arguments)?;
    Ok(())
}

fn read_folder(folder: &Path) -> Result<Vec<Sample>> {
    let doing = || Error::io(format!("read {}", folder.display()));
    let mut samples = Vec::new();
    for entry in fs::read_dir(folder).map_err(doing())? {
        let file = entry.map_err(doing())?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let Some(stem) = name.strip_suffix(".yaml").filter(|_| !OTHERS.contains(&name.as_str())) else {
            continue;
        };
        let text = fs::read_to_string(&file).map_err(doing())?;
        samples.push(Sample { name: stem.to_owned(), endings: endings(&text), file });
    }
    samples.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(samples)
}

/// The reasons after `Ends with:`, up to the end of the clause.
fn endings(text: &str) -> Vec<String> {
    let comment: Vec<&str> = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim).collect();
    let comment = comment.join(" ");
    let Some((_, promise)) = comment.split_once("Ends with:") else { return Vec::new() };
    let clause = promise.split([';', '.']).next().unwrap_or_default();
    let words = clause.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase())).map(str::to_owned).collect()
}

/// Puts `input` into the store and checks that some sample names the digest it got.
fn put(site: &Site, samples: &[Sample], input: &Path) -> Result<()> {
    let mut command = Command::new(site.program("requiem"));
    command.args(["--json", "cas", "put", "--tenant", NAMESPACE]).arg(input);
    command.args(site.store().into_iter().flat_map(|store| [Path::new("--cas"), store]));
    let answer: serde_json::Value = serde_json::from_str(&process::output(&mut command)?).unwrap_or_default();
    let digest = answer["digest"].as_str().unwrap_or_default();
    let named = |sample: &Sample| fs::read_to_string(&sample.file).is_ok_and(|text| text.contains(digest));
    if !digest.is_empty() && samples.iter().any(named) {
        return Ok(());
    }
    Err(Error::check(
        format!("{} has digest {digest:?} in the store, and no sample names it", input.display()),
        "If what the sample builds was meant to change, write the new digest into it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_says_how_it_ends() {
        let check = |text: &str, reasons: &[&str]| assert_eq!(endings(text), reasons, "{text}");
        check("# Ends with: Succeeded; stdout is sorted.\nkind: X", &["Succeeded"]);
        check(
            "# Bomb.\n# Ends with: TimedOut, or NonZeroExit where the shell gives up.\n",
            &["TimedOut", "NonZeroExit"],
        );
        check("# Fails. Ends with: NonZeroExit, exit 3; the text\n", &["NonZeroExit"]);
        check("# Waits.\nkind: X # Ends with: Nothing\n", &[]);
    }

    #[test]
    fn every_sample_of_the_repository_is_read() {
        let folder = paths::repository().join("config/samples");
        let real = read_folder(&folder.join("real")).unwrap();
        assert_eq!(real.len(), 3);
        assert!(real.iter().all(|sample| sample.endings == ["Succeeded"]));
        assert!(read_folder(&folder).unwrap().iter().any(|sample| sample.endings == ["NonZeroExit"]));
    }
}
