//! The filter in a real kernel. A child is this test binary again, told by its environment what to become: it puts
//! itself under the filter and turns into a program. Programs that attack are compiled from C on the spot.

use std::env;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::bpf::{self, Call};
use super::{ANSWERS, Closed, Filter, here, number_samples};
use crate::finding::{Finding, Witness};
use crate::layers::seccomp::prove;
use crate::sys::seccomp as sys;

/// uretprobe and uprobe: since Linux 6.14 the kernel carries them out before any filter is asked, for tracers on the
/// host, and kills with SIGILL whoever calls them from anywhere but the kernel's own trampoline.
#[cfg(target_arch = "x86_64")]
const PAST_EVERY_FILTER: [u32; 2] = [335, 336];
#[cfg(not(target_arch = "x86_64"))]
const PAST_EVERY_FILTER: [u32; 0] = [];

/// Tells the child to put itself under the filter; the value is a program and its arguments, one a line.
const CHILD: &str = "REQUIEM_TEST_SECCOMP_CHILD";
/// The child's whole name, as the test harness knows it.
const CHILD_TEST: &str = "layers::seccomp::tests::kernel::becomes_a_child_when_told_to";

/// `program` with `args` under the filter.
pub(super) fn filtered(program: &str, args: &[&str]) -> Command {
    let mut lines = vec![program];
    lines.extend(args);
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", CHILD_TEST, "--nocapture", "--test-threads=1"]).env(CHILD, lines.join("\u{1}"));
    command
}

#[test]
fn becomes_a_child_when_told_to() {
    let Ok(lines) = env::var(CHILD) else { return };
    let mut words = lines.split('\u{1}');
    let program = words.next().unwrap();
    Filter::compile(Closed::default()).unwrap().install().unwrap();
    if program == "prove" {
        println!("{:?}", prove(Closed::default()));
        return;
    }
    let error = Command::new(program).args(words).env_remove(CHILD).exec();
    panic!("{program}: {error}");
}

#[test]
fn the_proof_holds_under_the_filter_and_only_there() {
    let output = filtered("prove", &[]).output().unwrap();
    let expected = format!("{:?}", Finding::probed("seccomp:default"));
    assert!(text(&output).contains(&expected), "{}", text(&output));
    let bare = prove(Closed::default());
    assert!(!matches!(bare, Finding::InForce { witness: Witness::Probe, .. }), "{bare:?}");
}

/// The calls of the proof mean something only if a kernel without the filter answers them differently.
#[test]
fn a_bare_kernel_answers_the_proof_differently() {
    let same: Vec<_> = ANSWERS.iter().filter(|(attempt, answer)| sys::attempt(*attempt) == *answer).collect();
    // The kernel may lack keyrings, or have io_uring switched off.
    let tolerated = [sys::Attempt::Keyring, sys::Attempt::Ring];
    assert!(same.iter().all(|(attempt, _)| tolerated.contains(attempt)), "{same:?}");
}

#[test]
fn the_kernel_refuses_what_the_model_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let probe = compile(folder.path(), "calls", CALLS);
    let program = Filter::compile(Closed::default()).unwrap().program;
    // Arguments that no call accepts, should one slip through; no pointer, no descriptor, no process.
    let args = [u64::MAX; 6];
    let refused: Vec<(u32, u32)> = number_samples()
        .into_iter()
        .filter(|nr| !PAST_EVERY_FILTER.contains(nr))
        .filter_map(|nr| {
            let verdict = bpf::run(&program, &Call { nr, arch: here().audit, args }).verdict;
            (verdict & !0xffff == libc::SECCOMP_RET_ERRNO).then_some((nr, verdict & 0xffff))
        })
        .collect();
    assert!(refused.len() > 600, "{}", refused.len());
    let mut child = filtered(&probe, &[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let numbers: String = refused.iter().map(|(nr, _)| format!("{nr}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(numbers.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let said = text_of(&output.stdout);
    let answers: Vec<&str> = said.lines().filter(|line| line.starts_with("call ")).collect();
    assert!(output.status.success(), "after {:?}: {:?}", answers.last(), output.status);
    let expected: Vec<String> = refused.iter().map(|(nr, errno)| format!("call {nr} {errno}")).collect();
    let wrong: Vec<_> =
        expected.iter().zip(&answers).filter(|(expected, answer)| expected != answer).collect();
    assert!(wrong.is_empty() && answers.len() == expected.len(), "{wrong:?}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn foreign_abis_kill() {
    let folder = tempfile::tempdir().unwrap();
    for (name, source) in [("x32", X32), ("i386", I386)] {
        let program = compile(folder.path(), name, source);
        let bare = Command::new(&program).status().unwrap();
        assert_ne!(bare.signal(), Some(libc::SIGSYS), "{name} without the filter");
        let output = filtered(&program, &[]).output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{name}: {}", text(&output));
    }
}

#[test]
fn threads_do_not_escape_the_filter() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile(folder.path(), "threads", THREADS);
    assert_eq!(Command::new(&program).status().unwrap().code(), Some(0), "bare");
    let output = filtered(&program, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}

/// The program compiled from `source`.
pub(super) fn compile(folder: &Path, name: &str, source: &str) -> String {
    let code = folder.join(format!("{name}.c"));
    let program: PathBuf = folder.join(name);
    std::fs::write(&code, source).unwrap();
    let compiled =
        Command::new("cc").arg("-O1").arg("-pthread").arg("-o").arg(&program).arg(&code).output().unwrap();
    assert!(compiled.status.success(), "{}", text(&compiled));
    program.to_str().unwrap().to_owned()
}

/// Everything a program said.
pub(super) fn text(output: &Output) -> String {
    format!("{}{}{:?}", text_of(&output.stdout), text_of(&output.stderr), output.status)
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Makes the calls whose numbers it reads, as nobody, and says how each was answered.
const CALLS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/syscall.h>
int main(void) {
    unsigned nr;
    if (geteuid() == 0 && (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))) return 9;
    puts("");
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (scanf("%u", &nr) == 1) {
        long answer = syscall((int)nr, -1L, -1L, -1L, -1L, -1L, -1L);
        printf("call %u %d\n", nr, answer == -1 ? errno : 0);
    }
    return 0;
}
"#;

/// getpid by the x32 ABI.
#[cfg(target_arch = "x86_64")]
const X32: &str = r"
#define _GNU_SOURCE
#include <unistd.h>
int main(void) { syscall(0x40000000 + 39); return 0; }
";

/// getpid by the i386 ABI.
#[cfg(target_arch = "x86_64")]
const I386: &str = r#"
int main(void) { int pid; __asm__ volatile("int $0x80" : "=a"(pid) : "a"(20) : "memory"); return pid > 0 ? 0 : 2; }
"#;

/// setns on nothing, from a second thread; 1 when the answer is the filter's, 0 when it is the kernel's.
const THREADS: &str = r"
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <unistd.h>
#include <sys/syscall.h>
static void *body(void *out) { *(int *)out = syscall(SYS_setns, -1, 0) == -1 ? errno : 0; return NULL; }
int main(void) {
    int answer = 0;
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, &answer) || pthread_join(thread, NULL)) return 9;
    return answer == EPERM ? 1 : answer == EBADF ? 0 : 8;
}
";
