//! OpenPGP simple signing under policy.json: the signatures that containers/image itself tests with.

use std::path::{Path, PathBuf};

use sealgate::clock::Timestamp;
use sealgate::oci::{Digest, ImageReference};
use sealgate::policy::{
    ContainersPolicy, ContainersPolicyDocument, Decision, Material, PolicySet, Reason, RegistriesD, Settings, Verdict,
};
use sealgate::verify::{
    Cause, OpenPgpError, OpenPgpKeys, OpenPgpSignature, Place, SignatureMaterial, Source, VerifyError,
};
use serde_json::{Value, json};

use crate::fixtures::fixtures;

const IMAGE: &str = "sha256:20bf21ed457b390829cdbeec8795a7bea1626991fda603e0d01b4e7f60427e55";

struct Recorded(PathBuf);

impl Recorded {
    fn find() -> Option<Self> {
        fixtures().map(|folder| Self(folder.join("containers-image/gpg")))
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }

    fn keys(&self, rings: &[&str]) -> OpenPgpKeys {
        OpenPgpKeys::parse(&rings.iter().map(|ring| self.read(ring)).collect::<Vec<_>>()).unwrap()
    }

    fn verify(&self, rings: &[&str], signature: &str) -> Result<String, VerifyError> {
        let verified = self.keys(rings).verify(&candidate(self.read(signature)), &image(), now())?;
        Ok(format!("{:?} {}", verified.signer, verified.signed_reference))
    }

    /// The signatures in a folder as the `dir:` transport stores it, and the digest of its manifest.
    fn image(&self, folder: &str) -> (Digest, Material) {
        let manifest = std::fs::read(self.0.join(folder).join("manifest.json")).unwrap_or_default();
        let files = (1..).map(|number| format!("{folder}/signature-{number}"));
        let candidates = files.take_while(|file| self.0.join(file).exists());
        let candidates = candidates.map(|file| SignatureMaterial::OpenPgp(candidate(self.read(&file)))).collect();
        (Digest::sha256(&manifest), Material { candidates, ..Material::default() })
    }

    fn signed_by(&self, ring: &str, identity: &Value) -> Value {
        let mut requirement = json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": self.0.join(ring)});
        if !identity.is_null() {
            requirement["signedIdentity"] = identity.clone();
        }
        requirement
    }
}

fn candidate(signature: Vec<u8>) -> OpenPgpSignature {
    let place = Place::Lookaside("https://lookaside.test/x/signature-1".to_owned());
    let source = Source { repository: None, manifest: Digest::sha256(&signature), place, layer: 0 };
    OpenPgpSignature { signature: signature.into(), source }
}

fn image() -> Digest {
    IMAGE.parse().unwrap()
}

fn now() -> Timestamp {
    "2026-11-20T00:00:00Z".parse().unwrap()
}

fn policy_of(requirements: &[Value]) -> PolicySet {
    let text = json!({"default": requirements}).to_string();
    let document = ContainersPolicyDocument::parse(text.as_bytes()).unwrap();
    let mut read = |path: &str| std::fs::read(Path::new(path)).map_err(|error| error.to_string());
    let containers_policy = ContainersPolicy::resolve(document, &mut read).unwrap();
    let registries_d = b"default-docker: {lookaside: 'https://lookaside.test'}".to_vec();
    let registries_d = RegistriesD::parse(&[("a.yaml".to_owned(), registries_d)]).unwrap();
    PolicySet::new(Settings { containers_policy: Some(containers_policy), registries_d, ..Settings::default() })
        .unwrap()
}

fn decide(requirement: &Value, reference: &str, (digest, material): &(Digest, Material)) -> Verdict {
    let reference: ImageReference = reference.parse().unwrap();
    policy_of(std::slice::from_ref(requirement)).evaluate(&reference, digest, material, now()).unwrap()
}

const KEY: &str = "08CD26E446E2E95249B7A405E932F44B23E8DD43";
const PRIMARY: &str = "public-key.gpg";

#[test]
fn good_signatures_name_the_primary_key_and_the_signed_reference() {
    let Some(recorded) = Recorded::find() else { return };
    let signed = Ok(format!("OpenPgp({KEY:?}) docker.io/testing/manifest"));
    for ring in [PRIMARY, "public-key-1.gpg"] {
        assert_eq!(recorded.verify(&[ring], "image.signature"), signed, "armored or binary");
    }
    assert_eq!(recorded.verify(&[PRIMARY], "no-optional-fields.signature"), signed);
    assert_eq!(recorded.verify(&["public-key-2.gpg", PRIMARY], "image.signature"), signed, "several rings");
    let both = OpenPgpKeys::parse(&[[recorded.read("public-key-2.gpg"), recorded.read("public-key-1.gpg")].concat()]);
    assert!(both.unwrap().verify(&candidate(recorded.read("image.signature")), &image(), now()).is_ok());
    let armored = [recorded.read("public-key-with-subkey.gpg"), recorded.read(PRIMARY)].concat();
    let keys = OpenPgpKeys::parse(&[armored]).unwrap();
    assert_eq!(keys.primary_fingerprints().len(), 2, "several armored blocks in one file");
    assert!(keys.verify(&candidate(recorded.read("image.signature")), &image(), now()).is_ok());
}

