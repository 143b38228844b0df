//! Trust roots that name one log twice, or no timestamp authority.

use sealgate::testing::sigstore::RootFlaw;
use sealgate::verify::VerifyError as E;

use super::{Bench, Kind};

#[test]
fn without_any_timestamp_authority_timestamps_are_noted_and_the_promise_says_the_time() {
    let bench = Bench::new();
    let trust = bench.trust(Kind::Keyless, &bench.root_but(RootFlaw::NoTimestampAuthority));
    let verified = bench.judge(&trust, &bench.bundle(Kind::Keyless).timestamped().build().material()).unwrap();
    assert_eq!(verified.timestamps, []);
    assert_eq!(verified.notes.len(), 1);
}

#[test]
fn v_12_one_log_under_two_ids_is_one_log() {
    let bench = Bench::new();
    let kind = Kind::Keyless;
    let trust = bench.trust(kind, &bench.root_but(RootFlaw::LogUnderTwoIds));
    let mut bundle = bench.bundle(kind).build();
    assert!(bench.judge(&trust, &bundle.material()).is_ok());
    // The same entry again, under the log's other id; a proof alone does not sign the id.
    let mut again = bundle.json["verificationMaterial"]["tlogEntries"][0].clone();
    let id = bench.sigstore.key("another id").fingerprint();
    again["logId"]["keyId"] = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, id.as_bytes()).into();
    again.as_object_mut().unwrap().remove("inclusionPromise");
    bundle.json["verificationMaterial"]["tlogEntries"].as_array_mut().unwrap().push(again);
    let error = bench.judge(&trust, &bundle.material()).unwrap_err();
    assert!(matches!(error, E::LogEntryTwice { .. }), "{error:?}");
}
