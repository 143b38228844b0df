//! A Sigstore's trust root, ready for verifying.

use super::authority::SctRule;
use super::certificate::Authority;
use super::error::VerifyError;
use super::evidence::Evidence;
use super::key_error::KeyError;
use super::proof::{self, Checks};
use super::sigstore::TrustMaterial;
use super::statement::VerifiedStatement;
use super::trust_root::Fingerprint;
use super::{SignatureMaterial, VerifiedSignature, candidate};
use crate::clock::Timestamp;
use crate::oci::Digest;

/// Certificate authorities, logs and timestamp authorities with their validity windows, from a `trusted_root.json`.
/// Immutable; clones share it.
#[derive(Debug, Clone)]
pub struct SigstoreRoot {
    material: TrustMaterial,
    fingerprint: Digest,
}

impl SigstoreRoot {
    /// Reads a `trusted_root.json`. The caller has checked that it is unambiguous JSON.
    ///
    /// # Errors
    /// [`KeyError::Refused`] when a key or certificate in it cannot be used.
    pub fn from_json(document: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(document).map_err(|_| KeyError::Refused { why: "not UTF-8".to_owned() })?;
        let material = TrustMaterial::from_json(text)?;
        Ok(Self { material, fingerprint: Fingerprint::new("root").field(document).finish() })
    }

    /// The same logs and timestamp authorities with these certificate authorities (PEM) instead of its own
    /// (ClusterImagePolicy `keyless.ca-cert`). Each is a trust anchor while its certificate is valid.
    ///
    /// # Errors
    /// [`KeyError`] when the PEM holds no certificate, or one that is no CA.
    pub fn with_authorities(&self, ca_pem: &[u8]) -> Result<Self, KeyError> {
        let authorities = Authority::all_from_pem(ca_pem)?;
        let material = self.material.with_authorities(&authorities)?;
        let fingerprint = Fingerprint::new("root with authorities")
            .field(self.fingerprint.as_bytes())
            .list(authorities.iter().map(|authority| authority.der.as_slice()))
            .finish();
        Ok(Self { material, fingerprint })
    }

    /// Digest over everything in it that can change an answer.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    pub(super) fn material(&self) -> &TrustMaterial {
        &self.material
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
        let prove = |evidence: &Evidence<'_>| {
            let checks = Checks { material: Some(&self.material), required: None, subject, now };
            proof::keyless(&self.material, SctRule::Required, evidence, checks)
        };
        match material {
            SignatureMaterial::Attestation(_) => {
                candidate::attestation(material, subject, prove).map(Identified::Attestation)
            }
            SignatureMaterial::Bundle(bundle) if candidate::is_attestation(bundle, subject)? => {
                candidate::attestation(material, subject, prove).map(Identified::Attestation)
            }
            SignatureMaterial::Bundle(_) | SignatureMaterial::Legacy(_) | SignatureMaterial::OpenPgp(_) => {
                candidate::signature(material, subject, prove).map(Identified::Signature)
            }
        }
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
