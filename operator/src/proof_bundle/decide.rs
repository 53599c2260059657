//! Step 3, pure: is the body what spec and metadata say it is, and does it hold?

use requiem_crds::ProofBundle;
use requiem_model::{BundleRoot, RequestDigest, ResultDigest};
use requiem_proof::{Expect, Verified, VerifyError, verify};

/// The verdict about one bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Every root was recomputed and agrees; every claim that can be recomputed holds. Nobody signed it.
    Verified {
        /// The recomputed bundle root.
        root: BundleRoot,
        /// Digest of the request.
        request: RequestDigest,
        /// Digest of the result.
        result: ResultDigest,
    },
    /// The body has the roots of the spec, but breaks a rule.
    Broken {
        /// The rule.
        error: VerifyError,
    },
    /// The body cannot be read, or has other roots.
    Unsealed {
        /// Why.
        error: VerifyError,
    },
}

impl Judgement {
    /// Stable code: the reason of the condition and the label of the metric.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Verified { .. } => "Verified",
            Self::Broken { error } | Self::Unsealed { error } => error.code(),
        }
    }

    /// Whether everything holds.
    pub const fn is_verified(&self) -> bool {
        matches!(self, Self::Verified { .. })
    }

    /// The verdict for people.
    pub fn message(&self) -> String {
        match self {
            Self::Verified { root, .. } => {
                format!("every root was recomputed and agrees ({root}); integrity only: nobody signed it")
            }
            Self::Broken { error } | Self::Unsealed { error } => {
                format!(
                    "{}: {error}; do not rely on this bundle, fetch it again from where it was made",
                    error.code()
                )
            }
        }
    }
}

impl From<&Verified> for Judgement {
    fn from(verified: &Verified) -> Self {
        Self::Verified {
            root: verified.bundle_root,
            request: verified.request_digest,
            result: verified.result_digest,
        }
    }
}

/// Judges a bundle by nothing but itself.
pub fn judge(bundle: &ProofBundle) -> Judgement {
    let spec = &bundle.spec;
    let expect = Expect {
        execution_root: Some(spec.execution_root),
        bundle_root: Some(spec.bundle_root),
        ..Expect::default()
    };
    match verify(&spec.body, &expect) {
        Ok(verified) => match same_object(bundle, &verified) {
            Ok(()) => (&verified).into(),
            Err(error) => Judgement::Broken { error },
        },
        Err(error) if is_about_the_seal(&error) => Judgement::Unsealed { error },
        Err(error) => Judgement::Broken { error },
    }
}

/// The roots are compared before any rule is; these are the errors up to and including that comparison.
const fn is_about_the_seal(error: &VerifyError) -> bool {
    matches!(
        error,
        VerifyError::Canon(_)
            | VerifyError::Version { .. }
            | VerifyError::Tree(_)
            | VerifyError::ExecutionRoot { .. }
            | VerifyError::BundleRoot { .. }
    )
}

/// What the object says about itself is a view of the body, never more.
fn same_object(bundle: &ProofBundle, verified: &Verified) -> Result<(), VerifyError> {
    let identity = &verified.body.run.identity;
    let namespace = bundle.metadata.namespace.as_deref().unwrap_or_default();
    let reference = &bundle.spec.execution_ref;
    let rows = [
        ("namespace", namespace, identity.namespace.as_str()),
        ("name", reference.name.as_str(), identity.name.as_str()),
        ("uid", reference.uid.as_str(), identity.uid.as_str()),
    ];
    for (field, expected, found) in rows {
        if expected != found {
            return Err(VerifyError::IdentityBinding {
                field,
                expected: expected.to_owned(),
                found: found.to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use requiem_model::Outcome;

    use super::*;
    use crate::execution::samples::{body, planned, sealed};
    use crate::proof_bundle::object;

    fn bundle() -> ProofBundle {
        let plan = planned();
        let sealed = sealed(&body(&plan, 1, Outcome::Exited { code: 0 }));
        let verified = verify(&sealed.body, &Expect::default()).unwrap();
        object(&plan, &verified, &sealed.body)
    }

    fn verdict(change: impl FnOnce(&mut ProofBundle)) -> (bool, &'static str) {
        let mut bundle = bundle();
        change(&mut bundle);
        let judgement = judge(&bundle);
        (!matches!(judgement, Judgement::Unsealed { .. }), judgement.code())
    }

    #[test]
    fn what_we_publish_we_verify() {
        assert_eq!(verdict(|_| {}), (true, "Verified"));
        assert_eq!(bundle().metadata.name.as_deref(), Some("hello-0b9c5d1e-1"));
    }

    #[test]
    fn each_lie_has_its_code() {
        let other = requiem_model::BundleRoot::from_bytes([7; 32]);
        assert_eq!(verdict(|b| b.spec.bundle_root = other), (false, "E_ROOT"));
        assert_eq!(verdict(|b| b.spec.body = b.spec.body.replace("12345", "12346")), (false, "E_ROOT"));
        assert_eq!(verdict(|b| b.spec.body.push(' ')), (false, "E_NOT_CANONICAL"));
        assert_eq!(verdict(|b| b.spec.body = "{}".into()), (false, "E_VERSION"));
        assert_eq!(verdict(|b| b.spec.execution_ref.uid = "x".into()), (true, "E_REQUEST_BINDING"));
        assert_eq!(verdict(|b| b.spec.execution_ref.name = "x".into()), (true, "E_REQUEST_BINDING"));
        assert_eq!(verdict(|b| b.metadata.namespace = Some("x".into())), (true, "E_REQUEST_BINDING"));
    }

    #[test]
    fn a_long_name_still_makes_a_valid_one() {
        let mut plan = planned();
        plan.key.name = format!("{}.{}", "a".repeat(199), "b".repeat(53));
        let verified = verify(&bundle().spec.body, &Expect::default()).unwrap();
        let name = object(&plan, &verified, "").metadata.name.unwrap();
        assert_eq!(name, format!("{}-0b9c5d1e-1", "a".repeat(199)));
    }
}
