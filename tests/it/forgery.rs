//! The forgery matrix: every way to make a signature look good that is not, each refused for its own reason.
//!
//! Each signature here has exactly one flaw, so a refusal proves the check of that one thing. The numbers in the names:
//!
//! 1 another signer · 2 another manifest · 3 garbage with a good entry · 4 signature and entry of another payload · 5 a key used
//! after its certificate · 6 an entry outside the certificate's validity · 7 time, index or promise edited · 8 no entry · 9 SCT ·
//! 10 another authority · 11 another log · 12 the entry of another signature · 13 the payload · 14 key and certificate in each
//! other's place. Ids such as V-08 are those of the catalogue in `docs/threat-model.md`.

use std::sync::LazyLock;

use proptest::prelude::*;
use sealgate::clock::{Clock, Timestamp};
use sealgate::limits::{ANNOTATION_BYTES_MAX, CHAIN_CERTIFICATES_MAX, SIGNATURE_BYTES_MAX};
use sealgate::oci::{Algorithm, Digest};
use sealgate::testing::sigstore::{FakeKey, FakeSignature, FakeSigstore, Flaw, Identity};
use sealgate::verify::{Cause, Signer, SigstoreTrust, VerifiedSignature, VerifyError};

const REFERENCE: &str = "quay.io/team/app";
const EMAIL: &str = "dev@corp.com";
const ISSUER: &str = "https://accounts.example.com";
const SEED: u64 = 7;

struct Bench {
    sigstore: FakeSigstore,
    key: FakeKey,
    subject: Digest,
    now: Timestamp,
}

impl Bench {
    fn new() -> Self {
        let now = Clock::System.now();
        println!("seed {SEED}, now {now}");
        let sigstore = FakeSigstore::from_seed(SEED, now);
        let key = sigstore.key("team");
        Self { sigstore, key, subject: Digest::sha256(b"the manifest"), now }
    }

    fn keyless(&self, flaw: Flaw) -> FakeSignature {
        self.sigstore.sign_keyless(REFERENCE, &self.subject, EMAIL, ISSUER, flaw)
    }

    fn keyed(&self, flaw: Flaw) -> FakeSignature {
        self.sigstore.sign_keyed(&self.key, REFERENCE, &self.subject, flaw)
    }

    fn unlogged(&self, flaw: Flaw) -> FakeSignature {
        self.sigstore.sign_unlogged(&self.key, REFERENCE, &self.subject, flaw)
    }

    fn fulcio(&self) -> SigstoreTrust {
        self.sigstore.fulcio_trust(EMAIL, ISSUER)
    }

    fn logged_key(&self) -> SigstoreTrust {
        SigstoreTrust::keyed(vec![self.key.public()], Some(self.sigstore.rekor_keys()))
    }

    fn bare_key(&self) -> SigstoreTrust {
        SigstoreTrust::keyed(vec![self.key.public()], None)
    }

    fn verify(&self, trust: &SigstoreTrust, signature: &FakeSignature) -> Result<VerifiedSignature, VerifyError> {
        trust.verify(&signature.material(), &self.subject, self.now)
    }

    fn refused(&self, trust: &SigstoreTrust, signature: &FakeSignature) -> VerifyError {
        let error = self.verify(trust, signature).unwrap_err();
        println!("{:?}: {error}", error.cause());
        error
    }

    fn keyless_refused(&self, flaw: Flaw) -> VerifyError {
        self.refused(&self.fulcio(), &self.keyless(flaw))
    }

    fn keyed_refused(&self, flaw: Flaw) -> VerifyError {
        self.refused(&self.logged_key(), &self.keyed(flaw))
    }

    fn other_digest(&self) -> VerifyError {
        VerifyError::OtherDigest { signed: Digest::sha256(b"another manifest") }
    }
}

fn missing(annotation: &'static str) -> VerifyError {
    VerifyError::MissingAnnotation { annotation }
}

