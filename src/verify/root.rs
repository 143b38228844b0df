//! A Sigstore's trust root, ready for verifying.

use super::certificate::Authority;
use super::error::VerifyError;
use super::key_error::KeyError;
use super::statement::VerifiedStatement;
use super::{SignatureMaterial, VerifiedSignature};
use crate::clock::Timestamp;
use crate::oci::Digest;

/// Certificate authorities, logs and timestamp authorities with their validity windows, from a `trusted_root.json`.
/// Immutable; clones share it.
#[derive(Debug, Clone)]
pub struct SigstoreRoot {
    fingerprint: Digest,
}

impl SigstoreRoot {
    /// Reads a `trusted_root.json`. The caller has checked that it is unambiguous JSON.
    ///
    /// # Errors
    /// [`KeyError::Refused`] when a key or certificate in it cannot be used.
    pub fn from_json(document: &[u8]) -> Result<Self, KeyError> {
        let _ = document;
        todo!()
    }

    /// The same logs and timestamp authorities with these certificate authorities (PEM) instead of its own
    /// (ClusterImagePolicy `keyless.ca-cert`).
    ///
    /// # Errors
    /// [`KeyError`] when the PEM holds no certificate, or one that is no CA.
    pub fn with_authorities(&self, ca_pem: &[u8]) -> Result<Self, KeyError> {
        let _ = (ca_pem, std::mem::size_of::<Authority>());
        todo!()
    }

    /// Digest over everything in it that can change an answer.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Who made this, whoever it is: a certificate holder under this root, with log entry or timestamp, for that subject.
    /// For reports about who signs; it authorises nobody.
    ///
    /// # Errors
    /// A [`VerifyError`] when nothing verifies, also for signatures by keys, whose signer nobody vouches for.
    pub fn identify(
        &self,
        material: &SignatureMaterial,
        subject: &Digest,
        now: Timestamp,
    ) -> Result<Identified, VerifyError> {
        let _ = (material, subject, now);
        todo!()
    }
}

/// What a candidate turned out to be.
#[derive(Debug, Clone)]
pub enum Identified {
    /// A plain signature.
    Signature(VerifiedSignature),
    /// An attestation.
    Attestation(VerifiedStatement),
}
