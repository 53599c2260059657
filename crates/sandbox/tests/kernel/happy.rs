//! Programs that do no harm.

use crate::support::*;
use requiem_model::Outcome;

#[test]
fn echo() {
    let spec = requiem_sandbox::RunSpec { policy: lenient(), ..sh("echo hello; ls -la / /dev /etc; id; cat /proc/self/mountinfo; env; exit 3") };
    let ran = run(spec);
    println!("{}", table(&ran.end.report));
    println!("{:?} {:?} {:?}", ran.end.outcome, ran.end.usage, ran.end.report.sources);
    println!("{} {}", ran.out(), ran.err());
    assert_eq!(ran.end.outcome, Outcome::Exited { code: 3 });
}