#[test]
fn a_subkey_signs_for_its_primary_key_with_v3_packets_too() {
    let Some(recorded) = Recorded::find() else { return };
    for name in ["subkey.signature", "subkey.signature-v3", "dir-img-valid-subkey/signature-1"] {
        let signature = candidate(recorded.read(name));
        let verified = recorded.keys(&["public-key-with-subkey.gpg"]).verify(&signature, &image(), now()).unwrap();
        let signer = format!("{:?}", verified.signer);
        assert!(signer.ends_with("8D54A947EE396F36\")"), "{name}: {signer}");
        assert_eq!(verified.notes, ["made with a subkey; its primary key is named"]);
    }
}

#[test]
fn everything_else_is_refused_with_the_text_that_people_know() {
    let Some(recorded) = Recorded::find() else { return };
    let revoked = "public-key-with-revoked-subkey.gpg";
    for (ring, signature, text) in [
        (PRIMARY, "corrupt.signature", "signature error: openpgp: invalid signature"),
        (PRIMARY, "corrupt.signature-v3", "signature error: openpgp: invalid signature"),
        (PRIMARY, "expired.signature", "Signature expired on 2025-06-24T10:00:00Z"),
        (PRIMARY, "unknown-key.signature", "Key not found for key ID 5f9470e3bc6c3b55 in signature"),
        (PRIMARY, "unknown-key.signature-v3", "Key not found for key ID 5f9470e3bc6c3b55 in signature"),
        (PRIMARY, "subkey.signature", "Key not found for key ID d75b3109b3baaeaf in signature"),
        (PRIMARY, "unsigned-literal.signature", "not signed"),
        (PRIMARY, "unsigned-encrypted.signature", "openpgp: unsupported feature: the message is encrypted"),
        (PRIMARY, "invalid-cleartext.signature", "openpgp: invalid data: a packet of the message is broken"),
        (revoked, "subkey-revoked.signature", REVOKED),
        (revoked, "subkey-revoked.signature-v3", REVOKED),
    ] {
        assert_eq!(recorded.verify(&[ring], signature).map_err(|error| error.to_string()), Err(text.to_owned()));
    }
    for signature in ["invalid-blob.signature", "invalid-blob.signature-v3"] {
        assert!(matches!(recorded.verify(&[PRIMARY], signature), Err(VerifyError::PayloadJson(_))), "{signature}");
    }
}

const REVOKED: &str = "Key not found for key ID 3ef0f93a1f602997 in signature: the ring has the key, but it is revoked";

#[test]
fn time_stands_where_it_is_put() {
    let Some(recorded) = Recorded::find() else { return };
    let verify = |signature: &str, now: &str| {
        recorded.keys(&[PRIMARY]).verify(&candidate(recorded.read(signature)), &image(), now.parse().unwrap())
    };
    let cause = |error: VerifyError| error.cause();
    // The signed text of this one is no payload: until its end it fails for that, afterwards for its age.
    assert_eq!(verify("expired.signature", "2025-06-24T10:00:00Z").map_err(cause).unwrap_err(), Cause::Malformed);
    assert_eq!(verify("expired.signature", "2025-06-24T10:00:01Z").map_err(cause).unwrap_err(), Cause::Time);
    let made = "2025-06-23T19:22:09Z";
    assert!(verify("image.signature", made).is_ok());
    let future = verify("image.signature", "2025-06-23T19:22:08Z").unwrap_err();
    assert!(matches!(future, VerifyError::OpenPgp(OpenPgpError::MadeInFuture { .. })), "{future}");
}

