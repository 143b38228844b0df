//! V-16: attestations at `.att`, and attestations in the place of signatures.

use sealgate::testing::sigstore::Flaw;
use sealgate::verify::VerifyError as E;
use serde_json::json;

use super::{Bench, Expected, Kind};

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

#[test]
fn v_16_an_attestation_that_is_not_exactly_what_was_signed_is_refused() {
    let bench = Bench::new();
    let table: [(Flaw, Expected); 10] = [
        (Flaw::OtherPayloadType, |error| matches!(error, E::EnvelopeType { .. })),
        (Flaw::PayloadTypeEdited, |error| matches!(error, E::EnvelopeType { .. })),
        (Flaw::PayloadEdited, |error| *error == E::Signature),
        (Flaw::SignatureOverBodyOnly, |error| *error == E::Signature),
        (Flaw::SignatureWithoutLengths, |error| *error == E::Signature),
        (Flaw::NoSignature, |error| *error == E::EnvelopeSignatures { found: 0 }),
        (Flaw::TwoSignatures, |error| *error == E::EnvelopeSignatures { found: 2 }),
        (Flaw::SecondSignatureBad, |error| *error == E::EnvelopeSignatures { found: 2 }),
        (Flaw::StatementNotJson, |error| matches!(error, E::StatementJson(_))),
        (Flaw::DuplicateKey, |error| matches!(error, E::StatementJson(_))),
    ];
    for kind in [Kind::Keyless, Kind::Keyed] {
        let trust = bench.trust(kind, &bench.root());
        for (flaw, expected) in table {
            let layer = bench.bundle(kind).predicate(PROVENANCE, json!({})).flaw(flaw).build_attestation();
            let error = trust.verify_attestation(&layer.attestation_material(), &bench.subject, bench.now).unwrap_err();
            assert!(expected(&error) || error == E::Signature, "{kind:?} {flaw:?}: {error:?}");
        }
    }
}

/// CVE-2022-35929 and CVE-2026-39395: a good attestation by the right identity makes no image signed.
#[test]
fn v_16_an_attestation_is_no_plain_signature_and_keeps_its_type() {
    let bench = Bench::new();
    for kind in [Kind::Keyless, Kind::KeyedV2] {
        let trust = bench.trust(kind, &bench.root());
        let bundle = bench.bundle(kind).predicate("https://cosign.sigstore.dev/attestation/vuln/v1", json!({})).build();
        let error = bench.judge(&trust, &bundle.material()).unwrap_err();
        assert!(matches!(error, E::NotASignature { .. }), "{error:?}");
        let verified = trust.verify_attestation(&bundle.material(), &bench.subject, bench.now).unwrap();
        assert_eq!(verified.statement.predicate_type, "https://cosign.sigstore.dev/attestation/vuln/v1");
    }
}
