//! What people read of ClusterImagePolicies, indexes, signers and overrides, in a terminal of 80 columns.

use sealgate::clock::Clock;
use sealgate::testing::sigstore::{FakeSigstore, Flaw, Identity};
use sealgate::testing::{FakeRegistry, ImageBuilder, attach_bundles, attach_signatures};
use serde_json::json;

use crate::program::Place;

const HOST: &str = "registry.example";
const ISSUER: &str = "https://token.actions.githubusercontent.com";
const WORKFLOW: &str = "https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main";
const EVE: &str = "https://github.com/eve/app/.github/workflows/release.yml@refs/heads/main";
const SLSA: &str = "https://slsa.dev/provenance/v1";

/// The images `good` and `eve`, attested by [`WORKFLOW`] and [`EVE`], `unsigned`, and `index` of two unsigned ones.
struct Scene {
    registry: FakeRegistry,
    place: Place,
}

impl Scene {
    async fn new() -> Self {
        let registry = FakeRegistry::start().await;
        let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
        for (seed, tag, by) in [(1, "good", Some(WORKFLOW)), (2, "eve", Some(EVE)), (3, "unsigned", None)] {
            let image = ImageBuilder::new(seed).layer(1000).build();
            registry.put("acme/app", tag, &image);
            let Some(by) = by else { continue };
            let digest = image.digest();
            let identity = Identity::uri(by, ISSUER);
            let bundle = sigstore.bundle_by(&identity, &digest).predicate(SLSA, json!({"buildType": "x"}));
            attach_bundles(&registry, "acme/app", &image.manifest, &[bundle.build()]);
            let reference = format!("{HOST}/acme/app");
            let keyed = sigstore.sign_keyed(&sigstore.key("k"), &reference, &digest, Flaw::None);
            attach_signatures(&registry, "acme/app", &digest, &[keyed]);
        }
        let children = [4, 5].map(|seed| ImageBuilder::new(seed).layer(1000).build());
        registry.put("acme/app", "index", &ImageBuilder::index(children).build());
        let place = Place::with_policy("");
        place.write("config/root.json", &sigstore.trusted_root_json());
        place.write("config/cip.yaml", &policies());
        let scene = Self { registry, place };
        scene.configure("");
        scene
    }

    /// With further lines of `[policy]`.
    fn configure(&self, more: &str) {
        let config = format!(
            "[policy]\ncontainers_policy = \"\"\ncluster_image_policies = [\"cip.yaml\"]\ntrusted_root = \"root.json\"\n{more}\n\
             [[upstream]]\nhost = \"{HOST}\"\nendpoint = \"{}\"\n",
            self.registry.url()
        );
        self.place.write("config/sealgate.toml", &config);
    }

    /// The exit status and what is printed, no line wider than a terminal.
    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = self.place.command(arguments);
        // The registry lives in this process, so waiting must not hold its thread.
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let is_for_people = !arguments.contains(&"json");
        assert!(!is_for_people || text.lines().all(|line| line.chars().count() <= 80), "{text}");
        (output.status.code().unwrap(), text)
    }

    async fn verify(&self, tag: &str) -> (i32, String) {
        self.run(&["verify", &format!("{HOST}/acme/app:{tag}")]).await
    }
}

/// Provenance by the workflow from one authority, of which a rule speaks; a second policy only warns.
fn policies() -> String {
    let rule = r#"package sigstore
isCompliant { input.predicate.buildType == "x" }
"#;
    let identity = json!({"issuer": ISSUER, "subject": WORKFLOW});
    let attestation = json!({
        "name": "provenance", "predicateType": SLSA, "policy": {"type": "rego", "data": rule},
    });
    let policy = |name: &str, spec: serde_json::Value| {
        let kind = json!({
            "apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy",
            "metadata": {"name": name}, "spec": spec,
        });
        format!("---\n{kind}\n")
    };
    let images = json!([{"glob": "registry.example/acme/**"}]);
    policy(
        "built-by-us",
        json!({"images": images, "authorities": [{
            "name": "release", "keyless": {"identities": [identity]}, "signatureFormat": "bundle", "attestations": [attestation],
        }]}),
    ) + &policy(
        "scanned",
        json!({"images": images, "mode": "warn", "authorities": [{
            "name": "scanner", "keyless": {"identities": [{"issuer": ISSUER, "subjectRegExp": "^https://scan[.]example/.*$"}]},
        }]}),
    )
}

fn filtered() -> insta::internals::SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:PORT");
    settings.add_filter(r"fingerprint [0-9a-f]{12}", "fingerprint FINGERPRINT");
    settings.add_filter(r"sha256:[0-9a-f]{64}", "sha256:DIGEST");
    settings.add_filter(r"sha256:[0-9a-f]{12}…", "sha256:SHORT…");
    settings.add_filter(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME");
    settings.add_filter(r"\b[0-9a-f]{16}\b", "VERDICT");
    settings.add_filter(r"log index \d+", "log index N");
    settings.bind_to_scope()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_shows_policies_authorities_attestations_and_children() {
    let scene = Scene::new().await;
    let _filters = filtered();
    for (tag, expected) in [("good", 0), ("eve", 1), ("unsigned", 1), ("index", 1)] {
        let (status, text) = scene.verify(tag).await;
        assert_eq!(status, expected, "{text}");
        insta::assert_snapshot!(format!("verify_{tag}"), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_audit_mode_verify_names_everybody_who_signed() {
    let scene = Scene::new().await;
    scene.configure("mode = \"audit\"");
    let (status, text) = scene.verify("eve").await;
    assert_eq!(status, 1, "{text}");
    let _filters = filtered();
    insta::assert_snapshot!("verify_audit", text);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_both_formats_overrides_bounds_and_exemptions() {
    let scene = Scene::new().await;
    let more = "[[policy.override]]\nscope = \"registry.example/acme\"\nmode = \"audit\"\nmax_image_bytes = \"2GiB\"\n\
                multi_arch = \"leaf-only\"\n[[policy.override]]\nscope = \"registry.example/acme/huge\"\nmax_image_bytes = \"0\"\n\
                [[policy.exemption]]\nscope = \"registry.example/acme/app:1\"\nreason = \"unsigned until the vendor moves\"\n\
                owner = \"platform-team\"\nexpires = \"2999-01-31T00:00:00Z\"\n";
    scene.configure(more);
    let image = "registry.example/acme/app:1";
    let (status, text) = scene.run(&["policy", "explain", image]).await;
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("at most 2147483648 bytes (2.0 GiB) in config and layers"), "{text}");
    insta::assert_snapshot!("explain", text);
    let json = async |image: &str| {
        let (status, text) = scene.run(&["policy", "explain", "--output", "json", image]).await;
        assert_eq!(status, 0, "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["max_image_bytes"].clone()
    };
    assert_eq!(json("registry.example/acme/huge:1").await, json!(null), "0 is no bound");
    assert_eq!(json("registry.example/else:1").await, json!(null));
}
