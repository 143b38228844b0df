//! Verifies signatures with a log entry.

use std::fmt;

use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Artifact as TheirArtifact, DerPublicKey, Sha256Hash};
use sigstore_verify::{Policy, PublicKeyVerificationPolicy, VerificationPolicy, VerificationResult, Verifier};

use super::bundle::SigstoreBundle;
use super::root::{ours, refused, root_of};
use super::translate::Translator;
use super::windows;
use crate::clock::Timestamp;
use crate::oci::{Algorithm, Digest};
use crate::verify::LogEntry;
use crate::verify::authority::{KeyHash, SctRule};
use crate::verify::certificate::{Authority, Leaf};
use crate::verify::error::VerifyError;
use crate::verify::key_error::KeyError;
use crate::verify::keys::PublicKey;

/// Verifies against given log keys, certificate authorities and timestamp authorities.
pub(in crate::verify) struct LogVerifier {
    verifier: Verifier,
    root: TrustedRoot,
}

impl fmt::Debug for LogVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let logs: Vec<String> = self.root.tlogs.iter().map(|log| hex::encode(log.log_id.key_id.as_bytes())).collect();
        formatter.debug_struct("LogVerifier").field("logs", &logs).finish_non_exhaustive()
    }
}

/// What a signature is about.
#[derive(Debug, Clone, Copy)]
pub(in crate::verify) enum Artifact<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// Bytes with this SHA-256 digest: the message itself, or a subject of the statement.
    Digest(&'a Digest),
}

/// What log and timestamp authorities said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::verify) struct Logged {
    /// The first log entry.
    pub(in crate::verify) log: LogEntry,
    /// The verified times of RFC 3161 timestamps.
    pub(in crate::verify) timestamps: Vec<Timestamp>,
}

impl LogVerifier {
    /// A verifier that trusts exactly these. Neither list may hold duplicates.
    pub(in crate::verify) fn new(authorities: &[Authority], logs: &[PublicKey]) -> Result<Self, KeyError> {
        Self::of(root_of(authorities, logs)?)
    }

    pub(super) fn of(root: TrustedRoot) -> Result<Self, KeyError> {
        let verifier = Verifier::new(&root).map_err(|error| refused(&error.to_string()))?;
        Ok(Self { verifier, root })
    }

    pub(super) fn root(&self) -> &TrustedRoot {
        &self.root
    }

    /// Verifies a signature that the key made with that hash. For an envelope it must be the hash of the key's kind: the
    /// library takes no other, and no log takes in such an entry with another.
    pub(in crate::verify) fn verify_key(
        &self,
        key: &PublicKey,
        hash: KeyHash,
        bundle: &SigstoreBundle,
        artifact: Artifact<'_>,
        now: Timestamp,
    ) -> Result<Logged, VerifyError> {
        let by_kind = key.kind().is_without_hash() || key.kind().own_hash() == hash;
        if bundle.is_envelope() && !by_kind {
            return Err(VerifyError::EnvelopeHash);
        }
        let policy = PublicKeyVerificationPolicy::new(DerPublicKey::from_bytes(key.spki()));
        self.verify(&policy, bundle, artifact, None, now)
    }

    /// Verifies a signature by a certificate of a Sigstore; whose certificate it is remains to be asked.
    pub(in crate::verify) fn verify_certificate(
        &self,
        leaf: &Leaf,
        sct: SctRule,
        bundle: &SigstoreBundle,
        artifact: Artifact<'_>,
        now: Timestamp,
    ) -> Result<Logged, VerifyError> {
        let policy = match sct {
            SctRule::Required if self.root.ctlogs.is_empty() => {
                return Err(VerifyError::Sct { why: "the trust root has no certificate log".to_owned() });
            }
            SctRule::Required => VerificationPolicy::any_identity(),
            SctRule::UnsafeIgnored => VerificationPolicy::any_identity().skip_sct(),
        };
        self.verify(&policy, bundle, artifact, Some(leaf), now)
    }

    /// Verifies a signature by a certificate of policy.json's `fulcio`; whose certificate it is remains to be asked.
    ///
    /// policy.json knows no CT log key, so the SCT is not checked.
    pub(in crate::verify) fn verify_fulcio(
        &self,
        leaf: &Leaf,
        bundle: &SigstoreBundle,
        artifact: Artifact<'_>,
        now: Timestamp,
    ) -> Result<Logged, VerifyError> {
        let policy = VerificationPolicy::any_identity().skip_sct();
        self.verify(&policy, bundle, artifact, Some(leaf), now)
    }

    fn verify(
        &self,
        policy: &dyn Policy,
        bundle: &SigstoreBundle,
        artifact: Artifact<'_>,
        leaf: Option<&Leaf>,
        now: Timestamp,
    ) -> Result<Logged, VerifyError> {
        // 1. What the library leaves open, and what it says in words alone.
        windows::check_entries(&self.root, bundle, now)?;

        // 2. The cryptography.
        let artifact = match artifact {
            Artifact::Bytes(bytes) => TheirArtifact::from(bytes),
            Artifact::Digest(digest) if digest.algorithm() == Algorithm::Sha256 => {
                let hash = Sha256Hash::try_from(digest.as_bytes());
                TheirArtifact::from(hash.map_err(|_| VerifyError::SubjectAlgorithm { subject: *digest })?)
            }
            Artifact::Digest(digest) => return Err(VerifyError::SubjectAlgorithm { subject: *digest }),
        };
        let outcome = self.verifier.verify(artifact, &bundle.bundle, policy);
        let translator = Translator { root: &self.root, bundle, leaf };
        let outcome = outcome.map_err(|error| translator.translate(error))?;
        if !outcome.tlog_verified() || leaf.is_some() != outcome.certificate_verified() {
            return Err(VerifyError::LogSet);
        }

        // 3. The times.
        let logged = logged(bundle, &outcome, leaf.is_some())?;
        if let Some(at) = logged.timestamps.iter().find(|at| **at > now) {
            return Err(VerifyError::TimestampInFuture { at: *at, now });
        }
        let times: Vec<Timestamp> = outcome.verified_timestamps().iter().copied().map(ours).collect();
        if times.is_empty() {
            return Err(VerifyError::NoTrustedTime);
        }
        windows::check_checkpoints(&self.root, bundle, &times)?;
        Ok(logged)
    }
}

/// The library lists the times of timestamps before those of logs for certificates, and after them for keys.
fn logged(bundle: &SigstoreBundle, outcome: &VerificationResult, certificate: bool) -> Result<Logged, VerifyError> {
    let first = bundle.entries().first().ok_or(VerifyError::LogEntryMissing)?;
    let log = LogEntry { index: first.log_index.get(), integrated: super::bundle::promised(first) };
    let (all, count) = (outcome.verified_timestamps(), bundle.timestamps().len());
    let timestamps =
        if certificate { all.get(..count) } else { all.len().checked_sub(count).and_then(|at| all.get(at..)) };
    let timestamps = timestamps.ok_or(VerifyError::NoTrustedTime)?.iter().copied().map(ours).collect();
    Ok(Logged { log, timestamps })
}
