//! The forgery matrix: every way to make a signature look good that is not, each refused for its own reason.
//!
//! Each signature here has exactly one flaw, so a refusal proves the check of that one thing. The numbers in the names:
//!
//! 1 another signer · 2 another manifest · 3 garbage with a good entry · 4 signature and entry of another payload · 5 a key used
//! after its certificate · 6 an entry outside the certificate's validity · 7 time, index or promise edited · 8 no entry · 9 SCT ·
//! 10 another authority · 11 another log · 12 the entry of another signature · 13 the payload · 14 key and certificate in each
//! other's place. Ids such as V-08 are those of the catalogue in `docs/threat-model.md`.

mod bundles;
mod chains;
mod identities;
mod malformed;
mod mutation;

use sealgate::clock::{Clock, Timestamp};
use sealgate::oci::Digest;
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
    let signer = Signer::Certificate {
        issuer: Some(ISSUER.to_owned()),
        subjects: vec![EMAIL.to_owned()],
        workflow: Box::default(),
    };
    assert_eq!(verified.signer, signer);
    assert_eq!(verified.signed_reference.to_string(), REFERENCE);
    assert!(verified.log.unwrap().integrated.unwrap() < bench.now);
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

/// CVE-2024-23332.
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

/// CVE-2022-23649, CVE-2022-36056, CVE-2026-22703.
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