// ---- what is good ----

#[test]
fn a_good_keyless_signature_is_accepted_after_its_certificate_ended() {
    let bench = Bench::new();
    let verified = bench.verify(&bench.fulcio(), &bench.keyless(Flaw::None)).unwrap();
    let signer = Signer::Certificate { issuer: Some(ISSUER.to_owned()), subjects: vec![EMAIL.to_owned()] };
    assert_eq!(verified.signer, signer);
    assert_eq!(verified.docker_reference.unwrap().to_string(), REFERENCE);
    assert!(verified.log.unwrap().integrated < bench.now);
    assert_eq!(verified.notes, ["sct: not required by policy.json"]);
}

#[test]
fn a_good_keyed_signature_with_a_log_entry_is_accepted() {
    let bench = Bench::new();
    let verified = bench.verify(&bench.logged_key(), &bench.keyed(Flaw::None)).unwrap();
    assert_eq!(verified.signer, Signer::Key(bench.key.fingerprint()));
    assert!(verified.log.is_some() && verified.notes.is_empty());
}

#[test]
fn a_keyed_signature_without_a_log_is_accepted_where_the_policy_asks_for_none() {
    let bench = Bench::new();
    let verified = bench.verify(&bench.bare_key(), &bench.unlogged(Flaw::None)).unwrap();
    assert_eq!(verified.signer, Signer::Key(bench.key.fingerprint()));
    assert!(verified.log.is_none() && verified.notes.is_empty());
}

#[test]
fn every_kind_of_key_verifies_its_own_signature_and_no_other() {
    let bench = Bench::new();
    let keys = [bench.sigstore.key("p256"), FakeKey::ed25519(SEED, "ed25519"), FakeKey::rsa()];
    for (position, key) in keys.iter().enumerate() {
        let signature = bench.sigstore.sign_unlogged(key, REFERENCE, &bench.subject, Flaw::None);
        for (other, trusted) in keys.iter().enumerate() {
            let trust = SigstoreTrust::keyed(vec![trusted.public()], None);
            let answer = bench.verify(&trust, &signature).map(|verified| verified.signer);
            let expected =
                if position == other { Ok(Signer::Key(key.fingerprint())) } else { Err(VerifyError::Signature) };
            assert_eq!(answer, expected, "{key:?} under {trusted:?}");
        }
        let any = SigstoreTrust::keyed(keys.iter().map(FakeKey::public).collect(), None);
        assert!(bench.verify(&any, &signature).is_ok(), "one of several keys is enough");
    }
    let none = SigstoreTrust::keyed(Vec::new(), None);
    assert_eq!(bench.refused(&none, &bench.unlogged(Flaw::None)), VerifyError::Signature);
}

#[test]
fn a_good_signature_of_a_private_pki_is_accepted_until_its_chain_ends() {
    let bench = Bench::new();
    let identity = Identity { hostnames: vec!["build.corp.com".to_owned()], ..Identity::email(EMAIL, ISSUER) };
    let signature = bench.sigstore.sign_pki(REFERENCE, &bench.subject, &identity, Flaw::None);
    for (email, hostname) in
        [(Some(EMAIL), None), (None, Some("build.corp.com")), (Some(EMAIL), Some("build.corp.com"))]
    {
        let verified = bench.verify(&pki(&bench, email, hostname), &signature).unwrap();
        let until = verified.not_after.unwrap();
        assert_eq!(until.since(bench.now).as_secs().div_ceil(3600), 23, "the leaf ends first");
    }
    let only_email = bench.sigstore.sign_pki(REFERENCE, &bench.subject, &Identity::email(EMAIL, ISSUER), Flaw::None);
    assert!(matches!(
        bench.refused(&pki(&bench, Some(EMAIL), Some("build.corp.com")), &only_email),
        VerifyError::OtherHostname { .. }
    ));
}

