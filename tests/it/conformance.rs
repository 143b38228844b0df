//! The public conformance cases of the Sigstore project, judged by our verifier. They are read from `SEALGATE_FIXTURES`.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sealgate::clock::Clock;
use sealgate::limits::SIGNATURE_BYTES_MAX;
use sealgate::oci::{Digest, Reference, RepositoryName};
use sealgate::telemetry::Telemetry;
use sealgate::testing::{FakeRegistry, ImageBuilder};
use sealgate::trust::TrustRoot;
use sealgate::upstream::Upstream;
use sealgate::verify::{
    AuthorityTrust, BundleMaterial, IdentityPattern, KeyHash, LogRule, Place, PublicKey, SctRule, SignatureMaterial,
    Signers, SigstoreRoot, Source, TextPattern, TimestampRule, VerifyError,
};
use serde_json::{Value, json};

use crate::fixtures::fixtures;

/// Cases whose bundles are older than v0.3. As referrers they are refused for that, good or bad; among them are the only
/// good cases that this path does not accept.
const OLDER: [&str; 12] = [
    "bundle-empty-certificate-chain_fail",
    "bundle-invalid-base64-signature_fail",
    "bundle-negative-log-index_fail",
    "bundle-with-root-cert_fail",
    "checkpoint-bad-keyhint_fail",
    "happy-path-v0.1",
    "intoto-log-entry-mismatch_fail",
    "intoto-set-outside-signing-cert-validity_fail",
    "intoto-with-custom-trust-root",
    "invalid-ct-key_fail",
    "signature-mismatch_fail",
    "trust-root-tlog-validity-end-inclusive",
];

struct Case {
    name: String,
    bundle: Bytes,
    artifact: Digest,
    trust: AuthorityTrust,
}

impl Case {
    fn read(folder: &Path, shared_artifact: &Path, public_good: &[u8]) -> Self {
        let optional = |name: &str| fs::read(folder.join(name)).ok();
        let text = |name: &str, or: &str| {
            optional(name).map_or_else(|| or.to_owned(), |bytes| String::from_utf8(bytes).unwrap().trim().to_owned())
        };
        let root = optional("trusted_root.json").unwrap_or_else(|| public_good.to_vec());
        let root = SigstoreRoot::from_json(&root).unwrap();
        let signers = match optional("key.pub") {
            Some(key) => Signers::Keys { keys: vec![PublicKey::from_pem(&key).unwrap()], hash: KeyHash::Sha256 },
            None => Signers::Keyless {
                root: root.clone(),
                identities: vec![IdentityPattern {
                    issuer: TextPattern::Exactly(text("issuer", "https://token.actions.githubusercontent.com")),
                    subject: TextPattern::Exactly(text("identity", IDENTITY)),
                }],
                sct: SctRule::Required,
            },
        };
        let artifact = optional("artifact").unwrap_or_else(|| fs::read(shared_artifact).unwrap());
        Self {
            name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
            bundle: fs::read(folder.join("bundle.sigstore.json")).unwrap().into(),
            artifact: Digest::sha256(&artifact),
            trust: AuthorityTrust::new(signers, LogRule::Required(root), TimestampRule::NotAsked),
        }
    }

    fn should_pass(&self) -> bool {
        !self.name.ends_with("_fail")
    }

    fn is_older(&self) -> bool {
        OLDER.contains(&self.name.as_str())
    }

    /// As an attestation where it is one, else as a signature over the artifact.
    fn judge(&self, bundle: Bytes, place: Place) -> Result<(), VerifyError> {
        let is_envelope = bundle.windows(DSSE.len()).any(|window| window == DSSE);
        let source = Source { repository: None, manifest: Digest::sha256(&bundle), place, layer: 0 };
        let material = SignatureMaterial::Bundle(BundleMaterial { bundle, source });
        let now = Clock::System.now();
        if is_envelope {
            self.trust.verify_attestation(&material, &self.artifact, now).map(drop)
        } else {
            self.trust.verify_signature(&material, &self.artifact, now).map(drop)
        }
    }
}

