//! A Sigstore of our own: certificate authority, certificate log, transparency logs and timestamp authority from a seed,
//! which sign images as cosign does, flawless or with exactly one flaw.
//!
//! `sigstore-verify` compares log times with the wall clock, so `now` must lie near real time where signatures are to verify.
#![expect(
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::wildcard_enum_match_arm,
    reason = "a fake panics when it cannot do its work; a flaw is looked at where it is made and passed by elsewhere"
)]

mod bundle;
mod ca;
mod der;
mod entry;
mod flaw;
mod keys;
mod log;
mod logged;
mod root;
mod sign;
mod statement;
mod tree;
mod tsa;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

pub use bundle::{BundleBuilder, FakeBundle};
pub use ca::Identity;
pub use flaw::{Flaw, RootFlaw};
pub use keys::FakeKey;
pub use sign::{FakeSignature, SignatureManifest, attestation_image, signature_image, signature_manifest};

use crate::clock::Timestamp;
use crate::verify::{RekorKeys, SigstoreTrust, pem};
use ca::FakeCa;
use log::{FakeRekor, FakeRekorV2};
use sign::attach_certificate;
use tsa::FakeTsa;

/// A Fulcio, a certificate log, a Rekor of each version, a timestamp authority, and a private PKI beside them.
#[derive(Debug)]
pub struct FakeSigstore {
    seed: u64,
    now: Timestamp,
    fulcio: FakeCa,
    other_fulcio: FakeCa,
    rekor: FakeRekor,
    other_rekor: FakeRekor,
    rekor_v2: FakeRekorV2,
    other_rekor_v2: FakeRekorV2,
    tsa: FakeTsa,
    pki: FakeCa,
}

impl FakeSigstore {
    /// The Sigstore of that seed, whose signatures were made shortly before `now`.
    pub fn from_seed(seed: u64, now: Timestamp) -> Self {
        let rekor = |label: &str| FakeRekor { key: FakeKey::p256(seed, label) };
        Self {
            seed,
            now,
            fulcio: FakeCa::new(seed, "fulcio", now),
            // The same names with other keys.
            other_fulcio: FakeCa::new(!seed, "fulcio", now),
            rekor: rekor("rekor"),
            other_rekor: rekor("other rekor"),
            rekor_v2: FakeRekorV2 { key: FakeKey::ed25519(seed, "rekor v2") },
            other_rekor_v2: FakeRekorV2 { key: FakeKey::ed25519(seed, "other rekor v2") },
            tsa: FakeTsa::new(seed, now),
            pki: FakeCa::new(seed, "pki", now),
        }
    }

    /// A managed key of that name.
    pub fn key(&self, name: &str) -> FakeKey {
        FakeKey::p256(self.seed, &format!("managed {name}"))
    }

    /// Fulcio's root, PEM: policy.json's `caData`.
    pub fn fulcio_ca_pem(&self) -> String {
        pem::write("CERTIFICATE", self.fulcio.root())
    }

    /// Fulcio's intermediate, PEM: bundles bring the leaf alone, so who names no trust root names this one, too.
    pub fn fulcio_intermediate_pem(&self) -> String {
        pem::write("CERTIFICATE", self.fulcio.intermediate_der())
    }

    /// Rekor's public key, PEM: policy.json's `rekorPublicKeyData`.
    pub fn rekor_pem(&self) -> String {
        self.rekor.key.public_pem()
    }

    /// The private PKI's root, PEM: policy.json's `caRootsData`.
    pub fn pki_root_pem(&self) -> String {
        pem::write("CERTIFICATE", self.pki.root())
    }

    /// The private PKI's intermediate, PEM: policy.json's `caIntermediatesData`.
    pub fn pki_intermediate_pem(&self) -> String {
        pem::write("CERTIFICATE", self.pki.intermediate_der())
    }

    /// Rekor's key as verification wants it.
    pub fn rekor_keys(&self) -> RekorKeys {
        RekorKeys::from_pems(&[self.rekor_pem().into_bytes()]).unwrap()
    }

    /// What a `fulcio` requirement for that signer trusts.
    pub fn fulcio_trust(&self, email: &str, issuer: &str) -> SigstoreTrust {
        let ca = self.fulcio_ca_pem();
        SigstoreTrust::fulcio(ca.as_bytes(), self.rekor_keys(), issuer.to_owned(), email.to_owned()).unwrap()
    }

    /// A policy.json requirement: keyless, by that signer, for the repository asked for.
    pub fn fulcio_requirement(&self, email: &str, issuer: &str) -> Value {
        json!({
            "type": "sigstoreSigned",
            "fulcio": {
                "caData": STANDARD.encode(self.fulcio_ca_pem()), "oidcIssuer": issuer, "subjectEmail": email,
            },
            "rekorPublicKeyData": STANDARD.encode(self.rekor_pem()),
            "signedIdentity": {"type": "matchRepository"},
        })
    }

    /// A policy.json requirement: by that key, with a log entry of this Rekor, for the repository asked for.
    pub fn logged_key_requirement(&self, key: &FakeKey) -> Value {
        let mut requirement = key_requirement(key);
        requirement["rekorPublicKeyData"] = STANDARD.encode(self.rekor_pem()).into();
        requirement
    }

    /// A policy.json requirement: by a certificate of the private PKI for that address, for the repository asked for.
    pub fn pki_requirement(&self, email: &str) -> Value {
        json!({
            "type": "sigstoreSigned",
            "pki": {
                "caRootsData": STANDARD.encode(self.pki_root_pem()),
                "caIntermediatesData": STANDARD.encode(self.pki_intermediate_pem()),
                "subjectEmail": email,
            },
            "signedIdentity": {"type": "matchRepository"},
        })
    }
}

/// A policy.json requirement: by that key, without a log, for the repository asked for.
pub fn key_requirement(key: &FakeKey) -> Value {
    json!({
        "type": "sigstoreSigned",
        "keyData": STANDARD.encode(key.public_pem()),
        "signedIdentity": {"type": "matchRepository"},
    })
}

#[cfg(test)]
mod tests;
