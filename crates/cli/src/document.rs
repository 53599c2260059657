//! The request document: JSON from a user, with a named error for everything that is wrong with it.
//!
//! ```text
//! bytes ─parse→ Document (typed, still naming files and texts) ─request→ ExecutionRequest (digests only)
//! ```
//!
//! The fields and their meaning stand in `docs/cli.md`.

use std::io::Read;
use std::path::{Path, PathBuf};

use requiem_cas::{Durability, StoreError, TenantStore};
use requiem_model::request::{EnvVar, Input, InputSource, MAX_TEXT_BYTES};
use requiem_model::{
    BlobDigest, EnvName, ExecutionRequest, Layer, Limits, RelPath, RequestError, Requirement, SandboxPolicy,
    TreeDigest,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::CommandError;
use crate::pairs::Pairs;

/// Largest request document, in bytes: 256 inline texts of 64 KiB and what stands around them.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 32 << 20;

const FIELDS: [&str; 15] = [
    "request_id",
    "tenant_id",
    "command",
    "argv",
    "env",
    "cwd",
    "workspace_root",
    "stdin",
    "inputs",
    "outputs",
    "nonce",
    "timeout_ms",
    "max_output_bytes",
    "limits",
    "policy",
];

/// A request as it was written.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) request_id: Option<String>,
    pub(crate) tenant_id: String,
    workspace_root: Option<PathBuf>,
    stdin: Option<Source>,
    inputs: Vec<(RelPath, Source)>,
    /// Everything that needs no file and no store.
    rest: ExecutionRequest,
}

/// Where bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Blob { digest: BlobDigest, executable: bool },
    Tree { digest: TreeDigest },
    Text { text: String, executable: bool },
    File { path: String, executable: Option<bool> },
}

/// What becomes of texts and files that a request brings along.
#[derive(Debug)]
pub(crate) enum Keeper<'a> {
    /// They are put into the store.
    Store(&'a TenantStore),
    /// They are digested, and the digests collected.
    Digests(&'a mut Vec<BlobDigest>),
}

/// An input in its long form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongSource {
    blob: Option<BlobDigest>,
    tree: Option<TreeDigest>,
    text: Option<String>,
    file: Option<String>,
    executable: Option<bool>,
}

/// The top-level members that are not yet taken.
struct Members(Vec<(String, Value)>);

// === impl Document ===

impl Document {
    /// Reads a document. One that names no tenant is `whose`.
    ///
    /// # Errors
    /// The first field that is unknown, given twice or unusable.
    pub(crate) fn parse(bytes: &[u8], whose: &str) -> Result<Self, CommandError> {
        let mut members = Members::read(bytes)?;
        let request_id = members.text("request_id")?;
        let tenant_id = members.text("tenant_id")?.unwrap_or_else(|| whose.to_owned());
        let workspace_root = members.text("workspace_root")?.map(PathBuf::from);
        let stdin = members.take("stdin").map(|value| source("stdin", value)).transpose()?;
        let inputs = inputs(members.pairs("inputs", bytes)?)?;
        let command = members.text("command")?.ok_or_else(|| {
            CommandError::field("command", "is missing", "name the program; its arguments go into argv")
        })?;
        let mut rest = ExecutionRequest::new(vec![command]);
        rest.argv.extend(members.texts("argv")?);
        rest.env = env(members.pairs("env", bytes)?)?;
        rest.working_dir = members.text("cwd")?.map(|text| path("cwd", &text)).transpose()?;
        let outputs = members.texts("outputs")?;
        rest.outputs = outputs.iter().map(|text| path("outputs", text)).collect::<Result<_, _>>()?;
        rest.nonce = members.text("nonce")?;
        rest.limits = limits(members.pairs("limits", bytes)?)?;
        if let Some(timeout) = members.number("timeout_ms")? {
            rest.limits.timeout_ms = timeout;
        }
        if let Some(bytes) = members.number("max_output_bytes")? {
            rest.limits.max_output_bytes = bytes;
        }
        rest.policy = policy(members.pairs("policy", bytes)?)?;
        check_id(request_id.as_deref())?;
        Ok(Self { request_id, tenant_id, workspace_root, stdin, inputs, rest })
    }