fn pki(bench: &Bench, email: Option<&str>, hostname: Option<&str>) -> SigstoreTrust {
    let root = bench.sigstore.pki_root_pem();
    SigstoreTrust::pki(root.as_bytes(), None, email.map(str::to_owned), hostname.map(str::to_owned)).unwrap()
}

// ---- row 1 ----

#[test]
fn row_01_keyless_another_identity_or_issuer_is_refused() {
    let bench = Bench::new();
    let signature = bench.keyless(Flaw::None);
    let wanted = bench.sigstore.fulcio_trust("boss@corp.com", ISSUER);
    assert_eq!(
        bench.refused(&wanted, &signature),
        VerifyError::OtherEmail { wanted: "boss@corp.com".to_owned(), found: vec![EMAIL.to_owned()] }
    );
    let wanted = bench.sigstore.fulcio_trust(EMAIL, "https://accounts.other.com");
    assert_eq!(bench.refused(&wanted, &signature), VerifyError::OtherIssuer { found: ISSUER.to_owned() });
}

#[test]
fn row_01_keyed_another_key_is_refused() {
    let bench = Bench::new();
    let other = vec![bench.sigstore.key("other").public()];
    let logged = SigstoreTrust::keyed(other.clone(), Some(bench.sigstore.rekor_keys()));
    assert_eq!(bench.refused(&logged, &bench.keyed(Flaw::None)), VerifyError::LogOtherKey);
    let bare = SigstoreTrust::keyed(other, None);
    assert_eq!(bench.refused(&bare, &bench.keyed(Flaw::None)), VerifyError::Signature);
}

// ---- rows 2 to 4: payload and signature of different things ----

#[test]
fn row_02_v02_a_signature_for_another_manifest_is_refused() {
    let bench = Bench::new();
    assert_eq!(bench.keyless_refused(Flaw::OtherDigest), bench.other_digest());
    assert_eq!(bench.keyed_refused(Flaw::OtherDigest), bench.other_digest());
    assert_eq!(bench.refused(&bench.bare_key(), &bench.unlogged(Flaw::OtherDigest)), bench.other_digest());
}

#[test]
fn row_03_a_garbage_signature_with_a_good_entry_of_another_is_refused() {
    let bench = Bench::new();
    assert_eq!(bench.keyless_refused(Flaw::GarbageSignature), VerifyError::LogOtherSignature);
    assert_eq!(bench.keyed_refused(Flaw::GarbageSignature), VerifyError::LogOtherSignature);
    assert_eq!(bench.refused(&bench.bare_key(), &bench.unlogged(Flaw::GarbageSignature)), VerifyError::Signature);
}

#[test]
fn row_04_signature_and_entry_of_another_payload_are_refused() {
    let bench = Bench::new();
    let flaw = Flaw::SignatureOfOtherPayload;
    assert_eq!(bench.keyless_refused(flaw), VerifyError::LogOtherPayload);
    assert_eq!(bench.keyed_refused(flaw), VerifyError::LogOtherPayload);
    assert_eq!(bench.refused(&bench.bare_key(), &bench.unlogged(flaw)), VerifyError::Signature);
}

#[test]
fn a_signature_that_only_the_cryptography_can_refuse_is_refused() {
    let bench = Bench::new();
    assert_eq!(bench.keyless_refused(Flaw::CorruptSignature), VerifyError::Signature);
    assert_eq!(bench.keyed_refused(Flaw::CorruptSignature), VerifyError::Signature);
    assert_eq!(bench.refused(&bench.bare_key(), &bench.unlogged(Flaw::CorruptSignature)), VerifyError::Signature);
}

// ---- rows 5 and 6: time ----

#[test]
fn row_05_a_leaf_key_used_after_its_certificate_ended_is_refused() {
    assert_eq!(Bench::new().keyless_refused(Flaw::KeyUsedAfterCertificate), VerifyError::LogOtherSignature);
}

