//! `kubectl requiem` as a user has it: kubectl finds it, and all it may do is what the API server allows.

#[path = "../../crates/cli/tests/common/page.rs"]
mod reader;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use boon::{Compiler, Schemas};
use reader::Place;
use requiem_tests::helm::kubectl_command;
use requiem_tests::{Failure, KUBECONFIG, PROGRAMS, setting};
use requiem_xtask::paths;
use requiem_xtask::scratch::Scratch;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::site::{Site, attempts, grant, policy};

/// A folder with the plugin, and a kubeconfig of its own whose namespace is the test's.
struct Desk {
    scratch: Scratch,
}

impl Desk {
    fn new(site: &Site) -> Result<Self, Failure> {
        let scratch = Scratch::new("plugin")?;
        std::fs::create_dir(scratch.path().join("bin"))?;
        symlink(setting(PROGRAMS)?.join("requiem"), scratch.path().join("bin/kubectl-requiem"))?;
        symlink(setting(PROGRAMS)?.join("requiem"), scratch.path().join("bin/requiem"))?;
        std::fs::copy(setting(KUBECONFIG)?, scratch.path().join("kubeconfig"))?;
        let desk = Self { scratch };
        let namespace = format!("--namespace={}", site.bed.namespace);
        desk.succeeds(&["config", "set-context", "--current", &namespace])?;
        Ok(desk)
    }

    fn folder(&self) -> &Path {
        self.scratch.path()
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        let kubectl = PathBuf::from(kubectl_command(&[])?.get_program());
        let kubectl = kubectl.parent().ok_or("kubectl lies nowhere")?.to_owned();
        Ok(vec![self.folder().join("bin"), kubectl])
    }

    fn place(&self) -> Result<Place, Failure> {
        let variables = vec![
            ("KUBECONFIG", self.folder().join("kubeconfig")),
            ("XDG_DATA_HOME", self.folder().join("data")),
        ];
        Ok(Place { folder: self.folder().to_owned(), programs: self.programs()?, variables })
    }

    /// `kubectl` with these arguments.
    fn kubectl(&self, arguments: &[&str]) -> Result<Command, Failure> {
        let place = self.place()?;
        let path = std::env::join_paths(
            place
                .programs
                .into_iter()
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        )?;
        let mut command = Command::new("kubectl");
        command.args(arguments).current_dir(self.folder()).envs(place.variables);
        // The name is looked up in this PATH only.
        command.env("PATH", &path);
        Ok(command)
    }

    fn output(&self, arguments: &[&str]) -> Result<Output, Failure> {
        Ok(self.kubectl(arguments)?.output()?)
    }

