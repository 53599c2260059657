//! Whether policies admit an Execution: the rules, read once, and the judgement. Pure.
//!
//! ```text
//! ExecutionPolicy, ClusterExecutionPolicy ─read─▶ Policy ─┐
//! Execution ─convert─▶ Asked ────────────────────────────┴─judge─▶ Verdict
//! ```
//!
//! The operator judges by it before each start, and `requiem policy check` before an Execution is created. A policy changes no
//! request. What cannot be read is taken for a policy that might refuse.

use std::fmt;

use kube::Resource;
use kube::api::ObjectMeta;
use requiem_model::{ExecutionRequest, Layer, Limits, Requirement, ValueSource};

use crate::execution::{CacheMode, Publish};
use crate::executor_pool::{DedicatedPod, Tier};
use crate::policy::{MaxLimits, Permission};
use crate::{ByteQuantity, ClusterExecutionPolicy, Execution, ExecutionPolicy, PolicyRules, keeper};

/// Patterns that a message lists at most.
const LISTED: usize = 5;
/// Characters of a message that tell violations; a condition holds a few more.
const MOST_CHARS: usize = 850;

/// What policies are asked about: everything of an Execution that a rule speaks of.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Namespace of the Execution.
    pub namespace: &'a str,
    /// Name of the pool that it wants.
    pub pool: &'a str,
    /// The pod of its own that it wants instead.
    pub pod: Option<&'a DedicatedPod>,
    /// What is to run.
    pub request: &'a ExecutionRequest,
    /// Whether an earlier result may answer it.
    pub cache: CacheMode,
    /// Whether its proof becomes an object.
    pub publish: bool,
}

/// What policies together say about one Execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// None has anything against it.
    Admitted,
    /// One cannot be read, and no other refuses; this is why.
    Unreadable(String),
    /// These rules do not admit it; at least one.
    Refused(Vec<Violation>),
}

/// Names of all rules: fields of a policy's spec.
pub const RULES: [&str; 9] = [
    "pools",
    "ownPods",
    "images",
    "tiers",
    "requiredLayers",
    "maxLimits",
    "envFromSecrets",
    "earlierResults",
    "unpublishedProofs",
];

/// One rule that an Execution breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Kind of the policy.
    pub kind: Kind,
    /// Name of the policy.
    pub policy: String,
    /// The rule: a field of the policy's spec.
    pub rule: &'static str,
    /// Field of the Execution, its value, the policy, and what it would admit.
    pub message: String,
}

/// The two kinds of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Speaks of many namespaces.
    Cluster,
    /// Speaks of its own namespace.
    Namespaced,
}

/// A kind of policy as the API has it.
pub trait Binding: Resource<DynamicType = ()> + Clone {
    /// Which.
    const KIND: Kind;
    /// Its rules.
    fn rules(&self) -> &PolicyRules;
    /// Namespaces that it speaks of; those of a namespaced one are found by its own.
    fn namespaces(&self) -> Namespaces;
}

/// Namespaces that a policy speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespaces {
    these: Patterns,
    but_not: Vec<String>,
}

/// One policy, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    kind: Kind,
    /// Its own namespace; absent of one of the cluster.
    home: Option<String>,
    name: String,
    generation: Option<i64>,
    namespaces: Namespaces,
    /// What is wrong with it, if it cannot be read.
    rules: Result<Rules, String>,
}

/// The rules of a policy whose quantities were read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rules {
    pools: Patterns,
    own_pods: Permission,
    images: Patterns,
    tiers: Vec<Tier>,
    layers: Vec<Layer>,
    most: Vec<(Limit, u64)>,
    env_from_secrets: Permission,
    earlier_results: Permission,
    unpublished_proofs: Permission,
}

/// Texts in which `*` stands for any text. None of them admits everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Patterns(Vec<String>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Timeout,
    Output,
    Memory,
    Pids,
    Scratch,
    ScratchInodes,
    OpenFiles,
}

/// What `policies` say about `asked`; those that do not speak of its namespace say nothing. Violations stand in the order of
/// the policies.
pub fn judge<'a>(policies: impl Iterator<Item = &'a Policy>, asked: &Asked<'_>) -> Verdict {
    let mut violations = Vec::new();
    let mut unreadable = None;
    for policy in policies.filter(|policy| policy.speaks_of(asked.namespace)) {
        match &policy.rules {
            Ok(rules) => violations.extend(rules.violations(policy, asked)),
            Err(why) => _ = unreadable.get_or_insert_with(|| format!("{policy} cannot be read: {why}")),
        }
    }
    match unreadable {
        // Whatever the others would say, one refusal is enough.
        _ if !violations.is_empty() => Verdict::Refused(violations),
        Some(why) => Verdict::Unreadable(format!("{why}; nothing is started without it: correct it")),
        None => Verdict::Admitted,
    }
}

