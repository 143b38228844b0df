//! Real signatures under policy.json files: what containers/image allows is allowed, and each changed word refuses.

use std::path::{Path, PathBuf};

use sealgate::clock::Timestamp;
use sealgate::oci::{Digest, ImageReference};
use sealgate::policy::{
    ContainersPolicy, ContainersPolicyDocument, Decision, Material, PolicySet, Reason, Settings, Verdict,
};
use sealgate::testing::sigstore::FakeSigstore;
use serde_json::{Value, json};

use crate::fixtures::{data, fixtures, recorded_signatures};

fn policy_of(requirement: &Value) -> PolicySet {
    let text = json!({"default": [{"type": "reject"}], "transports": {"docker": {"": [requirement]}}}).to_string();
    let document = ContainersPolicyDocument::parse(text.as_bytes()).unwrap();
    let mut read = |path: &str| std::fs::read(path).map_err(|error| error.to_string());
    let containers_policy = ContainersPolicy::resolve(document, &mut read).unwrap();
    let settings = Settings { containers_policy: Some(containers_policy), ..Default::default() };
    PolicySet::new(settings).unwrap()
}

/// An image in a folder as the `dir:` transport stores it.
struct Recorded {
    digest: Digest,
    material: Material,
}

impl Recorded {
    fn at(folder: &Path) -> Self {
        let manifest = std::fs::read(folder.join("manifest.json")).unwrap_or_default();
        let candidates = recorded_signatures(folder);
        let signatures = (1..=100).take_while(|number| folder.join(format!("signature-{number}")).exists()).count();
        let other_attachments = signatures - candidates.len();
        let material = Material { candidates, other_attachments, ..Material::default() };
        Self { digest: Digest::sha256(&manifest), material }
    }

    fn verdict(&self, requirement: &Value, image: &str) -> Verdict {
        let image: ImageReference = image.parse().unwrap();
        policy_of(requirement).evaluate(&image, &self.digest, &self.material, now()).unwrap()
    }

    /// The text and reason of the denial.
    fn denied(&self, requirement: &Value, image: &str) -> (String, Reason) {
        let verdict = self.verdict(requirement, image);
        assert_eq!(verdict.decision, Decision::Deny, "{requirement} {image}");
        (verdict.text, verdict.reason)
    }

    fn is_allowed(&self, requirement: &Value, image: &str) -> bool {
        self.verdict(requirement, image).decision == Decision::Allow
    }
}

fn now() -> Timestamp {
    "2026-11-20T00:00:00Z".parse().unwrap()
}

const KEYLESS: &str = "192.168.64.2:5000/cosign-signed/fulcio-rekor-1";

fn keyless() -> (Recorded, Value) {
    let folder = data("fulcio-rekor");
    let requirement = json!({
        "type": "sigstoreSigned",
        "fulcio": {
            "caPath": folder.join("fulcio_v1.crt.pem"),
            "oidcIssuer": "https://github.com/login/oauth",
            "subjectEmail": "mitr@redhat.com",
        },
        "rekorPublicKeyPath": folder.join("rekor.pub"),
        "signedIdentity": {"type": "matchRepository"},
    });
    (Recorded::at(&folder), requirement)
}

#[test]
fn the_real_keyless_image_is_allowed_under_its_real_identity() {
    let (image, requirement) = keyless();
    let verdict = image.verdict(&requirement, &format!("{KEYLESS}:latest"));
    assert_eq!((verdict.decision, verdict.reason), (Decision::Allow, Reason::Verified), "{}", verdict.text);
    assert_eq!(verdict.not_after, None, "the certificate was judged at the log's time");
    assert!(image.is_allowed(&requirement, &format!("{KEYLESS}@{}", image.digest)));
    let mut exact = requirement;
    exact["signedIdentity"] = json!({"type": "exactRepository", "dockerRepository": KEYLESS});
    assert!(image.is_allowed(&exact, "quay.io/moved/elsewhere:1"));
}

