//! Rules of whole ClusterImagePolicies: they decide on everything there is, or not at all; and what a policy says of a very digest.

use sealgate::clock::Clock;
use sealgate::oci::{Algorithm, Digest, ImageReference};
use sealgate::policy::{
    ClusterImagePolicies, Decision, Material, PolicyFile, PolicySet, Reason, RegistriesD, Settings,
};
use sealgate::testing::sigstore::{FakeSigstore, Flaw};
use sealgate::verify::{Place, SignatureMaterial, SigstoreRoot};
use serde_json::{Value, json};

const REPOSITORY: &str = "quay.io/acme/app";

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
        let mut material = signature.material();
        if let SignatureMaterial::Legacy(signature) = &mut material {
            signature.source.place = Place::Tag(format!("sha256-{}.sig", self.digest.hex()));
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
