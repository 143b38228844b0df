//! What one cold verdict costs: CPU of a whole mirror for an image that it has never seen, discovery over loopback included.
//!
//! `cargo bench --bench cold` (Linux). The mirror has threads of its own; the registry and the client share the main thread, which
//! does not count. Each pull is of another image, so nothing is warm but connections. What `insecureAcceptAnything` costs
//! for the same is subtracted: the rest is looking for signatures, verifying them and keeping the verdict with its evidence.
//! The least of many short rounds counts, since others on the machine only ever add. `-- --quick` takes three minutes; a further
//! word is a part of the names of the rows to run. ext4 passes over inodes that were freed within the last five minutes, one by one, whenever it
//! creates a file: run it where nothing was removed lately (`TMPDIR`), or what is counted is that. The numbers are in `docs/performance.md`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot do its work has nothing to say")]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealgate::clock::Clock;
use sealgate::testing::openpgp::{FakeOpenPgpKey, OpenPgpFlaw};
use sealgate::testing::sigstore::{FakeKey, FakeSigstore, Flaw, Identity, key_requirement};
use sealgate::testing::{
    ACCEPT_ANYTHING, BuiltImage, FakeRegistry, ImageBuilder, Setup, TestSealgate, attach_attestations, attach_bundles,
    attach_signatures, put_lookaside,
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

const REPOSITORY: &str = "team/app";
const EMAIL: &str = "dev@corp.test";
const ISSUER: &str = "https://issuer.test";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const RULE: &str = "package sigstore\n\
    default isCompliant = false\n\
    isCompliant {\n\
      input.predicateType == \"https://slsa.dev/provenance/v1\"\n\
      startswith(input.predicate.buildDefinition.externalParameters.workflow.repository, \"https://github.com/team/\")\n\
      input.predicate.runDetails.builder.id == \"https://builder.test/one\"\n\
    }\n";

/// Pulls of a round.
const PULLS: u32 = 50;

/// Until the disk has all of a round: the database is flushed every second.
const SETTLED: Duration = Duration::from_millis(1200);

/// What the policy asks for, and what the images have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Anything,
    Unsigned,
    LegacyKeyed,
    LegacyKeyless,
    BundleKeyless,
    RekorV2Keyed,
    RekorV2Keyless,
    OpenPgp,
    Attestation,
    AttestationRule,
    BundleRule,
}

const KINDS: [(Kind, &str); 11] = [
    (Kind::Anything, "insecureAcceptAnything"),
    (Kind::Unsigned, "nothing there, so refused"),
    (Kind::LegacyKeyed, "`.sig`, key, no log"),
    (Kind::LegacyKeyless, "`.sig`, keyless, Rekor v1"),
    (Kind::BundleKeyless, "bundle v0.3, keyless, Rekor v1"),
    (Kind::RekorV2Keyed, "bundle v0.3, key, Rekor v2, timestamp"),
    (Kind::RekorV2Keyless, "bundle v0.3, keyless, Rekor v2, timestamp"),
    (Kind::OpenPgp, "OpenPGP from a lookaside server"),
    (Kind::Attestation, "ClusterImagePolicy, attestation at `.att`, keyless"),
    (Kind::AttestationRule, "… with a rule in Rego"),
    (Kind::BundleRule, "ClusterImagePolicy, attestation as bundle, keyless, with a rule in Rego"),
];

/// Those who sign, and where.
struct Outside {
    registry: FakeRegistry,
    sigstore: FakeSigstore,
    key: FakeKey,
    holder: FakeOpenPgpKey,
    images: u64,
}

impl Outside {
    async fn new() -> Self {
        let now = Clock::System.now();
        let sigstore = FakeSigstore::from_seed(41, now);
        let (registry, key) = (FakeRegistry::start().await, sigstore.key("team"));
        Self { registry, sigstore, key, holder: FakeOpenPgpKey::from_seed(41, "team", now), images: 0 }
    }