/// The violations in one message, with what to do. After `attempts` that were lost nobody may say that nothing ran.
pub fn told(violations: &[Violation], attempts: u32) -> String {
    let begin = match attempts {
        0 => "nothing ran".to_owned(),
        n => format!("attempt {n} was lost, and another one is not admitted"),
    };
    let mut all = String::new();
    let mut left = violations.len();
    for violation in violations {
        if !all.is_empty() && all.chars().count() + violation.message.chars().count() > MOST_CHARS {
            break;
        }
        all.push_str(if all.is_empty() { "" } else { "; " });
        all.extend(violation.message.chars().take(MOST_CHARS));
        left -= 1;
    }
    let more = if left == 0 { String::new() } else { format!("; and {left} more") };
    format!("{begin}: {all}{more}; create an Execution that is admitted, or have the policy changed")
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// What is asked about `object`, whose request is `request`.
    pub fn of(object: &'a Execution, request: &'a ExecutionRequest) -> Self {
        Self {
            namespace: object.metadata.namespace.as_deref().unwrap_or_default(),
            pool: &object.spec.executor.pool_ref.name,
            pod: object.spec.executor.pod.as_ref(),
            request,
            cache: keeper::cache_mode(object),
            publish: object.spec.proof.publish == Publish::Always,
        }
    }
}

// === impl Policy ===

impl Policy {
    /// Reads `object`; what of it cannot be read is told when it is asked.
    pub fn read<K: Binding>(object: &K) -> Self {
        Self::new::<K>(object.meta(), object.namespaces(), Rules::new(object.rules()))
    }

    /// One whose object is malformed: nobody knows of which namespaces it speaks, beyond its own.
    pub fn malformed<K: Binding>(meta: &ObjectMeta, why: &str) -> Self {
        Self::new::<K>(meta, Namespaces::all(), Err(why.to_owned()))
    }

    fn new<K: Binding>(meta: &ObjectMeta, namespaces: Namespaces, rules: Result<Rules, String>) -> Self {
        Self {
            kind: K::KIND,
            home: meta.namespace.clone().filter(|_| K::KIND == Kind::Namespaced),
            name: meta.name.clone().unwrap_or_default(),
            generation: meta.generation,
            namespaces,
            rules,
        }
    }

    /// Its place among all: those of the cluster first, then by name.
    pub fn place(&self) -> (Kind, &str) {
        (self.kind, &self.name)
    }

    /// Whether it has a say about Executions in `namespace`.
    pub fn speaks_of(&self, namespace: &str) -> bool {
        self.home.as_ref().is_none_or(|home| home == namespace) && self.namespaces.has(namespace)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.kind.as_str(), self.name)?;
        // A file has none.
        self.generation.map_or(Ok(()), |generation| write!(out, " (generation {generation})"))
    }
}

impl Kind {
    /// The kind in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "ClusterExecutionPolicy",
            Self::Namespaced => "ExecutionPolicy",
        }
    }
}

impl Binding for ExecutionPolicy {
    const KIND: Kind = Kind::Namespaced;

    fn rules(&self) -> &PolicyRules {
        &self.spec.rules
    }

    fn namespaces(&self) -> Namespaces {
        Namespaces::all()
    }
}

impl Binding for ClusterExecutionPolicy {
    const KIND: Kind = Kind::Cluster;

    fn rules(&self) -> &PolicyRules {
        &self.spec.rules
    }

    fn namespaces(&self) -> Namespaces {
        Namespaces {
            these: Patterns(self.spec.namespaces.clone()),
            but_not: self.spec.except_namespaces.clone(),
        }
    }
}

impl Namespaces {
    const fn all() -> Self {
        Self { these: Patterns(Vec::new()), but_not: Vec::new() }
    }

    fn has(&self, namespace: &str) -> bool {
        self.these.admit(namespace) && !self.but_not.iter().any(|pattern| matches(pattern, namespace))
    }
}

// === impl Rules ===

