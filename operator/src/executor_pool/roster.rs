//! Which executors count, from the pool and its pods. Pure.
//!
//! | pod | new attempts | may have attempts |
//! |---|---|---|
//! | starting | no | no, unless its store outlived another pod |
//! | serving | yes | yes |
//! | faltering (was tried out, is not ready) | no | yes |
//! | leaving | no | yes, until it is gone, or half a minute after its grace |
//! | over, gone | no | no; with a store that stays, its successor answers |

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use requiem_crds::ExecutorPool;
use requiem_crds::executor_pool::EndpointSpec;

use super::member::{Member, Stage};
use super::observe::Unseen;
use super::pod;
use crate::certificates::server_name;
use crate::dispatch::{Endpoint, Trust};
use crate::fleet::{Post, Roster};
use crate::queue::Key;

/// How long after its grace a pod that is to go may still be there in earnest. Then its node does not answer, and who
/// asked for the deletion has said that what it has does not count.
pub const SLACK: Duration = Duration::from_secs(30);

/// The executors of `pool`, which has these pods, as far as they are known.
pub fn roster(pool: &ExecutorPool, members: Result<&[Member], Unseen>, now: Timestamp) -> Roster {
    let Some(pods) = &pool.spec.pods else {
        return Roster::Known(pool.spec.endpoints.iter().map(fixed).collect());
    };
    let members = match members {
        Ok(members) => members,
        Err(Unseen::Yet) => return Roster::Unlisted,
        Err(Unseen::Because(why)) => return Roster::Unwatched(why),
    };
    let key = Key::of(pool);
    if !pods.store.persists() {
        let counts = members.iter().filter(|member| counts(member, now));
        return Roster::Known(counts.filter_map(|member| post(&key, member, false)).collect());
    }
    // The folder of each number may hold results, whether its pod is there or not.
    let wanted = 0..pods.replicas;
    let extra = members.iter().filter(|member| counts(member, now)).filter_map(|member| member.ordinal);
    let ordinals: std::collections::BTreeSet<u32> = wanted.chain(extra).collect();
    let stands = |ordinal| {
        let member = members.iter().find(|member| member.ordinal == Some(ordinal) && counts(member, now));
        member.and_then(|member| post(&key, member, true)).unwrap_or_else(|| absent(&key, ordinal))
    };
    Roster::Known(ordinals.into_iter().map(stands).collect())
}

/// The name of the executor in a pod: another pod is another executor, unless it has the same store.
pub fn executor_name(member: &Member, persists: bool) -> String {
    if persists {
        return member.name.clone();
    }
    let fragment: String = member.uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("{}-{}", member.name, fragment.to_ascii_lowercase())
}

fn fixed(spec: &EndpointSpec) -> Post {
    let endpoint = Endpoint {
        name: spec.name.clone(),
        url: spec.url.clone(),
        server_name: spec.server_name.clone(),
        trust: Trust::Files,
    };
    Post { endpoint, takes: true, absent: None, node: None }
}

/// Whether what the pod's executor has counts.
pub fn counts(member: &Member, now: Timestamp) -> bool {
    let in_time = member.deadline.is_none_or(|deadline| now <= deadline + SLACK);
    member.established && member.ip.is_some() && member.stage != Stage::Over && in_time
}

/// The executor in a pod that has an address.
pub fn post(pool: &Key, member: &Member, persists: bool) -> Option<Post> {
    let ip = member.ip.as_ref()?;
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    let endpoint = Endpoint {
        name: executor_name(member, persists),
        url: format!("https://{host}:{}", pod::PORT),
        server_name: Some(server_name(&pool.namespace)),
        trust: Trust::Issued,
    };
    let takes = member.stage == Stage::Serving;
    Some(Post { endpoint, takes, absent: None, node: member.node.clone() })
}

