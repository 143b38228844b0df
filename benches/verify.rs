//! What it costs to verify one candidate, by kind: from its bytes to a verified signature, JSON and statement included.
//!
//! `cargo bench --bench verify`. The numbers are in `docs/performance.md`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot do its work has nothing to say")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use sealgate::clock::{Clock, Timestamp};
use sealgate::oci::Digest;
use sealgate::testing::openpgp::{FakeOpenPgpKey, OpenPgpFlaw};
use sealgate::testing::sigstore::{FakeSigstore, Flaw, Identity};
use sealgate::verify::{
    AuthorityTrust, IdentityPattern, KeyHash, LogRule, OpenPgpKeys, OpenPgpSignature, Place, SctRule,
    SignatureMaterial, Signers, SigstoreRoot, SigstoreTrust, Source, TextPattern, TimestampRule,
};
use serde_json::json;

const EMAIL: &str = "dev@corp.com";
const ISSUER: &str = "https://accounts.example.com";

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
    loading(criterion, &sigstore);
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
