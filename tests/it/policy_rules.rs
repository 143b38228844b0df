//! Rules of whole ClusterImagePolicies: they decide on everything there is, or not at all; and what a policy says of a very digest.

use sealgate::clock::Clock;
use sealgate::oci::{Algorithm, Digest, ImageReference};
use sealgate::policy::{
    ClusterImagePolicies, Decision, Material, NoAnswer, Plan, PolicyFile, PolicySet, Reason, RegistriesD, RestsOn,
    Settings,
};
use sealgate::testing::sigstore::{FakeSigstore, Flaw};
use sealgate::verify::{Place, SignatureMaterial, SigstoreRoot};
use serde_json::{Value, json};

const REPOSITORY: &str = "quay.io/acme/app";
const ISSUER: &str = "https://accounts.example.com";
const EMAIL: &str = "dev@corp.com";
const SCORE: &str = "https://example.com/score/v1";

struct Scene {
    sigstore: FakeSigstore,
    digest: Digest,
}

impl Scene {
    fn new() -> Self {
        Self { sigstore: FakeSigstore::from_seed(5, Clock::System.now()), digest: Digest::sha256(b"manifest") }
    }

    fn policies(&self, documents: &[Value]) -> PolicySet {
        self.policies_with(documents, RegistriesD::default())
    }

    fn policies_with(&self, documents: &[Value], registries_d: RegistriesD) -> PolicySet {
        let text: Vec<String> = documents.iter().map(Value::to_string).collect();
        let mut nothing = |_: &str| Err("no such file".to_owned());
        let file = PolicyFile::parse("p.yaml", text.join("\n---\n").as_bytes(), &mut nothing).unwrap();
        let root = SigstoreRoot::from_json(self.sigstore.trusted_root_json().as_bytes()).unwrap();
        let policies = ClusterImagePolicies::resolve(vec![file], &root).unwrap();
        PolicySet::new(Settings { cluster_image_policies: Some(policies), registries_d, ..Settings::default() })
            .unwrap()
    }

    /// A policy with two keys, and what follows in its `spec`.
    fn document(&self, name: &str, glob: &str, more: &Value) -> Value {
        let authority = |key: &str| json!({"name": key, "key": {"data": self.sigstore.key(key).public_pem()}});
        let mut document = json!({
            "apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": name},
            "spec": {"images": [{"glob": glob}], "authorities": [authority("release"), authority("revoked")]},
        });
        for (key, value) in more.as_object().unwrap() {
            document["spec"][key] = value.clone();
        }
        document
    }

    fn signed(&self, key: &str) -> SignatureMaterial {
        let signature = self.sigstore.sign_unlogged(&self.sigstore.key(key), REPOSITORY, &self.digest, Flaw::None);
        self.at_its_tag(signature.material())
    }

    /// An attestation by that key, whose predicate is `{"score": score}`.
    fn scored(&self, key: &str, score: &str) -> SignatureMaterial {
        let key = self.sigstore.key(key);
        let bundle = self.sigstore.bundle_keyed(&key, &self.digest).unlogged();
        self.at_its_tag(bundle.predicate(SCORE, json!({"score": score})).build_attestation().attestation_material())
    }

    fn at_its_tag(&self, mut material: SignatureMaterial) -> SignatureMaterial {
        let tag = |suffix: &str| Place::Tag(format!("sha256-{}.{suffix}", self.digest.hex()));
        match &mut material {
            SignatureMaterial::Legacy(signature) => signature.source.place = tag("sig"),
            SignatureMaterial::Attestation(attestation) => attestation.source.place = tag("att"),
            SignatureMaterial::Bundle(_) | SignatureMaterial::OpenPgp(_) => {}
        }
        material
    }
}

fn rule(module: &str) -> Value {
    json!({"policy": {"type": "rego", "data": format!("package sigstore\ndefault isCompliant = false\n{module}\n")}})
}

fn image(reference: &str) -> ImageReference {
    format!("{REPOSITORY}{reference}").parse().unwrap()
}

