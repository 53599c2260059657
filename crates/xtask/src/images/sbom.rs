//! The bill of materials of an image: CycloneDX 1.5, JSON.
//!
//! It lists what is linked into the image's programs: crates of `Cargo.lock` that `cargo metadata` reaches by ordinary dependencies
//! on this platform, with their checksums, and the C library and the standard library, which no lock file names. What only builds
//! (build scripts, procedural macros, tests) is not in the image and not on the bill. No serial number and no time: equal source
//! and tools give an equal bill.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Recipe;
use crate::{Error, Result, cargo, process};

/// What is known of the source of all images.
#[derive(Debug)]
pub struct Source {
    metadata: Value,
    /// SHA-256 of each crate's package, by name and version.
    checksums: BTreeMap<(String, String), String>,
    /// What no lock file names: name, version, licence.
    system: Vec<(&'static str, String, &'static str)>,
}

impl Source {
    /// Asks cargo and the tool chain.
    ///
    /// # Errors
    /// The workspace cannot be read.
    pub fn read(repository: &Path) -> Result<Self> {
        let triple = cargo::triple();
        let mut command = cargo::command(&["metadata", "--format-version", "1", "--locked"]);
        command.args(["--filter-platform", &triple]).current_dir(repository);
        let text = process::output(&mut command)?;
        let metadata = serde_json::from_str(&text).map_err(|error| {
            Error::check(format!("`cargo metadata` cannot be read ({error})"), "Run it by hand")
        })?;
        let lock = repository.join("Cargo.lock");
        let lock = fs::read_to_string(&lock).map_err(Error::io(format!("read {}", lock.display())))?;
        let rust = process::output(Command::new("rustc").arg("--version"))?;
        let libc = process::output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
        let second = |text: &str| text.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let system = vec![
            ("rust-std", second(&rust), "MIT OR Apache-2.0"),
            ("glibc", second(&libc), "LGPL-2.1-or-later"),
        ];
        Ok(Self { metadata, checksums: checksums(&lock), system })
    }

