//! Bundles under the requirements of a policy.json. Whether they may count there is for the policy to say.

use sealgate::testing::sigstore::{FakeBundle, Flaw};
use sealgate::verify::{SignedReference, SigstoreTrust, VerifiedSignature, VerifyError as E};
use serde_json::json;

use super::{Bench, EMAIL, Expected, ISSUER, Kind};

/// A `fulcio` requirement for bundles, which bring no intermediate.
fn fulcio(bench: &Bench, email: &str, issuer: &str) -> SigstoreTrust {
    let ca = bench.sigstore.fulcio_ca_pem() + &bench.sigstore.fulcio_intermediate_pem();
    let rekor = bench.sigstore.rekor_keys();
    SigstoreTrust::fulcio(ca.as_bytes(), rekor, issuer.to_owned(), email.to_owned()).unwrap()
}

fn verify(bench: &Bench, trust: &SigstoreTrust, bundle: &FakeBundle) -> Result<VerifiedSignature, E> {
    trust.verify(&bundle.material(), &bench.subject, bench.now)
}

#[test]
fn key_and_fulcio_requirements_verify_plain_bundles_that_bind_no_reference() {
    let bench = Bench::new();
    let keyless = fulcio(&bench, EMAIL, ISSUER);
    let logged = SigstoreTrust::keyed(vec![bench.key.public()], Some(bench.sigstore.rekor_keys()));
    let bare = SigstoreTrust::keyed(vec![bench.key.public()], None);
    for (trust, kind) in [(&keyless, Kind::Keyless), (&logged, Kind::Keyed), (&bare, Kind::Keyed)] {
        for builder in [bench.bundle(kind), bench.bundle(kind).timestamped()] {
            let verified = verify(&bench, trust, &builder.build()).unwrap();
            assert_eq!(verified.signed_reference, SignedReference::Absent);
        }
        let attestation = bench.bundle(kind).predicate("https://p.test/v1", json!({})).build();
        assert!(matches!(verify(&bench, trust, &attestation), Err(E::NotASignature { .. })));
        let other = bench.bundle(kind).flaw(Flaw::OtherDigest).build();
        assert!(matches!(verify(&bench, trust, &other), Err(E::OtherSubject { .. })));
        let layer = bench.bundle(kind).build_attestation();
        let error = trust.verify(&layer.attestation_material(), &bench.subject, bench.now);
        assert!(matches!(error, Err(E::OtherKind { .. })), "{error:?}");
    }
    let verified = verify(&bench, &keyless, &bench.bundle(Kind::Keyless).flaw(Flaw::NoSct).build()).unwrap();
    assert_eq!(verified.notes, ["sct: not required by policy.json"]);
    let verified = verify(&bench, &bare, &bench.bundle(Kind::Keyed).build()).unwrap();
    assert_eq!((verified.log, verified.notes.len()), (None, 1));
}

#[test]
fn flawed_bundles_are_refused_for_their_reasons() {
    let bench = Bench::new();
    let keyless = fulcio(&bench, EMAIL, ISSUER);
    let logged = SigstoreTrust::keyed(vec![bench.key.public()], Some(bench.sigstore.rekor_keys()));
    let table: [(Flaw, Expected); 6] = [
        (Flaw::CorruptSignature, |error| *error == E::Signature),
        (Flaw::NoLogEntry, |error| *error == E::LogEntryMissing),
        (Flaw::NoProof, |error| *error == E::LogProofMissing),
        (Flaw::OtherLog, |error| matches!(error, E::LogUnknown { .. })),
        (Flaw::SetCorrupt, |error| *error == E::LogSet),
        (Flaw::NoPromise, |error| *error == E::NoTrustedTime),
    ];
    for (trust, kind) in [(&keyless, Kind::Keyless), (&logged, Kind::Keyed)] {
        for (flaw, expected) in table {
            let error = verify(&bench, trust, &bench.bundle(kind).flaw(flaw).build()).unwrap_err();
            assert!(expected(&error), "{kind:?} {flaw:?}: {error:?}");
        }
    }
    let other_ca = bench.bundle(Kind::Keyless).flaw(Flaw::OtherCa).build();
    assert!(matches!(verify(&bench, &keyless, &other_ca), Err(E::ChainUntrusted { .. })));
    let root_alone = bench.sigstore.fulcio_trust(EMAIL, ISSUER);
    let error = verify(&bench, &root_alone, &bench.bundle(Kind::Keyless).build()).unwrap_err();
    assert!(error.to_string().ends_with("the CA file must hold Fulcio's intermediate certificate too"), "{error}");
    for (email, issuer) in [("other@corp.com", ISSUER), (EMAIL, "https://other.example")] {
        let other = fulcio(&bench, email, issuer);
        let error = verify(&bench, &other, &bench.bundle(Kind::Keyless).build());
        assert!(matches!(error, Err(E::OtherEmail { .. } | E::OtherIssuer { .. })), "{error:?}");
    }
    assert_eq!(verify(&bench, &keyless, &bench.bundle(Kind::Keyed).build()).unwrap_err(), E::KeyNotCertificate);
    assert_eq!(verify(&bench, &logged, &bench.bundle(Kind::Keyless).build()).unwrap_err(), E::CertificateNotKey);
    // policy.json names no timestamp authority, so nothing says when an entry of a Rekor v2 was made.
    let v2 = verify(&bench, &logged, &bench.bundle(Kind::KeyedV2).build()).unwrap_err();
    assert!(matches!(v2, E::LogUnknown { .. } | E::NoTrustedTime), "{v2:?}");
}

#[test]
fn a_private_pki_vouches_for_no_bundle() {
    let bench = Bench::new();
    let root = bench.sigstore.pki_root_pem();
    let pki = SigstoreTrust::pki(root.as_bytes(), None, Some(EMAIL.to_owned()), None).unwrap();
    for kind in [Kind::Keyless, Kind::Keyed] {
        assert_eq!(verify(&bench, &pki, &bench.bundle(kind).build()).unwrap_err(), E::PkiBundle);
    }
}