#[test]
fn row_06_v11_an_entry_from_outside_the_certificates_validity_is_refused() {
    let bench = Bench::new();
    for flaw in [Flaw::IntegratedAfterCertificate, Flaw::IntegratedBeforeCertificate] {
        let error = bench.keyless_refused(flaw);
        assert!(matches!(error, VerifyError::LoggedOutsideCertificate { .. }), "{flaw:?}: {error:?}");
        assert_eq!(error.cause(), Cause::Time);
    }
}

#[test]
fn v11_an_entry_from_the_future_is_refused() {
    let bench = Bench::new();
    let future = |error: &VerifyError| matches!(error, VerifyError::LoggedInFuture { .. });
    assert!(future(&bench.keyed_refused(Flaw::IntegratedInFuture)));
    // Such an entry of a keyless signature is outside its certificate too; our own clock is asked first.
    assert!(future(&bench.keyless_refused(Flaw::IntegratedInFuture)));
    // The future begins where our clock stands, not where the machine's does.
    let good = bench.keyless(Flaw::None);
    let before = bench.fulcio().verify(&good.material(), &bench.subject, Timestamp::from_unix_seconds(0));
    assert!(future(&before.unwrap_err()));
}

// ---- row 7: what the log signed was changed ----

#[test]
fn row_07_an_edited_time_index_or_promise_is_refused() {
    let bench = Bench::new();
    for flaw in [Flaw::IntegratedTimeEdited, Flaw::LogIndexEdited, Flaw::SetCorrupt] {
        assert_eq!(bench.keyless_refused(flaw), VerifyError::LogSet, "{flaw:?}");
        assert_eq!(bench.keyed_refused(flaw), VerifyError::LogSet, "{flaw:?}");
    }
}

// ---- row 8: no entry ----

#[test]
fn row_08_v10_a_missing_log_entry_is_refused_where_one_is_required() {
    let bench = Bench::new();
    let expected = missing("dev.sigstore.cosign/bundle");
    assert_eq!(bench.keyless_refused(Flaw::NoLogEntry), expected);
    assert_eq!(bench.keyed_refused(Flaw::NoLogEntry), expected);
    assert_eq!(expected.to_string(), "missing dev.sigstore.cosign/bundle annotation");
    assert_eq!(expected.cause(), Cause::Log);
}

// ---- row 9: SCTs, which policy.json's fulcio does not ask for ----

#[test]
fn row_09_an_sct_is_not_looked_at_under_policy_json_and_the_evidence_says_so() {
    let bench = Bench::new();
    for flaw in [Flaw::NoSct, Flaw::SctByUnknownLog, Flaw::SctForOtherCertificate] {
        let verified = bench.verify(&bench.fulcio(), &bench.keyless(flaw)).unwrap();
        assert_eq!(verified.notes, ["sct: not required by policy.json"], "{flaw:?}");
    }
}

// ---- rows 10 and 11: other authorities, other logs ----

#[test]
fn row_10_a_leaf_by_another_ca_is_refused() {
    let bench = Bench::new();
    assert!(matches!(bench.keyless_refused(Flaw::OtherCa), VerifyError::ChainUntrusted { .. }));
    let signature = bench.sigstore.sign_pki(REFERENCE, &bench.subject, &Identity::email(EMAIL, ISSUER), Flaw::OtherCa);
    assert!(matches!(bench.refused(&pki(&bench, Some(EMAIL), None), &signature), VerifyError::ChainUntrusted { .. }));
}

#[test]
fn row_11_an_entry_by_another_log_is_refused() {
    let bench = Bench::new();
    assert_eq!(bench.keyless_refused(Flaw::SetByOtherLog), VerifyError::LogSet);
    assert_eq!(bench.keyed_refused(Flaw::SetByOtherLog), VerifyError::LogSet);
    for error in [bench.keyless_refused(Flaw::OtherLog), bench.keyed_refused(Flaw::OtherLog)] {
        assert!(matches!(error, VerifyError::LogUnknown { .. }), "{error:?}");
    }
}

