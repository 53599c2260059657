//! Which Executions are run at all: the policies of the cluster as a watch shows them, and what they say. Pure;
//! [`crate::watching`] brings the objects, and [`requiem_crds::admission`] judges.
//!
//! ```text
//! watch ─hear─▶ Policies ─judge(plan)─▶ Admission ─▶ decide: start, hold, or refuse
//! ```
//!
//! A policy is asked before each start and never afterwards, so what runs is left alone. What cannot be read is taken for a
//! policy that might refuse: nothing is started without it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::api::ObjectMeta;
use kube::runtime::watcher::Event;
use requiem_crds::admission::{self, Binding, Kind, Policy, Verdict, Violation};

use super::validate::Plan;
use crate::context::Guarded;
use crate::queue::Key;
use crate::view::View;

/// What all policies together say about one Execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// They were not listed yet.
    Unlisted,
    /// Some cannot be read, and this is why.
    Unavailable(String),
    /// None has anything against it.
    Admitted,
    /// These rules do not admit it; at least one.
    Refused(Vec<Violation>),
}

/// Whose Executions a change of policies concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Those of one namespace.
    Namespace(String),
    /// Those of every namespace.
    Everywhere,
}

/// All policies. Clones share them.
#[derive(Clone)]
pub struct Policies {
    book: Arc<Mutex<Book>>,
}

struct Book {
    own: Shelf,
    /// Absent if this operator is not to obey them.
    cluster: Option<Shelf>,
}

/// The policies of one kind; those of the cluster lie under the empty namespace.
struct Shelf {
    view: View,
    entries: BTreeMap<Key, Policy>,
    /// What a list that is not complete has brought.
    coming: BTreeMap<Key, Policy>,
}

// === impl Policies ===

impl Policies {
    /// None yet. `cluster` says whether those of the cluster are obeyed.
    pub fn new(cluster: bool) -> Self {
        let book = Book { own: Shelf::new(), cluster: cluster.then(Shelf::new) };
        Self { book: Arc::new(Mutex::new(book)) }
    }

    /// Takes note of what a watch shows. Says whose Executions have to be looked at again.
    pub fn hear<K: Binding>(&self, event: Event<Guarded<K>>) -> Option<Reach> {
        let mut book = self.lock();
        let shelf = book.shelf(K::KIND)?;
        match event {
            Event::Init => shelf.coming.clear(),
            Event::InitApply(object) => {
                shelf.coming.insert(key(&object), read(&object));
            }
            Event::InitDone => {
                let now = std::mem::take(&mut shelf.coming);
                let before = std::mem::replace(&mut shelf.entries, now);
                let back = shelf.view.filled();
                // While nobody watched, some may have come and gone.
                return (back || before != shelf.entries).then_some(Reach::Everywhere);
            }
            Event::Apply(object) => {
                shelf.entries.insert(key(&object), read(&object));
                return Some(reach(&object));
            }
            Event::Delete(object) => {
                shelf.entries.remove(&key(&object));
                return Some(reach(&object));
            }
        }
        None
    }

    /// A watch has failed: see [`View::failed`]. Says whether that is news.
    pub fn failed(&self, kind: Kind, void: bool, error: &str) -> bool {
        let mut book = self.lock();
        let Some(shelf) = book.shelf(kind) else { return false };
        let kind = kind.as_str();
        shelf.view.failed(void, || {
            format!(
                "the operator cannot watch objects of kind {kind}, and starts nothing without them: {error}; install the \
                 definition, and give the operator the rights that docs/operator.md lists"
            )
        })
    }

    /// What all policies say about `plan`.
    pub fn judge(&self, plan: &Plan) -> Admission {
        self.lock().judge(plan)
    }

    /// Policies that are known, of one kind.
    pub fn len(&self, kind: Kind) -> usize {
        self.lock().shelf(kind).map_or(0, |shelf| shelf.entries.len())
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn shelf(&mut self, kind: Kind) -> Option<&mut Shelf> {
        match kind {
            Kind::Namespaced => Some(&mut self.own),
            Kind::Cluster => self.cluster.as_mut(),
        }
    }

    fn judge(&self, plan: &Plan) -> Admission {
        let shelves = self.cluster.iter().chain([&self.own]);
        for shelf in shelves.clone() {
            match &shelf.view {
                View::Live => {}
                View::Empty => return Admission::Unlisted,
                View::Blind(why) => return Admission::Unavailable(why.clone()),
            }
        }
        match admission::judge(shelves.flat_map(|shelf| shelf.of(&plan.key.namespace)), &plan.asked()) {
            Verdict::Admitted => Admission::Admitted,
            Verdict::Unreadable(why) => Admission::Unavailable(why),
            Verdict::Refused(violations) => Admission::Refused(violations),
        }
    }
}

impl Shelf {
    const fn new() -> Self {
        Self { view: View::Empty, entries: BTreeMap::new(), coming: BTreeMap::new() }
    }

