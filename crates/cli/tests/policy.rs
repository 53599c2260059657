//! `requiem policy check`: the operator's judgement on files, and what is no file to judge.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use common::{Desk, Said, repository};
use serde_json::{Value, json};

fn sample(name: &str) -> String {
    repository(&format!("config/samples/policies/{name}.yaml")).canonicalize().unwrap().display().to_string()
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "requiem.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn check(desk: &Desk, execution: &Value, policies: &Value) -> Said {
    desk.write("execution.yaml", execution.to_string());
    desk.write("policies.yaml", policies.to_string());
    desk.requiem(&["policy", "check", "execution.yaml", "--policies", "policies.yaml"])
}

fn runs(spec: Value) -> Value {
    let mut object = object("Execution", "e", spec);
    object["spec"]["command"] = json!(["/bin/true"]);
    object
}

#[test]
fn samples_are_judged_as_they_say() {
    let desk = Desk::new();
    let [team, cluster, refused, admitted] = ["team", "cluster", "refused", "admitted"].map(sample);
    let said = desk.requiem(&["policy", "check", &admitted, "--policies", &team, &cluster]);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, "default/admitted: admitted by 1 policy\n"),
        "{said:?}"
    );
    let said = desk.requiem(&["policy", "check", &admitted, &refused, "--policies", &team]);
    assert_eq!(said.code, 1, "{said:?}");
    // The page shows the operator's words, with the generation that a file has not.
    let page = std::fs::read_to_string(repository("docs/policies.md")).unwrap();
    let told =
        page.lines().find(|line| line.starts_with("nothing ran: ")).unwrap().replace(" (generation 1)", "");
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(
        lines[..2],
        ["default/admitted: admitted by 1 policy", "default/refused: refused, 3 broken rules"]
    );
    assert_eq!(lines.len(), 5);
    assert!(
        told.contains(&lines[2..].iter().map(|line| line.trim_start()).collect::<Vec<_>>().join("; ")),
        "{told}"
    );
    // Elsewhere the policy of the cluster speaks, and the other one lies in the same namespace by default.
    let arguments =
        ["policy", "check", &refused, "--policies", &team, &cluster, "--namespace", "team-a", "--json"];
    let document = desk.requiem(&arguments).json();
    let judged = &document["executions"][0];
    assert_eq!((&judged["namespace"], &document["policies"]), (&json!("team-a"), &json!(2)));
    assert_eq!(judged["policies"], json!(["ClusterExecutionPolicy teams", "ExecutionPolicy team"]));
    let rules: Vec<_> =
        judged["violations"].as_array().unwrap().iter().map(|one| (&one["policy"], &one["rule"])).collect();
    let broken = [
        ("teams", "requiredLayers"),
        ("team", "requiredLayers"),
        ("team", "maxLimits"),
        ("team", "maxLimits"),
    ];
    assert_eq!(
        rules,
        broken.map(|(policy, rule)| (json!(policy), json!(rule))).each_ref().map(|(p, r)| (p, r))
    );
}

#[test]
fn the_stricter_wins_whatever_the_order() {
    let desk = Desk::new();
    let most = |name: &str, kind: &str, most: u32| {
        let mut spec = json!({"maxLimits": {"timeoutSeconds": most}});
        if kind == "ClusterExecutionPolicy" {
            spec["namespaces"] = json!(["*"]);
        }
        object(kind, name, spec)
    };
    for (cluster, own, refuses) in [(50, 100, "ClusterExecutionPolicy c"), (100, 50, "ExecutionPolicy o")] {
        let (c, o) = (most("c", "ClusterExecutionPolicy", cluster), most("o", "ExecutionPolicy", own));
        for items in [json!([c, o]), json!([o, c])] {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
            let said = check(&desk, &runs(json!({"timeoutSeconds": 70})), &list);
            let words = format!(
                "default/e: refused, 1 broken rule\n  spec.timeoutSeconds is 70, and maxLimits of {refuses} admits at most 50\n"
            );
            assert_eq!((said.code, said.stdout), (1, words));
            assert_eq!(check(&desk, &runs(json!({"timeoutSeconds": 50})), &list).code, 0);
        }
    }
}

#[test]
fn documents_lists_and_standard_input_are_read() {
    let desk = Desk::new();
    let policy = |namespace: &str| {
        let mut policy = object("ExecutionPolicy", "p", json!({"pools": ["gpu"]}));
        policy["metadata"]["namespace"] = json!(namespace);
        policy
    };
    desk.write("policies.yaml", format!("---\n---\n{}\n---\n{}\n", policy("a"), policy("b")));
    let mut here = runs(json!({}));
    here["metadata"] = json!({"generateName": "here-", "namespace": "b"});
    let both = format!("# two\n{}\n---\n{here}\n", runs(json!({})));
    let said = desk.requiem_with(&["policy", "check", "-", "--policies", "policies.yaml"], both.as_bytes());
    let first = "default/e: admitted: no policy speaks of its namespace\nb/here-: refused, 1 broken rule\n  spec.executor.poolRef.name";
    assert!(said.code == 1 && said.stdout.starts_with(first), "{said:?}");
}

#[test]
fn what_cannot_be_judged_is_no_admission() {
    let desk = Desk::new();
    let fine = object("ExecutionPolicy", "p", json!({"pools": ["*"]}));
    let policy = |spec: Value| (runs(json!({})), object("ExecutionPolicy", "p", spec));
    let execution = |spec: Value| (runs(spec), fine.clone());
    let mut elsewhere = fine.clone();
    elsewhere["rules"] = json!({});
    for ((execution, policy), words) in [
        (
            policy(json!({"maxLimit": {"pids": 1}})),
            "policies.yaml: ExecutionPolicy p: spec.maxLimit is not a field of it",
        ),
        (policy(json!({"maxLimits": {"cpu": 1}})), "spec.maxLimits.cpu is not a field of it"),
        (policy(json!({})), "spec has no rule"),
        (policy(json!({"pools": []})), "spec.pools is empty"),
        (policy(json!({"ownPods": "Never"})), "unknown variant `Never`"),
        (
            policy(json!({"maxLimits": {"memory": "0.3"}})),
            "ExecutionPolicy p cannot be read: spec.maxLimits, of limits.memory",
        ),
        (policy(json!({"maxLimits": {"memory": "9Ei"}})), "\"9Ei\" is too large"),
        ((runs(json!({})), elsewhere), "rules is not a field of it"),
        ((runs(json!({})), runs(json!({}))), "kind \"Execution\", in it"),
        ((fine.clone(), fine.clone()), "execution.yaml: there is an object"),
        ((runs(json!({})), json!(null)), "there is no object in it"),
        (execution(json!({"timeout": 5})), "execution.yaml: Execution e: spec.timeout is not a field of it"),
        (
            execution(
                json!({"policy": {"layers": {"cgroup": "preferred"}}, "inputs": [{"path": "a", "blub": ""}]}),
            ),
            "spec.inputs[0].blub",
        ),
        (execution(json!({"limits": {"memory": "0.3"}})), "Execution e: "),
    ] {
        let said = check(&desk, &execution, &policy);
        assert!(said.code == 2 && said.stderr.contains(words), "{words}: {said:?}");
        assert!(said.stdout.is_empty(), "{said:?}");
    }
    let said = desk.requiem(&["policy", "check", "execution.yaml"]);
    assert!(said.code == 2 && said.stderr.contains("--policies"), "{said:?}");
}
