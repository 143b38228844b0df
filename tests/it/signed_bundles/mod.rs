//! Bundles and attestations through the whole mirror: a real registry, referrers, ClusterImagePolicies, both outcomes.

mod layouts;
mod named;
mod rules;
mod spam;

use sealgate::clock::Clock;
use sealgate::testing::http::Answer;
use sealgate::testing::sigstore::{BundleBuilder, FakeBundle, FakeKey, FakeSigstore, Flaw, Identity};
use sealgate::testing::{
    ACCEPT_ANYTHING, BUNDLE_TYPE, BuiltImage, FakeRegistry, ImageBuilder, RawServer, TestSealgate, attach_attestations,
    attach_bundles,
};
use serde_json::{Value, json};

const REPOSITORY: &str = "team/app";
const EMAIL: &str = "dev@corp.test";
const ISSUER: &str = "https://issuer.test";
const SEED: u64 = 18;
const SPDX: &str = "https://spdx.dev/Document";
const VULNERABILITIES: &str = "https://cosign.sigstore.dev/attestation/vuln/v1";

/// What the ClusterImagePolicy asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// A signature by the lab's key, logged.
    Key,
    /// A signature by [`EMAIL`].
    Keyless,
    /// A signature by this workflow.
    Workflow(&'static str),
    /// An attestation of this type by [`EMAIL`].
    Attestation(&'static str),
    /// The same, at `.att`.
    AttestationLayer(&'static str),
}

struct Lab {
    registry: FakeRegistry,
    sigstore: FakeSigstore,
    key: FakeKey,
    mirror: TestSealgate,
}

impl Lab {
    async fn new(wants: Wants) -> Self {
        Self::with_root(wants, "https://rekor.sigstore.dev", |root| root).await
    }

    /// As [`Self::new`]; the policy names that log, and the trust root is changed.
    async fn with_root(wants: Wants, log: &str, change: impl Fn(String) -> String) -> Self {
        let now = Clock::System.now();
        println!("seed {SEED}, now {now}");
        let sigstore = FakeSigstore::from_seed(SEED, now);
        let (registry, key) = (FakeRegistry::start().await, sigstore.key("team"));
        let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING)
            .upstream("registry.test", registry.url())
            .file("cip.yaml", policy(wants, &key, log))
            .file("trusted_root.json", change(sigstore.trusted_root_json()))
            .set("policy.cluster_image_policies", vec![toml::Value::from("cip.yaml")])
            .set("policy.trusted_root", "trusted_root.json")
            .start()
            .await;
        Self { registry, sigstore, key, mirror }
    }

    fn image(&self, seed: u64) -> BuiltImage {
        let image = ImageBuilder::new(seed).layer(1000).build();
        self.registry.put_untagged(REPOSITORY, &image);
        image
    }

    /// A good bundle, as the policy wants it.
    fn bundle(&self, wants: Wants, image: &BuiltImage) -> BundleBuilder<'_> {
        match wants {
            Wants::Key => self.sigstore.bundle_keyed(&self.key, &image.digest()),
            Wants::Keyless => self.sigstore.bundle_by(&signer(), &image.digest()),
            Wants::Workflow(file) => self.sigstore.bundle_by(&workflow(file), &image.digest()),
            Wants::Attestation(kind) | Wants::AttestationLayer(kind) => {
                self.sigstore.bundle_by(&signer(), &image.digest()).predicate(kind, json!({"a": 1}))
            }
        }
    }

    fn attach(&self, image: &BuiltImage, bundles: &[FakeBundle]) {
        attach_bundles(&self.registry, REPOSITORY, &image.manifest, bundles);
    }

    async fn pull(&self, image: &BuiltImage) -> Answer {
        self.mirror.get(&format!("/v2/{REPOSITORY}/manifests/{}", image.digest())).await
    }

    #[track_caller]
    fn is_served(image: &BuiltImage, answer: &Answer) {
        assert_eq!(answer.status, 200, "{} {}", answer.reason, answer.text());
        assert_eq!(answer.body, image.manifest.bytes);
    }

    #[track_caller]
    fn is_denied(answer: &Answer, reason: &str) {
        assert_eq!(answer.status, 403, "{} {}", answer.reason, answer.text());
        assert_eq!(answer.json()["errors"][0]["detail"]["reason"], reason, "{}", answer.text());
    }

    async fn stop(self) {
        self.mirror.stop().await;
    }
}

