//! What an authority of a ClusterImagePolicy trusts: keys, or certificates of identities under a trust root.

use super::error::VerifyError;
use super::identity::IdentityPattern;
use super::keys::PublicKey;
use super::root::SigstoreRoot;
use super::statement::VerifiedStatement;
use super::{SignatureMaterial, VerifiedSignature};
use crate::clock::Timestamp;
use crate::oci::Digest;

/// Whose signatures an authority accepts.
#[derive(Debug, Clone)]
pub enum Signers {
    /// Any of these keys.
    Keys {
        /// Never empty.
        keys: Vec<PublicKey>,
        /// The hash that they sign with.
        hash: KeyHash,
    },
    /// Any of these identities, with a certificate of one of the root's authorities.
    Keyless {
        /// The authorities, certificate logs and their validity windows.
        root: SigstoreRoot,
        /// Never empty.
        identities: Vec<IdentityPattern>,
        /// Whether the certificate must have been logged.
        sct: SctRule,
    },
}

/// The hash that a managed key signs with (ClusterImagePolicy `key.hashAlgorithm`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyHash {
    /// The default.
    Sha256,
    /// Also in use.
    Sha384,
    /// Also in use.
    Sha512,
}

/// Whether a signed certificate timestamp is asked for (`keyless.insecureIgnoreSCT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SctRule {
    /// The default.
    Required,
    /// The policy says so itself.
    UnsafeIgnored,
}

/// Whether an entry in a transparency log is asked for.
#[derive(Debug, Clone)]
pub enum LogRule {
    /// The policy names no log for this key. What is attached is checked nowhere and noted.
    NotAsked,
    /// An entry of one of this root's logs.
    Required(SigstoreRoot),
}

/// Whether an RFC 3161 timestamp is asked for.
#[derive(Debug, Clone)]
pub enum TimestampRule {
    /// The policy names no timestamp authority.
    NotAsked,
    /// One by an authority of this root.
    Required(SigstoreRoot),
}

/// What one authority trusts. Clones share it.
#[derive(Debug, Clone)]
pub struct AuthorityTrust {
    signers: Signers,
    log: LogRule,
    timestamp: TimestampRule,
    fingerprint: Digest,
}

impl AuthorityTrust {
    /// The trust of one authority.
    pub fn new(signers: Signers, log: LogRule, timestamp: TimestampRule) -> Self {
        let _ = (signers, log, timestamp);
        todo!()
    }

    /// Digest over everything in it that can change an answer.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Verifies a candidate as a plain signature: cosign's legacy format, or a bundle whose predicate type is
    /// `https://sigstore.dev/cosign/sign/v1`. The signed reference is not compared: this format binds digests only.
    ///
    /// # Errors
    /// A [`VerifyError`] says why this candidate does not count under this trust; others may.
    pub fn verify_signature(
        &self,
        material: &SignatureMaterial,
        subject: &Digest,
        now: Timestamp,
    ) -> Result<VerifiedSignature, VerifyError> {
        let _ = (material, subject, now, &self.signers, &self.log, &self.timestamp);
        todo!()
    }

    /// Verifies a candidate as an attestation: a DSSE envelope at `.att` or in a bundle, whose in-toto statement names the
    /// subject. The caller compares the predicate type.
    ///
    /// # Errors
    /// A [`VerifyError`] says why this candidate does not count under this trust; others may.
    pub fn verify_attestation(
        &self,
        material: &SignatureMaterial,
        subject: &Digest,
        now: Timestamp,
    ) -> Result<VerifiedStatement, VerifyError> {
        let _ = (material, subject, now);
        todo!()
    }
}
