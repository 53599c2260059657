//! A payload that looks where it is: what it sees is held against what the engine's report says.
//!
//! It only looks. It makes nothing outside its workspace, for it also runs by engines that isolate nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use requiem_cas::{Durability, TenantStore};
use requiem_model::request::{EnvVar, Input, InputSource};
use requiem_model::{EnvName, ExecutionRequest, Layer, RelPath};

use super::preferred;
use crate::error::CommandError;
use crate::store;

/// Bytes that the workspace may hold.
const SCRATCH: u64 = 16 << 20;
/// Processes that the run may have, and how many the payload tries to have.
const PIDS: u64 = 32;
/// Files that a process may have open.
const OPEN_FILES: u64 = 64;
/// A word in the arguments of this process, and nowhere among those of the payload.
const OUR_WORD: &str = "validate-replacement";

/// Each namespace by its file in /proc/self/ns, and the layer that gives the payload one of its own.
const NAMESPACES: [(&str, Layer); 7] = [
    ("user", Layer::UserNamespace),
    ("pid", Layer::PidNamespace),
    ("mnt", Layer::MountNamespace),
    ("net", Layer::NetworkNamespace),
    ("ipc", Layer::IpcNamespace),
    ("uts", Layer::UtsNamespace),
    ("cgroup", Layer::CgroupNamespace),
];

const SCRIPT: &str = r#"for n in user pid mnt net ipc uts cgroup; do echo "ns_$n=$(readlink /proc/self/ns/$n)"; done
while read -r name value rest; do
  case $name in NoNewPrivs:|Seccomp:|CapInh:|CapPrm:|CapEff:|CapBnd:|CapAmb:) echo "${name%:}=$value" ;; esac
done < /proc/self/status
echo "interfaces=$(sed -n 's/^ *\([^: ]*\):.*/\1/p' /proc/self/net/dev | tr '\n' ' ')"
[ -e "$HOST_FILE" ] && echo host_file=seen || echo host_file=unseen
case $(tr '\0' ' ' 2>/dev/null < "/proc/$HOST_PID/cmdline") in *"$HOST_WORD"*) echo host_process=seen ;; *) echo host_process=unseen ;; esac
chmod u+w input 2>/dev/null
if (echo changed > input) 2>/dev/null; then echo input=writable; else echo input=refused; fi
stat -f -c 'scratch=%T %S %b' .
echo "open_files=$(ulimit -n) core=$(ulimit -c)"
for d in /proc/self/fd/*; do if [ -L "$d" ]; then fds="$fds${d##*/} "; fi; done; echo "fds=$fds"
echo "forks=$( (n=0; while [ $n -lt 64 ]; do sleep 2 > /dev/null 2>&1 & n=$((n+1)); done; echo all) 2>/dev/null)"
"#;

/// The request, and what is so where nothing isolates.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) request: ExecutionRequest,
    /// Our own namespaces, by the names of their files.
    namespaces: BTreeMap<String, String>,
}

/// What the payload saw of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It is as behind the layer.
    Holds,
    /// It is not: what was seen instead.
    Absent(String),
    /// A payload like this one cannot see it, or said nothing of it.
    Unseen,
}

impl Probe {
    /// Puts the request together, and a file into `folder` that nobody who is isolated can see.
    ///
    /// # Errors
    /// The folder or the store cannot be written, or there is no /proc.
    pub(crate) fn prepare(objects: &TenantStore, folder: &Path) -> Result<Self, CommandError> {
        let file: PathBuf = folder.join("seen-from-the-host");
        fs::write(&file, "").map_err(|error| store::cannot("write", &file, &error))?;
        let mut request = ExecutionRequest::new(["/bin/sh", "-c", SCRIPT].map(str::to_owned).to_vec());
        let variable = |name: &str, value: String| {
            let name = EnvName::parse(name)
                .map_err(|error| CommandError::field(name, error, "please report this"))?;
            Ok::<_, CommandError>(EnvVar { name, value })
        };
        request.env = vec![
            variable("HOST_FILE", file.to_string_lossy().into_owned())?,
            variable("HOST_PID", std::process::id().to_string())?,
            variable("HOST_WORD", OUR_WORD.to_owned())?,
        ];
        let digest = objects.put_bytes(b"as it was\n", Durability::Volatile)?.digest;
        let path = RelPath::parse("input")
            .map_err(|error| CommandError::field("input", error, "please report this"))?;
        request.inputs = vec![Input { path, source: InputSource::Blob { digest, executable: false } }];
        request.limits.scratch_bytes = SCRATCH;
        request.limits.pids = PIDS;
        request.limits.open_files = OPEN_FILES;
        request.limits.timeout_ms = 20_000;
        request.policy = preferred();
        let request =
            request.normalise().map_err(|error| CommandError::field(&error.field, &error.why, error.hint))?;
        Ok(Self { request, namespaces: own_namespaces()? })
    }

    /// What the payload saw of each layer, by what it said.
    pub(crate) fn sights(&self, said: &str) -> Vec<(Layer, Sight)> {
        let facts = Facts(said.lines().filter_map(|line| line.split_once('=')).collect());
        Layer::ALL.into_iter().map(|layer| (layer, self.sight(layer, &facts))).collect()
    }

