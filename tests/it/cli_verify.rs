//! `sealgate verify` and `sealgate verdicts` against a registry with signed and unsigned images, and a running mirror.

use std::process::{Command, Stdio};

use sealgate::clock::Clock;
use sealgate::testing::sigstore::{FakeSigstore, Flaw};
use sealgate::testing::{FakeRegistry, Fault, ImageBuilder, TestSealgate, attach_signatures};
use serde_json::{Value, json};

const HOST: &str = "registry.example";
const EMAIL: &str = "release@acme.example";
const ISSUER: &str = "https://accounts.acme.example";

/// A registry with the images `acme/app:signed`, `:unsigned`, `:other` (signed by somebody else) and `:index` (of a
/// signed and an unsigned platform), and a policy that wants [`EMAIL`]'s signature.
struct Scene {
    registry: FakeRegistry,
    policy: String,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let registry = FakeRegistry::start().await;
        let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
        for (seed, tag, signer) in
            [(1, "signed", Some(EMAIL)), (2, "unsigned", None), (3, "other", Some("eve@acme.example"))]
        {
            let image = ImageBuilder::new(seed).layer(1000).build();
            registry.put("acme/app", tag, &image);
            if let Some(signer) = signer {
                let signature =
                    sigstore.sign_keyless(&format!("{HOST}/acme/app"), &image.digest(), signer, ISSUER, Flaw::None);
                attach_signatures(&registry, "acme/app", &image.digest(), &[signature]);
            }
        }
        let requirement = sigstore.fulcio_requirement(EMAIL, ISSUER);
        let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {"registry.example/acme": [requirement]}}});
        let scene = Self { registry, policy: policy.to_string(), dir: tempfile::tempdir().unwrap() };
        scene.configure("");
        scene
    }

    /// Writes the configuration, with further lines of `[policy]`.
    fn configure(&self, policy_keys: &str) {
        let config = format!(
            "[policy]\ncontainers_policy = \"policy.json\"\n{policy_keys}\n\
             [[upstream]]\nhost = \"{HOST}\"\naliases = [\"alias.example\"]\nendpoint = \"{}\"\n",
            self.registry.url()
        );
        std::fs::write(self.dir.path().join("sealgate.toml"), config).unwrap();
        std::fs::write(self.dir.path().join("policy.json"), &self.policy).unwrap();
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        // The registry lives in this process, so waiting must not hold its thread.
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    async fn verify(&self, image: &str, more: &[&str]) -> (i32, String) {
        self.run(&[&["verify", "--config", "sealgate.toml", image], more].concat()).await
    }
}

