//! Where a benchmark was taken: what makes two of them comparable, and nothing that changes by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;

use requiem_model::digest::{context, derive};
use requiem_model::{CanonError, EnvironmentDigest, SandboxReport, canon};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::CommandError;
use crate::text::{printable, word};

/// To how much memory is rounded, in MiB: the kernel keeps a little more or less for itself from boot to boot.
const MEMORY_STEP_MIB: u64 = 64;

/// The machine, as this process sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Environment {
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Architecture of the processor.
    pub(crate) arch: String,
    /// Model of the processor.
    pub(crate) processor: String,
    /// Processors that this process may use: affinity and quota of its cgroup counted in.
    pub(crate) processors: u64,
    /// Memory of the machine, to the nearest 64 MiB.
    pub(crate) memory_mib: u64,
    /// How processors choose their frequency, if the kernel says it; all that are in use, with commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) governor: Option<String>,
    /// Name and version of the engine that ran the command, like `requiem 0.1.0`.
    pub(crate) engine: String,
    /// Status of each layer of the sandbox.
    pub(crate) sandbox: BTreeMap<String, String>,
}

impl Environment {
    /// Looks at this machine; engine and sandbox are those of a run.
    ///
    /// # Errors
    /// `Environment`: the kernel does not say what it must; nothing is guessed, because equal guesses would look alike.
    pub(crate) fn here(engine: String, report: &SandboxReport) -> Result<Self, CommandError> {
        let cannot = |what: &str, why: String| {
            CommandError::unusable("Environment", format!("cannot tell {what}: {why}"), "mount /proc")
        };
        let read = |path: &str| fs::read_to_string(path).map_err(|error| cannot(path, error.to_string()));
        let memory = memory_kib(&read("/proc/meminfo")?)
            .ok_or_else(|| cannot("the memory", "/proc/meminfo has no MemTotal".to_owned()))?;
        let processors = thread::available_parallelism()
            .map_err(|error| cannot("the number of processors", error.to_string()))?;
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim_end().to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            processor: processor(&read("/proc/cpuinfo")?),
            processors: processors.get() as u64,
            memory_mib: (memory / 1024 + MEMORY_STEP_MIB / 2) / MEMORY_STEP_MIB * MEMORY_STEP_MIB,
            governor: governors(),
            engine,
            sandbox: layers(report),
        })
    }

    /// Equal exactly if every field is.
    pub(crate) fn digest(&self) -> Result<EnvironmentDigest, CanonError> {
        let bytes = canon::to_vec(self)?;
        Ok(EnvironmentDigest::from_bytes(derive(context::BENCH_ENVIRONMENT, &[&bytes])))
    }

    /// What differs, each with both values, like `kernel: 6.1 and 6.12`.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let (one, other) = (members(self), members(other));
        let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
        let value = |of: &BTreeMap<String, String>, name: &str| {
            of.get(name).map_or("unknown".to_owned(), |text| printable(text))
        };
        let differing = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
        differing
            .map(|name| format!("{}: {} and {}", printable(name), value(&one, name), value(&other, name)))
            .collect()
    }

    /// On one line, for people.
    pub(crate) fn line(&self) -> String {
        let governor = self.governor.as_ref().map_or(String::new(), |name| format!(", governor {name}"));
        let Self { kernel, arch, processor, processors, memory_mib, .. } = self;
        printable(&format!("Linux {kernel} {arch}, {processors} × {processor}, {memory_mib} MiB{governor}"))
    }
}

/// The status of each layer by its name.
pub(crate) fn layers(report: &SandboxReport) -> BTreeMap<String, String> {
    report.layers.iter().map(|row| (row.layer.name().to_owned(), word(&row.status))).collect()
}

/// Every fact by its name; those of layers by `sandbox NAME`.
fn members(environment: &Environment) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut found = BTreeMap::new();
    if let Ok(Value::Object(members)) = serde_json::to_value(environment) {
        for (name, value) in &members {
            match value {
                Value::Object(layers) => {
                    found.extend(
                        layers.iter().map(|(layer, status)| (format!("{name} {layer}"), text(status))),
                    );
                }
                fact => drop(found.insert(name.clone(), text(fact))),
            }
        }
    }
    found
}

/// The model in /proc/cpuinfo (proc_cpuinfo(5)): its name, or on Arm, where there is none, who made it and which part it is.
fn processor(cpuinfo: &str) -> String {
    let field = |name: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    let by_part = || Some(format!("implementer {} part {}", field("CPU implementer")?, field("CPU part")?));
    field("model name").or_else(by_part).unwrap_or_else(|| "unknown".to_owned())
}

/// `MemTotal` of /proc/meminfo (proc_meminfo(5)).
fn memory_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The scaling governors of all processors; nothing in machines that have none, as most virtual ones.
fn governors() -> Option<String> {
    let entries = fs::read_dir("/sys/devices/system/cpu").ok()?;
    let names = entries.flatten().filter_map(|entry| {
        let text = fs::read_to_string(entry.path().join("cpufreq/scaling_governor")).ok()?;
        Some(text.trim().to_owned())
    });
    let names: BTreeSet<String> = names.collect();
    (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join(","))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn some() -> Environment {
        Environment {
            kernel: "6.1.0".to_owned(),
            arch: "x86_64".to_owned(),
            processor: "Model 1".to_owned(),
            processors: 2,
            memory_mib: 8192,
            governor: None,
            engine: "requiem 0.1.0".to_owned(),
            sandbox: BTreeMap::from([("seccomp".to_owned(), "enforced".to_owned())]),
        }
    }

    #[test]
    fn every_fact_is_in_the_digest_and_in_the_differences() {
        let one = some();
        let check = |change: &dyn Fn(&mut Environment), expected: &str| {
            let mut other = some();
            change(&mut other);
            assert_ne!(one.digest(), other.digest(), "{expected}");
            assert_eq!(one.differences(&other), [expected]);
        };
        check(&|other| other.kernel = "6.12.0".to_owned(), "kernel: 6.1.0 and 6.12.0");
        check(&|other| other.arch = "aarch64".to_owned(), "arch: x86_64 and aarch64");
        check(&|other| other.processor = "Model\u{1b}2".to_owned(), "processor: Model 1 and Model\\u{1b}2");
        check(&|other| other.processors = 4, "processors: 2 and 4");
        check(&|other| other.memory_mib = 4096, "memory_mib: 8192 and 4096");
        check(&|other| other.governor = Some("powersave".to_owned()), "governor: unknown and powersave");
        check(&|other| other.engine = "requiem 0.2.0".to_owned(), "engine: requiem 0.1.0 and requiem 0.2.0");
        let partial =
            |other: &mut Environment| drop(other.sandbox.insert("seccomp".to_owned(), "partial".to_owned()));
        check(&partial, "sandbox seccomp: enforced and partial");
        assert_eq!((one.differences(&some()), one.digest()), (Vec::new(), some().digest()));
    }

    #[test]
    fn what_the_kernel_says_is_understood() {
        let intel = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: Some CPU @ 2.00GHz\n";
        let arm = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(processor(intel), "Some CPU @ 2.00GHz");
        assert_eq!(processor(arm), "implementer 0x41 part 0xd0c");
        assert_eq!(processor(""), "unknown");
        assert_eq!(memory_kib("MemTotal:        8131280 kB\nMemFree: 1 kB\n"), Some(8_131_280));
        assert_eq!((memory_kib(""), memory_kib("MemTotal: none")), (None, None));
    }
}