    /// Keeps texts and files and gives the complete, valid request. Files are looked for below
    /// `workspace_root`, or below `base` if the document names none.
    ///
    /// # Errors
    /// A file that cannot be read, a store that fails, or a request that breaks a rule.
    pub(crate) fn request(
        self,
        keeper: &mut Keeper<'_>,
        base: &Path,
    ) -> Result<ExecutionRequest, CommandError> {
        let Self { request_id: _, tenant_id: _, workspace_root, stdin, inputs, rest: mut request } = self;
        let root = workspace_root.map_or_else(|| base.to_owned(), |root| base.join(root));
        request.stdin = match stdin.map(|source| source.keep("stdin", keeper, &root)).transpose()? {
            None => None,
            Some(InputSource::Blob { digest, .. }) => Some(digest),
            Some(InputSource::Tree { .. }) => {
                return Err(CommandError::field("stdin", "is a folder", "give a blob, a text or a file"));
            }
        };
        for (path, source) in inputs {
            let source = source.keep(&format!("inputs[{path}]"), keeper, &root)?;
            request.inputs.push(Input { path, source });
        }
        request.normalise().map_err(|error| invalid(&error))
    }
}

// === impl Source ===

impl Source {
    fn keep(self, field: &str, keeper: &mut Keeper<'_>, root: &Path) -> Result<InputSource, CommandError> {
        match self {
            Self::Blob { digest, executable } => Ok(InputSource::Blob { digest, executable }),
            Self::Tree { digest } => Ok(InputSource::Tree { digest }),
            Self::Text { text, executable } => {
                let digest = keeper.keep(text.as_bytes())?;
                Ok(InputSource::Blob { digest, executable })
            }
            Self::File { path, executable } => {
                let path = root.join(path);
                let (file, set) = open_file(&path).map_err(|why| {
                    let hint = "check the path and workspace_root; put a folder with `requiem cas put` and name it as {\"tree\": DIGEST}";
                    CommandError::field(field, format!("cannot read {}: {why}", path.display()), hint)
                })?;
                let digest = keeper.keep(file)?;
                Ok(InputSource::Blob { digest, executable: executable.unwrap_or(set) })
            }
        }
    }
}

// === impl Keeper ===

impl Keeper<'_> {
    fn keep(&mut self, mut source: impl Read) -> Result<BlobDigest, StoreError> {
        match self {
            Self::Store(store) => Ok(store.put_reader(source, Durability::Volatile)?.digest),
            Self::Digests(digests) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(&mut source).map_err(|source| StoreError::Source { source })?;
                let digest = BlobDigest::from_bytes(*hasher.finalize().as_bytes());
                digests.push(digest);
                Ok(digest)
            }
        }
    }
}

/// Opens a regular file; says whether its owner may execute it.
fn open_file(path: &Path) -> Result<(impl Read + use<>, bool), String> {
    use std::os::unix::fs::PermissionsExt;
    let told = |error: std::io::Error| error.to_string();
    // Looked at before it is opened: opening a FIFO would wait for its writer.
    let meta = std::fs::metadata(path).map_err(told)?;
    if !meta.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(told)?;
    Ok((file, meta.permissions().mode() & 0o100 != 0))
}

// === impl Members ===

impl Members {
    fn read(bytes: &[u8]) -> Result<Self, CommandError> {
        let Pairs(members) = serde_json::from_slice(bytes).map_err(|error| {
            CommandError::field("request", error, "give one JSON object; its fields stand in docs/cli.md")
        })?;
        match members.iter().find(|(name, _)| !FIELDS.contains(&name.as_str())) {
            Some((name, _)) => {
                let hint = format!("remove it; the fields are {}", FIELDS.join(", "));
                Err(CommandError::field(name, "is not a field of a request", hint))
            }
            None => Ok(Self(members)),
        }
    }

