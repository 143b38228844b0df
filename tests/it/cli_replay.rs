//! `sealgate policy replay`: over the verdicts of a mirror that runs, and of one that is down; no registry is asked.

use sealgate::clock::Clock;
use sealgate::oci::Digest;
use sealgate::testing::sigstore::{FakeSigstore, Flaw, Identity};
use sealgate::testing::{
    ACCEPT_ANYTHING, FakeRegistry, ImageBuilder, REJECT, TestSealgate, attach_bundles, attach_signatures,
};
use serde_json::{Value, json};

use crate::program::{Place, Ran};

const HOST: &str = "registry.example";
const EMAIL: &str = "release@acme.example";
const OTHER_EMAIL: &str = "eve@acme.example";
const ISSUER: &str = "https://accounts.acme.example";

/// A mirror that decided about `acme/app:signed`, `:unsigned`, `:other` (signed by [`OTHER_EMAIL`]), `:index` (unsigned) and
/// `:lost` (as `other`, but what its signature signs is not kept any more), under a policy that wants [`EMAIL`]'s signature;
/// and the same configuration in a directory for the command.
struct Scene {
    registry: FakeRegistry,
    mirror: Option<TestSealgate>,
    place: Place,
    /// Of [`IMAGES`].
    digests: Vec<Digest>,
}

fn policy(sigstore: &FakeSigstore, email: &str) -> String {
    let requirement = sigstore.fulcio_requirement(email, ISSUER);
    json!({"default": [{"type": "reject"}], "transports": {"docker": {"registry.example/acme": [requirement]}}})
        .to_string()
}

/// Wants [`EMAIL`]'s signature beside policy.json.
fn cluster_image_policy(more: &str) -> String {
    format!(
        "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: also\nspec:\n  images:\n    - glob: \
         \"**\"\n  authorities:\n    - keyless:\n        identities: [{{issuer: '{ISSUER}', subject: '{EMAIL}'}}]\n{more}"
    )
}

