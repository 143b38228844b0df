//! What a candidate that does not count turned out to be: told apart for people and metrics, never for the decision.
//!
//! containers/image's texts say that a signature is not accepted; what they do not say is added here: which key made it, whether
//! the policy knows that key elsewhere ("rotated"), who signed instead of the one wanted. Everything that is called found was
//! verified; the names of unverified certificates are never repeated.

use std::cell::Cell;

use serde_json::{Value, json};

use super::Reason;
use super::containers_policy::signer;
use super::evidence::{CandidateRecord, bounded, set};
use crate::clock::Timestamp;
use crate::limits::FINDING_CHECKS_MAX;
use crate::oci::Digest;
use crate::verify::{
    Cause, Identified, PublicKey, SignatureMaterial, SigstoreRoot, VerifiedStatement, VerifyError, made_by, named_key,
};

/// Every key that a policy lists, with where it does.
#[derive(Debug, Default)]
pub(super) struct KnownKeys(Vec<(PublicKey, Vec<String>)>);

impl KnownKeys {
    /// With the keys listed at `place`.
    pub(super) fn add(&mut self, keys: &[PublicKey], place: &str) {
        for key in keys {
            match self.0.iter_mut().find(|(known, _)| known == key) {
                Some((_, places)) if places.iter().any(|known| known == place) => {}
                Some((_, places)) => places.push(place.to_owned()),
                None => self.0.push((key.clone(), vec![place.to_owned()])),
            }
        }
    }
}

/// What was wanted of the candidates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// Any of these keys; none: certificates are wanted.
    pub(super) keys: &'a [PublicKey],
    /// Whose signature, for people.
    pub(super) signer: &'a str,
    /// The scope or policy that wants it, as [`KnownKeys::add`] was told.
    pub(super) place: &'a str,
}

/// One way in which a candidate is not what was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Made by a key that no part of the policy lists.
    WrongKey { found: String, expected: Vec<String> },
    /// Made by a key that another part of the policy lists.
    RotatedKey { found: String, listed: Vec<String>, expected: Vec<String> },
    /// Made by somebody else.
    WrongIdentity { found: String, expected: Vec<String> },
    /// Without the log entry that is asked for.
    LogMissing,
    /// Times do not fit.
    Expired,
}

impl Finding {
    pub(super) const fn reason(&self) -> Reason {
        match self {
            Self::WrongKey { .. } => Reason::WrongKey,
            Self::RotatedKey { .. } => Reason::RotatedKey,
            Self::WrongIdentity { .. } => Reason::IdentityMismatch,
            Self::LogMissing => Reason::NoLogEntry,
            Self::Expired => Reason::Expired,
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::WrongKey { .. } => "wrong_key",
            Self::RotatedKey { .. } => "rotated_key",
            Self::WrongIdentity { .. } => "wrong_identity",
            Self::LogMissing => "log_missing",
            Self::Expired => "expired",
        }
    }

    /// As [`Self::text`], with the first digits of fingerprints alone, so that it fits into a refusal.
    pub(super) fn line(&self) -> String {
        let brief = |texts: &[String]| texts.iter().map(|text| brief(text)).collect();
        match self.clone() {
            Self::WrongKey { found, expected } => {
                Self::WrongKey { found: self::brief(&found), expected: brief(&expected) }.text()
            }
            Self::RotatedKey { found, listed, expected } => {
                Self::RotatedKey { found: self::brief(&found), listed, expected: brief(&expected) }.text()
            }
            other @ (Self::WrongIdentity { .. } | Self::LogMissing | Self::Expired) => other.text(),
        }
    }

    /// One line for people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::WrongKey { found, expected } => format!("wrong key: found {found}, expected {}", any(expected)),
            Self::RotatedKey { found, listed, expected } => {
                let listed = listed.join(" and ");
                format!("rotated key: found {found}, listed at {listed}; expected here {}", any(expected))
            }
            Self::WrongIdentity { found, expected } => {
                format!("wrong identity: found {found}, expected {}", any(expected))
            }
            Self::LogMissing => {
                "log missing: an entry in a transparency log is asked for, and there is none".to_owned()
            }
            Self::Expired => "expired: the times of signature, certificate and log do not fit".to_owned(),
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut value = json!({ "kind": self.kind(), "text": bounded(&self.text()) });
        match self {
            Self::WrongKey { found, expected } | Self::WrongIdentity { found, expected } => {
                set(&mut value, "found", json!(bounded(found)));
                set(&mut value, "expected", json!(expected));
            }
            Self::RotatedKey { found, listed, expected } => {
                set(&mut value, "found", json!(found));
                set(&mut value, "listed", json!(listed));
                set(&mut value, "expected", json!(expected));
            }
            Self::LogMissing | Self::Expired => {}
        }
        value
    }
}