    fn setup(&self, kind: Kind) -> Setup {
        let policy_json =
            |requirement: Value| TestSealgate::with_policy(&json!({"default": [requirement]}).to_string());
        let policy = |authority: Value| {
            let spec = json!({"images": [{"glob": "**"}], "authorities": [authority]});
            let document = json!({
                "apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": "cold"},
                "spec": spec,
            });
            TestSealgate::with_policy(ACCEPT_ANYTHING)
                .file("cip.yaml", document.to_string())
                .set("policy.cluster_image_policies", vec![toml::Value::from("cip.yaml")])
        };
        let keyless = json!({"identities": [{"issuer": ISSUER, "subject": EMAIL}]});
        let attestation = |format: &str, rule: Option<&str>| {
            let attestation = match rule {
                None => json!({"name": "provenance", "predicateType": PROVENANCE}),
                Some(rule) => {
                    let rule = json!({"type": "rego", "data": rule});
                    json!({"name": "provenance", "predicateType": PROVENANCE, "policy": rule})
                }
            };
            policy(json!({"signatureFormat": format, "keyless": keyless, "attestations": [attestation]}))
        };
        let setup = match kind {
            Kind::Anything => TestSealgate::with_policy(ACCEPT_ANYTHING),
            Kind::Unsigned | Kind::LegacyKeyed => policy_json(key_requirement(&self.key)),
            Kind::LegacyKeyless => policy_json(self.sigstore.fulcio_requirement(EMAIL, ISSUER)),
            Kind::BundleKeyless | Kind::RekorV2Keyless => {
                policy(json!({"signatureFormat": "bundle", "keyless": keyless}))
            }
            Kind::RekorV2Keyed => policy(
                json!({"signatureFormat": "bundle", "key": {"data": self.key.public_pem()}, "ctlog": {"url": ISSUER}}),
            ),
            Kind::OpenPgp => {
                let keys = STANDARD.encode(self.holder.ring());
                let lookaside = format!("default-docker: {{lookaside: '{}'}}", self.registry.lookaside_url());
                let identity = json!({"type": "matchRepository"});
                policy_json(
                    json!({"type": "signedBy", "keyType": "GPGKeys", "keyData": keys, "signedIdentity": identity}),
                )
                .file("registries.d/all.yaml", lookaside)
                .set("policy.registries_d", "registries.d")
            }
            Kind::Attestation => attestation("legacy", None),
            Kind::AttestationRule => attestation("legacy", Some(RULE)),
            Kind::BundleRule => attestation("bundle", Some(RULE)),
        };
        setup
            .upstream("registry.test", self.registry.url())
            .file("trusted_root.json", self.sigstore.trusted_root_json())
            .set("policy.trusted_root", "trusted_root.json")
            .set("log.level", "error")
    }

    /// An image that was never seen, signed.
    fn image(&mut self, kind: Kind) -> BuiltImage {
        self.images += 1;
        let image = ImageBuilder::new(self.images).layer(1000).build();
        let (registry, digest) = (&self.registry, &image.digest());
        registry.put_untagged(REPOSITORY, &image);
        let name = format!("registry.test/{REPOSITORY}");
        let by = || self.sigstore.bundle_by(&Identity::email(EMAIL, ISSUER), digest);
        let attested = || by().predicate(PROVENANCE, provenance());
        match kind {
            Kind::Anything | Kind::Unsigned => {}
            Kind::LegacyKeyed => {
                let signature = self.sigstore.sign_unlogged(&self.key, &name, digest, Flaw::None);
                attach_signatures(registry, REPOSITORY, digest, &[signature]);
            }
            Kind::LegacyKeyless => {
                let signature = self.sigstore.sign_keyless(&name, digest, EMAIL, ISSUER, Flaw::None);
                attach_signatures(registry, REPOSITORY, digest, &[signature]);
            }
            Kind::BundleKeyless => drop(attach_bundles(registry, REPOSITORY, &image.manifest, &[by().build()])),
            Kind::RekorV2Keyed => {
                let bundle = self.sigstore.bundle_keyed(&self.key, digest).rekor_v2().timestamped().build();
                attach_bundles(registry, REPOSITORY, &image.manifest, &[bundle]);
            }
            Kind::RekorV2Keyless => {
                let bundle = by().rekor_v2().timestamped().build();
                attach_bundles(registry, REPOSITORY, &image.manifest, &[bundle]);
            }
            Kind::OpenPgp => {
                let signature = self.holder.sign(&name, digest, OpenPgpFlaw::None);
                put_lookaside(registry, REPOSITORY, digest, &[signature]);
            }
            Kind::Attestation | Kind::AttestationRule => {
                attach_attestations(registry, REPOSITORY, digest, &[attested().build_attestation()]);
            }
            Kind::BundleRule => drop(attach_bundles(registry, REPOSITORY, &image.manifest, &[attested().build()])),
        }
        image
    }
}

