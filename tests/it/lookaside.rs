//! OpenPGP signatures beside the registry: fetched, judged, kept; "no" and "don't know" told apart.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealgate::clock::Clock;
use sealgate::oci::{Algorithm, Digest, MediaType};
use sealgate::policy::{
    BundlesWithoutIdentity, ContainersPolicy, ContainersPolicyDocument, Mode, Override, Reason, RegistriesD, Settings,
};
use sealgate::telemetry::Telemetry;
use sealgate::testing::openpgp::{FakeOpenPgpKey, OpenPgpFlaw};
use sealgate::testing::sigstore::{FakeBundle, FakeSigstore, key_requirement};
use sealgate::testing::{Content, FakeRegistry, Fault, attach_bundles, put_lookaside};
use sealgate::upstream::Upstream;
use sealgate::verify::SigstoreRoot;
use serde_json::{Value, json};

use crate::lab::{Image, Lab, Policy, denied_for, is_undecided};

const REFERENCE: &str = "registry.test/team/app:1";

fn holder(name: &str) -> FakeOpenPgpKey {
    FakeOpenPgpKey::from_seed(7, name, Clock::System.now())
}

fn signed_by(holder: &FakeOpenPgpKey) -> Value {
    json!({"type": "signedBy", "keyType": "GPGKeys", "keyData": STANDARD.encode(holder.ring())})
}

fn registries_d(text: &str) -> RegistriesD {
    RegistriesD::parse(&[("a.yaml".to_owned(), text.as_bytes().to_vec())]).unwrap()
}

fn settings(requirements: &[Value], registries_d: RegistriesD) -> Settings {
    let document = json!({ "default": requirements }).to_string();
    let document = ContainersPolicyDocument::parse(document.as_bytes()).unwrap();
    let containers_policy = ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap();
    Settings { containers_policy: Some(containers_policy), registries_d, ..Settings::default() }
}

/// A lab whose policy wants the signature of one holder from a lookaside server beside the registry.
struct Scene {
    lab: Lab,
    holder: FakeOpenPgpKey,
    image: Image,
}

impl Scene {
    async fn new() -> Self {
        let lab = Lab::new(Policy::Signed).await;
        let (holder, image) = (holder("vendor"), lab.image("app"));
        lab.tag("1", &image);
        let base = format!("docker: {{registry.test: {{lookaside: '{}'}}}}", lab.registry.lookaside_url());
        lab.reload_with(settings(&[signed_by(&holder)], registries_d(&base)));
        Self { lab, holder, image }
    }

    fn sign(&self, flaw: OpenPgpFlaw) -> Vec<u8> {
        self.holder.sign(REFERENCE, &self.image.digest, flaw)
    }

    fn put(&self, signatures: &[Vec<u8>]) {
        put_lookaside(&self.lab.registry, "team/app", &self.image.digest, signatures);
    }

    fn pass(&self, time: Duration) {
        self.lab.clock.advance(time);
    }
}

#[tokio::test]
async fn a_signature_beside_the_registry_admits_the_image_and_is_asked_for_without_credentials() {
    let scene = Scene::new().await;
    scene.put(&[scene.sign(OpenPgpFlaw::None)]);
    let admitted = scene.lab.pull("1").await.unwrap();
    assert_eq!(admitted.bytes(), &scene.image.bytes);
    let asked = scene.lab.registry.requests().into_iter().filter(|request| request.path.starts_with("/lookaside/"));
    let asked: Vec<_> = asked.collect();
    assert_eq!(asked.len(), 2, "signature-1, and signature-2 to know that there is no more");
    assert!(asked.iter().all(|request| request.header("authorization").is_none()));
    let place = format!("/lookaside/team/app@sha256={}/signature-1", scene.image.digest.hex());
    assert_eq!(asked[0].path, place);
    assert_eq!(scene.lab.asked("GET", ".sig"), 0, "nothing else is looked for");
    let verdict = &scene.lab.verdicts().await[0];
    assert_eq!(verdict.text, format!("signed by the OpenPGP key {}", scene.holder.fingerprint()));
}

