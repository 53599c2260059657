//! Step 2, pure: from a pool with pods to what they are made from.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use requiem_crds::ExecutorPool;
use requiem_crds::condition::Reason;
use requiem_crds::executor_pool::PodsSpec;

use super::pod::Template;
use super::trouble::Trouble;
use crate::queue::Key;

/// A pool with pods. What it holds needs no further check.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The pool.
    pub key: Key,
    /// Its pods.
    pub pods: PodsSpec,
    /// Image of the executor.
    pub image: String,
    owner: Option<OwnerReference>,
}

impl Plan {
    /// The plan of `pool`, whose pods are `pods`; `image` is the executor's where it names none.
    ///
    /// # Errors
    /// There is no image of the executor.
    pub fn of(pool: &ExecutorPool, pods: &PodsSpec, image: Option<&str>) -> Result<Self, Trouble> {
        let Some(image) = pods.image.as_deref().or(image) else {
            let message =
                "spec.pods.image is absent, and the operator was started without --executor-image; give one";
            return Err(Trouble { reason: Reason::ImageUnavailable, message: message.to_owned() });
        };
        // Not blocking: an owner reference that blocks needs rights on finalizers.
        let owner = pool.controller_owner_ref(&());
        let owner = owner.map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner });
        Ok(Self { key: Key::of(pool), pods: pods.clone(), image: image.to_owned(), owner })
    }

    /// What pods are made from.
    pub fn template(&self) -> Template<'_> {
        Template { pool: &self.key, pods: &self.pods, image: &self.image, owner: self.owner.as_ref() }
    }
}
