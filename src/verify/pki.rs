//! Signatures by certificates of an organisation's own PKI, without a log (policy.json's `pki`, cosign's legacy format).
//!
//! Nothing says when such a signature was made, so the chain must hold at the time of the check, and a verdict ends with the
//! first certificate of the chain that ends.

use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext};

use super::certificate::{self, Authority, Leaf, NAMES_SHOWN_MAX, Validity};
use super::error::{KeyError, VerifyError, shown};
use super::keys::PublicKey;
use super::legacy::Annotations;
use super::{Signer, sigstore};
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
        let roots =
            Authority::all_from_pem(roots_pem).map_err(|cause| KeyError::PkiRoots { cause: Box::new(cause) })?;
        for (number, root) in (1..).zip(&roots) {
            let why = |error: webpki::Error| KeyError::Certificate { number, why: error.to_string() };
            webpki::anchor_from_trusted_cert(&CertificateDer::from(root.der.as_slice()))
                .map_err(|error| KeyError::PkiRoots { cause: Box::new(why(error)) })?;
        }
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
        let chain = annotations.chain()?;

        // 2. The chain holds now.
        let der = CertificateDer::from(leaf.der.as_slice());
        let end_entity = EndEntityCert::try_from(&der).map_err(|error| untrusted(&error))?;
        let not_after = self.check_chain(&end_entity, &leaf, &chain, now)?;

        // 3. The certificate is the wanted signer's.
        self.check_names(&end_entity, &leaf)?;

        // 4. Its key signed the payload.
        let key =
            PublicKey::from_spki(&leaf.spki).map_err(|error| VerifyError::CertificateKey { why: error.to_string() })?;
        sigstore::verify_raw(&key, payload, &signature)?;
        Ok((Signer::Certificate { issuer: None, subjects: leaf.subjects() }, not_after))
    }

    /// RFC 5280, 6.1, by webpki; the roots' own validity, which it leaves to the caller, is checked here.
    fn check_chain(
        &self,
        end_entity: &EndEntityCert<'_>,
        leaf: &Leaf,
        chain: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<Timestamp, VerifyError> {
        let Validity { not_before, not_after } = leaf.validity;
        if !leaf.validity.contains(now) {
            return Err(VerifyError::CertificateTime { at: now, not_before, not_after });
        }
        let valid_roots: Vec<&Authority> = self.roots.iter().filter(|root| root.validity.contains(now)).collect();
        let roots: Vec<CertificateDer<'_>> =
            valid_roots.iter().map(|root| CertificateDer::from(root.der.as_slice())).collect();
        let anchors: Vec<TrustAnchor<'_>> = roots
            .iter()
            .map(webpki::anchor_from_trusted_cert)
            .collect::<Result<_, _>>()
            .map_err(|error| untrusted(&error))?;
        if anchors.is_empty() {
            return Err(VerifyError::AuthorityTime { at: now });
        }
        let configured = self.intermediates.iter().map(|authority| &authority.der);
        let intermediates: Vec<CertificateDer<'_>> =
            chain.iter().chain(configured).map(|der| CertificateDer::from(der.as_slice())).collect();
        let seconds = u64::try_from(now.unix_seconds()).unwrap_or(0);
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let path = end_entity
            .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &intermediates, time, CodeSigning, None, None)
            .map_err(|error| chain_error(&error, now))?;

        let mut not_after = not_after;
        for intermediate in path.intermediate_certificates() {
            not_after = not_after.min(certificate::validity(&intermediate.der())?.not_after);
        }
        // Of roots that share name and key the path does not say which; the earliest end is the safe answer.
        let ends = anchors.iter().zip(valid_roots).filter(|(anchor, _)| *anchor == path.anchor());
        let root_end = ends.map(|(_, root)| root.validity.not_after).min();
        Ok(root_end.map_or(now, |end| not_after.min(end)))
    }

    fn check_names(&self, end_entity: &EndEntityCert<'_>, leaf: &Leaf) -> Result<(), VerifyError> {
        let shown = |names: &[String]| names.iter().take(NAMES_SHOWN_MAX).map(|name| shown(name)).collect();
        if let Some(email) = &self.email
            && !leaf.emails.contains(email)
        {
            return Err(VerifyError::OtherEmail { wanted: email.clone(), found: shown(&leaf.emails) });
        }
        if let Some(hostname) = &self.hostname
            && self.name.as_ref().is_none_or(|name| end_entity.verify_is_valid_for_subject_name(name).is_err())
        {
            return Err(VerifyError::OtherHostname { wanted: hostname.clone(), found: shown(&leaf.hostnames) });
        }
        Ok(())
    }
}

/// RFC 5280, 4.2.1.12: a certificate that names purposes must name code signing (or any purpose); one that names none is
/// for every purpose. This is how `containers/image` reads it, and real signing certificates of private PKIs name none.
struct CodeSigning;

impl ExtendedKeyUsageValidator for CodeSigning {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose = purpose?.to_decoded_oid();
            if purpose == CODE_SIGNING || purpose == ANY_PURPOSE {
                return Ok(());
            }
            present.push(purpose);
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = KeyUsage::required(CODE_SIGNING_DER);
        Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present }))
    }
}

fn chain_error(error: &webpki::Error, now: Timestamp) -> VerifyError {
    // The leaf's own validity was looked at before.
    if matches!(error, webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) {
        return VerifyError::ChainTime { at: now };
    }
    untrusted(error)
}

fn untrusted(error: &webpki::Error) -> VerifyError {
    VerifyError::ChainUntrusted { why: shown(&error.to_string()) }
}

const CODE_SIGNING: [usize; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 3];
/// The same as the content of its DER.
const CODE_SIGNING_DER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
const ANY_PURPOSE: [usize; 5] = [2, 5, 29, 37, 0];