/// Finds out, with bounded work.
#[derive(Debug)]
pub(super) struct Finder<'a> {
    pub(super) known: &'a KnownKeys,
    /// Whose certificates can be told from anybody's.
    pub(super) root: Option<&'a SigstoreRoot>,
    pub(super) subject: &'a Digest,
    pub(super) now: Timestamp,
    /// Checks that are left.
    left: Cell<usize>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(
        known: &'a KnownKeys,
        root: Option<&'a SigstoreRoot>,
        subject: &'a Digest,
        now: Timestamp,
    ) -> Self {
        Self { known, root, subject, now, left: Cell::new(FINDING_CHECKS_MAX) }
    }

    /// Adds to each refused candidate what it turned out to be.
    pub(super) fn explain(&self, candidates: &mut [CandidateRecord<'_>], expected: Expected<'_>) {
        for candidate in candidates {
            if let Some(error) = &candidate.error {
                candidate.finding = self.find(candidate.material, error, expected);
            }
        }
    }

    /// What a candidate that was refused with `error` is; `None` where the error says all that is known.
    pub(super) fn find(
        &self,
        material: &SignatureMaterial,
        error: &VerifyError,
        expected: Expected<'_>,
    ) -> Option<Finding> {
        if let Some((found, wanted)) = identities(error) {
            let wanted = wanted.unwrap_or(expected.signer).to_owned();
            return Some(Finding::WrongIdentity { found, expected: vec![wanted] });
        }
        if is_about_missing_log(error) {
            return Some(Finding::LogMissing);
        }
        match error.cause() {
            Cause::Time => Some(Finding::Expired),
            Cause::Signature | Cause::Log | Cause::Certificate | Cause::Malformed => self.maker(material, expected),
            Cause::OtherImage | Cause::Identity => None,
        }
    }

    /// Who made a good signature that is none of the wanted signer's.
    fn maker(&self, material: &SignatureMaterial, expected: Expected<'_>) -> Option<Finding> {
        let wanted = || match expected.keys {
            [] => vec![expected.signer.to_owned()],
            keys => keys.iter().map(|key| key.fingerprint().to_string()).collect(),
        };
        if let Some((key, places)) = self.known_maker(material, expected.keys).ok()? {
            // What the same scope wants as well is no wrong signature.
            let is_elsewhere = places.iter().all(|place| place != expected.place);
            let (found, listed) = (key.fingerprint().to_string(), places.to_vec());
            return is_elsewhere.then(|| Finding::RotatedKey { found, listed, expected: wanted() });
        }
        self.spend(crate::limits::NAMED_KEYS_MAX)?;
        if let Some(key) = named_key(material, self.subject) {
            // Its own key is a wanted one, so something else is wrong with it.
            let is_wanted = expected.keys.contains(&key);
            let found = key.fingerprint().to_string();
            return (!is_wanted).then(|| Finding::WrongKey { found, expected: wanted() });
        }
        self.spend(1)?;
        let identified = self.root?.identify(material, self.subject, self.now).ok()?;
        let (Identified::Signature(signature) | Identified::Attestation(VerifiedStatement { signature, .. })) =
            identified;
        let found = signer(&signature.signer);
        Some(match expected.keys {
            [] => Finding::WrongIdentity { found, expected: wanted() },
            _ => Finding::WrongKey { found: format!("a certificate of {found}"), expected: wanted() },
        })
    }

    /// The key that made it, of those that the policy lists and that are not wanted here.
    fn known_maker(
        &self,
        material: &SignatureMaterial,
        expected: &[PublicKey],
    ) -> Result<Option<(&PublicKey, &[String])>, OutOfChecks> {
        for (key, places) in self.known.0.iter().filter(|(key, _)| !expected.contains(key)) {
            self.spend(1).ok_or(OutOfChecks)?;
            if made_by(material, self.subject, std::slice::from_ref(key)).is_some() {
                return Ok(Some((key, places)));
            }
        }
        Ok(None)
    }

    /// Takes checks from what is left; `None` when there are not so many.
    fn spend(&self, checks: usize) -> Option<()> {
        self.left.set(self.left.get().checked_sub(checks)?);
        Some(())
    }
}

