//! docs/auditor.md: its commands are run by somebody who has nothing of ours but the page, the specification and one Python file.

#[path = "../../crates/cli/tests/common/page.rs"]
mod page;

use std::process::Command;

use page::Place;
use requiem_tests::{PROGRAMS, setting};
use requiem_xtask::suites::NODE_MODULES_VARIABLE;
use serde_json::json;

use crate::python::{here, interpreter};

#[test]
fn the_page_for_auditors() {
    let folder = tempfile::tempdir().unwrap();
    let desk = folder.path();
    // What an auditor is given: a proof signed by two keys, their public halves, one of the signatures by itself, one output, and its proof.
    let request = json!({
        "command": "/bin/sh", "argv": ["-c", "echo 42 > report.txt"], "outputs": ["report.txt"],
        "policy": {"layers": {"cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "preferred"}},
    });
    std::fs::write(desk.join("request.json"), request.to_string()).unwrap();
    let made = desk.join("made");
    std::fs::create_dir_all(made.join("keys")).unwrap();
    std::fs::create_dir_all(made.join("ssh")).unwrap();
    let script = "requiem exec run --request request.json --proof proof.json
        openssl genpkey -algorithm ed25519 -out made/keys/alice.pem
        openssl pkey -in made/keys/alice.pem -pubout -out alice.pub
        ssh-keygen -q -t ed25519 -N '' -C carol -f made/ssh/carol
        cp made/ssh/carol.pub carol.pub
        requiem proof sign proof.json --signer \"$SIGNERS/openssl\" --signer-arg \"$PWD/made/keys\"
        requiem proof sign proof.json --signer \"$SIGNERS/ssh-keygen\" --signer-arg \"$PWD/made/ssh\"
        requiem proof prove proof.json --output report.txt --out one.json
        python3 -c 'import json; print(json.dumps({\"schema\": \"requiem-trust/1\", \"keys\": [{\"name\": \"alice\", \"keyId\": \"alice\", \"algorithm\": \"ed25519\", \"publicKey\": open(\"alice.pub\").read()}]}))' > made/trust.json
        requiem proof export proof.json --trust made/trust.json --out alice.sigstore.json --artifact artifact
        echo 42 > report.txt";
    let mut shell = Command::new("sh");
    let path = format!("{}:{}", setting(PROGRAMS).unwrap().display(), std::env::var("PATH").unwrap());
    shell.args(["-euc", script]).current_dir(desk).env("PATH", path).env("XDG_DATA_HOME", desk);
    shell.env("SIGNERS", here().join("../../config/signers").canonicalize().unwrap());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::copy(here().join("verify.py"), desk.join("verify.py")).unwrap();
    std::fs::copy(here().join("sigstore/judge.cjs"), desk.join("judge.cjs")).unwrap();
    // The interpreter that has the package goes by the name that the page uses.
    let programs = tempfile::tempdir().unwrap();
    let python3 = format!("#!/bin/sh\nexec '{}' \"$@\"\n", interpreter().display());
    std::fs::write(programs.path().join("python3"), python3).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(programs.path().join("python3"), executable).unwrap();
    let variables = vec![("NODE_PATH", setting(NODE_MODULES_VARIABLE).unwrap())];
    let place = Place { folder: desk.to_owned(), programs: vec![programs.path().to_owned()], variables };
    let followed = place.follow(&here().join("../../docs/auditor.md"));
    assert!(followed.scripts >= 8 && followed.lines >= 9, "{followed:?}");
}
