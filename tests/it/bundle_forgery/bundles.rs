//! Bundles v0.3: certificate, log entry, proof and timestamp.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sealgate::testing::sigstore::{FakeBundle, Flaw};
use sealgate::verify::{BundleMaterial, Place, SignatureMaterial, Signer, Source, VerifyError as E};
use serde_json::{Value, json};

use super::{Bench, EMAIL, Expected, Kind};

const KINDS: [Kind; 4] = [Kind::Keyless, Kind::KeylessV2, Kind::Keyed, Kind::KeyedV2];

#[test]
fn good_bundles_of_every_kind_are_accepted() {
    let bench = Bench::new();
    let root = bench.root();
    for kind in KINDS {
        let trust = bench.trust(kind, &root);
        let good = [
            bench.bundle(kind),
            bench.bundle(kind).timestamped(),
            bench.bundle(kind).timestamps(2),
            bench.bundle(kind).tree(3, 2),
            bench.bundle(kind).subjects(2),
        ];
        for builder in good {
            let verified = bench.judge(&trust, &builder.build().material()).unwrap();
            match (&verified.signer, kind) {
                (Signer::Key(key), Kind::Keyed | Kind::KeyedV2) => assert_eq!(*key, bench.key.fingerprint()),
                (Signer::Certificate { subjects, .. }, Kind::Keyless | Kind::KeylessV2) => {
                    assert_eq!(subjects, &[EMAIL]);
                }
                other => panic!("{other:?}"),
            }
            let log = verified.log.unwrap();
            assert_eq!(log.integrated.is_some(), matches!(kind, Kind::Keyless | Kind::Keyed), "v2 states no time");
            assert!(verified.timestamps.iter().all(|at| *at < bench.now));
            assert!(verified.notes.is_empty(), "{:?}", verified.notes);
        }
        let stamped = bench.judge(&trust, &bench.bundle(kind).timestamps(2).build().material()).unwrap();
        assert_eq!(stamped.timestamps.len(), 2, "{kind:?}");
    }
    let intoto = bench.bundle(Kind::Keyless).intoto().build();
    assert!(bench.judge(&bench.trust(Kind::Keyless, &root), &intoto.material()).is_ok());
}

#[test]
fn v_09_a_proof_or_checkpoint_that_does_not_hold_is_refused() {
    let bench = Bench::new();
    let proof: Expected = |error| matches!(error, E::LogProof { .. } | E::LogCheckpoint { .. });
    let checkpoint: Expected = |error| matches!(error, E::LogCheckpoint { .. } | E::Refused { .. });
    // A Rekor v2 takes the entry's place in the tree from the entry itself, and the other one is not signed.
    for kind in [Kind::Keyless, Kind::Keyed] {
        bench.refuse(kind, &[(Flaw::ProofIndexEdited, proof)]);
    }
    for kind in KINDS {
        bench.refuse(kind, &[(Flaw::RootHashEdited, checkpoint), (Flaw::TreeSizeEdited, checkpoint)]);
        bench.refuse(
            kind,
            &[
                (Flaw::ProofHashEdited, |error| matches!(error, E::LogProof { .. })),
                (Flaw::CheckpointRootEdited, |error| {
                    matches!(error, E::LogProof { .. } | E::LogCheckpoint { .. } | E::Refused { .. })
                }),
                (Flaw::CheckpointCorrupt, checkpoint),
                (Flaw::CheckpointOriginEdited, checkpoint),
                (Flaw::CheckpointByOtherLog, checkpoint),
                (Flaw::NoProof, |error| *error == E::LogProofMissing),
                (Flaw::NoCheckpoint, |error| *error == E::LogProofMissing),
            ],
        );
    }
}

#[test]
fn v_12_one_entry_twice_is_no_second_entry() {
    let bench = Bench::new();
    for kind in KINDS {
        let trust = bench.trust(kind, &bench.root());
        let twice = bench.bundle(kind).entries(2).build();
        let error = bench.judge(&trust, &twice.material()).unwrap_err();
        assert!(matches!(error, E::LogEntryTwice { .. }), "{kind:?}: {error:?}");
    }
}

#[test]
fn a_log_entry_must_be_there_and_be_this_signatures() {
    let bench = Bench::new();
    for kind in KINDS {
        bench.refuse(
            kind,
            &[
                (Flaw::NoLogEntry, |error| *error == E::LogEntryMissing),
                (Flaw::OtherLog, |error| matches!(error, E::LogUnknown { .. })),
                (Flaw::OtherEntryKind, |error| {
                    matches!(error, E::LogEntryKind { .. } | E::LogMalformed { .. } | E::LogOtherEnvelope { .. })
                }),
                (Flaw::UnrelatedEntry, other_entry),
                (Flaw::EntryOfOtherPayload, other_entry),
                (Flaw::EntryOfOtherSigner, other_entry),
            ],
        );
    }
    for kind in [Kind::Keyless, Kind::KeylessV2] {
        bench.refuse(kind, &[(Flaw::KeyUsedAfterCertificate, other_entry)]);
    }
}

