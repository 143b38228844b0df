//! CORE. Is this signature good, and whose is it?
//!
//! Functions from bytes, key material and `now` to a value: no I/O, no logging. Keys, certificate authorities and log keys belong
//! to the requirement that names them, so they come in as a [`SigstoreTrust`]. May import: `oci`, `limits`, `clock`.
//!
//! The cryptography of signatures with a log entry is `sigstore-verify`'s, called from the folder `sigstore` alone
//! (`docs/decisions/0001-sigstore-verify.md`). Around it stand our own rules: what a candidate says (`candidate`, with
//! `simple_signing`, `envelope` and `statement`), how cosign's annotations are read (`legacy`), and who signed it. The latter
//! is asked in two ways: of a policy.json requirement (`keyed`, `fulcio`, `pki`), or of an authority of a ClusterImagePolicy
//! (`authority`, `root`, `proof`, `identity`).
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod authority;
mod candidate;
mod certificate;
mod chain;
mod envelope;
mod error;
mod evidence;
mod fulcio;
mod identity;
mod key_error;
mod keyed;
mod keys;
mod legacy;
mod maker;
mod material;
mod openpgp;
pub(crate) mod pem;
mod pki;
mod proof;
pub(crate) mod quote;
mod root;
mod sigstore;
mod simple_signing;
mod statement;
mod trust_root;
mod trusted_root;

use std::fmt;
use std::sync::Arc;

pub use authority::{AuthorityTrust, KeyHash, LogRule, SctRule, Signers, TimestampRule};
pub use error::{Cause, VerifyError};
pub use identity::{IdentityPattern, Pattern, PatternError, TextPattern, WorkflowClaims};
pub use key_error::KeyError;
pub use keys::{PublicKey, RekorKeys};
pub use maker::{made_by, named_key};
pub use material::{
    BundleMaterial, LegacyAttestation, LegacySignature, OpenPgpSignature, Place, SignatureMaterial, Source,
};
pub use openpgp::{OpenPgpClaim, OpenPgpError, OpenPgpKeys, openpgp_claim};
pub use root::{Identified, SigstoreRoot};
pub use statement::{Statement, VerifiedStatement};
pub use trusted_root::{check_authorities, trusted_root_authority, trusted_root_log, trusted_root_timestamp_authority};

use crate::clock::Timestamp;
use crate::oci::{Digest, DockerReference};
use evidence::Evidence;
use fulcio::Fulcio;
use keyed::Keyed;
use legacy::Annotations;
use pki::Pki;
use proof::Proof;
use trust_root::Fingerprint;

/// Part of each verdict's key: changes whenever an answer of this module could.
pub const VERIFIER_VERSION: &str = "3+sigstore-verify-0.15.1+pgp-0.21";

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

    /// The keys that it accepts; none where it asks for certificates.
    pub fn keys(&self) -> &[PublicKey] {
        match self.trust.as_ref() {
            Trust::Keyed(keyed) => &keyed.keys,
            Trust::Fulcio(_) | Trust::Pki(_) => &[],
        }
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
        candidate::signature(material, subject, |evidence| self.trust.prove(evidence, subject, now))
    }
}

impl Trust {
    fn prove(&self, evidence: &Evidence<'_>, subject: &Digest, now: Timestamp) -> Result<Proof, VerifyError> {
        match evidence {
            Evidence::Signature { payload, annotations } => {
                let (signer, log, not_after) = self.verify(payload, *annotations, now)?;
                let notes = self.notes(*annotations);
                Ok(Proof { signer, log, timestamps: Vec::new(), not_after, notes })
            }
            Evidence::Bundle { .. } => self.verify_bundle(evidence, subject, now),
            Evidence::Attestation { .. } => {
                Err(VerifyError::OtherKind { wanted: "sigstore signature", found: "cosign attestation" })
            }
        }
    }

    fn verify(&self, payload: &[u8], annotations: Annotations<'_>, now: Timestamp) -> Result<Verified, VerifyError> {
        match self {
            Self::Keyed(keyed) => {
                let (signer, log) = keyed.verify(payload, annotations, now)?;
                Ok((signer, log, None))
            }
            Self::Fulcio(fulcio) => {
                let (signer, log) = fulcio.verify(payload, annotations, now)?;
                Ok((signer, Some(log), None))
            }
            Self::Pki(pki) => {
                let (signer, not_after) = pki.verify(payload, annotations, now)?;
                Ok((signer, None, Some(not_after)))
            }
        }
    }

    /// The same trust for a bundle. policy.json names no timestamp authority, so timestamps are not looked at, and an entry
    /// of a Rekor v2, which promises no time, is not enough for a certificate.
    fn verify_bundle(&self, evidence: &Evidence<'_>, subject: &Digest, now: Timestamp) -> Result<Proof, VerifyError> {
        match self {
            Self::Keyed(keyed) => keyed.verify_bundle(evidence, subject, now),
            Self::Fulcio(fulcio) => fulcio.verify_bundle(evidence, subject, now),
            Self::Pki(_) => Err(VerifyError::PkiBundle),
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

/// Who signed, the log entry, and when the first certificate ends that was checked at `now`.
type Verified = (Signer, Option<LogEntry>, Option<Timestamp>);

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