fn signer() -> Identity {
    Identity::email(EMAIL, ISSUER)
}

fn workflow(file: &str) -> Identity {
    Identity::github("octo/app", file, "refs/heads/main", "push", &"a".repeat(40))
}

fn policy(wants: Wants, key: &FakeKey, log: &str) -> String {
    let keyless =
        |issuer: &str, subject: &str| json!({"url": log, "identities": [{"issuer": issuer, "subject": subject}]});
    let format = if matches!(wants, Wants::AttestationLayer(_)) { "legacy" } else { "bundle" };
    let mut authority = json!({"name": "team", "signatureFormat": format, "ctlog": {"url": log}});
    match wants {
        Wants::Key => authority["key"] = json!({"data": key.public_pem()}),
        Wants::Keyless => authority["keyless"] = keyless(ISSUER, EMAIL),
        Wants::Workflow(file) => {
            let uri = format!("https://github.com/octo/app/.github/workflows/{file}@refs/heads/main");
            authority["keyless"] = keyless("https://token.actions.githubusercontent.com", &uri);
        }
        Wants::Attestation(kind) | Wants::AttestationLayer(kind) => {
            authority["keyless"] = keyless(ISSUER, EMAIL);
            authority["attestations"] = json!([{"name": "wanted", "predicateType": kind}]);
        }
    }
    // JSON is YAML.
    json!({
        "apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": "signed"},
        "spec": {"images": [{"glob": "**"}], "authorities": [authority]},
    })
    .to_string()
}

#[tokio::test]
async fn bundles_of_rekor_v1_and_v2_are_served_keyed_and_keyless() {
    for wants in [Wants::Key, Wants::Keyless] {
        let lab = Lab::new(wants).await;
        let (v1, v2, none) = (lab.image(1), lab.image(2), lab.image(3));
        lab.attach(&v1, &[lab.bundle(wants, &v1).build()]);
        lab.attach(&v2, &[lab.bundle(wants, &v2).rekor_v2().timestamped().tree(3, 2).build()]);
        for image in [&v1, &v2] {
            Lab::is_served(image, &lab.pull(image).await);
            let blob = format!("/v2/{REPOSITORY}/blobs/{}", image.blobs[1].digest);
            assert_eq!(lab.mirror.get(&blob).await.body, image.blobs[1].bytes);
        }
        Lab::is_denied(&lab.pull(&none).await, "no_signature");
        lab.stop().await;
    }
}

#[tokio::test]
async fn a_bundle_of_rekor_v2_with_one_flaw_is_refused() {
    for wants in [Wants::Key, Wants::Keyless] {
        let lab = Lab::new(wants).await;
        let flaws = [
            Flaw::NoTimestamp,
            Flaw::TimestampOfOtherSignature,
            Flaw::TimestampByOtherAuthority,
            Flaw::CheckpointByOtherLog,
            Flaw::ProofHashEdited,
            Flaw::NoLogEntry,
            Flaw::EntryOfOtherPayload,
            Flaw::CorruptSignature,
            Flaw::OtherDigest,
            Flaw::OtherPredicateType,
        ];
        for (seed, flaw) in (10..).zip(flaws) {
            let image = lab.image(seed);
            let bundle = lab.bundle(wants, &image).rekor_v2().timestamped().tree(3, 1).flaw(flaw).build();
            lab.attach(&image, &[bundle]);
            let answer = lab.pull(&image).await;
            assert_eq!(answer.status, 403, "{wants:?} {flaw:?}: {}", answer.text());
        }
        lab.stop().await;
    }
}

#[tokio::test]
async fn another_signer_or_another_workflow_is_refused() {
    let wants = Wants::Workflow("release.yml");
    let lab = Lab::new(wants).await;
    let (good, other, person) = (lab.image(1), lab.image(2), lab.image(3));
    lab.attach(&good, &[lab.bundle(wants, &good).build()]);
    lab.attach(&other, &[lab.bundle(Wants::Workflow("test.yml"), &other).build()]);
    lab.attach(&person, &[lab.bundle(Wants::Keyless, &person).build()]);
    Lab::is_served(&good, &lab.pull(&good).await);
    Lab::is_denied(&lab.pull(&other).await, "identity_mismatch");
    Lab::is_denied(&lab.pull(&person).await, "identity_mismatch");
    lab.stop().await;
}

