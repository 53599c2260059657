// Judges Sigstore bundles by @sigstore/verify: signed by a key that the caller trusts. No transparency log and no timestamp are asked for.
// The library judges the signature; that the statement is about the artifact is for its caller to compare, so it is compared here.
//
//	NODE_PATH=… node judge.cjs KEY ARTIFACT BUNDLE...
//
// One line for each bundle on stdout: "accepted PREDICATE-TYPE", or "refused WHY".
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const { bundleFromJSON } = require('@sigstore/bundle');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

const [keyFile, artifactFile, ...bundles] = process.argv.slice(2);
const publicKey = crypto.createPublicKey(fs.readFileSync(keyFile));
const artifact = crypto.createHash('sha256').update(fs.readFileSync(artifactFile)).digest('hex');
const nobody = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
// One key, at all times and whatever a bundle calls it.
const trust = toTrustMaterial(nobody, () => ({ publicKey, validFor: () => true }));
const verifier = new Verifier(trust, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 });

function judge(path) {
  const bundle = bundleFromJSON(JSON.parse(fs.readFileSync(path, 'utf8')));
  verifier.verify(toSignedEntity(bundle));
  const statement = JSON.parse(bundle.content.dsseEnvelope.payload.toString('utf8'));
  if (!statement.subject.some((subject) => subject.digest.sha256 === artifact)) {
    throw new Error('the statement is about another artifact');
  }
  return statement.predicateType;
}

for (const path of bundles) {
  try {
    console.log('accepted', judge(path));
  } catch (error) {
    console.log('refused', String(error.message).replaceAll('\n', ' '));
  }
}
