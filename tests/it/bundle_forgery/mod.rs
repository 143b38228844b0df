//! What else bundles and attestations must be, beside `forgery/bundles.rs`: their form, the rules of authorities, cosign's older
//! formats under an authority, bundles under a policy.json.

mod bundles;
mod legacy;
mod policy_json;
mod roots;
mod rules;
mod statements;

use sealgate::clock::{Clock, Timestamp};
use sealgate::oci::Digest;
use sealgate::testing::sigstore::{BundleBuilder, FakeKey, FakeSigstore, Identity, RootFlaw};
use sealgate::verify::{
    AuthorityTrust, IdentityPattern, KeyHash, LogRule, SctRule, SignatureMaterial, Signers, SigstoreRoot, TextPattern,
    TimestampRule, VerifiedSignature, VerifyError,
};

const EMAIL: &str = "dev@corp.com";
const ISSUER: &str = "https://accounts.example.com";
const SEED: u64 = 11;

struct Bench {
    sigstore: FakeSigstore,
    key: FakeKey,
    subject: Digest,
    now: Timestamp,
}

/// How a bundle is signed and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Keyless,
    KeylessV2,
    Keyed,
    KeyedV2,
}

/// Whether an error is the expected one.
type Expected = fn(&VerifyError) -> bool;

impl Bench {
    fn new() -> Self {
        let now = Clock::System.now();
        println!("seed {SEED}, now {now}");
        let sigstore = FakeSigstore::from_seed(SEED, now);
        let key = sigstore.key("team");
        Self { sigstore, key, subject: Digest::sha256(b"the manifest"), now }
    }

    fn root(&self) -> SigstoreRoot {
        self.root_but(RootFlaw::None)
    }

    fn root_but(&self, flaw: RootFlaw) -> SigstoreRoot {
        SigstoreRoot::from_json(self.sigstore.trusted_root_but(flaw).as_bytes()).unwrap()
    }

    fn identity(&self) -> Identity {
        Identity::email(EMAIL, ISSUER)
    }

    fn signers(&self, root: &SigstoreRoot) -> Signers {
        let exactly = |text: &str| TextPattern::Exactly(text.to_owned());
        let identities = vec![IdentityPattern { issuer: exactly(ISSUER), subject: exactly(EMAIL) }];
        Signers::Keyless { root: root.clone(), identities, sct: SctRule::Required }
    }

    fn keys(&self) -> Signers {
        Signers::Keys { keys: vec![self.key.public()], hash: KeyHash::Sha256 }
    }

    /// The trust that accepts what is flawless of that kind.
    fn trust(&self, kind: Kind, root: &SigstoreRoot) -> AuthorityTrust {
        let signers = match kind {
            Kind::Keyless | Kind::KeylessV2 => self.signers(root),
            Kind::Keyed | Kind::KeyedV2 => self.keys(),
        };
        AuthorityTrust::new(signers, LogRule::Required(root.clone()), TimestampRule::NotAsked)
    }

    fn bundle(&self, kind: Kind) -> BundleBuilder<'_> {
        let builder = match kind {
            Kind::Keyless | Kind::KeylessV2 => self.sigstore.bundle_by(&self.identity(), &self.subject),
            Kind::Keyed | Kind::KeyedV2 => self.sigstore.bundle_keyed(&self.key, &self.subject),
        };
        match kind {
            Kind::Keyless | Kind::Keyed => builder,
            Kind::KeylessV2 | Kind::KeyedV2 => builder.rekor_v2().timestamped(),
        }
    }

    fn judge(&self, trust: &AuthorityTrust, material: &SignatureMaterial) -> Result<VerifiedSignature, VerifyError> {
        trust.verify_signature(material, &self.subject, self.now)
    }
}
