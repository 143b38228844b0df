//! `sealgate policy suggest`: what it prints is loaded again, admits the image, and refuses one that somebody else signed.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use sealgate::clock::Clock;
use sealgate::oci::Digest;
use sealgate::policy::{ClusterImagePolicies, Decision, Material, PolicyFile, PolicySet, Settings};
use sealgate::testing::openpgp::{FakeOpenPgpKey, OpenPgpFlaw};
use sealgate::testing::sigstore::{FakeSignature, FakeSigstore, Flaw, Identity};
use sealgate::testing::{
    FakeRegistry, ImageBuilder, attach_attestations, attach_bundles, attach_signatures, put_lookaside,
};
use sealgate::verify::{Place, SignatureMaterial, SigstoreRoot};
use serde_json::{Value, json};

const HOST: &str = "registry.example";
const EMAIL: &str = "release@acme.example";
const ISSUER: &str = "https://accounts.acme.example";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
const WORKFLOW: &str = "https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main";

/// How an image is signed without certificates in a `.sig`.
#[derive(Clone, Copy)]
enum Form {
    Bundle,
    /// The time comes from a timestamp authority.
    BundleOfRekor2,
    BundledAttestation,
    Attestation,
}

struct Scene {
    registry: FakeRegistry,
    sigstore: FakeSigstore,
    signed: HashMap<&'static str, (Digest, FakeSignature)>,
    dir: tempfile::TempDir,
}

