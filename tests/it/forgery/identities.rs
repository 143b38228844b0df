//! Whose certificate it is: nothing but the wanted name at the wanted issuer.

use sealgate::testing::sigstore::{Flaw, Identity};
use sealgate::verify::VerifyError;

use super::{Bench, EMAIL, ISSUER, REFERENCE, pki};

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

    // To the letter, and still no address; and an address is no host name.
    let everything_else = Identity { hostnames: vec![EMAIL.to_owned()], ..Identity::uri(EMAIL, ISSUER) };
    let signature = bench.sigstore.sign_as(REFERENCE, &bench.subject, &everything_else, Flaw::None);
    assert_eq!(bench.refused(&bench.fulcio(), &signature), expected);
    let signature = bench.sigstore.sign_pki(REFERENCE, &bench.subject, &everything_else, Flaw::None);
    let error = bench.refused(&pki(&bench, Some(EMAIL), None), &signature);
    assert!(matches!(error, VerifyError::OtherEmail { .. }), "{error:?}");
    let host = Identity { emails: vec!["h.test".to_owned()], ..Identity::uri("h.test", ISSUER) };
    let signature = bench.sigstore.sign_pki(REFERENCE, &bench.subject, &host, Flaw::None);
    let error = bench.refused(&pki(&bench, None, Some("h.test")), &signature);
    assert!(matches!(error, VerifyError::OtherHostname { .. }), "{error:?}");
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
    let error = bench.keyless_refused(Flaw::IssuerTwice);
    assert!(matches!(error, VerifyError::IssuerMalformed { .. }), "{error:?}");
    for issuer in ["https://accounts.example.com/", "https://Accounts.example.com", "http://accounts.example.com", ""] {
        let signature = bench.sigstore.sign_keyless(REFERENCE, &bench.subject, EMAIL, issuer, Flaw::None);
        let expected = VerifyError::OtherIssuer { found: issuer.to_owned() };
        assert_eq!(bench.refused(&bench.fulcio(), &signature), expected);
    }
}
