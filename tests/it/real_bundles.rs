//! A real bundle and a real attestation, under the public-good trust root. They are read from `SEALGATE_FIXTURES`.

use std::collections::BTreeMap;
use std::path::Path;

use sealgate::clock::Timestamp;
use sealgate::oci::Digest;
use sealgate::trust::TrustRoot;
use sealgate::verify::{
    AuthorityTrust, BundleMaterial, Identified, IdentityPattern, LegacyAttestation, LogRule, Place, SctRule,
    SignatureMaterial, Signer, Signers, SigstoreRoot, Source, TextPattern, TimestampRule, VerifyError,
};
use serde_json::Value;

use crate::fixtures::fixtures;

fn now() -> Timestamp {
    "2026-11-20T00:00:00Z".parse().unwrap()
}

fn public_good() -> SigstoreRoot {
    TrustRoot::built_in().unwrap().sigstore_root().clone()
}

fn keyless(root: &SigstoreRoot, issuer: &str, subject: TextPattern) -> AuthorityTrust {
    let identities = vec![IdentityPattern { issuer: TextPattern::Exactly(issuer.to_owned()), subject }];
    let signers = Signers::Keyless { root: root.clone(), identities, sct: SctRule::Required };
    AuthorityTrust::new(signers, LogRule::Required(root.clone()), TimestampRule::NotAsked)
}

fn source(bytes: &[u8], place: Place) -> Source {
    Source { repository: None, manifest: Digest::sha256(bytes), place, layer: 0 }
}

#[test]
fn a_real_bundle_is_good_for_its_subject_and_signer_and_is_no_plain_signature() {
    let Some(fixtures) = fixtures() else { return };
    let bytes = std::fs::read(fixtures.join("bundles/oci-attestation.sigstore.json")).unwrap();
    let source = source(&bytes, Place::Referrer);
    let material = SignatureMaterial::Bundle(BundleMaterial { bundle: bytes.into(), source });
    let subject: Digest = "sha256:732112270d7e59418a8c080b134b24cabd67d250d0d0147a97ed95ba5c280aa4".parse().unwrap();
    let of_then = std::fs::read(fixtures.join("bundles/trusted_root_pgi.json")).unwrap();

    for root in [public_good(), SigstoreRoot::from_json(&of_then).unwrap()] {
        let exactly = TextPattern::Exactly("cody@soyland.com".to_owned());
        let trust = keyless(&root, "https://github.com/login/oauth", exactly);
        let verified = trust.verify_attestation(&material, &subject, now()).unwrap();
        assert_eq!(verified.statement.predicate_type, "https://cosign.sigstore.dev/attestation/v1");
        assert!(verified.signature.log.unwrap().integrated.is_some());

        let other = Digest::sha256(b"other");
        let error = trust.verify_attestation(&material, &other, now()).unwrap_err();
        assert_eq!(error, VerifyError::OtherSubject { subject: other, subjects: 1 });
        let error = trust.verify_signature(&material, &subject, now()).unwrap_err();
        assert!(matches!(error, VerifyError::NotASignature { .. }), "{error}");
        let other = keyless(&root, "https://accounts.google.com", TextPattern::matches(".*").unwrap());
        let error = other.verify_attestation(&material, &subject, now()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "signed by cody@soyland.com (issuer \"https://github.com/login/oauth\"), whom no identity of the policy names"
        );
        let identified = root.identify(&material, &subject, now()).unwrap();
        assert!(matches!(identified, Identified::Attestation(_)), "{identified:?}");
    }
}

/// The layer of the `.att` manifest of the image in `fixtures/slsa-image`.
fn slsa_attestation(layout: &Path) -> SignatureMaterial {
    let blob = |digest: &str| std::fs::read(layout.join("blobs/sha256").join(digest)).unwrap();
    let manifest: Value =
        serde_json::from_slice(&blob("31cc4fb663c8d34e2e6a0bd5f183d576c2811ee286e0998b4c2965e3b35a0d86")).unwrap();
    let layer = &manifest["layers"][0];
    let annotations = layer["annotations"].as_object().unwrap().iter();
    let annotations: BTreeMap<String, String> =
        annotations.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    let envelope = blob(layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap());
    let source = source(&envelope, Place::Tag("sha256-e0a0.att".to_owned()));
    SignatureMaterial::Attestation(LegacyAttestation { envelope: envelope.into(), annotations, source })
}

#[test]
fn a_real_attestation_by_a_workflow_is_good_for_its_index_alone() {
    let Some(fixtures) = fixtures() else { return };
    let material = slsa_attestation(&fixtures.join("slsa-image/layout"));
    let index: Digest = std::fs::read_to_string(fixtures.join("slsa-image/digest")).unwrap().trim().parse().unwrap();
    let issuer = "https://token.actions.githubusercontent.com";
    let workflow = "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/generator_container_slsa3.yml@refs/tags/v1.10.0";
    let root = public_good();

    let trust = keyless(&root, issuer, TextPattern::Exactly(workflow.to_owned()));
    let verified = trust.verify_attestation(&material, &index, now()).unwrap();
    assert_eq!(verified.statement.predicate_type, "https://slsa.dev/provenance/v0.2");
    let Signer::Certificate { issuer: Some(found), subjects, workflow: claims } = verified.signature.signer else {
        panic!("a certificate signed it");
    };
    assert_eq!((found.as_str(), subjects.as_slice()), (issuer, [workflow.to_owned()].as_slice()));
    assert_eq!(claims.repository.as_deref(), Some("slsa-framework/example-package"));
    assert_eq!(claims.trigger.as_deref(), Some("push"));
    assert_eq!(claims.reference.as_deref(), Some("refs/tags/v13.0.30"));
    assert_eq!(claims.extensions["buildSignerURI"], workflow);
    assert_eq!(claims.extensions["runnerEnvironment"], "github-hosted");

    for other in [".*@refs/tags/v1\\.9\\.0", "https://github.com/slsa-framework/slsa-github-generator"] {
        let other = keyless(&root, issuer, TextPattern::matches(other).unwrap());
        let error = other.verify_attestation(&material, &index, now()).unwrap_err();
        assert!(matches!(error, VerifyError::OtherIdentity { .. }), "{error}");
    }
    let child = "sha256:fe5ca62666f04366c8e7f605aa82997d71320183e99962fa76b3209fdfbb8b58".parse().unwrap();
    let error = trust.verify_attestation(&material, &child, now()).unwrap_err();
    assert!(matches!(error, VerifyError::OtherSubject { .. }), "{error}");
    let error = trust.verify_signature(&material, &index, now()).unwrap_err();
    assert!(matches!(error, VerifyError::OtherKind { .. }), "{error}");
    let before = "2024-01-01T00:00:00Z".parse().unwrap();
    let error = trust.verify_attestation(&material, &index, before).unwrap_err();
    assert!(matches!(error, VerifyError::LoggedInFuture { .. }), "{error}");
}
