//! Inputs are there, whole, and cannot be changed.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;

use crate::support::*;
use requiem_model::report::{Source, SourceState, Status};
use requiem_model::{Layer, Requirement};
use requiem_sandbox::{RunError, RunSpec};

/// A folder with a file that everybody may write, so that only the mount can refuse it.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    for name in ["file", "sub/deep"] {
        fs::write(folder.path().join(name), "content").unwrap();
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    folder
}

#[test]
fn files_and_trees_are_seen_and_refuse_writes() {
    let folder = open_folder();
    let inputs = vec![input("in/tree", folder.path()), input("in/one", folder.path().join("file"))];
    let script = "cat in/tree/file in/tree/sub/deep in/one; \
                  for at in in/tree/file in/one in/tree/new; do (echo x > $at) 2>/dev/null && echo WROTE $at; done; \
                  rm -rf in/tree 2>/dev/null; mv in/one other 2>/dev/null; chmod 0 in/one 2>/dev/null; cat in/one";
    let ran = run(RunSpec { inputs, ..sh(script) });
    assert_eq!(ran.out(), "contentcontentcontentcontent", "{}", ran.err());
    assert_eq!(ran.row(Layer::ReadOnlyInputs).mechanism, "mount:ro,nosuid,nodev");
    assert_eq!(ran.short(), []);
    assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "content");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn the_workspace_comes_back_without_the_inputs() {
    let folder = open_folder();
    let inputs = vec![input("in", folder.path())];
    let ran = run(RunSpec { inputs, ..sh("cp -r in out; ln -s /etc/passwd out/link; echo made > out/made") });
    let workspace = format!("/proc/self/fd/{}", ran.end.workspace.as_fd().as_raw_fd());
    assert_eq!(fs::read_to_string(format!("{workspace}/out/made")).unwrap(), "made\n");
    assert_eq!(fs::read_to_string(format!("{workspace}/out/sub/deep")).unwrap(), "content");
    assert_eq!(fs::read_dir(format!("{workspace}/in")).unwrap().count(), 0);
}

#[test]
fn times_are_fixed_only_if_the_inputs_times_are() {
    let folder = open_folder();
    let run_with = || run(RunSpec { inputs: vec![input("in", folder.path())], ..sh("true") }).end.report;
    assert_eq!(run_with().source(Source::InputTimes), SourceState::Real);
    fs::File::open(folder.path()).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(run_with().source(Source::InputTimes), SourceState::Fixed);
}

#[test]
fn as_many_inputs_as_a_request_may_have() {
    let folder = open_folder();
    let source = folder.path().join("file");
    let inputs = (0..256).map(|place| input(&format!("d{}/f{place}", place % 7), &source)).collect();
    let ran = run(RunSpec { inputs, ..sh("cat d*/f* | wc -c") });
    assert_eq!(ran.out(), (256 * "content".len()).to_string());
    assert_eq!(ran.short(), []);
}

#[test]
fn an_input_that_is_not_there_or_no_file_is_an_error() {
    let folder = open_folder();
    std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
    for name in ["missing", "link"] {
        let ended =
            try_run(&RUNNER, RunSpec { inputs: vec![input("in", folder.path().join(name))], ..sh("true") });
        let Err(RunError::Setup { step, .. }) = ended else { panic!("{name} was accepted") };
        assert!(step.contains(name), "{step}");
    }
}

#[test]
fn without_mounts_inputs_are_copies_and_the_report_says_so() {
    let folder = open_folder();
    let spec = |policy| RunSpec {
        inputs: vec![input("in/tree", folder.path())],
        policy,
        ..sh("cat in/tree/sub/deep")
    };
    let ran = run(spec(without(Layer::MountNamespace)));
    assert_eq!(ran.out(), "content", "{}", ran.err());
    assert_eq!(ran.row(Layer::ReadOnlyInputs).status, Status::Partial);
    let strict = without(Layer::MountNamespace).with(Layer::ReadOnlyInputs, Requirement::Required);
    let refused = try_run(&RUNNER, spec(strict));
    assert!(matches!(refused, Err(RunError::Refused { layer: Layer::ReadOnlyInputs, .. })));
}
