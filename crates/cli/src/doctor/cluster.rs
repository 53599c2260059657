//! A cluster, as far as its user may see it: does the user's certificate last, is it there, does it have our definitions, what may this user do, do its pools work.
//! Nothing is written, and no Secret is read.

use std::fs;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, ListParams, PostParams};
use kube::config::AuthInfo;
use kube::{Client, ResourceExt};
use requiem_crds::{ExecutorPool, GROUP, VERSION};
use requiem_executor::server::certificate::facts;
use requiem_proof::rfc3339_millis;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{Check, Finding};
use crate::cluster::refused;
use crate::error::CommandError;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A certificate that ends in so many seconds wants attention: fourteen days.
const SOON: i64 = 14 * 86_400;
/// What there must be.
const KINDS: [&str; 5] =
    ["executions", "executorpools", "proofbundles", "executionpolicies", "clusterexecutionpolicies"];
/// What `exec apply` and this command do.
const RIGHTS: [(&str, &str); 6] = [
    ("create", "executions"),
    ("get", "executions"),
    ("list", "executions"),
    ("watch", "executions"),
    ("get", "proofbundles"),
    ("list", "executorpools"),
];

/// Looks at everything, in the order in which one thing needs the other.
pub(crate) async fn look(client: &Client, namespace: &str) -> Result<Vec<Check>, CommandError> {
    let version = match answer("ask for the version", client.apiserver_version()).await {
        Ok(version) => version,
        Err(error) => {
            let finding = Finding::error("ClusterUnreachable", error.message, error.hint);
            return Ok(vec![Check::of("cluster", "no answer").with([finding])]);
        }
    };
    let cluster = Check::of("cluster", format!("Kubernetes {}", version.git_version));
    let definitions = definitions(client).await?;
    let are_there = definitions.findings.is_empty();
    let mut checks = vec![cluster, definitions];
    if are_there {
        let rights = rights(client, namespace).await?;
        let may_list = !rights.findings.iter().any(|finding| finding.message.contains("list executorpools"));
        checks.push(rights);
        if may_list {
            checks.push(pools(client, namespace).await?);
        }
    }
    Ok(checks)
}

/// The certificate by which this user is known to the cluster, if it is one.
pub(crate) fn certificate(user: &AuthInfo) -> Option<Check> {
    let pem = match (&user.client_certificate_data, &user.client_certificate) {
        (Some(data), _) => STANDARD.decode(data).map_err(|error| error.to_string()),
        (None, Some(path)) => fs::read(path).map_err(|error| format!("{path}: {error}")),
        (None, None) => return None,
    };
    let not_after = pem.and_then(|pem| {
        let der = CertificateDer::from_pem_slice(&pem).map_err(|error| error.to_string())?;
        facts(&der).map(|facts| facts.not_after).ok_or_else(|| "it is not built like one".to_owned())
    });
    Some(match not_after {
        Ok(not_after) => expiry(not_after),
        Err(why) => {
            let message = format!("the client certificate of the kubeconfig cannot be read: {why}");
            let finding = Finding::error("CertificateUnreadable", message, "log in to the cluster again");
            Check::of("certificate", "unreadable").with([finding])
        }
    })
}

fn expiry(not_after: i64) -> Check {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let left = not_after.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    let until = rfc3339_millis(u64::try_from(not_after).unwrap_or_default().saturating_mul(1000));
    let check = Check::of("certificate", format!("valid until {until}"));
    let remedy = "log in to the cluster again, or have the certificate renewed";
    if left < 0 {
        let message = format!("the client certificate of the kubeconfig has expired at {until}");
        check.with([Finding::error("CertificateExpired", message, remedy)])
    } else if left < SOON {
        let message = format!("the client certificate of the kubeconfig expires at {until}");
        check.with([Finding::warning("CertificateExpiring", message, remedy)])
    } else {
        check
    }
}

