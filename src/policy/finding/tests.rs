//! Findings of cosign signatures: each made once, and told apart.

use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::policy::{ContainersPolicy, ContainersPolicyDocument, Decision, Material, PolicySet, Settings, Verdict};
use crate::testing::sigstore::{FakeKey, FakeSignature, FakeSigstore, Flaw, key_requirement};
use crate::verify::SigstoreTrust;

const APP: &str = "quay.io/team/app";
const ISSUER: &str = "https://issuer.example";

struct Scene {
    sigstore: FakeSigstore,
    now: Timestamp,
}

impl Scene {
    fn new() -> Self {
        let now = Clock::System.now();
        Self { sigstore: FakeSigstore::from_seed(7, now), now }
    }

    fn key(&self, name: &str) -> FakeKey {
        self.sigstore.key(name)
    }

    /// The verdict of a policy with that requirement for the app, and another for another scope.
    fn decide(&self, app: &Value, other: &Value, signatures: &[FakeSignature]) -> Verdict {
        let scopes = json!({ APP: [app], "quay.io/team/old": [other] });
        let document = json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}});
        let document = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
        let policy = ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap();
        let root = SigstoreRoot::from_json(self.sigstore.trusted_root_json().as_bytes()).unwrap();
        let settings = Settings { containers_policy: Some(policy), trust_root: Some(root), ..Settings::default() };
        let candidates = signatures.iter().map(FakeSignature::material).collect();
        let material = Material { candidates, ..Material::default() };
        let image = format!("{APP}:1").parse().unwrap();
        let policy = PolicySet::new(settings).unwrap();
        let verdict = policy.evaluate(&image, &Digest::sha256(b"manifest"), &material, self.now).unwrap();
        assert_eq!(verdict.decision, Decision::Deny);
        verdict
    }

    fn unlogged(&self, key: &str) -> FakeSignature {
        self.sigstore.sign_unlogged(&self.key(key), APP, &Digest::sha256(b"manifest"), Flaw::None)
    }

    fn logged(&self, key: &str) -> FakeSignature {
        self.sigstore.sign_keyed(&self.key(key), APP, &Digest::sha256(b"manifest"), Flaw::None)
    }

    fn keyless(&self, email: &str, flaw: Flaw) -> FakeSignature {
        self.sigstore.sign_keyless(APP, &Digest::sha256(b"manifest"), email, ISSUER, flaw)
    }
}

fn finding(verdict: &Verdict) -> &Value {
    &verdict.evidence.0["requirements"][0]["candidates"][0]["finding"]
}

