//! Spec → request: the only place where what a user wrote becomes what an executor runs. Pure.
//!
//! Flow: parse every text into its type, put inline texts aside (the request names them by digest), then let
//! the model normalise and check the whole. Errors name the field as it stands in the YAML.

use requiem_model::request::{EnvVar, Input, InputSource, MAX_TEXT_BYTES};
use requiem_model::{
    BlobDigest, DataKey, DigestError, EnvName, EnvRef, ExecutionRequest, Limits, NameError, ObjectName,
    RelPath, RequestError, SandboxPolicy, ValueSource, canon,
};

use crate::execution::{
    CacheMode, EnvVarSpec, ExecutionSpec, InputSpec, KeyRef, LimitsSpec, PolicySpec, StdinSpec, ValueFromSpec,
};
use crate::quantity::ByteQuantity;

/// The request of `spec`, normalised, and the inline texts that it names by digest, each once.
///
/// # Errors
/// The first field that breaks a rule.
pub fn to_request(spec: &ExecutionSpec) -> Result<(ExecutionRequest, Vec<String>), RequestError> {
    let mut inline = Inline::default();
    let (env, env_refs) = environment(spec)?;
    let request = ExecutionRequest {
        argv: spec.command.iter().chain(&spec.args).cloned().collect(),
        env,
        env_refs,
        working_dir: spec.working_dir.as_deref().map(|path| relative("spec.workingDir", path)).transpose()?,
        stdin: spec.stdin.as_ref().map(|stdin| stdin_digest(stdin, &mut inline)).transpose()?,
        inputs: spec.inputs.iter().map(|input| input_of(input, &mut inline)).collect::<Result<_, _>>()?,
        outputs: outputs(spec)?,
        limits: limits(spec.timeout_seconds, &spec.limits)?,
        policy: policy(spec.policy.as_ref()),
        nonce: spec.nonce.clone(),
    };
    let request = request.normalise().map_err(in_yaml)?;
    canon::to_vec(&request).map_err(|error| {
        RequestError::new("spec", error.to_string(), "shorten it: put arguments and variables into inputs")
    })?;
    Ok((request, inline.texts))
}

/// Secret of the authority that signs executors' certificates, in the operator's own namespace.
pub const AUTHORITY_SECRET: &str = "requiem-ca";
/// Secret of the executors, in each namespace that has a pool of pods.
pub const EXECUTOR_SECRET: &str = "requiem-executor-tls";

/// Inline texts in order of appearance.
#[derive(Default)]
struct Inline {
    texts: Vec<String>,
}

impl Inline {
    fn add(&mut self, field: String, text: &str) -> Result<BlobDigest, RequestError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(RequestError::new(field, "is longer than 64 KiB", "put it into the store as a blob"));
        }
        if !self.texts.iter().any(|known| known == text) {
            self.texts.push(text.to_owned());
        }
        Ok(BlobDigest::of(text.as_bytes()))
    }
}

fn environment(spec: &ExecutionSpec) -> Result<(Vec<EnvVar>, Vec<EnvRef>), RequestError> {
    let (mut env, mut env_refs) = (Vec::new(), Vec::new());
    for var in &spec.env {
        let name = EnvName::parse(&var.name).map_err(|error: NameError| {
            RequestError::new("spec.env", error.to_string(), "rename the variable")
        })?;
        match &var.value_from {
            None => env.push(EnvVar { name, value: var.value.clone() }),
            Some(from) => env_refs.push(EnvRef { source: reference(spec, var, from)?, name }),
        }
    }
    Ok((env, env_refs))
}

/// Where the value of `var` stands, and whether it may be had at all.
fn reference(
    spec: &ExecutionSpec,
    var: &EnvVarSpec,
    from: &ValueFromSpec,
) -> Result<ValueSource, RequestError> {
    let refuse = |why: &str, hint| {
        Err(RequestError::new(format!("spec.env[{}].valueFrom", var.name), why.to_owned(), hint))
    };
    if !var.value.is_empty() {
        return refuse("and value exclude one another", "remove one of them");
    }
    if spec.executor.pod.is_none() {
        let hint = "name spec.executor.pod: the kubelet of a pod of its own resolves it, and nobody else may";
        return refuse("needs a pod for this Execution alone", hint);
    }
    if matches!(spec.cache, Some(CacheMode::Use | CacheMode::Refresh)) {
        let hint =
            "remove spec.cache: the proof does not hold the value, so no result can answer for another";
        return refuse("and spec.cache exclude one another", hint);
    }
    let parts = |key: &KeyRef| {
        let wrong = |error: NameError| {
            let field = format!("spec.env[{}].valueFrom", var.name);
            RequestError::new(field, error.to_string(), "copy it as kubectl describe shows it")
        };
        Ok((ObjectName::parse(&key.name).map_err(wrong)?, DataKey::parse(&key.key).map_err(wrong)?))
    };
    match (&from.secret_key_ref, &from.config_map_key_ref) {
        (Some(secret), None) if [AUTHORITY_SECRET, EXECUTOR_SECRET].contains(&secret.name.as_str()) => {
            refuse(
                "names a Secret with keys of executors",
                "name another Secret: no command may have those keys",
            )
        }
        (Some(secret), None) => parts(secret).map(|(name, key)| ValueSource::Secret { name, key }),
        (None, Some(map)) => parts(map).map(|(name, key)| ValueSource::ConfigMap { name, key }),
        _ => refuse("must have exactly one of secretKeyRef and configMapKeyRef", "keep one"),
    }
}

