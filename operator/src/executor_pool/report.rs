//! Step 5, pure: from answers, and from pods, to a status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use requiem_crds::ExecutorPoolStatus;
use requiem_crds::condition::{ConditionStatus, ConditionType, Reason, Wanted, conditions};
use requiem_crds::executor_pool::EndpointStatus;
use requiem_model::Layer;
use requiem_model::attempt::Capabilities;
use requiem_model::report::Status;

use super::member::{Member, Stage};
use super::pod::POOL_LABEL;
use super::roster::executor_name;
use super::trouble::Trouble;
use crate::dispatch::{DispatchError, Endpoint};

const MAX_MESSAGE: usize = 1000;
const UNREADY: &str = "its pod is not ready; the log of its container executor says why";
/// Troubles that a message tells.
const TOLD: usize = 3;

/// What one endpoint said.
pub type Answer = (Endpoint, Result<Capabilities, DispatchError>);

/// What is known of the pods of a pool.
#[derive(Debug, Clone, Default)]
pub struct Crew<'a> {
    /// Name of the pool.
    pub pool: &'a str,
    /// Pods that are wanted.
    pub replicas: u32,
    /// Hash of the template that is wanted.
    pub template: &'a str,
    /// Whether stores outlive pods.
    pub persists: bool,
    /// Its pods.
    pub members: &'a [Member],
    /// Whether pods cannot be seen; then nothing is known of their number.
    pub unseen: bool,
    /// What stands in the way, besides what the pods say themselves.
    pub troubles: Vec<Trouble>,
}

/// The status of a pool of fixed addresses.
pub fn of_endpoints(
    answers: &[Answer],
    previous: &ExecutorPoolStatus,
    generation: i64,
    now: &Time,
) -> ExecutorPoolStatus {
    let endpoints: Vec<EndpointStatus> =
        answers.iter().map(|(endpoint, answer)| answered(endpoint.name.clone(), answer)).collect();
    let ready = endpoints.iter().filter(|endpoint| endpoint.ready).count();
    let summary = format!("{ready}/{}", endpoints.len());
    let wanted = fixed(&endpoints, ready);
    ExecutorPoolStatus { summary: Some(summary), ..status(endpoints, &wanted, previous, generation, now) }
}

/// The status of a pool of pods.
pub fn of_pods(
    crew: &Crew<'_>,
    answers: &[Answer],
    previous: &ExecutorPoolStatus,
    generation: i64,
    now: &Time,
) -> ExecutorPoolStatus {
    let present = crew.members.iter().filter(|member| member.stage != Stage::Over);
    let endpoints: Vec<EndpointStatus> = present.map(|member| of_pod(crew, member, answers)).collect();
    let ready = endpoints.iter().filter(|endpoint| endpoint.ready).count();
    let live = crew.members.iter().filter(|member| member.is_live()).count();
    let count = |number: usize| Some(u32::try_from(number).unwrap_or(u32::MAX));
    let wanted = manned(crew, ready, live);
    ExecutorPoolStatus {
        summary: Some(format!("{ready}/{}", crew.replicas)),
        replicas: if crew.unseen { previous.replicas } else { count(live) },
        ready_replicas: if crew.unseen { previous.ready_replicas } else { count(ready) },
        selector: Some(format!("{POOL_LABEL}={}", crew.pool)),
        ..status(endpoints, &wanted, previous, generation, now)
    }
}

fn status(
    mut endpoints: Vec<EndpointStatus>,
    wanted: &[Wanted],
    previous: &ExecutorPoolStatus,
    generation: i64,
    now: &Time,
) -> ExecutorPoolStatus {
    endpoints.truncate(128);
    ExecutorPoolStatus {
        observed_generation: generation.max(previous.observed_generation),
        conditions: conditions(wanted, &previous.conditions, generation, now),
        capacity: endpoints.iter().map(|endpoint| endpoint.slots).sum::<u32>().min(1_000_000),
        endpoints,
        ..ExecutorPoolStatus::default()
    }
}

