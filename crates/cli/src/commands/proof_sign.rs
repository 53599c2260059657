//! `requiem proof sign`: has a signer sign the statement about a bundle, checks what it gives back, and writes both together.

use std::time::Duration;

use requiem_model::BundleRoot;
use requiem_proof::envelope::{PAYLOAD_TYPE, Signature, pae, unsigned};
use requiem_proof::signer::{Ask, Checked, Context, PURPOSE, Signed, decoded, encoded};
use requiem_proof::trust::{Algorithm, from_pem, from_ssh};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::ProofSign;
use crate::crypto::{is_valid, sha256};
use crate::error::CommandError;
use crate::proof_input::{self, Bundle};
use crate::report::Report;
use crate::schema;
use crate::signer::{Signer, refused};
use crate::store;
use crate::text::shown;

#[derive(Serialize, JsonSchema)]
pub(super) struct SignedDocument {
    ok: bool,
    #[schemars(schema_with = "schema::digest")]
    bundle_root: BundleRoot,
    key_id: String,
    #[schemars(schema_with = "schema::algorithm")]
    algorithm: Algorithm,
    public_key: String,
    signatures: usize,
}

/// Runs the command.
pub(crate) fn run(arguments: &ProofSign) -> Result<Report, CommandError> {
    let mut bundle = proof_input::read_bundle(&arguments.file)?;
    let deadline = Duration::from_secs(arguments.deadline_seconds);
    let signer = Signer::new(&arguments.signer, &arguments.signer_arg, deadline)?;
    let payload = statement(&bundle)?;
    let bytes = pae(PAYLOAD_TYPE, &payload);
    let ask = Ask::Sign {
        purpose: PURPOSE.to_owned(),
        payload_type: PAYLOAD_TYPE.to_owned(),
        pae: encoded(&bytes),
        key_id: arguments.key.clone(),
        context: context(&bundle),
    };
    let signed: Signed = signer.ask(ask)?;
    check(&signer, arguments.key.as_deref(), &signed, &bytes)?;
    add(&mut bundle, &payload, &signed);
    // What is written is what a verifier will accept.
    let bundle = proof_input::judge(bundle.file)?;
    let text = bundle.file.to_json().map_err(|error| store::encoding(&error))?;
    store::write(arguments.out.as_deref().unwrap_or(&arguments.file), format!("{text}\n").as_bytes())?;
    let said = format!(
        "signed by key {} of {}; {} signatures are about bundle root {}",
        signed.key_id,
        shown(&arguments.signer),
        bundle.signatures.len(),
        bundle.verified.bundle_root,
    );
    let document = SignedDocument {
        ok: true,
        bundle_root: bundle.verified.bundle_root,
        key_id: signed.key_id,
        algorithm: signed.algorithm,
        public_key: signed.public_key,
        signatures: bundle.signatures.len(),
    };
    Ok(Report::new(&document, said, true))
}

fn statement(bundle: &Bundle) -> Result<Vec<u8>, CommandError> {
    let envelope = unsigned(&bundle.verified, &sha256(bundle.file.body.as_bytes()));
    let envelope = envelope.map_err(|error| store::encoding(&error))?;
    decoded(&envelope.payload).map_err(|error| refused(error.code(), error.to_string()))
}

fn context(bundle: &Bundle) -> Context {
    let identity = &bundle.verified.body.run.identity;
    Context {
        namespace: identity.namespace.clone(),
        name: identity.name.clone(),
        uid: identity.uid.clone(),
        bundle_root: bundle.verified.bundle_root,
    }
}

/// A signer may lie: about which key it used, or by signing something else. Its signature must be the named key's over exactly these
/// bytes, and it must say so again when it is asked in another process.
fn check(signer: &Signer, wanted: Option<&str>, signed: &Signed, bytes: &[u8]) -> Result<(), CommandError> {
    let lie = |why: &str| refused("E_PLUGIN_SIGNATURE", why);
    if wanted.is_some_and(|wanted| wanted != signed.key_id) {
        return Err(lie("it signed with another key than it was asked for"));
    }
    let key = match signed.algorithm {
        Algorithm::Ed25519 | Algorithm::EcdsaP256 => from_pem(&signed.public_key),
        Algorithm::Sshsig => from_ssh(&signed.public_key),
    };
    let key = key.ok_or_else(|| lie("its public key is none of its algorithm"))?;
    let signature = decoded(&signed.signature).map_err(|error| refused(error.code(), error.to_string()))?;
    if !is_valid(signed.algorithm, &key, bytes, &signature) {
        return Err(lie("what it gives back is no signature of its key over what it was asked to sign"));
    }
    let (pae, key_id, signature) = (encoded(bytes), signed.key_id.clone(), signed.signature.clone());
    let checked: Checked = signer.ask(Ask::Verify { pae, key_id, signature })?;
    if checked.valid { Ok(()) } else { Err(lie("it does not stand by its own signature")) }
}

/// Into the envelope with this statement, if there is one; a signature by the same key takes the place of the old one.
fn add(bundle: &mut Bundle, payload: &[u8], signed: &Signed) {
    let signature = Signature { keyid: signed.key_id.clone(), sig: signed.signature.clone() };
    let payload = encoded(payload);
    let envelopes = &mut bundle.file.envelopes;
    match envelopes.iter_mut().find(|envelope| envelope.payload == payload) {
        Some(envelope) => {
            envelope.signatures.retain(|other| other.keyid != signature.keyid);
            envelope.signatures.push(signature);
        }
        None => envelopes.push(requiem_proof::envelope::Envelope {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload,
            signatures: vec![signature],
        }),
    }
}