fn outputs(spec: &ExecutionSpec) -> Result<Vec<RelPath>, RequestError> {
    spec.outputs.iter().map(|path| relative("spec.outputs", path)).collect()
}

fn stdin_digest(stdin: &StdinSpec, inline: &mut Inline) -> Result<BlobDigest, RequestError> {
    match (&stdin.inline, &stdin.blob) {
        (Some(text), None) => inline.add("spec.stdin.inline".to_owned(), text),
        (None, Some(digest)) => parse_digest("spec.stdin.blob".to_owned(), digest),
        _ => Err(RequestError::new("spec.stdin", "must have exactly one of inline and blob", "keep one")),
    }
}

fn input_of(input: &InputSpec, inline: &mut Inline) -> Result<Input, RequestError> {
    let path = relative("spec.inputs", &input.path)?;
    let field = |name: &str| format!("spec.inputs[{path}]{name}");
    let executable = input.executable;
    let source = match (&input.inline, &input.blob, &input.tree) {
        (Some(text), None, None) => {
            InputSource::Blob { digest: inline.add(field(".inline"), text)?, executable }
        }
        (None, Some(digest), None) => {
            InputSource::Blob { digest: parse_digest(field(".blob"), digest)?, executable }
        }
        (None, None, Some(_)) if executable => {
            return Err(RequestError::new(field(".executable"), "does not apply to a tree", "remove it"));
        }
        (None, None, Some(digest)) => InputSource::Tree { digest: parse_digest(field(".tree"), digest)? },
        _ => {
            let why = "must have exactly one of inline, blob and tree";
            return Err(RequestError::new(field(""), why, "keep one"));
        }
    };
    Ok(Input { path, source })
}

fn limits(timeout_seconds: u32, spec: &LimitsSpec) -> Result<Limits, RequestError> {
    let bytes = |field: &str, quantity: &ByteQuantity| {
        quantity.bytes().map_err(|error| {
            RequestError::new(format!("spec.limits.{field}"), error.to_string(), "write it like 512Mi")
        })
    };
    Ok(Limits {
        timeout_ms: u64::from(timeout_seconds) * 1000,
        max_output_bytes: bytes("output", &spec.output)?,
        memory_bytes: bytes("memory", &spec.memory)?,
        pids: u64::from(spec.pids),
        scratch_bytes: bytes("scratch", &spec.scratch)?,
        scratch_inodes: u64::from(spec.scratch_inodes),
        open_files: u64::from(spec.open_files),
    })
}

fn policy(spec: Option<&PolicySpec>) -> SandboxPolicy {
    let named = spec.into_iter().flat_map(|policy| &policy.layers);
    named.fold(SandboxPolicy::default(), |policy, (layer, level)| policy.with(*layer, (*level).into()))
}

fn relative(field: &str, text: &str) -> Result<RelPath, RequestError> {
    RelPath::parse(text)
        .map_err(|error| RequestError::new(field, error.to_string(), "give a path below the workspace"))
}

fn parse_digest<D: std::str::FromStr<Err = DigestError>>(
    field: String,
    text: &str,
) -> Result<D, RequestError> {
    text.parse().map_err(|error: DigestError| {
        RequestError::new(field, error.to_string(), "copy it as `requiem cas put` printed it")
    })
}

