//! What a refused OpenPGP signature is. It names the key that made it, and without that key nothing of it can be verified: where no
//! part of the policy has the key, what it names is told as its own statement.

use super::{Finder, Finding, KnownKeys, OutOfChecks};
use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::policy::evidence::CandidateRecord;
use crate::verify::{
    OpenPgpClaim, OpenPgpError, OpenPgpKeys, OpenPgpSignature, SignatureMaterial, Signer, VerifiedSignature,
    VerifyError, openpgp_claim,
};

impl KnownKeys {
    /// Whose signature it is, when some requirement of the policy has the key, whichever images it is for; takes at most `checks`
    /// looks, which are counted down.
    pub(in crate::policy) fn identify_openpgp(
        &self,
        signature: &OpenPgpSignature,
        subject: &Digest,
        now: Timestamp,
        checks: &mut usize,
    ) -> Option<VerifiedSignature> {
        let rings = self.openpgp.iter().take(*checks);
        let mut looks = 0_usize;
        let found =
            rings.map(|(keys, _)| keys.verify(signature, subject, now)).inspect(|_| looks += 1).find_map(Result::ok);
        *checks = checks.saturating_sub(looks);
        found
    }
}

impl Finder<'_> {
    /// Adds to each refused candidate what it turned out to be, where `wanted` are the keys of the requirement at `place`.
    pub(in crate::policy) fn explain_openpgp(
        &self,
        candidates: &mut [CandidateRecord<'_>],
        wanted: &OpenPgpKeys,
        place: &str,
    ) {
        let expected = wanted.primary_fingerprints();
        for candidate in candidates {
            let (Some(error), SignatureMaterial::OpenPgp(signature)) = (&candidate.error, candidate.material) else {
                continue;
            };
            candidate.finding = self.openpgp(signature, error, (wanted, &expected), place);
        }
    }

    fn openpgp(
        &self,
        signature: &OpenPgpSignature,
        error: &VerifyError,
        (wanted, expected): (&OpenPgpKeys, &[String]),
        place: &str,
    ) -> Option<Finding> {
        // Whatever else is wrong, its own text says all that is known.
        let VerifyError::OpenPgp(OpenPgpError::KeyUnknown { .. }) = error else { return None };
        let expected = expected.to_vec();
        match self.other_ring(signature, wanted).ok()? {
            Elsewhere::Signed { by, places } => {
                // What the same scope wants as well is no wrong signature.
                let is_elsewhere = places.iter().all(|listed| listed != place);
                is_elsewhere.then(|| Finding::RotatedKey { found: by, listed: places.to_vec(), expected })
            }
            Elsewhere::Forged => None,
            Elsewhere::Unknown => {
                self.spend(1)?;
                let OpenPgpClaim { key: claimed, .. } = openpgp_claim(signature, self.subject)?;
                Some(Finding::UnknownKey { claimed, expected })
            }
        }
    }

    /// Asks the keys of every other requirement.
    fn other_ring(&self, signature: &OpenPgpSignature, wanted: &OpenPgpKeys) -> Result<Elsewhere<'_>, OutOfChecks> {
        let others = self.known.openpgp.iter().filter(|(keys, _)| keys.fingerprint() != wanted.fingerprint());
        let mut forged = false;
        for (keys, places) in others {
            self.spend(1).ok_or(OutOfChecks)?;
            match keys.verify(signature, self.subject, self.now) {
                Ok(verified) => {
                    if let Signer::OpenPgp(by) = verified.signer {
                        return Ok(Elsewhere::Signed { by, places });
                    }
                }
                Err(VerifyError::OpenPgp(OpenPgpError::Signature)) => forged = true,
                Err(_) => {}
            }
        }
        Ok(if forged { Elsewhere::Forged } else { Elsewhere::Unknown })
    }
}

