//! What a ClusterImagePolicy names beside signers: other trust roots, a certificate authority, timestamps, places.

use sealgate::clock::Clock;
use sealgate::testing::sigstore::{FakeKey, FakeSignature, FakeSigstore, Flaw};
use sealgate::testing::{
    ACCEPT_ANYTHING, BuiltImage, FakeRegistry, ImageBuilder, TestSealgate, attach_attestations, attach_bundles,
    attach_signatures,
};
use serde_json::{Value, json};

use super::{EMAIL, ISSUER, Lab, REPOSITORY, SPDX, signer};
use crate::policy_keys::{authorities_pem, trust_root};

const SEED: u64 = 29;
const NAME: &str = "registry.test/team/app";

/// A mirror whose default trust root is one Sigstore's, with documents that may name another one's.
pub(super) struct Scene {
    pub(super) registry: FakeRegistry,
    mirror: TestSealgate,
}

impl Scene {
    pub(super) async fn new(trusted_root: String, documents: &[Value]) -> Self {
        let registry = FakeRegistry::start().await;
        let documents: Vec<String> = documents.iter().map(Value::to_string).collect();
        let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING)
            .upstream("registry.test", registry.url())
            .file("cip.yaml", documents.join("\n---\n"))
            .file("trusted_root.json", trusted_root)
            .set("policy.cluster_image_policies", vec![toml::Value::from("cip.yaml")])
            .set("policy.trusted_root", "trusted_root.json")
            .start()
            .await;
        Self { registry, mirror }
    }

    pub(super) fn image(&self, seed: u64) -> BuiltImage {
        let image = ImageBuilder::new(seed).layer(1000).build();
        self.registry.put_untagged(REPOSITORY, &image);
        image
    }

    /// An image with a bundle by [`EMAIL`], certified, logged and stamped by that Sigstore.
    fn signed(&self, seed: u64, sigstore: &FakeSigstore, flaw: Flaw) -> BuiltImage {
        let image = self.image(seed);
        let bundle = sigstore.bundle_by(&signer(), &image.digest()).timestamped().flaw(flaw).build();
        attach_bundles(&self.registry, REPOSITORY, &image.manifest, &[bundle]);
        image
    }

    pub(super) async fn is_served(&self, image: &BuiltImage) {
        Lab::is_served(image, &self.pull(image).await);
    }

    pub(super) async fn is_denied(&self, image: &BuiltImage, reason: &str) {
        Lab::is_denied(&self.pull(image).await, reason);
    }

    pub(super) async fn pull(&self, image: &BuiltImage) -> sealgate::testing::Answer {
        self.mirror.get(&format!("/v2/{REPOSITORY}/manifests/{}", image.digest())).await
    }

    pub(super) async fn stop(self) {
        self.mirror.stop().await;
    }
}

/// Two Sigstores that share nothing.
pub(super) fn sigstores() -> (FakeSigstore, FakeSigstore) {
    let now = Clock::System.now();
    println!("seeds {SEED} and {}, now {now}", SEED + 1);
    (FakeSigstore::from_seed(SEED, now), FakeSigstore::from_seed(SEED + 1, now))
}

fn policy(authority: &Value) -> Value {
    json!({
        "apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": "signed"},
        "spec": {"images": [{"glob": "**"}], "authorities": [authority]},
    })
}

pub(super) fn keyless(more: &Value) -> Value {
    let mut keyless = json!({"identities": [{"issuer": ISSUER, "subject": EMAIL}]});
    for (name, value) in more.as_object().unwrap() {
        keyless[name] = value.clone();
    }
    keyless
}

fn by_bundle(keyless: &Value) -> Value {
    json!({"name": "team", "signatureFormat": "bundle", "keyless": keyless})
}

/// A trusted root of one Sigstore with one list of another.
fn with_list_of(root: &FakeSigstore, list: &str, other: &FakeSigstore) -> String {
    let read = |sigstore: &FakeSigstore| -> Value { serde_json::from_str(&sigstore.trusted_root_json()).unwrap() };
    let mut mixed = read(root);
    mixed[list] = read(other)[list].clone();
    mixed.to_string()
}

