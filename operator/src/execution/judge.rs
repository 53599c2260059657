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

#[cfg(test)]
mod tests {
    use requiem_model::Outcome;
    use requiem_proof::BundleBody;

    use super::super::samples::{body, planned, sealed};
    use super::*;

    fn verdict(n: u32, change: impl FnOnce(&mut BundleBody)) -> Result<Verified, &'static str> {
        let plan = planned();
        let mut body = body(&plan, 1, Outcome::Exited { code: 0 });
        change(&mut body);
        judge(&plan, n, &sealed(&body)).map_err(|error| error.code())
    }

    #[test]
    fn an_honest_proof_is_believed_even_of_an_earlier_attempt_or_generation() {
        assert!(verdict(1, |_| {}).is_ok());
        assert!(verdict(4, |body| body.run.identity.attempt = 3).is_ok());
        assert!(verdict(1, |body| body.run.identity.generation = 1).is_ok());
    }

    #[test]
    fn a_consistent_proof_of_something_else_is_refused() {
        let refused = Err("E_REQUEST_BINDING");
        let code = |n, change: fn(&mut BundleBody)| verdict(n, change).map(|_| ());
        assert_eq!(code(1, |body| body.run.identity.uid = "other".into()), refused);
        assert_eq!(code(1, |body| body.run.identity.name = "other".into()), refused);
        assert_eq!(code(1, |body| body.run.identity.namespace = "other".into()), refused);
        assert_eq!(code(1, |body| body.run.identity.generation = 4), refused);
        assert_eq!(code(1, |body| body.run.identity.attempt = 2), refused);
        assert_eq!(code(1, |body| body.execution.request.argv = vec!["/bin/true".into()]), refused);
    }

    #[test]
    fn every_byte_and_both_roots_are_under_the_seal() {
        let plan = planned();
        let good = sealed(&body(&plan, 1, Outcome::Exited { code: 0 }));
        for at in (0..good.body.len()).step_by(7) {
            let mut bytes = good.body.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let forged = SealedAttempt { body: String::from_utf8(bytes).unwrap(), ..good.clone() };
            assert!(judge(&plan, 1, &forged).is_err(), "byte {at}");
        }
        let other = sealed(&body(&plan, 1, Outcome::Exited { code: 1 }));
        let swapped = [
            SealedAttempt { execution_root: other.execution_root, ..good.clone() },
            SealedAttempt { bundle_root: other.bundle_root, ..good.clone() },
            SealedAttempt { body: other.body, ..good },
        ];
        for forged in swapped {
            assert_eq!(judge(&plan, 1, &forged).unwrap_err().code(), "E_ROOT");
        }
    }
}
