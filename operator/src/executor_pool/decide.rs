//! Step 3, pure: from answers to a status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use requiem_crds::ExecutorPoolStatus;
use requiem_crds::condition::{ConditionStatus, ConditionType, Reason, Wanted, conditions};
use requiem_crds::executor_pool::EndpointStatus;
use requiem_model::Layer;
use requiem_model::attempt::Capabilities;
use requiem_model::report::Status;

use crate::dispatch::{DispatchError, Endpoint};

/// What one endpoint said.
pub type Answer = (Endpoint, Result<Capabilities, DispatchError>);

/// The status that these answers make.
pub fn status(
    answers: &[Answer],
    previous: &ExecutorPoolStatus,
    generation: i64,
    now: &Time,
) -> ExecutorPoolStatus {
    let endpoints: Vec<EndpointStatus> = answers.iter().map(endpoint).collect();
    let ready = endpoints.iter().filter(|endpoint| endpoint.ready).count();
    ExecutorPoolStatus {
        observed_generation: generation.max(previous.observed_generation),
        conditions: conditions(&wanted(&endpoints, ready), &previous.conditions, generation, now),
        summary: Some(format!("{ready}/{}", endpoints.len())),
        capacity: endpoints.iter().map(|endpoint| endpoint.slots).sum::<u32>().min(1_000_000),
        endpoints,
    }
}

fn endpoint((endpoint, answer): &Answer) -> EndpointStatus {
    let name = endpoint.name.clone();
    match answer {
        Ok(capabilities) => EndpointStatus {
            name,
            ready: true,
            slots: capabilities.slots.min(100_000),
            version: Some(capabilities.version.chars().take(64).collect()),
            sandbox: Some(format!(
                "{}/{} enforced",
                capabilities.sandbox.names(Status::Enforced).len(),
                Layer::ALL.len()
            )),
            message: None,
        },
        Err(error) => EndpointStatus {
            name,
            ready: false,
            slots: 0,
            version: None,
            sandbox: None,
            message: Some(error.to_string().chars().take(1000).collect()),
        },
    }
}

fn wanted(endpoints: &[EndpointStatus], ready: usize) -> Vec<Wanted> {
    let troubles: Vec<&str> = endpoints.iter().filter_map(|endpoint| endpoint.message.as_deref()).collect();
    let (reason, message) = match (ready, endpoints.len()) {
        (_, 0) => (Reason::NoEndpoints, "the pool names no executor; add one to spec.endpoints".to_owned()),
        (0, _) => (Reason::NoExecutor, format!("no executor answers: {}", troubles.join("; "))),
        (some, all) if some == all => (Reason::ExecutorsReady, "every executor answers".to_owned()),
        _ => (Reason::SomeExecutorsReady, format!("some executors do not answer: {}", troubles.join("; "))),
    };
    let message: String = message.chars().take(1000).collect();
    let want = |kind, status| Wanted::new(kind, status, reason, message.clone());
    let mut wanted = vec![want(ConditionType::Ready, (ready > 0).into())];
    match reason {
        // Executors are probed until they answer; an empty list stays empty until somebody edits it.
        Reason::NoExecutor => wanted.push(want(ConditionType::Reconciling, ConditionStatus::True)),
        Reason::NoEndpoints => wanted.push(want(ConditionType::Stalled, ConditionStatus::True)),
        _ => {}
    }
    wanted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::jiff::Timestamp;
    use requiem_model::SandboxReport;

    use super::*;

    fn answer(name: &str, up: bool) -> Answer {
        let endpoint = Endpoint { name: name.into(), url: format!("https://{name}:1"), server_name: None };
        let capabilities = Capabilities {
            executor: name.into(),
            version: "0.1.0".into(),
            slots: 4,
            sandbox: SandboxReport::default(),
            draining: false,
        };
        let down = DispatchError::Timeout { endpoint: endpoint.to_string(), after: Duration::from_secs(1) };
        (endpoint, if up { Ok(capabilities) } else { Err(down) })
    }

    fn words(answers: &[Answer]) -> Vec<String> {
        let now = Time(Timestamp::from_second(1).unwrap());
        let status = status(answers, &ExecutorPoolStatus::default(), 3, &now);
        let mut words = vec![status.summary.unwrap(), status.capacity.to_string()];
        words.extend(status.conditions.iter().map(|c| format!("{}={}:{}", c.type_, c.status, c.reason)));
        words
    }

    #[test]
    fn each_state_of_a_pool() {
        assert_eq!(words(&[]), ["0/0", "0", "Ready=False:NoEndpoints", "Stalled=True:NoEndpoints"]);
        assert_eq!(
            words(&[answer("a", false)]),
            ["0/1", "0", "Ready=False:NoExecutor", "Reconciling=True:NoExecutor"]
        );
        assert_eq!(
            words(&[answer("a", true), answer("b", false)]),
            ["1/2", "4", "Ready=True:SomeExecutorsReady"]
        );
        assert_eq!(words(&[answer("a", true), answer("b", true)]), ["2/2", "8", "Ready=True:ExecutorsReady"]);
    }

    #[test]
    fn the_same_answers_make_the_same_status() {
        let now = |second| Time(Timestamp::from_second(second).unwrap());
        let answers = [answer("a", true), answer("b", false)];
        let first = status(&answers, &ExecutorPoolStatus::default(), 1, &now(1));
        assert_eq!(status(&answers, &first, 1, &now(9)), first);
    }
}