    fn sight(&self, layer: Layer, facts: &Facts<'_>) -> Sight {
        if let Some((name, _)) = NAMESPACES.into_iter().find(|(_, of)| *of == layer) {
            let own = self.namespaces.get(name).map(String::as_str).unwrap_or_default();
            let apart = facts.judge(&format!("ns_{name}"), |link| !link.is_empty() && link != own);
            return match layer {
                Layer::NetworkNamespace => apart.and(facts.judge("interfaces", |all| all.trim() == "lo")),
                _ => apart,
            };
        }
        match layer {
            Layer::MinimalRoot => facts.judge("host_file", |seen| seen == "unseen"),
            Layer::ReadOnlyInputs => facts.judge("input", |input| input == "refused"),
            Layer::Scratch => facts.judge("scratch", is_bounded_memory),
            Layer::Procfs => facts.judge("host_process", |seen| seen == "unseen"),
            Layer::NoNewPrivileges => facts.judge("NoNewPrivs", |flag| flag == "1"),
            Layer::Capabilities => ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
                .into_iter()
                .map(|set| facts.judge(set, |mask| mask.bytes().all(|digit| digit == b'0')))
                .fold(Sight::Holds, Sight::and),
            Layer::Rlimits => facts.judge("open_files", |limits| limits == format!("{OPEN_FILES} core=0")),
            Layer::Cgroup => facts.judge("forks", |forks| forks != "all"),
            Layer::Seccomp => facts.judge("Seccomp", |mode| mode == "2"),
            Layer::Descriptors => {
                facts.judge("fds", |open| open.split_whitespace().all(|fd| ["0", "1", "2"].contains(&fd)))
            }
            // Landlock shows in nothing that a shell can look at without a file that only it forbids.
            _ => Sight::Unseen,
        }
    }
}

/// What the payload said.
struct Facts<'a>(BTreeMap<&'a str, &'a str>);

impl Facts<'_> {
    fn judge(&self, name: &str, holds: impl Fn(&str) -> bool) -> Sight {
        match self.0.get(name) {
            None => Sight::Unseen,
            Some(value) if holds(value) => Sight::Holds,
            Some(value) => Sight::Absent(format!("{name}={}", value.trim())),
        }
    }
}

impl Sight {
    /// Both must hold; the first that does not is told.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Holds, other) => other,
            (first, _) => first,
        }
    }
}

/// A file system in memory that holds no more than was allowed.
fn is_bounded_memory(told: &str) -> bool {
    let mut words = told.split_whitespace();
    let kind = words.next();
    let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
    match (kind, numbers.as_deref()) {
        (Some("tmpfs"), Some([size, blocks])) => size.saturating_mul(*blocks) <= SCRATCH,
        _ => false,
    }
}

fn own_namespaces() -> Result<BTreeMap<String, String>, CommandError> {
    let own = |name: &str| {
        let path = PathBuf::from(format!("/proc/self/ns/{name}"));
        let link = fs::read_link(&path).map_err(|error| store::cannot("read", &path, &error))?;
        Ok((name.to_owned(), link.to_string_lossy().into_owned()))
    };
    NAMESPACES.into_iter().map(|(name, _)| own(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        let namespaces = NAMESPACES.map(|(name, _)| (name.to_owned(), format!("{name}:[1]"))).into();
        Probe { request: ExecutionRequest::new(vec!["true".to_owned()]), namespaces }
    }

    fn said(namespace: &str, rest: &str) -> String {
        let links: String = NAMESPACES.map(|(name, _)| format!("ns_{name}={name}:[{namespace}]\n")).concat();
        links + rest
    }

    fn those(said: &str, wanted: fn(&Sight) -> bool) -> Vec<Layer> {
        let sights = probe().sights(said).into_iter();
        sights.filter(|(_, sight)| wanted(sight)).map(|(layer, _)| layer).collect()
    }

    #[test]
    fn each_layer_is_told_from_its_absence() {
        let inside = "NoNewPrivs=1\nSeccomp=2\nCapInh=0000\nCapPrm=0000\nCapEff=0000\nCapBnd=0000\nCapAmb=0000\ninterfaces=lo \n\
            host_file=unseen\nhost_process=unseen\ninput=refused\nscratch=tmpfs 4096 4096\nopen_files=64 core=0\nfds=0 1 2 \nforks=\n";
        let outside = "NoNewPrivs=0\nSeccomp=0\nCapInh=0000\nCapPrm=00ff\nCapEff=00ff\nCapBnd=00ff\nCapAmb=0000\ninterfaces=lo eth0 \n\
            host_file=seen\nhost_process=seen\ninput=writable\nscratch=ext2/ext3 4096 4096\nopen_files=1024 core=0\nfds=0 1 2 7 \nforks=all\n";
        assert_eq!(those(&said("2", inside), |sight| *sight == Sight::Unseen), [Layer::Landlock]);
        assert!(those(&said("2", inside), |sight| matches!(sight, Sight::Absent(_))).is_empty());
        let absent = those(&said("1", outside), |sight| matches!(sight, Sight::Absent(_)));
        assert_eq!(absent.len(), Layer::ALL.len() - 1, "{absent:?}");
        // A payload that says nothing has seen nothing.
        assert_eq!(those("", |sight| *sight == Sight::Unseen).len(), Layer::ALL.len());
    }

    #[test]
    fn memory_without_the_right_bound_is_none() {
        assert!(is_bounded_memory("tmpfs 4096 4096"));
        for wrong in ["tmpfs 4096 4097", "tmpfs 4096", "ext2/ext3 1 1", "", "tmpfs x y"] {
            assert!(!is_bounded_memory(wrong), "{wrong}");
        }
    }
}