/// CVE-2022-35929, CVE-2022-35930, CVE-2026-39395: an attestation of another type than the wanted one, a signature in place
/// of an attestation, and something that cannot be read.
#[tokio::test]
async fn t06_an_attestation_of_another_type_is_not_the_one_that_is_wanted() {
    let lab = Lab::new(Wants::Attestation(SPDX)).await;
    let [good, vuln, plain, unreadable] = [1, 2, 3, 4].map(|seed| lab.image(seed));
    let attestation = |kind, image: &BuiltImage| lab.bundle(Wants::Attestation(kind), image);
    lab.attach(&good, &[attestation(SPDX, &good).build()]);
    lab.attach(&vuln, &[attestation(VULNERABILITIES, &vuln).build()]);
    lab.attach(&plain, &[lab.bundle(Wants::Keyless, &plain).build()]);
    lab.attach(&unreadable, &[attestation(SPDX, &unreadable).flaw(Flaw::StatementNotJson).build()]);
    Lab::is_served(&good, &lab.pull(&good).await);
    Lab::is_denied(&lab.pull(&vuln).await, "no_attestation");
    Lab::is_denied(&lab.pull(&plain).await, "no_attestation");
    Lab::is_denied(&lab.pull(&unreadable).await, "bad_signature");
    lab.stop().await;
}

/// The same at `.att`, under `signatureFormat: legacy`.
#[tokio::test]
async fn t06_the_attestation_that_is_wanted_may_stand_beside_others_at_att() {
    let lab = Lab::new(Wants::AttestationLayer(SPDX)).await;
    let [good, vuln, unreadable] = [1, 2, 3].map(|seed| lab.image(seed));
    let layer =
        |kind, image: &BuiltImage, flaw| lab.bundle(Wants::Attestation(kind), image).flaw(flaw).build_attestation();
    let rows = [
        (&good, vec![layer(VULNERABILITIES, &good, Flaw::None), layer(SPDX, &good, Flaw::None)]),
        (&vuln, vec![layer(VULNERABILITIES, &vuln, Flaw::None)]),
        (&unreadable, vec![layer(SPDX, &unreadable, Flaw::StatementNotJson)]),
    ];
    for (image, layers) in rows {
        attach_attestations(&lab.registry, REPOSITORY, &image.digest(), &layers);
    }
    Lab::is_served(&good, &lab.pull(&good).await);
    Lab::is_denied(&lab.pull(&vuln).await, "no_attestation");
    Lab::is_denied(&lab.pull(&unreadable).await, "bad_signature");
    lab.stop().await;
}

/// CVE-2023-47122: trust comes from the configuration alone; no address in a policy, a trust root or a signature is asked.
#[tokio::test]
async fn t13_nothing_that_a_trust_root_or_a_signature_names_is_ever_dialled() {
    let trap = RawServer::answering("HTTP/1.1 200 OK\r\n\r\n").await;
    let address = format!("http://{}", trap.address());
    let change = |root: String| {
        let mut root: Value = serde_json::from_str(&root).unwrap();
        for list in ["tlogs", "ctlogs"] {
            for log in root[list].as_array_mut().unwrap() {
                log["baseUrl"] = address.clone().into();
            }
        }
        for list in ["certificateAuthorities", "timestampAuthorities"] {
            root[list][0]["uri"] = address.clone().into();
        }
        root.to_string()
    };
    let lab = Lab::with_root(Wants::Keyless, &address, change).await;
    let (good, flawed, unsigned) = (lab.image(1), lab.image(2), lab.image(3));
    lab.attach(&good, &[lab.bundle(Wants::Keyless, &good).rekor_v2().timestamped().build()]);
    lab.attach(&flawed, &[lab.bundle(Wants::Keyless, &flawed).flaw(Flaw::NoProof).build()]);
    Lab::is_served(&good, &lab.pull(&good).await);
    Lab::is_denied(&lab.pull(&flawed).await, "no_log_entry");
    Lab::is_denied(&lab.pull(&unsigned).await, "no_signature");
    assert_eq!(trap.requests().len(), 0);
    lab.stop().await;
}

/// A bundle that is none at all.
fn malformed() -> FakeBundle {
    FakeBundle { json: json!({"mediaType": BUNDLE_TYPE}), predicate_type: String::new() }
}
