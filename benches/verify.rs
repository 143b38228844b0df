//! What it costs to verify one candidate, by kind: from its bytes to a verified signature, JSON and statement included; and
//! what a rule in Rego adds. `benches/cold.rs` has what a whole cold verdict costs.
//!
//! `cargo bench --bench verify`. The numbers are in `docs/performance.md`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot do its work has nothing to say")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use sealgate::clock::{Clock, Timestamp};
use sealgate::oci::{Digest, ImageReference};
use sealgate::policy::{ClusterImagePolicies, Decision, Material, PolicyFile, PolicySet, Settings};
use sealgate::testing::openpgp::{FakeOpenPgpKey, OpenPgpFlaw};
use sealgate::testing::sigstore::{FakeSigstore, Flaw, Identity};
use sealgate::verify::{
    AuthorityTrust, IdentityPattern, KeyHash, LogRule, OpenPgpKeys, OpenPgpSignature, Place, SctRule,
    SignatureMaterial, Signers, SigstoreRoot, SigstoreTrust, Source, TextPattern, TimestampRule,
};
use serde_json::{Value, json};

const EMAIL: &str = "dev@corp.com";
const ISSUER: &str = "https://accounts.example.com";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const RULE: &str = "package sigstore\n\
    default isCompliant = false\n\
    isCompliant {\n\
      startswith(input.predicate.buildDefinition.externalParameters.workflow.repository, \"https://github.com/team/\")\n\
      input.predicate.runDetails.builder.id == \"https://builder.test/one\"\n\
    }\n";

fn subject() -> Digest {
    Digest::sha256(b"the manifest")
}

fn keyless(root: &SigstoreRoot) -> AuthorityTrust {
    let identities = vec![IdentityPattern {
        issuer: TextPattern::Exactly(ISSUER.to_owned()),
        subject: TextPattern::matches(r"[a-z]+@corp\.com").unwrap(),
    }];
    let signers = Signers::Keyless { root: root.clone(), identities, sct: SctRule::Required };
    AuthorityTrust::new(signers, LogRule::Required(root.clone()), TimestampRule::NotAsked)
}

fn candidates(criterion: &mut Criterion) {
    let now = Clock::System.now();
    let sigstore = FakeSigstore::from_seed(1, now);
    let root = SigstoreRoot::from_json(sigstore.trusted_root_json().as_bytes()).unwrap();
    let (key, identity) = (sigstore.key("team"), Identity::email(EMAIL, ISSUER));
    let keys = || Signers::Keys { keys: vec![key.public()], hash: KeyHash::Sha256 };
    let unlogged = AuthorityTrust::new(keys(), LogRule::NotAsked, TimestampRule::NotAsked);
    let logged = AuthorityTrust::new(keys(), LogRule::Required(root.clone()), TimestampRule::NotAsked);
    let keyless = keyless(&root);

    let legacy_keyed = sigstore.sign_unlogged(&key, "quay.io/team/app", &subject(), Flaw::None).material();
    let legacy_keyless = sigstore.sign_keyless("quay.io/team/app", &subject(), EMAIL, ISSUER, Flaw::None).material();
    let fulcio = sigstore.fulcio_trust(EMAIL, ISSUER);
    let fulcio = |material: &SignatureMaterial| drop(fulcio.verify(material, &subject(), now).unwrap());
    bench(criterion, "legacy keyed, no log", &legacy_keyed, &|material| judge(&unlogged, material, now));
    bench(criterion, "legacy keyless, policy.json", &legacy_keyless, &fulcio);

    let by = || sigstore.bundle_by(&identity, &subject());
    let keyed = || sigstore.bundle_keyed(&key, &subject());
    let bundles = [
        ("bundle keyed, no log", keyed().unlogged().build(), &unlogged),
        ("bundle keyed, Rekor v1", keyed().build(), &logged),
        ("bundle keyed, Rekor v2, timestamp", keyed().rekor_v2().timestamped().build(), &logged),
        ("bundle keyless, Rekor v1", by().build(), &keyless),
        ("bundle keyless, Rekor v1, timestamp", by().timestamped().build(), &keyless),
        ("bundle keyless, Rekor v2, timestamp", by().rekor_v2().timestamped().build(), &keyless),
    ];
    for (name, bundle, trust) in bundles {
        bench(criterion, name, &bundle.material(), &|material| judge(trust, material, now));
    }
    let layer = by().predicate("https://slsa.dev/provenance/v1", json!({"a": 1})).build_attestation();
    bench(criterion, "legacy attestation keyless", &layer.attestation_material(), &|material| {
        drop(keyless.verify_attestation(material, &subject(), now).unwrap());
    });
    openpgp(criterion, now);
    rules(criterion, &sigstore, now);
    loading(criterion, &sigstore);
}