#[test]
fn no_signature_none_that_matches_a_wrong_key_and_a_rotated_one_are_told_apart() {
    let scene = Scene::new();
    let (new, other) = (key_requirement(&scene.key("new")), key_requirement(&scene.key("old")));
    let fingerprint = |name: &str| scene.key(name).fingerprint().to_string();

    let none = scene.decide(&new, &other, &[]);
    assert_eq!(none.reason, Reason::NoSignature);

    // Nothing says whose key it is.
    let unknown = scene.decide(&new, &other, &[scene.unlogged("strange")]);
    assert_eq!((unknown.reason, finding(&unknown)), (Reason::BadSignature, &Value::Null));

    // Its log entry names the key.
    for requirement in [&new, &scene.sigstore.logged_key_requirement(&scene.key("new"))] {
        let wrong = scene.decide(requirement, &other, &[scene.logged("strange")]);
        assert_eq!(wrong.reason, Reason::WrongKey);
        let told = json!({
            "kind": "wrong_key",
            "found": fingerprint("strange"),
            "expected": [fingerprint("new")],
            "text": format!("wrong key: found {}, expected {}", fingerprint("strange"), fingerprint("new")),
        });
        assert_eq!(finding(&wrong), &told);
    }

    // The policy lists the key for another scope.
    for signature in [scene.unlogged("old"), scene.logged("old")] {
        let rotated = scene.decide(&new, &other, &[signature]);
        assert_eq!(rotated.reason, Reason::RotatedKey);
        assert_eq!(finding(&rotated)["found"], fingerprint("old"));
        assert_eq!(finding(&rotated)["listed"], json!([r#"transports.docker["quay.io/team/old"]"#]));
    }
    // containers/image's text stays first.
    let text = "cryptographic signature verification failed: invalid signature";
    assert_eq!(scene.decide(&new, &other, &[scene.unlogged("old")]).text, text);
}

#[test]
fn a_wrong_identity_a_missing_log_entry_and_wrong_times_are_told_apart() {
    let scene = Scene::new();
    let wanted = scene.sigstore.fulcio_requirement("dev@example.com", ISSUER);
    let other = key_requirement(&scene.key("old"));
    let decide = |signature| scene.decide(&wanted, &other, &[signature]);

    let eve = decide(scene.keyless("eve@example.com", Flaw::None));
    assert_eq!(eve.reason, Reason::IdentityMismatch);
    let text = "wrong identity: found eve@example.com, expected dev@example.com";
    assert_eq!(finding(&eve)["text"], text);
    let unlogged = decide(scene.keyless("dev@example.com", Flaw::NoLogEntry));
    assert_eq!((unlogged.reason, &finding(&unlogged)["kind"]), (Reason::NoLogEntry, &json!("log_missing")));
    let late = decide(scene.keyless("dev@example.com", Flaw::IntegratedAfterCertificate));
    assert_eq!((late.reason, &finding(&late)["kind"]), (Reason::Expired, &json!("expired")));

    // A key where a certificate is wanted, and a certificate where a key is.
    let keyed = decide(scene.logged("strange"));
    assert_eq!((keyed.reason, &finding(&keyed)["kind"]), (Reason::WrongKey, &json!("wrong_key")));
    assert_eq!(finding(&keyed)["found"], scene.key("strange").fingerprint().to_string());
    let certified = scene.decide(&other, &wanted, &[scene.keyless("dev@example.com", Flaw::None)]);
    assert_eq!(certified.reason, Reason::WrongKey);
    assert_eq!(finding(&certified)["found"], "a certificate of dev@example.com (https://issuer.example)");
}

#[test]
fn a_signature_that_is_forged_or_about_another_image_makes_no_finding() {
    let scene = Scene::new();
    let (new, other) = (key_requirement(&scene.key("new")), key_requirement(&scene.key("old")));
    let mut forged = scene.logged("strange");
    let good = scene.logged("new");
    forged.payload.clone_from(&good.payload);
    forged.payload.push(b' ');
    let elsewhere = Digest::sha256(b"another manifest");
    let elsewhere = scene.sigstore.sign_keyed(&scene.key("old"), APP, &elsewhere, Flaw::None);
    for signature in [forged, elsewhere] {
        let verdict = scene.decide(&new, &other, &[signature]);
        assert_eq!((verdict.reason, finding(&verdict)), (Reason::BadSignature, &Value::Null));
    }
}

#[test]
fn the_checks_for_one_denial_are_bounded() {
    let (known, digest) = (KnownKeys::default(), Digest::sha256(b"manifest"));
    let finder = Finder::new(&known, None, &digest, Timestamp::from_unix_seconds(0));
    assert_eq!(finder.spend(FINDING_CHECKS_MAX), Some(()));
    assert_eq!(finder.spend(1), None);
}

#[test]
fn a_log_entry_that_promises_no_time_is_not_a_missing_one() {
    let scene = Scene::new();
    let digest = Digest::sha256(b"manifest");
    let key = scene.key("new");
    let wanted = SigstoreTrust::keyed(vec![key.public()], Some(scene.sigstore.rekor_keys()));
    let known = KnownKeys::default();
    let finder = Finder::new(&known, None, &digest, scene.now);
    let public = [key.public()];
    let expected = Expected { keys: &public, identities: &[], signer: "the key", place: "here" };
    for (flaw, kind, reason, says) in [
        (Flaw::NoPromise, "no_trusted_time", Reason::Expired, "no trusted time: "),
        (Flaw::NoLogEntry, "log_missing", Reason::NoLogEntry, "log missing: "),
    ] {
        let material = scene.sigstore.bundle_keyed(&key, &digest).flaw(flaw).build().material();
        let error = wanted.verify(&material, &digest, scene.now).unwrap_err();
        let finding = finder.find(&material, &error, expected).unwrap();
        assert_eq!((finding.kind(), finding.reason()), (kind, reason), "{error:?}");
        assert_eq!(Reason::of(&error), reason, "with or without a finding: {error:?}");
        assert!(finding.text().starts_with(says) && finding.json()["kind"] == kind, "{finding:?}");
    }
}

#[test]
fn what_was_expected_is_named_up_to_a_bound_and_counted_beyond() {
    let names = |count: usize| (0..count).map(|number| format!("key {number}")).collect::<Vec<_>>();
    let finding = |count| Finding::RotatedKey { found: "x".to_owned(), listed: names(count), expected: names(count) };
    let fits = finding(EXPECTED_MAX).json();
    assert_eq!((fits["expected"].as_array().unwrap().len(), fits.get("expected_count")), (EXPECTED_MAX, None));
    let more = finding(EXPECTED_MAX + 1).json();
    assert_eq!(more["expected"].as_array().unwrap().len(), EXPECTED_MAX);
    assert_eq!(more["listed"].as_array().unwrap().len(), EXPECTED_MAX);
    assert_eq!(more["expected_count"], EXPECTED_MAX + 1);
    let text = finding(EXPECTED_MAX + 1).text();
    assert!(text.contains("listed at key 0, key 1 and 15 others; expected here key 0 or one of 16 others"), "{text}");
}