#[tokio::test]
async fn any_of_several_signatures_is_enough_and_none_is_a_clean_no() {
    let scene = Scene::new().await;
    assert_eq!(denied_for(scene.lab.pull("1").await), Reason::NoSignature);
    scene.pass(Duration::from_secs(61));
    scene.put(&[scene.sign(OpenPgpFlaw::Corrupt), b"no signature".to_vec(), scene.sign(OpenPgpFlaw::None)]);
    scene.lab.pull("1").await.unwrap();
}

#[tokio::test]
async fn a_signature_by_somebody_else_or_for_something_else_admits_nothing() {
    for (signature, reason) in
        [(0, Reason::WrongKey), (1, Reason::BadSignature), (2, Reason::IdentityMismatch), (3, Reason::Expired)]
    {
        let scene = Scene::new().await;
        let digest = scene.image.digest;
        let signature = match signature {
            0 => holder("somebody").sign(REFERENCE, &digest, OpenPgpFlaw::None),
            1 => scene.holder.sign(REFERENCE, &Digest::sha256(b"another"), OpenPgpFlaw::None),
            2 => scene.holder.sign("registry.test/team/app:2", &digest, OpenPgpFlaw::None),
            _ => scene.sign(OpenPgpFlaw::Expired),
        };
        scene.put(&[signature]);
        assert_eq!(denied_for(scene.lab.pull("1").await), reason);
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_cleanly_is_no_answer() {
    let faults = [
        Fault::on("/lookaside/*").status(500),
        Fault::on("/lookaside/*").status(403),
        Fault::on("/lookaside/*").status(429),
        Fault::on("/lookaside/*").status(204),
        Fault::on("/lookaside/*").reset(),
        Fault::on("/lookaside/*").status(302),
        Fault::on("/lookaside/*").redirect("http://169.254.169.254/x"),
        Fault::on("/lookaside/*").redirect("ftp://registry.test/x"),
        Fault::on("/lookaside/*").header("content-type", "text/html"),
    ];
    for fault in faults {
        let scene = Scene::new().await;
        scene.put(&[scene.sign(OpenPgpFlaw::None)]);
        scene.lab.registry.fault(fault.clone());
        let result = scene.lab.pull("1").await;
        assert!(is_undecided(&result), "{fault:?}: {result:?}");
        scene.lab.registry.heal();
        scene.lab.pull("1").await.unwrap();
    }
}

#[tokio::test]
async fn what_passes_by_itself_is_asked_again_and_counted_as_the_registrys_own_requests_are() {
    let registry = FakeRegistry::start().await;
    registry.put_file("/lookaside/signature-1", "signature");
    let host = sealgate::oci::Host::from_str("registry.test").unwrap();
    let telemetry = Telemetry::new(std::slice::from_ref(&host));
    let upstream = Upstream::new(registry.settings("registry.test"), telemetry.clone()).unwrap();
    let url = format!("{}/signature-1", registry.lookaside_url()).parse().unwrap();
    let counted = |class: &str| {
        let series = format!(
            "sealgate_upstream_requests_total{{code_class=\"{class}\",op=\"lookaside\",upstream=\"registry.test\"}}"
        );
        let line =
            telemetry.render().lines().find_map(|line| line.strip_prefix(&format!("{series} ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{series}"))
    };
    for fault in [Fault::on("/lookaside/*").status(503).times(2), Fault::on("/lookaside/*").reset().times(2)] {
        registry.heal();
        registry.fault(fault.clone());
        let found = upstream.lookaside(&url, 100).await;
        assert_eq!(found.unwrap().unwrap(), "signature", "{fault:?}");
    }
    assert_eq!((counted("5xx"), counted("connect"), counted("2xx")), ("2".into(), "2".into(), "2".into()));
    // Not for ever, and not what only asks for patience.
    registry.heal();
    registry.forget_requests();
    registry.fault(Fault::on("/lookaside/*").status(503));
    assert!(upstream.lookaside(&url, 100).await.is_err());
    assert_eq!(registry.count("*", "*"), 1 + sealgate::limits::UPSTREAM_RETRIES_MAX);
    registry.heal();
    registry.forget_requests();
    registry.fault(Fault::on("/lookaside/*").status(503).header("retry-after", "7"));
    assert!(upstream.lookaside(&url, 100).await.is_err());
    assert_eq!(registry.count("*", "*"), 1);
}

#[tokio::test]
async fn a_list_that_breaks_off_can_allow_and_cannot_deny() {
    let scene = Scene::new().await;
    scene.put(&[scene.sign(OpenPgpFlaw::Corrupt), scene.sign(OpenPgpFlaw::None)]);
    scene.lab.registry.fault(Fault::on("/lookaside/*/signature-2").status(500));
    assert!(is_undecided(&scene.lab.pull("1").await));
    scene.put(&[scene.sign(OpenPgpFlaw::None), scene.sign(OpenPgpFlaw::None)]);
    scene.lab.pull("1").await.unwrap();
}

#[tokio::test]
async fn a_redirect_within_the_server_is_followed() {
    let scene = Scene::new().await;
    let elsewhere = "/moved/signature";
    scene.lab.registry.put_file(elsewhere, scene.sign(OpenPgpFlaw::None));
    scene.lab.registry.fault(Fault::on("/lookaside/*/signature-1").redirect(elsewhere));
    scene.lab.pull("1").await.unwrap();
}

#[tokio::test]
async fn a_redirect_to_another_port_of_the_server_is_one_to_anywhere() {
    let (scene, other) = (Scene::new().await, FakeRegistry::start().await);
    scene.put(&[scene.sign(OpenPgpFlaw::None)]);
    let elsewhere = format!("{}/signature", other.url().trim_end_matches('/'));
    scene.lab.registry.fault(Fault::on("/lookaside/*").redirect(&elsewhere));
    assert!(is_undecided(&scene.lab.pull("1").await));
    assert_eq!(other.connections(), 0, "nobody dials a loopback address that nobody named");
}

#[tokio::test]
async fn v18_as_many_signatures_as_are_looked_at_may_hold_the_good_one_and_one_more_is_too_many() {
    let scene = Scene::new().await;
    let bad = || holder("somebody").sign(REFERENCE, &scene.image.digest, OpenPgpFlaw::None);
    let mut signatures: Vec<Vec<u8>> = std::iter::repeat_with(bad).take(63).collect();
    signatures.push(scene.sign(OpenPgpFlaw::None));
    scene.put(&signatures);
    scene.lab.pull("1").await.unwrap();

    let scene = Scene::new().await;
    signatures.insert(0, bad());
    scene.put(&signatures);
    assert_eq!(denied_for(scene.lab.pull("1").await), Reason::TooManySignatures);
}

#[tokio::test]
async fn a_signature_that_is_too_long_is_passed_over_on_both_sides_of_the_bound() {
    let max = usize::try_from(sealgate::limits::SIGNATURE_BYTES_MAX).unwrap();
    for (bytes, reason) in [(max, Reason::BadSignature), (max + 1, Reason::NoSignature)] {
        let scene = Scene::new().await;
        scene.put(&[vec![0xa3; bytes]]);
        assert_eq!(denied_for(scene.lab.pull("1").await), reason, "{bytes}");
        scene.pass(Duration::from_secs(61));
        scene.put(&[vec![0xa3; bytes], scene.sign(OpenPgpFlaw::None)]);
        scene.lab.pull("1").await.unwrap();
    }
}

#[tokio::test]
async fn what_an_allow_rests_on_is_verified_again_while_the_server_is_away() {
    let mut scene = Scene::new().await;
    scene.put(&[scene.sign(OpenPgpFlaw::None)]);
    scene.lab.pull("1").await.unwrap();
    scene.pass(Duration::from_secs(25 * 3600));
    scene.lab.registry.fault(Fault::on("/lookaside/*").status(503));
    scene.lab.pull("1").await.unwrap();

    // Whole upstream away, by a process that has nothing in memory.
    scene.lab = scene.lab.stop_upstream().restart().await;
    let base = format!("docker: {{registry.test: {{lookaside: '{}'}}}}", scene.lab.registry.lookaside_url());
    scene.lab.reload_with(settings(&[signed_by(&scene.holder)], registries_d(&base)));
    scene.pass(Duration::from_secs(25 * 3600));
    scene.lab.pull_digest(&scene.image.digest).await.unwrap();
    // Another key: what was kept cannot allow, and cannot deny either.
    scene.lab.reload_with(settings(&[signed_by(&holder("somebody"))], registries_d(&base)));
    assert!(is_undecided(&scene.lab.pull_digest(&scene.image.digest).await));
}

#[tokio::test]
async fn a_signature_that_was_taken_away_does_not_come_back_when_the_server_is_away() {
    let scene = Scene::new().await;
    scene.put(&[scene.sign(OpenPgpFlaw::None)]);
    scene.lab.pull("1").await.unwrap();
    scene.pass(Duration::from_secs(25 * 3600));
    scene.lab.registry.fault(Fault::on("/lookaside/*").status(404));
    assert_eq!(denied_for(scene.lab.pull("1").await), Reason::NoSignature);
    scene.pass(Duration::from_secs(3600));
    scene.lab.registry.heal();
    scene.lab.registry.fault(Fault::on("/lookaside/*").status(503));
    assert!(is_undecided(&scene.lab.pull("1").await));
}

#[tokio::test]
async fn a_directory_holds_signatures_as_a_server_does() {
    let scene = Scene::new().await;
    let root = tempfile::tempdir().unwrap();
    let base = root.path().join("signatures");
    let files = |base: &Path| registries_d(&format!("default-docker: {{sigstore: 'file://{}'}}", base.display()));
    scene.lab.reload_with(settings(&[signed_by(&scene.holder)], files(&base)));
    assert!(is_undecided(&scene.lab.pull("1").await), "a directory that is not there says nothing");
    let image = base.join(format!("team/app@sha256={}", scene.image.digest.hex()));
    std::fs::create_dir_all(&image).unwrap();
    assert_eq!(denied_for(scene.lab.pull("1").await), Reason::NoSignature);
    scene.pass(Duration::from_secs(61));
    std::fs::write(image.join("signature-1"), scene.sign(OpenPgpFlaw::None)).unwrap();
    scene.lab.pull("1").await.unwrap();
    assert_eq!(scene.lab.registry.requests().iter().filter(|one| one.path.contains("lookaside")).count(), 0);
}

#[tokio::test]
async fn both_kinds_of_signatures_can_be_asked_for_at_once() {
    let scene = Scene::new().await;
    let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
    let cosign = key_requirement(&sigstore.key("the signer"));
    let base = format!("docker: {{registry.test/team: {{lookaside: '{}'}}}}", scene.lab.registry.lookaside_url());
    scene.lab.reload_with(settings(&[signed_by(&scene.holder), cosign], registries_d(&base)));
    scene.put(&[scene.sign(OpenPgpFlaw::None)]);
    assert_eq!(denied_for(scene.lab.pull("1").await), Reason::NoSignature);
    scene.pass(Duration::from_secs(61));
    scene.lab.sign(&scene.image.digest);
    scene.lab.pull("1").await.unwrap();
}

#[tokio::test]
async fn attachments_are_looked_for_unless_a_file_says_no() {
    let lab = Lab::new(Policy::Signed).await;
    lab.signed_image("1");
    let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
    let cosign = [key_requirement(&sigstore.key("the signer"))];
    for yes in ["", "default-docker: {}", "docker: {registry.test: {use-sigstore-attachments: true}}"] {
        lab.reload_with(settings(&cosign, registries_d(yes)));
        lab.pull("1").await.unwrap();
    }
    let no = "docker: {registry.test/team: {use-sigstore-attachments: false}}";
    lab.reload_with(settings(&cosign, registries_d(no)));
    let asked = lab.asked("GET", ".sig");
    assert_eq!(denied_for(lab.pull("1").await), Reason::NoSignature);
    assert_eq!(lab.asked("GET", ".sig"), asked);
    let verdict = lab.verdicts().await.into_iter().find(|verdict| verdict.reason == Reason::NoSignature).unwrap();
    assert!(verdict.text.contains("use-sigstore-attachments: false"), "{}", verdict.text);
}

#[tokio::test]
async fn a_bundle_names_no_reference_and_counts_only_where_the_digest_is_enough() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("app");
    lab.tag("1", &image);
    let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
    let key = sigstore.key("the signer");
    let cosign = [key_requirement(&key)];
    let attach = |bundle: &FakeBundle| {
        let subject = Content::new(Algorithm::Sha256, MediaType::OciManifest.as_str(), image.bytes.clone());
        attach_bundles(&lab.registry, "team/app", &subject, std::slice::from_ref(bundle));
    };
    let enough = |scope: &str| {
        let over = Override {
            bundles_without_identity: Some(BundlesWithoutIdentity::DigestIsEnough),
            ..Override::of(scope.parse().unwrap())
        };
        Settings { overrides: vec![over], ..settings(&cosign, RegistriesD::default()) }
    };

    // An attestation is no signature, whatever is allowed.
    let attestation =
        sigstore.bundle_keyed(&key, &image.digest).unlogged().predicate("https://spdx.dev/Document", json!({}));
    attach(&attestation.build());
    lab.reload_with(enough("registry.test"));
    assert_eq!(denied_for(lab.pull("1").await), Reason::NoSignature);
    let text = lab.verdicts().await[0].text.clone();
    assert!(text.contains("(0 non-sigstore signatures, 1 sigstore non-signature attachments)"), "{text}");

    attach(&sigstore.bundle_keyed(&key, &image.digest).unlogged().build());
    lab.clock.advance(Duration::from_secs(61));
    lab.pull("1").await.unwrap();

    lab.reload_with(settings(&cosign, RegistriesD::default()));
    let refused = lab.pull("1").await.unwrap_err().to_string();
    assert_eq!(denied_for(lab.pull("1").await), Reason::IdentityMismatch);
    let says = "bundle signature carries no docker-reference; signedIdentity cannot be checked";
    assert!(
        lab.verdicts()
            .await
            .iter()
            .any(|one| one.text.starts_with(says) && one.text.contains("bundles_without_identity = true")),
        "{refused}"
    );
    lab.reload_with(enough("registry.test/other"));
    assert_eq!(denied_for(lab.pull("1").await), Reason::IdentityMismatch);
    lab.reload_with(enough("registry.test/team/app:1"));
    lab.pull("1").await.unwrap();

    // Nor does an override make somebody else's bundle count.
    lab.reload_with(Settings {
        overrides: enough("registry.test").overrides,
        ..settings(&[key_requirement(&sigstore.key("another"))], RegistriesD::default())
    });
    assert_eq!(denied_for(lab.pull("1").await), Reason::BadSignature);
}

#[tokio::test]
async fn audit_mode_names_the_holder_of_a_key_that_the_policy_has_for_other_images() {
    let scene = Scene::new().await;
    scene.put(&[
        scene.sign(OpenPgpFlaw::None),
        holder("somebody").sign(REFERENCE, &scene.image.digest, OpenPgpFlaw::None),
    ]);
    let document = json!({
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {"registry.test/other": [signed_by(&scene.holder)]}},
    });
    let document = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
    let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
    let base = format!("docker: {{registry.test: {{lookaside: '{}'}}}}", scene.lab.registry.lookaside_url());
    scene.lab.reload_with(Settings {
        containers_policy: Some(ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap()),
        registries_d: registries_d(&base),
        trust_root: Some(SigstoreRoot::from_json(sigstore.trusted_root_json().as_bytes()).unwrap()),
        mode: Mode::Audit,
        ..Settings::default()
    });
    scene.lab.pull("1").await.unwrap();
    let evidence = scene.lab.reported_evidence().await;
    let [signer] = evidence["signers"].as_array().unwrap().as_slice() else { panic!("{evidence}") };
    assert_eq!(signer["signer"]["openpgp"], scene.holder.fingerprint());
    assert_eq!(evidence["other_signatures"][0]["openpgp"], holder("somebody").fingerprint());
}
