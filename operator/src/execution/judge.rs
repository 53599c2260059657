//! Is this the proof of that attempt? Pure. An executor's reply is a claim until this function has agreed.

use requiem_model::attempt::{Identity, SealedAttempt};
use requiem_proof::{Expect, Verified, VerifyError, verify};

use super::validate::Plan;

/// Recomputes the claimed bundle and compares it with what was handed out as attempt `n`.
///
/// An Execution has one result: an executor that sealed an earlier attempt answers a later one with it, so any
/// attempt from 1 to `n` is accepted. So is any generation up to the present one: it rises with `spec.suspend`,
/// while the request cannot change.
///
/// # Errors
/// The first reason not to believe it.
pub fn judge(plan: &Plan, n: u32, sealed: &SealedAttempt) -> Result<Verified, VerifyError> {
    let SealedAttempt { body, execution_root, bundle_root, stdout_tail: _, stderr_tail: _ } = sealed;
    let expect = Expect {
        execution_root: Some(*execution_root),
        bundle_root: Some(*bundle_root),
        request_digest: Some(plan.request_digest),
        identity: None,
    };
    let verified = verify(body, &expect)?;
    same_execution(&plan.identity(n), &verified.body.run.identity)?;
    Ok(verified)
}

fn same_execution(ours: &Identity, theirs: &Identity) -> Result<(), VerifyError> {
    let Identity { namespace, name, uid, generation, attempt } = ours;
    let differs = |field, expected: &dyn ToString, found: &dyn ToString| {
        Err(VerifyError::IdentityBinding { field, expected: expected.to_string(), found: found.to_string() })
    };
    if theirs.namespace != *namespace {
        return differs("namespace", namespace, &theirs.namespace);
    }
    if theirs.name != *name {
        return differs("name", name, &theirs.name);
    }
    if theirs.uid != *uid {
        return differs("uid", uid, &theirs.uid);
    }
    if !(1..=*generation).contains(&theirs.generation) {
        return differs("generation", generation, &theirs.generation);
    }
    if !(1..=*attempt).contains(&theirs.attempt) {
        return differs("attempt", attempt, &theirs.attempt);
    }
    Ok(())
}
