//! The public conformance cases of the Sigstore project, judged by our verifier. They are read from `SEALGATE_FIXTURES`.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sealgate::clock::Clock;
use sealgate::oci::Digest;
use sealgate::trust::{TrustRoot, TrustSource};
use sealgate::verify::{
    AuthorityTrust, BundleMaterial, IdentityPattern, KeyHash, LogRule, Place, PublicKey, SctRule, SignatureMaterial,
    Signers, SigstoreRoot, Source, TextPattern, TimestampRule, VerifyError,
};

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

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bundle: Bytes,
    pub(crate) artifact: Digest,
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

    pub(crate) fn should_pass(&self) -> bool {
        !self.name.ends_with("_fail")
    }

    fn is_older(&self) -> bool {
        OLDER.contains(&self.name.as_str())
    }

    /// As an attestation where it is one, else as a signature over the artifact.
    pub(crate) fn judge(&self, bundle: Bytes, place: Place) -> Result<(), VerifyError> {
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
pub(crate) fn cases() -> Vec<Case> {
    let Some(fixtures) = fixtures() else { return Vec::new() };
    let folder = fixtures.join("conformance/bundle-verify");
    let public_good = TrustRoot::load(&TrustSource::BuiltIn).unwrap();
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

const DSSE: &[u8] = b"\"dsseEnvelope\"";
const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
