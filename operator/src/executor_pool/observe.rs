//! Step 1: the pods of a pool as the cache has them, and what executors answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use requiem_crds::ExecutorPool;

use super::member::Member;
use super::pod::POOL_LABEL;
use super::report::Answer;
use super::roster::roster;
use crate::context::Context;
use crate::dedicated;
use crate::fleet::{Post, Roster};
use crate::queue::Key;
use crate::view::View;

/// The operator's view of pods. Clones share it.
#[derive(Clone)]
pub struct Pods {
    cache: Store<Pod>,
    view: Arc<Mutex<View>>,
}

/// Why the pods of a pool are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    /// They were not listed yet.
    Yet,
    /// They cannot be.
    Because(String),
}

impl Pods {
    /// A view through `cache`.
    pub fn new(cache: Store<Pod>) -> Self {
        Self { cache, view: Arc::new(Mutex::new(View::Empty)) }
    }

    /// The cache was filled, again or for the first time. Says whether that is news.
    pub fn filled(&self) -> bool {
        self.view().filled()
    }

    /// The watch has failed: see [`View::failed`]. Says whether that is news.
    pub fn failed(&self, forbidden: bool, error: &str) -> bool {
        self.view().failed(forbidden, || {
            format!("the operator cannot watch pods: {error}; give it the rights that docs/operator.md lists")
        })
    }

    /// The pods of `pool`.
    ///
    /// # Errors
    /// Why they are not known.
    pub fn of(&self, pool: &ExecutorPool) -> Result<Vec<Member>, Unseen> {
        self.seen()?;
        let key = Key::of(pool);
        let mut members: Vec<Member> = self
            .cache
            .state()
            .iter()
            .filter(|pod| is_of(pod, &key, pool.metadata.uid.as_deref()))
            .map(|pod| Member::of(&key.name, pod))
            .collect();
        members.sort_by(|a, b| (a.ordinal, &a.name).cmp(&(b.ordinal, &b.name)));
        Ok(members)
    }

    /// The pods of their own of the Execution `key` with this UID.
    ///
    /// # Errors
    /// Why they are not known.
    pub fn of_execution(&self, key: &Key, uid: &str) -> Result<Vec<Member>, Unseen> {
        self.seen()?;
        let cached = self.cache.state();
        let own = cached.iter().filter(|pod| dedicated::is_of(pod, key, uid));
        Ok(own.map(|pod| Member::of(&key.name, pod)).collect())
    }

    /// Every Execution that has a pod of its own, with the pods whose executors count.
    pub fn dedicated(&self) -> Vec<(Key, Member)> {
        let cached = self.cache.state();
        let owned = cached.iter().filter_map(|pod| Some((dedicated::execution_of(pod)?.0, pod)));
        owned
            .map(|(key, pod)| {
                let member = Member::of(&key.name, pod);
                (key, member)
            })
            .collect()
    }

    /// UIDs of Executions called `key` that have pods of their own.
    pub fn executions_named(&self, key: &Key) -> BTreeSet<String> {
        let cached = self.cache.state();
        let owners = cached.iter().filter_map(|pod| dedicated::execution_of(pod));
        owners.filter(|(owner, _)| owner == key).map(|(_, uid)| uid).collect()
    }

    /// Pods in the cache.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn seen(&self) -> Result<(), Unseen> {
        match &*self.view() {
            View::Live => Ok(()),
            View::Empty => Err(Unseen::Yet),
            View::Blind(why) => Err(Unseen::Because(why.clone())),
        }
    }

    fn view(&self) -> std::sync::MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pool that a pod belongs to by its label.
pub fn pool_of(pod: &Pod) -> Option<Key> {
    let name = pod.labels().get(POOL_LABEL)?.clone();
    Some(Key { namespace: pod.namespace()?, name })
}

/// Whether the pod is one of the pool with this name and UID: by label and by owner.
fn is_of(pod: &Pod, pool: &Key, uid: Option<&str>) -> bool {
    let owned = || {
        pod.owner_references()
            .iter()
            .any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
    };
    pool_of(pod).as_ref() == Some(pool) && owned()
}

/// The executors of `pool` now.
pub fn executors(context: &Context, pool: &ExecutorPool) -> Roster {
    let members = if pool.spec.pods.is_some() { context.pods.of(pool) } else { Ok(Vec::new()) };
    roster(pool, members.as_deref().map_err(Clone::clone), Timestamp::now())
}

/// Asks every executor that can be asked what it can do.
pub async fn ask(context: &Context, posts: &[Post]) -> Vec<Answer> {
    let here: Vec<&Post> = posts.iter().filter(|post| post.absent.is_none()).collect();
    let calls = here.iter().map(|post| context.dispatcher.capabilities(&post.endpoint));
    let answers = futures::future::join_all(calls).await;
    for (post, answer) in here.iter().zip(&answers) {
        match answer {
            Err(error) if error.is_absence() => context.health.failed(&post.endpoint, error),
            Ok(capabilities) => context.fleet.learned(&post.endpoint, capabilities),
            Err(_) => {}
        }
    }
    here.into_iter().map(|post| post.endpoint.clone()).zip(answers).collect()
}