fn answered(name: String, answer: &Result<Capabilities, DispatchError>) -> EndpointStatus {
    match answer {
        Ok(capabilities) => EndpointStatus {
            name,
            ready: !capabilities.draining,
            slots: if capabilities.draining { 0 } else { capabilities.slots.min(100_000) },
            version: Some(clip(&capabilities.version, 64)),
            sandbox: Some(format!(
                "{}/{} enforced",
                capabilities.sandbox.names(Status::Enforced).len(),
                Layer::ALL.len()
            )),
            message: capabilities
                .draining
                .then(|| "it drains: what runs may end, nothing new starts".to_owned()),
            ..EndpointStatus::default()
        },
        Err(error) => EndpointStatus {
            name,
            message: Some(clip(&error.to_string(), MAX_MESSAGE)),
            ..EndpointStatus::default()
        },
    }
}

fn of_pod(crew: &Crew<'_>, member: &Member, answers: &[Answer]) -> EndpointStatus {
    let name = executor_name(member, crew.persists);
    let answer = answers.iter().find(|(endpoint, _)| endpoint.name == name).map(|(_, answer)| answer);
    let said = answer.map(|answer| answered(name.clone(), answer));
    let mut status = said.unwrap_or_else(|| EndpointStatus { name, ..EndpointStatus::default() });
    (status.pod, status.node) = (Some(member.name.clone()), member.node.clone());
    if member.stage != Stage::Serving {
        (status.ready, status.slots) = (false, 0);
        let trouble = member.trouble.as_ref().map(|trouble| trouble.message.as_str());
        let word = match member.stage {
            Stage::Leaving => "it is to go, and drains",
            Stage::Faltering => trouble.unwrap_or(UNREADY),
            _ => trouble.unwrap_or("its pod starts"),
        };
        // That it cannot be reached, and why, tells more than that its pod is not ready.
        let unreached = matches!(answer, Some(Err(_))) && word == UNREADY;
        let said = status.message.take().filter(|_| unreached);
        status.message = Some(said.unwrap_or_else(|| clip(word, MAX_MESSAGE)));
    }
    status
}

fn fixed(endpoints: &[EndpointStatus], ready: usize) -> Vec<Wanted> {
    let troubles: Vec<&str> = endpoints.iter().filter_map(|endpoint| endpoint.message.as_deref()).collect();
    let (reason, message) = match (ready, endpoints.len()) {
        (_, 0) => (
            Reason::NoEndpoints,
            "the pool names no executor; add one to spec.endpoints, or give spec.pods".to_owned(),
        ),
        (0, _) => (Reason::NoExecutor, format!("no executor answers: {}", troubles.join("; "))),
        (some, all) if some == all => (Reason::ExecutorsReady, "every executor answers".to_owned()),
        _ => (Reason::SomeExecutorsReady, format!("some executors do not answer: {}", troubles.join("; "))),
    };
    let want = |kind, status| Wanted::new(kind, status, reason, clip(&message, MAX_MESSAGE));
    let mut wanted = vec![want(ConditionType::Ready, (ready > 0).into())];
    match reason {
        // Executors are probed until they answer; an empty list stays empty until somebody edits it.
        Reason::NoExecutor => wanted.push(want(ConditionType::Reconciling, ConditionStatus::True)),
        Reason::NoEndpoints => wanted.push(want(ConditionType::Stalled, ConditionStatus::True)),
        _ => {}
    }
    wanted
}

