//! The public conformance cases of the Sigstore project, as they lie in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::clock::Clock;
use crate::oci::Digest;
use crate::trust::TrustRoot;
use crate::verify::{
    AuthorityTrust, BundleMaterial, IdentityPattern, KeyHash, LogRule, Place, PublicKey, SctRule, SignatureMaterial,
    Signers, SigstoreRoot, Source, TextPattern, TimestampRule, VerifyError,
};

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

/// One case: a bundle, what it is about, and whom it must be trusted by.
#[derive(Debug)]
pub struct ConformanceCase {
    /// The folder's name.
    pub name: String,
    /// The bundle, as it lies there.
    pub bundle: Bytes,
    /// What was signed.
    pub artifact: Digest,
    trust: AuthorityTrust,
}

impl ConformanceCase {
    /// All cases of the folder `bundle-verify`, in the order of their names.
    pub fn all(folder: &Path) -> Vec<Self> {
        let public_good = TrustRoot::built_in().unwrap();
        let mut folders: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        folders.retain(|path| path.is_dir());
        folders.sort();
        assert!(folders.len() >= 35, "the collection has 35 cases, found {}", folders.len());
        folders.iter().map(|case| Self::read(case, &folder.join("a.txt"), public_good.document())).collect()
    }

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

    /// Whether it is one to accept.
    pub fn should_pass(&self) -> bool {
        !self.name.ends_with("_fail")
    }

    /// Whether its bundle is older than v0.3.
    pub fn is_older(&self) -> bool {
        OLDER.contains(&self.name.as_str())
    }

    /// Judges these bytes as found at that place.
    ///
    /// # Errors
    /// Why they do not count.
    pub fn judge(&self, bundle: Bytes, place: Place) -> Result<(), VerifyError> {
        let source = Source { repository: None, manifest: Digest::sha256(&bundle), place, layer: 0 };
        self.judge_material(&SignatureMaterial::Bundle(BundleMaterial { bundle, source }))
    }

    /// Judges what was found: as an attestation where it is one, else as a signature over the artifact.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn judge_material(&self, material: &SignatureMaterial) -> Result<(), VerifyError> {
        let is_envelope = material.bytes().windows(DSSE.len()).any(|window| window == DSSE);
        let now = Clock::System.now();
        if is_envelope {
            self.trust.verify_attestation(material, &self.artifact, now).map(drop)
        } else {
            self.trust.verify_signature(material, &self.artifact, now).map(drop)
        }
    }
}

const DSSE: &[u8] = b"\"dsseEnvelope\"";
const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
