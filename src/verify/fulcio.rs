//! Signatures by short-lived certificates of a Fulcio, logged by a Rekor (policy.json's `fulcio`, cosign's legacy format).

use super::certificate::{Authority, Leaf, NAMES_SHOWN_MAX};
use super::error::{VerifyError, shown};
use super::evidence::Evidence;
use super::key_error::KeyError;
use super::keys::RekorKeys;
use super::legacy::Annotations;
use super::proof::Proof;
use super::sigstore::{Artifact, Log, LogVerifier, SigstoreBundle};
use super::{LogEntry, Signer};
use crate::clock::Timestamp;
use crate::oci::Digest;

/// Certificates of these authorities, for this issuer and e-mail address, logged by one of these logs.
#[derive(Debug)]
pub(super) struct Fulcio {
    pub(super) authorities: Vec<Authority>,
    pub(super) rekor: RekorKeys,
    pub(super) issuer: String,
    pub(super) email: String,
    verifier: LogVerifier,
}

impl Fulcio {
    pub(super) fn new(ca_pem: &[u8], rekor: RekorKeys, issuer: String, email: String) -> Result<Self, KeyError> {
        let loading = |cause| KeyError::FulcioAuthorities { cause: Box::new(cause) };
        let authorities = Authority::all_from_pem(ca_pem).map_err(loading)?;
        let verifier = LogVerifier::new(&authorities, rekor.keys()).map_err(loading)?;
        Ok(Self { authorities, rekor, issuer, email, verifier })
    }

    /// Who signed `payload`, and the log entry.
    pub(super) fn verify(
        &self,
        payload: &[u8],
        annotations: Annotations<'_>,
        now: Timestamp,
    ) -> Result<(Signer, LogEntry), VerifyError> {
        // 1. The parts, each bounded.
        let signature = annotations.signature()?;
        let entry = annotations.log_entry()?;
        let leaf = annotations.leaf()?;
        let attached = annotations.chain()?;

        // 2. The entry is about this certificate, signature and payload (CVE-2022-36056).
        entry.check_certificate(&leaf)?;
        entry.check_signature(&signature, Digest::sha256(payload).as_bytes())?;
        let integrated = entry.integrated();
        if integrated > now {
            return Err(VerifyError::LoggedInFuture { integrated, now });
        }

        // 3. The log signed the entry, the chain holds at the entry's time, the leaf's key signed the payload.
        let bundle = SigstoreBundle::of_signature(Log::Certificate(&leaf, &attached), payload, &signature, &entry)?;
        self.verifier.verify_fulcio(&leaf, &bundle, Artifact::Bytes(payload), now)?;

        // 4. The certificate is the wanted signer's: exact issuer, exact address.
        let signer = self.signer(&leaf)?;
        Ok((signer, LogEntry { index: entry.index, integrated: Some(integrated) }))
    }

    /// Who signed a bundle, and the log entry. Timestamps are not looked at, since policy.json names no authority for them.
    pub(super) fn verify_bundle(
        &self,
        evidence: &Evidence<'_>,
        subject: &Digest,
        now: Timestamp,
    ) -> Result<Proof, VerifyError> {
        let (leaf, attached) = (evidence.leaf()?, evidence.chain()?);
        let verify = |bundle: &SigstoreBundle, artifact: Artifact<'_>| {
            self.verifier.verify_fulcio(&leaf, &bundle.without_timestamps(), artifact, now)
        };
        let logged = evidence.logged(Log::Certificate(&leaf, &attached), now, verify, subject);
        let logged = logged.map_err(|error| {
            let VerifyError::ChainUntrusted { why } = error else { return error };
            VerifyError::ChainUntrusted { why: format!("{why}; {LEAF_ALONE}") }
        })?;
        let mut notes = vec!["sct: not required by policy.json"];
        if evidence.has_timestamp() {
            notes.push("the RFC 3161 timestamp was not looked at: policy.json names no timestamp authority");
        }
        let signer = self.signer(&leaf)?;
        Ok(Proof { signer, log: Some(logged.log), timestamps: Vec::new(), not_after: None, notes })
    }

    /// Exactly the wanted issuer and address.
    fn signer(&self, leaf: &Leaf) -> Result<Signer, VerifyError> {
        let issuer = leaf.oidc_issuer()?;
        if issuer != self.issuer {
            return Err(VerifyError::OtherIssuer { found: shown(&issuer) });
        }
        if !leaf.emails.contains(&self.email) {
            let found = leaf.emails.iter().take(NAMES_SHOWN_MAX).map(|email| shown(email)).collect();
            return Err(VerifyError::OtherEmail { wanted: self.email.clone(), found });
        }
        // policy.json asks nothing of the workflow, so a claim that cannot be read takes nothing away.
        let workflow = Box::new(leaf.workflow().unwrap_or_default());
        Ok(Signer::Certificate { issuer: Some(issuer), subjects: leaf.subjects(), workflow })
    }
}

/// cosign's legacy format brings the intermediate, which policy files for it therefore need not hold.
const LEAF_ALONE: &str =
    "a bundle brings the leaf alone, so the CA file must hold Fulcio's intermediate certificate too";