fn other_entry(error: &E) -> bool {
    matches!(
        error,
        E::LogOtherEnvelope { .. } | E::LogOtherPayload | E::LogOtherSignature | E::LogMalformed { .. } | E::Signature
    )
}

#[test]
fn the_logs_promise_must_be_its_own_and_say_when() {
    let bench = Bench::new();
    for kind in [Kind::Keyless, Kind::Keyed] {
        bench.refuse(
            kind,
            &[
                (Flaw::IntegratedTimeEdited, |error| *error == E::LogSet),
                (Flaw::SetCorrupt, |error| *error == E::LogSet),
                (Flaw::SetByOtherLog, |error| *error == E::LogSet),
                (Flaw::LogIndexEdited, |error| *error == E::LogSet),
                (Flaw::IntegratedInFuture, |error| matches!(error, E::LoggedInFuture { .. })),
                (Flaw::NoPromise, |error| *error == E::NoTrustedTime),
            ],
        );
    }
    let outside: Expected = |error| matches!(error, E::LoggedOutsideCertificate { .. });
    let table = [(Flaw::IntegratedAfterCertificate, outside), (Flaw::IntegratedBeforeCertificate, outside)];
    bench.refuse(Kind::Keyless, &table);
    // With a timestamp the same proof is enough, as for every entry of a Rekor v2.
    let stamped = bench.bundle(Kind::Keyless).flaw(Flaw::NoPromise).timestamped().build();
    assert!(bench.judge(&bench.trust(Kind::Keyless, &bench.root()), &stamped.material()).is_ok());
}

#[test]
fn a_timestamp_must_be_a_trusted_authoritys_over_this_signature() {
    let bench = Bench::new();
    let invalid: Expected = |error| matches!(error, E::TimestampInvalid { .. });
    for kind in [Kind::KeylessV2, Kind::KeyedV2] {
        bench.refuse(
            kind,
            &[
                (Flaw::NoTimestamp, |error| *error == E::NoTrustedTime),
                (Flaw::TimestampOfOtherSignature, invalid),
                (Flaw::TimestampByOtherAuthority, invalid),
                (Flaw::TimestampCorrupt, invalid),
                (Flaw::TimestampNotGranted, invalid),
                (Flaw::TimestampWithDecoy, invalid),
            ],
        );
    }
    let outside: Expected = |error| matches!(error, E::TimestampOutsideCertificate { .. });
    let table = [(Flaw::TimestampAfterCertificate, outside), (Flaw::TimestampBeforeCertificate, outside)];
    bench.refuse(Kind::KeylessV2, &table);
}

#[test]
fn a_certificate_must_be_logged_and_of_the_authority() {
    let bench = Bench::new();
    for kind in [Kind::Keyless, Kind::KeylessV2] {
        bench.refuse(
            kind,
            &[
                (Flaw::OtherCa, |error| matches!(error, E::ChainUntrusted { .. })),
                (Flaw::RootAsLeaf, |_| true),
                (Flaw::OtherPurpose, |error| matches!(error, E::ChainUntrusted { .. })),
                (Flaw::InconsistentIssuer, |error| matches!(error, E::IssuerInconsistent { .. })),
                (Flaw::NoSct, |error| matches!(error, E::Sct { .. })),
                (Flaw::SctByUnknownLog, |error| matches!(error, E::Sct { .. })),
                (Flaw::SctForOtherCertificate, |error| matches!(error, E::Sct { .. })),
                (Flaw::EmptyChain, |error| matches!(error, E::BundleMalformed { .. })),
                (Flaw::RootInChain, |error| matches!(error, E::BundleMalformed { .. })),
                (Flaw::MediaTypeV01, |error| matches!(error, E::BundleVersion { .. })),
                (Flaw::MediaTypeV02, |error| matches!(error, E::BundleVersion { .. })),
            ],
        );
    }
}

#[test]
fn a_signature_must_be_the_keys_over_type_and_payload() {
    let bench = Bench::new();
    for kind in KINDS {
        bench.refuse(
            kind,
            &[
                (Flaw::CorruptSignature, |error| *error == E::Signature),
                (Flaw::GarbageSignature, |error| *error == E::Signature),
                (Flaw::SignatureOfOtherPayload, |error| *error == E::Signature),
                (Flaw::MalformedBase64, |error| matches!(error, E::BundleMalformed { .. })),
            ],
        );
    }
}

fn edited(bundle: &FakeBundle, edit: impl FnOnce(&mut Value)) -> SignatureMaterial {
    let mut json = bundle.json.clone();
    edit(&mut json);
    FakeBundle { json, predicate_type: String::new() }.material()
}

#[test]
fn log_entries_and_timestamps_are_bounded_on_both_sides() {
    let bench = Bench::new();
    let (kind, max) = (Kind::Keyless, 32);
    let trust = bench.trust(kind, &bench.root());
    let entries = |count| bench.judge(&trust, &bench.bundle(kind).entries(count).build().material());
    // 32 times one entry is refused for its own reason, and 33 for their number.
    assert!(matches!(entries(max), Err(E::LogEntryTwice { .. })));
    let error = entries(max + 1).unwrap_err();
    assert_eq!(error, E::TooMany { what: "log entries in one bundle", found: max + 1, max });
    let stamps = |count| bench.judge(&trust, &bench.bundle(kind).timestamps(count).build().material());
    assert_eq!(stamps(max).unwrap().timestamps.len(), max);
    let error = stamps(max + 1).unwrap_err();
    assert_eq!(error, E::TooMany { what: "timestamps in one bundle", found: max + 1, max });
}