impl Scene {
    /// `acme/app:mail` and `acme/app:workflow` are signed, `acme/app:keyed` by a key, `acme/app:unsigned` not at all.
    async fn new() -> Self {
        let registry = FakeRegistry::start().await;
        let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
        let mut signed = HashMap::new();
        let reference = format!("{HOST}/acme/app");
        for (seed, tag) in [(1, "mail"), (2, "workflow"), (3, "keyed"), (4, "unsigned")] {
            let image = ImageBuilder::new(seed).layer(1000).build();
            registry.put("acme/app", tag, &image);
            let digest = image.digest();
            let signature = match tag {
                "mail" => sigstore.sign_keyless(&reference, &digest, EMAIL, ISSUER, Flaw::None),
                "workflow" => sigstore.sign_as(&reference, &digest, &Identity::uri(WORKFLOW, ISSUER), Flaw::None),
                "keyed" => sigstore.sign_keyed(&sigstore.key("k"), &reference, &digest, Flaw::None),
                _ => continue,
            };
            attach_signatures(&registry, "acme/app", &digest, std::slice::from_ref(&signature));
            signed.insert(tag, (digest, signature));
        }
        let scene = Self { registry, sigstore, signed, dir: tempfile::tempdir().unwrap() };
        scene.write("root.json", &scene.sigstore.trusted_root_json());
        scene.write("policy.json", r#"{"default": [{"type": "reject"}]}"#);
        scene.configure("containers_policy = \"policy.json\"");
        scene
    }

    fn configure(&self, policy: &str) {
        self.configure_with(policy, "");
    }

    /// With keys of `[policy]`, and further tables.
    fn configure_with(&self, policy: &str, more: &str) {
        let config = format!(
            "[policy]\n{policy}\ntrusted_root = \"root.json\"\n{more}\n[[upstream]]\nhost = \"{HOST}\"\nendpoint = \"{}\"\n",
            self.registry.url()
        );
        self.write("sealgate.toml", &config);
    }

    /// Puts `acme/app:TAG` there, signed by `by` in that form.
    fn sign(&self, seed: u64, tag: &str, by: &str, form: Form) {
        let image = ImageBuilder::new(seed).layer(1000).build();
        self.registry.put("acme/app", tag, &image);
        let digest = image.digest();
        let identity = if by.contains("://") { Identity::uri(by, ISSUER) } else { Identity::email(by, ISSUER) };
        let bundle = || self.sigstore.bundle_by(&identity, &digest);
        match form {
            Form::Bundle => {
                attach_bundles(&self.registry, "acme/app", &image.manifest, &[bundle().build()]);
            }
            Form::BundleOfRekor2 => {
                let bundle = bundle().rekor_v2().timestamped().build();
                attach_bundles(&self.registry, "acme/app", &image.manifest, &[bundle]);
            }
            Form::BundledAttestation => {
                let bundle = bundle().predicate(PREDICATE, json!({})).build();
                attach_bundles(&self.registry, "acme/app", &image.manifest, &[bundle]);
            }
            Form::Attestation => {
                let attestation = bundle().predicate(PREDICATE, json!({})).build_attestation();
                attach_attestations(&self.registry, "acme/app", &digest, &[attestation]);
            }
        }
    }

    /// Puts `acme/app:TAG` there, with an OpenPGP signature for `reference`.
    fn sign_openpgp(&self, seed: u64, tag: &str, key: &FakeOpenPgpKey, reference: &str) {
        let image = ImageBuilder::new(seed).layer(1000).build();
        self.registry.put("acme/app", tag, &image);
        put_lookaside(
            &self.registry,
            "acme/app",
            &image.digest(),
            &[key.sign(reference, &image.digest(), OpenPgpFlaw::None)],
        );
    }

    fn create_directory(&self, name: &str) {
        std::fs::create_dir(self.dir.path().join(name)).unwrap();
    }

    /// What is suggested for that image.
    async fn suggestion(&self, tag: &str) -> Value {
        let (status, text) = self.suggest(tag, &["--output", "json"]).await;
        assert_eq!(status, 0, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The exit status of `verify` for each of these tags.
    async fn verdicts<const N: usize>(&self, tags: [&str; N]) -> [i32; N] {
        let mut verdicts = [0; N];
        for (verdict, tag) in verdicts.iter_mut().zip(tags) {
            *verdict = self.verify(tag).await.0;
        }
        verdicts
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// What a policy makes of the image with that tag.
    fn decide(&self, yaml: &str, tag: &str) -> Decision {
        let file = PolicyFile::parse("policies.yaml", yaml.as_bytes(), &mut |_| Err("no files".to_owned())).unwrap();
        let root = SigstoreRoot::from_json(self.sigstore.trusted_root_json().as_bytes()).unwrap();
        let policies = Some(ClusterImagePolicies::resolve(vec![file], &root).unwrap());
        let policy = PolicySet::new(Settings { cluster_image_policies: policies, ..Settings::default() }).unwrap();
        let (digest, signature) = &self.signed[tag];
        let mut candidate = signature.material();
        if let SignatureMaterial::Legacy(signature) = &mut candidate {
            signature.source.place = Place::Tag(format!("sha256-{}.sig", digest.hex()));
        }
        let material = Material { candidates: vec![candidate], ..Material::default() };
        let image = format!("{HOST}/acme/app:{tag}").parse().unwrap();
        policy.evaluate(&image, digest, &material, Clock::System.now()).unwrap().decision
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
        command.args(arguments).args(["--config", "sealgate.toml"]);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    async fn suggest(&self, tag: &str, more: &[&str]) -> (i32, String) {
        let image = format!("{HOST}/acme/app:{tag}");
        self.run(&[&["policy", "suggest", &image], more].concat()).await
    }

    async fn verify(&self, tag: &str) -> (i32, String) {
        self.run(&["verify", &format!("{HOST}/acme/app:{tag}")]).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suggested_policy_json_admits_the_image_and_no_other() {
    let scene = Scene::new().await;
    let (status, text) = scene.suggest("mail", &["--output", "json"]).await;
    assert_eq!(status, 0, "{text}");
    let suggestion: Value = serde_json::from_str(&text).unwrap();
    scene.write("policy.json", &suggestion["policy_json"].to_string());
    let (status, text) = scene.verify("mail").await;
    assert_eq!(status, 0, "{text}");
    for other in ["workflow", "unsigned"] {
        assert_eq!(scene.verify(other).await.0, 1, "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suggested_cluster_image_policy_admits_the_image_and_no_other() {
    let scene = Scene::new().await;
    for (tag, other) in [("workflow", "mail"), ("mail", "workflow")] {
        let (status, text) = scene.suggest(tag, &["--output", "json"]).await;
        assert_eq!(status, 0, "{text}");
        let suggestion: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(suggestion["policy_json"].is_object(), tag == "mail", "policy.json names no workflow");
        let yaml = suggestion["cluster_image_policies"].as_str().unwrap();
        assert_eq!(scene.decide(yaml, tag), Decision::Allow, "{yaml}");
        assert_eq!(scene.decide(yaml, other), Decision::Deny, "{yaml}");
    }
}

/// The comments of a suggestion as one line; none of them is wider than a terminal.
fn comments(text: &str) -> String {
    let comments: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    assert!(comments.iter().all(|line| line.chars().count() <= 80), "{text}");
    let words = comments.iter().flat_map(|line| line.trim_start_matches('#').split_whitespace());
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_or_by_a_key_alone_is_said_and_has_status_1() {
    let scene = Scene::new().await;
    let (status, text) = scene.suggest("unsigned", &[]).await;
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("nothing is signed"), "{text}");
    let (status, text) = scene.suggest("keyed", &[]).await;
    assert_eq!(status, 1, "{text}");
    let key = FakeSigstore::from_seed(7, Clock::System.now()).key("k").fingerprint().to_string();
    assert!(text.contains(&key) && text.contains("keyPath"), "{text}");
    let (status, text) = scene.suggest("missing", &[]).await;
    assert_eq!(status, 3, "{text}");
    let (status, text) = scene.run(&["policy", "suggest", "elsewhere.example/a:1"]).await;
    assert_eq!(status, 2, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_says_what_was_seen_and_every_comment_is_one() {
    let scene = Scene::new().await;
    let (status, text) = scene.suggest("workflow", &[]).await;
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("subject: ") && text.contains("kind: ClusterImagePolicy"), "{text}");
    let comments = comments(&text);
    assert!(comments.contains(&format!("signature by {WORKFLOW} (issuer {ISSUER}), legacy format")), "{text}");
    assert!(comments.contains("policy.json cannot ask for these signers"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_signature_gets_a_cluster_image_policy_that_admits_its_signer_and_nobody_else() {
    let scene = Scene::new().await;
    for (seed, form) in
        (20..).step_by(2).zip([Form::Bundle, Form::BundleOfRekor2, Form::BundledAttestation, Form::Attestation])
    {
        scene.configure("containers_policy = \"policy.json\"");
        scene.sign(seed, "one", WORKFLOW, form);
        scene.sign(seed + 1, "eve", "https://github.com/eve/app/.github/workflows/release.yml@refs/heads/main", form);
        let suggestion = scene.suggestion("one").await;
        let yaml = suggestion["cluster_image_policies"].as_str().unwrap();
        let is_attestation = matches!(form, Form::BundledAttestation | Form::Attestation);
        assert_eq!(yaml.contains(PREDICATE), is_attestation, "{yaml}");
        let format = if matches!(form, Form::Attestation) { "legacy" } else { "bundle" };
        assert!(yaml.contains(&format!("signatureFormat: {format}")), "{yaml}");
        scene.write("cip.yaml", yaml);
        scene.configure("containers_policy = \"\"\ncluster_image_policies = [\"cip.yaml\"]");
        assert_eq!(scene.verdicts(["one", "eve", "unsigned"]).await, [0, 1, 1], "{yaml}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_needs_the_override_that_the_suggestion_names_and_no_more() {
    let scene = Scene::new().await;
    scene.sign(20, "bundle", EMAIL, Form::Bundle);
    scene.sign(21, "eve", "eve@acme.example", Form::Bundle);
    let suggestion = scene.suggestion("bundle").await;
    let notes = suggestion["policy_json_notes"].to_string();
    let names = "[[policy.override]] scope = \\\"registry.example/acme/app\\\", bundles_without_identity = true";
    assert!(notes.contains(names), "{notes}");
    scene.write("policy.json", &suggestion["policy_json"].to_string());
    assert_eq!(scene.verdicts(["bundle", "eve"]).await, [1, 1], "without the override");
    let over = "[[policy.override]]\nscope = \"registry.example/acme/app\"\nbundles_without_identity = true\n";
    scene.configure_with("containers_policy = \"policy.json\"", over);
    assert_eq!(scene.verdicts(["bundle", "eve", "unsigned"]).await, [0, 1, 1]);

    // A legacy signature binds its reference, so that nobody needs the override.
    scene.configure("containers_policy = \"policy.json\"");
    let suggestion = scene.suggestion("mail").await;
    assert!(!suggestion["policy_json_notes"].to_string().contains("bundles_without_identity"));
    // policy.json names no timestamp authority.
    scene.sign(22, "rekor2", EMAIL, Form::BundleOfRekor2);
    let suggestion = scene.suggestion("rekor2").await;
    assert!(suggestion["policy_json"].is_null() && suggestion["cluster_image_policies"].is_string(), "{suggestion}");
}

#[tokio::test(flavor = "multi_thread")]
async fn openpgp_signers_get_a_policy_json_with_their_key_and_the_lookaside_that_it_needs() {
    let scene = Scene::new().await;
    let key = |name: &str| FakeOpenPgpKey::from_seed(7, name, Clock::System.now());
    let (vendor, eve) = (key("vendor"), key("eve"));
    scene.create_directory("registries.d");
    let registries_d = format!("docker: {{registry.example: {{lookaside: '{}'}}}}", scene.registry.lookaside_url());
    scene.write("registries.d/a.yaml", &registries_d);
    scene.create_directory("keys");
    scene.create_directory("printed.d");
    for (seed, reference, identity) in [
        (20, "registry.example/acme/app:one", json!(null)),
        (21, "registry.example/acme/app:another", json!({"type": "matchRepository"})),
        (22, "vendor.example/app:1", json!({"type": "exactRepository", "dockerRepository": "vendor.example/app"})),
    ] {
        scene.configure("containers_policy = \"policy.json\"\nregistries_d = \"registries.d\"");
        scene.sign_openpgp(seed, "one", &vendor, reference);
        scene.sign_openpgp(30 + seed, "eve", &eve, &reference.replace(":one", ":eve"));
        let suggestion = scene.suggestion("one").await;
        let requirement = &suggestion["policy_json"]["transports"]["docker"]["registry.example/acme/app"][0];
        let path = format!("keys/{}.gpg", vendor.fingerprint());
        assert_eq!((&requirement["type"], &requirement["keyPath"]), (&json!("signedBy"), &json!(path)));
        assert_eq!(requirement["signedIdentity"], identity, "{reference}");
        assert_eq!(suggestion["cluster_image_policies"], "", "it cannot express OpenPGP");
        assert!(
            suggestion["cluster_image_policy_notes"].to_string().contains("no ClusterImagePolicy can ask for OpenPGP")
        );
        assert!(suggestion["policy_json_notes"].to_string().contains(&path));

        scene.write("policy.json", &suggestion["policy_json"].to_string());
        scene.write("printed.d/app.yaml", suggestion["registries_d"].as_str().unwrap());
        scene.write(&path, &vendor.armored_ring());
        scene.configure("containers_policy = \"policy.json\"\nregistries_d = \"printed.d\"");
        assert_eq!(scene.verdicts(["one", "eve", "unsigned"]).await, [0, 1, 1], "{reference}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_read_who_signed_and_what_to_do_in_80_columns() {
    let scene = Scene::new().await;
    let made = "2025-06-01T00:00:00Z".parse().unwrap();
    let reference = "registry.example/acme/app:vendor";
    scene.sign_openpgp(20, "vendor", &FakeOpenPgpKey::from_seed(7, "vendor", made), reference);
    scene.sign(21, "bundle", EMAIL, Form::Bundle);
    scene.create_directory("registries.d");
    let registries_d = format!("docker: {{registry.example: {{lookaside: '{}'}}}}", scene.registry.lookaside_url());
    scene.write("registries.d/a.yaml", &registries_d);
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:PORT");
    settings.add_filter(r#""[A-Za-z0-9+/=]{200,}""#, "\"BASE64\"");
    let _filters = settings.bind_to_scope();
    for (name, tags, registries_d) in [
        ("openpgp", &["vendor"][..], "registries_d = \"registries.d\""),
        ("both", &["vendor", "bundle"], "registries_d = \"registries.d\""),
        ("bundle", &["bundle"], ""),
        ("unsigned", &["unsigned"], ""),
    ] {
        scene.configure(&format!("containers_policy = \"policy.json\"\n{registries_d}"));
        let images: Vec<String> = tags.iter().map(|tag| format!("{HOST}/acme/app:{tag}")).collect();
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        let (status, text) = scene.run(&[&["policy", "suggest"][..], &images].concat()).await;
        assert_eq!(status, i32::from(name == "unsigned"), "{text}");
        comments(&text);
        insta::assert_snapshot!(format!("suggest_{name}"), text);
    }
}