#[test]
fn the_real_keyless_image_is_refused_when_any_word_of_the_requirement_is_another() {
    let (image, requirement) = keyless();
    let sigstore = FakeSigstore::from_seed(1, now());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: String| {
        let path: PathBuf = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Value::from(path.to_str().unwrap())
    };
    let with = |pointer: &str, value: Value| {
        let mut other = requirement.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        other
    };
    let asked = format!("{KEYLESS}:latest");

    let email = with("/fulcio/subjectEmail", "someone@redhat.com".into());
    let text = r#"Required email "someone@redhat.com" not found (got ["mitr@redhat.com"])"#.to_owned();
    assert_eq!(image.denied(&email, &asked), (text, Reason::IdentityMismatch));

    let issuer = with("/fulcio/oidcIssuer", "https://accounts.google.com".into());
    let text = r#"Unexpected Fulcio OIDC issuer "https://github.com/login/oauth""#.to_owned();
    assert_eq!(image.denied(&issuer, &asked), (text, Reason::IdentityMismatch));

    let ca = with("/fulcio/caPath", file("ca.pem", sigstore.fulcio_ca_pem()));
    assert!(image.denied(&ca, &asked).0.starts_with("veryfing leaf certificate failed: "));

    let rekor = with("/rekorPublicKeyPath", file("rekor.pub", sigstore.rekor_pem()));
    let (text, reason) = image.denied(&rekor, &asked);
    assert!(text.starts_with("cryptographic signature verification of Rekor SET failed"), "{text}");
    assert_eq!(reason, Reason::NoLogEntry);

    let identity = format!("Signature for identity {KEYLESS:?} is not accepted");
    let elsewhere = "192.168.64.2:5000/cosign-signed/fulcio-rekor-2:latest";
    assert_eq!(image.denied(&requirement, elsewhere), (identity.clone(), Reason::IdentityMismatch));
    let exact = json!({"type": "exactRepository", "dockerRepository": "192.168.64.2:5000/cosign-signed"});
    assert_eq!(image.denied(&with("/signedIdentity", exact), &asked), (identity.clone(), Reason::IdentityMismatch));
    // cosign writes no tag, so the strict default accepts it for no tag.
    let default = with("/signedIdentity", json!({"type": "matchRepoDigestOrExact"}));
    assert_eq!(image.denied(&default, &asked), (identity, Reason::IdentityMismatch));

    assert!(image.is_allowed(&requirement, &asked), "the unchanged requirement still allows it");
}

struct Collection(PathBuf);

impl Collection {
    fn open() -> Option<Self> {
        fixtures().map(Self)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join("containers-image/sigstore").join(name)
    }

    fn image(&self, name: &str) -> Recorded {
        Recorded::at(&self.file(&format!("dir-img-cosign-{name}")))
    }

    fn keyed(&self, key: &str, rekor: bool) -> Value {
        let mut requirement = json!({
            "type": "sigstoreSigned", "keyPath": self.file(key), "signedIdentity": {"type": "matchRepository"},
        });
        if rekor {
            requirement["rekorPublicKeyPath"] = json!(self.file("rekor.pub"));
        }
        requirement
    }

    fn pki(&self) -> Value {
        json!({
            "type": "sigstoreSigned",
            "pki": {
                "caRootsPath": self.file("pki_root_crts.pem"),
                "caIntermediatesPath": self.file("pki_intermediate_crts.pem"),
                "subjectEmail": "qiwan@redhat.com",
                "subjectHostname": "myhost.example.com",
            },
            "signedIdentity": {"type": "matchRepository"},
        })
    }
}

const KEY: &str = "192.168.64.2:5000/cosign-signed/key-1";
const SAMPLE: &str = "192.168.64.2:5000/cosign-signed-single-sample";
const TAGGED: &str = "192.168.64.2:5000/skopeo-signed";

#[test]
fn real_keyed_and_pki_images_are_allowed_as_containers_image_allows_them() {
    let Some(collection) = Collection::open() else { return };
    let rows = [
        ("key-rekor-valid", collection.keyed("cosign2.pub", true), KEY),
        ("key-rekor-valid", collection.keyed("cosign2.pub", false), KEY),
        ("valid", collection.keyed("cosign.pub", false), SAMPLE),
        ("valid-2", collection.keyed("cosign.pub", false), SAMPLE),
        ("valid-with-tag", collection.keyed("cosign.pub", false), TAGGED),
        ("mixed", collection.keyed("cosign.pub", false), SAMPLE),
        ("pki-valid", collection.pki(), "localhost:5000/test"),
    ];
    for (name, requirement, repository) in &rows {
        let image = collection.image(name);
        let verdict = image.verdict(requirement, &format!("{repository}:latest"));
        assert_eq!((verdict.decision, verdict.reason), (Decision::Allow, Reason::Verified), "{name}: {}", verdict.text);
        assert_eq!(verdict.not_after.is_some(), *name == "pki-valid");
        let other = format!("{repository}-other:latest");
        let (text, reason) = image.denied(requirement, &other);
        assert_eq!(reason, Reason::IdentityMismatch, "{name}: {text}");
    }
    println!("{} keyed and pki images judged, each under its own name and another", rows.len());
}

