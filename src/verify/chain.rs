//! Certificate chains (RFC 5280, 6.1), by `rustls-webpki`.
//!
//! A private PKI's chain is decided here. A Fulcio chain is decided by `sigstore-verify`, which does the same but gives its
//! reason as text alone; where it refuses one, the reason is found here.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext};

use super::certificate::{self, Authority, Leaf, Validity};
use super::error::{VerifyError, shown};
use crate::clock::Timestamp;

/// Checks that `leaf` is for signing code and chains to one of `roots` at `at`, through any of `intermediates`.
///
/// Returns when the first certificate of the chain ends. The roots' own validity, which webpki leaves to its caller, is
/// checked too: a root that has ended vouches for nothing (CVE-2026-24122).
pub(super) fn check<'a>(
    leaf: &Leaf,
    roots: &[Authority],
    intermediates: impl Iterator<Item = &'a Vec<u8>>,
    at: Timestamp,
) -> Result<Timestamp, VerifyError> {
    let Validity { not_before, not_after } = leaf.validity;
    if !leaf.validity.contains(at) {
        return Err(VerifyError::CertificateTime { at, not_before, not_after });
    }
    let roots: Vec<(CertificateDer<'_>, Timestamp)> = roots
        .iter()
        .filter(|root| root.validity.contains(at))
        .map(|root| (CertificateDer::from(root.der.as_slice()), root.validity.not_after))
        .collect();
    let anchors: Vec<TrustAnchor<'_>> = roots
        .iter()
        .map(|(root, _)| webpki::anchor_from_trusted_cert(root))
        .collect::<Result<_, _>>()
        .map_err(|error| untrusted(&error))?;
    if anchors.is_empty() {
        return Err(VerifyError::AuthorityTime { at });
    }
    let intermediates: Vec<CertificateDer<'_>> =
        intermediates.map(|der| CertificateDer::from(der.as_slice())).collect();
    let der = CertificateDer::from(leaf.der.as_slice());
    let end_entity = EndEntityCert::try_from(&der).map_err(|error| untrusted(&error))?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.unix_seconds()).unwrap_or(0)));
    let path = end_entity
        .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &intermediates, time, CodeSigning, None, None)
        .map_err(|error| refused(&error, at))?;

    let mut first_end = not_after;
    for intermediate in path.intermediate_certificates() {
        first_end = first_end.min(certificate::validity(&intermediate.der())?.not_after);
    }
    // Of roots that share name and key the path does not say which; the earliest end is the safe answer.
    let ends = anchors.iter().zip(&roots).filter(|(anchor, _)| *anchor == path.anchor());
    let root_end = ends.map(|(_, (_, end))| *end).min();
    Ok(root_end.map_or(at, |end| first_end.min(end)))
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

fn refused(error: &webpki::Error, at: Timestamp) -> VerifyError {
    // The leaf's own validity was looked at before.
    if matches!(error, webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) {
        return VerifyError::ChainTime { at };
    }
    untrusted(error)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the three that people meet get words; the others have webpki's")]
fn untrusted(error: &webpki::Error) -> VerifyError {
    let why = match error {
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            "it does not chain to a configured CA certificate".to_owned()
        }
        webpki::Error::CaUsedAsEndEntity => "it is the certificate of a CA, not of a signer".to_owned(),
        webpki::Error::RequiredEkuNotFoundContext(_) => "it is not for signing code".to_owned(),
        other => shown(&other.to_string()),
    };
    VerifyError::ChainUntrusted { why }
}