#[test]
fn a_rule_that_asks_that_something_is_absent_decides_on_nothing_less_than_all() {
    let scene = Scene::new();
    let rule = rule("isCompliant {\n  input.authorityMatches.release\n  not input.authorityMatches.revoked\n}");
    let policy = scene.policies(&[scene.document("p", "quay.io/acme/**", &rule)]);
    let decide = |material: &Material| policy.evaluate(&image(":1"), &scene.digest, material, Clock::System.now());

    let released = Material { candidates: vec![scene.signed("release")], ..Material::default() };
    assert_eq!(decide(&released).unwrap().decision, Decision::Allow);
    let candidates = vec![scene.signed("release"), scene.signed("revoked")];
    let revoked = decide(&Material { candidates, ..Material::default() }).unwrap();
    assert_eq!((revoked.decision, revoked.reason), (Decision::Deny, Reason::PolicyRule));

    // The revocation could not be read, or was crowded out.
    assert!(decide(&Material { incomplete: true, ..released.clone() }).is_err(), "undecided");
    let crowded = decide(&Material { more: true, ..released }).unwrap();
    assert_eq!((crowded.decision, crowded.reason), (Decision::Deny, Reason::TooManySignatures));
}

#[test]
fn a_rule_moved_from_an_attestation_to_the_policy_is_another_policy() {
    let scene = Scene::new();
    let authority = |rule: Value| {
        let mut attestation = json!({"name": "a", "predicateType": "https://example.com/x/v1"});
        if let Some(policy) = rule.get("policy") {
            attestation["policy"] = policy.clone();
        }
        json!([{"name": "release", "key": {"data": scene.sigstore.key("release").public_pem()}, "attestations": [attestation]}])
    };
    let rule = rule("isCompliant {\n  input.x\n}");
    let of_attestation = json!({"authorities": authority(rule.clone())});
    let of_policy = json!({"authorities": authority(json!({})), "policy": rule["policy"]});
    let [one, other] = [of_attestation, of_policy]
        .map(|more| scene.policies(&[scene.document("p", "quay.io/acme/**", &more)]).fingerprint());
    assert_ne!(one, other);
}

#[test]
fn a_policy_for_a_very_digest_decides_about_it_whatever_tags_grant() {
    let scene = Scene::new();
    let blocked = json!({"authorities": [{"name": "blocked", "static": {"action": "fail", "message": "known bad"}}]});
    let glob = format!("{REPOSITORY}@{}", scene.digest);
    let policy = scene
        .policies(&[scene.document("all", "quay.io/acme/**", &json!({})), scene.document("blocked", &glob, &blocked)]);
    assert!(policy.has_digest_scope(&image(&format!("@{}", scene.digest))));
    assert!(!policy.has_digest_scope(&image(&format!("@{}", Digest::sha256(b"other")))));
    assert!(!policy.has_digest_scope(&image(":1")));
    let by_digest = image(&format!("@{}", scene.digest));
    let material = Material { candidates: vec![scene.signed("release")], ..Material::default() };
    let verdict = policy.evaluate(&by_digest, &scene.digest, &material, Clock::System.now()).unwrap();
    assert_eq!((verdict.decision, verdict.reason), (Decision::Deny, Reason::Rejected));
}

#[test]
fn a_rule_that_lacks_evidence_is_told_from_one_that_decides_against_it() {
    let scene = Scene::new();
    let both = rule("isCompliant {\n  input.authorityMatches.release\n  input.authorityMatches.revoked\n}");
    let never = rule("isCompliant {\n  input.authorityMatches.release.signatures[_].id == \"none\"\n}");
    let attested = json!({
        "name": "revoked", "key": {"data": scene.sigstore.key("revoked").public_pem()},
        "attestations": [{"name": "a", "predicateType": "https://example.com/x/v1"}],
    });
    let release = json!({"name": "release", "key": {"data": scene.sigstore.key("release").public_pem()}});
    let with = |authorities: &Value, rule: &Value| json!({"authorities": authorities, "policy": rule["policy"]});
    let keys = scene.document("p", "**", &json!({}))["spec"]["authorities"].clone();
    let (attestation, mut elsewhere) = (json!([release, attested]), keys.clone());
    elsewhere[1]["signatureFormat"] = json!("bundle");
    for (more, found, reason, says) in [
        (with(&keys, &both), vec!["release"], Reason::PolicyRule, "authority revoked: no matching signatures"),
        (with(&elsewhere, &both), vec!["release"], Reason::NoSignature, "authority revoked: no signatures found"),
        (with(&elsewhere, &never), vec!["release"], Reason::PolicyRule, "the policy's Rego rule says no"),
        (
            with(&attestation, &both),
            vec!["release"],
            Reason::NoAttestation,
            "authority revoked: attestation a: no attestations found",
        ),
        (with(&keys, &never), vec!["release", "revoked"], Reason::PolicyRule, "the policy's Rego rule says no"),
    ] {
        let policy = scene.policies(&[scene.document("p", "quay.io/acme/**", &more)]);
        let candidates: Vec<SignatureMaterial> = found.into_iter().map(|key| scene.signed(key)).collect();
        let material = Material { candidates, ..Material::default() };
        let verdict = policy.evaluate(&image(":1"), &scene.digest, &material, Clock::System.now()).unwrap();
        assert_eq!((verdict.decision, verdict.reason), (Decision::Deny, reason), "{}", verdict.text);
        assert!(
            verdict.text.contains("the policy's Rego rule says no") && verdict.text.contains(says),
            "{}",
            verdict.text
        );
    }
}

