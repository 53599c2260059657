//! What is to be run. Every field of [`ExecutionRequest`] is in its digest; identity and time are not here.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, RequestDigest, TreeDigest, context, derive};
use crate::names::{EnvName, RelPath};
use crate::policy::{Limits, SandboxPolicy};
use crate::reference::EnvRef;
use crate::{CanonError, canon};

/// Most arguments, variables, inputs or outputs of one request.
pub const MAX_ITEMS: usize = 256;
/// Longest single argument, variable value or inline text, in bytes.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Bytes that arguments and variables may have together.
pub const MAX_ARGUMENT_BYTES: usize = 128 * 1024;

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    /// Name.
    pub name: EnvName,
    /// Value.
    pub value: String,
}

/// Where an input's bytes come from: always the store, by digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum InputSource {
    /// One file.
    Blob {
        /// Its content.
        digest: BlobDigest,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A directory tree.
    Tree {
        /// Its root manifest.
        digest: TreeDigest,
    },
}

/// One read-only input at a path of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    /// Path below the workspace.
    pub path: RelPath,
    /// Content.
    pub source: InputSource,
}

/// A complete, effective, validated request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecutionRequest {
    /// Program and arguments. `argv[0]` is a path, or a name looked up in the fixed PATH.
    pub argv: Vec<String>,
    /// The whole environment, sorted by name; nothing is inherited.
    pub env: Vec<EnvVar>,
    /// Variables whose values are not here, sorted by name; none of them is in `env`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_refs: Vec<EnvRef>,
    /// Working directory below the workspace; the workspace itself if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<RelPath>,
    /// Standard input; empty if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<BlobDigest>,
    /// Inputs, sorted by path; no path lies within another.
    pub inputs: Vec<Input>,
    /// Files or folders to keep, sorted, below the workspace.
    pub outputs: Vec<RelPath>,
    /// Bounds.
    pub limits: Limits,
    /// Isolation asked for.
    pub policy: SandboxPolicy,
    /// Makes otherwise equal requests different.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// Why a request cannot be run. `field` names the offending field of the document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}; {hint}")]
pub struct RequestError {
    /// Offending field.
    pub field: String,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub hint: &'static str,
}

impl RequestError {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, why: impl Into<String>, hint: &'static str) -> Self {
        Self { field: field.into(), why: why.into(), hint }
    }
}

impl ExecutionRequest {
    /// A request that runs `argv` with defaults everywhere else.
    pub fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: Vec::new(),
            env_refs: Vec::new(),
            working_dir: None,
            stdin: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            limits: Limits::default(),
            policy: SandboxPolicy::default(),
            nonce: None,
        }
    }

    /// Sorts what has no order and checks every bound.
    ///
    /// # Errors
    /// The first offending field.
    pub fn normalise(mut self) -> Result<Self, RequestError> {
        self.env.sort();
        self.env_refs.sort();
        self.inputs.sort();
        self.outputs.sort();
        self.outputs.dedup();
        self.check_argv()?;
        self.check_env()?;
        self.check_paths()?;
        check_limits(&self.limits)?;
        if self.nonce.as_ref().is_some_and(|nonce| nonce.len() > 256) {
            return Err(RequestError::new("nonce", "is longer than 256 bytes", "give a shorter one"));
        }
        Ok(self)
    }

    /// Digest of the canonical form: equal work has equal digest.
    ///
    /// # Errors
    /// A request with a value outside canonical JSON's bounds.
    pub fn digest(&self) -> Result<RequestDigest, CanonError> {
        Ok(RequestDigest::from_bytes(derive(context::REQUEST, &[&canon::to_vec(self)?])))
    }

    fn check_argv(&self) -> Result<(), RequestError> {
        let refuse = |why: &str, hint| Err(RequestError::new("command", why, hint));
        match self.argv.first().map(String::as_str) {
            None | Some("") => return refuse("is empty", "name a program"),
            Some(program) if program.contains('/') && !program.starts_with('/') => {
                return refuse(
                    "is a relative path",
                    "give an absolute path (the workspace is /workspace) or a bare name",
                );
            }
            Some(_) => {}
        }
        if self.argv.len() > MAX_ITEMS {
            return refuse("has more than 256 arguments", "put them into an input file");
        }
        if self.argv.iter().any(|argument| argument.contains('\0')) {
            return refuse("holds a NUL", "remove it: no program can receive one");
        }
        let env: usize = self.env.iter().map(|var| var.name.as_str().len() + var.value.len() + 2).sum();
        let argv: usize = self.argv.iter().map(|argument| argument.len() + 1).sum();
        if argv + env > MAX_ARGUMENT_BYTES {
            return refuse("and env together exceed 128 KiB", "put the data into an input file");
        }
        Ok(())
    }

    fn check_env(&self) -> Result<(), RequestError> {
        if self.env.len() + self.env_refs.len() > MAX_ITEMS {
            return Err(RequestError::new(
                "env",
                "has more than 256 variables",
                "put them into an input file",
            ));
        }
        let mut seen = BTreeSet::new();
        let names = self.env.iter().map(|var| &var.name).chain(self.env_refs.iter().map(|var| &var.name));
        for name in names {
            if !seen.insert(name) {
                let field = format!("env[{}]", name.as_str());
                return Err(RequestError::new(field, "is given twice", "keep one of the two"));
            }
        }
        match self.env.iter().find(|var| var.value.contains('\0')) {
            Some(var) => {
                let field = format!("env[{}]", var.name.as_str());
                Err(RequestError::new(field, "holds a NUL", "remove it: no program can receive one"))
            }
            None => Ok(()),
        }
    }

    fn check_paths(&self) -> Result<(), RequestError> {
        if self.inputs.len() > MAX_ITEMS {
            return Err(RequestError::new("inputs", "are more than 256", "combine them into one tree"));
        }
        if self.outputs.len() > MAX_ITEMS {
            return Err(RequestError::new("outputs", "are more than 256", "name a folder that holds them"));
        }
        let mut seen: BTreeSet<&RelPath> = BTreeSet::new();
        for input in &self.inputs {
            if let Some(other) = seen.iter().find(|other| nested(other, &input.path)) {
                let why = format!("lies within (or is) input {other}");
                let field = format!("inputs[{}]", input.path);
                return Err(RequestError::new(field, why, "give inputs disjoint paths"));
            }
            seen.insert(&input.path);
        }
        for output in &self.outputs {
            if let Some(input) = self.inputs.iter().find(|input| nested(&input.path, output)) {
                let why = format!("overlaps the read-only input {}", input.path);
                return Err(RequestError::new(
                    format!("outputs[{output}]"),
                    why,
                    "write outputs to a path of their own",
                ));
            }
        }
        // All pairs, for nested paths need not be neighbours: a, a-b, a/b is their order.
        for (at, inner) in self.outputs.iter().enumerate() {
            if let Some(outer) = self.outputs[..at].iter().find(|outer| nested(outer, inner)) {
                let why = format!("lies within output {outer}");
                return Err(RequestError::new(format!("outputs[{inner}]"), why, "keep the outer one"));
            }
        }
        Ok(())
    }
}