const CODE_SIGNING: [usize; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 3];
/// The same as the content of its DER.
const CODE_SIGNING_DER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
const ANY_PURPOSE: [usize; 5] = [2, 5, 29, 37, 0];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::oci::Digest;
    use crate::testing::sigstore::{FakeSigstore, Flaw, Identity};
    use crate::verify::SigstoreTrust;

    struct Scene {
        leaf: Leaf,
        root: Authority,
        intermediate: Authority,
        now: Timestamp,
    }

    impl Scene {
        /// A certificate of the private PKI that ends so long from now.
        fn new(life: Duration) -> Self {
            let now = Timestamp::from_unix_seconds(Clock::System.now().unix_seconds());
            let sigstore = FakeSigstore::from_seed(3, now);
            let one = |pem: String| Authority::all_from_pem(pem.as_bytes()).unwrap().remove(0);
            let validity = (now.minus(Duration::from_hours(1)), now.plus(life));
            let identity = Identity::email("a@b.c", "https://i");
            let signature = sigstore.sign_pki_for("a/b", &Digest::sha256(b""), &identity, validity, Flaw::None);
            Self {
                leaf: Leaf::from_pem(&signature.annotations["dev.sigstore.cosign/certificate"]).unwrap(),
                root: one(sigstore.pki_root_pem()),
                intermediate: one(sigstore.pki_intermediate_pem()),
                now,
            }
        }

        fn check(&self, root: &Authority) -> Result<Timestamp, VerifyError> {
            check(&self.leaf, std::slice::from_ref(root), std::iter::once(&self.intermediate.der), self.now)
        }
    }

    fn root_until(root: &Authority, not_after: Timestamp) -> Authority {
        Authority { validity: Validity { not_after, ..root.validity }, ..root.clone() }
    }

    /// CVE-2026-24122. A trust anchor's own validity is what nobody else looks at.
    #[test]
    fn v14_a_root_that_has_ended_or_not_begun_vouches_for_nothing() {
        let scene = Scene::new(Duration::from_hours(24));
        let (now, second) = (scene.now, Duration::from_secs(1));
        assert!(scene.check(&root_until(&scene.root, now)).is_ok());
        let outside = Err(VerifyError::AuthorityTime { at: now });
        assert_eq!(scene.check(&root_until(&scene.root, now.minus(second))), outside);
        let to_come = Validity { not_before: now.plus(second), ..scene.root.validity };
        assert_eq!(scene.check(&Authority { validity: to_come, ..scene.root.clone() }), outside);
    }

    #[test]
    fn v14_a_chain_ends_with_the_first_of_its_certificates() {
        let day = Scene::new(Duration::from_hours(24));
        assert_eq!(day.check(&day.root), Ok(day.leaf.validity.not_after));
        let root_ends = day.now.plus(Duration::from_hours(1));
        assert_eq!(day.check(&root_until(&day.root, root_ends)), Ok(root_ends));
        // The intermediate ends after seven years, the root after eight.
        let long = Scene::new(Duration::from_hours(20 * 365 * 24));
        assert_eq!(long.check(&long.root), Ok(long.intermediate.validity.not_after));
    }

    #[test]
    fn v15_a_pki_certificate_must_have_every_name_that_is_asked_for() {
        let now = Clock::System.now();
        let sigstore = FakeSigstore::from_seed(3, now);
        let subject = Digest::sha256(b"manifest");
        let identity = Identity { hostnames: vec!["h.test".to_owned()], ..Identity::email("a@b.c", "https://i") };
        let material = sigstore.sign_pki("quay.io/a/b", &subject, &identity, Flaw::None).material();
        let verify = |email: Option<&str>, hostname: Option<&str>| {
            let own = |name: Option<&str>| name.map(str::to_owned);
            let trust = SigstoreTrust::pki(sigstore.pki_root_pem().as_bytes(), None, own(email), own(hostname));
            trust.unwrap().verify(&material, &subject, now).map(drop)
        };
        assert!(verify(Some("a@b.c"), Some("h.test")).is_ok() && verify(None, Some("h.test")).is_ok());
        for (email, hostname) in [(Some("x@b.c"), None), (Some("A@b.c"), None), (Some("x@b.c"), Some("h.test"))] {
            let refused = verify(email, hostname);
            assert!(matches!(refused, Err(VerifyError::OtherEmail { .. })), "{email:?} {hostname:?}: {refused:?}");
        }
        let refused = verify(Some("a@b.c"), Some("x.test"));
        assert!(matches!(refused, Err(VerifyError::OtherHostname { .. })), "{refused:?}");
    }
}
