//! Rules of whole ClusterImagePolicies: they decide on everything there is, or not at all; and what a policy says of a very digest.

use sealgate::clock::Clock;
use sealgate::oci::{Digest, ImageReference};
use sealgate::policy::{ClusterImagePolicies, Decision, Material, PolicyFile, PolicySet, Reason, Settings};
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
        let text: Vec<String> = documents.iter().map(Value::to_string).collect();
        let mut nothing = |_: &str| Err("no such file".to_owned());
        let file = PolicyFile::parse("p.yaml", text.join("\n---\n").as_bytes(), &mut nothing).unwrap();
        let root = SigstoreRoot::from_json(self.sigstore.trusted_root_json().as_bytes()).unwrap();
        let policies = ClusterImagePolicies::resolve(vec![file], &root).unwrap();
        PolicySet::new(Settings { cluster_image_policies: Some(policies), ..Settings::default() }).unwrap()
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