/// Ready says whether somebody serves; Reconciling, whether the pods are not yet what the spec wants.
fn manned(crew: &Crew<'_>, ready: usize, live: usize) -> Vec<Wanted> {
    let replicas = usize::try_from(crew.replicas).unwrap_or(usize::MAX);
    let old =
        crew.members.iter().filter(|member| member.is_live() && member.template != crew.template).count();
    if replicas == 0 && live == 0 {
        let message = "spec.pods.replicas is 0; raise it, or Executions wait";
        return [(ConditionType::Ready, false.into()), (ConditionType::Stalled, ConditionStatus::True)]
            .map(|(kind, status)| Wanted::new(kind, status, Reason::NoEndpoints, message))
            .into();
    }
    let mut troubles: Vec<&Trouble> = crew
        .troubles
        .iter()
        .chain(crew.members.iter().filter_map(|member| member.trouble.as_ref()))
        .collect();
    troubles.sort_by_key(|trouble| trouble.rank());
    let settled = ready == replicas && live == replicas && old == 0;
    let progress =
        format!("{ready} of {replicas} executor pods serve; {live} are there, {old} of them out of date");
    let told: Vec<&str> = troubles.iter().take(TOLD).map(|trouble| trouble.message.as_str()).collect();
    let told = if told.is_empty() { progress.clone() } else { format!("{progress}: {}", told.join("; ")) };
    let first = troubles.first().map(|trouble| trouble.reason);
    let want = |kind, status, reason: Reason, message: &str| {
        Wanted::new(kind, status, reason, clip(message, MAX_MESSAGE))
    };
    let (reason, unsettled) = match (settled, ready) {
        (true, _) => (Reason::ExecutorsReady, "every executor answers"),
        (false, 0) => (first.unwrap_or(Reason::NoExecutor), told.as_str()),
        (false, _) => (Reason::SomeExecutorsReady, told.as_str()),
    };
    let mut wanted = vec![want(ConditionType::Ready, (ready > 0).into(), reason, unsettled)];
    if !settled {
        let why = first.unwrap_or(Reason::PodsChanging);
        // What the API server refuses, it refuses until somebody changes something; the rest may pass by itself.
        let stuck = ready == 0 && why == Reason::PodRefused;
        let kind = if stuck { ConditionType::Stalled } else { ConditionType::Reconciling };
        wanted.push(want(kind, ConditionStatus::True, why, &told));
    }
    wanted
}