#[test]
fn a_bundle_of_another_shape_is_malformed() {
    let bench = Bench::new();
    let trust = bench.trust(Kind::Keyless, &bench.root());
    let good = bench.bundle(Kind::Keyless).build();
    assert!(bench.judge(&trust, &edited(&good, |_| ())).is_ok());
    let edits: [fn(&mut Value); 11] = [
        |bundle| *bundle = json!([]),
        |bundle| bundle["messageSignature"] = json!({}),
        |bundle| drop(bundle.as_object_mut().unwrap().remove("dsseEnvelope")),
        |bundle| bundle["verificationMaterial"] = json!([]),
        |bundle| bundle["verificationMaterial"]["publicKey"] = json!({"hint": ""}),
        |bundle| drop(bundle["verificationMaterial"].as_object_mut().unwrap().remove("certificate")),
        |bundle| bundle["verificationMaterial"]["certificate"]["rawBytes"] = "!".into(),
        |bundle| bundle["verificationMaterial"]["tlogEntries"] = "none".into(),
        |bundle| bundle["verificationMaterial"]["tlogEntries"][0]["logIndex"] = "-1".into(),
        |bundle| bundle["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"] = "!".into(),
        |bundle| bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] = "none".into(),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let error = bench.judge(&trust, &edited(&good, edit)).unwrap_err();
        assert!(matches!(error, E::BundleMalformed { .. }), "{number}: {error:?}");
    }
    let ambiguous: [fn(&mut Value); 2] =
        [|bundle| bundle["MediaType"] = "x".into(), |bundle| bundle["verificationMaterial"]["tlogentries"] = json!([])];
    for edit in ambiguous {
        let error = bench.judge(&trust, &edited(&good, edit)).unwrap_err();
        assert!(matches!(error, E::BundleJson(_)), "{error:?}");
    }
    let old = |kind: &'static str| {
        let entry = move |bundle: &mut Value| {
            bundle["verificationMaterial"]["tlogEntries"][0]["kindVersion"] = json!({"kind": kind, "version": "0.0.1"});
        };
        bench.judge(&trust, &edited(&good, entry)).unwrap_err()
    };
    assert_eq!(old("intoto"), E::LogIntoto001);
    assert!(matches!(old("rekord"), E::LogEntryKind { .. }));
}

#[test]
fn a_bundle_is_bounded_in_bytes_on_both_sides() {
    let bench = Bench::new();
    let trust = bench.trust(Kind::Keyless, &bench.root());
    let text = bench.bundle(Kind::Keyless).build().json.to_string();
    let padded = |bytes: usize| {
        let bundle = Bytes::from(format!("{text}{}", " ".repeat(bytes - text.len())));
        let source = Source { repository: None, manifest: bench.subject, place: Place::Referrer, layer: 0 };
        bench.judge(&trust, &SignatureMaterial::Bundle(BundleMaterial { bundle, source }))
    };
    let max = 1024 * 1024;
    assert!(padded(max).is_ok());
    assert!(matches!(padded(max + 1), Err(E::PayloadTooLarge { .. })));
}

/// `cosign sign-blob` over the manifest's bytes, attached as a referrer.
#[test]
fn a_message_signature_counts_for_the_manifest_whose_bytes_are_signed_and_for_no_attestation() {
    let bench = Bench::new();
    let trust = bench.trust(Kind::Keyless, &bench.root());
    let material = |message: &[u8]| {
        let json = bench.sigstore.bundle(message, &bench.identity(), Flaw::None);
        FakeBundle { json, predicate_type: String::new() }
    };
    let good = material(b"the manifest");
    assert!(bench.judge(&trust, &good.material()).is_ok());
    let error = trust.verify_attestation(&good.material(), &bench.subject, bench.now).unwrap_err();
    assert!(matches!(error, E::OtherKind { .. }), "{error:?}");
    let error = bench.judge(&trust, &material(b"another manifest").material()).unwrap_err();
    assert!(matches!(error, E::OtherDigest { .. }), "{error:?}");

    // The digest that the bundle states is not what is signed; the key is asked, too.
    let claimed = STANDARD.encode(bench.subject.as_bytes());
    let lied = edited(&material(b"another manifest"), |bundle| {
        bundle["messageSignature"]["messageDigest"]["digest"] = claimed.into();
    });
    let error = bench.judge(&trust, &lied).unwrap_err();
    assert!(matches!(error, E::Signature | E::LogOtherPayload), "{error:?}");
    for edit in [json!(null), json!({"algorithm": "SHA2_512", "digest": STANDARD.encode([0; 64])})] {
        let other = edited(&good, |bundle| bundle["messageSignature"]["messageDigest"] = edit);
        assert_eq!(bench.judge(&trust, &other).unwrap_err(), E::MessageHash);
    }
}