/// A rule that asks that something is absent must not be asked where nothing can be found.
#[test]
fn v_31_a_rule_does_not_decide_where_signatures_are_not_looked_for() {
    let scene = Scene::new();
    let authorities = json!([
        {"name": "any", "static": {"action": "pass"}},
        {"name": "revoked", "key": {"data": scene.sigstore.key("revoked").public_pem()}},
    ]);
    let rule = rule("isCompliant {\n  not input.authorityMatches.revoked\n}");
    let more = json!({"authorities": authorities, "policy": rule["policy"]});
    let document = scene.document("p", "quay.io/acme/**", &more);
    let decide = |policy: &PolicySet, image: &ImageReference, digest: &Digest, found: Vec<SignatureMaterial>| {
        let material = Material { candidates: found, ..Material::default() };
        policy.evaluate(image, digest, &material, Clock::System.now()).unwrap()
    };
    let policy = scene.policies(std::slice::from_ref(&document));
    assert_eq!(decide(&policy, &image(":1"), &scene.digest, vec![]).decision, Decision::Allow);
    let revoked = decide(&policy, &image(":1"), &scene.digest, vec![scene.signed("revoked")]);
    assert_eq!((revoked.decision, revoked.reason), (Decision::Deny, Reason::PolicyRule));

    // The same manifest under a digest that signatures do not bind.
    let sha512 = Digest::of(Algorithm::Sha512, b"manifest");
    let by_sha512 = decide(&policy, &image(&format!("@{sha512}")), &sha512, vec![]);
    assert_eq!(
        (by_sha512.decision, by_sha512.reason),
        (Decision::Deny, Reason::UnsupportedDigest),
        "{}",
        by_sha512.text
    );

    // Attached signatures are switched off.
    let off = b"docker:\n  quay.io/acme: {use-sigstore-attachments: false}\n".to_vec();
    let registries_d = RegistriesD::parse(&[("off.yaml".to_owned(), off)]).unwrap();
    let policy = scene.policies_with(&[document], registries_d);
    let off = decide(&policy, &image(":1"), &scene.digest, vec![]);
    assert_eq!((off.decision, off.reason), (Decision::Deny, Reason::NoSignature), "{}", off.text);
    assert!(off.text.contains("use-sigstore-attachments"), "{}", off.text);
}

/// Nothing is hidden from a rule by failing: an authority without an answer is not one that does not match.
#[test]
fn a_rule_is_not_asked_while_an_authority_has_no_answer() {
    let scene = Scene::new();
    let of_attestation = rule("isCompliant {\n  to_number(input.predicate.score) > 5\n}");
    let attestation = json!({"name": "score", "predicateType": SCORE, "policy": of_attestation["policy"]});
    let key = |name: &str| json!({"data": scene.sigstore.key(name).public_pem()});
    let authorities = json!([
        {"name": "release", "key": key("release")},
        {"name": "revoked", "key": key("revoked"), "attestations": [attestation]},
    ]);
    let rule = rule("isCompliant {\n  input.authorityMatches.release\n  not input.authorityMatches.revoked\n}");
    let more = json!({"authorities": authorities, "policy": rule["policy"]});
    let policy = scene.policies(&[scene.document("p", "quay.io/acme/**", &more)]);
    let decide = |scores: &[&str]| {
        let attested = scores.iter().map(|score| scene.scored("revoked", score));
        let candidates = std::iter::once(scene.signed("release")).chain(attested).collect();
        let material = Material { candidates, ..Material::default() };
        policy.evaluate(&image(":1"), &scene.digest, &material, Clock::System.now())
    };
    assert_eq!(decide(&["3"]).unwrap().decision, Decision::Allow, "it does not match");
    assert_eq!(decide(&["7"]).unwrap().decision, Decision::Deny, "it matches");
    // One that matches beside one that has no answer is not all of them either.
    for scores in [["many"].as_slice(), &["3", "many"], &["many", "7"], &["7", "many"]] {
        let error = decide(scores).unwrap_err();
        assert_eq!(error.because, NoAnswer::RuleFailed, "{scores:?}: {error}");
        assert!(error.why.contains("authority revoked: attestation score"), "{error}");
    }
}

