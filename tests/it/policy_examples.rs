//! The examples of `docs/policy.md`, each as it stands there: it loads, allows what it is for, and refuses what is beside it.

use std::collections::BTreeMap;

use sealgate::clock::Clock;
use sealgate::testing::openpgp::{FakeOpenPgpKey, OpenPgpFlaw};
use sealgate::testing::sigstore::{FakeKey, FakeSigstore, Flaw, Identity};
use sealgate::testing::{
    BuiltImage, FakeRegistry, ImageBuilder, REJECT, Setup, TestSealgate, attach_attestations, attach_bundles,
    attach_signatures, put_lookaside,
};
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/policy.md");

/// The example of that name: the block of code after its mark.
fn example(name: &str) -> String {
    let mark = format!("<!-- example: {name} -->\n");
    let (_, rest) = PAGE.split_once(&mark).unwrap_or_else(|| panic!("docs/policy.md has no example {name}"));
    let (_, block) = rest.split_once('\n').unwrap();
    let (block, _) = block.split_once("\n```").unwrap();
    block.to_owned()
}

/// The public keys in an example, replaced in their order by keys that the test can sign with.
fn with_keys(example: &str, keys: &[&FakeKey]) -> String {
    let (begin, end) = ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----");
    let mut rest = example;
    let mut text = String::new();
    for key in keys {
        let (before, after) = rest.split_once(begin).unwrap();
        let (_, after) = after.split_once(end).unwrap();
        let line = before.rsplit_once('\n').map_or(before, |(_, line)| line);
        let pem = key.public_pem();
        text += before;
        text += &pem.trim_end().lines().collect::<Vec<_>>().join(&format!("\n{line}"));
        rest = after;
    }
    assert!(!rest.contains(begin), "more keys than the test replaces");
    text + rest
}

/// A registry that plays every registry of the examples, and a Sigstore.
struct Stage {
    registry: FakeRegistry,
    sigstore: FakeSigstore,
}

impl Stage {
    async fn new() -> Self {
        let sigstore = FakeSigstore::from_seed(41, Clock::System.now());
        Self { registry: FakeRegistry::start().await, sigstore }
    }

    fn image(&self, repository: &str, seed: u64) -> BuiltImage {
        let image = ImageBuilder::new(seed).layer(100).build();
        self.registry.put(repository, &format!("v{seed}"), &image);
        image
    }

