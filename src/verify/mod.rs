//! CORE. Is this signature good, and whose is it?
//!
//! Functions from bytes, key material and `now` to a value: no I/O, no logging. Keys, certificate authorities and log keys belong
//! to the requirement that names them, so they come in as a [`SigstoreTrust`]. May import: `oci`, `limits`, `clock`.

mod error;
mod material;

pub use error::{KeyError, VerifyError};
pub use material::{LegacySignature, SignatureMaterial, Source};

use crate::clock::Timestamp;
use crate::oci::{Digest, DockerReference};

/// Part of each verdict's key: changes whenever an answer of this module could.
pub const VERIFIER_VERSION: &str = "1+sigstore-verify-0.15.1";

/// One PEM public key that signatures or log entries may be made with.
#[derive(Debug, Clone)]
pub struct PublicKey {}

impl PublicKey {
    /// Parses one PEM public key (ECDSA P-256/P-384, RSA, Ed25519).
    pub fn from_pem(_pem: &[u8]) -> Result<Self, KeyError> {
        todo!()
    }
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub fn fingerprint(&self) -> Digest {
        todo!()
    }
}

/// The Rekor keys of one requirement; any of them may have signed an entry.
#[derive(Debug, Clone)]
pub struct RekorKeys {}

impl RekorKeys {
    /// Parses PEM keys, one or more per element; all must be ECDSA.
    pub fn from_pems(_pems: &[Vec<u8>]) -> Result<Self, KeyError> {
        todo!()
    }
}

/// What one `sigstoreSigned` requirement trusts.
#[derive(Debug, Clone)]
pub struct SigstoreTrust {}

impl SigstoreTrust {
    /// Any of these keys, with a log entry by one of `rekor` when that is given.
    pub fn keyed(_keys: Vec<PublicKey>, _rekor: Option<RekorKeys>) -> Self {
        todo!()
    }
    /// Certificates of these Fulcio CAs (PEM) for this issuer and e-mail, logged by one of `rekor`.
    pub fn fulcio(_ca_pem: &[u8], _rekor: RekorKeys, _issuer: String, _email: String) -> Result<Self, KeyError> {
        todo!()
    }
    /// Certificates that chain at `now` to these roots (PEM), with all of the identities given.
    pub fn pki(
        _roots_pem: &[u8],
        _intermediates_pem: Option<&[u8]>,
        _email: Option<String>,
        _hostname: Option<String>,
    ) -> Result<Self, KeyError> {
        todo!()
    }
    /// Digest over everything in it that can change an answer.
    pub fn fingerprint(&self) -> Digest {
        todo!()
    }
    /// Verifies one candidate for the image `subject`; the caller still has to compare the signed reference.
    pub fn verify(
        &self,
        _material: &SignatureMaterial,
        _subject: &Digest,
        _now: Timestamp,
    ) -> Result<VerifiedSignature, VerifyError> {
        todo!()
    }
}

/// A signature that is good under a [`SigstoreTrust`] and binds the digest asked for.
#[derive(Debug, Clone)]
pub struct VerifiedSignature {
    /// Who made it.
    pub signer: Signer,
    /// The reference that the signer wrote; `Err` holds the text when it is no Docker reference.
    pub docker_reference: Result<DockerReference, String>,
    /// The log entry, where one was checked.
    pub log: Option<LogEntry>,
    /// End of a certificate that was checked at `now` (pki); the verdict must not outlive it.
    pub not_after: Option<Timestamp>,
    /// What was deliberately not checked or ignored, for the evidence.
    pub notes: Vec<&'static str>,
}

/// Who made a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// The key with this fingerprint.
    Key(Digest),
    /// The holder of a certificate.
    Certificate {
        /// OIDC issuer, where the certificate has one.
        issuer: Option<String>,
        /// Subject alternative names.
        subjects: Vec<String>,
    },
}

/// A transparency log entry that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Index in the log.
    pub index: u64,
    /// Time of integration.
    pub integrated: Timestamp,
}