    /// A member; one that is null counts as left out.
    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, CommandError> {
        self.typed(name, "text", "write it in double quotes")
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>, CommandError> {
        self.typed(name, "a whole number", "write it without quotes, sign and fraction")
    }

    fn texts(&mut self, name: &str) -> Result<Vec<String>, CommandError> {
        let list = self.typed(name, "a list of texts", "write it as [\"one\", \"two\"]")?;
        Ok(list.unwrap_or_default())
    }

    fn typed<T: DeserializeOwned>(
        &mut self,
        name: &str,
        what: &str,
        hint: &str,
    ) -> Result<Option<T>, CommandError> {
        let value = self.take(name).map(serde_json::from_value).transpose();
        value.map_err(|_| CommandError::field(name, format!("is not {what}"), hint))
    }

    /// The members of an object, from the bytes once more, because only there a name given twice can be seen.
    fn pairs(&mut self, name: &str, bytes: &[u8]) -> Result<Vec<(String, Value)>, CommandError> {
        let hint = "write it as {\"name\": value}, each name once";
        match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Object(_)) => {}
            Some(_) => return Err(CommandError::field(name, "is not an object", hint)),
        }
        let picked: Picked<'_> = Picked { name };
        let mut input = serde_json::Deserializer::from_slice(bytes);
        picked.read(&mut input).map_err(|error| CommandError::field(name, error, hint))
    }
}

/// Reads one member of an object as [`Pairs`] and passes over the others.
struct Picked<'a> {
    name: &'a str,
}

impl Picked<'_> {
    fn read<'de, D: serde::Deserializer<'de>>(self, input: D) -> Result<Vec<(String, Value)>, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Picked<'_> {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            if name == self.name {
                found = members.next_value::<Pairs>()?.0;
            } else {
                members.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

// === fields ===

fn inputs(pairs: Vec<(String, Value)>) -> Result<Vec<(RelPath, Source)>, CommandError> {
    let input =
        |(at, value): (String, Value)| Ok((path("inputs", &at)?, source(&format!("inputs[{at}]"), value)?));
    pairs.into_iter().map(input).collect()
}

fn source(field: &str, value: Value) -> Result<Source, CommandError> {
    let hint = "give \"blake3:…\", {\"tree\": \"blake3:…\"}, {\"blob\": \"blake3:…\", \"executable\": true}, {\"text\": \"…\"} or {\"file\": \"path\"}";
    if let Value::String(text) = &value {
        let digest = text.parse().map_err(|error| CommandError::field(field, error, hint))?;
        return Ok(Source::Blob { digest, executable: false });
    }
    let long: LongSource =
        serde_json::from_value(value).map_err(|error| CommandError::field(field, error, hint))?;
    let executable = long.executable.unwrap_or(false);
    match long {
        LongSource { blob: Some(digest), tree: None, text: None, file: None, .. } => {
            Ok(Source::Blob { digest, executable })
        }
        LongSource { tree: Some(digest), blob: None, text: None, file: None, executable: None } => {
            Ok(Source::Tree { digest })
        }
        LongSource { text: Some(text), blob: None, tree: None, file: None, .. } => {
            if text.len() > MAX_TEXT_BYTES {
                return Err(CommandError::field(
                    field,
                    "is longer than 64 KiB",
                    "write it into a file and give {\"file\": \"path\"}",
                ));
            }
            Ok(Source::Text { text, executable })
        }
        LongSource { file: Some(path), blob: None, tree: None, text: None, executable } => {
            Ok(Source::File { path, executable })
        }
        _ => Err(CommandError::field(field, "is not exactly one of blob, tree, text and file", hint)),
    }
}

fn env(pairs: Vec<(String, Value)>) -> Result<Vec<EnvVar>, CommandError> {
    let variable = |(name, value): (String, Value)| {
        let field = format!("env[{name}]");
        if value.is_object() {
            let hint = "give the value itself: only the kubelet of a cluster resolves references, for spec.executor.pod";
            return Err(CommandError::field(
                field,
                "is not text; there are no Secrets and ConfigMaps here",
                hint,
            ));
        }
        let Value::String(value) = value else {
            return Err(CommandError::field(field, "is not text", "write the value in double quotes"));
        };
        let name = EnvName::parse(&name)
            .map_err(|error| CommandError::field(&field, error, "rename the variable"))?;
        Ok(EnvVar { name, value })
    };
    pairs.into_iter().map(variable).collect()
}

fn limits(pairs: Vec<(String, Value)>) -> Result<Limits, CommandError> {
    let mut limits = Limits::default();
    for (name, value) in pairs {
        let field = format!("limits.{name}");
        let number = value.as_u64();
        let place = match name.as_str() {
            "memory_bytes" => &mut limits.memory_bytes,
            "pids" => &mut limits.pids,
            "scratch_bytes" => &mut limits.scratch_bytes,
            "scratch_inodes" => &mut limits.scratch_inodes,
            "open_files" => &mut limits.open_files,
            _ => {
                let hint = "the limits are memory_bytes, pids, scratch_bytes, scratch_inodes and open_files";
                return Err(CommandError::field(field, "is not a limit", hint));
            }
        };
        *place = number.ok_or_else(|| {
            CommandError::field(field, "is not a whole number", "write it without quotes, sign and fraction")
        })?;
    }
    Ok(limits)
}

fn policy(pairs: Vec<(String, Value)>) -> Result<SandboxPolicy, CommandError> {
    let mut policy = SandboxPolicy::default();
    for (name, value) in pairs {
        let Value::Object(layers) = value else {
            return Err(CommandError::field(format!("policy.{name}"), "is not an object", policy_hint()));
        };
        if name != "layers" {
            return Err(CommandError::field(
                format!("policy.{name}"),
                "is not a field of a policy",
                policy_hint(),
            ));
        }
        for (layer, level) in layers {
            let field = format!("policy.layers.{layer}");
            let known = serde_json::from_value::<Layer>(Value::String(layer));
            let known = known.map_err(|_| CommandError::field(&field, "is not a layer", policy_hint()))?;
            let level: Requirement = serde_json::from_value(level).map_err(|_| {
                CommandError::field(&field, "is not required, preferred or off", policy_hint())
            })?;
            policy.layers.insert(known, level);
        }
    }
    Ok(policy)
}

fn policy_hint() -> String {
    let names: Vec<&str> = Layer::ALL.into_iter().map(Layer::name).collect();
    format!(
        "write {{\"layers\": {{\"NAME\": \"required|preferred|off\"}}}}; the names are {}",
        names.join(", ")
    )
}

fn path(field: &str, text: &str) -> Result<RelPath, CommandError> {
    let hint = "give a path below the workspace, like dir/file";
    RelPath::parse(text).map_err(|error| CommandError::field(format!("{field}[{text}]"), error, hint))
}

fn check_id(id: Option<&str>) -> Result<(), CommandError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match id {
        Some(id) if id.is_empty() || id.len() > 128 || !id.bytes().all(good) => {
            let hint = "use 1 to 128 letters, digits, dots, hyphens and underscores, or leave it out";
            Err(CommandError::field("request_id", "cannot be used", hint))
        }
        _ => Ok(()),
    }
}

