//! Certificate chains, and the bounds of one signature.

use sealgate::limits::{ANNOTATION_BYTES_MAX, CHAIN_CERTIFICATES_MAX, SIGNATURE_BYTES_MAX};
use sealgate::oci::{Algorithm, Digest};
use sealgate::testing::sigstore::{Flaw, Identity};
use sealgate::verify::{Cause, VerifyError};

use super::{Bench, EMAIL, ISSUER, REFERENCE, pki};

// ---- V-14: chains ----

/// CVE-2026-24122.
#[test]
fn v14_chains_that_do_not_hold_are_refused() {
    let bench = Bench::new();
    let chain = |error: &VerifyError| matches!(error, VerifyError::ChainUntrusted { .. });
    assert!(chain(&bench.keyless_refused(Flaw::NoChain)));
    assert!(chain(&bench.keyless_refused(Flaw::OtherPurpose)));
    let ended = bench.keyless_refused(Flaw::ExpiredIntermediate);
    assert!(matches!(ended, VerifyError::ChainTime { at } if at < bench.now), "at the entry's time: {ended:?}");
    assert_eq!(bench.keyless_refused(Flaw::TwoCertificates), VerifyError::SeveralCertificates);
    let long = VerifyError::ChainTooLong { certificates: 50, max: CHAIN_CERTIFICATES_MAX };
    assert_eq!(bench.keyless_refused(Flaw::LongChain), long);

    let identity = Identity::email(EMAIL, ISSUER);
    let trust = pki(&bench, Some(EMAIL), None);
    let pki_refused =
        |flaw| bench.refused(&trust, &bench.sigstore.sign_pki(REFERENCE, &bench.subject, &identity, flaw));
    assert!(chain(&pki_refused(Flaw::NoChain)));
    assert!(chain(&pki_refused(Flaw::OtherPurpose)));
    assert!(chain(&pki_refused(Flaw::RootAsLeaf)));
    assert_eq!(pki_refused(Flaw::ExpiredIntermediate), VerifyError::ChainTime { at: bench.now });
    assert_eq!(pki_refused(Flaw::TwoCertificates), VerifyError::SeveralCertificates);
    assert_eq!(pki_refused(Flaw::LongChain), long);
}

/// RFC 5280, 4.2.1.3: a key that may not sign certificates has issued none, be it a CA's or not.
#[test]
fn v14_an_intermediate_whose_key_may_not_sign_certificates_vouches_for_nobody() {
    let bench = Bench::new();
    let identity = Identity::email(EMAIL, ISSUER);
    let keyless = bench.keyless_refused(Flaw::IntermediateForListsAlone);
    assert!(matches!(keyless, VerifyError::ChainUntrusted { .. }), "{keyless:?}");
    let signature = bench.sigstore.sign_pki(REFERENCE, &bench.subject, &identity, Flaw::IntermediateForListsAlone);
    let of_pki = bench.refused(&pki(&bench, Some(EMAIL), None), &signature);
    assert!(matches!(of_pki, VerifyError::ChainUntrusted { .. }), "{of_pki:?}");
}

#[test]
fn v14_the_authoritys_own_certificate_as_leaf_is_refused() {
    let bench = Bench::new();
    // It is valid at the entry's time and chains to itself, but names no signer and is no end entity.
    let error = bench.keyless_refused(Flaw::RootAsLeaf);
    assert!(matches!(error, VerifyError::ChainUntrusted { .. }), "{error:?}");
}

#[test]
fn v14_a_pki_leaf_outside_its_validity_is_refused() {
    let bench = Bench::new();
    let identity = Identity::email(EMAIL, ISSUER);
    let trust = pki(&bench, Some(EMAIL), None);
    let hour = std::time::Duration::from_hours(1);
    let ended = (bench.now.minus(hour * 2), bench.now.minus(hour));
    let to_come = (bench.now.plus(hour), bench.now.plus(hour * 2));
    for validity in [ended, to_come] {
        let signature = bench.sigstore.sign_pki_for(REFERENCE, &bench.subject, &identity, validity, Flaw::None);
        assert!(matches!(bench.refused(&trust, &signature), VerifyError::CertificateTime { .. }));
    }
}