impl Scene {
    async fn new() -> Self {
        let registry = FakeRegistry::start().await;
        let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
        let place = Place::with_policy(&policy(&sigstore, EMAIL));
        for (name, content) in [
            ("other.json", policy(&sigstore, OTHER_EMAIL)),
            ("same.json", policy(&sigstore, EMAIL)),
            ("accept.json", ACCEPT_ANYTHING.to_owned()),
            ("reject.json", REJECT.to_owned()),
            ("broken.json", "{}".to_owned()),
            (
                "attested.yaml",
                cluster_image_policy("      attestations: [{name: scan, predicateType: https://scan.example/v1}]\n"),
            ),
            ("elsewhere.yaml", cluster_image_policy("      source: [{oci: registry.example/acme/signatures}]\n")),
        ] {
            place.write(name, &content);
        }
        let data_dir = place.path().join("data").display().to_string();
        let config = format!(
            "[server]\ndata_dir = \"{data_dir}\"\n[policy]\ncontainers_policy = \"policy.json\"\n\
             [[upstream]]\nhost = \"{HOST}\"\nendpoint = \"http://127.0.0.1:9\"\n"
        );
        place.write("config/sealgate.toml", &config);
        place.write("config/other.toml", &config.replace("policy.json", "../reject.json"));
        let mirror = TestSealgate::with_policy(&policy(&sigstore, EMAIL))
            .set("server.data_dir", data_dir)
            .upstream(HOST, registry.url())
            .start()
            .await;
        let (mut lost, mut digests) = (Vec::new(), Vec::new());
        for (seed, (tag, status, signer)) in (1..).zip(IMAGES) {
            let image = ImageBuilder::new(seed).layer(1000).build();
            let repository = format!("{HOST}/acme/app");
            let digest = if tag == "index" {
                let index = ImageBuilder::index([image]).build();
                registry.put("acme/app", tag, &index);
                index.digest()
            } else {
                registry.put("acme/app", tag, &image);
                image.digest()
            };
            digests.push(digest);
            if let Some(email) = signer {
                let signature = sigstore.sign_keyless(&repository, &digest, email, ISSUER, Flaw::None);
                if tag == "lost" {
                    lost.push(Digest::sha256(&signature.payload));
                }
                attach_signatures(&registry, "acme/app", &digest, &[signature]);
            }
            let answer = mirror.get(&format!("/v2/acme/app/manifests/{tag}")).await;
            assert_eq!(answer.status, status, "{}", answer.text());
        }
        for digest in lost {
            let hex = digest.hex();
            let file = place.path().join("data/blobs/sha256").join(&hex[..2]).join(&hex);
            // It is written soon after the answer.
            while std::fs::remove_file(&file).is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
        Self { registry, mirror: Some(mirror), place, digests }
    }

    async fn stop(&mut self) {
        self.mirror.take().unwrap().stop().await;
    }

    async fn replay(&self, with: &str) -> Ran {
        self.replay_as(with, "json").await
    }

    async fn replay_as(&self, with: &str, output: &str) -> Ran {
        let admin = self.mirror.as_ref().map_or("http://127.0.0.1:9".to_owned(), TestSealgate::admin_url);
        let mut command =
            self.place.command(&["policy", "replay", "--with", with, "--admin", &admin, "--output", output]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        Ran {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The status, and what becomes of each of [`IMAGES`].
    async fn outcomes(&self, with: &str) -> (i32, Vec<String>) {
        let ran = self.replay(with).await;
        let value: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran}"));
        let verdicts = value["verdicts"].as_array().unwrap();
        // The image that the index lists has a verdict under the same name.
        let of = |digest: &Digest| {
            let verdict = verdicts.iter().find(|one| one["digest"] == digest.to_string());
            verdict.unwrap_or_else(|| panic!("{digest}: {ran}"))["result"].as_str().unwrap().to_owned()
        };
        (ran.status, self.digests.iter().map(of).collect())
    }
}

/// Tags, what the mirror answers, and who signed.
const IMAGES: [(&str, u16, Option<&str>); 5] = [
    ("signed", 200, Some(EMAIL)),
    ("unsigned", 403, None),
    ("other", 403, Some(OTHER_EMAIL)),
    ("index", 403, None),
    ("lost", 403, Some(OTHER_EMAIL)),
];
const SAME: &str = "unchanged";
const DENIED: &str = "allow_to_deny";
const ALLOWED: &str = "deny_to_allow";
const UNKNOWN: &str = "cannot_tell";

#[tokio::test]
async fn replay_tells_what_flips_what_stays_and_what_cannot_be_told_also_beside_a_running_mirror() {
    let mut scene = Scene::new().await;
    let asked = scene.registry.requests().len();
    for running in [true, false] {
        if !running {
            scene.stop().await;
        }
        let rows = [
            ("same.json", 3, [SAME, SAME, SAME, UNKNOWN, UNKNOWN]),
            ("other.json", 1, [DENIED, SAME, ALLOWED, UNKNOWN, UNKNOWN]),
            ("accept.json", 1, [SAME, ALLOWED, ALLOWED, ALLOWED, ALLOWED]),
            ("reject.json", 1, [DENIED, SAME, SAME, SAME, SAME]),
            ("config/other.toml", 1, [DENIED, SAME, SAME, SAME, SAME]),
            // Neither was looked for, and may be there.
            ("attested.yaml", 3, [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]),
            ("elsewhere.yaml", 3, [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]),
        ];
        for (with, status, expected) in rows {
            let expected = (status, expected.map(str::to_owned).to_vec());
            assert_eq!(scene.outcomes(with).await, expected, "{with}, running: {running}");
        }
        assert_eq!(scene.replay("broken.json").await.status, 2);
        assert_eq!(scene.replay("missing.json").await.status, 2);
    }
    assert_eq!(scene.registry.requests().len(), asked, "no registry is asked");
}

#[tokio::test]
async fn people_read_what_flips_and_what_cannot_be_told_with_the_reason_and_a_count() {
    let mut scene = Scene::new().await;
    scene.stop().await;
    let ran = scene.replay_as("other.json", "text").await;
    assert_eq!(ran.status, 1, "{ran}");
    for says in [
        "allow -> deny  registry.example/acme/app:signed\n",
        "deny -> allow  registry.example/acme/app:other\n",
        "cannot tell  registry.example/acme/app:lost\n",
        // The image that the index lists has a verdict of its own.
        "6 verdicts: 2 unchanged, 2 flip, 2 cannot be told\nnext: with the other policy ",
    ] {
        assert!(ran.stdout.contains(says), "{says}: {ran}");
    }
    assert!(!ran.stdout.contains("app:unsigned"), "what does not change is counted only: {ran}");
}

#[tokio::test]
async fn a_replay_that_finds_nothing_to_tell_ends_well_and_one_that_cannot_read_the_verdicts_does_not() {
    let mut scene = Scene::new().await;
    scene.stop().await;
    let data = scene.place.path().join("data");
    // Under another policy in force, nothing that is stored is of interest.
    scene.place.write("config/policy.json", ACCEPT_ANYTHING);
    let ran = scene.replay("same.json").await;
    assert_eq!((ran.status, ran.stdout.contains("\"verdicts\": []")), (0, true), "{ran}");
    std::fs::remove_file(data.join("verdict.key")).unwrap();
    let ran = scene.replay("same.json").await;
    assert_eq!(ran.status, 2, "{ran}");
    assert!(ran.stderr.contains("cannot be read") && ran.stderr.contains("verdict.key"), "{ran}");
    assert!(!data.join("verdict.key").exists(), "nothing is made");
}

/// The record of a verdict is small: a long list of material lies in its evidence file, and is not among what a mirror lists that
/// was started again.
#[tokio::test]
async fn material_that_is_listed_in_the_evidence_file_alone_is_found_beside_a_running_mirror() {
    let mut scene = Scene::new().await;
    let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
    let image = ImageBuilder::new(77).layer(1000).build();
    scene.registry.put("acme/app", "many", &image);
    let digest = image.digest();
    let signature = sigstore.sign_keyless(&format!("{HOST}/acme/app"), &digest, EMAIL, ISSUER, Flaw::None);
    attach_signatures(&scene.registry, "acme/app", &digest, &[signature]);
    let bundles: Vec<_> = (0..30)
        .map(|number| {
            let identity = Identity::email(&format!("{number}@elsewhere.example"), ISSUER);
            sigstore.bundle_by(&identity, &digest).build()
        })
        .collect();
    attach_bundles(&scene.registry, "acme/app", &image.manifest, &bundles);
    let mirror = scene.mirror.as_mut().unwrap();
    assert_eq!(mirror.get("/v2/acme/app/manifests/many").await.status, 200);
    mirror.restart().await;
    let listed = async || mirror.admin_get("/api/v1/verdicts").await.json()["verdicts"].as_array().unwrap().clone();
    // It lists what it finds in its database, in a task of its own.
    while listed().await.iter().all(|verdict| verdict["digest"] != digest.to_string()) {
        tokio::task::yield_now().await;
    }
    let short = listed().await.into_iter().find(|verdict| verdict["digest"] == digest.to_string()).unwrap();
    assert_eq!((&short["material"], &short["material_complete"]), (&json!([]), &json!(false)));
    let id = short["id"].as_str().unwrap();
    let whole = mirror.admin_get(&format!("/api/v1/verdicts/{id}")).await.json();
    assert_eq!((whole["material"].as_array().unwrap().len(), &whole["material_complete"]), (31, &json!(true)));

    scene.digests = vec![digest];
    assert_eq!(scene.outcomes("other.json").await.1, [DENIED]);
    assert_eq!(scene.outcomes("same.json").await.1, [SAME]);
    scene.stop().await;
    assert_eq!(scene.outcomes("other.json").await.1, [DENIED], "as over the database itself");
}
