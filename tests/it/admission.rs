//! What is admitted and what is refused, through a whole mirror in front of a registry: the verification attacks of the
//! catalogue in `docs/threat-model.md`, by their ids.

use std::time::Duration;

use sealgate::clock::{Clock, ManualClock};
use sealgate::oci::{Algorithm, Digest};
use sealgate::testing::sigstore::{
    FakeKey, FakeSignature, FakeSigstore, Flaw, Identity, key_requirement, signature_image,
};
use sealgate::testing::{Answer, BuiltImage, Content, FakeRegistry, Fault, ImageBuilder, TestSealgate};
use serde_json::{Value, json};

const REPOSITORY: &str = "team/app";
const REFERENCE: &str = "quay.io/team/app";
const EMAIL: &str = "dev@corp.com";
const ISSUER: &str = "https://accounts.example.com";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry, who signs, and the time.
struct Scene {
    registry: FakeRegistry,
    sigstore: FakeSigstore,
    key: FakeKey,
    clock: ManualClock,
}

impl Scene {
    async fn new() -> Self {
        // The library compares log times with the machine's clock, so ours starts there.
        let now = Clock::System.now();
        let sigstore = FakeSigstore::from_seed(11, now);
        let key = sigstore.key("team");
        Self { registry: FakeRegistry::start().await, sigstore, key, clock: ManualClock::at(now) }
    }

    /// A mirror that asks this of everything in `quay.io/team` and refuses the rest.
    async fn mirror(&self, requirement: &Value) -> TestSealgate {
        TestSealgate::with_policy(&policy(requirement))
            .upstream("quay.io", self.registry.url())
            .clock(&self.clock)
            .start()
            .await
    }

    async fn keyless_mirror(&self) -> TestSealgate {
        self.mirror(&self.sigstore.fulcio_requirement(EMAIL, ISSUER)).await
    }

    async fn keyed_mirror(&self) -> TestSealgate {
        self.mirror(&key_requirement(&self.key)).await
    }

    /// An image of that seed under that tag.
    fn push(&self, tag: &str, seed: u64) -> BuiltImage {
        let image = ImageBuilder::new(seed).layer(100).build();
        self.registry.put(REPOSITORY, tag, &image);
        image
    }

    fn attach(&self, image: &BuiltImage, signatures: &[FakeSignature]) {
        self.registry.put(REPOSITORY, &signature_tag(&image.digest()), &signature_image(signatures));
    }

    fn keyless(&self, image: &BuiltImage, flaw: Flaw) -> FakeSignature {
        self.sigstore.sign_keyless(REFERENCE, &image.digest(), EMAIL, ISSUER, flaw)
    }

    fn keyed(&self, image: &BuiltImage, flaw: Flaw) -> FakeSignature {
        self.sigstore.sign_unlogged(&self.key, REFERENCE, &image.digest(), flaw)
    }
}

fn policy(requirement: &Value) -> String {
    json!({"default": [{"type": "reject"}], "transports": {"docker": {"quay.io/team": [requirement]}}}).to_string()
}