/// Whom a certificate that verified names, and who was wanted where the error says it.
fn identities(error: &VerifyError) -> Option<(String, Option<&str>)> {
    if let VerifyError::OtherEmail { wanted, found } | VerifyError::OtherHostname { wanted, found } = error {
        return Some((found.join(", "), Some(wanted)));
    }
    if let VerifyError::OtherIssuer { found } = error {
        return Some((format!("an identity of {found}"), None));
    }
    if let VerifyError::OtherIdentity { issuer, subjects } = error {
        return Some((format!("{} ({issuer})", subjects.join(", ")), None));
    }
    None
}

fn is_about_missing_log(error: &VerifyError) -> bool {
    matches!(error, VerifyError::LogEntryMissing | VerifyError::NoTrustedTime)
        || matches!(error, VerifyError::MissingAnnotation { .. } if error.cause() == Cause::Log)
}

/// A fingerprint's first digits; another text as it is.
fn brief(text: &str) -> String {
    match text.strip_prefix("sha256:").and_then(|hex| hex.get(..FINGERPRINT_SHOWN)) {
        Some(start) => format!("sha256:{start}"),
        None => text.to_owned(),
    }
}

/// Hexadecimal digits of a fingerprint in a refusal.
const FINGERPRINT_SHOWN: usize = 12;

fn any(expected: &[String]) -> String {
    match expected {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [first, second] => format!("{first} or {second}"),
        [first, more @ ..] => format!("{first} or one of {} others", more.len()),
    }
}