    /// The bill of the image `name`.
    ///
    /// # Errors
    /// A program of the recipe belongs to no package.
    pub fn bill(&self, name: &str, recipe: &Recipe) -> Result<Value> {
        let roots = recipe.programs.iter().map(|program| self.package_of(program));
        let roots = roots.collect::<Result<BTreeSet<_>>>()?;
        let reached = self.reach(roots.iter().copied());
        let mut components: Vec<Value> = reached.iter().filter_map(|id| self.component(id)).collect();
        components.extend(self.system.iter().map(|(name, version, licence)| {
            json!({
                "type": "library", "bom-ref": format!("system:{name}"), "name": name, "version": version,
                "licenses": [{"expression": licence}],
            })
        }));
        let system = self.system.iter().map(|(name, ..)| format!("system:{name}"));
        let all = roots.iter().filter_map(|id| self.reference(id)).chain(system).collect::<Vec<_>>();
        let mut edges = vec![json!({"ref": name, "dependsOn": all})];
        edges.extend(reached.iter().filter_map(|id| {
            let below = self.linked(id).filter_map(|id| self.reference(id)).collect::<BTreeSet<_>>();
            Some(json!({"ref": self.reference(id)?, "dependsOn": below}))
        }));
        Ok(json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": {
                "type": "container", "bom-ref": name, "name": name.rsplit_once(':').map_or(name, |(name, _)| name),
                "version": env!("CARGO_PKG_VERSION"),
            }},
            "components": components,
            "dependencies": edges,
        }))
    }

    /// The package that has `program`.
    fn package_of(&self, program: &str) -> Result<&str> {
        let has = |package: &&Value| {
            array(&package["targets"])
                .any(|target| target["name"] == program && array(&target["kind"]).any(|kind| kind == "bin"))
        };
        let found = array(&self.metadata["packages"]).find(has).and_then(|package| package["id"].as_str());
        found.ok_or_else(|| {
            Error::check(format!("No package of the workspace has a program {program}"), "Correct the recipe")
        })
    }

    fn reach<'a>(&'a self, roots: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let mut waiting: Vec<&str> = roots.collect();
        let mut reached = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if reached.insert(id) {
                waiting.extend(self.linked(id));
            }
        }
        reached
    }

    /// What is linked into package `id`: ordinary dependencies that are libraries.
    fn linked<'a>(&'a self, id: &str) -> impl Iterator<Item = &'a str> {
        let node = array(&self.metadata["resolve"]["nodes"]).find(|node| node["id"] == id);
        let dependencies = node.map(|node| array(&node["deps"])).into_iter().flatten();
        let ordinary =
            |dependency: &&Value| array(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
        dependencies
            .filter(ordinary)
            .filter_map(|dependency| dependency["pkg"].as_str())
            .filter(|id| !self.only_builds(id))
    }

    fn only_builds(&self, id: &str) -> bool {
        let macros = |target: &Value| array(&target["kind"]).any(|kind| kind == "proc-macro");
        self.package(id).is_some_and(|package| array(&package["targets"]).any(macros))
    }

    fn package(&self, id: &str) -> Option<&Value> {
        array(&self.metadata["packages"]).find(|package| package["id"] == id)
    }

    fn reference(&self, id: &str) -> Option<String> {
        let package = self.package(id)?;
        Some(format!("pkg:cargo/{}@{}", package["name"].as_str()?, package["version"].as_str()?))
    }

    fn component(&self, id: &str) -> Option<Value> {
        let package = self.package(id)?;
        let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
        let reference = self.reference(id)?;
        let mut component = json!({
            "type": "library", "bom-ref": reference, "purl": reference, "name": name, "version": version,
        });
        if let Some(licence) = package["license"].as_str() {
            // Crates from before SPDX expressions separate alternatives by a slash.
            component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
        }
        if let Some(checksum) = self.checksums.get(&(name.to_owned(), version.to_owned())) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
        }
        Some(component)
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Reads the checksums of a lock file: its sections of packages are lines of `key = "value"`.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let sections = lock.split("[[package]]").skip(1);
    let value = |section: &str, key: &str| {
        let line = section.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        line.and_then(|rest| rest.strip_suffix('"')).map(str::to_owned)
    };
    sections
        .filter_map(|section| {
            Some(((value(section, "name")?, value(section, "version")?), value(section, "checksum")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::RECIPES;
    use crate::paths;

    fn names(bill: &Value) -> BTreeSet<String> {
        array(&bill["components"])
            .filter_map(|component| Some(component["name"].as_str()?.to_owned()))
            .collect()
    }

    #[test]
    fn a_bill_lists_what_is_linked_and_nothing_else() {
        let source = Source::read(&paths::repository()).unwrap();
        let bills = RECIPES.map(|recipe| source.bill("requiem.dev/x:1", &recipe).unwrap());
        let [operator, executor, cli] = [&bills[0], &bills[1], &bills[2]].map(names);
        assert!(operator.contains("kube") && operator.contains("glibc") && operator.contains("rust-std"));
        assert!(!operator.contains("zstd-sys"), "the operator has no store");
        assert!(executor.contains("zstd-sys") && executor.contains("seccompiler"));
        assert!(!executor.contains("kube"), "the executor knows nothing of Kubernetes");
        for bill in [&operator, &executor, &cli] {
            for only_builds in ["cc", "serde_derive", "clap_derive", "proptest", "insta"] {
                assert!(!bill.contains(only_builds), "{only_builds} is in no program");
            }
        }
    }

    #[test]
    fn every_crate_from_outside_has_its_checksum_and_every_edge_a_component() {
        let source = Source::read(&paths::repository()).unwrap();
        for recipe in &RECIPES {
            let bill = source.bill("requiem.dev/x:1", recipe).unwrap();
            let mut known = BTreeSet::from(["requiem.dev/x:1"]);
            for component in array(&bill["components"]) {
                let name = component["name"].as_str().unwrap();
                let ours = name.starts_with("requiem-") || component["purl"].is_null();
                assert_eq!(component["hashes"].is_null(), ours, "{component}");
                assert!(component["licenses"].is_array(), "{component}");
                known.insert(component["bom-ref"].as_str().unwrap());
            }
            for edge in array(&bill["dependencies"]) {
                let ends = array(&edge["dependsOn"]).chain([&edge["ref"]]);
                ends.for_each(|end| assert!(known.contains(end.as_str().unwrap()), "{end}"));
            }
        }
    }

    #[test]
    fn a_lock_file_gives_its_checksums() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"ff\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\ndependencies = [\n \"a\",\n]\n";
        let found = checksums(lock);
        assert_eq!(found.len(), 1);
        assert_eq!(found[&("a".to_owned(), "1.0.0".to_owned())], "ff");
    }
}