    /// The policies that lie in `namespace`, and those of the cluster, by name.
    fn of(&self, namespace: &str) -> impl Iterator<Item = &Policy> {
        ["", namespace]
            .into_iter()
            .flat_map(|namespace| {
                let first = Key { namespace: namespace.to_owned(), name: String::new() };
                self.entries
                    .range(first.clone()..)
                    .take_while(move |(key, _)| key.namespace == first.namespace)
            })
            .map(|(_, policy)| policy)
    }
}

fn key<K: Binding>(object: &Guarded<K>) -> Key {
    let meta = meta(object);
    Key { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
}

fn read<K: Binding>(object: &Guarded<K>) -> Policy {
    match &object.0 {
        Ok(object) => Policy::read(object),
        Err(malformed) => Policy::malformed::<K>(&malformed.metadata, &malformed.error),
    }
}

fn reach<K: Binding>(object: &Guarded<K>) -> Reach {
    meta(object).namespace.clone().map_or(Reach::Everywhere, Reach::Namespace)
}

fn meta<K: Binding>(object: &Guarded<K>) -> &ObjectMeta {
    match &object.0 {
        Ok(object) => object.meta(),
        Err(malformed) => &malformed.metadata,
    }
}

#[cfg(test)]
mod tests {
    use requiem_crds::admission::told;
    use requiem_crds::{ClusterExecutionPolicy, Execution, ExecutionPolicy, ExecutionSpec};
    use serde_json::{Value, json};

    use super::super::samples::execution;
    use super::super::validate::plan;
    use super::*;

    fn object<K: Binding + serde::de::DeserializeOwned>(
        namespace: &str,
        name: &str,
        spec: &Value,
    ) -> Guarded<K> {
        let mut metadata = json!({"name": name, "generation": 3});
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        let (kind, version) = (K::kind(&()), K::api_version(&()));
        let object = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    fn own(namespace: &str, name: &str, spec: &Value) -> Guarded<ExecutionPolicy> {
        object(namespace, name, spec)
    }

    fn wide(name: &str, spec: &Value) -> Guarded<ClusterExecutionPolicy> {
        object("", name, spec)
    }

    const PLAIN: fn(&mut ExecutionSpec) = |_| {};

    /// Both kinds, listed and empty.
    fn listed() -> Policies {
        let policies = Policies::new(true);
        policies.hear::<ExecutionPolicy>(Event::InitDone);
        policies.hear::<ClusterExecutionPolicy>(Event::InitDone);
        policies
    }

    fn planned(change: impl FnOnce(&mut ExecutionSpec)) -> Plan {
        let mut object: Execution = execution();
        change(&mut object.spec);
        plan(&object).unwrap()
    }

    fn says(policies: &Policies, plan: &Plan) -> String {
        match policies.judge(plan) {
            Admission::Unlisted => "unlisted".into(),
            Admission::Unavailable(why) => format!("unavailable: {why}"),
            Admission::Admitted => "admitted".into(),
            Admission::Refused(violations) => {
                let messages: Vec<String> = violations.into_iter().map(|one| one.message).collect();
                messages.join("; ")
            }
        }
    }

    #[test]
    fn all_policies_of_a_namespace_count_in_one_order_and_no_others() {
        let policies = listed();
        let timeout = |most: u32| json!({"maxLimits": {"timeoutSeconds": most}});
        let of = |namespaces: Value, except: Value| {
            let mut spec = timeout(1);
            spec["namespaces"] = namespaces;
            spec["exceptNamespaces"] = except;
            spec
        };
        // `default-2` and `defaul` lie beside `default` in every order.
        for namespace in ["default-2", "defaul", "zz", "a"] {
            policies.hear(Event::Apply(own(namespace, "p", &timeout(1))));
        }
        policies.hear(Event::Apply(wide("elsewhere", &of(json!(["team-*", "defaults"]), json!(["x"])))));
        policies.hear(Event::Apply(wide("spared", &of(json!(["*"]), json!(["def*t"])))));
        assert_eq!(says(&policies, &planned(PLAIN)), "admitted");
        policies.hear(Event::Apply(own("default", "b", &timeout(2))));
        policies.hear(Event::Apply(own("default", "c", &timeout(300))));
        policies.hear(Event::Apply(own("default", "a", &timeout(3))));
        policies.hear(Event::Apply(wide("z", &of(json!(["nobody", "d*"]), json!(["x"])))));
        let Admission::Refused(violations) = policies.judge(&planned(PLAIN)) else { panic!("admitted") };
        let who: Vec<_> =
            violations.iter().map(|one| (one.kind, one.message.rsplit(' ').next().unwrap())).collect();
        assert_eq!(who, [(Kind::Cluster, "1"), (Kind::Namespaced, "3"), (Kind::Namespaced, "2")]);
        let told = told(&violations, 0);
        assert!(
            told.starts_with("nothing ran: spec.timeoutSeconds is 300, and maxLimits of Cluster"),
            "{told}"
        );
        for name in ["a", "b"] {
            policies.hear(Event::Delete(own("default", name, &timeout(1))));
        }
        policies.hear(Event::Delete(wide("z", &of(json!(["d*"]), json!(["x"])))));
        assert_eq!(says(&policies, &planned(PLAIN)), "admitted");
    }

    #[test]
    fn nothing_is_admitted_before_every_kind_was_listed() {
        let policies = Policies::new(true);
        assert_eq!(says(&policies, &planned(PLAIN)), "unlisted");
        assert_eq!(policies.hear::<ExecutionPolicy>(Event::InitDone), Some(Reach::Everywhere));
        assert_eq!(says(&policies, &planned(PLAIN)), "unlisted");
        policies.hear::<ClusterExecutionPolicy>(Event::InitDone);
        assert_eq!(says(&policies, &planned(PLAIN)), "admitted");
        // An operator of one namespace that is not to obey those of the cluster does not wait for them.
        let alone = Policies::new(false);
        alone.hear::<ExecutionPolicy>(Event::InitDone);
        assert_eq!(says(&alone, &planned(PLAIN)), "admitted");
        let all = json!({"namespaces": ["*"], "pools": ["gpu"]});
        assert_eq!(alone.hear(Event::Apply(wide("p", &all))), None);
        assert!(!alone.failed(Kind::Cluster, true, "forbidden"));
        assert_eq!(says(&alone, &planned(PLAIN)), "admitted");
    }

    #[test]
    fn a_list_counts_when_it_is_complete() {
        let policies = listed();
        let no = json!({"pools": ["gpu"]});
        policies.hear(Event::Apply(own("default", "old", &no)));
        policies.hear::<ExecutionPolicy>(Event::Init);
        policies.hear(Event::InitApply(own("default", "new", &no)));
        assert!(says(&policies, &planned(PLAIN)).contains("ExecutionPolicy old"));
        // The connection broke, and the list begins anew.
        policies.hear::<ExecutionPolicy>(Event::Init);
        let done = || policies.hear::<ExecutionPolicy>(Event::InitDone);
        assert_eq!(done(), Some(Reach::Everywhere), "a policy went while nobody watched");
        assert_eq!(says(&policies, &planned(PLAIN)), "admitted");
        assert_eq!(done(), None, "it is no news");
        assert_eq!((policies.len(Kind::Namespaced), policies.len(Kind::Cluster)), (0, 0));
    }

    #[test]
    fn a_lost_right_stops_everything_and_an_outage_nothing() {
        let policies = listed();
        assert!(!policies.failed(Kind::Namespaced, false, "connection refused"));
        assert_eq!(says(&policies, &planned(PLAIN)), "admitted");
        for kind in [Kind::Namespaced, Kind::Cluster] {
            assert!(policies.failed(kind, true, "forbidden"));
            assert!(!policies.failed(kind, true, "forbidden"), "it is no news");
            let said = says(&policies, &planned(PLAIN));
            let words = format!("unavailable: the operator cannot watch objects of kind {}, ", kind.as_str());
            assert!(said.starts_with(&words) && said.contains("without them: forbidden; "), "{said}");
            match kind {
                Kind::Namespaced => policies.hear::<ExecutionPolicy>(Event::InitDone),
                Kind::Cluster => policies.hear::<ClusterExecutionPolicy>(Event::InitDone),
            };
            assert_eq!(says(&policies, &planned(PLAIN)), "admitted");
        }
        // One that never was listed is not admitted by an outage.
        let fresh = Policies::new(false);
        assert!(fresh.failed(Kind::Namespaced, false, "connection refused"));
        assert!(says(&fresh, &planned(PLAIN)).starts_with("unavailable: "));
    }

    #[test]
    fn a_policy_that_cannot_be_read_stops_those_of_whom_it_may_speak() {
        let broken = json!({"pools": 7});
        let fraction = json!({"maxLimits": {"memory": "0.3"}});
        for spec in [&broken, &fraction] {
            let policies = listed();
            policies.hear(Event::Apply(own("elsewhere", "p", spec)));
            assert_eq!(says(&policies, &planned(PLAIN)), "admitted");
            policies.hear(Event::Apply(own("default", "p", spec)));
            let said = says(&policies, &planned(PLAIN));
            assert!(
                said.starts_with("unavailable: ExecutionPolicy p (generation 3) cannot be read: "),
                "{said}"
            );
            // Whatever it would say, another one refuses.
            policies.hear(Event::Apply(own("default", "q", &json!({"pools": ["gpu"]}))));
            assert!(says(&policies, &planned(PLAIN)).starts_with("spec.executor.poolRef.name is default"));
        }
        let policies = listed();
        let mut elsewhere = fraction.clone();
        elsewhere["namespaces"] = json!(["team-*"]);
        policies.hear(Event::Apply(wide("p", &elsewhere)));
        assert_eq!(says(&policies, &planned(PLAIN)), "admitted");
        policies.hear(Event::Apply(wide("q", &json!({"namespaces": "team-1"}))));
        let said = says(&policies, &planned(PLAIN));
        assert!(
            said.starts_with("unavailable: ClusterExecutionPolicy q (generation 3) cannot be read"),
            "{said}"
        );
    }
}
