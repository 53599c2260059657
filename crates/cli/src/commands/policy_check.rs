//! `requiem policy check`: would these policies admit these Executions? The operator's own judgement, asked of files.
//!
//! Flow: read policies → read Executions → convert each as the operator does → judge → one verdict each.

use requiem_crds::admission::{Asked, Kind, Policy, Verdict, Violation, judge};
use requiem_crds::{ClusterExecutionPolicy, Execution, ExecutionPolicy, PolicyRules, convert};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::PolicyCheck;
use crate::error::CommandError;
use crate::manifest::{self, Manifest};
use crate::report::Report;
use crate::text::{count, printable};

/// What came of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Checked {
    ok: bool,
    /// How many policies were read.
    policies: usize,
    executions: Vec<Judged>,
}

/// What the policies say about one Execution.
#[derive(Serialize, JsonSchema)]
pub(super) struct Judged {
    namespace: String,
    name: String,
    admitted: bool,
    /// The policies that speak of its namespace.
    policies: Vec<String>,
    violations: Vec<Broken>,
}

/// A rule that it breaks.
#[derive(Serialize, JsonSchema)]
pub(super) struct Broken {
    kind: &'static str,
    policy: String,
    rule: &'static str,
    message: String,
}

/// Runs the command. Exit code 1 if an Execution is refused.
pub(crate) fn run(arguments: &PolicyCheck) -> Result<Report, CommandError> {
    let namespace = &arguments.namespace;
    let mut policies = Vec::new();
    for path in &arguments.policies {
        for manifest in manifest::read(path, &[Kind::Namespaced.as_str(), Kind::Cluster.as_str()])? {
            policies.push(policy(&manifest, namespace)?);
        }
    }
    policies.sort_by(|one, other| one.place().cmp(&other.place()));
    let mut executions = Vec::new();
    for path in &arguments.files {
        for manifest in manifest::read(path, &["Execution"])? {
            executions.push(judged(&manifest, namespace, &policies)?);
        }
    }
    let ok = executions.iter().all(|one| one.admitted);
    let checked = Checked { ok, policies: policies.len(), executions };
    let text = text(&checked);
    Ok(Report::new(&checked, text, ok))
}

fn policy(manifest: &Manifest, namespace: &str) -> Result<Policy, CommandError> {
    let (rules, policy) = if manifest.kind == Kind::Cluster.as_str() {
        let object: ClusterExecutionPolicy = manifest.typed(namespace)?;
        (object.spec.rules.clone(), Policy::read(&object))
    } else {
        let object: ExecutionPolicy = manifest.typed(namespace)?;
        (object.spec.rules.clone(), Policy::read(&object))
    };
    if rules == PolicyRules::default() {
        return Err(manifest.refused("spec has no rule; give at least one, such as maxLimits"));
    }
    Ok(policy)
}

fn judged(manifest: &Manifest, namespace: &str, policies: &[Policy]) -> Result<Judged, CommandError> {
    let execution: Execution = manifest.typed(namespace)?;
    let (request, _) =
        convert::to_request(&execution.spec).map_err(|error| manifest.refused(&error.to_string()))?;
    let asked = Asked::of(&execution, &request);
    let violations = match judge(policies.iter(), &asked) {
        Verdict::Admitted => Vec::new(),
        Verdict::Refused(violations) => violations.into_iter().map(Broken::from).collect(),
        Verdict::Unreadable(why) => {
            let hint = "an operator starts nothing while a policy of the namespace cannot be read; see docs/policies.md";
            return Err(CommandError::unusable("PolicyUnavailable", why, hint));
        }
    };
    let speak = policies.iter().filter(|policy| policy.speaks_of(asked.namespace));
    let metadata = &execution.metadata;
    Ok(Judged {
        namespace: asked.namespace.to_owned(),
        name: metadata.name.clone().or_else(|| metadata.generate_name.clone()).unwrap_or_default(),
        admitted: violations.is_empty(),
        policies: speak.map(Policy::to_string).collect(),
        violations,
    })
}

impl From<Violation> for Broken {
    fn from(violation: Violation) -> Self {
        let Violation { kind, policy, rule, message } = violation;
        Self { kind: kind.as_str(), policy, rule, message }
    }
}

fn text(checked: &Checked) -> String {
    let mut out = String::new();
    for one in &checked.executions {
        let verdict = match (one.violations.len(), one.policies.len()) {
            (0, 0) => "admitted: no policy speaks of its namespace".to_owned(),
            (0, speaking) => format!("admitted by {}", count(speaking as u64, "policy", "policies")),
            (broken, _) => format!("refused, {}", count(broken as u64, "broken rule", "broken rules")),
        };
        let name = format!("{}/{}", one.namespace, one.name);
        out.push_str(&format!("{}: {verdict}\n", printable(&name)));
        for broken in &one.violations {
            out.push_str(&format!("  {}\n", printable(&broken.message)));
        }
    }
    out
}
