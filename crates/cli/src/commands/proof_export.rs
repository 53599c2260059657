//! `requiem proof export`: one signature of a bundle in the form of others, who need nothing of ours to verify it.

use clap::ValueEnum;
use requiem_model::BundleRoot;
use requiem_proof::envelope::{Envelope, Signature};
use requiem_proof::sigstore::SigstoreBundle;
use requiem_proof::trust::{Algorithm, Trust, TrustedKey};
use schemars::JsonSchema;
use serde::Serialize;

use super::proof_verify::read_trust;
use crate::arguments::ProofExport;
use crate::crypto::{made_by, sha256, sha256_base64};
use crate::error::CommandError;
use crate::proof_input::{self, Bundle};
use crate::report::Report;
use crate::text::{printable, shown};
use crate::verdict::signers;
use crate::{schema, store};

/// Forms of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// A Sigstore bundle, version 0.3, for cosign and the libraries of Sigstore.
    Sigstore,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Exported<'a> {
    ok: bool,
    format: Format,
    #[schemars(schema_with = "schema::digest")]
    bundle_root: BundleRoot,
    /// The key whose signature it is, as the trust file calls it.
    key: &'a str,
    /// What the bundle calls it: the SHA-256 of its SubjectPublicKeyInfo, in base64.
    hint: String,
    /// SHA-256 of the artifact that the statement is about: the bytes of the body.
    artifact_sha256: String,
}

/// Runs the command.
pub(crate) fn run(arguments: &ProofExport) -> Result<Report, CommandError> {
    let bundle = proof_input::read_bundle(&arguments.file)?;
    let trust = read_trust(&arguments.trust)?;
    // Nothing is handed on that would not be believed here.
    let counted = signers(&trust, &bundle.signatures)?.names;
    let key = chosen(&trust, &counted, arguments.key.as_deref())?;
    let (envelope, signature) = signature_by(&bundle, key)?;
    let hint = sha256_base64(&key.material.to_der());
    let text = SigstoreBundle::new(envelope, signature, hint.clone()).to_json();
    let text = text.map_err(|error| store::encoding(&error))?;
    store::write(&arguments.out, format!("{text}\n").as_bytes())?;
    if let Some(path) = &arguments.artifact {
        store::write(path, bundle.file.body.as_bytes())?;
    }
    let exported = Exported {
        ok: true,
        format: arguments.format,
        bundle_root: bundle.verified.bundle_root,
        key: &key.entry.name,
        hint,
        artifact_sha256: sha256(bundle.file.body.as_bytes()),
    };
    let said = format!(
        "wrote {}: the signature of {} about bundle root {}, for whoever has its public key",
        shown(&arguments.out),
        printable(&key.entry.name),
        bundle.verified.bundle_root,
    );
    Ok(Report::new(&exported, said, true))
}

/// The key that was named, or the only one whose signature can be exported.
fn chosen<'a>(
    trust: &'a Trust,
    counted: &[String],
    wanted: Option<&str>,
) -> Result<&'a TrustedKey, CommandError> {
    let signed: Vec<&TrustedKey> =
        trust.keys().iter().filter(|key| counted.contains(&key.entry.name)).collect();
    let names =
        |keys: &[&TrustedKey]| keys.iter().map(|key| key.entry.name.clone()).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = wanted {
        let key = signed.iter().find(|key| key.entry.name == wanted);
        let key = *key.ok_or_else(|| {
            let message = format!("no signature that counts is by {}", printable(wanted));
            CommandError::unusable(
                "E_UNSIGNED",
                message,
                format!("those that count are by {}", names(&signed)),
            )
        })?;
        return if is_known_to_others(key) { Ok(key) } else { Err(unknown_to_others(&key.entry.name)) };
    }
    let known: Vec<&TrustedKey> = signed.iter().copied().filter(|key| is_known_to_others(key)).collect();
    match known.as_slice() {
        [only] => Ok(*only),
        [] => Err(unknown_to_others(&names(&signed))),
        several => {
            let message = "there are several signatures, and a Sigstore bundle has exactly one";
            let hint =
                format!("name the key with --key: {}; export each to a file of its own", names(several));
            Err(CommandError::unusable("Usage", message, hint))
        }
    }
}

/// A signature of OpenSSH is over other bytes than DSSE's.
fn is_known_to_others(key: &TrustedKey) -> bool {
    matches!(key.entry.algorithm, Algorithm::Ed25519 | Algorithm::EcdsaP256)
}

fn unknown_to_others(names: &str) -> CommandError {
    let message =
        format!("a Sigstore bundle cannot hold a signature of OpenSSH, as that of {}", printable(names));
    CommandError::unusable(
        "E_FORMAT",
        message,
        "export one of an ed25519 or ecdsa-p256 key; ssh-keygen verifies its own",
    )
}

/// The signature that the key made, with its envelope.
fn signature_by<'a>(
    bundle: &'a Bundle,
    key: &TrustedKey,
) -> Result<(&'a Envelope, &'a Signature), CommandError> {
    let envelopes = bundle.file.envelopes.iter();
    let all =
        envelopes.flat_map(|envelope| envelope.signatures.iter().map(move |signature| (envelope, signature)));
    // Both are in the order of the file.
    let mut made = all.zip(&bundle.signatures).filter(|(_, bound)| made_by(key, bound));
    let found = made.next().map(|(pair, _)| pair);
    found.ok_or_else(|| {
        CommandError::finding("E_UNSIGNED", "its signature is not there", "please report this defect")
    })
}