/// A denial gets so many checks, and no more.
struct OutOfChecks;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::Clock;
    use crate::policy::{ContainersPolicy, ContainersPolicyDocument, Decision, Material, PolicySet, Settings, Verdict};
    use crate::testing::sigstore::{FakeKey, FakeSignature, FakeSigstore, Flaw, key_requirement};

    const APP: &str = "quay.io/team/app";
    const ISSUER: &str = "https://issuer.example";

    struct Scene {
        sigstore: FakeSigstore,
        now: Timestamp,
    }

    impl Scene {
        fn new() -> Self {
            let now = Clock::System.now();
            Self { sigstore: FakeSigstore::from_seed(7, now), now }
        }

        fn key(&self, name: &str) -> FakeKey {
            self.sigstore.key(name)
        }

        /// The verdict of a policy with that requirement for the app, and another for another scope.
        fn decide(&self, app: &Value, other: &Value, signatures: &[FakeSignature]) -> Verdict {
            let scopes = json!({ APP: [app], "quay.io/team/old": [other] });
            let document = json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}});
            let document = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
            let policy = ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap();
            let root = SigstoreRoot::from_json(self.sigstore.trusted_root_json().as_bytes()).unwrap();
            let settings = Settings { containers_policy: Some(policy), trust_root: Some(root), ..Settings::default() };
            let candidates = signatures.iter().map(FakeSignature::material).collect();
            let material = Material { candidates, ..Material::default() };
            let image = format!("{APP}:1").parse().unwrap();
            let policy = PolicySet::new(settings).unwrap();
            let verdict = policy.evaluate(&image, &Digest::sha256(b"manifest"), &material, self.now).unwrap();
            assert_eq!(verdict.decision, Decision::Deny);
            verdict
        }

        fn unlogged(&self, key: &str) -> FakeSignature {
            self.sigstore.sign_unlogged(&self.key(key), APP, &Digest::sha256(b"manifest"), Flaw::None)
        }

        fn logged(&self, key: &str) -> FakeSignature {
            self.sigstore.sign_keyed(&self.key(key), APP, &Digest::sha256(b"manifest"), Flaw::None)
        }

        fn keyless(&self, email: &str, flaw: Flaw) -> FakeSignature {
            self.sigstore.sign_keyless(APP, &Digest::sha256(b"manifest"), email, ISSUER, flaw)
        }
    }

    fn finding(verdict: &Verdict) -> &Value {
        &verdict.evidence.0["requirements"][0]["candidates"][0]["finding"]
    }

    #[test]
    fn no_signature_none_that_matches_a_wrong_key_and_a_rotated_one_are_told_apart() {
        let scene = Scene::new();
        let (new, other) = (key_requirement(&scene.key("new")), key_requirement(&scene.key("old")));
        let fingerprint = |name: &str| scene.key(name).fingerprint().to_string();

        let none = scene.decide(&new, &other, &[]);
        assert_eq!(none.reason, Reason::NoSignature);

        // Nothing says whose key it is.
        let unknown = scene.decide(&new, &other, &[scene.unlogged("strange")]);
        assert_eq!((unknown.reason, finding(&unknown)), (Reason::BadSignature, &Value::Null));

        // Its log entry names the key.
        for requirement in [&new, &scene.sigstore.logged_key_requirement(&scene.key("new"))] {
            let wrong = scene.decide(requirement, &other, &[scene.logged("strange")]);
            assert_eq!(wrong.reason, Reason::WrongKey);
            let told = json!({
                "kind": "wrong_key",
                "found": fingerprint("strange"),
                "expected": [fingerprint("new")],
                "text": format!("wrong key: found {}, expected {}", fingerprint("strange"), fingerprint("new")),
            });
            assert_eq!(finding(&wrong), &told);
        }

        // The policy lists the key for another scope.
        for signature in [scene.unlogged("old"), scene.logged("old")] {
            let rotated = scene.decide(&new, &other, &[signature]);
            assert_eq!(rotated.reason, Reason::RotatedKey);
            assert_eq!(finding(&rotated)["found"], fingerprint("old"));
            assert_eq!(finding(&rotated)["listed"], json!([r#"transports.docker["quay.io/team/old"]"#]));
        }
        // containers/image's text stays first.
        let text = "cryptographic signature verification failed: invalid signature";
        assert_eq!(scene.decide(&new, &other, &[scene.unlogged("old")]).text, text);
    }

    #[test]
    fn a_wrong_identity_a_missing_log_entry_and_wrong_times_are_told_apart() {
        let scene = Scene::new();
        let wanted = scene.sigstore.fulcio_requirement("dev@example.com", ISSUER);
        let other = key_requirement(&scene.key("old"));
        let decide = |signature| scene.decide(&wanted, &other, &[signature]);

        let eve = decide(scene.keyless("eve@example.com", Flaw::None));
        assert_eq!(eve.reason, Reason::IdentityMismatch);
        let text = "wrong identity: found eve@example.com, expected dev@example.com";
        assert_eq!(finding(&eve)["text"], text);
        let unlogged = decide(scene.keyless("dev@example.com", Flaw::NoLogEntry));
        assert_eq!((unlogged.reason, &finding(&unlogged)["kind"]), (Reason::NoLogEntry, &json!("log_missing")));
        let late = decide(scene.keyless("dev@example.com", Flaw::IntegratedAfterCertificate));
        assert_eq!((late.reason, &finding(&late)["kind"]), (Reason::Expired, &json!("expired")));

        // A key where a certificate is wanted, and a certificate where a key is.
        let keyed = decide(scene.logged("strange"));
        assert_eq!((keyed.reason, &finding(&keyed)["kind"]), (Reason::WrongKey, &json!("wrong_key")));
        assert_eq!(finding(&keyed)["found"], scene.key("strange").fingerprint().to_string());
        let certified = scene.decide(&other, &wanted, &[scene.keyless("dev@example.com", Flaw::None)]);
        assert_eq!(certified.reason, Reason::WrongKey);
        assert_eq!(finding(&certified)["found"], "a certificate of dev@example.com (https://issuer.example)");
    }

    #[test]
    fn a_signature_that_is_forged_or_about_another_image_makes_no_finding() {
        let scene = Scene::new();
        let (new, other) = (key_requirement(&scene.key("new")), key_requirement(&scene.key("old")));
        let mut forged = scene.logged("strange");
        let good = scene.logged("new");
        forged.payload.clone_from(&good.payload);
        forged.payload.push(b' ');
        let elsewhere = Digest::sha256(b"another manifest");
        let elsewhere = scene.sigstore.sign_keyed(&scene.key("old"), APP, &elsewhere, Flaw::None);
        for signature in [forged, elsewhere] {
            let verdict = scene.decide(&new, &other, &[signature]);
            assert_eq!((verdict.reason, finding(&verdict)), (Reason::BadSignature, &Value::Null));
        }
    }

    #[test]
    fn the_checks_for_one_denial_are_bounded() {
        let (known, digest) = (KnownKeys::default(), Digest::sha256(b"manifest"));
        let finder = Finder::new(&known, None, &digest, Timestamp::from_unix_seconds(0));
        assert_eq!(finder.spend(FINDING_CHECKS_MAX), Some(()));
        assert_eq!(finder.spend(1), None);
    }
}