#[test]
fn a_real_signature_with_a_tag_is_good_for_that_tag_under_the_strict_default() {
    let Some(collection) = Collection::open() else { return };
    let image = collection.image("valid-with-tag");
    let mut strict = collection.keyed("cosign.pub", false);
    strict["signedIdentity"] = json!({"type": "matchRepoDigestOrExact"});
    assert!(image.is_allowed(&strict, &format!("{TAGGED}:tag")));
    assert!(image.is_allowed(&strict, &format!("{TAGGED}@{}", image.digest)));
    let (text, reason) = image.denied(&strict, &format!("{TAGGED}:other"));
    assert_eq!(text, format!("Signature for identity \"{TAGGED}:tag\" is not accepted"));
    assert_eq!(reason, Reason::IdentityMismatch);
}

#[test]
fn real_keyed_images_are_refused_under_another_key_and_where_a_log_entry_is_missing() {
    let Some(collection) = Collection::open() else { return };
    let rows = [
        ("key-rekor-valid", collection.keyed("cosign.pub", true), KEY, Reason::WrongKey),
        ("key-rekor-valid", collection.keyed("cosign.pub", false), KEY, Reason::WrongKey),
        ("key-rekor-valid", collection.keyed("some-rsa-key.pub", false), KEY, Reason::WrongKey),
        ("valid", collection.keyed("cosign2.pub", false), SAMPLE, Reason::BadSignature),
        ("valid", collection.keyed("cosign.pub", true), SAMPLE, Reason::NoLogEntry),
        ("valid-2", collection.keyed("cosign.pub", true), SAMPLE, Reason::NoLogEntry),
        ("pki-valid", collection.keyed("cosign.pub", false), "localhost:5000/test", Reason::BadSignature),
        ("valid", collection.pki(), SAMPLE, Reason::BadSignature),
    ];
    for (name, requirement, repository, expected) in rows {
        let (text, reason) = collection.image(name).denied(&requirement, &format!("{repository}:latest"));
        assert_eq!(reason, expected, "{name}: {text}");
    }
}

#[test]
fn a_pki_image_is_refused_for_each_name_that_is_not_in_its_certificate() {
    let Some(collection) = Collection::open() else { return };
    let image = collection.image("pki-valid");
    let rows = [
        ("/pki/subjectEmail", r#"Required email "x@redhat.com" not found (got ["qiwan@redhat.com"])"#, "x@redhat.com"),
        (
            "/pki/subjectHostname",
            "Unexpected subject hostname: x509: certificate is valid for myhost.example.com, not x.example.com",
            "x.example.com",
        ),
    ];
    for (pointer, text, value) in rows {
        let mut requirement = collection.pki();
        *requirement.pointer_mut(pointer).unwrap() = value.into();
        let denied = image.denied(&requirement, "localhost:5000/test:latest");
        assert_eq!(denied, (text.to_owned(), Reason::IdentityMismatch));
    }
}

#[test]
fn a_real_signature_does_not_count_for_a_manifest_that_it_does_not_sign() {
    let Some(collection) = Collection::open() else { return };
    for name in ["modified-manifest", "manifest-digest-error", "no-manifest"] {
        for requirement in [collection.keyed("cosign.pub", false), collection.keyed("cosign2.pub", true)] {
            let (text, _) = collection.image(name).denied(&requirement, &format!("{SAMPLE}:latest"));
            assert!(text.contains("does not match"), "{name}: {text}");
        }
    }
}

#[test]
fn an_attachment_that_is_no_signature_is_counted_in_the_refusal() {
    let Some(collection) = Collection::open() else { return };
    let image = collection.image("other-attachment");
    let text = "A signature was required, but no signature exists \
                (0 non-sigstore signatures, 1 sigstore non-signature attachments)";
    let denied = image.denied(&collection.keyed("cosign.pub", false), &format!("{SAMPLE}:latest"));
    assert_eq!(denied, (text.to_owned(), Reason::NoSignature));
}

#[test]
fn all_derived_forgeries_are_refused_under_the_policy_that_allows_their_originals() {
    let Some(collection) = Collection::open() else { return };
    let mut judged = 0;
    for folder in std::fs::read_dir(collection.0.join("derived")).unwrap() {
        let folder = folder.unwrap().path();
        let expect: Value = serde_json::from_slice(&std::fs::read(folder.join("expect")).unwrap()).unwrap();
        let requirement = match expect["key"].as_str() {
            Some(key) => collection.keyed(key, true),
            None => keyless().1,
        };
        let image = format!("{}:latest", expect["reference"].as_str().unwrap());
        let (text, reason) = Recorded::at(&folder).denied(&requirement, &image);
        println!("{}: {} {text}", folder.file_name().unwrap().display(), reason.as_label());
        judged += 1;
    }
    println!("{judged} derived forgeries judged");
    assert_eq!(judged, 9);
}
