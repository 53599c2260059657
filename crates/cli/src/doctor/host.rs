//! The kernel, its switches, what the sandbox makes of it, the disk and the clock.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use requiem_model::SandboxReport;
use requiem_model::report::Status;
use requiem_proof::rfc3339_millis;

use super::{Check, Finding};
use crate::error::CommandError;
use crate::layers;
use crate::proof_text::sandbox_line;

/// The oldest kernel that the sandbox knows how to use.
const OLDEST: (u32, u32) = (5, 12);
/// Below that the next large run fails.
const LITTLE_ROOM: u64 = 1 << 30;
/// Below that the next run fails.
const NO_ROOM: u64 = 64 << 20;
/// Each object is a file.
const FEW_FILES: u64 = 10_000;
/// How far a clock may be off before it matters.
const TOLERANCE: Duration = Duration::from_secs(300);

/// Version and switches of the kernel. `is_root`: switches that bind only others do not matter.
pub(crate) fn kernel(is_root: bool) -> Result<Check, CommandError> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|error| {
        let message = format!("cannot look at the kernel: {error}");
        CommandError::unusable("Environment", message, "mount /proc")
    })?;
    let release = release.trim();
    let check = Check::of("kernel", format!("Linux {release} on {}", std::env::consts::ARCH));
    Ok(check.with(too_old(release)).with(namespaces(is_root)))
}

fn too_old(release: &str) -> Option<Finding> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    let version = next().zip(next());
    let (major, minor) = OLDEST;
    version.is_none_or(|version| version < OLDEST).then(|| {
        let message = format!("the kernel is {release}, and the sandbox needs {major}.{minor}");
        Finding::error("KernelTooOld", message, "install a newer kernel")
    })
}

fn namespaces(is_root: bool) -> Vec<Finding> {
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let mut findings = Vec::new();
    if is("/proc/sys/user/max_user_namespaces", "0") {
        findings.push(Finding::error(
            "UserNamespacesOff",
            "this machine, or the container around, allows no user namespaces: user.max_user_namespaces is 0",
            "sysctl user.max_user_namespaces=15000",
        ));
    }
    if !is_root && is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        findings.push(Finding::error(
            "UserNamespacesForbidden",
            "only root may make user namespaces: kernel.unprivileged_userns_clone is 0",
            "sysctl kernel.unprivileged_userns_clone=1, or run it as root",
        ));
    }
    if !is_root && is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        findings.push(Finding::error(
            "UserNamespacesRestricted",
            "AppArmor takes the rights from user namespaces of programs without a profile: \
             kernel.apparmor_restrict_unprivileged_userns is 1",
            "give requiem an AppArmor profile with `userns,`, or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ));
    }
    findings
}

/// What a real run of nothing said.
pub(crate) fn sandbox(probed: Result<SandboxReport, CommandError>) -> Check {
    let report = match probed {
        Ok(report) => report,
        Err(error) => {
            let finding = Finding::error("SandboxUnusable", error.message, error.hint);
            return Check::of("sandbox", "nothing can be run").with([finding]);
        }
    };
    let short = report.layers.iter().filter(|row| row.status != Status::Enforced).map(|row| {
        let why = row.detail.as_deref().unwrap_or("nothing was said");
        let message = format!("layer {} is {}: {why}", row.layer, crate::text::word(&row.status));
        let needs = layers::of(row.layer).map_or("", |about| about.needs);
        let remedy = format!("it needs {needs}; or let requests prefer it instead of requiring it");
        Finding::error("LayerNotInForce", message, remedy)
    });
    Check::of("sandbox", sandbox_line(&report)).with(short)
}

/// Room on the file system of the store, or of the place where it would be made.
pub(crate) fn disk(store: &Path) -> Result<Check, CommandError> {
    let existing = store.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let stat = rustix::fs::statvfs(existing).map_err(|errno| {
        let message = format!("cannot look at the file system of {}: {errno}", existing.display());
        CommandError::unusable("Environment", message, "name the folder of a store with --cas DIR")
    })?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let seen = format!("{} MiB and {} files free", free >> 20, stat.f_favail);
    let remedy = "make room, or use a store on another file system (--cas DIR)";
    let room = if free < NO_ROOM {
        Some(Finding::error("DiskFull", format!("the store has room for {} MiB more", free >> 20), remedy))
    } else if free < LITTLE_ROOM {
        Some(Finding::warning("DiskLow", format!("the store has room for {} MiB more", free >> 20), remedy))
    } else {
        None
    };
    // Some file systems make files without end, and say that they have none.
    let files = (stat.f_files > 0 && stat.f_favail < FEW_FILES).then(|| {
        Finding::warning("InodesLow", format!("the store has room for {} files more", stat.f_favail), remedy)
    });
    Ok(Check::of("disk", seen).with(room).with(files))
}

/// The clock beside the last time that is known to have been: when the store was made.
pub(crate) fn clock(store: &Path) -> Check {
    let now = SystemTime::now();
    let made = fs::metadata(store.join("format")).and_then(|meta| meta.modified()).ok();
    let behind = made.and_then(|made| made.duration_since(now).ok()).filter(|by| *by > TOLERANCE);
    let finding = behind.map(|by| {
        let message = format!("the clock is {} s before the time at which the store was made", by.as_secs());
        Finding::warning("ClockBehind", message, "set the clock: times in proofs are what it says")
    });
    let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    Check::of("clock", rfc3339_millis(u64::try_from(millis).unwrap_or(u64::MAX))).with(finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, is_too_old) in [
            ("5.12.0", false),
            ("5.9.1", true),
            ("4.19", true),
            ("6.1.0-13-amd64", false),
            ("nonsense", true),
        ] {
            assert_eq!(too_old(release).is_some(), is_too_old, "{release}");
        }
    }
}