/// An answer in time.
async fn answer<T>(what: &str, asking: impl Future<Output = kube::Result<T>>) -> Result<T, CommandError> {
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(|error| refused(what, &error)),
        Err(_elapsed) => {
            let message = format!("cannot {what}: no answer within {} s", PATIENCE.as_secs());
            Err(CommandError::unusable("NoAnswer", message, "see whether kubectl reaches the cluster"))
        }
    }
}

/// Every user may read which kinds there are.
async fn definitions(client: &Client) -> Result<Check, CommandError> {
    let install = "install Requiem, docs/install.md; its definitions are in config/crd";
    let groups = answer("list the API groups", client.list_api_groups()).await?;
    let Some(group) = groups.groups.into_iter().find(|group| group.name == GROUP) else {
        let finding = Finding::error("DefinitionsMissing", format!("{GROUP} is not served"), install);
        return Ok(Check::of("definitions", "none").with([finding]));
    };
    let versions: Vec<String> = group.versions.into_iter().map(|version| version.version).collect();
    let check = Check::of("definitions", format!("{GROUP} {}", versions.join(", ")));
    if !versions.iter().any(|version| version == VERSION) {
        let message =
            format!("{GROUP} is served as {}, and this program speaks {VERSION}", versions.join(", "));
        let finding = Finding::error("DefinitionsOfOtherVersion", message, "use the program of that version");
        return Ok(check.with([finding]));
    }
    let ours = format!("{GROUP}/{VERSION}");
    let served = match answer("list the kinds", client.list_api_group_resources(&ours)).await {
        Ok(served) => served.resources,
        // The last of them has just gone, or the first has just come.
        Err(error) if error.error_code == "NotFound" => Vec::new(),
        Err(error) => return Err(error),
    };
    let missing = KINDS.into_iter().filter(|kind| !served.iter().any(|found| found.name == *kind));
    Ok(check.with(
        missing.map(|kind| {
            Finding::error("DefinitionMissing", format!("{kind}.{GROUP} is not served"), install)
        }),
    ))
}

async fn rights(client: &Client, namespace: &str) -> Result<Check, CommandError> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut findings = Vec::new();
    for (verb, resource) in RIGHTS {
        let attributes = ResourceAttributes {
            group: Some(GROUP.to_owned()),
            namespace: Some(namespace.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let parameters = PostParams::default();
        let answered = answer("ask what this user may do", reviews.create(&parameters, &review)).await?;
        if !answered.status.is_some_and(|status| status.allowed) {
            findings.push(Finding::warning(
                "RightMissing",
                format!("this user may not {verb} {resource} in namespace {namespace}"),
                "ask for the roles edit and view in that namespace",
            ));
        }
    }
    let count = RIGHTS.len() - findings.len();
    Ok(Check::of("rights", format!("{count} of {} in namespace {namespace}", RIGHTS.len())).with(findings))
}

async fn pools(client: &Client, namespace: &str) -> Result<Check, CommandError> {
    let pools: Api<ExecutorPool> = Api::namespaced(client.clone(), namespace);
    let parameters = ListParams::default();
    let pools = answer("list the pools", pools.list(&parameters)).await?.items;
    let none = pools.is_empty().then(|| {
        let message = format!("there is no ExecutorPool in namespace {namespace}");
        Finding::warning(
            "NoPool",
            message,
            "make one, like config/samples; only Executions with a pod of their own run without",
        )
    });
    let unready = pools.iter().filter_map(|pool| {
        let conditions = pool.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        match conditions.iter().find(|one| one.type_ == "Ready") {
            Some(ready) if ready.status == "True" => None,
            Some(ready) => Some((pool.name_any(), format!("{}: {}", ready.reason, ready.message))),
            None => Some((pool.name_any(), "no operator has looked at it".to_owned())),
        }
    });
    let findings: Vec<Finding> = unready
        .map(|(name, why)| {
            let message = format!("pool {name} is not ready: {why}");
            Finding::error(
                "PoolNotReady",
                message,
                "see docs/operator.md for the reason, and the operator's log",
            )
        })
        .collect();
    let ready = pools.len() - findings.len();
    Ok(Check::of("pools", format!("{ready} of {} ready", pools.len())).with(none).with(findings))
}
