//! Signatures by certificates of an organisation's own PKI, without a log (policy.json's `pki`, cosign's legacy format).
//!
//! Nothing says when such a signature was made, so the chain must hold at the time of the check, and a verdict ends with the
//! first certificate of the chain that ends.

use rustls::pki_types::{CertificateDer, ServerName};
use webpki::EndEntityCert;

use super::authority::KeyHash;
use super::certificate::{Authority, Leaf, NAMES_SHOWN_MAX};
use super::error::{VerifyError, shown};
use super::key_error::KeyError;
use super::keys::PublicKey;
use super::legacy::Annotations;
use super::{Signer, chain, sigstore};
use crate::clock::Timestamp;

/// Certificates that chain to these roots, with every one of the names that are given.
#[derive(Debug, Clone)]
pub(super) struct Pki {
    pub(super) roots: Vec<Authority>,
    pub(super) intermediates: Vec<Authority>,
    pub(super) email: Option<String>,
    pub(super) hostname: Option<String>,
    name: Option<ServerName<'static>>,
}

impl Pki {
    pub(super) fn new(
        roots_pem: &[u8],
        intermediates_pem: Option<&[u8]>,
        email: Option<String>,
        hostname: Option<String>,
    ) -> Result<Self, KeyError> {
        if email.is_none() && hostname.is_none() {
            return Err(KeyError::NoIdentity);
        }
        let roots = roots(roots_pem).map_err(|cause| KeyError::PkiRoots { cause: Box::new(cause) })?;
        let intermediates = match intermediates_pem {
            Some(pem) => {
                Authority::all_from_pem(pem).map_err(|cause| KeyError::PkiIntermediates { cause: Box::new(cause) })?
            }
            None => Vec::new(),
        };
        let name = match &hostname {
            Some(hostname) => Some(
                ServerName::try_from(hostname.clone())
                    .map_err(|_| KeyError::Hostname { hostname: hostname.clone() })?,
            ),
            None => None,
        };
        Ok(Self { roots, intermediates, email, hostname, name })
    }

    /// Who signed `payload`, and when the first certificate of the chain ends.
    pub(super) fn verify(
        &self,
        payload: &[u8],
        annotations: Annotations<'_>,
        now: Timestamp,
    ) -> Result<(Signer, Timestamp), VerifyError> {
        // 1. The parts, each bounded.
        let signature = annotations.signature()?;
        let leaf = annotations.leaf()?;
        let attached = annotations.chain()?;

        // 2. The chain holds now.
        let configured = self.intermediates.iter().map(|authority| &authority.der);
        let not_after = chain::check(&leaf, &self.roots, attached.iter().chain(configured), now)?;

        // 3. The certificate is the wanted signer's.
        self.check_names(&leaf)?;

        // 4. Its key signed the payload.
        let key = PublicKey::from_spki(&leaf.spki)
            .map_err(|error| VerifyError::CertificateKey { why: shown(&error.to_string()) })?;
        sigstore::verify_raw(&key, KeyHash::Sha256, payload, &signature)?;
        Ok((Signer::Certificate { issuer: None, subjects: leaf.subjects(), workflow: Box::default() }, not_after))
    }

    fn check_names(&self, leaf: &Leaf) -> Result<(), VerifyError> {
        let first = |names: &[String]| names.iter().take(NAMES_SHOWN_MAX).map(|name| shown(name)).collect();
        if let Some(email) = &self.email
            && !leaf.emails.contains(email)
        {
            return Err(VerifyError::OtherEmail { wanted: email.clone(), found: first(&leaf.emails) });
        }
        if let Some(hostname) = &self.hostname
            && !self.names_host(leaf)
        {
            return Err(VerifyError::OtherHostname { wanted: hostname.clone(), found: first(&leaf.hostnames) });
        }
        Ok(())
    }

    /// As TLS clients compare them: a wildcard stands for one label, an address for itself.
    fn names_host(&self, leaf: &Leaf) -> bool {
        let der = CertificateDer::from(leaf.der.as_slice());
        let Some(name) = &self.name else { return false };
        EndEntityCert::try_from(&der)
            .is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(name).is_ok())
    }
}

/// Certificates that can be trust anchors.
fn roots(pem: &[u8]) -> Result<Vec<Authority>, KeyError> {
    let roots = Authority::all_from_pem(pem)?;
    for (number, root) in (1..).zip(&roots) {
        webpki::anchor_from_trusted_cert(&CertificateDer::from(root.der.as_slice()))
            .map_err(|error| KeyError::Certificate { number, why: error.to_string() })?;
    }
    Ok(roots)
}
