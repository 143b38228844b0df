//! What an authority of a ClusterImagePolicy trusts: keys, or certificates of identities under a trust root.

use std::sync::Arc;

use super::error::VerifyError;
use super::evidence::Evidence;
use super::identity::IdentityPattern;
use super::key_error::KeyError;
use super::keys::PublicKey;
use super::proof::{self, Checks, Proof};
use super::root::SigstoreRoot;
use super::sigstore::TrustMaterial;
use super::statement::VerifiedStatement;
use super::trust_root::Fingerprint;
use super::{SignatureMaterial, VerifiedSignature, candidate};
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

impl KeyHash {
    /// As ClusterImagePolicy writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
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
pub struct AuthorityTrust(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    signers: Signers,
    timestamp: TimestampRule,
    /// Logs, certificate and timestamp authorities as one; `None` for keys without a log.
    material: Option<Result<TrustMaterial, KeyError>>,
    fingerprint: Digest,
}

impl AuthorityTrust {
    /// The trust of one authority.
    ///
    /// Certificates live for minutes, so something must say when they were used: a keyless authority asks for an entry in
    /// one of its root's logs even where `log` is [`LogRule::NotAsked`], and a timestamp authority does not switch that off.
    /// Where `timestamp` is [`TimestampRule::NotAsked`], timestamps in a bundle are checked against the root of the log.
    #[expect(clippy::needless_pass_by_value, reason = "a rule belongs to the trust that it makes")]
    pub fn new(signers: Signers, log: LogRule, timestamp: TimestampRule) -> Self {
        let material = material(&signers, &log, &timestamp);
        let fingerprint = fingerprint(&signers, &log, &timestamp);
        Self(Arc::new(Inner { signers, timestamp, material, fingerprint }))
    }

    /// The keys that it accepts; none where it asks for certificates.
    pub fn keys(&self) -> &[PublicKey] {
        match &self.0.signers {
            Signers::Keys { keys, .. } => keys,
            Signers::Keyless { .. } => &[],
        }
    }

    /// The identities that it accepts; none where it asks for keys.
    pub fn identities(&self) -> &[IdentityPattern] {
        match &self.0.signers {
            Signers::Keys { .. } => &[],
            Signers::Keyless { identities, .. } => identities,
        }
    }

    /// Digest over everything in it that can change an answer.
    pub fn fingerprint(&self) -> Digest {
        self.0.fingerprint
    }

    /// Verifies a candidate as a plain signature: cosign's legacy format; a bundle whose predicate type is
    /// `https://sigstore.dev/cosign/sign/v1`; or a bundle with a signature over the manifest's own bytes, known by their
    /// SHA-256 digest, as `cosign sign-blob` makes one. The signed reference is not compared: `ClusterImagePolicies` bind
    /// digests only.
    ///
    /// # Errors
    /// A [`VerifyError`] says why this candidate does not count under this trust; others may.
    pub fn verify_signature(
        &self,
        material: &SignatureMaterial,
        subject: &Digest,
        now: Timestamp,
    ) -> Result<VerifiedSignature, VerifyError> {
        candidate::signature(material, subject, |evidence| self.0.prove(evidence, subject, now))
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
        candidate::attestation(material, subject, |evidence| self.0.prove(evidence, subject, now))
    }
}

impl Inner {
    fn prove(&self, evidence: &Evidence<'_>, subject: &Digest, now: Timestamp) -> Result<Proof, VerifyError> {
        let material = self
            .material
            .as_ref()
            .map(|material| material.as_ref().map_err(|error| VerifyError::Refused { why: error.to_string() }));
        let material = material.transpose()?;
        let required = match &self.timestamp {
            TimestampRule::Required(root) => Some(root.material()),
            TimestampRule::NotAsked => None,
        };
        match (&self.signers, material) {
            (Signers::Keys { keys, hash }, material) => {
                proof::keyed(keys, *hash, evidence, Checks { material, required, subject, now })
            }
            (Signers::Keyless { identities, sct, .. }, Some(material)) => {
                let checks = Checks { material: Some(material), required, subject, now };
                let proof = proof::keyless(material, *sct, evidence, checks)?;
                if !identities.iter().any(|identity| identity.accepts(&proof.signer)) {
                    return Err(proof::other_identity(&proof.signer));
                }
                Ok(proof)
            }
            (Signers::Keyless { .. }, None) => Err(VerifyError::LogEntryMissing),
        }
    }
}

fn material(signers: &Signers, log: &LogRule, timestamp: &TimestampRule) -> Option<Result<TrustMaterial, KeyError>> {
    let base = match (signers, log) {
        (Signers::Keys { .. }, LogRule::NotAsked) => return None,
        (Signers::Keys { .. }, LogRule::Required(logs)) => Ok(logs.material().clone()),
        (Signers::Keyless { root, .. }, LogRule::NotAsked) => Ok(root.material().clone()),
        (Signers::Keyless { root, .. }, LogRule::Required(logs)) if root.fingerprint() == logs.fingerprint() => {
            Ok(root.material().clone())
        }
        (Signers::Keyless { root, .. }, LogRule::Required(logs)) => root.material().with_logs_of(logs.material()),
    };
    Some(match timestamp {
        TimestampRule::NotAsked => base,
        TimestampRule::Required(root) => base.and_then(|base| base.with_timestamp_authorities_of(root.material())),
    })
}

fn fingerprint(signers: &Signers, log: &LogRule, timestamp: &TimestampRule) -> Digest {
    let mut print = Fingerprint::new("authority");
    print = match signers {
        Signers::Keys { keys, hash } => {
            print.field(b"keys").field(hash.name().as_bytes()).list(keys.iter().map(PublicKey::spki))
        }
        Signers::Keyless { root, identities, sct } => {
            let identities: Vec<Digest> = identities.iter().map(IdentityPattern::fingerprint).collect();
            print
                .field(b"keyless")
                .field(root.fingerprint().as_bytes())
                .field(if *sct == SctRule::Required { b"sct" } else { b"no sct" })
                .list(identities.iter().map(Digest::as_bytes))
        }
    };
    print = match log {
        LogRule::NotAsked => print.field(b"no log"),
        LogRule::Required(root) => print.field(b"log").field(root.fingerprint().as_bytes()),
    };
    match timestamp {
        TimestampRule::NotAsked => print.field(b"no timestamp"),
        TimestampRule::Required(root) => print.field(b"timestamp").field(root.fingerprint().as_bytes()),
    }
    .finish()
}
