//! cosign's older formats under an authority: signatures at `.sig` and attestations at `.att`.

use sealgate::testing::sigstore::{Flaw, RootFlaw};
use sealgate::verify::{AuthorityTrust, LogRule, TimestampRule, VerifyError as E};
use serde_json::{Value, json};

use super::{Bench, EMAIL, Expected, ISSUER, Kind};

const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";

#[test]
fn good_signatures_and_attestations_are_accepted() {
    let bench = Bench::new();
    let root = bench.root();
    let keyless = bench.sigstore.sign_keyless("a/b", &bench.subject, EMAIL, ISSUER, Flaw::None);
    let verified = bench.judge(&bench.trust(Kind::Keyless, &root), &keyless.material()).unwrap();
    assert_eq!(verified.signed_reference.to_string(), "docker.io/a/b");
    let keyed = bench.sigstore.sign_keyed(&bench.key, "a/b", &bench.subject, Flaw::None);
    assert!(bench.judge(&bench.trust(Kind::Keyed, &root), &keyed.material()).is_ok());
    let bare = AuthorityTrust::new(bench.keys(), LogRule::NotAsked, TimestampRule::NotAsked);
    let unlogged = bench.sigstore.sign_unlogged(&bench.key, "a/b", &bench.subject, Flaw::None);
    assert!(bench.judge(&bare, &unlogged.material()).is_ok());
    assert_eq!(bench.judge(&bare, &keyed.material()).unwrap().notes.len(), 1);

    for kind in [Kind::Keyless, Kind::Keyed] {
        let trust = bench.trust(kind, &root);
        for builder in [bench.bundle(kind), bench.bundle(kind).intoto()] {
            let layer = builder.predicate("https://p.test/v1", json!({"a": 1})).build_attestation();
            let verified = trust.verify_attestation(&layer.attestation_material(), &bench.subject, bench.now).unwrap();
            assert_eq!(verified.statement.json["predicate"], json!({"a": 1}));
            assert!(verified.signature.log.unwrap().integrated.is_some());
        }
    }
}

#[test]
fn a_flawed_keyless_signature_is_refused_for_its_reason() {
    let bench = Bench::new();
    let trust = bench.trust(Kind::Keyless, &bench.root());
    let table: [(Flaw, Expected); 17] = [
        (Flaw::OtherDigest, |error| matches!(error, E::OtherDigest { .. })),
        (Flaw::CorruptSignature, |error| *error == E::Signature),
        (Flaw::GarbageSignature, |error| *error == E::LogOtherSignature),
        (Flaw::SignatureOfOtherPayload, |error| *error == E::LogOtherPayload),
        (Flaw::OtherCa, |error| matches!(error, E::ChainUntrusted { .. })),
        (Flaw::NoCertificate, |error| matches!(error, E::MissingAnnotation { .. })),
        (Flaw::NoSct, |error| matches!(error, E::Sct { .. })),
        (Flaw::SctByUnknownLog, |error| matches!(error, E::Sct { .. })),
        (Flaw::NoLogEntry, |error| matches!(error, E::MissingAnnotation { .. })),
        (Flaw::IntegratedAfterCertificate, |error| matches!(error, E::LoggedOutsideCertificate { .. })),
        (Flaw::IntegratedInFuture, |error| matches!(error, E::LoggedInFuture { .. })),
        (Flaw::IntegratedTimeEdited, |error| *error == E::LogSet),
        (Flaw::SetByOtherLog, |error| *error == E::LogSet),
        (Flaw::OtherLog, |error| matches!(error, E::LogUnknown { .. })),
        (Flaw::UnrelatedEntry, |error| *error == E::LogOtherCertificate),
        (Flaw::EntryOfOtherPayload, |error| matches!(error, E::LogOtherPayload | E::LogOtherSignature)),
        (Flaw::OtherEntryKind, |error| matches!(error, E::LogEntryKind { .. })),
    ];
    for (flaw, expected) in table {
        let signature = bench.sigstore.sign_keyless("a/b", &bench.subject, EMAIL, ISSUER, flaw);
        let error = bench.judge(&trust, &signature.material()).unwrap_err();
        assert!(expected(&error), "{flaw:?}: {error:?}");
    }
    let good = bench.sigstore.sign_keyless("a/b", &bench.subject, EMAIL, ISSUER, Flaw::None);
    let error = bench.judge(&bench.trust(Kind::Keyless, &bench.root_but(RootFlaw::LogKeyEnded)), &good.material());
    assert!(matches!(error, Err(E::LogKeyTime { .. })), "{error:?}");
}