/// All cases, in their order; none where the fixtures are not at hand.
fn cases() -> Vec<Case> {
    let Some(fixtures) = fixtures() else { return Vec::new() };
    let folder = fixtures.join("conformance/bundle-verify");
    let public_good = TrustRoot::built_in().unwrap();
    let mut folders: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    assert!(folders.len() >= 35, "the collection has 35 cases, found {}", folders.len());
    folders.iter().map(|case| Case::read(case, &folder.join("a.txt"), public_good.document())).collect()
}

#[test]
fn v_30_every_conformance_case_is_judged_right() {
    let (mut passed, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in cases() {
        let answer = case.judge(case.bundle.clone(), Place::Tag("bundle".to_owned()));
        match (case.should_pass(), &answer) {
            (true, Ok(())) => passed += 1,
            (false, Err(_)) => refused += 1,
            _ => wrong.push(format!("{}: {answer:?}", case.name)),
        }
    }
    println!(
        "conformance: {} cases, {passed} accepted, {refused} refused, {} wrong",
        passed + refused + wrong.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The way of a pull: the bundle is the layer of a manifest whose subject is the artifact's digest. It is found by the
/// referrers API, fetched by digest, and judged as what it was found as. Older bundles are not found among referrers; they
/// are fetched by a tag.
#[tokio::test]
async fn v_30_every_conformance_case_is_judged_right_from_a_registry() {
    let cases = cases();
    let registry = FakeRegistry::start().await;
    let settings = registry.settings("registry.test");
    let telemetry = Telemetry::new(std::slice::from_ref(&settings.host));
    let client = Upstream::new(settings, telemetry).unwrap();
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in &cases {
        let repository = format!("conformance/{}", case.name.to_lowercase().replace('_', "-"));
        let bundle = case.bundle.clone();
        let subject = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": case.artifact.to_string(), "size": 1});
        let artefact = ImageBuilder::artefact(BUNDLE).subject(subject).layer_of(BUNDLE, bundle, &[]).build();
        registry.put(&repository, "bundle", &artefact);

        let name: RepositoryName = repository.parse().unwrap();
        let found = client.referrers(&name, &case.artifact).await.unwrap().unwrap();
        let [referrer] = found.manifests.as_slice() else { panic!("{}: one referrer", case.name) };
        let by_digest = client.manifest(&name, &Reference::Digest(referrer.digest)).await.unwrap();
        let by_tag = client.manifest(&name, &"bundle".parse().unwrap()).await.unwrap();
        assert_eq!(by_digest.digest, by_tag.digest);
        let manifest: Value = serde_json::from_slice(&by_digest.bytes).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
        let bytes = client.small_blob(&name, &layer, SIGNATURE_BYTES_MAX).await.unwrap();

        let place = if case.is_older() { Place::Tag("bundle".to_owned()) } else { Place::Referrer };
        let answer = case.judge(bytes, place);
        match (case.should_pass(), &answer) {
            (true, Ok(())) => accepted += 1,
            (false, Err(_)) => refused += 1,
            _ => wrong.push(format!("{}: {answer:?}", case.name)),
        }
    }
    assert_eq!(accepted + refused + wrong.len(), cases.len());
    println!(
        "conformance from a registry: {} cases, {accepted} accepted, {refused} refused, {} wrong",
        cases.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn v_30_as_referrers_bundles_older_than_v03_are_refused_and_all_others_judged_right() {
    for case in cases() {
        let answer = case.judge(case.bundle.clone(), Place::Referrer);
        if case.is_older() {
            assert!(matches!(answer, Err(VerifyError::BundleVersion { .. })), "{}: {answer:?}", case.name);
        } else {
            assert_eq!(answer.is_ok(), case.should_pass(), "{}: {answer:?}", case.name);
        }
    }
}

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const DSSE: &[u8] = b"\"dsseEnvelope\"";
const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
