//! What GitOps clients say of an object: kstatus (Flux and Helm), Flux's healthCheckExprs, and Argo CD's Lua, by code
//! that we did not write, with the expressions and scripts of `config/gitops`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use requiem_xtask::tools;
use serde_json::Value;

/// What the three say.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
pub(crate) struct Said {
    pub(crate) kstatus: String,
    pub(crate) flux: String,
    pub(crate) argo: String,
}

impl Said {
    pub(crate) fn of(kstatus: &str, flux: &str, argo: &str) -> Self {
        Self { kstatus: kstatus.into(), flux: flux.into(), argo: argo.into() }
    }
}

pub(crate) fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/gitops")
}

/// Asks all three about each of `objects`.
pub(crate) fn ask(objects: &[Value]) -> Vec<Said> {
    let program = tools::ensure(&tools::JUDGE).unwrap().join("judge");
    let (flux, argo) = (config().join("flux/kustomization.yaml"), config().join("argocd"));
    let kstatus = answers(Command::new(&program).arg("kstatus"), objects);
    let flux = answers(Command::new(&program).arg("cel").arg(flux), objects);
    let argo = answers(Command::new(&program).arg("lua").arg(argo), objects);
    let rows = kstatus.into_iter().zip(flux).zip(argo);
    rows.map(|((kstatus, flux), argo)| Said { kstatus, flux, argo }).collect()
}

fn answers(command: &mut Command, objects: &[Value]) -> Vec<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: Vec<String> = objects.iter().map(|object| format!("{object}\n")).collect();
    let writer =
        std::thread::spawn(move || lines.iter().try_for_each(|line| stdin.write_all(line.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?} failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(words.len(), objects.len(), "{command:?} left some out");
    words
}
