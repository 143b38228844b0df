//! What is admitted and what is refused, through a whole mirror in front of a registry: the verification attacks of the
//! catalogue in `docs/threat-model.md`, by their ids.

mod bytes;
mod material;

use std::time::Duration;

use sealgate::clock::{Clock, ManualClock};
use sealgate::oci::{Algorithm, Digest};
use sealgate::testing::sigstore::{
    FakeKey, FakeSignature, FakeSigstore, Flaw, Identity, key_requirement, signature_image,
};
use sealgate::testing::{Answer, BuiltImage, Content, FakeRegistry, ImageBuilder, TestSealgate};
use serde_json::{Value, json};

const REPOSITORY: &str = "team/app";
const REFERENCE: &str = "quay.io/team/app";
const EMAIL: &str = "dev@corp.com";
const ISSUER: &str = "https://accounts.example.com";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

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