/// A rule of requests that is broken, with the field's name in this document.
fn invalid(error: &RequestError) -> CommandError {
    let field = match error.field.as_str() {
        "limits.timeoutMs" => "timeout_ms",
        "limits.maxOutputBytes" => "max_output_bytes",
        "limits.memoryBytes" => "limits.memory_bytes",
        "limits.scratchBytes" => "limits.scratch_bytes",
        "limits.scratchInodes" => "limits.scratch_inodes",
        "limits.openFiles" => "limits.open_files",
        same => same,
    };
    CommandError::field(field, &error.why, error.hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Document::parse(text.as_bytes(), "default").unwrap_err().message
    }

    #[test]
    fn a_refusal_names_the_field() {
        for (text, message) in [
            ("[]", "request: invalid type: sequence, expected an object at line 1 column 0"),
            (r#"{"command":"a","color":1}"#, "color: is not a field of a request"),
            (r#"{"argv":[]}"#, "command: is missing"),
            (r#"{"command":null}"#, "command: is missing"),
            (r#"{"command":7}"#, "command: is not text"),
            (r#"{"command":"a","argv":"b"}"#, "argv: is not a list of texts"),
            (r#"{"command":"a","argv":["b",1]}"#, "argv: is not a list of texts"),
            (r#"{"command":"a","timeout_ms":"5"}"#, "timeout_ms: is not a whole number"),
            (r#"{"command":"a","timeout_ms":-5}"#, "timeout_ms: is not a whole number"),
            (r#"{"command":"a","env":[]}"#, "env: is not an object"),
            (r#"{"command":"a","env":{"A":1}}"#, "env[A]: is not text"),
            (
                r#"{"command":"a","env":{"A":{"secretKeyRef":{"name":"s","key":"k"}}}}"#,
                "env[A]: is not text; there are no Secrets and ConfigMaps here",
            ),
            (r#"{"command":"a","limits":{"cpus":1}}"#, "limits.cpus: is not a limit"),
            (r#"{"command":"a","limits":{"pids":"1"}}"#, "limits.pids: is not a whole number"),
            (r#"{"command":"a","policy":{"llm":{}}}"#, "policy.llm: is not a field of a policy"),
            (r#"{"command":"a","policy":{"layers":{"magic":"off"}}}"#, "policy.layers.magic: is not a layer"),
            (
                r#"{"command":"a","policy":{"layers":{"cgroup":"no"}}}"#,
                "policy.layers.cgroup: is not required, preferred or off",
            ),
            (r#"{"command":"a","request_id":"a b"}"#, "request_id: cannot be used"),
        ] {
            assert_eq!(refusal(text), message, "{text}");
        }
        for (text, part) in [
            (r#"{"command":"a","command":"b"}"#, "\"command\" is given twice"),
            (r#"{"command":"a","env":{"A":"1","A":"2"}}"#, "env: \"A\" is given twice"),
            (r#"{"command":"a","inputs":{"x":{"text":""},"x":{"text":""}}}"#, "inputs: \"x\" is given twice"),
            (r#"{"command":"a","inputs":{"../x":"blake3:"}}"#, "inputs[../x]: "),
            (r#"{"command":"a","inputs":{"x":"blake3:00"}}"#, "inputs[x]: "),
            (r#"{"command":"a","inputs":{"x":{}}}"#, "inputs[x]: is not exactly one of"),
            (r#"{"command":"a","inputs":{"x":{"text":"","file":"y"}}}"#, "inputs[x]: is not exactly one of"),
            (r#"{"command":"a","inputs":{"x":{"url":"y"}}}"#, "inputs[x]: unknown field `url`"),
            (r#"{"command":"a","outputs":["/abs"]}"#, "outputs[/abs]: "),
            (r#"{"command":"a","cwd":".."}"#, "cwd[..]: "),
        ] {
            assert!(refusal(text).contains(part), "{text}: {}", refusal(text));
        }
    }

    #[test]
    fn every_field_arrives() {
        let digest = BlobDigest::of(b"x");
        let text = format!(
            r#"{{"request_id":"r-1","tenant_id":"team","command":"sh","argv":["-c","true"],"env":{{"A":"1"}},
                "cwd":"w","workspace_root":"/src","stdin":{{"text":"in"}},
                "inputs":{{"a":"{digest}","b":{{"tree":"{digest}"}},"c":{{"file":"f"}}}},
                "outputs":["o"],"nonce":"n","timeout_ms":5,"max_output_bytes":6,
                "limits":{{"memory_bytes":1,"pids":2,"scratch_bytes":3,"scratch_inodes":4,"open_files":5}},
                "policy":{{"layers":{{"cgroup":"preferred"}}}}}}"#
        );
        let document = Document::parse(text.as_bytes(), "default").unwrap();
        assert_eq!(document.request_id.as_deref(), Some("r-1"));
        assert_eq!(document.tenant_id, "team");
        assert_eq!(document.workspace_root.as_deref(), Some(Path::new("/src")));
        assert_eq!(document.stdin, Some(Source::Text { text: "in".into(), executable: false }));
        assert_eq!(document.inputs.len(), 3);
        let rest = document.rest;
        assert_eq!(rest.argv, ["sh", "-c", "true"]);
        assert_eq!((rest.env.len(), rest.outputs.len()), (1, 1));
        assert_eq!((rest.nonce.as_deref(), rest.working_dir.unwrap().as_str()), (Some("n"), "w"));
        let expected = Limits {
            timeout_ms: 5,
            max_output_bytes: 6,
            memory_bytes: 1,
            pids: 2,
            scratch_bytes: 3,
            scratch_inodes: 4,
            open_files: 5,
        };
        assert_eq!(rest.limits, expected);
        assert_eq!(rest.policy, SandboxPolicy::default().with(Layer::Cgroup, Requirement::Preferred));
    }
}
