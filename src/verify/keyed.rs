//! Signatures by keys that the requirement names, with a log entry or without (cosign's legacy format).

use super::authority::KeyHash;
use super::error::VerifyError;
use super::evidence::Evidence;
use super::keys::{PublicKey, RekorKeys};
use super::legacy::{self, Annotations, LoggedEntry};
use super::proof::Proof;
use super::sigstore::{Artifact, Log, SigstoreBundle};
use super::{LogEntry, Signer, sigstore};
use crate::clock::Timestamp;
use crate::oci::Digest;

/// Any of some keys; with Rekor keys, a log entry is required.
#[derive(Debug, Clone)]
pub(super) struct Keyed {
    pub(super) keys: Vec<PublicKey>,
    pub(super) rekor: Option<RekorKeys>,
}

impl Keyed {
    /// Who signed `payload`, and the log entry where one was required.
    pub(super) fn verify(
        &self,
        payload: &[u8],
        annotations: Annotations<'_>,
        now: Timestamp,
    ) -> Result<(Signer, Option<LogEntry>), VerifyError> {
        let signature = annotations.signature()?;
        let (key, log) = match &self.rekor {
            Some(rekor) => {
                let entry = annotations.log_entry()?;
                let key = self.verify_logged(rekor, payload, &signature, &entry, now)?;
                (key, Some(LogEntry { index: entry.index, integrated: Some(entry.integrated()) }))
            }
            None => (self.verify_unlogged(payload, &signature)?, None),
        };
        Ok((Signer::Key(key.fingerprint()), log))
    }

    /// Who signed a bundle. Rekor keys say nothing of timestamp authorities, so timestamps are not looked at.
    pub(super) fn verify_bundle(
        &self,
        evidence: &Evidence<'_>,
        subject: &Digest,
        now: Timestamp,
    ) -> Result<Proof, VerifyError> {
        if evidence.has_certificate() {
            return Err(VerifyError::CertificateNotKey);
        }
        let (key, hash) = evidence.signed_by(&self.keys, KeyHash::Sha256)?;
        let mut notes = Vec::new();
        if evidence.has_timestamp() {
            notes.push("the RFC 3161 timestamp was not looked at: policy.json names no timestamp authority");
        }
        let log = if let Some(rekor) = &self.rekor {
            let verify = |bundle: &SigstoreBundle, artifact: Artifact<'_>| {
                let bundle = bundle.without_timestamps();
                rekor.verifier().verify_key(key, hash, &bundle, artifact, now)
            };
            Some(evidence.logged(Log::Key(key), now, verify, subject)?.log)
        } else {
            if evidence.has_log_entry() {
                notes.push("the log entry was not looked at: the requirement names no Rekor keys");
            }
            None
        };
        Ok(Proof { signer: Signer::Key(key.fingerprint()), log, timestamps: Vec::new(), not_after: None, notes })
    }

    /// The entry names the key, so only that key is tried, if it is one of ours.
    fn verify_logged(
        &self,
        rekor: &RekorKeys,
        payload: &[u8],
        signature: &[u8],
        entry: &LoggedEntry,
        now: Timestamp,
    ) -> Result<&PublicKey, VerifyError> {
        let key = self.keys.iter().find(|key| entry.names_key(key.spki())).ok_or(VerifyError::LogOtherKey)?;
        entry.check_signature(signature, Digest::sha256(payload).as_bytes())?;
        let integrated = entry.integrated();
        if integrated > now {
            return Err(VerifyError::LoggedInFuture { integrated, now });
        }
        let bundle = SigstoreBundle::of_signature(Log::Key(key), payload, signature, entry)?;
        rekor.verifier().verify_key(key, KeyHash::Sha256, &bundle, Artifact::Bytes(payload), now)?;
        Ok(key)
    }

    fn verify_unlogged(&self, payload: &[u8], signature: &[u8]) -> Result<&PublicKey, VerifyError> {
        let made = |key: &&PublicKey| sigstore::verify_raw(key, KeyHash::Sha256, payload, signature).is_ok();
        self.keys.iter().find(made).ok_or(VerifyError::Signature)
    }

    /// What it did not look at.
    pub(super) fn notes(&self, annotations: Annotations<'_>) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if annotations.has(legacy::CERTIFICATE) {
            notes.push("the attached certificate was not looked at: the requirement names keys");
        }
        if self.rekor.is_none() && annotations.has(legacy::BUNDLE) {
            notes.push("the attached log entry was not looked at: the requirement names no Rekor keys");
        }
        notes
    }
}