/// A policy that only warns must not keep the signatures from another that asks for them.
#[test]
fn a_policy_that_would_refuse_everything_and_only_warns_refuses_nothing() {
    let scene = Scene::new();
    let never = |mode: &str| {
        let authorities = json!([{"name": "never", "static": {"action": "fail", "message": "not today"}}]);
        scene.document("never", "quay.io/acme/**", &json!({"mode": mode, "authorities": authorities}))
    };
    let signed = scene.document("signed", "quay.io/acme/**", &json!({}));
    let decide = |policy: &PolicySet, candidates: Vec<SignatureMaterial>| {
        // What is not to be looked for is not found.
        let candidates = if policy.plan(&image(":1")) == Plan::WithoutMaterial { Vec::new() } else { candidates };
        let material = Material { candidates, ..Material::default() };
        policy.evaluate(&image(":1"), &scene.digest, &material, Clock::System.now()).unwrap()
    };
    for documents in [[never("warn"), signed.clone()], [signed.clone(), never("warn")]] {
        let policy = scene.policies(&documents);
        let verdict = decide(&policy, vec![scene.signed("release")]);
        assert_eq!((verdict.decision, verdict.reason), (Decision::Allow, Reason::Warned), "{}", verdict.text);
        assert!(verdict.text.contains("not today"), "{}", verdict.text);
        assert_eq!(decide(&policy, vec![scene.signed("other")]).decision, Decision::Deny);
    }
    let alone = scene.policies(&[never("warn")]);
    assert_eq!(decide(&alone, Vec::new()).decision, Decision::Allow);
    let enforced = scene.policies(&[never("enforce"), signed]);
    assert_eq!(enforced.plan(&image(":1")), Plan::WithoutMaterial, "no is certain");
    assert_eq!(decide(&enforced, vec![scene.signed("release")]).decision, Decision::Deny);
}

/// Else an answer about certificates would be kept as long as one about keys.
#[test]
fn an_answer_of_a_keyless_authority_rests_on_certificates_and_one_of_a_key_on_nothing_that_ends() {
    let scene = Scene::new();
    let identities = json!([{"issuer": ISSUER, "subject": EMAIL}]);
    let keyless = json!({"name": "people", "keyless": {"identities": identities}});
    let key = json!({"name": "release", "key": {"data": scene.sigstore.key("release").public_pem()}});
    let by = |email: &str| {
        let signature = scene.sigstore.sign_keyless(REPOSITORY, &scene.digest, email, ISSUER, Flaw::None);
        scene.at_its_tag(signature.material())
    };
    let rests_on = |authorities: Value, decision: Decision, candidate: SignatureMaterial| {
        let more = json!({"authorities": authorities});
        let policy = scene.policies(&[scene.document("p", "quay.io/acme/**", &more)]);
        let material = Material { candidates: vec![candidate], ..Material::default() };
        let verdict = policy.evaluate(&image(":1"), &scene.digest, &material, Clock::System.now()).unwrap();
        assert_eq!(verdict.decision, decision, "{}", verdict.text);
        verdict.rests_on
    };
    assert_eq!(rests_on(json!([keyless]), Decision::Allow, by(EMAIL)), RestsOn::Certificates);
    assert_eq!(rests_on(json!([keyless]), Decision::Deny, by("eve@corp.com")), RestsOn::Certificates);
    assert_eq!(rests_on(json!([key, keyless]), Decision::Allow, by(EMAIL)), RestsOn::Certificates);
    assert_eq!(rests_on(json!([key]), Decision::Allow, scene.signed("release")), RestsOn::Timeless);
    assert_eq!(rests_on(json!([key]), Decision::Deny, by(EMAIL)), RestsOn::Timeless);
}