/// A whole ClusterImagePolicy over one attestation, without and with a rule: the difference is the rule's.
fn rules(criterion: &mut Criterion, sigstore: &FakeSigstore, now: Timestamp) {
    let identity = Identity::email(EMAIL, ISSUER);
    let layer = sigstore.bundle_by(&identity, &subject()).predicate(PROVENANCE, provenance()).build_attestation();
    let material = Material { candidates: vec![at_att(layer.attestation_material())], ..Material::default() };
    let image: ImageReference = "quay.io/team/app:1".parse().unwrap();
    for (name, rule) in [("policy, attestation", None), ("policy, attestation, rule in Rego", Some(RULE))] {
        let policy = policy(sigstore, rule);
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                let verdict = policy.evaluate(&image, &subject(), black_box(&material), now).unwrap();
                assert_eq!(verdict.decision, Decision::Allow, "{}", verdict.text);
            });
        });
    }
}

fn policy(sigstore: &FakeSigstore, rule: Option<&str>) -> PolicySet {
    let attestation = match rule {
        None => json!({"name": "provenance", "predicateType": PROVENANCE}),
        Some(rule) => {
            let rule = json!({"type": "rego", "data": rule});
            json!({"name": "provenance", "predicateType": PROVENANCE, "policy": rule})
        }
    };
    let keyless = json!({"identities": [{"issuer": ISSUER, "subject": EMAIL}]});
    let document = json!({
        "apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": "cost"},
        "spec": {"images": [{"glob": "**"}], "authorities": [{"keyless": keyless, "attestations": [attestation]}]},
    });
    let beside = |_: &str| Err(String::new());
    let file = PolicyFile::parse("cip.yaml", document.to_string().as_bytes(), &mut { beside }).unwrap();
    let root = SigstoreRoot::from_json(sigstore.trusted_root_json().as_bytes()).unwrap();
    let policies = ClusterImagePolicies::resolve(vec![file], &root).unwrap();
    PolicySet::new(Settings { cluster_image_policies: Some(policies), ..Settings::default() }).unwrap()
}

fn at_att(mut material: SignatureMaterial) -> SignatureMaterial {
    if let SignatureMaterial::Attestation(attestation) = &mut material {
        attestation.source.place = Place::Tag(format!("sha256-{}.att", subject().hex()));
    }
    material
}

/// As large as what GitHub's builders write.
fn provenance() -> Value {
    let dependency = |number: usize| json!({"uri": format!("git+https://github.com/team/dep{number}@refs/heads/main"), "digest": {"gitCommit": "a".repeat(40)}});
    json!({
        "buildDefinition": {
            "externalParameters": {"workflow": {"ref": "refs/heads/main", "repository": "https://github.com/team/app"}},
            "resolvedDependencies": (0..20).map(dependency).collect::<Vec<_>>(),
        },
        "runDetails": {"builder": {"id": "https://builder.test/one"}},
    })
}

fn openpgp(criterion: &mut Criterion, now: Timestamp) {
    let key = FakeOpenPgpKey::from_seed(1, "release", now);
    let keys = OpenPgpKeys::parse(&[key.ring()]).unwrap();
    let bytes = key.sign("quay.io/team/app:1.0", &subject(), OpenPgpFlaw::None);
    let place = Place::Lookaside("file:///sigstore".to_owned());
    let source = Source { repository: None, manifest: Digest::sha256(&bytes), place, layer: 0 };
    let signature = OpenPgpSignature { signature: bytes.into(), source };
    criterion.bench_function("OpenPGP", |bencher| {
        bencher.iter(|| keys.verify(black_box(&signature), &subject(), now).unwrap());
    });
}

/// What a reload costs, not a pull.
fn loading(criterion: &mut Criterion, sigstore: &FakeSigstore) {
    let document = sigstore.trusted_root_json();
    criterion.bench_function("loading a trust root", |bencher| {
        bencher.iter(|| SigstoreRoot::from_json(black_box(document.as_bytes())).unwrap());
    });
    let pem = sigstore.key("team").public_pem();
    criterion.bench_function("loading a key", |bencher| {
        bencher.iter(|| {
            let key = sealgate::verify::PublicKey::from_pem(black_box(pem.as_bytes())).unwrap();
            SigstoreTrust::keyed(vec![key], None)
        });
    });
}

fn judge(trust: &AuthorityTrust, material: &SignatureMaterial, now: Timestamp) {
    drop(trust.verify_signature(material, &subject(), now).unwrap());
}

fn bench(criterion: &mut Criterion, name: &str, material: &SignatureMaterial, verify: &dyn Fn(&SignatureMaterial)) {
    criterion.bench_function(name, |bencher| bencher.iter(|| verify(black_box(material))));
}

criterion_group!(benches, candidates);
criterion_main!(benches);