// ---- row 12: the good entry of another signature ----

#[test]
fn row_12_v08_the_good_entry_of_another_signature_is_refused() {
    let bench = Bench::new();
    assert_eq!(bench.keyed_refused(Flaw::EntryOfOtherPayload), VerifyError::LogOtherSignature);
    assert_eq!(bench.keyed_refused(Flaw::EntryOfOtherSigner), VerifyError::LogOtherKey);
    assert_eq!(bench.keyed_refused(Flaw::UnrelatedEntry), VerifyError::LogOtherKey);
    assert_eq!(bench.keyless_refused(Flaw::EntryOfOtherPayload), VerifyError::LogOtherSignature);
    assert_eq!(bench.keyless_refused(Flaw::EntryOfOtherSigner), VerifyError::LogOtherCertificate);
    assert_eq!(bench.keyless_refused(Flaw::UnrelatedEntry), VerifyError::LogOtherCertificate);

    // Also when the entry's key is trusted beside the signature's.
    let both = vec![bench.key.public(), bench.sigstore.key("somebody else's").public()];
    let trust = SigstoreTrust::keyed(both, Some(bench.sigstore.rekor_keys()));
    let error = bench.refused(&trust, &bench.keyed(Flaw::EntryOfOtherSigner));
    assert_eq!(error, VerifyError::LogOtherSignature);
}

#[test]
fn an_entry_of_another_kind_is_refused() {
    let bench = Bench::new();
    let kind = VerifyError::LogEntryKind { kind: "rekord".to_owned(), version: "0.0.1".to_owned() };
    assert_eq!(bench.keyless_refused(Flaw::OtherEntryKind), kind);
    assert_eq!(bench.keyed_refused(Flaw::OtherEntryKind), kind);
}

// ---- row 13: the payload ----

#[test]
fn row_13_v03_an_ambiguous_payload_is_refused_though_it_is_signed_and_logged() {
    let bench = Bench::new();
    let unknown = |key: &str| VerifyError::PayloadUnknownKey { key: key.to_owned() };
    let kind = VerifyError::PayloadType { found: "atomic container signature".to_owned() };
    let rows =
        [(Flaw::FoldedKey, unknown("Critical")), (Flaw::UnknownField, unknown("issued-by")), (Flaw::OtherType, kind)];
    for (flaw, expected) in rows {
        assert_eq!(bench.keyless_refused(flaw), expected);
        assert_eq!(bench.keyed_refused(flaw), expected);
        assert_eq!(bench.refused(&bench.bare_key(), &bench.unlogged(flaw)), expected);
    }
    for error in [bench.keyless_refused(Flaw::DuplicateKey), bench.keyed_refused(Flaw::DuplicateKey)] {
        assert!(matches!(error, VerifyError::PayloadJson(_)), "{error:?}");
        assert_eq!(error.cause(), Cause::Malformed);
    }
}

// ---- row 14: keys do not stand in for certificates, nor certificates for keys ----