    fn succeeds(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.output(arguments)?;
        let said = String::from_utf8(output.stdout)?;
        match output.status.success() {
            true => Ok(said),
            false => Err(format!("{arguments:?}\n{said}{}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    /// The plugin's document, which must be as it is published, and the exit code.
    fn document(&self, schema: &str, arguments: &[&str]) -> Result<(i32, Value), Failure> {
        let output = self.output(&[&["requiem", "--json"], arguments].concat())?;
        let document = serde_json::from_slice(&output.stdout).map_err(|error| {
            format!("{error}: {arguments:?}\n{}", String::from_utf8_lossy(&output.stderr))
        })?;
        is_as_published(schema, &document)?;
        Ok((output.status.code().ok_or("a signal ended it")?, document))
    }
}

fn is_as_published(name: &str, document: &Value) -> Result<(), Failure> {
    let path = paths::repository().join("docs/reference/schemas").join(name);
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    let resource = serde_json::from_slice(&std::fs::read(path)?)?;
    compiler.add_resource("mem:///schema.json", resource).map_err(|error| error.to_string())?;
    let index = compiler.compile("mem:///schema.json", &mut schemas).map_err(|error| error.to_string())?;
    schemas.validate(document, index).map_err(|error| format!("{name}: {error:#}\n{document:#}").into())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_the_plugin_is_followed() -> Result<(), Failure> {
    let site = Site::start("plugin-page", "baseline").await?;
    site.pool("default", json!({"tier": "T1", "slots": 2})).await?;
    site.settled("default", 1).await?;
    let desk = Desk::new(&site)?;
    let followed = desk.place()?.follow(&paths::repository().join("docs/kubectl.md"));
    assert_eq!((followed.scripts, followed.lines), (7, 21));
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_as_published_and_what_is_not_to_be_had_is_said() -> Result<(), Failure> {
    let site = Site::start("plugin-says", "baseline").await?;
    site.pool("default", json!({"tier": "T1"})).await?;
    site.settled("default", 1).await?;
    let desk = Desk::new(&site)?;
    let script = "mkdir -p tree/deep; echo deep > tree/deep/file; ln -s /etc/passwd tree/link; \
                  printf 'a\\0\\377b' > bytes; chmod +x bytes; yes 0123456789 | head -c 300000";
    let run = ["run", "--name", "rich", "--output", "tree", "--output", "bytes", "--", "bash", "-c", script];
    let (code, ran) = desk.document("kubectl-run.json", &run)?;
    assert_eq!(
        (code, &ran["result"], &ran["execution"]),
        (0, &json!("Succeeded"), &json!("rich")),
        "{ran:#}"
    );
    let (_, standing) = desk.document("kubectl-get.json", &["get", "rich"])?;
    assert_eq!(standing["executions"][0]["outputs"], json!(["bytes", "tree"]), "{standing:#}");
    let (_, load) = desk.document("kubectl-top.json", &["top"])?;
    assert_eq!((&load["pools"][0]["capacity"], &load["pools"][0]["ready"]), (&json!(1), &json!(true)));

    let (_, told) = desk.document("kubectl-cancel.json", &["cancel", "rich"])?;
    assert_eq!(told["executions"][0]["had_ended"], json!(true), "{told:#}");

    let stdout = desk.succeeds(&["requiem", "logs", "rich"])?;
    assert_eq!((stdout.len(), &stdout[..11]), (300_000, "0123456789\n"));
    let (_, listed) = desk.document("kubectl-outputs.json", &["outputs", "rich", "--to", "out"])?;
    assert_eq!(listed["outputs"].as_array().map(Vec::len), Some(2), "{listed:#}");
    let out = desk.folder().join("out");
    assert_eq!(std::fs::read(out.join("bytes"))?, b"a\0\xffb");
    assert_eq!(std::fs::read_to_string(out.join("tree/deep/file"))?, "deep\n");
    assert_eq!(std::fs::read_link(out.join("tree/link"))?, Path::new("/etc/passwd"));
    for (arguments, code) in [
        (&["outputs", "rich", "--to", "out"][..], "File"),
        (&["outputs", "rich", "absent"], "Usage"),
        (&["logs", "nobody"], "NotFound"),
        (&["run", "--env", "A", "--", "true"], "Usage"),
    ] {
        let (exit, error) = desk.document("error.json", arguments)?;
        assert_eq!((exit, error["error_code"].as_str()), (2, Some(code)), "{error:#}");
    }
    let (exit, ran) = desk.document("kubectl-run.json", &["run", "--", "bash", "-c", "exit 3"])?;
    assert_eq!((exit, &ran["result"]), (1, &json!("NonZeroExit")), "{ran:#}");

    site.execute("waits", "true", crate::pools::in_pool("nowhere", json!({}))).await?;
    site.watch("waits", |object| crate::site::reason_of(object) == "PoolNotFound").await?;
    let (exit, error) = desk.document("error.json", &["logs", "waits"])?;
    assert_eq!((exit, error["error_code"].as_str()), (1, Some("NotStarted")), "{error:#}");
    assert!(error["message"].as_str().is_some_and(|said| said.contains("PoolNotFound")), "{error:#}");

    // A pod of its own goes with the bytes; while they fit into the status nothing is missing.
    let image = requiem_xtask::images::payload::NAME;
    let own = json!({"pod": {"image": image, "imagePullPolicy": "Never", "tier": "T3"}});
    let spec = json!({"policy": policy("t3")?, "executor": own, "outputs": ["kept"]});
    site.execute("own", "echo short; touch kept", spec.clone()).await?;
    site.execute("own-long", "yes | head -c 5000; touch kept", spec).await?;
    assert_eq!(desk.succeeds(&["requiem", "logs", "-f", "own"])?, "short\n");
    site.success("own-long").await?;
    let long = desk.output(&["requiem", "logs", "own-long"])?;
    assert!(long.status.code() == Some(1) && long.stdout.len() == 1024, "{long:?}");
    let (exit, error) = desk.document("error.json", &["outputs", "own", "--to", "never"])?;
    assert_eq!((exit, error["error_code"].as_str()), (1, Some("Gone")), "{error:#}");
    assert!(!desk.folder().join("never").exists());
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_followed_through_an_executor_that_dies_and_unpublished_proofs_are_fetched()
-> Result<(), Failure> {
    let site = Site::start("plugin-follows", "restricted").await?;
    site.pool("default", json!({"replicas": 2})).await?;
    site.settled("default", 2).await?;
    let desk = Desk::new(&site)?;
    let spec = json!({"policy": policy("t3")?, "proof": {"publish": "Never"}});
    site.execute("twice", "echo begins; sleep 8; echo ends", spec).await?;
    let follower = desk.kubectl(&["requiem", "logs", "-f", "twice", "--stream", "stdout"])?;
    let follower = tokio::task::spawn_blocking(move || {
        let mut follower = follower;
        follower.output()
    });
    let running = site.watch("twice", |object| attempts(object) == 1).await?;
    let said = crate::site::message(&running);
    let pods = crate::pools::pods(&site, "default").await?;
    let holder = pods.iter().filter_map(|pod| pod.metadata.name.clone()).find(|name| said.contains(name));
    let grace = kube::api::DeleteParams::default().grace_period(0);
    site.bed.pods.delete(&holder.ok_or("nobody has it")?, &grace).await?;
    let shown = follower.await??;
    let text = String::from_utf8(shown.stdout)?;
    assert!(text.ends_with("begins\nends\n"), "{text}{}", String::from_utf8_lossy(&shown.stderr));
    site.success("twice").await?;
    // Nothing was published: the executor has the proof, and the status has its root.
    let (code, verdict) = desk.document("proof-verify.json", &["verify", "twice"])?;
    assert_eq!((code, &verdict["name"], &verdict["attempt"]), (0, &json!("twice"), &json!(2)), "{verdict:#}");
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_exec_nobody_reads_bytes() -> Result<(), Failure> {
    let site = Site::start("plugin-rights", "restricted").await?;
    site.pool("default", json!({})).await?;
    site.settled("default", 1).await?;
    let desk = Desk::new(&site)?;
    site.execute("secret", "yes secret | head -c 5000", json!({"policy": policy("t3")?})).await?;
    site.success("secret").await?;
    let reads = json!([{"apiGroups": ["requiem.dev"], "resources": ["executions", "executorpools", "proofbundles"], "verbs": ["get", "list", "watch"]}]);
    as_account(&desk, &site.bed, reads).await?;
    let (code, _) = desk.document("proof-verify.json", &["verify", "secret"])?;
    assert_eq!(code, 0, "a proof needs no such right");
    let (code, error) = desk.document("error.json", &["logs", "secret"])?;
    assert_eq!((code, error["error_code"].as_str()), (2, Some("Forbidden")), "{error:#}");
    assert!(error["message"].as_str().is_some_and(|said| said.contains("pods/exec")), "{error:#}");
    let exec = json!([{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]}]);
    grant(&site.bed, &site.bed.namespace, "exec", exec).await?;
    assert_eq!(desk.succeeds(&["requiem", "logs", "secret"])?.len(), 5000);
    site.close().await
}

/// From now on the desk's kubeconfig is that of the account that [`grant`] gives rights to.
async fn as_account(desk: &Desk, bed: &Bed, rules: Value) -> Result<(), Failure> {
    grant(bed, &bed.namespace, "read", rules).await?;
    desk.succeeds(&["create", "serviceaccount", "blind"])?;
    let token = desk.succeeds(&["create", "token", "blind"])?;
    desk.succeeds(&["config", "set-credentials", "reader", "--token", token.trim()])?;
    desk.succeeds(&["config", "set-context", "--current", "--user", "reader"])?;
    Ok(())
}
