//! `requiem drift analyze`: two results or bundles, or two folders of them, item by item. Each is judged before it is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use requiem_model::ExecutionRoot;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::proof_generate::{MAX_RESULT_BYTES, result_of};
use crate::arguments::DriftAnalyze;
use crate::divergence::{Difference, of_execution, of_sandbox};
use crate::error::CommandError;
use crate::proof_input::{self, Bundle};
use crate::report::Report;
use crate::text::{indented, printable, table};
use crate::{schema, store};

/// What came of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Drift {
    ok: bool,
    pairs: Vec<Pair>,
    /// Files without a partner of the same name.
    only_in_a: Vec<String>,
    only_in_b: Vec<String>,
    /// JSON files in the folders that are neither a result nor a bundle.
    passed_over: Vec<String>,
}

/// Two runs that were compared.
#[derive(Serialize, JsonSchema)]
pub(super) struct Pair {
    name: String,
    agrees: bool,
    #[schemars(schema_with = "schema::digest")]
    execution_root_a: ExecutionRoot,
    #[schemars(schema_with = "schema::digest")]
    execution_root_b: ExecutionRoot,
    differences: Vec<Difference>,
}

/// The results and bundles of one side, by name.
#[derive(Default)]
struct Side {
    bundles: BTreeMap<String, Bundle>,
    passed_over: BTreeSet<String>,
}

/// Runs the command. Exit code 1 if anything differs, or has no partner.
pub(crate) fn run(arguments: &DriftAnalyze) -> Result<Report, CommandError> {
    let DriftAnalyze { a, b } = arguments;
    let drift = match (a.is_dir(), b.is_dir()) {
        (true, true) => folders(Side::read(a)?, Side::read(b)?),
        (false, false) => {
            let name = a.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let pair = pair(name, &one(a)?, &one(b)?);
            Drift::of(vec![pair], Vec::new(), Vec::new(), Vec::new())
        }
        _ => {
            let message =
                format!("one of {} and {} is a folder, and the other is not", a.display(), b.display());
            return Err(CommandError::unusable("Usage", message, "give two files, or two folders"));
        }
    };
    if drift.pairs.is_empty() && drift.only_in_a.is_empty() && drift.only_in_b.is_empty() {
        let message = "there is no result and no bundle in either folder";
        return Err(CommandError::unusable(
            "NothingToCompare",
            message,
            "give folders of what exec run --out wrote",
        ));
    }
    let text = text(&drift);
    Ok(Report::new(&drift, text, drift.ok))
}

impl Side {
    fn read(folder: &Path) -> Result<Self, CommandError> {
        let failed = |error| store::cannot("read", folder, &error);
        let mut side = Self::default();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path: PathBuf = entry.map_err(failed)?.path();
            if !path.is_file() || path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match read(&path)? {
                Some(bundle) => drop(side.bundles.insert(name, bundle)),
                None => drop(side.passed_over.insert(name)),
            }
        }
        Ok(side)
    }
}

fn one(path: &Path) -> Result<Bundle, CommandError> {
    read(path)?.ok_or_else(|| {
        let message = format!("{} is neither the result of a run nor a bundle", path.display());
        CommandError::unusable(
            "E_SHAPE",
            message,
            "give what exec run --out or --proof wrote, or a ProofBundle",
        )
    })
}

/// The bundle in a file, if it claims to have one: such a file that is refused is an error.
fn read(path: &Path) -> Result<Option<Bundle>, CommandError> {
    let content = store::read(path, MAX_RESULT_BYTES)?;
    let Ok(Value::Object(members)) = serde_json::from_slice(&content) else { return Ok(None) };
    if members.contains_key("proof_body") {
        return result_of(&content, path).map(Some);
    }
    let is_bundle =
        members.contains_key("body") || members.get("kind").is_some_and(|kind| kind == "ProofBundle");
    if !is_bundle {
        return Ok(None);
    }
    proof_input::whole(proof_input::parse(&content)?, &path.display().to_string()).map(Some)
}

fn folders(a: Side, b: Side) -> Drift {
    let only = |one: &Side, other: &Side| -> Vec<String> {
        one.bundles.keys().filter(|name| !other.bundles.contains_key(*name)).cloned().collect()
    };
    let (only_in_a, only_in_b) = (only(&a, &b), only(&b, &a));
    let pairs =
        a.bundles.iter().filter_map(|(name, one)| Some(pair(name.clone(), one, b.bundles.get(name)?)));
    let passed_over = a.passed_over.union(&b.passed_over).cloned().collect();
    Drift::of(pairs.collect(), only_in_a, only_in_b, passed_over)
}

/// Two runs beside one another.
pub(crate) fn compare(name: String, a: &Bundle, b: &Bundle) -> Report {
    let drift = Drift::of(vec![pair(name, a, b)], Vec::new(), Vec::new(), Vec::new());
    let text = text(&drift);
    Report::new(&drift, text, drift.ok)
}

fn pair(name: String, a: &Bundle, b: &Bundle) -> Pair {
    let (a, b) = (&a.verified, &b.verified);
    let mut differences = of_execution(a, b);
    differences.extend(of_sandbox(&a.body.run.sandbox, &b.body.run.sandbox));
    Pair {
        name,
        agrees: differences.is_empty(),
        execution_root_a: a.execution_root,
        execution_root_b: b.execution_root,
        differences,
    }
}

impl Drift {
    fn of(
        pairs: Vec<Pair>,
        only_in_a: Vec<String>,
        only_in_b: Vec<String>,
        passed_over: Vec<String>,
    ) -> Self {
        let ok = only_in_a.is_empty() && only_in_b.is_empty() && pairs.iter().all(|pair| pair.agrees);
        Self { ok, pairs, only_in_a, only_in_b, passed_over }
    }
}

fn text(drift: &Drift) -> String {
    let drifted = drift.pairs.iter().filter(|pair| !pair.agrees).count();
    let mut out = format!("{} compared, {drifted} drifted\n", drift.pairs.len());
    for pair in &drift.pairs {
        let verdict = if pair.agrees { "agrees" } else { "drifts" };
        out.push_str(&format!("{}: {verdict}\n", printable(&pair.name)));
        let rows: Vec<[String; 3]> = pair
            .differences
            .iter()
            .map(|Difference { item, one, other }| [printable(item), one.clone(), other.clone()])
            .collect();
        out.push_str(&indented(&table(&rows)));
    }
    for (title, names) in [
        ("only in A", &drift.only_in_a),
        ("only in B", &drift.only_in_b),
        ("passed over, neither a result nor a bundle", &drift.passed_over),
    ] {
        for name in names {
            out.push_str(&format!("{title}: {}\n", printable(name)));
        }
    }
    out
}
