//! `signedBy` as people meet it: `sealgate verify`, the mirror's refusal, and what is said of key rings that time has ended.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealgate::clock::Timestamp;
use sealgate::testing::openpgp::{FakeOpenPgpKey, KeyFlaw, OpenPgpFlaw};
use sealgate::testing::{FakeRegistry, ImageBuilder, Setup, TestSealgate, put_lookaside};
use serde_json::{Value, json};

use crate::program::{Place, Ran, filtered};

const HOST: &str = "registry.example";

/// Fingerprints hold the time at which keys are made, and the layout of a text the length of a key's id.
fn made() -> Timestamp {
    "2025-06-01T00:00:00Z".parse().unwrap()
}

fn key(name: &str, flaw: KeyFlaw) -> FakeOpenPgpKey {
    FakeOpenPgpKey::flawed(7, name, made(), flaw)
}

fn signed_by(path: &str) -> Value {
    json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": path})
}

/// Images of `acme/app`, which the policy wants signed by `vendor`; `old` is a key that it lists for another repository.
struct Scene {
    registry: FakeRegistry,
    place: Place,
    policy: String,
    registries_d: String,
}

/// Tags, who signed, for which reference, and with what flaw.
const IMAGES: [(&str, Option<&str>, &str, OpenPgpFlaw); 7] = [
    ("good", Some("vendor"), "acme/app:good", OpenPgpFlaw::None),
    ("unsigned", None, "", OpenPgpFlaw::None),
    ("renamed", Some("vendor"), "acme/app:other", OpenPgpFlaw::None),
    ("stranger", Some("stranger"), "acme/app:stranger", OpenPgpFlaw::None),
    ("rotated", Some("old"), "acme/app:rotated", OpenPgpFlaw::None),
    ("forged", Some("vendor"), "acme/app:forged", OpenPgpFlaw::Corrupt),
    ("late", Some("vendor"), "acme/app:late", OpenPgpFlaw::Expired),
];

impl Scene {
    async fn new() -> Self {
        let registry = FakeRegistry::start().await;
        for (seed, (tag, signer, reference, flaw)) in (1..).zip(IMAGES) {
            let image = ImageBuilder::new(seed).layer(1000).build();
            registry.put("acme/app", tag, &image);
            if let Some(name) = signer {
                let signature = key(name, KeyFlaw::None).sign(&format!("{HOST}/{reference}"), &image.digest(), flaw);
                put_lookaside(&registry, "acme/app", &image.digest(), &[signature]);
            }
        }
        let scopes = json!({
            "registry.example/acme": [signed_by("vendor.gpg")],
            "registry.example/archive": [signed_by("old.gpg")],
        });
        let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}}).to_string();
        let registries_d = format!("docker: {{registry.example: {{lookaside: '{}'}}}}", registry.lookaside_url());
        let place = Place::with_policy(&policy);
        std::fs::create_dir(place.path().join("config/registries.d")).unwrap();
        place.write("config/registries.d/acme.yaml", &registries_d);
        let config = format!(
            "[policy]\ncontainers_policy = \"policy.json\"\nregistries_d = \"registries.d\"\n\
             [[upstream]]\nhost = \"{HOST}\"\nendpoint = \"{}\"\n",
            registry.url()
        );
        place.write("config/sealgate.toml", &config);
        let scene = Self { registry, place, policy, registries_d };
        for name in ["vendor", "old"] {
            scene.place.write(&format!("config/{name}.gpg"), &key(name, KeyFlaw::None).armored_ring());
        }
        scene
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.place.command(arguments);
        // The registry lives in this process, so waiting must not hold its thread.
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        Ran {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    async fn verify(&self, tag: &str, more: &[&str]) -> Ran {
        let image = format!("{HOST}/acme/app:{tag}");
        self.run(&[&["verify", &image], more].concat()).await
    }

    fn mirror(&self) -> Setup {
        TestSealgate::with_policy(&self.policy)
            .file("vendor.gpg", key("vendor", KeyFlaw::None).ring())
            .file("old.gpg", key("old", KeyFlaw::None).ring())
            .file("registries.d/acme.yaml", &self.registries_d)
            .set("policy.registries_d", "registries.d")
            .upstream(HOST, self.registry.url())
    }
}