    fn setup(&self) -> Setup {
        let setup = Setup::new(r#"{"default": [{"type": "reject"}]}"#)
            .file("trusted_root.json", self.sigstore.trusted_root_json())
            .set("policy.trusted_root", "trusted_root.json");
        ["ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "registry.access.redhat.com"]
            .into_iter()
            .fold(setup, |setup, host| setup.upstream(host, self.registry.url()))
    }

    /// A mirror under that ClusterImagePolicy alone.
    async fn under(&self, policy: &str) -> TestSealgate {
        let files = toml::Value::Array(vec!["example.yaml".into()]);
        let setup = self.setup().set("policy.containers_policy", "").set("policy.cluster_image_policies", files);
        setup.file("example.yaml", policy).start().await
    }
}

/// Asks for each image, of which `true` is to be served.
async fn serves(mirror: TestSealgate, expected: &[(&str, bool)]) {
    for (image, served) in expected {
        let (name, tag) = image.rsplit_once(':').unwrap();
        let answer = mirror.get(&format!("/v2/{name}/manifests/{tag}")).await;
        assert_eq!(answer.status, if *served { 200 } else { 403 }, "{image}: {}", answer.text());
        let refused = answer.reason.contains("SignatureValidationFailed");
        assert_eq!(refused, !served, "{image}: {}", answer.reason);
    }
    mirror.stop().await;
}

fn github(repository: &str, workflow: &str, reference: &str) -> Identity {
    Identity::github(repository, workflow, reference, "push", "0123456789abcdef0123456789abcdef01234567")
}

#[tokio::test]
async fn only_images_built_by_our_github_workflow_are_served() {
    let stage = Stage::new().await;
    let by = [
        github("acme/app", "release.yml", "refs/heads/main"),
        github("acme/app", "release.yml", "refs/tags/v1.2.3"),
        github("acme/app", "release.yml", "refs/heads/main-not"),
        github("acme/app", "test.yml", "refs/heads/main"),
        github("acme-evil/app", "release.yml", "refs/heads/main"),
        Identity {
            issuer: Some("https://evil.example".into()),
            ..github("acme/app", "release.yml", "refs/heads/main")
        },
    ];
    for (seed, identity) in (1..).zip(&by) {
        let image = stage.image("acme/app", seed);
        let bundle = stage.sigstore.bundle_by(identity, &image.digest()).build();
        attach_bundles(&stage.registry, "acme/app", &image.manifest, &[bundle]);
    }
    stage.image("acme/app", 7);
    let attested = stage.image("acme/app", 8);
    let bundle = stage.sigstore.bundle_by(&by[0], &attested.digest()).predicate("https://example.com/x/v1", json!({}));
    attach_bundles(&stage.registry, "acme/app", &attested.manifest, &[bundle.build()]);

    let mirror = stage.under(&example("github-workflow.yaml")).await;
    let expected = [
        ("ghcr.io/acme/app:v1", true),
        ("ghcr.io/acme/app:v2", true),
        ("ghcr.io/acme/app:v3", false),
        ("ghcr.io/acme/app:v4", false),
        ("ghcr.io/acme/app:v5", false),
        ("ghcr.io/acme/app:v6", false),
        ("ghcr.io/acme/app:v7", false),
        ("ghcr.io/acme/app:v8", false),
    ];
    serves(mirror, &expected).await;
}

#[tokio::test]
async fn what_fulcio_recorded_about_the_workflow_decides_too() {
    let stage = Stage::new().await;
    let sha = "0123456789abcdef0123456789abcdef01234567";
    let good = Identity::github("acme/app", "release.yml", "refs/heads/main", "push", sha);
    let with = |extension: u64, value: &str| {
        let mut other = good.clone();
        other.extensions.insert(extension, value.to_owned());
        other
    };
    // Fulcio's extensions .1.2 trigger, .1.4 name, .1.5 repository, .1.6 ref.
    let others = [with(2, "pull_request"), with(4, "Test"), with(5, "acme/other"), with(6, "refs/heads/dev")];
    for (seed, identity) in (1..).zip(std::iter::once(&good).chain(&others)) {
        let image = stage.image("acme/app", seed);
        let bundle = stage.sigstore.bundle_by(identity, &image.digest()).build();
        attach_bundles(&stage.registry, "acme/app", &image.manifest, &[bundle]);
    }
    let mirror = stage.under(&example("github-claims.yaml")).await;
    let expected = [
        ("ghcr.io/acme/app:v1", true),
        ("ghcr.io/acme/app:v2", false),
        ("ghcr.io/acme/app:v3", false),
        ("ghcr.io/acme/app:v4", false),
        ("ghcr.io/acme/app:v5", false),
    ];
    serves(mirror, &expected).await;
}

#[tokio::test]
async fn build_provenance_decides_by_what_it_says() {
    let stage = Stage::new().await;
    let generator = github("slsa-framework/slsa-github-generator", "generator_container_slsa3.yml", "refs/tags/v2.0.0");
    let built_from = |uri: &str| json!({"invocation": {"configSource": {"uri": uri}}});
    let ours = built_from("git+https://github.com/acme/app@refs/heads/main");
    let provenance = "https://slsa.dev/provenance/v0.2";
    let attestations = [
        (provenance, ours.clone(), &generator),
        (provenance, built_from("git+https://github.com/evil/app@refs/heads/main"), &generator),
        ("https://example.com/other/v1", ours.clone(), &generator),
        (provenance, ours, &github("acme/app", "release.yml", "refs/heads/main")),
        (provenance, json!({}), &generator),
    ];
    for (seed, (kind, predicate, identity)) in (1..).zip(attestations) {
        let image = stage.image("acme/app", seed);
        let attestation = stage.sigstore.bundle_by(identity, &image.digest()).predicate(kind, predicate);
        attach_attestations(&stage.registry, "acme/app", &image.digest(), &[attestation.build_attestation()]);
    }
    let mirror = stage.under(&example("github-provenance.yaml")).await;
    let expected = [
        ("ghcr.io/acme/app:v1", true),
        ("ghcr.io/acme/app:v2", false),
        ("ghcr.io/acme/app:v3", false),
        ("ghcr.io/acme/app:v4", false),
        ("ghcr.io/acme/app:v5", false),
    ];
    serves(mirror, &expected).await;
}

#[tokio::test]
async fn both_of_our_keys_are_accepted_while_one_replaces_the_other() {
    let stage = Stage::new().await;
    let [old, new, other] = ["old", "new", "other"].map(|name| stage.sigstore.key(name));
    for (seed, key) in (1..).zip([&old, &new, &other]) {
        let image = stage.image("acme/app", seed);
        let signature = stage.sigstore.sign_unlogged(key, "quay.io/acme/app", &image.digest(), Flaw::None);
        attach_signatures(&stage.registry, "acme/app", &image.digest(), &[signature]);
    }
    let image = stage.image("acme/app", 4);
    let bundle = stage.sigstore.bundle_keyed(&new, &image.digest()).unlogged().build();
    attach_bundles(&stage.registry, "acme/app", &image.manifest, &[bundle]);

    let setup = stage
        .setup()
        .file("our-keys.json", example("our-keys.json"))
        .file("acme-2025.pub", old.public_pem())
        .file("acme-2026.pub", new.public_pem())
        .set("policy.containers_policy", "our-keys.json");
    let mut expected = [
        ("quay.io/acme/app:v1", true),
        ("quay.io/acme/app:v2", true),
        ("quay.io/acme/app:v3", false),
        ("quay.io/acme/app:v4", false),
        ("quay.io/other/app:v1", false),
    ];
    stage.image("other/app", 1);
    serves(setup.clone().start().await, &expected).await;
    expected[3].1 = true;
    serves(setup.toml(&example("our-keys.toml")).start().await, &expected).await;
}

#[tokio::test]
async fn red_hats_images_are_served_with_their_openpgp_signatures() {
    let stage = Stage::new().await;
    let now = Clock::System.now();
    let [theirs, other] = ["red hat", "somebody"].map(|name| FakeOpenPgpKey::from_seed(41, name, now));
    for (seed, key) in (1..).zip([&theirs, &other]) {
        let image = stage.image("ubi9/ubi", seed);
        let reference = format!("registry.access.redhat.com/ubi9/ubi:v{seed}");
        let signature = key.sign(&reference, &image.digest(), OpenPgpFlaw::None);
        put_lookaside(&stage.registry, "ubi9/ubi", &image.digest(), &[signature]);
    }
    stage.image("ubi9/ubi", 3);

    // The file of the key lies on a machine of Red Hat's; the signatures on a server of theirs.
    let policy = example("red-hat.json").replace("/etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release", "red-hat.asc");
    let places = example("registries.d/red-hat.yaml")
        .replace("https://access.redhat.com/webassets/docker/content/sigstore", &stage.registry.lookaside_url());
    let (endpoint, ours) = ("\"https://registry.access.redhat.com\"", format!("\"{}\"", stage.registry.url()));
    let configuration = example("red-hat.toml");
    assert!(configuration.contains(endpoint));
    let mirror = Setup::new(REJECT)
        .toml(&configuration.replace(endpoint, &ours))
        .file("registry.redhat.io.token", "a token")
        .file("red-hat.json", policy)
        .file("red-hat.asc", theirs.armored_ring())
        .file("registries.d/red-hat.yaml", places)
        .start()
        .await;
    let expected = [
        ("registry.access.redhat.com/ubi9/ubi:v1", true),
        ("registry.access.redhat.com/ubi9/ubi:v2", false),
        ("registry.access.redhat.com/ubi9/ubi:v3", false),
    ];
    serves(mirror, &expected).await;
}

#[tokio::test]
async fn two_signatures_are_asked_for_by_a_policy_over_what_the_authorities_found() {
    let stage = Stage::new().await;
    let [team, security] = ["team", "security"].map(|name| stage.sigstore.key(name));
    let signers: [&[&FakeKey]; 4] = [&[&team, &security], &[&team], &[&security], &[]];
    for (seed, keys) in (1..).zip(signers) {
        let image = stage.image("acme/payments", seed);
        let sign = |key: &&FakeKey| stage.sigstore.sign_unlogged(key, "quay.io/x", &image.digest(), Flaw::None);
        let signatures: Vec<_> = keys.iter().map(sign).collect();
        attach_signatures(&stage.registry, "acme/payments", &image.digest(), &signatures);
    }
    let mirror = stage.under(&with_keys(&example("two-signatures.yaml"), &[&team, &security])).await;
    let expected = [
        ("quay.io/acme/payments:v1", true),
        ("quay.io/acme/payments:v2", false),
        ("quay.io/acme/payments:v3", false),
        ("quay.io/acme/payments:v4", false),
    ];
    serves(mirror, &expected).await;
}

#[tokio::test]
async fn audit_comes_first_and_enforcing_by_scope_later() {
    let stage = Stage::new().await;
    for repository in ["acme/app", "legacy/app"] {
        stage.image(repository, 1);
    }
    let exempt = ImageBuilder::new(2).layer(100).build();
    stage.registry.put("legacy/app", "1.2", &exempt);
    let mirror = stage.setup().toml(&example("audit-first.toml")).start().await;
    let decision = |answer: &sealgate::testing::Answer| answer.header("sealgate-verdict").unwrap_or("none").to_owned();
    let audited = mirror.get("/v2/quay.io/acme/app/manifests/v1").await;
    assert!(audited.status == 200 && decision(&audited).starts_with("audit-deny"), "{audited:?}");
    let enforced = mirror.get("/v2/registry.k8s.io/acme/app/manifests/v1").await;
    assert_eq!(enforced.status, 403, "{enforced:?}");
    let exempt = mirror.get("/v2/registry.k8s.io/legacy/app/manifests/1.2").await;
    assert!(exempt.status == 200 && decision(&exempt).starts_with("exempt"), "{exempt:?}");
    mirror.stop().await;
}

/// An example that is added to the page without a test is found here.
#[test]
fn every_example_on_the_page_has_its_test() {
    let tested: BTreeMap<&str, Value> = BTreeMap::from([
        ("github-workflow.yaml", json!("only_images_built_by_our_github_workflow_are_served")),
        ("github-claims.yaml", json!("what_fulcio_recorded_about_the_workflow_decides_too")),
        ("github-provenance.yaml", json!("build_provenance_decides_by_what_it_says")),
        ("our-keys.json", json!("both_of_our_keys_are_accepted_while_one_replaces_the_other")),
        ("our-keys.toml", json!("both_of_our_keys_are_accepted_while_one_replaces_the_other")),
        ("two-signatures.yaml", json!("two_signatures_are_asked_for_by_a_policy_over_what_the_authorities_found")),
        ("audit-first.toml", json!("audit_comes_first_and_enforcing_by_scope_later")),
        ("red-hat.json", json!("red_hats_images_are_served_with_their_openpgp_signatures")),
        ("red-hat.toml", json!("red_hats_images_are_served_with_their_openpgp_signatures")),
        ("registries.d/red-hat.yaml", json!("red_hats_images_are_served_with_their_openpgp_signatures")),
    ]);
    let marks = PAGE.split("<!-- example: ").skip(1).map(|rest| rest.split_once(" -->").unwrap().0);
    let on_the_page: Vec<&str> = marks.collect();
    let source = include_str!("policy_examples.rs");
    for name in &on_the_page {
        let test = tested.get(name).unwrap_or_else(|| panic!("no test is named for the example {name}"));
        assert!(source.contains(&format!("async fn {}()", test.as_str().unwrap())), "{name}: {test}");
    }
    assert_eq!(on_the_page.len(), tested.len());
    let blocks = PAGE.matches("```yaml").count() + PAGE.matches("```json").count() + PAGE.matches("```toml").count();
    assert_eq!(blocks, on_the_page.len(), "a block of code on the page is no example");
}