fn nested(one: &RelPath, other: &RelPath) -> bool {
    one.is_within(other) || other.is_within(one)
}

fn check_limits(limits: &Limits) -> Result<(), RequestError> {
    const MIB: u64 = 1 << 20;
    const TIB: u64 = 1 << 40;
    let rows = [
        ("limits.timeoutMs", limits.timeout_ms, 1, 7 * 24 * 3_600_000),
        ("limits.maxOutputBytes", limits.max_output_bytes, 0, 1024 * MIB),
        ("limits.memoryBytes", limits.memory_bytes, 4 * MIB, 16 * TIB),
        ("limits.pids", limits.pids, 1, 1 << 20),
        ("limits.scratchBytes", limits.scratch_bytes, 64 * 1024, 16 * TIB),
        ("limits.scratchInodes", limits.scratch_inodes, 16, 1 << 30),
        ("limits.openFiles", limits.open_files, 8, 1 << 20),
    ];
    for (field, value, low, high) in rows {
        if value < low || value > high {
            let why = format!("{value} is outside {low} to {high}");
            return Err(RequestError::new(field, why, "choose a value inside the bounds"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Layer, Requirement};
    use crate::reference::{DataKey, ObjectName, ValueSource};

    fn request() -> ExecutionRequest {
        ExecutionRequest::new(vec!["/bin/echo".into(), "hi".into()]).normalise().unwrap()
    }

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    fn blob(at: &str) -> Input {
        let source = InputSource::Blob { digest: BlobDigest::of(b"x"), executable: false };
        Input { path: path(at), source }
    }

    fn var(name: &str, value: &str) -> EnvVar {
        EnvVar { name: EnvName::parse(name).unwrap(), value: value.into() }
    }

    fn secret(variable: &str, name: &str, key: &str) -> EnvRef {
        let (name, key) = (ObjectName::parse(name).unwrap(), DataKey::parse(key).unwrap());
        EnvRef { name: EnvName::parse(variable).unwrap(), source: ValueSource::Secret { name, key } }
    }

    fn config(variable: &str, name: &str, key: &str) -> EnvRef {
        let (name, key) = (ObjectName::parse(name).unwrap(), DataKey::parse(key).unwrap());
        EnvRef { name: EnvName::parse(variable).unwrap(), source: ValueSource::ConfigMap { name, key } }
    }

    #[test]
    fn order_that_means_nothing_does_not_change_the_digest() {
        let mut one = request();
        one.env = vec![var("B", "2"), var("A", "1")];
        one.env_refs = vec![secret("D", "s", "k"), config("C", "s", "k")];
        one.inputs = vec![blob("b"), blob("a")];
        one.outputs = vec![path("y"), path("x"), path("y")];
        let mut other = one.clone();
        other.env.reverse();
        other.env_refs.reverse();
        other.inputs.reverse();
        other.outputs.reverse();
        assert_eq!(one.normalise().unwrap().digest(), other.normalise().unwrap().digest());
    }

    #[test]
    fn every_field_changes_the_digest() {
        let base = request();
        let changes: Vec<fn(&mut ExecutionRequest)> = vec![
            |r| r.argv.push("more".into()),
            |r| r.env.push(var("A", "1")),
            |r| r.env_refs.push(secret("A", "s", "k")),
            |r| r.env_refs.push(secret("B", "s", "k")),
            |r| r.env_refs.push(secret("A", "t", "k")),
            |r| r.env_refs.push(secret("A", "s", "l")),
            |r| r.env_refs.push(config("A", "s", "k")),
            |r| r.working_dir = Some(path("a")),
            |r| r.stdin = Some(BlobDigest::of(b"")),
            |r| r.inputs.push(blob("a")),
            |r| r.outputs.push(path("out")),
            |r| r.limits.timeout_ms += 1,
            |r| r.limits.max_output_bytes += 1,
            |r| r.limits.memory_bytes += 1,
            |r| r.limits.pids += 1,
            |r| r.limits.scratch_bytes += 1,
            |r| r.limits.scratch_inodes += 1,
            |r| r.limits.open_files += 1,
            |r| r.policy = SandboxPolicy::default().with(Layer::Cgroup, Requirement::Off),
            |r| r.nonce = Some("n".into()),
        ];
        let mut seen = BTreeSet::from([base.digest().unwrap()]);
        for (index, change) in changes.into_iter().enumerate() {
            let mut changed = base.clone();
            change(&mut changed);
            assert!(
                seen.insert(changed.normalise().unwrap().digest().unwrap()),
                "change {index} is not covered"
            );
        }
    }

    #[test]
    fn a_refusal_names_the_field() {
        let check = |change: fn(&mut ExecutionRequest), field: &str| {
            let mut bad = request();
            change(&mut bad);
            assert_eq!(bad.normalise().unwrap_err().field, field);
        };
        check(|r| r.argv.clear(), "command");
        check(|r| r.argv[0] = "a/b".into(), "command");
        check(|r| r.argv.push("a\0".into()), "command");
        check(|r| r.argv.push("a".repeat(MAX_ARGUMENT_BYTES)), "command");
        check(|r| r.env = vec![var("A", "1"), var("A", "2")], "env[A]");
        check(|r| r.env_refs = vec![secret("A", "s", "k"), config("A", "s", "k")], "env[A]");
        check(|r| (r.env, r.env_refs) = (vec![var("A", "1")], vec![secret("A", "s", "k")]), "env[A]");
        check(
            |r| {
                r.env = (0..200).map(|n| var(&format!("V{n}"), "")).collect();
                r.env_refs = (0..57).map(|n| secret(&format!("R{n}"), "s", "k")).collect();
            },
            "env",
        );
        check(|r| r.inputs = vec![blob("a"), blob("a/b")], "inputs[a/b]");
        check(|r| r.inputs = vec![blob("a"), blob("a")], "inputs[a]");
        check(|r| (r.inputs, r.outputs) = (vec![blob("a")], vec![path("a/b")]), "outputs[a/b]");
        check(|r| r.outputs = vec![path("o"), path("o/p")], "outputs[o/p]");
        check(|r| r.outputs = vec![path("o"), path("o-p"), path("o/p")], "outputs[o/p]");
        check(|r| r.limits.timeout_ms = 0, "limits.timeoutMs");
        check(|r| r.limits.memory_bytes = u64::MAX, "limits.memoryBytes");
    }

    #[test]
    fn the_golden_digest_does_not_move() {
        // A change here is a new request format: raise the version in `context::REQUEST` instead.
        let text = request().digest().unwrap().to_string();
        assert_eq!(text, include_str!("../tests/vectors/request-echo.digest").trim());
    }

    #[test]
    fn references_stand_in_the_canonical_form_as_the_vector_has_them() {
        let mut request = request();
        assert!(
            !canon::to_vec(&request).unwrap().windows(7).any(|part| part == b"envRefs"),
            "absent if empty"
        );
        request.env_refs = vec![secret("TOKEN", "registry", "token"), config("MODE", "settings", "mode.txt")];
        let request = request.normalise().unwrap();
        let bytes = canon::to_vec(&request).unwrap();
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            include_str!("../tests/vectors/request-refs.json").trim()
        );
        let digest = request.digest().unwrap().to_string();
        assert_eq!(digest, include_str!("../tests/vectors/request-refs.digest").trim());
        assert_eq!(canon::from_slice::<ExecutionRequest>(&bytes).unwrap(), request);
    }
}
