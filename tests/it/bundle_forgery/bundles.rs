//! Bundles v0.3: their form, and signatures over the manifest's own bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sealgate::testing::sigstore::{FakeBundle, Flaw};
use sealgate::verify::{BundleMaterial, Place, SignatureMaterial, Source, VerifyError as E};
use serde_json::{Value, json};

use super::{Bench, Kind};

fn edited(bundle: &FakeBundle, edit: impl FnOnce(&mut Value)) -> SignatureMaterial {
    let mut json = bundle.json.clone();
    edit(&mut json);
    FakeBundle { json, predicate_type: String::new() }.material()
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

/// Every signature that bears the log's hint costs a verification, and nobody signs how many there are.
#[test]
fn signatures_under_a_checkpoint_are_bounded_on_both_sides() {
    let bench = Bench::new();
    for kind in [Kind::Keyless, Kind::KeyedV2] {
        let trust = bench.trust(kind, &bench.root());
        let good = bench.bundle(kind).build();
        let judge = |signatures: usize| {
            let with_witnesses = edited(&good, |bundle| {
                let checkpoint = &mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["checkpoint"];
                let note = checkpoint["envelope"].as_str().unwrap();
                let (_, hint) = note.trim_end().rsplit_once(' ').unwrap();
                let forged = format!("\u{2014} witness.test {}{}\n", &hint[..4], STANDARD.encode([7; 66]));
                checkpoint["envelope"] = format!("{note}{}", forged.repeat(signatures - 1)).into();
            });
            bench.judge(&trust, &with_witnesses)
        };
        assert!(judge(32).is_ok(), "{kind:?}");
        let expected = E::TooMany { what: "signatures under one checkpoint", found: 33, max: 32 };
        assert_eq!(judge(33).unwrap_err(), expected, "{kind:?}");
    }
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
