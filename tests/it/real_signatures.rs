//! Signatures that cosign and openssl made, verified as policy.json's requirements would.
//!
//! One real keyless signature lies in `tests/data`; the others need `SEALGATE_FIXTURES`.

use std::path::Path;

use sealgate::clock::Timestamp;
use sealgate::oci::Digest;
use sealgate::verify::{
    PublicKey, RekorKeys, SignatureMaterial, Signer, SigstoreTrust, VerifiedSignature, VerifyError,
};

use crate::fixtures::{data, fixtures, recorded_signature, recorded_signatures};

const EMAIL: &str = "mitr@redhat.com";
const ISSUER: &str = "https://github.com/login/oauth";

/// Long after all certificates and entries of the keyless signatures.
fn now() -> Timestamp {
    "2026-11-20T00:00:00Z".parse().unwrap()
}

fn read(file: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.as_ref().display()))
}

struct Recorded {
    material: SignatureMaterial,
    subject: Digest,
    ca: Vec<u8>,
    rekor: Vec<u8>,
}

fn recorded() -> Recorded {
    let folder = data("fulcio-rekor");
    Recorded {
        material: recorded_signature(&folder.join("signature-1")),
        subject: Digest::sha256(&read(folder.join("manifest.json"))),
        ca: read(folder.join("fulcio_v1.crt.pem")),
        rekor: read(folder.join("rekor.pub")),
    }
}

impl Recorded {
    fn verify(&self, issuer: &str, email: &str) -> Result<VerifiedSignature, VerifyError> {
        let rekor = RekorKeys::from_pems(std::slice::from_ref(&self.rekor)).unwrap();
        let trust = SigstoreTrust::fulcio(&self.ca, rekor, issuer.to_owned(), email.to_owned()).unwrap();
        trust.verify(&self.material, &self.subject, now())
    }
}

#[test]
fn a_real_keyless_signature_is_good_long_after_its_certificate_ended() {
    let verified = recorded().verify(ISSUER, EMAIL).unwrap();
    let signer = Signer::Certificate {
        issuer: Some(ISSUER.to_owned()),
        subjects: vec![EMAIL.to_owned()],
        workflow: Box::default(),
    };
    assert_eq!(verified.signer, signer);
    assert_eq!(verified.signed_reference.to_string(), "192.168.64.2:5000/cosign-signed/fulcio-rekor-1");
    let log = verified.log.unwrap();
    assert_eq!((log.index, log.integrated.unwrap().to_string().as_str()), (11_605_770, "2023-01-20T20:51:33Z"));
    assert_eq!(verified.not_after, None);
    assert_eq!(verified.notes, ["sct: not required by policy.json"]);
}