/// Snapshots without what differs from run to run.
fn filtered() -> insta::internals::SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"sha256:[0-9a-f]{64}", "sha256:DIGEST");
    settings.add_filter(r"sha256-[0-9a-f]{64}", "sha256-DIGEST");
    settings.add_filter(r"fingerprint [0-9a-f]{12}", "fingerprint FINGERPRINT");
    settings.add_filter(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME");
    settings.add_filter(r"\b[0-9a-f]{16}\b", "VERDICT");
    settings.add_filter(r"127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:PORT");
    settings.add_filter(r"log index \d+", "log index N");
    settings.bind_to_scope()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_prints_every_reason_and_its_status_is_the_answer() {
    let scene = Scene::new().await;
    for (image, expected) in [
        ("registry.example/acme/app:signed", 0),
        ("registry.example/acme/app:unsigned", 1),
        ("registry.example/acme/app:other", 1),
        ("registry.example/elsewhere/app:1", 3),
        ("registry.example/acme/app:missing", 3),
    ] {
        let (status, text) = scene.verify(image, &[]).await;
        assert_eq!(status, expected, "{text}");
        let _filters = filtered();
        insta::assert_snapshot!(format!("verify_{}", image.rsplit_once('/').unwrap().1.replace(':', "_")), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_in_json_has_the_same_answer_for_programs() {
    let scene = Scene::new().await;
    for (tag, decision, reason, status) in [
        ("signed", "allow", "verified", 0),
        ("unsigned", "deny", "no_signature", 1),
        ("missing", "undecided", "undecided", 3),
    ] {
        let (found, text) = scene.verify(&format!("{HOST}/acme/app:{tag}"), &["--output", "json"]).await;
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((found, json["decision"].as_str(), json["reason"].as_str()), (status, Some(decision), Some(reason)));
        assert_eq!(json["served"], decision == "allow");
        assert_eq!(json["reference"], format!("{HOST}/acme/app:{tag}"));
        assert_eq!(json["evidence"].is_object(), decision != "undecided", "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_is_undecided_and_never_unsigned() {
    let scene = Scene::new().await;
    scene.registry.fault(Fault::on("*.sig").status(500));
    let (status, text) = scene.verify("registry.example/acme/app:signed", &[]).await;
    assert_eq!(status, 3, "{text}");
    let _filters = filtered();
    insta::assert_snapshot!("verify_upstream_fails", text);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_audit_mode_a_denial_is_still_a_denial_and_says_that_it_would_be_served() {
    let scene = Scene::new().await;
    scene.configure("mode = \"audit\"");
    let (status, text) = scene.verify("registry.example/acme/app:unsigned", &[]).await;
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("would serve it and record this, because the mode is audit"), "{text}");
    assert_eq!(scene.verify("registry.example/acme/app:signed", &[]).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exemption_makes_a_denied_image_pass_and_says_so() {
    let scene = Scene::new().await;
    scene.configure(
        "[[policy.exemption]]\nscope = \"registry.example/acme/app:unsigned\"\nreason = \"r\"\nowner = \"o\"\n\
         expires = \"2999-01-01T00:00:00Z\"",
    );
    let (status, text) = scene.verify("registry.example/acme/app:unsigned", &["--output", "json"]).await;
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, json["decision"].as_str(), json["applied"].as_str()),
        (0, Some("deny"), Some("exempt")),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_the_upstream_that_policy_knows() {
    let scene = Scene::new().await;
    let (status, text) = scene.verify("alias.example/acme/app:signed", &[]).await;
    assert_eq!(status, 0, "{text}");
    assert!(text.starts_with("registry.example/acme/app:signed\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_opens_no_data_directory() {
    let scene = Scene::new().await;
    scene.verify("registry.example/acme/app:signed", &[]).await;
    assert!(!scene.dir.path().join("data").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_explain_says_what_applies_without_asking_anybody() {
    let scene = Scene::new().await;
    for (name, image) in
        [("scope", "registry.example/acme/app:1"), ("default", "registry.example/else:1"), ("unknown", "quay.io/a/b")]
    {
        let (status, text) = scene.run(&["policy", "explain", "--config", "sealgate.toml", image]).await;
        assert_eq!(status, 0, "{text}");
        let _filters = filtered();
        insta::assert_snapshot!(format!("policy_explain_{name}"), text);
    }
    assert_eq!(scene.registry.count("*", "*"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_check_shows_traps_and_its_status_tells_mistakes_from_warnings() {
    let scene = Scene::new().await;
    let check = ["policy", "check", "--config", "sealgate.toml"];
    let (status, text) = scene.run(&check).await;
    assert_eq!(status, 0, "{text}");
    let policy = r#"{"default": [{"type": "reject"}], "transports": {"docker": {"registry.example/Acme:1:2": [{"type": "reject"}]}}}"#;
    std::fs::write(scene.dir.path().join("policy.json"), policy).unwrap();
    let (status, text) = scene.run(&check).await;
    assert_eq!(status, 2, "{text}");
    let _filters = filtered();
    insta::assert_snapshot!("policy_check_mistake", text);
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_of_a_running_mirror_are_listed_shown_and_forgotten() {
    let scene = Scene::new().await;
    let mirror = TestSealgate::with_policy(&scene.policy).upstream(HOST, scene.registry.url()).start().await;
    for (tag, status) in [("signed", 200), ("unsigned", 403)] {
        let answer = mirror.get(&format!("/v2/{HOST}/acme/app/manifests/{tag}")).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let admin = mirror.admin_url();
    let (status, list) = scene.run(&["verdicts", "list", "--admin", &admin]).await;
    assert_eq!(status, 0, "{list}");
    let (status, denied) =
        scene.run(&["verdicts", "list", "--decision", "deny", "--output", "json", "--admin", &admin]).await;
    let denied: Value = serde_json::from_str(&denied).unwrap();
    assert_eq!((status, denied["verdicts"].as_array().unwrap().len()), (0, 1));
    let id = denied["verdicts"][0]["id"].as_str().unwrap();
    let (status, shown) = scene.run(&["verdicts", "show", id, "--admin", &admin]).await;
    assert_eq!(status, 0, "{shown}");
    let page = ["verdicts", "list", "--repository", &format!("{HOST}/acme/app"), "--limit", "1", "--admin", &admin];
    let (status, first) = scene.run(&page).await;
    let more = first.lines().find_map(|line| line.strip_prefix("more: sealgate ")).expect("there is another one");
    let (_, second) = scene.run(&more.split(' ').collect::<Vec<_>>()).await;
    assert!(status == 0 && more.contains("--limit 1") && more.contains("--repository"), "{first}");
    assert!(first.contains("app:unsigned") && second.contains("app:signed") && !second.contains("app:unsigned"));
    let (_, none) = scene.run(&["verdicts", "list", "--repository", "acme/app", "--admin", &admin]).await;
    assert!(none.contains("no verdicts of docker.io/acme/app"), "{none}");
    let (status, forgotten) = scene.run(&["verdicts", "forget", id, "--admin", &admin]).await;
    assert_eq!(status, 0, "{forgotten}");
    let (status, gone) = scene.run(&["verdicts", "show", id, "--admin", &admin]).await;
    assert_eq!(status, 2, "{gone}");
    let (status, wrong) = scene.run(&["verdicts", "list", "--admin", &mirror.url()]).await;
    assert_eq!(status, 3, "{wrong}");
    assert!(wrong.contains("does not answer as an admin listener"), "{wrong}");
    let _filters = filtered();
    insta::assert_snapshot!("verdicts_list", list);
    insta::assert_snapshot!("verdicts_show", shown);
    insta::assert_snapshot!("verdicts_forget", format!("{forgotten}{gone}"));
    mirror.stop().await;
}
