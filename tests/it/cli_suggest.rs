//! `sealgate policy suggest`: what it prints is read by our own parsers, and admits the image.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use sealgate::clock::Clock;
use sealgate::oci::Digest;
use sealgate::policy::{ClusterImagePolicies, Decision, Material, PolicyFile, PolicySet, Settings};
use sealgate::testing::sigstore::{FakeSignature, FakeSigstore, Flaw, Identity};
use sealgate::testing::{FakeRegistry, ImageBuilder, attach_signatures};
use sealgate::verify::{Place, SignatureMaterial, SigstoreRoot};
use serde_json::Value;

const HOST: &str = "registry.example";
const EMAIL: &str = "release@acme.example";
const ISSUER: &str = "https://accounts.acme.example";
const WORKFLOW: &str = "https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main";

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
        let config = format!(
            "[policy]\n{policy}\ntrusted_root = \"root.json\"\n[[upstream]]\nhost = \"{HOST}\"\nendpoint = \"{}\"\n",
            self.registry.url()
        );
        self.write("sealgate.toml", &config);
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
    assert!(comments.contains("policy.json can ask for signatures by e-mail addresses"), "{text}");
}