#[test]
fn the_real_keyless_signature_is_refused_for_another_email_in_words_that_users_know() {
    let error = recorded().verify(ISSUER, "somebody@redhat.com").unwrap_err();
    assert_eq!(error.to_string(), r#"Required email "somebody@redhat.com" not found (got ["mitr@redhat.com"])"#);
}

#[test]
fn the_real_keyless_signature_is_refused_for_another_issuer() {
    let error = recorded().verify("https://github.com/login/oauth/", EMAIL).unwrap_err();
    assert_eq!(error.to_string(), r#"Unexpected Fulcio OIDC issuer "https://github.com/login/oauth""#);
}

#[test]
fn the_real_keyless_signature_is_refused_for_another_manifest() {
    let other = Recorded { subject: Digest::sha256(b"other"), ..recorded() };
    let signed = recorded().subject;
    assert_eq!(other.verify(ISSUER, EMAIL).unwrap_err(), VerifyError::OtherDigest { signed });
}

fn sigstore(fixtures: &Path, file: &str) -> Vec<u8> {
    read(fixtures.join("containers-image/sigstore").join(file))
}

#[test]
fn the_real_keyless_signature_is_refused_for_another_ca_and_another_rekor_key() {
    let Some(fixtures) = fixtures() else { return };
    let other_ca = Recorded { ca: sigstore(&fixtures, "pki_root_crts.pem"), ..recorded() };
    let error = other_ca.verify(ISSUER, EMAIL).unwrap_err();
    // That CA was not yet valid when the signature was made.
    assert!(matches!(error, VerifyError::AuthorityTime { .. }), "{error}");
    let other_rekor = Recorded { rekor: sigstore(&fixtures, "cosign.pub"), ..recorded() };
    let error = other_rekor.verify(ISSUER, EMAIL).unwrap_err();
    assert!(matches!(error, VerifyError::LogUnknown { .. }), "{error}");
}

fn image(fixtures: &Path, name: &str) -> (Vec<SignatureMaterial>, Option<Digest>) {
    let folder = fixtures.join("containers-image/sigstore").join(format!("dir-img-cosign-{name}"));
    let manifest = std::fs::read(folder.join("manifest.json")).ok();
    (recorded_signatures(&folder), manifest.map(|bytes| Digest::sha256(&bytes)))
}

fn keyed(fixtures: &Path, keys: &[&str], rekor: bool) -> SigstoreTrust {
    let keys = keys.iter().map(|key| PublicKey::from_pem(&sigstore(fixtures, key)).unwrap()).collect();
    let rekor = rekor.then(|| RekorKeys::from_pems(&[sigstore(fixtures, "rekor.pub")]).unwrap());
    SigstoreTrust::keyed(keys, rekor)
}

fn fulcio(fixtures: &Path) -> SigstoreTrust {
    let rekor = RekorKeys::from_pems(&[sigstore(fixtures, "rekor.pub")]).unwrap();
    let ca = sigstore(fixtures, "fulcio_v1.crt.pem");
    SigstoreTrust::fulcio(&ca, rekor, ISSUER.to_owned(), EMAIL.to_owned()).unwrap()
}

/// The answers of the first that is good, and all reasons when none is.
fn first_good(
    trust: &SigstoreTrust,
    image: &(Vec<SignatureMaterial>, Option<Digest>),
) -> Result<String, Vec<VerifyError>> {
    let subject = image.1.unwrap_or_else(|| Digest::sha256(b"there is no manifest"));
    let mut reasons = Vec::new();
    for material in &image.0 {
        match trust.verify(material, &subject, now()) {
            Ok(verified) => return Ok(verified.signed_reference.to_string()),
            Err(error) => reasons.push(error),
        }
    }
    Err(reasons)
}

#[test]
fn real_keyed_signatures_are_good_under_their_key_alone() {
    let Some(fixtures) = fixtures() else { return };
    let rows = [
        ("key-rekor-valid", "cosign2.pub", true, "192.168.64.2:5000/cosign-signed/key-1"),
        ("key-rekor-valid", "cosign2.pub", false, "192.168.64.2:5000/cosign-signed/key-1"),
        ("valid", "cosign.pub", false, "192.168.64.2:5000/cosign-signed-single-sample"),
        ("valid-2", "cosign.pub", false, "192.168.64.2:5000/cosign-signed-single-sample"),
        ("valid-with-tag", "cosign.pub", false, "192.168.64.2:5000/skopeo-signed:tag"),
        ("mixed", "cosign.pub", false, "192.168.64.2:5000/cosign-signed-single-sample"),
    ];
    for (name, key, rekor, reference) in rows {
        let image = image(&fixtures, name);
        assert_eq!(first_good(&keyed(&fixtures, &[key], rekor), &image).as_deref(), Ok(reference), "{name}");
        let rotated = ["some-rsa-key.pub", key];
        assert_eq!(first_good(&keyed(&fixtures, &rotated, rekor), &image).as_deref(), Ok(reference), "{name}");
        let other = if key == "cosign.pub" { "cosign2.pub" } else { "cosign.pub" };
        let reasons = first_good(&keyed(&fixtures, &[other], rekor), &image).unwrap_err();
        let expected = if rekor { VerifyError::LogOtherKey } else { VerifyError::Signature };
        assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == expected), "{name}: {reasons:?}");
    }
    println!("{} keyed signatures judged", rows.len());
}

#[test]
fn a_real_signature_without_a_log_entry_is_refused_where_one_is_required() {
    let Some(fixtures) = fixtures() else { return };
    for name in ["valid", "valid-2", "valid-with-tag"] {
        let reasons = first_good(&keyed(&fixtures, &["cosign.pub"], true), &image(&fixtures, name)).unwrap_err();
        let missing = VerifyError::MissingAnnotation { annotation: "dev.sigstore.cosign/bundle" };
        assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == missing), "{name}: {reasons:?}");
    }
}