#[test]
fn policies_decide_as_containers_image_does() {
    let Some(recorded) = Recorded::find() else { return };
    let (by_repository, default) = (json!({"type": "matchRepository"}), Value::Null);
    let exact = json!({"type": "exactRepository", "dockerRepository": "docker.io/testing/manifest"});
    let latest = "docker.io/testing/manifest:latest";
    for folder in ["dir-img-valid", "dir-img-valid-2", "dir-img-mixed"] {
        let image = recorded.image(folder);
        for identity in [&by_repository, &exact, &default, &json!({"type": "matchExact"})] {
            let verdict = decide(&recorded.signed_by(PRIMARY, identity), latest, &image);
            assert_eq!(verdict.decision, Decision::Allow, "{folder} {identity}: {}", verdict.text);
            assert_eq!(verdict.text, format!("signed by the OpenPGP key {KEY}"));
        }
        let verdict = decide(&recorded.signed_by(PRIMARY, &default), "docker.io/testing/manifest:other", &image);
        assert_eq!((verdict.decision, verdict.reason), (Decision::Deny, Reason::IdentityMismatch), "{folder}");
    }
    let untagged = (
        image(),
        Material {
            candidates: vec![SignatureMaterial::OpenPgp(candidate(recorded.read("image.signature")))],
            ..Material::default()
        },
    );
    let denied = decide(&recorded.signed_by(PRIMARY, &default), latest, &untagged);
    assert_eq!(denied.text, r#"Signature for identity "docker.io/testing/manifest" is not accepted"#);
    assert_eq!(decide(&recorded.signed_by(PRIMARY, &by_repository), latest, &untagged).decision, Decision::Allow);
    let other = decide(&recorded.signed_by(PRIMARY, &by_repository), "docker.io/testing/other:latest", &untagged);
    assert_eq!((other.decision, other.reason), (Decision::Deny, Reason::IdentityMismatch));

    for (folder, text) in [
        ("dir-img-unsigned", "A signature was required, but no signature exists"),
        (
            "dir-img-modified-manifest",
            "Signature for digest sha256:20bf21ed457b390829cdbeec8795a7bea1626991fda603e0d01b4e7f60427e55 does not match",
        ),
        (
            "dir-img-no-manifest",
            "Signature for digest sha256:20bf21ed457b390829cdbeec8795a7bea1626991fda603e0d01b4e7f60427e55 does not match",
        ),
    ] {
        let verdict = decide(&recorded.signed_by(PRIMARY, &by_repository), latest, &recorded.image(folder));
        assert_eq!((verdict.decision, verdict.text.as_str()), (Decision::Deny, text), "{folder}");
    }
    let subkey = recorded.image("dir-img-valid-subkey");
    let verdict = decide(&recorded.signed_by("public-key-with-subkey.gpg", &by_repository), latest, &subkey);
    assert_eq!(verdict.decision, Decision::Allow, "{}", verdict.text);
}

#[test]
fn a_refusal_says_what_containers_image_says() {
    let Some(recorded) = Recorded::find() else { return };
    let latest = "docker.io/testing/manifest:latest";
    let (valid, unsigned) = (recorded.image("dir-img-valid"), recorded.image("dir-img-unsigned"));
    let text = |requirement: &Value, image: &(Digest, Material)| {
        let verdict = decide(requirement, latest, image);
        assert_eq!(verdict.decision, Decision::Deny, "{requirement}");
        (verdict.text, verdict.reason)
    };
    let no_signature = ("A signature was required, but no signature exists".to_owned(), Reason::NoSignature);
    for kind in ["signedByGPGKeys", "X509Certificates", "signedByX509CAs"] {
        let mut requirement = recorded.signed_by(PRIMARY, &Value::Null);
        requirement["keyType"] = kind.into();
        assert_eq!(
            text(&requirement, &valid),
            (format!("Unimplemented \"keyType\" value {kind:?}"), Reason::NotSupported)
        );
        assert_eq!(text(&requirement, &unsigned), no_signature, "{kind}");
    }
    let nobody = json!({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []});
    assert_eq!(text(&nobody, &valid), ("No public keys imported".to_owned(), Reason::BadSignature));
    assert_eq!(text(&nobody, &unsigned), no_signature);

    let wrong = recorded.signed_by("public-key-2.gpg", &Value::Null);
    let unknown = "Key not found for key ID e932f44b23e8dd43 in signature";
    assert_eq!(text(&wrong, &valid), (unknown.to_owned(), Reason::WrongKey));
    let two = format!("None of the signatures were accepted, reasons: {unknown}; {unknown}");
    assert_eq!(text(&wrong, &recorded.image("dir-img-valid-2")), (two, Reason::WrongKey));

    // To a requirement for cosign's signatures these are none, but they are counted.
    let sigstore = recorded.0.parent().unwrap().join("sigstore/cosign.pub");
    let sigstore = json!({"type": "sigstoreSigned", "keyPath": sigstore});
    let counted = "A signature was required, but no signature exists (2 non-sigstore signatures, 0 sigstore non-signature attachments)";
    assert_eq!(text(&sigstore, &recorded.image("dir-img-valid-2")), (counted.to_owned(), Reason::NoSignature));
}

#[test]
fn one_requirement_after_another_must_be_satisfied() {
    let Some(recorded) = Recorded::find() else { return };
    let (digest, material) = recorded.image("dir-img-valid");
    let reference: ImageReference = "docker.io/testing/manifest:latest".parse().unwrap();
    let (good, bad) = (recorded.signed_by(PRIMARY, &Value::Null), recorded.signed_by("public-key-2.gpg", &Value::Null));
    for (requirements, decision) in
        [([&good, &good], Decision::Allow), ([&good, &bad], Decision::Deny), ([&bad, &good], Decision::Deny)]
    {
        let policy = policy_of(&requirements.map(Value::clone));
        assert_eq!(policy.evaluate(&reference, &digest, &material, now()).unwrap().decision, decision);
    }
    let mut rotated = good.clone();
    rotated.as_object_mut().unwrap().remove("keyPath");
    rotated["keyPaths"] = json!([recorded.0.join("public-key-2.gpg"), recorded.0.join(PRIMARY)]);
    assert_eq!(decide(&rotated, "docker.io/testing/manifest:latest", &(digest, material)).decision, Decision::Allow);
}