fn tree_filters() -> insta::internals::SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:PORT");
    settings.add_filter(r"fingerprint [0-9a-f]{12}", "fingerprint FINGERPRINT");
    settings.bind_to_scope()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_apart_why_an_openpgp_signature_does_not_count() {
    let scene = Scene::new().await;
    let _filters = tree_filters();
    for (tag, ..) in IMAGES {
        let ran = scene.verify(tag, &[]).await;
        assert_eq!(ran.status, i32::from(tag != "good"), "{ran}");
        assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{ran}");
        insta::assert_snapshot!(format!("verify_{tag}"), ran.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_read_reason_and_finding_of_each_openpgp_signature() {
    let scene = Scene::new().await;
    let fingerprint = |name: &str| key(name, KeyFlaw::None).fingerprint();
    let vendor = fingerprint("vendor");
    for (tag, reason, finding) in [
        ("unsigned", "no_signature", json!(null)),
        ("renamed", "identity_mismatch", json!(null)),
        (
            "stranger",
            "wrong_key",
            json!({"kind": "wrong_key", "found": fingerprint("stranger"), "verified": false, "expected": [vendor]}),
        ),
        (
            "rotated",
            "rotated_key",
            json!({
                "kind": "rotated_key", "found": fingerprint("old"), "expected": [vendor],
                "listed": [r#"transports.docker["registry.example/archive"]"#],
            }),
        ),
        ("forged", "bad_signature", json!(null)),
        ("late", "expired", json!(null)),
    ] {
        let ran = scene.verify(tag, &["--output", "json"]).await;
        let answer: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran}"));
        assert_eq!((ran.status, answer["reason"].as_str()), (1, Some(reason)), "{ran}");
        let mut found = answer["evidence"]["requirements"][0]["candidates"][0]["finding"].clone();
        if let Some(found) = found.as_object_mut() {
            found.remove("text");
        }
        assert_eq!(found, finding, "{tag}");
    }
}

/// The texts are containers/image's own, built with Go's openpgp.
#[tokio::test(flavor = "multi_thread")]
async fn the_mirror_refuses_with_the_words_of_containers_image_and_names_the_reason() {
    let scene = Scene::new().await;
    let mirror = scene.mirror().start().await;
    let good = mirror.get(&format!("/v2/{HOST}/acme/app/manifests/good")).await;
    assert_eq!(good.status, 200, "{}", good.text());
    for (tag, reason, says) in [
        ("unsigned", "no_signature", "A signature was required, but no signature exists"),
        ("renamed", "identity_mismatch", "Signature for identity \"registry.example/acme/app:other\" is not accepted"),
        ("stranger", "wrong_key", "Key not found for key ID "),
        ("rotated", "rotated_key", "Key not found for key ID "),
        ("forged", "bad_signature", "signature error: openpgp: invalid signature"),
        ("late", "expired", "Signature expired on "),
    ] {
        let answer = mirror.get(&format!("/v2/{HOST}/acme/app/manifests/{tag}")).await;
        let line = format!("SignatureValidationFailed: Source image rejected: {says}");
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.reason.starts_with(&line), "{}", answer.reason);
        let error = &answer.json()["errors"][0];
        assert!(error["message"].as_str().unwrap().starts_with(&line), "{error}");
        assert_eq!(error["detail"]["reason"], reason, "{error}");
        let counted = mirror.metric(&format!("sealgate_verdicts_total{{decision=\"deny\",reason=\"{reason}\"}}"));
        assert_eq!(counted, Some(1.0), "{tag}");
    }
    mirror.stop().await;
}

/// `policy check`, `config check`, the banner and a reload name file and field of a ring of which nothing is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_time_has_ended_is_named_with_file_and_field() {
    let scene = Scene::new().await;
    let revoked = key("vendor", KeyFlaw::Revoked);
    let ended = key("old", KeyFlaw::Expired);
    let rings = json!({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["vendor.gpg", "good.gpg"]});
    let data = json!({"type": "signedBy", "keyType": "GPGKeys", "keyData": STANDARD.encode(ended.ring())});
    let scopes = json!({"registry.example/acme": [rings], "registry.example/archive": [data]});
    let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}}).to_string();
    scene.place.write("config/policy.json", &policy);
    scene.place.write("config/vendor.gpg", &revoked.armored_ring());
    scene.place.write("config/good.gpg", &key("good", KeyFlaw::None).armored_ring());
    let acme = "transports.docker[\"registry.example/acme\"][0].keyPaths[0]: the file \"vendor.gpg\": no key in the ring can sign: ";
    let archive = "transports.docker[\"registry.example/archive\"][0].keyData: no key in the ring can sign: ";

    let ran = scene.run(&["policy", "check"]).await;
    assert_eq!(ran.status, 0, "warnings alone: {ran}");
    let _filters = filtered();
    insta::assert_snapshot!("policy_check_ended_rings", ran.stdout);
    let ran = scene.run(&["config", "check"]).await;
    assert!(ran.stderr.contains(&format!("warning: {acme}")) && ran.stderr.contains(archive), "{ran}");

    let mirror = scene.mirror().file("good.gpg", key("good", KeyFlaw::None).ring()).start().await;
    assert!(!mirror.app().banner().to_string().contains("can sign"));
    mirror.write("vendor.gpg", revoked.ring());
    mirror.write_policy(&policy);
    let warnings = mirror.reload().await.unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.starts_with(acme)), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.starts_with(archive)), "{warnings:?}");
    mirror.stop().await;
    let mirror = scene
        .mirror()
        .file("policy.json", &policy)
        .file("vendor.gpg", revoked.ring())
        .file("good.gpg", key("good", KeyFlaw::None).ring())
        .start()
        .await;
    let banner = mirror.app().banner().to_string();
    assert!(banner.contains(&format!("warning: {acme}")) && banner.contains(archive), "{banner}");
    mirror.stop().await;
}

