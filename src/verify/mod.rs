//! CORE. Is this signature good, and whose is it?
//!
//! Functions from bytes, key material and `now` to a value: no I/O, no logging. Keys, certificate authorities and log keys belong
//! to the requirement that names them, so they come in as a [`SigstoreTrust`]. May import: `oci`, `limits`, `clock`.
//!
//! The cryptography of signatures with a log entry is `sigstore-verify`'s, called from `sigstore.rs` alone
//! (`docs/decisions/0001-sigstore-verify.md`). Around it stand our own rules: what a payload may look like
//! (`simple_signing`), how cosign's annotations are read (`legacy`), keys without a log (`keyed`), whose certificate it is
//! (`fulcio`), private PKIs (`pki`) and certificate chains (`chain`).
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod authority;
mod certificate;
mod chain;
mod error;
mod fulcio;
mod identity;
mod key_error;
mod keyed;
mod keys;
mod legacy;
mod material;
mod openpgp;
pub(crate) mod pem;
mod pki;
pub(crate) mod quote;
mod root;
mod sigstore;
mod simple_signing;
mod statement;
mod trust_root;

use std::fmt;
use std::sync::Arc;

pub use authority::{AuthorityTrust, KeyHash, LogRule, SctRule, Signers, TimestampRule};
pub use error::{Cause, VerifyError};
pub use identity::{IdentityPattern, Pattern, PatternError, TextPattern, WorkflowClaims};
pub use key_error::KeyError;
pub use keys::{PublicKey, RekorKeys};
pub use material::{
    BundleMaterial, LegacyAttestation, LegacySignature, OpenPgpSignature, Place, SignatureMaterial, Source,
};
pub use openpgp::OpenPgpKeys;
pub use root::{Identified, SigstoreRoot};
pub use statement::{Statement, VerifiedStatement};

use crate::clock::Timestamp;
use crate::limits::SIGNATURE_BYTES_MAX;
use crate::oci::{Algorithm, Digest, DockerReference};
use fulcio::Fulcio;
use keyed::Keyed;
use legacy::Annotations;
use pki::Pki;
use simple_signing::SimpleSigning;
use trust_root::Fingerprint;

/// Part of each verdict's key: changes whenever an answer of this module could.
pub const VERIFIER_VERSION: &str = "1+sigstore-verify-0.15.1";

/// What one `sigstoreSigned` requirement trusts. Clones share it.
#[derive(Debug, Clone)]
pub struct SigstoreTrust {
    trust: Arc<Trust>,
    fingerprint: Digest,
}

#[derive(Debug)]
enum Trust {
    Keyed(Keyed),
    Fulcio(Box<Fulcio>),
    Pki(Pki),
}

impl SigstoreTrust {
    /// Any of these keys, with a log entry by one of `rekor` when that is given. Without a key nothing is accepted.
    pub fn keyed(keys: Vec<PublicKey>, rekor: Option<RekorKeys>) -> Self {
        Self::of(Trust::Keyed(Keyed { keys, rekor }))
    }

    /// Certificates of these Fulcio CAs (PEM, every one a trust anchor) for exactly this issuer and e-mail address, logged
    /// by one of `rekor`.
    ///
    /// # Errors
    /// [`KeyError::FulcioAuthorities`] when the file holds no certificate, or one that is no CA.
    pub fn fulcio(ca_pem: &[u8], rekor: RekorKeys, issuer: String, email: String) -> Result<Self, KeyError> {
        Ok(Self::of(Trust::Fulcio(Box::new(Fulcio::new(ca_pem, rekor, issuer, email)?))))
    }

    /// Certificates that chain at `now` to these roots (PEM), with all of the identities given.
    ///
    /// # Errors
    /// [`KeyError::NoIdentity`] when neither is given, [`KeyError::Hostname`] when the host name is none, and
    /// [`KeyError::PkiRoots`] or [`KeyError::PkiIntermediates`] when a file holds no certificate, or one that is no CA.
    pub fn pki(
        roots_pem: &[u8],
        intermediates_pem: Option<&[u8]>,
        email: Option<String>,
        hostname: Option<String>,
    ) -> Result<Self, KeyError> {
        Ok(Self::of(Trust::Pki(Pki::new(roots_pem, intermediates_pem, email, hostname)?)))
    }

    fn of(trust: Trust) -> Self {
        Self { fingerprint: trust.fingerprint(), trust: Arc::new(trust) }
    }

    /// Digest over everything in it that can change an answer.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Verifies one candidate for the image `subject`; the caller still has to compare the signed reference.
    ///
    /// # Errors
    /// A [`VerifyError`] says why this candidate does not count under this trust; others may.
    pub fn verify(
        &self,
        material: &SignatureMaterial,
        subject: &Digest,
        now: Timestamp,
    ) -> Result<VerifiedSignature, VerifyError> {
        match material {
            SignatureMaterial::Legacy(signature) => self.verify_legacy(signature, subject, now),
            SignatureMaterial::Bundle(_) => todo!("plain signatures in bundles, under a policy.json requirement"),
            SignatureMaterial::Attestation(_) => todo!("not a signature"),
            SignatureMaterial::OpenPgp(_) => todo!("not a sigstore signature"),
        }
    }