#[test]
fn a_flawed_attestation_is_refused_for_its_reason() {
    let bench = Bench::new();
    let table: [(Flaw, Expected); 12] = [
        (Flaw::OtherDigest, |error| matches!(error, E::OtherSubject { .. })),
        (Flaw::CorruptSignature, |error| *error == E::Signature),
        (Flaw::NoLogEntry, |error| matches!(error, E::MissingAnnotation { .. })),
        (Flaw::IntegratedTimeEdited, |error| *error == E::LogSet),
        (Flaw::IntegratedInFuture, |error| matches!(error, E::LoggedInFuture { .. })),
        (Flaw::SetCorrupt, |error| *error == E::LogSet),
        (Flaw::SetByOtherLog, |error| *error == E::LogSet),
        (Flaw::OtherLog, |error| matches!(error, E::LogUnknown { .. })),
        (Flaw::EntryOfOtherPayload, |error| matches!(error, E::LogOtherEnvelope { .. })),
        (Flaw::EntryOfOtherSigner, |error| matches!(error, E::LogOtherEnvelope { .. } | E::LogMalformed { .. })),
        (Flaw::UnrelatedEntry, |error| matches!(error, E::LogOtherEnvelope { .. } | E::LogMalformed { .. })),
        (Flaw::OtherEntryKind, |error| matches!(error, E::LogEntryKind { .. })),
    ];
    for kind in [Kind::Keyless, Kind::Keyed] {
        let trust = bench.trust(kind, &bench.root());
        for (flaw, expected) in table {
            let layer = bench.bundle(kind).predicate("https://p.test/v1", json!({})).flaw(flaw).build_attestation();
            let error = trust.verify_attestation(&layer.attestation_material(), &bench.subject, bench.now).unwrap_err();
            println!("{kind:?} {flaw:?}: {error}");
            assert!(expected(&error), "{kind:?} {flaw:?}: {error:?}");
        }
    }
}

/// An entry of that kind names no signature, so it could be one of any other over the same payload.
#[test]
fn an_attestation_logged_as_intoto_001_is_refused_for_its_own_reason() {
    let bench = Bench::new();
    let mut layer = bench.bundle(Kind::Keyless).intoto().predicate("https://p.test/v1", json!({})).build_attestation();
    let annotation = layer.annotations.get_mut("dev.sigstore.cosign/bundle").unwrap();
    let mut bundle: Value = serde_json::from_str(annotation).unwrap();
    let body = json!({"apiVersion": "0.0.1", "kind": "intoto", "spec": {}}).to_string();
    bundle["Payload"]["body"] = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, body).into();
    *annotation = bundle.to_string();
    let trust = bench.trust(Kind::Keyless, &bench.root());
    let error = trust.verify_attestation(&layer.attestation_material(), &bench.subject, bench.now).unwrap_err();
    assert_eq!(error, E::LogIntoto001);
}

#[test]
fn a_timestamp_of_a_legacy_attestation_is_over_the_whole_envelope_and_within_the_certificate() {
    let bench = Bench::new();
    let root = bench.root();
    for kind in [Kind::Keyless, Kind::Keyed] {
        let signers = if kind == Kind::Keyless { bench.signers(&root) } else { bench.keys() };
        let (log, stamp) = (LogRule::Required(root.clone()), TimestampRule::Required(root.clone()));
        let trust = AuthorityTrust::new(signers, log, stamp);
        let judge = |builder: sealgate::testing::sigstore::BundleBuilder<'_>| {
            let layer = builder.predicate("https://p.test/v1", json!({})).build_attestation();
            trust.verify_attestation(&layer.attestation_material(), &bench.subject, bench.now)
        };
        assert_eq!(judge(bench.bundle(kind).timestamped()).unwrap().signature.timestamps.len(), 1);
        assert_eq!(judge(bench.bundle(kind)).unwrap_err(), E::TimestampMissing);
        for flaw in [Flaw::TimestampOfOtherSignature, Flaw::TimestampByOtherAuthority, Flaw::TimestampCorrupt] {
            let error = judge(bench.bundle(kind).timestamped().flaw(flaw)).unwrap_err();
            assert!(matches!(error, E::TimestampInvalid { .. }), "{kind:?} {flaw:?}: {error:?}");
        }
        if kind == Kind::Keyless {
            for flaw in [Flaw::TimestampAfterCertificate, Flaw::TimestampBeforeCertificate] {
                let error = judge(bench.bundle(kind).timestamped().flaw(flaw)).unwrap_err();
                assert!(matches!(error, E::TimestampOutsideCertificate { .. }), "{flaw:?}: {error:?}");
            }
        }
        // Where none is asked for, it is not looked at.
        let layer = bench.bundle(kind).timestamped().flaw(Flaw::TimestampCorrupt).build_attestation();
        let verified =
            bench.trust(kind, &root).verify_attestation(&layer.attestation_material(), &bench.subject, bench.now);
        assert_eq!(verified.unwrap().signature.notes.len(), 1);
    }
}

#[test]
fn a_timestamp_annotation_of_another_shape_is_refused_where_one_is_asked_for() {
    let bench = Bench::new();
    let root = bench.root();
    let trust = AuthorityTrust::new(bench.keys(), LogRule::NotAsked, TimestampRule::Required(root));
    let signature = bench.sigstore.sign_unlogged(&bench.key, "a/b", &bench.subject, Flaw::None);
    assert_eq!(bench.judge(&trust, &signature.material()).unwrap_err(), E::TimestampMissing);
    for bad in ["", "{}", r#"{"SignedRFC3161Timestamp": "!"}"#, r#"{"SignedRFC3161Timestamp": "AAAA"}"#] {
        let mut signature = signature.clone();
        signature.annotations.insert(TIMESTAMP.to_owned(), bad.to_owned());
        let error = bench.judge(&trust, &signature.material()).unwrap_err();
        assert!(matches!(error, E::TimestampInvalid { .. }), "{bad}: {error:?}");
    }
}
