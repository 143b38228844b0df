//! V-12 and V-13: trust roots whose keys and authorities were not in use when something was signed.

use sealgate::testing::sigstore::RootFlaw;
use sealgate::verify::VerifyError as E;

use super::{Bench, Expected, Kind};

#[test]
fn v_13_what_a_key_or_authority_vouches_for_outside_its_window_does_not_count() {
    let bench = Bench::new();
    let log: Expected = |error| matches!(error, E::LogKeyTime { .. } | E::LogCheckpoint { .. });
    let authority: Expected = |error| matches!(error, E::AuthorityTime { .. });
    let stamp: Expected = |error| matches!(error, E::TimestampAuthorityTime { .. } | E::TimestampInvalid { .. });
    let sct: Expected = |error| matches!(error, E::Sct { .. });
    let table = [
        (Kind::Keyless, RootFlaw::LogKeyEnded, log),
        (Kind::Keyless, RootFlaw::LogKeyNotYetValid, log),
        (Kind::Keyed, RootFlaw::LogKeyEnded, log),
        (Kind::Keyed, RootFlaw::LogKeyNotYetValid, log),
        (Kind::KeylessV2, RootFlaw::LogKeyV2Ended, log),
        (Kind::KeylessV2, RootFlaw::LogKeyV2NotYetValid, log),
        (Kind::KeyedV2, RootFlaw::LogKeyV2Ended, log),
        (Kind::KeyedV2, RootFlaw::LogKeyV2NotYetValid, log),
        (Kind::Keyless, RootFlaw::AuthorityEnded, authority),
        (Kind::KeylessV2, RootFlaw::AuthorityNotYetValid, authority),
        (Kind::KeylessV2, RootFlaw::TimestampAuthorityEnded, stamp),
        (Kind::KeylessV2, RootFlaw::TimestampAuthorityNotYetValid, stamp),
        (Kind::KeyedV2, RootFlaw::TimestampAuthorityEnded, stamp),
        (Kind::Keyless, RootFlaw::CertificateLogEnded, sct),
    ];
    for (kind, flaw, expected) in table {
        let bundle = bench.bundle(kind).build().material();
        assert!(bench.judge(&bench.trust(kind, &bench.root()), &bundle).is_ok(), "{kind:?}");
        let error = bench.judge(&bench.trust(kind, &bench.root_but(flaw)), &bundle).unwrap_err();
        println!("{kind:?} {flaw:?}: {error}");
        assert!(expected(&error), "{kind:?} {flaw:?}: {error:?}");
    }
}

#[test]
fn without_an_authority_of_a_kind_nothing_of_that_kind_counts() {
    let bench = Bench::new();
    let table: [(Kind, RootFlaw, Expected); 5] = [
        (Kind::Keyless, RootFlaw::NoLog, |error| matches!(error, E::LogUnknown { .. })),
        (Kind::Keyed, RootFlaw::NoLog, |error| matches!(error, E::LogUnknown { .. })),
        (Kind::KeylessV2, RootFlaw::NoLogV2, |error| matches!(error, E::LogUnknown { .. })),
        (Kind::KeylessV2, RootFlaw::NoTimestampAuthority, |error| *error == E::NoTrustedTime),
        (Kind::Keyless, RootFlaw::NoCertificateLog, |error| matches!(error, E::Sct { .. })),
    ];
    for (kind, flaw, expected) in table {
        let error = bench.judge(&bench.trust(kind, &bench.root_but(flaw)), &bench.bundle(kind).build().material());
        let error = error.unwrap_err();
        assert!(expected(&error), "{kind:?} {flaw:?}: {error:?}");
    }
    // A log's promise says the time, so a timestamp that nobody can check takes nothing away.
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