#[tokio::test]
async fn a_named_trust_root_counts_for_who_names_it_and_the_default_one_does_not() {
    let (ours, theirs) = sigstores();
    let named = by_bundle(&keyless(&json!({"trustRootRef": "root"})));
    let scene = Scene::new(theirs.trusted_root_json(), &[trust_root(&ours), policy(&named)]).await;
    let (good, other) = (scene.signed(1, &ours, Flaw::None), scene.signed(2, &theirs, Flaw::None));
    scene.is_served(&good).await;
    scene.is_denied(&other, "no_log_entry").await;
    scene.stop().await;
    // The same document, with nobody who names it.
    let unnamed = by_bundle(&keyless(&json!({})));
    let scene = Scene::new(theirs.trusted_root_json(), &[trust_root(&ours), policy(&unnamed)]).await;
    let (bad, good) = (scene.signed(1, &ours, Flaw::None), scene.signed(2, &theirs, Flaw::None));
    scene.is_served(&good).await;
    scene.is_denied(&bad, "no_log_entry").await;
    scene.stop().await;
}

#[tokio::test]
async fn a_named_log_is_the_one_that_an_entry_must_be_from() {
    let (ours, theirs) = sigstores();
    let key = ours.key("team");
    let authority = json!({
        "name": "team", "signatureFormat": "bundle", "key": {"data": key.public_pem()}, "ctlog": {"trustRootRef": "root"},
    });
    let scene = Scene::new(theirs.trusted_root_json(), &[trust_root(&ours), policy(&authority)]).await;
    let logged_by = |seed, sigstore: &FakeSigstore| {
        let image = scene.image(seed);
        let bundle = sigstore.bundle_keyed(&key, &image.digest()).build();
        attach_bundles(&scene.registry, REPOSITORY, &image.manifest, &[bundle]);
        image
    };
    let (good, other) = (logged_by(1, &ours), logged_by(2, &theirs));
    let unlogged = scene.image(3);
    let bundle = ours.bundle_keyed(&key, &unlogged.digest()).unlogged().build();
    attach_bundles(&scene.registry, REPOSITORY, &unlogged.manifest, &[bundle]);
    scene.is_served(&good).await;
    scene.is_denied(&other, "no_log_entry").await;
    scene.is_denied(&unlogged, "no_log_entry").await;
    scene.stop().await;
}

/// The logs stay those of the trust root, whose own authority does not count any more.
#[tokio::test]
async fn a_ca_cert_counts_in_place_of_the_trust_roots_authorities() {
    let (ours, theirs) = sigstores();
    let of = |ca: &FakeSigstore| policy(&by_bundle(&keyless(&json!({"ca-cert": {"data": authorities_pem(ca)}}))));
    let root_of_theirs = with_list_of(&ours, "certificateAuthorities", &theirs);
    let scene = Scene::new(root_of_theirs, &[of(&ours)]).await;
    let good = scene.signed(1, &ours, Flaw::None);
    scene.is_served(&good).await;
    scene.stop().await;
    let scene = Scene::new(ours.trusted_root_json(), &[of(&theirs)]).await;
    let (root_only, neither) = (scene.signed(1, &ours, Flaw::None), scene.signed(2, &theirs, Flaw::None));
    scene.is_denied(&root_only, "bad_signature").await;
    // Its authority is the right one; its logs are not ours.
    scene.is_denied(&neither, "no_log_entry").await;
    scene.stop().await;
}

