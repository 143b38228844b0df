//! Every good kind passes the library's checks; so what is refused is refused for its flaw.

use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Bundle, DerPublicKey, Sha256Hash};
use sigstore_verify::{CertificateError, Error, PublicKeyVerificationPolicy, VerificationPolicy, Verifier};

use super::*;
use crate::clock::Clock;
use crate::oci::Digest;

const EMAIL: &str = "dev@corp.com";
const ISSUER: &str = "https://accounts.example.com";

fn sigstore() -> FakeSigstore {
    FakeSigstore::from_seed(3, Clock::System.now())
}

fn digest() -> Digest {
    Digest::sha256(b"the manifest")
}

fn verifier(root: &str) -> Verifier {
    Verifier::new(&TrustedRoot::from_json(root).unwrap()).unwrap()
}

fn verify(sigstore: &FakeSigstore, bundle: &Value) -> Result<(), Error> {
    let bundle = Bundle::from_json(&bundle.to_string()).unwrap();
    let policy = VerificationPolicy::new(EMAIL, ISSUER);
    verifier(&sigstore.trusted_root_json()).verify(b"message".as_slice(), &bundle, &policy).map(|_| ())
}

fn judge(root: &str, bundle: &FakeBundle, key: Option<&FakeKey>) -> Result<(), String> {
    let bundle = Bundle::from_json(&bundle.json.to_string()).map_err(|error| error.to_string())?;
    let subject = Sha256Hash::from_hex(&digest().hex()).unwrap();
    let verifier = verifier(root);
    let result = match key {
        Some(key) => {
            let key = DerPublicKey::from_pem(&key.public_pem()).unwrap();
            verifier.verify(subject, &bundle, &PublicKeyVerificationPolicy::new(key))
        }
        None => verifier.verify(subject, &bundle, &VerificationPolicy::new(EMAIL, ISSUER)),
    };
    result.map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn a_bundle_passes_every_check_of_the_library_sct_and_inclusion_proof_too() {
    let sigstore = sigstore();
    let identity = Identity::email(EMAIL, ISSUER);
    verify(&sigstore, &sigstore.bundle(b"message", &identity, Flaw::None)).unwrap();

    for flaw in [Flaw::NoSct, Flaw::SctByUnknownLog, Flaw::SctForOtherCertificate] {
        let error = verify(&sigstore, &sigstore.bundle(b"message", &identity, flaw)).unwrap_err();
        assert!(matches!(error, Error::Certificate(CertificateError::Sct(_))), "{flaw:?}: {error}");
    }
    let mut other_root = sigstore.bundle(b"message", &identity, Flaw::None);
    other_root["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["rootHash"] =
        STANDARD.encode([0; 32]).into();
    assert!(verify(&sigstore, &other_root).is_err());
}

#[test]
fn every_good_kind_of_bundle_passes_the_library() {
    let sigstore = sigstore();
    let (identity, key, digest) = (Identity::email(EMAIL, ISSUER), sigstore.key("team"), digest());
    let root = sigstore.trusted_root_json();
    let builders = [(sigstore.bundle_by(&identity, &digest), None), (sigstore.bundle_keyed(&key, &digest), Some(&key))];
    for (builder, key) in builders {
        let kinds = [
            ("dsse", builder.clone()),
            ("intoto", builder.clone().intoto()),
            ("timestamped", builder.clone().timestamped()),
            ("rekor v2", builder.clone().rekor_v2().timestamped()),
            ("attestation", builder.clone().predicate("https://slsa.dev/provenance/v1", json!({"a": 1}))),
            ("second subject", builder.clone().subjects(2)),
            ("two digests", builder.clone().digests(2)),
            ("two leaves, first", builder.clone().tree(2, 0)),
            ("two leaves, second", builder.clone().tree(2, 1)),
            ("three leaves, first", builder.clone().tree(3, 0)),
            ("three leaves, second", builder.clone().tree(3, 1)),
            ("three leaves, third", builder.clone().tree(3, 2)),
            ("three leaves of rekor v2", builder.clone().rekor_v2().timestamped().tree(3, 2)),
        ];
        for (kind, builder) in kinds {
            judge(&root, &builder.build(), key).unwrap_or_else(|error| panic!("{kind} {key:?}: {error}"));
        }
    }
    // Rekor v2 gives no time; a key needs none.
    judge(&root, &sigstore.bundle_keyed(&key, &digest).rekor_v2().build(), Some(&key)).unwrap();
    judge(&root, &sigstore.bundle_by(&identity, &digest).rekor_v2().build(), None).unwrap_err();
}

#[test]
fn a_workflow_has_the_claims_that_fulcio_writes() {
    let sigstore = sigstore();
    let workflow = Identity::github("octo/app", "release.yml", "refs/heads/main", "push", &"a".repeat(40));
    let bundle = sigstore.bundle_by(&workflow, &digest()).build();
    let bundle = Bundle::from_json(&bundle.json.to_string()).unwrap();
    let policy = VerificationPolicy::new(
        "https://github.com/octo/app/.github/workflows/release.yml@refs/heads/main",
        "https://token.actions.githubusercontent.com",
    );
    let subject = Sha256Hash::from_hex(&digest().hex()).unwrap();
    let outcome = verifier(&sigstore.trusted_root_json()).verify(subject, &bundle, &policy).unwrap();
    let claims = &outcome.certificate().unwrap().ci_claims;
    assert_eq!(claims.source_repository_uri.as_deref(), Some("https://github.com/octo/app"));
    assert_eq!(claims.build_trigger.as_deref(), Some("push"));
    assert_eq!(claims.deprecated_github.workflow_repository.as_deref(), Some("octo/app"));
}

#[test]
fn the_same_seed_gives_the_same_keys_and_another_seed_others() {
    let now = Clock::System.now();
    let [one, again, other] = [1, 1, 2].map(|seed| FakeSigstore::from_seed(seed, now));
    assert_eq!(one.rekor_pem(), again.rekor_pem());
    assert_eq!(one.key("a").public_pem(), again.key("a").public_pem());
    assert_ne!(one.key("a").public_pem(), one.key("b").public_pem());
    assert_ne!(one.rekor_pem(), other.rekor_pem());
}