fn signature_tag(digest: &Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

fn manifest_path(reference: impl std::fmt::Display) -> String {
    format!("/v2/{REFERENCE}/manifests/{reference}")
}

async fn get(mirror: &TestSealgate, reference: impl std::fmt::Display) -> Answer {
    mirror.get(&manifest_path(reference)).await
}

/// It is served, byte for byte, by tag or digest, by GET and HEAD.
async fn assert_served(mirror: &TestSealgate, reference: impl std::fmt::Display, image: &BuiltImage) {
    let answer = get(mirror, &reference).await;
    assert_eq!(answer.status, 200, "{reference}: {}", answer.text());
    assert_eq!(answer.body, image.manifest.bytes);
    assert_eq!(answer.header("docker-content-digest"), Some(image.digest().to_string().as_str()));
    let head = mirror.head(&manifest_path(&reference)).await;
    assert_eq!((head.status, head.header("docker-content-digest")), (200, answer.header("docker-content-digest")));
}

/// It is refused by policy, by GET and HEAD, with nothing that leads a client elsewhere. Returns the reason phrase.
async fn assert_denied(mirror: &TestSealgate, reference: impl std::fmt::Display, reason: &str) -> String {
    let head = mirror.head(&manifest_path(&reference)).await;
    let answer = get(mirror, &reference).await;
    assert_eq!(answer.status, 403, "{reference}: {}", answer.text());
    assert_eq!((head.status, &head.reason), (403, &answer.reason));
    assert_eq!(answer.error_code(), "DENIED");
    let error = &answer.json()["errors"][0];
    assert_eq!(error["detail"]["reason"], reason, "{reference}: {error}");
    assert_eq!(error["message"], answer.reason.as_str());
    assert!(answer.reason.starts_with("SignatureValidationFailed: Source image rejected: "), "{}", answer.reason);
    assert!(answer.reason.len() <= 250 && answer.reason.is_ascii(), "{}", answer.reason);
    for forbidden in ["location", "www-authenticate", "docker-content-digest"] {
        assert_eq!(answer.header(forbidden), None, "{forbidden}");
    }
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.reason
}

// ---- who signed what ----

#[tokio::test]
async fn v01_an_unsigned_image_is_refused_with_its_blobs() {
    let scene = Scene::new().await;
    let mirror = scene.keyless_mirror().await;
    let image = scene.push("1.0", 1);
    let line = assert_denied(&mirror, "1.0", "no_signature").await;
    let expected =
        "SignatureValidationFailed: Source image rejected: A signature was required, but no signature exists";
    assert!(line.starts_with(expected), "{line}");
    assert_denied(&mirror, image.digest(), "no_signature").await;
    for blob in &image.blobs {
        let answer = mirror.get(&format!("/v2/{REFERENCE}/blobs/{}", blob.digest)).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (404, "BLOB_UNKNOWN"));
    }
    assert_eq!(scene.registry.count("*", "*/blobs/*"), 0, "no blob of it was asked of upstream");
    let denied = mirror.metric(r#"sealgate_verdicts_total{decision="deny",reason="no_signature"}"#);
    assert!(denied.unwrap_or_default() >= 1.0, "{denied:?}");
    mirror.stop().await;
}

#[tokio::test]
async fn signed_images_are_served_with_their_blobs() {
    let scene = Scene::new().await;
    let requirements = [
        scene.sigstore.fulcio_requirement(EMAIL, ISSUER),
        scene.sigstore.logged_key_requirement(&scene.key),
        key_requirement(&scene.key),
        scene.sigstore.pki_requirement(EMAIL),
    ];
    let image = scene.push("1.0", 1);
    let identity = Identity::email(EMAIL, ISSUER);
    let signatures = [
        scene.keyless(&image, Flaw::None),
        scene.sigstore.sign_keyed(&scene.key, REFERENCE, &image.digest(), Flaw::None),
        scene.sigstore.sign_pki(REFERENCE, &image.digest(), &identity, Flaw::None),
    ];
    scene.attach(&image, &signatures);
    for requirement in requirements {
        let mirror = scene.mirror(&requirement).await;
        assert_served(&mirror, "1.0", &image).await;
        assert_served(&mirror, image.digest(), &image).await;
        for blob in &image.blobs {
            let answer = mirror.get(&format!("/v2/{REFERENCE}/blobs/{}", blob.digest)).await;
            assert_eq!((answer.status, &answer.body), (200, &blob.bytes));
        }
        mirror.stop().await;
    }
}

#[tokio::test]
async fn v02_a_signature_by_another_key_or_of_another_image_is_refused() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let other_key = scene.sigstore.key("other");

    let by_other = scene.push("by-other", 1);
    let signature = scene.sigstore.sign_unlogged(&other_key, REFERENCE, &by_other.digest(), Flaw::None);
    scene.attach(&by_other, &[signature]);
    assert_denied(&mirror, "by-other", "bad_signature").await;

    let other_digest = scene.push("other-digest", 2);
    scene.attach(&other_digest, &[scene.keyed(&other_digest, Flaw::OtherDigest)]);
    let line = assert_denied(&mirror, "other-digest", "bad_signature").await;
    assert!(line.contains("Signature for digest sha256:"), "{line}");

    let (good, copied) = (scene.push("good", 3), scene.push("copied", 4));
    let signature = scene.keyed(&good, Flaw::None);
    scene.attach(&good, std::slice::from_ref(&signature));
    scene.attach(&copied, &[signature]);
    assert_denied(&mirror, "copied", "bad_signature").await;
    assert_served(&mirror, "good", &good).await;
    mirror.stop().await;
}