fn clip(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::jiff::Timestamp;
    use requiem_model::SandboxReport;
    use serde_json::{Value, json};

    use super::super::member::samples::{POOL, pod, serving};
    use super::*;

    fn capabilities(draining: bool) -> Capabilities {
        Capabilities {
            executor: "e".into(),
            version: "0.1.0".into(),
            slots: 4,
            sandbox: SandboxReport::default(),
            draining,
        }
    }

    fn answer(name: &str, up: bool) -> Answer {
        let endpoint =
            Endpoint { name: name.into(), url: format!("https://{name}:1"), ..Endpoint::default() };
        let down = DispatchError::Timeout { endpoint: endpoint.to_string(), after: Duration::from_secs(1) };
        (endpoint, if up { Ok(capabilities(false)) } else { Err(down) })
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn words(status: &ExecutorPoolStatus) -> String {
        let mut words = vec![status.summary.clone().unwrap(), status.capacity.to_string()];
        words.extend(status.conditions.iter().map(|c| format!("{}={}:{}", c.type_, c.status, c.reason)));
        words.join(" ")
    }

    #[test]
    fn each_state_of_a_pool_of_addresses() {
        let check = |answers: &[Answer], expect: &str| {
            let status = of_endpoints(answers, &ExecutorPoolStatus::default(), 3, &at(1));
            assert_eq!(words(&status), expect);
            assert_eq!((status.replicas, status.selector), (None, None));
        };
        check(&[], "0/0 0 Ready=False:NoEndpoints Stalled=True:NoEndpoints");
        check(&[answer("a", false)], "0/1 0 Ready=False:NoExecutor Reconciling=True:NoExecutor");
        check(&[answer("a", true), answer("b", false)], "1/2 4 Ready=True:SomeExecutorsReady");
        check(&[answer("a", true), answer("b", true)], "2/2 8 Ready=True:ExecutorsReady");
        let drains = (answer("a", true).0, Ok(capabilities(true)));
        check(&[drains], "0/1 0 Ready=False:NoExecutor Reconciling=True:NoExecutor");
    }

    #[test]
    fn the_same_answers_make_the_same_status() {
        let answers = [answer("a", true), answer("b", false)];
        let first = of_endpoints(&answers, &ExecutorPoolStatus::default(), 1, &at(1));
        assert_eq!(of_endpoints(&answers, &first, 1, &at(9)), first);
    }

    /// The status of a pool of two whose pods have these states; those that serve, answer.
    fn pods(states: &[Value], replicas: u32, troubles: &[Reason]) -> ExecutorPoolStatus {
        let members: Vec<Member> = (0u32..)
            .zip(states)
            .map(|(ordinal, state)| Member::of(POOL, &pod(ordinal, state, None)))
            .collect();
        let serving = members.iter().filter(|member| member.stage == Stage::Serving);
        let answers: Vec<Answer> =
            serving.map(|member| answer(&executor_name(member, false), true)).collect();
        let troubles =
            troubles.iter().map(|reason| Trouble { reason: *reason, message: "why".into() }).collect();
        let crew = Crew {
            pool: POOL,
            replicas,
            template: "new",
            persists: false,
            members: &members,
            troubles,
            ..Crew::default()
        };
        of_pods(&crew, &answers, &ExecutorPoolStatus::default(), 3, &at(1))
    }

    #[test]
    fn each_state_of_a_pool_of_pods() {
        let starting = || json!({"phase": "Pending"});
        let check = |states: &[Value], replicas, troubles: &[Reason], expect: &str| {
            assert_eq!(words(&pods(states, replicas, troubles)), expect);
        };
        check(&[], 0, &[], "0/0 0 Ready=False:NoEndpoints Stalled=True:NoEndpoints");
        check(&[], 2, &[], "0/2 0 Ready=False:NoExecutor Reconciling=True:PodsChanging");
        check(&[starting()], 1, &[], "0/1 0 Ready=False:NoExecutor Reconciling=True:PodsChanging");
        check(&[serving()], 1, &[], "1/1 4 Ready=True:ExecutorsReady");
        check(&[serving(), serving()], 2, &[], "2/2 8 Ready=True:ExecutorsReady");
        check(
            &[serving(), starting()],
            2,
            &[],
            "1/2 4 Ready=True:SomeExecutorsReady Reconciling=True:PodsChanging",
        );
        check(
            &[serving()],
            2,
            &[Reason::QuotaExceeded],
            "1/2 4 Ready=True:SomeExecutorsReady Reconciling=True:QuotaExceeded",
        );
        check(&[], 1, &[Reason::PodRefused], "0/1 0 Ready=False:PodRefused Stalled=True:PodRefused");
        check(
            &[],
            1,
            &[Reason::Unschedulable, Reason::CertificateUnavailable],
            "0/1 0 Ready=False:CertificateUnavailable Reconciling=True:CertificateUnavailable",
        );
        // More than are wanted, or others than are wanted: not what the spec says, so not settled.
        check(
            &[serving(), serving()],
            1,
            &[],
            "2/1 8 Ready=True:SomeExecutorsReady Reconciling=True:PodsChanging",
        );
    }

    #[test]
    fn each_pod_is_told_with_its_node() {
        let status = pods(&[serving(), json!({"phase": "Pending"})], 2, &[]);
        let [first, second] = &status.endpoints[..] else { panic!("{:?}", status.endpoints) };
        assert_eq!((first.ready, first.slots, first.message.as_deref()), (true, 4, None));
        assert_eq!(first.pod.as_deref(), Some("default-executor-0"));
        assert_eq!(first.node.as_deref(), Some("node-1"));
        assert_eq!((second.ready, second.message.as_deref()), (false, Some("its pod starts")));
        assert_eq!((status.replicas, status.ready_replicas), (Some(2), Some(1)));
        assert_eq!(status.selector.as_deref(), Some("requiem.dev/pool=default"));
    }
}