#[tokio::test]
async fn rfc3161timestamp_asks_for_a_timestamp_by_an_authority_of_the_named_root() {
    let (ours, theirs) = sigstores();
    let mut authority = by_bundle(&keyless(&json!({})));
    authority["rfc3161timestamp"] = json!({"trustRootRef": "root"});
    let scene = Scene::new(ours.trusted_root_json(), &[trust_root(&ours), policy(&authority)]).await;
    let good = scene.signed(1, &ours, Flaw::None);
    let flaws = [Flaw::TimestampByOtherAuthority, Flaw::TimestampOfOtherSignature];
    let bad: Vec<BuiltImage> = (2..).zip(flaws).map(|(seed, flaw)| scene.signed(seed, &ours, flaw)).collect();
    let without = scene.image(9);
    let bundle = ours.bundle_by(&signer(), &without.digest()).build();
    attach_bundles(&scene.registry, REPOSITORY, &without.manifest, &[bundle]);
    scene.is_served(&good).await;
    for image in bad.iter().chain([&without]) {
        scene.is_denied(image, "bad_signature").await;
    }
    scene.stop().await;
    // The authority of the trust root that the signer is known by, where the policy names another one's.
    let scene = Scene::new(ours.trusted_root_json(), &[trust_root(&theirs), policy(&authority)]).await;
    let image = scene.signed(1, &ours, Flaw::None);
    scene.is_denied(&image, "bad_signature").await;
    scene.stop().await;
}

pub(super) fn by_key(key: &FakeKey, more: &Value) -> Value {
    let mut authority = json!({"name": "team", "key": {"data": key.public_pem()}});
    for (name, value) in more.as_object().unwrap() {
        authority[name] = value.clone();
    }
    authority
}

#[tokio::test]
async fn signatures_lie_under_the_tag_prefix_and_in_the_repository_that_the_source_names() {
    let (ours, _) = sigstores();
    let key = ours.key("team");
    let sign = |image: &BuiltImage| ours.sign_unlogged(&key, NAME, &image.digest(), Flaw::None);
    let put = |scene: &Scene, repository: &str, prefix: &str, image: &BuiltImage, signature: FakeSignature| {
        let signatures = sealgate::testing::sigstore::signature_image(&[signature]);
        let tag = format!("{prefix}sha256-{}.sig", image.digest().hex());
        scene.registry.put(repository, &tag, &signatures);
    };
    let (prefix, elsewhere) = ("pre-", "team/signatures");
    for (source, repository) in [
        (json!({"tagPrefix": prefix}), REPOSITORY),
        (json!({"tagPrefix": prefix, "oci": format!("registry.test/{elsewhere}")}), elsewhere),
    ] {
        let authority = by_key(&key, &json!({"source": [source]}));
        let scene = Scene::new(ours.trusted_root_json(), &[policy(&authority)]).await;
        let [good, plain, other_prefix, other_place] = [1, 2, 3, 4].map(|seed| scene.image(seed));
        put(&scene, repository, prefix, &good, sign(&good));
        attach_signatures(&scene.registry, repository, &plain.digest(), &[sign(&plain)]);
        put(&scene, repository, "pre", &other_prefix, sign(&other_prefix));
        put(&scene, "team/others", prefix, &other_place, sign(&other_place));
        scene.is_served(&good).await;
        for image in [&plain, &other_prefix, &other_place] {
            scene.is_denied(image, "no_signature").await;
        }
        scene.stop().await;
    }
}

#[tokio::test]
async fn attestations_lie_under_the_tag_prefix_too() {
    let (ours, _) = sigstores();
    let mut authority = json!({"name": "team", "keyless": keyless(&json!({})), "source": [{"tagPrefix": "pre-"}]});
    authority["attestations"] = json!([{"name": "sbom", "predicateType": SPDX}]);
    let scene = Scene::new(ours.trusted_root_json(), &[policy(&authority)]).await;
    let (good, plain) = (scene.image(1), scene.image(2));
    let layer =
        |image: &BuiltImage| ours.bundle_by(&signer(), &image.digest()).predicate(SPDX, json!({})).build_attestation();
    let tag = format!("pre-sha256-{}.att", good.digest().hex());
    scene.registry.put(REPOSITORY, &tag, &sealgate::testing::sigstore::attestation_image(&[layer(&good)]));
    attach_attestations(&scene.registry, REPOSITORY, &plain.digest(), &[layer(&plain)]);
    scene.is_served(&good).await;
    scene.is_denied(&plain, "no_attestation").await;
    scene.stop().await;
}