#[tokio::test]
async fn v03_an_ambiguous_payload_is_refused_though_it_is_signed() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    for (seed, flaw) in (1..).zip([Flaw::DuplicateKey, Flaw::FoldedKey, Flaw::UnknownField, Flaw::OtherType]) {
        let tag = format!("{flaw:?}");
        let image = scene.push(&tag, seed);
        scene.attach(&image, &[scene.keyed(&image, flaw)]);
        assert_denied(&mirror, &tag, "bad_signature").await;
    }
    mirror.stop().await;
}

#[tokio::test]
async fn v04_a_signature_for_one_repository_is_refused_in_another() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let image = scene.push("1.0", 1);
    let signature = scene.sigstore.sign_unlogged(&scene.key, "quay.io/team/other", &image.digest(), Flaw::None);
    scene.attach(&image, &[signature]);
    let line = assert_denied(&mirror, "1.0", "identity_mismatch").await;
    assert!(line.contains(r#"Signature for identity "quay.io/team/other" is not accepted"#), "{line}");
    mirror.stop().await;
}

// ---- the bytes that are judged are the bytes that are served ----

#[tokio::test]
async fn v05_an_ambiguous_manifest_is_refused_though_it_is_signed() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let good = String::from_utf8(ImageBuilder::new(1).layer(10).build().manifest.bytes.to_vec()).unwrap();
    let with = |member: &str| good.replacen('{', &format!("{{{member},"), 1);
    let rows = [
        ("both", with(r#""manifests":[]"#), OCI_MANIFEST),
        ("folded", with(r#""Manifests":[]"#), OCI_MANIFEST),
        ("long-s", with("\"manifest\u{17f}\":[]"), OCI_MANIFEST),
        ("twice", with(r#""layers":[]"#), OCI_MANIFEST),
        ("config-and-manifests", with(r#""manifests":[{}]"#).replace("\"layers\"", "\"x\""), OCI_MANIFEST),
        ("another-type", good.clone(), OCI_INDEX),
        ("embedded-data", good.replace("\"size\":10", "\"size\":10,\"data\":\"AAAA\""), OCI_MANIFEST),
    ];
    for (tag, bytes, media_type) in rows {
        let manifest = Content::new(Algorithm::Sha256, media_type, bytes);
        scene.registry.put_manifest(REPOSITORY, &manifest);
        scene.registry.tag(REPOSITORY, tag, manifest.digest);
        let signature = scene.sigstore.sign_unlogged(&scene.key, REFERENCE, &manifest.digest, Flaw::None);
        scene.registry.put(REPOSITORY, &signature_tag(&manifest.digest), &signature_image(&[signature]));
        for reference in [tag.to_owned(), manifest.digest.to_string()] {
            let answer = get(&mirror, &reference).await;
            assert_eq!(answer.status, 502, "{tag}: {}", answer.text());
            assert_eq!(answer.error_code(), "MANIFEST_INVALID", "{tag}");
        }
    }
    mirror.stop().await;
}

#[tokio::test]
async fn v06_the_same_bytes_keep_their_type() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    // Without `mediaType` the header alone says what it is.
    let image = ImageBuilder::new(1).layer(10).build();
    let text = String::from_utf8(image.manifest.bytes.to_vec()).unwrap();
    let untyped = text.replacen(&format!("\"mediaType\":\"{OCI_MANIFEST}\","), "", 1);
    assert_ne!(untyped, text);
    let manifest = Content::new(Algorithm::Sha256, OCI_MANIFEST, untyped);
    scene.registry.put_manifest(REPOSITORY, &manifest);
    scene.registry.tag(REPOSITORY, "1.0", manifest.digest);
    let signature = scene.sigstore.sign_unlogged(&scene.key, REFERENCE, &manifest.digest, Flaw::None);
    scene.registry.put(REPOSITORY, &signature_tag(&manifest.digest), &signature_image(&[signature]));

    let first = get(&mirror, "1.0").await;
    assert_eq!((first.status, first.header("content-type")), (200, Some(OCI_MANIFEST)));
    let as_index = Fault::on(&format!("*/manifests/{}", manifest.digest)).content_type(OCI_INDEX);
    scene.registry.fault(as_index);
    scene.registry.fault(Fault::on("*/manifests/1.0").content_type(OCI_INDEX));
    for reference in ["1.0".to_owned(), manifest.digest.to_string()] {
        scene.clock.advance(Duration::from_mins(10));
        let again = get(&mirror, &reference).await;
        assert_eq!((again.status, again.header("content-type")), (200, Some(OCI_MANIFEST)), "{reference}");
        assert_eq!(again.body, first.body);
    }
    mirror.stop().await;
}

#[tokio::test]
async fn v07_the_bytes_that_were_judged_are_served_whatever_upstream_answers_next() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let image = scene.push("1.0", 1);
    scene.attach(&image, &[scene.keyed(&image, Flaw::None)]);
    let evil = ImageBuilder::new(66).layer(100).build();
    let digest_path = format!("*/manifests/{}", image.digest());
    // The first GET of tag or digest is honest, every later one is not.
    for path in ["*/manifests/1.0".to_owned(), digest_path.clone()] {
        scene.registry.fault(Fault::on(&path).get().after(1).body(evil.manifest.bytes.clone()));
    }
    assert_served(&mirror, "1.0", &image).await;
    assert_served(&mirror, image.digest(), &image).await;
    assert_served(&mirror, "1.0", &image).await;
    let fetched = scene.registry.count("GET", &digest_path) + scene.registry.count("GET", "*/manifests/1.0");
    assert_eq!(fetched, 1, "upstream saw one GET of the manifest");
    mirror.stop().await;
}

#[tokio::test]
async fn v07_bytes_that_are_not_the_digest_asked_for_are_never_served() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let image = scene.push("1.0", 1);
    let evil = ImageBuilder::new(66).layer(100).build();
    for image in [&image, &evil] {
        scene.attach(image, &[scene.keyed(image, Flaw::None)]);
    }
    scene.registry.fault(Fault::on(&format!("*/manifests/{}", image.digest())).get().body(evil.manifest.bytes.clone()));
    let answer = get(&mirror, image.digest()).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (502, "MANIFEST_INVALID"), "{}", answer.text());
    // By tag: HEAD names one digest and GET gives another's bytes.
    scene.registry.fault(Fault::on("*/manifests/1.0").get().body(evil.manifest.bytes.clone()));
    assert_eq!(get(&mirror, "1.0").await.status, 502);
    scene.registry.heal();
    assert_served(&mirror, "1.0", &image).await;
    mirror.stop().await;
}

// ---- the log, times, chains, identities ----

#[tokio::test]
async fn v08_v10_v11_v14_a_flawed_keyless_signature_is_refused_for_its_reason() {
    let scene = Scene::new().await;
    let mirror = scene.keyless_mirror().await;
    let rows = [
        (Flaw::UnrelatedEntry, "no_log_entry"),        // V-08
        (Flaw::EntryOfOtherPayload, "no_log_entry"),   // V-08
        (Flaw::NoLogEntry, "no_log_entry"),            // V-10
        (Flaw::OtherLog, "no_log_entry"),              // V-10
        (Flaw::IntegratedAfterCertificate, "expired"), // V-11
        (Flaw::IntegratedBeforeCertificate, "expired"),
        (Flaw::IntegratedInFuture, "expired"),
        (Flaw::ExpiredIntermediate, "expired"), // V-14
        (Flaw::RootAsLeaf, "bad_signature"),
        (Flaw::NoChain, "bad_signature"),
        (Flaw::LongChain, "bad_signature"),
        (Flaw::OtherCa, "bad_signature"),
        (Flaw::NoCertificate, "bad_signature"),
        (Flaw::CorruptSignature, "bad_signature"),
    ];
    for (seed, (flaw, reason)) in (1..).zip(rows) {
        let tag = format!("{flaw:?}");
        let image = scene.push(&tag, seed);
        scene.attach(&image, &[scene.keyless(&image, flaw)]);
        let line = assert_denied(&mirror, &tag, reason).await;
        println!("{flaw:?}: {line}");
    }
    mirror.stop().await;
}

#[tokio::test]
async fn v10_a_missing_log_entry_is_refused_where_the_policy_names_rekor_keys() {
    let scene = Scene::new().await;
    let mirror = scene.mirror(&scene.sigstore.logged_key_requirement(&scene.key)).await;
    let (unlogged, logged) = (scene.push("unlogged", 1), scene.push("logged", 2));
    scene.attach(&unlogged, &[scene.keyed(&unlogged, Flaw::None)]);
    let signature = scene.sigstore.sign_keyed(&scene.key, REFERENCE, &logged.digest(), Flaw::None);
    scene.attach(&logged, &[signature]);
    let line = assert_denied(&mirror, "unlogged", "no_log_entry").await;
    assert!(line.contains("missing dev.sigstore.cosign/bundle annotation"), "{line}");
    assert_served(&mirror, "logged", &logged).await;

    // A keyless policy without log keys is refused when it is loaded, and the old one stays in force.
    let mut without = scene.sigstore.fulcio_requirement(EMAIL, ISSUER);
    without.as_object_mut().unwrap().remove("rekorPublicKeyData");
    mirror.write_policy(&policy(&without));
    assert!(mirror.reload().await.is_err());
    assert_served(&mirror, "logged", &logged).await;
    mirror.stop().await;
}

#[tokio::test]
async fn v15_a_certificate_of_somebody_else_is_refused() {
    let scene = Scene::new().await;
    let mirror = scene.keyless_mirror().await;
    let email = |email: &str| Identity::email(email, ISSUER);
    let rows = [
        email("attacker+dev@corp.com.evil.io"),
        email("xdev@corp.com"),
        email("dev@corp.com.evil.io"),
        email("d3v@corp.com"),
        Identity::uri("mailto:dev@corp.com", ISSUER),
        Identity { issuer: None, ..email(EMAIL) },
        Identity::email(EMAIL, "https://accounts.example.com/"),
        Identity::email(EMAIL, "https://accounts.evil.com"),
    ];
    for (seed, identity) in (1..).zip(rows) {
        let tag = format!("t{seed}");
        let image = scene.push(&tag, seed);
        scene.attach(&image, &[scene.sigstore.sign_as(REFERENCE, &image.digest(), &identity, Flaw::None)]);
        let line = assert_denied(&mirror, &tag, "identity_mismatch").await;
        println!("{identity:?}: {line}");
    }
    mirror.stop().await;
}

// ---- how many signatures, and where ----

#[tokio::test]
async fn v19_a_good_signature_counts_after_64_bad_ones() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let image = scene.push("1.0", 1);
    let mut signatures: Vec<FakeSignature> = (0..64)
        .map(|number| {
            let key = scene.sigstore.key(&format!("other {number}"));
            scene.sigstore.sign_unlogged(&key, &format!("{REFERENCE}:{number}"), &image.digest(), Flaw::None)
        })
        .collect();
    signatures.push(scene.keyed(&image, Flaw::None));
    scene.attach(&image, &signatures);
    assert_served(&mirror, "1.0", &image).await;

    // Without the good one there are as many as are looked at, and one more is too many.
    let unsigned = scene.push("2.0", 2);
    scene.attach(&unsigned, &signatures[..64]);
    assert_denied(&mirror, "2.0", "bad_signature").await;
    let crowded = scene.push("3.0", 3);
    let last = scene.sigstore.sign_unlogged(&scene.sigstore.key("65"), REFERENCE, &crowded.digest(), Flaw::None);
    scene.attach(&crowded, &[&signatures[..64], &[last]].concat());
    assert_denied(&mirror, "3.0", "too_many_signatures").await;
    mirror.stop().await;
}

#[tokio::test]
async fn v20_a_payload_that_is_not_what_its_descriptor_says_does_not_count() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;

    let image = scene.push("digest", 1);
    let signature = scene.keyed(&image, Flaw::None);
    scene.attach(&image, std::slice::from_ref(&signature));
    let payload = Digest::sha256(&signature.payload);
    scene.registry.fault(Fault::on(&format!("*/blobs/{payload}")).wrong_bytes());
    assert_ne!(get(&mirror, "digest").await.status, 200);

    let image = scene.push("size", 2);
    let built = signature_image(&[scene.keyed(&image, Flaw::None)]);
    let size = built.blobs[1].bytes.len();
    let lie = String::from_utf8(built.manifest.bytes.to_vec()).unwrap();
    let lie = lie.replace(&format!("\"size\":{size}"), &format!("\"size\":{}", size + 1));
    for blob in &built.blobs {
        scene.registry.put_blob(REPOSITORY, blob.bytes.clone());
    }
    let lie = Content::new(Algorithm::Sha256, OCI_MANIFEST, lie);
    scene.registry.put_manifest(REPOSITORY, &lie);
    scene.registry.tag(REPOSITORY, &signature_tag(&image.digest()), lie.digest);
    assert_ne!(get(&mirror, "size").await.status, 200);

    // Beside a good one the bad one does no harm.
    let image = scene.push("both", 3);
    let spoilt = scene.sigstore.sign_unlogged(&scene.key, "quay.io/team/x", &image.digest(), Flaw::None);
    scene.registry.fault(Fault::on(&format!("*/blobs/{}", Digest::sha256(&spoilt.payload))).wrong_bytes());
    scene.attach(&image, &[spoilt, scene.keyed(&image, Flaw::None)]);
    assert_served(&mirror, "both", &image).await;
    mirror.stop().await;
}

#[tokio::test]
async fn v21_a_signature_tag_that_holds_something_else_is_no_signature() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;

    // An index, of the good signature and of the image itself.
    let image = scene.push("index", 1);
    let signatures = signature_image(&[scene.keyed(&image, Flaw::None)]);
    let index = ImageBuilder::index([signatures, image.clone()]).build();
    scene.registry.put(REPOSITORY, &signature_tag(&image.digest()), &index);
    assert_denied(&mirror, "index", "no_signature").await;

    // The tag points back at the image that it should sign.
    let image = scene.push("itself", 2);
    scene.registry.tag(REPOSITORY, &signature_tag(&image.digest()), image.digest());
    assert_denied(&mirror, "itself", "no_signature").await;

    // Two images, each at the other's signature tag.
    let (one, two) = (scene.push("one", 3), scene.push("two", 4));
    scene.registry.tag(REPOSITORY, &signature_tag(&one.digest()), two.digest());
    scene.registry.tag(REPOSITORY, &signature_tag(&two.digest()), one.digest());
    assert_denied(&mirror, "one", "no_signature").await;
    assert_denied(&mirror, "two", "no_signature").await;

    // What the signature manifest calls its subject decides nothing; what was signed does.
    for (seed, tag, flaw) in [(5, "signed", Flaw::None), (6, "unsigned", Flaw::OtherDigest)] {
        let image = scene.push(tag, seed);
        let signature = scene.keyed(&image, flaw);
        let annotations: Vec<(&str, &str)> =
            signature.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let built = ImageBuilder::new(0)
            .layer_of("application/vnd.dev.cosign.simplesigning.v1+json", signature.payload.clone(), &annotations)
            .subject(two.descriptor())
            .build();
        scene.registry.put(REPOSITORY, &signature_tag(&image.digest()), &built);
        match flaw {
            Flaw::None => assert_served(&mirror, tag, &image).await,
            _ => drop(assert_denied(&mirror, tag, "bad_signature").await),
        }
    }
    mirror.stop().await;
}

#[tokio::test]
async fn v27_signature_artefacts_of_a_refused_image_pass_and_images_in_their_place_do_not() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let image = scene.push("1.0", 1);
    let signatures = signature_image(&[scene.keyed(&image, Flaw::OtherDigest)]);
    let tag = signature_tag(&image.digest());
    scene.registry.put(REPOSITORY, &tag, &signatures);
    assert_denied(&mirror, "1.0", "bad_signature").await;
    assert_served(&mirror, &tag, &signatures).await;
    assert_served(&mirror, signatures.digest(), &signatures).await;
    for blob in &signatures.blobs {
        let answer = mirror.get(&format!("/v2/{REFERENCE}/blobs/{}", blob.digest)).await;
        assert_eq!((answer.status, &answer.body), (200, &blob.bytes));
    }

    let attestation = ImageBuilder::new(0)
        .layer_of("application/vnd.dsse.envelope.v1+json", &br#"{"payload":"","signatures":[]}"#[..], &[])
        .build();
    let attestation_tag = format!("sha256-{}.att", image.digest().hex());
    scene.registry.put(REPOSITORY, &attestation_tag, &attestation);
    assert_served(&mirror, &attestation_tag, &attestation).await;

    let referrer = ImageBuilder::artefact("application/spdx+json")
        .layer_of("application/spdx+json", &b"{}"[..], &[])
        .subject(image.descriptor())
        .build();
    scene.registry.put_untagged(REPOSITORY, &referrer);
    assert_served(&mirror, referrer.digest(), &referrer).await;

    // What can be run stays behind the gate, wherever it lies and whatever its layers are called.
    let disguised =
        ImageBuilder::new(9).layer_of("application/vnd.dev.cosign.simplesigning.v1+json", vec![0_u8; 512], &[]).build();
    for (seed, runnable) in [(7, ImageBuilder::new(7).layer(100).build()), (8, disguised)] {
        let subject = ImageBuilder::new(1000 + seed).layer(10).build();
        for suffix in ["sig", "att"] {
            let tag = format!("sha256-{}.{suffix}", subject.digest().hex());
            scene.registry.put(REPOSITORY, &tag, &runnable);
            assert_denied(&mirror, &tag, "no_signature").await;
        }
        assert_denied(&mirror, runnable.digest(), "no_signature").await;
    }
    mirror.stop().await;
}

#[tokio::test]
async fn v29_signatures_of_absurd_size_are_refused_and_others_are_judged_meanwhile() {
    let scene = Scene::new().await;
    let mirror = scene.keyless_mirror().await;
    let (absurd, good) = (scene.push("absurd", 1), scene.push("good", 2));
    scene.attach(&good, &[scene.keyless(&good, Flaw::None)]);
    // 3 MiB of annotations in all: a deep one, a long one, many certificates.
    let mut signatures: Vec<FakeSignature> =
        ["dev.sigstore.cosign/bundle", "dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain"]
            .into_iter()
            .map(|annotation| {
                let mut signature = scene.keyless(&absurd, Flaw::None);
                let text = signature.annotations.get_mut(annotation).unwrap();
                let copies = 1024 * 1024 / text.len();
                *text = if annotation.ends_with("bundle") { "[".repeat(1024 * 1024) } else { text.repeat(copies) };
                signature
            })
            .collect();
    // Each has a payload of its own, so that they are different layers.
    for (number, signature) in signatures.iter_mut().enumerate() {
        signature.payload.extend(std::iter::repeat_n(b' ', number));
    }
    scene.attach(&absurd, &signatures);
    let (refused, served) = tokio::join!(get(&mirror, "absurd"), get(&mirror, "good"));
    assert_eq!((refused.status, served.status), (403, 200), "{} {}", refused.text(), served.text());
    mirror.stop().await;
}

// ---- digests by another algorithm, and time ----

#[tokio::test]
async fn v31_a_digest_by_sha512_is_judged_for_itself() {
    let scene = Scene::new().await;
    let image = scene.push("1.0", 1);
    scene.attach(&image, &[scene.keyed(&image, Flaw::None)]);
    let long = Content::new(Algorithm::Sha512, OCI_MANIFEST, image.manifest.bytes.clone());
    scene.registry.put_manifest(REPOSITORY, &long);

    let mirror = scene.keyed_mirror().await;
    assert_served(&mirror, "1.0", &image).await;
    assert_denied(&mirror, long.digest, "unsupported_digest").await;
    assert_served(&mirror, image.digest(), &image).await;
    mirror.stop().await;

    let mirror = scene.mirror(&json!({"type": "insecureAcceptAnything"})).await;
    let answer = get(&mirror, long.digest).await;
    assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes));
    mirror.stop().await;
}

#[tokio::test]
async fn v32_a_signature_that_comes_later_is_seen_when_the_denial_ends() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let image = scene.push("1.0", 1);
    assert_denied(&mirror, "1.0", "no_signature").await;
    scene.attach(&image, &[scene.keyed(&image, Flaw::None)]);
    scene.clock.advance(Duration::from_secs(59));
    assert_denied(&mirror, "1.0", "no_signature").await;
    scene.clock.advance(Duration::from_secs(2));
    assert_served(&mirror, "1.0", &image).await;
    mirror.stop().await;
}

#[tokio::test]
async fn a_moved_tag_is_verified_again() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let signed = scene.push("1.0", 1);
    scene.attach(&signed, &[scene.keyed(&signed, Flaw::None)]);
    assert_served(&mirror, "1.0", &signed).await;
    scene.push("1.0", 2);
    scene.clock.advance(Duration::from_mins(2));
    assert_denied(&mirror, "1.0", "no_signature").await;
    assert_served(&mirror, signed.digest(), &signed).await;
    mirror.stop().await;
}