/// As large as what GitHub's builders write.
fn provenance() -> Value {
    let dependency = |number: usize| json!({"uri": format!("git+https://github.com/team/dep{number}@refs/heads/main"), "digest": {"gitCommit": "a".repeat(40)}});
    json!({
        "buildDefinition": {
            "buildType": "https://builder.test/workflow/v1",
            "externalParameters": {"workflow": {"ref": "refs/heads/main", "repository": "https://github.com/team/app", "path": ".github/workflows/release.yml"}},
            "internalParameters": {"github": {"event_name": "push", "repository_id": "1", "repository_owner_id": "2"}},
            "resolvedDependencies": (0..20).map(dependency).collect::<Vec<_>>(),
        },
        "runDetails": {"builder": {"id": "https://builder.test/one"}, "metadata": {"invocationId": "https://github.com/team/app/actions/runs/1/attempts/1"}},
    })
}

/// What a pull of some images costs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu: Duration,
    upstream_requests: f64,
}

/// One mirror, with what its pulls cost so far.
struct Row {
    kind: Kind,
    name: &'static str,
    mirror: TestSealgate,
    least: Option<Cost>,
}

impl Row {
    async fn round(&mut self, outside: &mut Outside, pulls: u32) {
        let images: Vec<BuiltImage> = (0..pulls).map(|_| outside.image(self.kind)).collect();
        outside.registry.forget_requests();
        let before = mirrors_cpu();
        for image in &images {
            let answer = self.mirror.get(&format!("/v2/{REPOSITORY}/manifests/{}", image.digest())).await;
            let expected = if self.kind == Kind::Unsigned { 403 } else { 200 };
            assert_eq!(answer.status, expected, "{}: {} {}", self.name, answer.reason, answer.text());
        }
        // What is written behind the answers' backs counts too, the database's flush included.
        tokio::time::sleep(SETTLED).await;
        let cpu = mirrors_cpu().checked_sub(before).unwrap() / pulls;
        let upstream_requests = f64::from(u32::try_from(outside.registry.requests().len()).unwrap()) / f64::from(pulls);
        outside.registry.forget_requests();
        if self.least.is_none_or(|least| cpu < least.cpu) {
            self.least = Some(Cost { cpu, upstream_requests });
        }
    }
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    let rounds = if quick { 8 } else { 40 };
    let mirrors = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(Duration::from_hours(1))
        .enable_all()
        .build()
        .unwrap();
    Builder::new_current_thread().enable_all().build().unwrap().block_on(run(&mirrors, rounds, &part));
    mirrors.shutdown_background();
}

async fn run(mirrors: &Runtime, rounds: u32, part: &str) {
    let mut outside = Outside::new().await;
    let mut rows = Vec::new();
    for (kind, name) in KINDS.into_iter().filter(|(kind, name)| *kind == Kind::Anything || name.contains(part)) {
        let setup = outside.setup(kind);
        let mirror = mirrors.spawn(setup.start()).await.unwrap();
        rows.push(Row { kind, name, mirror, least: None });
    }
    // Connections, and the directories of a new cache.
    for row in &mut rows {
        row.round(&mut outside, 150).await;
        row.least = None;
    }
    for _ in 0..rounds {
        for row in &mut rows {
            row.round(&mut outside, PULLS).await;
        }
    }
    let base = rows.first().unwrap().least.unwrap();
    println!("{rounds} rounds of {PULLS} cold pulls each; CPU of the mirror per pull, least of the rounds");
    println!("{:<75} {:>8} {:>9} {:>9}", "", "CPU µs", "adds µs", "adds requests");
    for row in rows {
        let cost = row.least.unwrap();
        let adds = cost.cpu.saturating_sub(base.cpu);
        println!(
            "{:<75} {:>8} {:>9} {:>9.1}",
            row.name,
            cost.cpu.as_micros(),
            adds.as_micros(),
            cost.upstream_requests - base.upstream_requests
        );
        mirrors.spawn(row.mirror.stop()).await.unwrap();
    }
}

/// CPU that all threads but the main one have used.
fn mirrors_cpu() -> Duration {
    let main = std::process::id().to_string();
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap());
    let nanoseconds = threads.filter(|thread| thread.file_name() != main.as_str()).map(|thread| {
        let line = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        line.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0)
    });
    Duration::from_nanos(nanoseconds.sum())
}
