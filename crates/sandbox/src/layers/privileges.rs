//! `no_new_privs` and the empty capability sets.

use nix::errno::Errno;
use nix::sys::prctl::{get_no_new_privs, set_no_new_privs};
use requiem_model::report::Evidence;

use crate::error::StepError;
use crate::finding::Finding;
use crate::sys::capability::{
    LAST, clear, clear_ambient, drop_bounding, get, in_ambient, in_bounding, securebits, set_securebits,
};

const NO_NEW_PRIVILEGES: &str = "prctl:no_new_privs";
const CAPABILITIES: &str = "capset:empty,bounding,ambient,securebits";

/// Root is nobody special, ids do not bring capabilities back, none is kept, none becomes ambient; each
/// with its lock.
const SECUREBITS: u32 = 0b1110_1111;

/// No exec can raise privileges any more.
pub(crate) fn forbid_new() -> Result<(), StepError> {
    set_no_new_privs().map_err(StepError::at("set no_new_privs"))
}

/// Reads `no_new_privs` back.
pub(crate) fn prove_forbidden() -> Finding {
    match get_no_new_privs() {
        Ok(true) => Finding::read_back(NO_NEW_PRIVILEGES),
        Ok(false) => Finding::short(NO_NEW_PRIVILEGES, Evidence::Readback, "the flag is not set"),
        Err(errno) => Finding::short(NO_NEW_PRIVILEGES, Evidence::None, errno.desc()),
    }
}

/// Empties what only a process with `CAP_SETPCAP` can: bounding set and secure bits.
pub(crate) fn drop_bounds() -> Result<(), StepError> {
    for capability in 0..=LAST {
        match drop_bounding(capability) {
            Ok(()) => {}
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(StepError { step: "drop a capability from the bounding set", errno }),
        }
    }
    set_securebits(SECUREBITS).map_err(StepError::at("lock the secure bits"))
}

/// Empties the rest.
pub(crate) fn drop_all() -> Result<(), StepError> {
    clear_ambient().map_err(StepError::at("clear ambient capabilities"))?;
    clear().map_err(StepError::at("clear capabilities"))
}

/// Reads every set back.
pub(crate) fn prove_dropped() -> Finding {
    match remaining() {
        Ok(None) => Finding::read_back(CAPABILITIES),
        Ok(Some(what)) => Finding::short(CAPABILITIES, Evidence::Readback, what),
        Err(errno) => {
            Finding::short(CAPABILITIES, Evidence::None, format!("cannot be read: {}", errno.desc()))
        }
    }
}

fn remaining() -> nix::Result<Option<String>> {
    let sets = get()?;
    if sets != crate::sys::capability::Sets::default() {
        return Ok(Some(format!("capabilities remain: {sets:x?}")));
    }
    for capability in 0..=LAST {
        match in_bounding(capability) {
            Ok(false) => {}
            Ok(true) => return Ok(Some(format!("capability {capability} is in the bounding set"))),
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno),
        }
        if in_ambient(capability)? {
            return Ok(Some(format!("capability {capability} is in the ambient set")));
        }
    }
    let bits = securebits()?;
    Ok((bits != SECUREBITS).then(|| format!("secure bits are {bits:#x} instead of {SECUREBITS:#x}")))
}
