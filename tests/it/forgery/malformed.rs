//! What is no timestamp, no log entry and no certificate at all, in bundles that are signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealgate::testing::sigstore::{Identity, RootFlaw};
use sealgate::verify::{Cause, VerifyError};
use serde_json::Value;

use super::bundles::{Bench, By, Log};
use super::{EMAIL, ISSUER};

/// CVE-2025-66564: a token that costs more to read than it is worth.
#[test]
fn malformed_timestamps_are_refused_cleanly() {
    let bench = Bench::new();
    let good = bench.good(By::Keyless, Log::V2).build();
    let trust = bench.trust(By::Keyless, RootFlaw::None);
    let token = |json: &Value| {
        let text = json["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"][0]["signedTimestamp"]
            .as_str()
            .unwrap();
        STANDARD.decode(text).unwrap()
    };
    let whole = token(&good.json);
    let element = |tag: u8, content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x84], &length[..], content].concat()
    };
    let mut tokens: Vec<Vec<u8>> = (0..whole.len()).step_by(31).map(|length| whole[..length].to_vec()).collect();
    tokens.push([&whole[..], &[0]].concat());
    tokens.push(vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]);
    tokens.push(
        (0..10_000).fold(Vec::new(), |inner, _| if inner.len() < 60_000 { element(0x30, &inner) } else { inner }),
    );
    tokens.push(element(0x30, &element(0x06, &vec![0x81; 200_000])));
    tokens.push(element(0x30, &element(0x06, &b"1.2.840.".repeat(20_000))));
    tokens.push([0x30, 0x80].repeat(50_000));
    for token in tokens {
        let mut bundle = good.clone();
        bundle.json["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"][0]["signedTimestamp"] =
            STANDARD.encode(&token).into();
        let error = bench.signature(&trust, &bundle.material()).unwrap_err();
        assert!(matches!(error, VerifyError::TimestampInvalid { .. }), "{} bytes: {error:?}", token.len());
        assert_eq!(error.cause(), Cause::Signature);
        assert!(error.to_string().len() < 1000, "the reason is short");
    }
}

/// CVE-2023-30551, CVE-2023-33199, CVE-2026-23831: an entry whose body crashes who reads it.
#[test]
fn malformed_log_entries_are_refused_cleanly() {
    let bench = Bench::new();
    let bodies: Vec<String> = [
        "",
        "null",
        "[]",
        "{}",
        r#"{"apiVersion":"0.0.1","kind":"dsse"}"#,
        r#"{"apiVersion":"0.0.1","kind":"dsse","spec":null}"#,
        r#"{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":null,"payloadHash":null,"signatures":null}}"#,
        r#"{"apiVersion":"0.0.1","kind":"dsse","spec":{"payloadHash":{"algorithm":"sha256","value":""},"signatures":[null]}}"#,
        r#"{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{"envelope":null,"hash":null,"payloadHash":null}}}"#,
        r#"{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":null,"signature":null}}}"#,
    ]
    .into_iter()
    .map(str::to_owned)
    .chain(["[".repeat(100_000), format!(r#"{{"spec":{}1{}}}"#, "{\"a\":".repeat(10_000), "}".repeat(10_000))])
    .collect();
    for log in [Log::V1, Log::V1Intoto, Log::V2] {
        let good = bench.good(By::Keyless, log).build();
        for body in &bodies {
            let mut bundle = good.clone();
            bundle.json["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"] = STANDARD.encode(body).into();
            let error = bench.signature(&bench.trust(By::Keyless, RootFlaw::None), &bundle.material()).unwrap_err();
            assert!(matches!(error.cause(), Cause::Log | Cause::Malformed), "{log:?} {body:.80}: {error:?}");
            assert!(error.to_string().len() < 1000, "the reason is short");
        }
        // Signed by the log, so that every check before the body's passes: only where the log itself is malicious.
        for body in &bodies {
            let bundle = bench.sigstore.logged_anyhow(&good, body.as_bytes());
            let error = bench.signature(&bench.trust(By::Keyless, RootFlaw::None), &bundle.material()).unwrap_err();
            assert!(matches!(error.cause(), Cause::Log | Cause::Malformed), "{log:?} {body:.80}: {error:?}");
        }
    }
}

/// CVE-2023-25656: names in a certificate that are costly to read.
#[test]
fn certificates_with_very_many_names_are_refused_cleanly() {
    let bench = Bench::new();
    let emails: Vec<String> = (0..10_000).map(|number| format!("somebody-{number}@corp.com")).collect();
    let identity = Identity { emails, ..Identity::email(EMAIL, ISSUER) };
    let bundle = bench.sigstore.bundle_by(&identity, &bench.subject).build();
    let error = bench.signature(&bench.trust(By::Keyless, RootFlaw::None), &bundle.material()).unwrap_err();
    assert!(matches!(error.cause(), Cause::Identity | Cause::Malformed | Cause::Certificate), "{error:?}");
    assert!(error.to_string().len() < 5000, "the reason is short");
}