impl Rules {
    fn new(spec: &PolicyRules) -> Result<Self, String> {
        let allowed = |permission: Option<Permission>| permission.unwrap_or(Permission::Allowed);
        Ok(Self {
            pools: Patterns(spec.pools.clone()),
            own_pods: allowed(spec.own_pods),
            images: Patterns(spec.images.clone()),
            tiers: spec.tiers.clone(),
            layers: spec.required_layers.clone(),
            most: spec.max_limits.as_ref().map(most).transpose()?.unwrap_or_default(),
            env_from_secrets: allowed(spec.env_from_secrets),
            earlier_results: allowed(spec.earlier_results),
            unpublished_proofs: allowed(spec.unpublished_proofs),
        })
    }

    /// What of `asked` breaks a rule, in the order of the fields.
    fn violations(&self, policy: &Policy, asked: &Asked<'_>) -> Vec<Violation> {
        let Self { most, layers, env_from_secrets, earlier_results, unpublished_proofs, .. } = self;
        let mut found = Found { policy, violations: Vec::new() };
        let forbidden = |permission: &Permission| *permission == Permission::Forbidden;
        self.place(asked, &mut found);
        layers.iter().for_each(|layer| found.layer(*layer, asked));
        most.iter().for_each(|(limit, most)| found.limit(*limit, *most, &asked.request.limits));
        if forbidden(env_from_secrets) {
            let refs = asked.request.env_refs.iter();
            for taken in refs.filter(|taken| matches!(taken.source, ValueSource::Secret { .. })) {
                let is = format!("spec.env[{}].valueFrom names a Secret", taken.name.as_str());
                found.add("envFromSecrets", &is, "admits no value of a Secret: remove it");
            }
        }
        if forbidden(earlier_results) && asked.cache == CacheMode::Use {
            let is = "spec.cache is Use, or absent in what a GitOps tool or Helm tracks";
            found.add("earlierResults", is, "wants a run: set it to Never or Refresh");
        }
        if forbidden(unpublished_proofs) && !asked.publish {
            found.add(
                "unpublishedProofs",
                "spec.proof.publish is Never",
                "wants the proof: set it to Always",
            );
        }
        found.violations
    }

    /// What the rules say about where `asked` wants to run.
    fn place(&self, asked: &Asked<'_>, found: &mut Found<'_>) {
        let Self { pools, own_pods, images, tiers, .. } = self;
        let Some(pod) = asked.pod else {
            if !pools.admit(asked.pool) {
                let is = format!("spec.executor.poolRef.name is {}", asked.pool);
                found.add("pools", &is, &format!("admits {pools}"));
            }
            return;
        };
        if *own_pods == Permission::Forbidden {
            return found.add("ownPods", "spec.executor.pod is given", "admits none: name a pool");
        }
        if !images.admit(&pod.image) {
            let is = format!("spec.executor.pod.image is {}", pod.image);
            found.add("images", &is, &format!("admits {images}"));
        }
        if !tiers.is_empty() && !tiers.contains(&pod.tier) {
            let words: Vec<&str> = tiers.iter().map(|tier| tier.as_str()).collect();
            let is = format!("spec.executor.pod.tier is {}", pod.tier.as_str());
            found.add("tiers", &is, &format!("admits {}", words.join(", ")));
        }
    }
}

/// Violations of one policy, as they are found.
struct Found<'a> {
    policy: &'a Policy,
    violations: Vec<Violation>,
}

impl Found<'_> {
    fn add(&mut self, rule: &'static str, is: &str, wants: &str) {
        let message = format!("{is}, and {rule} of {} {wants}", self.policy);
        let policy = self.policy.name.clone();
        self.violations.push(Violation { kind: self.policy.kind, policy, rule, message });
    }

    fn layer(&mut self, layer: Layer, asked: &Asked<'_>) {
        let word = match asked.request.policy.requirement(layer) {
            Requirement::Required => return,
            Requirement::Preferred => "preferred",
            Requirement::Off => "disabled",
        };
        let is = format!("spec.policy.layers.{layer} is {word}");
        self.add("requiredLayers", &is, "wants required: set it, or leave it out");
    }

    fn limit(&mut self, limit: Limit, most: u64, limits: &Limits) {
        let asked = limit.of(limits);
        if asked > most {
            let (field, asked, most) = (limit.field(), limit.say(asked), limit.say(most));
            let is = format!("spec.{field} is {asked}");
            self.add("maxLimits", &is, &format!("admits at most {most}"));
        }
    }
}