/// Without a lookaside nothing can satisfy `signedBy`, which is easily overlooked.
#[tokio::test(flavor = "multi_thread")]
async fn where_no_lookaside_is_named_explain_and_check_say_that_everything_is_refused() {
    let scene = Scene::new().await;
    let explain = ["policy", "explain", "registry.example/acme/app:good"];
    let ran = scene.run(&explain).await;
    let says = format!("below {}", scene.registry.lookaside_url());
    assert!(ran.status == 0 && ran.stdout.contains(&says), "{ran}");
    let ran = scene.run(&["policy", "check"]).await;
    assert!(ran.status == 0 && ran.stdout.contains("no errors, no warnings"), "{ran}");

    scene.place.write("config/registries.d/acme.yaml", "docker: {registry.example: {use-sigstore-attachments: true}}");
    let ran = scene.run(&explain).await;
    assert!(ran.status == 0 && ran.stdout.contains("are not looked for: policy.registries_d"), "{ran}");
    let ran = scene.run(&["policy", "check"]).await;
    assert!(ran.status == 0 && ran.stdout.contains("no errors, 2 warnings"), "{ran}");
    assert!(
        ran.stdout.contains("warning: transports.docker[\"registry.example/acme\"]\n  an OpenPGP signature"),
        "{ran}"
    );
    let ran = scene.verify("good", &[]).await;
    assert!(ran.status == 1 && ran.stdout.contains("(registries_d names"), "{ran}");
}