/// The model names fields of the request; users know those of the spec.
fn in_yaml(error: RequestError) -> RequestError {
    let field = match error.field.as_str() {
        "limits.timeoutMs" => "spec.timeoutSeconds".to_owned(),
        "limits.maxOutputBytes" => "spec.limits.output".to_owned(),
        "limits.memoryBytes" => "spec.limits.memory".to_owned(),
        "limits.scratchBytes" => "spec.limits.scratch".to_owned(),
        same => format!("spec.{same}"),
    };
    RequestError { field, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::LayerRequirement;
    use crate::executor_pool::DedicatedPod;
    use requiem_model::{Layer, Requirement, TreeDigest};

    fn spec() -> ExecutionSpec {
        ExecutionSpec::new(vec!["/bin/echo".into()])
    }

    fn own_pod() -> DedicatedPod {
        serde_json::from_value(serde_json::json!({"image": "debian"})).unwrap()
    }

    fn object(name: &str) -> ObjectName {
        ObjectName::parse(name).unwrap()
    }

    fn referring(secret: &str, key: &str) -> EnvVarSpec {
        let key = Some(KeyRef { name: secret.into(), key: key.into() });
        let value_from = Some(ValueFromSpec { secret_key_ref: key, config_map_key_ref: None });
        EnvVarSpec { name: "S".into(), value_from, ..EnvVarSpec::default() }
    }

    fn input(path: &str) -> InputSpec {
        InputSpec { path: path.into(), inline: Some("x".into()), blob: None, tree: None, executable: false }
    }

    #[test]
    fn a_bare_spec_is_the_default_request() {
        let (request, inline) = to_request(&spec()).unwrap();
        assert_eq!(request, ExecutionRequest::new(vec!["/bin/echo".into()]));
        assert!(inline.is_empty());
    }

    #[test]
    fn every_field_arrives() {
        let mut spec = spec();
        let tree = TreeDigest::from_bytes([7; 32]);
        spec.args = vec!["a".into()];
        spec.working_dir = Some("d".into());
        let from = |secret, config_map| {
            Some(ValueFromSpec { secret_key_ref: secret, config_map_key_ref: config_map })
        };
        let key = |name: &str| Some(KeyRef { name: name.into(), key: "k".into() });
        spec.env = vec![
            EnvVarSpec { name: "A".into(), value: "1".into(), value_from: None },
            EnvVarSpec { name: "S".into(), value_from: from(key("secret"), None), ..EnvVarSpec::default() },
            EnvVarSpec { name: "M".into(), value_from: from(None, key("map")), ..EnvVarSpec::default() },
        ];
        spec.executor.pod = Some(own_pod());
        spec.stdin = Some(StdinSpec { inline: Some("in".into()), blob: None });
        spec.inputs = vec![
            InputSpec { inline: None, tree: Some(tree.to_string()), ..input("t") },
            InputSpec { inline: Some("in".into()), executable: true, ..input("i") },
        ];
        spec.outputs = vec!["o".into()];
        spec.nonce = Some("n".into());
        spec.timeout_seconds = 5;
        spec.limits = LimitsSpec {
            output: ByteQuantity::text("1Ki"),
            memory: ByteQuantity::Number(64 << 20),
            pids: 7,
            scratch: ByteQuantity::text("1M"),
            scratch_inodes: 77,
            open_files: 9,
        };
        let layers =
            [(Layer::Cgroup, LayerRequirement::Preferred), (Layer::Seccomp, LayerRequirement::Disabled)];
        spec.policy = Some(PolicySpec { layers: layers.into() });
        let (request, inline) = to_request(&spec).unwrap();
        let blob = BlobDigest::of(b"in");
        let expected = ExecutionRequest {
            argv: vec!["/bin/echo".into(), "a".into()],
            env: vec![EnvVar { name: EnvName::parse("A").unwrap(), value: "1".into() }],
            env_refs: vec![
                EnvRef {
                    name: EnvName::parse("M").unwrap(),
                    source: ValueSource::ConfigMap { name: object("map"), key: DataKey::parse("k").unwrap() },
                },
                EnvRef {
                    name: EnvName::parse("S").unwrap(),
                    source: ValueSource::Secret { name: object("secret"), key: DataKey::parse("k").unwrap() },
                },
            ],
            working_dir: Some(RelPath::parse("d").unwrap()),
            stdin: Some(blob),
            inputs: vec![
                Input {
                    path: RelPath::parse("i").unwrap(),
                    source: InputSource::Blob { digest: blob, executable: true },
                },
                Input { path: RelPath::parse("t").unwrap(), source: InputSource::Tree { digest: tree } },
            ],
            outputs: vec![RelPath::parse("o").unwrap()],
            limits: Limits {
                timeout_ms: 5000,
                max_output_bytes: 1024,
                memory_bytes: 64 << 20,
                pids: 7,
                scratch_bytes: 1_000_000,
                scratch_inodes: 77,
                open_files: 9,
            },
            policy: SandboxPolicy::default()
                .with(Layer::Cgroup, Requirement::Preferred)
                .with(Layer::Seccomp, Requirement::Off),
            nonce: Some("n".into()),
        };
        assert_eq!(request, expected);
        assert_eq!(inline, ["in"], "the same text is sent once");
    }

    #[test]
    fn what_is_not_part_of_the_work_is_not_part_of_the_request() {
        let mut other = spec();
        other.suspend = true;
        other.cancel = true;
        other.executor.pool_ref.name = "p".into();
        other.retry.limit = 0;
        other.proof.publish = crate::execution::Publish::Never;
        other.proof.retention = Some(crate::execution::Retention::Keep);
        other.cache = Some(crate::execution::CacheMode::Use);
        let action = crate::execution::TtlAction::Delete;
        other.ttl_after_finished = Some(crate::execution::TtlSpec { seconds: 1, action });
        assert_eq!(to_request(&other).unwrap(), to_request(&spec()).unwrap());
    }

    #[test]
    fn a_refusal_names_the_field_of_the_yaml() {
        let check = |field: &str, change: fn(&mut ExecutionSpec)| {
            let mut bad = spec();
            change(&mut bad);
            assert_eq!(to_request(&bad).unwrap_err().field, field);
        };
        check("spec.command", |s| s.command.clear());
        check("spec.command", |s| s.command[0] = "a/b".into());
        check("spec.workingDir", |s| s.working_dir = Some("../x".into()));
        check("spec.env", |s| s.env = vec![EnvVarSpec { name: "A=".into(), ..EnvVarSpec::default() }]);
        check("spec.env[A]", |s| s.env = vec![EnvVarSpec { name: "A".into(), ..EnvVarSpec::default() }; 2]);
        check("spec.env[S].valueFrom", |s| s.env = vec![referring("s", "k")]);
        let with_pod: [fn(&mut ExecutionSpec); 7] = [
            |s| s.env = vec![EnvVarSpec { value: "v".into(), ..referring("s", "k") }],
            |s| (s.cache, s.env) = (Some(CacheMode::Use), vec![referring("s", "k")]),
            |s| (s.cache, s.env) = (Some(CacheMode::Refresh), vec![referring("s", "k")]),
            |s| s.env = vec![referring("requiem-executor-tls", "tls.key")],
            |s| s.env = vec![referring("S", "k")],
            |s| s.env = vec![referring("s", "..")],
            |s| {
                s.env = vec![EnvVarSpec { value_from: Some(ValueFromSpec::default()), ..referring("s", "k") }]
            },
        ];
        for change in with_pod {
            let mut bad = spec();
            bad.executor.pod = Some(own_pod());
            change(&mut bad);
            assert_eq!(to_request(&bad).unwrap_err().field, "spec.env[S].valueFrom");
        }
        check("spec.stdin", |s| s.stdin = Some(StdinSpec::default()));
        check("spec.stdin.blob", |s| s.stdin = Some(StdinSpec { inline: None, blob: Some("x".into()) }));
        check("spec.inputs", |s| s.inputs = vec![input("/x")]);
        check("spec.inputs[x]", |s| s.inputs = vec![InputSpec { inline: None, ..input("x") }]);
        check("spec.inputs[x].inline", |s| {
            s.inputs = vec![InputSpec { inline: Some("x".repeat(MAX_TEXT_BYTES + 1)), ..input("x") }];
        });
        check("spec.inputs[x].executable", |s| {
            let tree = Some(TreeDigest::from_bytes([0; 32]).to_string());
            s.inputs = vec![InputSpec { inline: None, tree, executable: true, ..input("x") }];
        });
        check("spec.inputs[x/y]", |s| s.inputs = vec![input("x"), input("x/y")]);
        check("spec.outputs", |s| s.outputs = vec!["a/".into()]);
        check("spec.outputs[x/y]", |s| {
            s.inputs = vec![input("x")];
            s.outputs = vec!["x/y".into()];
        });
        check("spec.timeoutSeconds", |s| s.timeout_seconds = 0);
        check("spec.limits.memory", |s| s.limits.memory = ByteQuantity::text("lots"));
        check("spec.limits.memory", |s| s.limits.memory = ByteQuantity::text("1Ki"));
        check("spec.limits.output", |s| s.limits.output = ByteQuantity::text("2Gi"));
        check("spec.limits.scratch", |s| s.limits.scratch = ByteQuantity::Number(1));
        check("spec.limits.pids", |s| s.limits.pids = 0);
        check("spec.nonce", |s| s.nonce = Some("n".repeat(257)));
        check("spec", |s| {
            let long = |number: usize| format!("{number:03}{}", "/".to_owned() + &"p".repeat(250)).repeat(4);
            s.outputs = (0..256).map(long).collect();
            s.inputs = (300..556).map(long).map(|path| input(&path)).collect();
        });
    }
}