// ---- V-18 and V-20, the part of one signature; V-31 ----

/// CVE-2026-32280.
#[test]
fn v18_payload_annotations_and_chain_are_bounded_on_both_sides() {
    let bench = Bench::new();
    let padded = |bytes: u64| {
        let mut signature = bench.unlogged(Flaw::None);
        signature.payload.resize(usize::try_from(bytes).unwrap(), b' ');
        signature
    };
    // White space after the payload is still JSON, but not what was signed.
    assert_eq!(bench.refused(&bench.bare_key(), &padded(SIGNATURE_BYTES_MAX)), VerifyError::Signature);
    let over = VerifyError::PayloadTooLarge { bytes: SIGNATURE_BYTES_MAX + 1, max: SIGNATURE_BYTES_MAX };
    assert_eq!(bench.refused(&bench.bare_key(), &padded(SIGNATURE_BYTES_MAX + 1)), over);

    let names = ["dev.cosignproject.cosign/signature", "dev.sigstore.cosign/bundle", "dev.sigstore.cosign/certificate"];
    for annotation in names.into_iter().chain(["dev.sigstore.cosign/chain"]) {
        let mut signature = bench.keyless(Flaw::None);
        let text = signature.annotations.get_mut(annotation).unwrap();
        text.push_str(&"\n".repeat(usize::try_from(ANNOTATION_BYTES_MAX).unwrap() - text.len()));
        assert!(bench.verify(&bench.fulcio(), &signature).is_ok(), "{annotation} at its bound");
        signature.annotations.get_mut(annotation).unwrap().push('\n');
        let (bytes, max) = (ANNOTATION_BYTES_MAX + 1, ANNOTATION_BYTES_MAX);
        let expected = VerifyError::AnnotationTooLarge { annotation, bytes, max };
        assert_eq!(bench.refused(&bench.fulcio(), &signature), expected);
    }

    let mut signature = bench.keyless(Flaw::None);
    let chain = signature.annotations.get_mut("dev.sigstore.cosign/chain").unwrap();
    let intermediate = chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().to_owned();
    chain.push_str(&intermediate.repeat(CHAIN_CERTIFICATES_MAX - 3));
    assert!(bench.verify(&bench.fulcio(), &signature).is_ok(), "a chain at its bound");
    signature.annotations.get_mut("dev.sigstore.cosign/chain").unwrap().push_str(&intermediate);
    let error = bench.refused(&bench.fulcio(), &signature);
    let long = VerifyError::ChainTooLong { certificates: CHAIN_CERTIFICATES_MAX + 1, max: CHAIN_CERTIFICATES_MAX };
    assert_eq!(error, long);
}

#[test]
fn v20_a_payload_that_was_changed_after_signing_is_refused() {
    let bench = Bench::new();
    let mut signature = bench.keyless(Flaw::None);
    signature.payload = String::from_utf8(signature.payload).unwrap().replace("team/app", "team/bad").into_bytes();
    assert_eq!(bench.refused(&bench.fulcio(), &signature), VerifyError::LogOtherPayload);
    assert_eq!(bench.refused(&bench.bare_key(), &signature), VerifyError::Signature);
}

#[test]
fn v31_a_signature_binds_sha256_and_counts_for_no_other_digest() {
    let bench = Bench::new();
    let subject = Digest::of(Algorithm::Sha512, b"the manifest");
    for (trust, signature) in [
        (bench.fulcio(), bench.sigstore.sign_keyless(REFERENCE, &subject, EMAIL, ISSUER, Flaw::None)),
        (bench.bare_key(), bench.sigstore.sign_unlogged(&bench.key, REFERENCE, &subject, Flaw::None)),
    ] {
        let error = trust.verify(&signature.material(), &subject, bench.now).unwrap_err();
        assert_eq!(error, VerifyError::SubjectAlgorithm { subject });
        assert_eq!(error.cause(), Cause::OtherImage);
    }
}