fn most(spec: &MaxLimits) -> Result<Vec<(Limit, u64)>, String> {
    let MaxLimits { timeout_seconds, output, memory, pids, scratch, scratch_inodes, open_files } = spec;
    let number = |limit: Limit, value: &Option<u32>| Ok(value.map(|value| (limit, u64::from(value))));
    let bytes = |limit: Limit, value: &Option<ByteQuantity>| {
        let read = |value: &ByteQuantity| match value.bytes() {
            Ok(bytes) => Ok((limit, bytes)),
            Err(error) => Err(format!("spec.maxLimits, of {}: {error}", limit.field())),
        };
        value.as_ref().map(read).transpose()
    };
    let all = [
        number(Limit::Timeout, timeout_seconds),
        bytes(Limit::Output, output),
        bytes(Limit::Memory, memory),
        number(Limit::Pids, pids),
        bytes(Limit::Scratch, scratch),
        number(Limit::ScratchInodes, scratch_inodes),
        number(Limit::OpenFiles, open_files),
    ];
    all.into_iter().filter_map(Result::transpose).collect()
}

impl Limit {
    /// The field of an Execution's spec.
    const fn field(self) -> &'static str {
        match self {
            Self::Timeout => "timeoutSeconds",
            Self::Output => "limits.output",
            Self::Memory => "limits.memory",
            Self::Pids => "limits.pids",
            Self::Scratch => "limits.scratch",
            Self::ScratchInodes => "limits.scratchInodes",
            Self::OpenFiles => "limits.openFiles",
        }
    }

    fn of(self, limits: &Limits) -> u64 {
        match self {
            Self::Timeout => limits.timeout_ms.div_ceil(1000),
            Self::Output => limits.max_output_bytes,
            Self::Memory => limits.memory_bytes,
            Self::Pids => limits.pids,
            Self::Scratch => limits.scratch_bytes,
            Self::ScratchInodes => limits.scratch_inodes,
            Self::OpenFiles => limits.open_files,
        }
    }

    fn say(self, value: u64) -> String {
        match self {
            Self::Output | Self::Memory | Self::Scratch => in_units(value),
            Self::Timeout | Self::Pids | Self::ScratchInodes | Self::OpenFiles => value.to_string(),
        }
    }
}

/// Bytes as one would write them, exactly.
fn in_units(bytes: u64) -> String {
    let units = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let unit = units.into_iter().find(|(_, power)| bytes > 0 && bytes.trailing_zeros() >= *power);
    unit.map_or_else(|| bytes.to_string(), |(name, power)| format!("{}{name}", bytes >> power))
}

// === impl Patterns ===

