//! Audit mode keeps every signature that verifies, whoever made it and wherever it lies; no answer waits for that or depends on it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealgate::clock::{Clock, ManualClock};
use sealgate::limits::DENIED_MATERIAL_BYTES_MAX;
use sealgate::testing::http::Answer;
use sealgate::testing::openpgp::{FakeOpenPgpKey, OpenPgpFlaw};
use sealgate::testing::sigstore::{FakeSigstore, Flaw, Identity};
use sealgate::testing::{
    ACCEPT_ANYTHING, BuiltImage, FakeRegistry, Fault, ImageBuilder, TestSealgate, attach_attestations, attach_bundles,
    attach_signatures, put_lookaside,
};
use serde_json::{Value, json};

const REPOSITORY: &str = "team/app";
const REFERENCE: &str = "registry.test/team/app";
const ISSUER: &str = "https://issuer.test";
const WANTED: &str = "wanted@corp.test";

/// A mirror in audit mode whose policy needs cosign's `.sig` alone, by [`WANTED`].
struct Scene {
    registry: FakeRegistry,
    sigstore: FakeSigstore,
    holder: FakeOpenPgpKey,
    clock: ManualClock,
    mirror: TestSealgate,
}

impl Scene {
    async fn new(mode: &str) -> Self {
        let now = Clock::System.now();
        println!("seed 23, now {now}");
        let (sigstore, clock) = (FakeSigstore::from_seed(23, now), ManualClock::at(now));
        let registry = FakeRegistry::start().await;
        let authority = json!({
            "signatureFormat": "legacy",
            "keyless": {
                "url": "https://fulcio.sigstore.dev",
                "identities": [{"issuer": ISSUER, "subject": WANTED}],
            },
            "ctlog": {"url": "https://rekor.sigstore.dev"},
        });
        let policy = json!({
            "apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": "signed"},
            "spec": {"images": [{"glob": "**"}], "authorities": [authority]},
        });
        let lookaside = format!("docker: {{registry.test: {{lookaside: '{}'}}}}", registry.lookaside_url());
        let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING)
            .upstream("registry.test", registry.url())
            .file("cip.yaml", policy.to_string())
            .file("trusted_root.json", sigstore.trusted_root_json())
            .file("registries.d/a.yaml", lookaside)
            .set("policy.cluster_image_policies", vec![toml::Value::from("cip.yaml")])
            .set("policy.trusted_root", "trusted_root.json")
            .set("policy.registries_d", "registries.d")
            .set("policy.mode", mode)
            .clock(&clock)
            .start()
            .await;
        Self { registry, sigstore, holder: FakeOpenPgpKey::from_seed(23, "vendor", now), clock, mirror }
    }

    /// An image with one signature in each place, each by somebody else; that in `.sig` perhaps by the one who is wanted.
    fn image(&self, signer: &str) -> BuiltImage {
        let image = ImageBuilder::new(1).layer(1000).build();
        self.registry.put_untagged(REPOSITORY, &image);
        let digest = image.digest();
        let signature = self.sigstore.sign_keyless(REFERENCE, &digest, signer, ISSUER, Flaw::None);
        attach_signatures(&self.registry, REPOSITORY, &digest, &[signature]);
        let by = |email: &str| self.sigstore.bundle_by(&Identity::email(email, ISSUER), &digest);
        attach_bundles(&self.registry, REPOSITORY, &image.manifest, &[by("bundle@corp.test").build()]);
        let attested = by("attests@corp.test").predicate("https://slsa.dev/provenance/v1", json!({}));
        attach_attestations(&self.registry, REPOSITORY, &digest, &[attested.build_attestation()]);
        let openpgp = self.holder.sign(&format!("{REFERENCE}:1"), &digest, OpenPgpFlaw::None);
        put_lookaside(&self.registry, REPOSITORY, &digest, &[openpgp]);
        image
    }

    async fn pull(&self, image: &BuiltImage) -> Answer {
        self.mirror.get(&format!("/v2/{REPOSITORY}/manifests/{}", image.digest())).await
    }

    /// The record of the verdict that the answer names, once who signed has been found out.
    async fn record(&self, answer: &Answer) -> Value {
        let stated = answer.header("sealgate-verdict").unwrap().to_owned();
        let id = stated.split("id=").nth(1).unwrap().to_owned();
        for _ in 0..1000 {
            let record = self.mirror.admin_get(&format!("/api/v1/verdicts/{id}")).await.json();
            if record["evidence"].get("not_reported").is_some() {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no report on {stated}");
    }
}

fn subjects(record: &Value) -> Vec<&str> {
    let signers = record["evidence"]["signers"].as_array().unwrap();
    signers.iter().map(|signer| signer["signer"]["subjects"][0].as_str().unwrap()).collect()
}

fn texts<'a>(record: &'a Value, list: &str, field: &str) -> Vec<&'a str> {
    record["evidence"][list].as_array().unwrap().iter().map(|one| one[field].as_str().unwrap()).collect()
}