#[test]
fn a_real_signature_of_a_private_pki_is_good_while_its_certificates_are() {
    let Some(fixtures) = fixtures() else { return };
    let roots = sigstore(&fixtures, "pki_root_crts.pem");
    let intermediates = sigstore(&fixtures, "pki_intermediate_crts.pem");
    let pki = |email: Option<&str>, hostname: Option<&str>, intermediates: Option<&[u8]>| {
        SigstoreTrust::pki(&roots, intermediates, email.map(str::to_owned), hostname.map(str::to_owned)).unwrap()
    };
    let (email, hostname) = (Some("qiwan@redhat.com"), Some("myhost.example.com"));
    let image = image(&fixtures, "pki-valid");
    for trust in [
        pki(email, None, None),
        pki(None, hostname, None),
        pki(email, hostname, None),
        pki(email, hostname, Some(&intermediates)),
    ] {
        assert_eq!(first_good(&trust, &image).as_deref(), Ok("localhost:5000/test"));
    }

    let refusals = [
        pki(Some("other@redhat.com"), None, None),
        pki(None, Some("other.example.com"), None),
        pki(Some("other@redhat.com"), hostname, None),
        pki(email, Some("other.example.com"), None),
    ];
    let texts: Vec<String> =
        refusals.iter().map(|trust| first_good(trust, &image).unwrap_err()[0].to_string()).collect();
    let email_text = r#"Required email "other@redhat.com" not found (got ["qiwan@redhat.com"])"#;
    let hostname_text =
        "Unexpected subject hostname: x509: certificate is valid for myhost.example.com, not other.example.com";
    assert_eq!(texts, [email_text, hostname_text, email_text, hostname_text]);

    let subject = image.1.unwrap();
    let trust = pki(email, hostname, None);
    let at = |time: &str| trust.verify(&image.0[0], &subject, time.parse().unwrap());
    let verified = at("2024-10-01T14:28:43Z").unwrap();
    assert_eq!(verified.not_after.unwrap().to_string(), "2052-02-16T14:28:40Z", "the root ends first");
    assert_eq!(verified.log, None);
    assert!(at("2052-02-16T14:28:40Z").is_ok());
    // The root ends three seconds before the leaf.
    assert!(matches!(at("2052-02-16T14:28:41Z"), Err(VerifyError::AuthorityTime { .. })));
    assert!(matches!(at("2024-10-01T14:28:42Z"), Err(VerifyError::CertificateTime { .. })));
    assert!(matches!(at("2052-02-16T14:28:44Z"), Err(VerifyError::CertificateTime { .. })));
}

#[test]
fn a_real_signature_is_refused_for_a_manifest_that_it_does_not_sign() {
    let Some(fixtures) = fixtures() else { return };
    for name in ["modified-manifest", "manifest-digest-error", "no-manifest"] {
        let image = image(&fixtures, name);
        assert!(!image.0.is_empty(), "{name} has signatures");
        let reasons = first_good(&keyed(&fixtures, &["cosign.pub", "cosign2.pub"], false), &image).unwrap_err();
        let other = |reason: &VerifyError| matches!(reason, VerifyError::OtherDigest { .. });
        assert!(reasons.iter().all(other), "{name}: {reasons:?}");
    }
    assert_eq!(image(&fixtures, "other-attachment").0.len(), 0, "an attachment is no signature");
}

#[test]
fn all_derived_forgeries_are_refused() {
    let Some(fixtures) = fixtures() else { return };
    let mut judged = 0;
    for folder in std::fs::read_dir(fixtures.join("derived")).unwrap() {
        let folder = folder.unwrap().path();
        let expect: serde_json::Value = serde_json::from_slice(&read(folder.join("expect"))).unwrap();
        let trust = match expect["key"].as_str() {
            Some(key) => keyed(&fixtures, &[key], true),
            None => fulcio(&fixtures),
        };
        let subject = Digest::sha256(&read(folder.join("manifest.json")));
        let error = trust.verify(&recorded_signature(&folder.join("signature-1")), &subject, now()).unwrap_err();
        let fits = match expect["reject_at"].as_str().unwrap() {
            "rekor-bundle-present" | "cert" => matches!(error, VerifyError::MissingAnnotation { .. }),
            "set" => error == VerifyError::LogSet,
            // The key is looked at first here; the swapped entry of `entry-signature` is one of a certificate.
            "entry-key" | "entry-signature" => error == VerifyError::LogOtherKey,
            "entry-hash" => error == VerifyError::LogOtherPayload,
            "chain" => matches!(error, VerifyError::ChainUntrusted { .. }),
            step => panic!("unknown step {step}"),
        };
        assert!(fits, "{}: {error:?}", folder.display());
        judged += 1;
    }
    println!("{judged} derived forgeries judged");
    assert_eq!(judged, 9);
}