/// What the keys of other requirements say about a signature.
enum Elsewhere<'a> {
    /// One of them made it.
    Signed { by: String, places: &'a [String] },
    /// It says that one of them made it, and none did.
    Forged,
    /// None of them is the key that it names.
    Unknown,
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    use crate::clock::{Clock, Timestamp};
    use crate::oci::Digest;
    use crate::policy::{
        ContainersPolicy, ContainersPolicyDocument, Decision, Material, PolicySet, Reason, RegistriesD, Settings,
        Verdict,
    };
    use crate::testing::openpgp::{FakeOpenPgpKey, KeyFlaw, OpenPgpFlaw, openpgp_material};

    const APP: &str = "quay.io/team/app:1";
    const OLD: &str = r#"transports.docker["quay.io/team/old"]"#;

    struct Scene {
        now: Timestamp,
        digest: Digest,
    }

    impl Scene {
        fn new() -> Self {
            Self { now: Clock::System.now(), digest: Digest::sha256(b"manifest") }
        }

        fn key(&self, name: &str) -> FakeOpenPgpKey {
            FakeOpenPgpKey::from_seed(7, name, self.now)
        }

        /// The verdict of a policy that wants all of `here`'s signatures for the app, and `old`'s for another scope.
        fn decide(&self, here: &[&FakeOpenPgpKey], old: &FakeOpenPgpKey, messages: &[Vec<u8>]) -> Verdict {
            let signed_by = |key: &FakeOpenPgpKey| json!({"type": "signedBy", "keyType": "GPGKeys", "keyData": STANDARD.encode(key.ring())});
            let here: Vec<Value> = here.iter().map(|key| signed_by(key)).collect();
            let scopes = json!({"quay.io/team/app": here, "quay.io/team/old": [signed_by(old)]});
            let document = json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}});
            let document = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
            let policy = ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap();
            let lookaside = b"default-docker: {lookaside: 'https://lookaside.test'}".to_vec();
            let registries_d = RegistriesD::parse(&[("a.yaml".to_owned(), lookaside)]).unwrap();
            let settings = Settings { containers_policy: Some(policy), registries_d, ..Settings::default() };
            let candidates = messages.iter().map(|message| openpgp_material(message)).collect();
            let material = Material { candidates, ..Material::default() };
            let policy = PolicySet::new(settings).unwrap();
            let verdict = policy.evaluate(&APP.parse().unwrap(), &self.digest, &material, self.now).unwrap();
            assert_eq!(verdict.decision, Decision::Deny, "{}", verdict.text);
            verdict
        }

        fn sign(&self, key: &str) -> Vec<u8> {
            self.key(key).sign(APP, &self.digest, OpenPgpFlaw::None)
        }
    }

    fn finding(verdict: &Verdict) -> &Value {
        &verdict.evidence.0["requirements"][0]["candidates"][0]["finding"]
    }

    fn fingerprint(key: &FakeOpenPgpKey) -> String {
        key.fingerprint()
    }

    #[test]
    fn no_signature_none_that_matches_a_wrong_key_and_a_rotated_one_are_told_apart() {
        let scene = Scene::new();
        let (new, old, strange) = (scene.key("new"), scene.key("old"), scene.key("strange"));
        let decide = |messages: &[Vec<u8>]| scene.decide(&[&new], &old, messages);

        let none = decide(&[]);
        assert_eq!(
            (none.reason, none.text.as_str()),
            (Reason::NoSignature, "A signature was required, but no signature exists")
        );
        let elsewhere = decide(&[new.sign("quay.io/team/app:2", &scene.digest, OpenPgpFlaw::None)]);
        assert_eq!((elsewhere.reason, finding(&elsewhere)), (Reason::IdentityMismatch, &Value::Null));

        let wrong = decide(&[scene.sign("strange")]);
        assert_eq!(wrong.reason, Reason::WrongKey);
        let (found, expected) = (fingerprint(&strange), fingerprint(&new));
        let told = json!({
            "kind": "wrong_key",
            "found": found,
            "verified": false,
            "expected": [expected],
            "text": format!("wrong key: found {found} (as the signature says), expected {expected}"),
        });
        assert_eq!(finding(&wrong), &told);

        let rotated = decide(&[scene.sign("old")]);
        assert_eq!(rotated.reason, Reason::RotatedKey);
        let told = json!({
            "kind": "rotated_key",
            "found": fingerprint(&old),
            "listed": [OLD],
            "expected": [expected],
            "text": format!("rotated key: found {}, listed at {OLD}; expected here {expected}", fingerprint(&old)),
        });
        assert_eq!(finding(&rotated), &told);
        // A subkey signs for its primary key.
        let by_subkey = decide(&[old.sign_with_subkey(APP, &scene.digest, OpenPgpFlaw::None)]);
        assert_eq!((by_subkey.reason, &finding(&by_subkey)["found"]), (Reason::RotatedKey, &json!(fingerprint(&old))));
        // containers/image's text stays first, and of several the closest counts.
        for verdict in [&wrong, &rotated] {
            assert!(verdict.text.starts_with("Key not found for key ID "), "{}", verdict.text);
        }
        assert_eq!(decide(&[scene.sign("strange"), scene.sign("old")]).reason, Reason::RotatedKey);
    }

    #[test]
    fn what_the_same_scope_wants_as_well_is_no_rotated_key() {
        let scene = Scene::new();
        let both = scene.decide(&[&scene.key("new"), &scene.key("second")], &scene.key("old"), &[scene.sign("second")]);
        assert_eq!((both.reason, finding(&both)), (Reason::BadSignature, &Value::Null));
    }

    #[test]
    fn what_is_forged_broken_late_or_about_another_image_is_no_wrong_key() {
        let scene = Scene::new();
        let (new, old) = (scene.key("new"), scene.key("old"));
        let other = Digest::sha256(b"another manifest");
        for (message, reason) in [
            // In the name of the key wanted, of one listed elsewhere, and of one that nobody knows.
            (new.sign(APP, &scene.digest, OpenPgpFlaw::Corrupt), Reason::BadSignature),
            (old.sign(APP, &scene.digest, OpenPgpFlaw::Corrupt), Reason::BadSignature),
            (old.sign(APP, &other, OpenPgpFlaw::None), Reason::BadSignature),
            (scene.key("strange").sign(APP, &other, OpenPgpFlaw::None), Reason::BadSignature),
            (scene.key("strange").sign(APP, &scene.digest, OpenPgpFlaw::NotJson), Reason::BadSignature),
            (new.sign(APP, &scene.digest, OpenPgpFlaw::Expired), Reason::Expired),
            (new.sign(APP, &scene.digest, OpenPgpFlaw::NotOpenPgp), Reason::BadSignature),
        ] {
            let verdict = scene.decide(&[&new], &old, &[message]);
            assert_eq!((verdict.reason, finding(&verdict)), (reason, &Value::Null), "{}", verdict.text);
        }
        // A key of the ring that may not sign is named by the text.
        for (flaw, reason, says) in [
            (KeyFlaw::Revoked, Reason::BadSignature, "the ring has the key, but it is revoked"),
            (KeyFlaw::Expired, Reason::Expired, "the ring has the key, but it expired on "),
        ] {
            let ended = FakeOpenPgpKey::flawed(7, "new", scene.now, flaw);
            let verdict = scene.decide(&[&ended], &old, &[ended.sign(APP, &scene.digest, OpenPgpFlaw::None)]);
            assert_eq!((verdict.reason, finding(&verdict)), (reason, &Value::Null));
            assert!(verdict.text.contains(says), "{}", verdict.text);
        }
    }
}