#[tokio::test]
async fn audit_mode_keeps_every_signature_of_every_place_whatever_the_policy_looks_at() {
    for (signer, decision) in [(WANTED, "allow"), ("other@corp.test", "deny")] {
        let scene = Scene::new("audit").await;
        let image = scene.image(signer);
        let answer = scene.pull(&image).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let record = scene.record(&answer).await;
        assert_eq!(record["decision"], decision);
        assert_eq!(subjects(&record), [signer, "attests@corp.test", "bundle@corp.test"]);
        // Nobody has its key; it says whose it is.
        assert_eq!(texts(&record, "other_signatures", "openpgp"), [scene.holder.fingerprint()]);
        assert_eq!(record["evidence"]["not_reported"], json!([]));
        // What they lie in is kept, so that it can be told what another policy would say.
        assert_eq!(record["material"].as_array().unwrap().len(), 3, "{record}");

        // A warm answer looks for nothing.
        let asked = scene.registry.count("*", "*");
        assert_eq!(scene.pull(&image).await.status, 200);
        assert_eq!(scene.registry.count("*", "*"), asked);
        scene.mirror.stop().await;
    }
}

#[tokio::test]
async fn whatever_fails_that_only_the_report_looks_at_the_decision_stands_and_the_record_says_what_is_missing() {
    for (path, left) in [
        ("*/referrers/*", vec![WANTED, "attests@corp.test"]),
        ("*.att", vec![WANTED, "bundle@corp.test"]),
        ("/lookaside/*", vec![WANTED, "attests@corp.test", "bundle@corp.test"]),
    ] {
        for fault in [Fault::on(path).status(500), Fault::on(path).reset(), Fault::on(path).status(403)] {
            let scene = Scene::new("audit").await;
            scene.registry.fault(fault.clone());
            let image = scene.image(WANTED);
            let answer = scene.pull(&image).await;
            assert_eq!(answer.status, 200, "{fault:?}: {}", answer.text());
            assert!(answer.header("sealgate-verdict").unwrap().starts_with("allow"), "{fault:?}");
            let record = scene.record(&answer).await;
            assert_eq!((&record["decision"], &record["reason"]), (&json!("allow"), &json!("verified")), "{fault:?}");
            assert_eq!(subjects(&record), left, "{fault:?}");
            assert_eq!(texts(&record, "not_reported", "why").len(), 1, "{fault:?}: {record}");
            scene.mirror.stop().await;
        }
    }
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_report() {
    let scene = Scene::new("audit").await;
    // As for ever.
    scene.registry.fault(Fault::on("*/referrers/*").delay(Duration::from_secs(600)));
    let image = scene.image(WANTED);
    let began = std::time::Instant::now();
    assert_eq!(scene.pull(&image).await.status, 200);
    let took = began.elapsed();
    assert!(took < sealgate::limits::REPORT_DISCOVERY_BUDGET, "{took:?}");
    scene.mirror.stop().await;
}

#[tokio::test]
async fn enforcing_looks_for_nothing_that_no_decision_needs() {
    let scene = Scene::new("enforce").await;
    let image = scene.image(WANTED);
    assert_eq!(scene.pull(&image).await.status, 200);
    for path in ["*/referrers/*", "*.att", "/lookaside/*"] {
        assert_eq!(scene.registry.count("*", path), 0, "{path}");
    }
    scene.mirror.stop().await;
}

#[tokio::test]
async fn each_verdict_has_its_report_also_when_it_is_reached_again() {
    let scene = Scene::new("audit").await;
    let image = scene.image("other@corp.test");
    let first = scene.record(&scene.pull(&image).await).await;
    assert_eq!(subjects(&first).len(), 3);
    let digest = image.digest();
    let by = scene.sigstore.bundle_by(&Identity::email("later@corp.test", ISSUER), &digest).build();
    attach_bundles(&scene.registry, REPOSITORY, &image.manifest, &[by]);
    scene.clock.advance(Duration::from_secs(61));
    let answer = scene.pull(&image).await;
    let mut record = scene.record(&answer).await;
    for _ in 0..500 {
        if subjects(&record).contains(&"later@corp.test") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        record = scene.record(&answer).await;
    }
    assert_eq!(subjects(&record).len(), 4, "{record}");
    scene.mirror.stop().await;
}

/// The bound is on all that a denial would keep: what it rests on, and what only the report found.
#[tokio::test]
async fn spam_beside_a_denied_image_is_reported_and_not_kept() {
    let scene = Scene::new("audit").await;
    let image = scene.image("other@corp.test");
    let digest = image.digest();
    let long = STANDARD.encode(vec![7; usize::try_from(DENIED_MATERIAL_BYTES_MAX).unwrap()]);
    let spam = scene.sigstore.bundle_by(&Identity::email("spam@corp.test", ISSUER), &digest);
    let spam = spam.predicate("https://spam.test/v1", json!({ "long": long })).build();
    attach_bundles(&scene.registry, REPOSITORY, &image.manifest, &[spam]);
    let record = scene.record(&scene.pull(&image).await).await;
    assert!(subjects(&record).contains(&"spam@corp.test"), "{record}");
    assert_eq!(record["material"].as_array().unwrap().len(), 1, "what the decision rests on is small enough: {record}");
    scene.mirror.stop().await;
}
