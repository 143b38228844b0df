//! Signatures by short-lived certificates of a Fulcio, logged by a Rekor (policy.json's `fulcio`, cosign's legacy format).

use super::certificate::{Authority, Leaf, NAMES_SHOWN_MAX};
use super::error::{VerifyError, shown};
use super::key_error::KeyError;
use super::keys::RekorKeys;
use super::legacy::Annotations;
use super::sigstore::LogVerifier;
use super::{LogEntry, Signer, chain};
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
        self.verifier
            .verify_fulcio(&leaf, &attached, payload, &signature, &entry)
            .map_err(|error| self.explained(error, &leaf, &attached, integrated))?;

        // 4. The certificate is the wanted signer's: exact issuer, exact address.
        let issuer = leaf.oidc_issuer()?;
        if issuer != self.issuer {
            return Err(VerifyError::OtherIssuer { found: shown(&issuer) });
        }
        if !leaf.emails.contains(&self.email) {
            let found = leaf.emails.iter().take(NAMES_SHOWN_MAX).map(|email| shown(email)).collect();
            return Err(VerifyError::OtherEmail { wanted: self.email.clone(), found });
        }
        let signer = Signer::Certificate { issuer: Some(issuer), subjects: leaf.subjects(), workflow: Box::default() };
        Ok((signer, LogEntry { index: entry.index, integrated: Some(integrated) }))
    }

    /// The library says in words alone why a chain does not hold; the same check by ourselves gives the reason.
    fn explained(&self, error: VerifyError, leaf: &Leaf, attached: &[Vec<u8>], at: Timestamp) -> VerifyError {
        if !matches!(error, VerifyError::ChainUntrusted { .. }) {
            return error;
        }
        chain::check(leaf, &self.authorities, attached.iter(), at).err().unwrap_or(error)
    }
}