impl Patterns {
    fn admit(&self, text: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| matches(pattern, text))
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed: Vec<&str> = self.0.iter().take(LISTED).map(String::as_str).collect();
        out.write_str(&listed.join(", "))?;
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(out, " and {more} more"),
        }
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        // The first place is as good as any: what follows has the most room there.
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::execution::LayerRequirement;
    use crate::{Execution, ExecutionSpec, convert};

    fn policy(rules: &Value) -> Policy {
        let metadata = json!({"namespace": "default", "name": "p", "generation": 3});
        let object = json!({"apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutionPolicy", "metadata": metadata, "spec": rules});
        Policy::read::<ExecutionPolicy>(&serde_json::from_value(object).unwrap())
    }

    fn says(policies: &[Policy], change: impl FnOnce(&mut ExecutionSpec)) -> Verdict {
        let mut object = Execution::new("e", ExecutionSpec::new(vec!["/bin/true".into()]));
        object.metadata.namespace = Some("default".into());
        change(&mut object.spec);
        let (request, _) = convert::to_request(&object.spec).unwrap();
        judge(policies.iter(), &Asked::of(&object, &request))
    }

    #[test]
    fn every_rule_is_named() {
        let schema = serde_json::to_value(schemars::schema_for!(PolicyRules)).unwrap();
        let fields = schema["properties"].as_object().unwrap().keys().map(String::as_str);
        let named: std::collections::BTreeSet<&str> = RULES.into_iter().collect();
        assert_eq!(fields.collect::<std::collections::BTreeSet<_>>(), named);
    }

    type Change = fn(&mut ExecutionSpec);

    const PLAIN: Change = |_| {};
    const OWN_POD: Change = |spec| {
        let pod = json!({"image": "r.example/team/tool:1", "tier": "T2"});
        spec.executor.pod = Some(serde_json::from_value(pod).unwrap());
    };
    const SECRET: Change = |spec| {
        OWN_POD(spec);
        let from = json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}});
        let map = json!({"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}});
        spec.env = vec![serde_json::from_value(from).unwrap(), serde_json::from_value(map).unwrap()];
    };

    /// What a policy with one rule says to an Execution.
    fn check(rules: &Value, change: Change, expect: &str) {
        let verdict = match says(&[policy(rules)], change) {
            Verdict::Admitted => "admitted".to_owned(),
            Verdict::Unreadable(why) => format!("unreadable: {why}"),
            Verdict::Refused(violations) => {
                violations.into_iter().map(|one| one.message).collect::<Vec<_>>().join("; ")
            }
        };
        assert_eq!(verdict, expect.replace("THE", "ExecutionPolicy p (generation 3)"), "{rules}");
    }

    #[test]
    fn each_rule_names_field_value_policy_and_what_it_admits() {
        let pool = "spec.executor.poolRef.name is default, and pools of THE admits";
        check(&json!({"pools": ["gpu", "def*"]}), PLAIN, "admitted");
        check(&json!({"pools": ["gpu", "big-*"]}), PLAIN, &format!("{pool} gpu, big-*"));
        let many: Vec<String> = (1..=7).map(|n| format!("p{n}")).collect();
        check(&json!({"pools": many}), PLAIN, &format!("{pool} p1, p2, p3, p4, p5 and 2 more"));
        check(&json!({"pools": ["gpu"]}), OWN_POD, "admitted");
        let none = json!({"ownPods": "Forbidden", "images": ["x"], "tiers": ["T1"]});
        check(&none, PLAIN, "admitted");
        check(&none, OWN_POD, "spec.executor.pod is given, and ownPods of THE admits none: name a pool");
        check(&json!({"ownPods": "Allowed"}), OWN_POD, "admitted");
        check(&json!({"images": ["r.example/team/*"]}), OWN_POD, "admitted");
        check(
            &json!({"images": ["r.example/team/*@sha256:*"]}),
            OWN_POD,
            "spec.executor.pod.image is r.example/team/tool:1, and images of THE admits r.example/team/*@sha256:*",
        );
        check(&json!({"tiers": ["T1", "T2"]}), OWN_POD, "admitted");
        let tier = "spec.executor.pod.tier is T2, and tiers of THE admits T1, T3";
        check(&json!({"tiers": ["T1", "T3"]}), OWN_POD, tier);
        check(&json!({"envFromSecrets": "Forbidden"}), OWN_POD, "admitted");
        let secret = "spec.env[TOKEN].valueFrom names a Secret, and envFromSecrets of THE admits no value of a Secret: remove it";
        check(&json!({"envFromSecrets": "Forbidden"}), SECRET, secret);
    }

    #[test]
    fn layers_that_are_left_out_are_required_anyway() {
        let rule = json!({"requiredLayers": ["networkNamespace", "seccomp"]});
        check(&rule, PLAIN, "admitted");
        const LOOSE: Change = |spec| {
            let level = |layer, level| (layer, level);
            let layers = [
                level(Layer::NetworkNamespace, LayerRequirement::Disabled),
                level(Layer::Seccomp, LayerRequirement::Preferred),
                level(Layer::Landlock, LayerRequirement::Disabled),
            ];
            spec.policy.get_or_insert_default().layers = layers.into();
        };
        let wants = "requiredLayers of THE wants required: set it, or leave it out";
        let both = format!(
            "spec.policy.layers.networkNamespace is disabled, and {wants}; \
             spec.policy.layers.seccomp is preferred, and {wants}"
        );
        check(&rule, LOOSE, &both);
        check(&json!({"requiredLayers": ["procfs"]}), LOOSE, "admitted");
    }

    #[test]
    fn a_limit_is_the_most_that_may_be_asked_for() {
        let whole = json!({"maxLimits": {
            "timeoutSeconds": 300, "output": "4Mi", "memory": "1Gi", "pids": 256, "scratch": "512Mi",
            "scratchInodes": 100_000, "openFiles": 1024,
        }});
        check(&whole, PLAIN, "admitted");
        let is = [
            ("timeoutSeconds", json!(299), "spec.timeoutSeconds is 300", "299"),
            ("output", json!("4095Ki"), "spec.limits.output is 4Mi", "4095Ki"),
            ("memory", json!("1073741823"), "spec.limits.memory is 1Gi", "1073741823"),
            ("pids", json!(255), "spec.limits.pids is 256", "255"),
            ("scratch", json!(0), "spec.limits.scratch is 512Mi", "0"),
            ("scratchInodes", json!(99_999), "spec.limits.scratchInodes is 100000", "99999"),
            ("openFiles", json!(8), "spec.limits.openFiles is 1024", "8"),
        ];
        for (name, most, is, said) in is {
            let mut rules = whole.clone();
            rules["maxLimits"][name] = most;
            check(&rules, PLAIN, &format!("{is}, and maxLimits of THE admits at most {said}"));
        }
    }

    #[test]
    fn cache_and_publication_may_be_forbidden() {
        let earlier = json!({"earlierResults": "Forbidden"});
        check(&earlier, |spec| spec.cache = Some(CacheMode::Refresh), "admitted");
        let is = "spec.cache is Use, or absent in what a GitOps tool or Helm tracks";
        let wants = "and earlierResults of THE wants a run: set it to Never or Refresh";
        check(&earlier, |spec| spec.cache = Some(CacheMode::Use), &format!("{is}, {wants}"));
        let published = json!({"unpublishedProofs": "Forbidden"});
        check(&published, PLAIN, "admitted");
        let never: Change = |spec| spec.proof.publish = crate::execution::Publish::Never;
        let is =
            "spec.proof.publish is Never, and unpublishedProofs of THE wants the proof: set it to Always";
        check(&published, never, is);
        check(&json!({"earlierResults": "Allowed", "unpublishedProofs": "Allowed"}), never, "admitted");
    }

    #[test]
    fn a_message_ends_with_what_to_do_however_much_is_wrong() {
        let images: Vec<String> = (0..64).map(|n| format!("{n}{}", "x".repeat(500))).collect();
        let of = |name: &str| Policy {
            name: name.to_owned(),
            ..policy(&json!({"images": images, "tiers": ["T1"]}))
        };
        for (policies, more) in [
            (vec![of("a")], "; and 1 more"),
            ((0..40).map(|n| of(&n.to_string())).collect(), "; and 79 more"),
        ] {
            let Verdict::Refused(violations) = says(&policies, OWN_POD) else { panic!("not refused") };
            let told = told(&violations, 0);
            assert!(told.starts_with("nothing ran: spec.executor.pod.image is "), "{told}");
            assert!(
                told.ends_with(&format!(
                    "{more}; create an Execution that is admitted, or have the policy changed"
                )),
                "{told}"
            );
            assert!(told.chars().count() <= 1000, "{}", told.chars().count());
        }
        let Verdict::Refused(short) = says(&[policy(&json!({"pools": ["gpu"]}))], PLAIN) else {
            panic!("not refused")
        };
        assert!(!told(&short, 0).contains("more;"));
        // An attempt that was lost may have run.
        let again = told(&short, 2);
        assert!(
            again.starts_with("attempt 2 was lost, and another one is not admitted: spec.executor"),
            "{again}"
        );
    }

    /// The slow and obvious way.
    fn fits(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skipped| fits(rest, &text[skipped..])),
            Some((first, rest)) => text.first() == Some(first) && fits(rest, &text[1..]),
        }
    }

    fn words(letters: &str, longest: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut last = all.clone();
        for _ in 0..longest {
            last = last
                .iter()
                .flat_map(|word| letters.chars().map(move |letter| format!("{word}{letter}")))
                .collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    #[test]
    fn patterns_fit_as_the_obvious_way_says() {
        let texts = words("aé", 5);
        let mut fitting = 0;
        for pattern in words("aé*", 5) {
            let letters: Vec<char> = pattern.chars().collect();
            for text in &texts {
                let expect = fits(&letters, &text.chars().collect::<Vec<_>>());
                assert_eq!(matches(&pattern, text), expect, "{pattern:?} {text:?}");
                fitting += usize::from(expect);
            }
        }
        assert!(fitting > 1000, "{fitting}");
    }

    #[test]
    fn bytes_read_as_one_would_write_them() {
        let table =
            [(0, "0"), (1023, "1023"), (1024, "1Ki"), (1536, "1536"), (3 << 29, "1536Mi"), (5 << 40, "5Ti")];
        for (bytes, text) in table {
            assert_eq!(in_units(bytes), text);
        }
    }
}