#[test]
fn row_14_under_a_key_requirement_an_attached_certificate_counts_for_nothing() {
    let bench = Bench::new();
    let keyless = bench.keyless(Flaw::None);
    assert_eq!(bench.refused(&bench.logged_key(), &keyless), VerifyError::LogOtherKey);
    assert_eq!(bench.refused(&bench.bare_key(), &keyless), VerifyError::Signature);

    // A good signature by the key stays good with anything attached to it, and the evidence says what was ignored.
    let mut keyed = bench.keyed(Flaw::None);
    for (name, value) in &keyless.annotations {
        keyed.annotations.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let verified = bench.verify(&bench.bare_key(), &keyed).unwrap();
    assert_eq!(verified.notes.len(), 2, "certificate and log entry: {:?}", verified.notes);
    assert_eq!(bench.verify(&bench.logged_key(), &keyed).unwrap().notes.len(), 1);
}

#[test]
fn row_14_under_a_certificate_requirement_a_signature_without_certificate_is_refused() {
    let bench = Bench::new();
    let expected = missing("dev.sigstore.cosign/certificate");
    assert_eq!(bench.keyless_refused(Flaw::NoCertificate), expected);
    assert_eq!(bench.refused(&bench.fulcio(), &bench.keyed(Flaw::None)), expected);
    assert_eq!(bench.refused(&pki(&bench, Some(EMAIL), None), &bench.unlogged(Flaw::None)), expected);
}

// ---- V-14: chains ----

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

// ---- V-15: identities ----

#[test]
fn v15_an_address_that_only_resembles_the_wanted_one_is_refused() {
    let bench = Bench::new();
    let trust = bench.fulcio();
    let lookalikes = [
        "attacker+dev@corp.com.evil.io",
        "dev@corp.com.evil.io",
        "xdev@corp.com",
        "DEV@corp.com",
        "dev@corp.com ",
        "dev@c0rp.com",
        "dev@corp",
    ];
    for address in lookalikes {
        let signature = bench.sigstore.sign_keyless(REFERENCE, &bench.subject, address, ISSUER, Flaw::None);
        let expected = VerifyError::OtherEmail { wanted: EMAIL.to_owned(), found: vec![address.to_owned()] };
        assert_eq!(bench.refused(&trust, &signature), expected);
    }
    // What is wanted may look alike too: a Cyrillic letter is not the Latin one.
    let trust = bench.sigstore.fulcio_trust("d\u{435}v@corp.com", ISSUER);
    assert!(matches!(bench.refused(&trust, &bench.keyless(Flaw::None)), VerifyError::OtherEmail { .. }));
}

#[test]
fn v15_the_wanted_address_as_another_kind_of_name_is_refused() {
    let bench = Bench::new();
    let signature =
        bench.sigstore.sign_as(REFERENCE, &bench.subject, &Identity::uri("mailto:dev@corp.com", ISSUER), Flaw::None);
    let expected = VerifyError::OtherEmail { wanted: EMAIL.to_owned(), found: Vec::new() };
    assert_eq!(bench.refused(&bench.fulcio(), &signature), expected);
    assert_eq!(expected.to_string(), r#"Required email "dev@corp.com" not found (got [])"#);
}

#[test]
fn v15_the_wanted_address_may_stand_at_any_place_among_the_names() {
    let bench = Bench::new();
    let identity = Identity {
        emails: vec!["first@corp.com".to_owned(), EMAIL.to_owned()],
        ..Identity::uri("https://ci.example.com/run/1", ISSUER)
    };
    let signature = bench.sigstore.sign_as(REFERENCE, &bench.subject, &identity, Flaw::None);
    assert!(bench.verify(&bench.fulcio(), &signature).is_ok());
}

#[test]
fn v15_a_missing_inconsistent_or_slightly_different_issuer_is_refused() {
    let bench = Bench::new();
    let nobody = Identity { issuer: None, ..Identity::email(EMAIL, "") };
    let signature = bench.sigstore.sign_as(REFERENCE, &bench.subject, &nobody, Flaw::None);
    assert_eq!(bench.refused(&bench.fulcio(), &signature), VerifyError::IssuerMissing);
    let error = bench.keyless_refused(Flaw::InconsistentIssuer);
    assert!(matches!(error, VerifyError::IssuerInconsistent { .. }), "{error:?}");
    for issuer in ["https://accounts.example.com/", "https://Accounts.example.com", "http://accounts.example.com", ""] {
        let signature = bench.sigstore.sign_keyless(REFERENCE, &bench.subject, EMAIL, issuer, Flaw::None);
        let expected = VerifyError::OtherIssuer { found: issuer.to_owned() };
        assert_eq!(bench.refused(&bench.fulcio(), &signature), expected);
    }
}

// ---- V-18 and V-20, the part of one signature; V-31 ----

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

// ---- arbitrary bytes ----

/// One change to some bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Flip { at: usize, bits: u8 },
    Insert { at: usize, byte: u8 },
    Remove { at: usize },
    Truncate { at: usize },
}

impl Mutation {
    fn strategy() -> impl Strategy<Value = Self> {
        let at = any::<usize>;
        prop_oneof![
            (at(), 1..=255_u8).prop_map(|(at, bits)| Self::Flip { at, bits }),
            (at(), any::<u8>()).prop_map(|(at, byte)| Self::Insert { at, byte }),
            at().prop_map(|at| Self::Remove { at }),
            at().prop_map(|at| Self::Truncate { at }),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len().max(1);
        match *self {
            Self::Insert { at, byte } => bytes.insert(at % length, byte),
            Self::Truncate { at } => bytes.truncate(at % length),
            Self::Flip { .. } | Self::Remove { .. } if bytes.is_empty() => (),
            Self::Flip { at, bits } => bytes[at % length] ^= bits,
            Self::Remove { at } => drop(bytes.remove(at % length)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_payload_never_verifies(mutation in Mutation::strategy(), which in 0..4_usize) {
        let (trust, mut signature) = BENCH.pairs()[which].clone();
        let original = signature.payload.clone();
        mutation.apply(&mut signature.payload);
        let answer = BENCH.verify(&trust, &signature);
        prop_assert!(answer.is_err() || signature.payload == original, "{answer:?}");
    }

    /// Much of an annotation can change without a change of meaning (line ends, certificates that the chain does not need). What
    /// must hold: whatever still verifies is the same signature, by the same signer, for the same image, in the same entry.
    #[test]
    fn a_changed_annotation_never_verifies_as_anything_else(
        mutations in proptest::collection::vec(Mutation::strategy(), 1..4),
        annotation in any::<proptest::sample::Index>(),
        which in 0..4_usize,
    ) {
        let (trust, mut signature) = BENCH.pairs()[which].clone();
        let original = BENCH.verify(&trust, &signature).unwrap();
        let name = annotation.get(&signature.annotations.keys().cloned().collect::<Vec<_>>()).clone();
        let mut bytes = signature.annotations[&name].clone().into_bytes();
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        signature.annotations.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        if let Ok(verified) = BENCH.verify(&trust, &signature) {
            prop_assert_eq!(verified.signer, original.signer);
            prop_assert_eq!(verified.docker_reference, original.docker_reference);
            prop_assert_eq!(verified.log, original.log);
        }
    }

    #[test]
    fn arbitrary_annotations_are_refused_cleanly(
        texts in proptest::collection::vec(".{0,200}", 5),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        which in 0..4_usize,
    ) {
        let (trust, mut signature) = BENCH.pairs()[which].clone();
        let names = ["dev.cosignproject.cosign/signature", "dev.sigstore.cosign/bundle", "dev.sigstore.cosign/certificate",
            "dev.sigstore.cosign/chain", "dev.sigstore.cosign/rfc3161timestamp"];
        signature.annotations = names.into_iter().map(str::to_owned).zip(texts).collect();
        prop_assert!(BENCH.verify(&trust, &signature).is_err());
        signature.payload = payload;
        prop_assert!(BENCH.verify(&trust, &signature).is_err());
    }
}

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);

impl Bench {
    /// Each kind of trust with a signature that is good under it.
    fn pairs(&self) -> [(SigstoreTrust, FakeSignature); 4] {
        let pki_signature =
            self.sigstore.sign_pki(REFERENCE, &self.subject, &Identity::email(EMAIL, ISSUER), Flaw::None);
        [
            (self.fulcio(), self.keyless(Flaw::None)),
            (self.logged_key(), self.keyed(Flaw::None)),
            (self.bare_key(), self.unlogged(Flaw::None)),
            (pki(self, Some(EMAIL), None), pki_signature),
        ]
    }
}