fn absent(pool: &Key, ordinal: u32) -> Post {
    let name = pod::name(&pool.name, ordinal);
    let why = format!(
        "pod {name}, whose store may have it, does not run; see kubectl describe executorpool {}",
        pool.name
    );
    let endpoint = Endpoint {
        name,
        url: String::new(),
        server_name: Some(server_name(&pool.namespace)),
        trust: Trust::Issued,
    };
    Post { endpoint, takes: false, absent: Some(why), node: None }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::member::samples::{POOL, container, pod, serving, waiting};
    use super::*;

    fn pool(store: Value, replicas: u32) -> ExecutorPool {
        let pods = json!({"workloadImage": "i", "store": store, "replicas": replicas});
        serde_json::from_value(json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutorPool",
            "metadata": {"name": POOL, "namespace": "ns"}, "spec": {"pods": pods},
        }))
        .unwrap()
    }

    fn unready() -> Value {
        json!({"phase": "Running", "podIP": "fd00::7",
            "containerStatuses": [container("workload", json!({"running": {}}), json!({}), 0)]})
    }

    fn starting() -> Value {
        json!({"phase": "Pending", "podIP": "10.0.0.9",
            "containerStatuses": [container("workload", waiting("PodInitializing", ""), json!({}), 0)]})
    }

    /// Each post in a word: `name@url`, with `!` if it takes nothing new and `?` if it cannot be asked.
    fn words(store: Value, pods: &[(u32, Value, Option<&str>)], now: &str) -> Vec<String> {
        let members: Vec<Member> = pods
            .iter()
            .map(|(ordinal, status, leaving)| Member::of(POOL, &pod(*ordinal, status, *leaving)))
            .collect();
        let roster = roster(&pool(store, 2), Ok(&members), now.parse().unwrap());
        let word = |post: &Post| {
            assert_eq!(post.endpoint.server_name.as_deref(), Some("ns.executors.requiem.internal"));
            assert_eq!(post.endpoint.trust, Trust::Issued);
            let mark = match (&post.absent, post.takes) {
                (Some(_), _) => "?",
                (None, false) => "!",
                (None, true) => "",
            };
            format!("{}@{}{mark}", post.endpoint.name, post.endpoint.url)
        };
        roster.posts().iter().map(word).collect()
    }

    const NOW: &str = "2026-11-27T19:00:00Z";

    #[test]
    fn a_store_that_goes_with_its_pod_makes_each_pod_an_executor_of_its_own() {
        let pods = [
            (0, serving(), None),
            (1, unready(), None),
            (2, starting(), None),
            (3, serving(), Some(NOW)),
            (4, json!({"phase": "Failed", "podIP": "10.0.0.1"}), None),
        ];
        assert_eq!(
            words(json!({}), &pods, NOW),
            [
                "default-executor-0-0uidofap@https://10.0.0.7:9443",
                "default-executor-1-1uidofap@https://[fd00::7]:9443!",
                "default-executor-3-3uidofap@https://10.0.0.7:9443!",
            ]
        );
    }

    #[test]
    fn a_pod_that_does_not_go_counts_no_longer_than_its_grace() {
        let pods = [(0, serving(), Some(NOW))];
        assert_eq!(words(json!({}), &pods, "2026-11-27T19:00:30Z").len(), 1);
        assert_eq!(words(json!({}), &pods, "2026-11-27T19:00:31Z").len(), 0);
    }

    #[test]
    fn a_store_that_stays_is_asked_for_when_its_pod_is_there_again() {
        let claim = || json!({"persistentVolumeClaim": {"claimName": "c"}});
        let (first, second) = ("default-executor-0@https://10.0.0.7:9443", "default-executor-1@?");
        assert_eq!(words(claim(), &[(0, serving(), None)], NOW), [first, second]);
        assert_eq!(words(claim(), &[(0, serving(), None), (1, starting(), None)], NOW), [first, second]);
        let surplus = [(0, serving(), None), (1, serving(), None), (2, serving(), Some(NOW))];
        assert_eq!(words(claim(), &surplus, NOW).len(), 3);
        // A number that is not wanted and has no pod is given up.
        assert_eq!(words(claim(), &surplus[..2], NOW).len(), 2);
    }

    #[test]
    fn pods_that_are_not_seen_are_not_taken_for_gone() {
        let seen = |unseen| roster(&pool(json!({}), 2), Err(unseen), NOW.parse().unwrap());
        assert_eq!(seen(Unseen::Because("why".into())), Roster::Unwatched("why".into()));
        assert_eq!(seen(Unseen::Yet), Roster::Unlisted);
    }
}