    fn verify_legacy(
        &self,
        signature: &LegacySignature,
        subject: &Digest,
        now: Timestamp,
    ) -> Result<VerifiedSignature, VerifyError> {
        // 1. Bounds and what it is about, before any cryptography.
        if subject.algorithm() != Algorithm::Sha256 {
            return Err(VerifyError::SubjectAlgorithm { subject: *subject });
        }
        let bytes = u64::try_from(signature.payload.len()).unwrap_or(u64::MAX);
        if bytes > SIGNATURE_BYTES_MAX {
            return Err(VerifyError::PayloadTooLarge { bytes, max: SIGNATURE_BYTES_MAX });
        }
        let signed = SimpleSigning::parse(&signature.payload)?;
        if signed.digest != *subject {
            return Err(VerifyError::OtherDigest { signed: signed.digest });
        }

        // 2. Who signed exactly these bytes.
        let annotations = Annotations(&signature.annotations);
        let proof = self.trust.verify(&signature.payload, annotations, now)?;
        Ok(VerifiedSignature {
            signer: proof.signer,
            signed_reference: signed.docker_reference.into(),
            log: proof.log,
            timestamps: Vec::new(),
            not_after: proof.not_after,
            notes: self.trust.notes(annotations),
        })
    }
}

struct Proof {
    signer: Signer,
    log: Option<LogEntry>,
    not_after: Option<Timestamp>,
}

impl Trust {
    fn verify(&self, payload: &[u8], annotations: Annotations<'_>, now: Timestamp) -> Result<Proof, VerifyError> {
        match self {
            Self::Keyed(keyed) => {
                let (signer, log) = keyed.verify(payload, annotations, now)?;
                Ok(Proof { signer, log, not_after: None })
            }
            Self::Fulcio(fulcio) => {
                let (signer, log) = fulcio.verify(payload, annotations, now)?;
                Ok(Proof { signer, log: Some(log), not_after: None })
            }
            Self::Pki(pki) => {
                let (signer, not_after) = pki.verify(payload, annotations, now)?;
                Ok(Proof { signer, log: None, not_after: Some(not_after) })
            }
        }
    }

    /// What was deliberately not checked or ignored.
    fn notes(&self, annotations: Annotations<'_>) -> Vec<&'static str> {
        let mut notes = match self {
            Self::Keyed(keyed) => keyed.notes(annotations),
            Self::Fulcio(_) => vec!["sct: not required by policy.json"],
            Self::Pki(_) if annotations.has(legacy::BUNDLE) => {
                vec!["the attached log entry was not looked at: the requirement names a PKI"]
            }
            Self::Pki(_) => Vec::new(),
        };
        if annotations.has(legacy::TIMESTAMP) {
            notes.push("the attached RFC 3161 timestamp was not looked at: policy.json names no timestamp authority");
        }
        notes
    }

    fn fingerprint(&self) -> Digest {
        let ders = |authorities: &[certificate::Authority]| -> Vec<Vec<u8>> {
            authorities.iter().map(|authority| authority.der.clone()).collect()
        };
        let print = match self {
            Self::Keyed(keyed) => {
                let rekor = keyed.rekor.as_ref();
                Fingerprint::new("keyed")
                    .list(keyed.keys.iter().map(PublicKey::spki))
                    .option(rekor.map(|_| "logged"))
                    .list(rekor.map(RekorKeys::keys).unwrap_or_default().iter().map(PublicKey::spki))
            }
            Self::Fulcio(fulcio) => Fingerprint::new("fulcio")
                .list(ders(&fulcio.authorities).iter().map(Vec::as_slice))
                .list(fulcio.rekor.keys().iter().map(PublicKey::spki))
                .field(fulcio.issuer.as_bytes())
                .field(fulcio.email.as_bytes()),
            Self::Pki(pki) => Fingerprint::new("pki")
                .list(ders(&pki.roots).iter().map(Vec::as_slice))
                .list(ders(&pki.intermediates).iter().map(Vec::as_slice))
                .option(pki.email.as_deref())
                .option(pki.hostname.as_deref()),
        };
        print.finish()
    }
}

/// A signature that is good under the trust that was asked, and binds the digest asked for.
#[derive(Debug, Clone)]
pub struct VerifiedSignature {
    /// Who made it.
    pub signer: Signer,
    /// The reference that the signer wrote.
    pub signed_reference: SignedReference,
    /// The log entry, where one was checked; of several the first.
    pub log: Option<LogEntry>,
    /// Times of RFC 3161 timestamps that were checked.
    pub timestamps: Vec<Timestamp>,
    /// End of a certificate that was checked at `now` (pki); the verdict must not outlive it.
    pub not_after: Option<Timestamp>,
    /// What was deliberately not checked or ignored, for the evidence.
    pub notes: Vec<&'static str>,
}

/// The reference that a signer wrote into the signed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedReference {
    /// A Docker reference.
    Reference(DockerReference),
    /// Something that is none.
    Unreadable(String),
    /// A bundle's statement names digests only.
    Absent,
}

impl fmt::Display for SignedReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(reference) => reference.fmt(formatter),
            Self::Unreadable(text) => formatter.write_str(text),
            Self::Absent => formatter.write_str("(no reference)"),
        }
    }
}

impl From<Result<DockerReference, String>> for SignedReference {
    fn from(reference: Result<DockerReference, String>) -> Self {
        reference.map_or_else(Self::Unreadable, Self::Reference)
    }
}

/// Who made a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// The key with this fingerprint (SHA-256 of its SPKI).
    Key(Digest),
    /// The OpenPGP key with this fingerprint, in upper case hexadecimal: the primary key's, when a subkey signed.
    OpenPgp(String),
    /// The holder of a certificate.
    Certificate {
        /// OIDC issuer, where the certificate has one.
        issuer: Option<String>,
        /// Subject alternative names.
        subjects: Vec<String>,
        /// What Fulcio recorded about the workflow that signed; empty for people.
        workflow: Box<WorkflowClaims>,
    },
}

/// A transparency log entry that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Index in the log.
    pub index: u64,
    /// Time of integration; Rekor v2 states none.
    pub integrated: Option<Timestamp>,
}
