//! A Sigstore of our own: certificate authority, certificate log and transparency log from a seed, which sign images as
//! cosign does, flawless or with exactly one flaw.
//!
//! `sigstore-verify` compares log times with the wall clock, so `now` must lie near real time where signatures are to verify.
#![expect(
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::wildcard_enum_match_arm,
    reason = "a fake panics when it cannot do its work; a flaw is looked at where it is made and passed by elsewhere"
)]

mod ca;
mod keys;
mod log;
mod sign;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

pub use ca::Identity;
pub use keys::FakeKey;
pub use sign::{FakeSignature, SignatureManifest, signature_image, signature_manifest};

use crate::clock::Timestamp;
use crate::verify::{RekorKeys, SigstoreTrust, pem};
use ca::FakeCa;
use log::FakeRekor;

/// The one thing that is wrong with a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Nothing: a good signature.
    None,

    // ---- the payload; signed and logged as it is ----
    /// It names another manifest.
    OtherDigest,
    /// `critical` stands there twice.
    DuplicateKey,
    /// `Critical` stands beside `critical`.
    FoldedKey,
    /// `critical` has a member that it must not have.
    UnknownField,
    /// Its type is that of OpenPGP signatures.
    OtherType,

    // ---- the signature ----
    /// Certificate or key, and log entry, of a signature over another payload; the signature is garbage.
    GarbageSignature,
    /// Certificate or key, log entry and signature are those of another payload.
    SignatureOfOtherPayload,
    /// One bit is changed, in the log entry too: only the cryptography can tell.
    CorruptSignature,

    // ---- the certificate ----
    /// The leaf's key signs again after the certificate ended, with the log entry of an earlier signature.
    KeyUsedAfterCertificate,
    /// Issued by another authority of the same names.
    OtherCa,
    /// No certificate is attached.
    NoCertificate,
    /// Two are attached.
    TwoCertificates,
    /// No chain is attached.
    NoChain,
    /// 50 certificates are attached.
    LongChain,
    /// The intermediate had ended when the signature was logged.
    ExpiredIntermediate,
    /// The attached certificate is the authority's own.
    RootAsLeaf,
    /// It is for TLS servers.
    OtherPurpose,
    /// The two issuer extensions differ.
    InconsistentIssuer,
    /// It has no SCT.
    NoSct,
    /// Its SCT is by an unknown log.
    SctByUnknownLog,
    /// Its SCT is one for another certificate.
    SctForOtherCertificate,

    // ---- the log entry ----
    /// There is none.
    NoLogEntry,
    /// It was taken in after the certificate's end.
    IntegratedAfterCertificate,
    /// It was taken in before the certificate's start.
    IntegratedBeforeCertificate,
    /// It was taken in an hour from now.
    IntegratedInFuture,
    /// Its time was changed after the log signed it.
    IntegratedTimeEdited,
    /// Its index was changed after the log signed it.
    LogIndexEdited,
    /// One bit of the log's signature is changed.
    SetCorrupt,
    /// The log's signature is by another log, under this log's id.
    SetByOtherLog,
    /// The entry is one of another log.
    OtherLog,
    /// It is the good entry of a signature by somebody else over something else.
    UnrelatedEntry,
    /// It is the good entry of a signature by the same signer over another payload.
    EntryOfOtherPayload,
    /// It is the good entry of a signature by another signer over the same payload.
    EntryOfOtherSigner,
    /// It is an entry of another kind, promised by the log.
    OtherEntryKind,
}

/// A Fulcio, a certificate log, a Rekor, and a private PKI beside them.
#[derive(Debug)]
pub struct FakeSigstore {
    seed: u64,
    now: Timestamp,
    fulcio: FakeCa,
    other_fulcio: FakeCa,
    rekor: FakeRekor,
    other_rekor: FakeRekor,
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

    /// The whole trust as a sigstore `trusted_root.json`.
    pub fn trusted_root_json(&self) -> String {
        let start = "2020-01-01T00:00:00Z";
        let log = |key: &FakeKey| {
            json!({
                "baseUrl": "https://log.test", "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": STANDARD.encode(key.spki()), "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": {"start": start},
                },
                "logId": {"keyId": STANDARD.encode(key.fingerprint().as_bytes())},
            })
        };
        let certificates: Vec<Value> = [self.fulcio.intermediate_der(), self.fulcio.root()]
            .iter()
            .map(|der| json!({"rawBytes": STANDARD.encode(der)}))
            .collect();
        let root = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(&self.rekor.key)],
            "certificateAuthorities": [{
                "subject": {"organization": "sealgate tests", "commonName": "fulcio"},
                "uri": "https://fulcio.test",
                "certChain": {"certificates": certificates},
                "validFor": {"start": start},
            }],
            "ctlogs": [log(&self.fulcio.ct_key)],
            "timestampAuthorities": [],
        });
        root.to_string()
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
mod tests {
    use sigstore_verify::trust_root::TrustedRoot;
    use sigstore_verify::types::Bundle;
    use sigstore_verify::{CertificateError, Error, VerificationPolicy, Verifier};

    use super::*;
    use crate::clock::Clock;

    fn verify(sigstore: &FakeSigstore, bundle: &Value) -> Result<(), Error> {
        let root = TrustedRoot::from_json(&sigstore.trusted_root_json()).unwrap();
        let bundle = Bundle::from_json(&bundle.to_string()).unwrap();
        let policy = VerificationPolicy::new("dev@corp.com", "https://accounts.example.com");
        Verifier::new(&root).unwrap().verify(b"message".as_slice(), &bundle, &policy).map(|_| ())
    }

    #[test]
    fn a_bundle_passes_every_check_of_the_library_sct_and_inclusion_proof_too() {
        let sigstore = FakeSigstore::from_seed(3, Clock::System.now());
        let identity = Identity::email("dev@corp.com", "https://accounts.example.com");
        verify(&sigstore, &sigstore.bundle(b"message", &identity, Flaw::None)).unwrap();

        for flaw in [Flaw::NoSct, Flaw::SctByUnknownLog, Flaw::SctForOtherCertificate] {
            let error = verify(&sigstore, &sigstore.bundle(b"message", &identity, flaw)).unwrap_err();
            assert!(matches!(error, Error::Certificate(CertificateError::Sct(_))), "{flaw:?}: {error}");
        }
        let mut other_root = sigstore.bundle(b"message", &identity, Flaw::None);
        other_root["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["rootHash"] =
            STANDARD.encode([0; 32]).into();
        assert!(verify(&sigstore, &other_root).is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_keys_and_another_seed_others() {
        let now = Clock::System.now();
        let [one, again, other] = [1, 1, 2].map(|seed| FakeSigstore::from_seed(seed, now));
        assert_eq!(one.rekor_pem(), again.rekor_pem());
        assert_eq!(one.key("a").public_pem(), again.key("a").public_pem());
        assert_ne!(one.key("a").public_pem(), one.key("b").public_pem());
        assert_ne!(one.rekor_pem(), other.rekor_pem());
    }
}
