//! What an authority asks for: keys and their hash, identities, log, timestamp, SCT.

use sealgate::testing::sigstore::{FakeKey, Flaw, Identity, RootFlaw};
use sealgate::verify::{
    AuthorityTrust, Identified, IdentityPattern, KeyHash, LogRule, SctRule, Signer, Signers, SigstoreRoot, TextPattern,
    TimestampRule, VerifyError as E,
};
use serde_json::json;

use super::{Bench, EMAIL, Expected, ISSUER, Kind, SEED};

fn keys(keys: &[&FakeKey], hash: KeyHash, log: LogRule, timestamp: TimestampRule) -> AuthorityTrust {
    let keys = keys.iter().map(|key| key.public()).collect();
    AuthorityTrust::new(Signers::Keys { keys, hash }, log, timestamp)
}

#[test]
fn a_key_without_a_log_signs_bundles_and_attestations_where_the_policy_asks_for_no_log() {
    let bench = Bench::new();
    let trust = keys(&[&bench.key], KeyHash::Sha256, LogRule::NotAsked, TimestampRule::NotAsked);
    let builder = bench.sigstore.bundle_keyed(&bench.key, &bench.subject).unlogged();
    let verified = bench.judge(&trust, &builder.clone().build().material()).unwrap();
    assert_eq!((verified.signer, verified.log), (Signer::Key(bench.key.fingerprint()), None));
    let layer = builder.clone().predicate("https://p.test/v1", json!({})).build_attestation();
    assert!(trust.verify_attestation(&layer.attestation_material(), &bench.subject, bench.now).is_ok());

    // What is attached beyond that is noted and not looked at.
    let logged = bench.sigstore.bundle_keyed(&bench.key, &bench.subject).flaw(Flaw::SetCorrupt).build();
    assert_eq!(bench.judge(&trust, &logged.material()).unwrap().notes.len(), 1);
    let with_log = bench.trust(Kind::Keyed, &bench.root());
    assert_eq!(bench.judge(&with_log, &builder.build().material()).unwrap_err(), E::LogEntryMissing);

    let other = keys(&[&bench.sigstore.key("other")], KeyHash::Sha256, LogRule::NotAsked, TimestampRule::NotAsked);
    let bundle = bench.sigstore.bundle_keyed(&bench.key, &bench.subject).unlogged().build();
    assert_eq!(bench.judge(&other, &bundle.material()).unwrap_err(), E::Signature);
    let either =
        keys(&[&bench.sigstore.key("other"), &bench.key], KeyHash::Sha256, LogRule::NotAsked, TimestampRule::NotAsked);
    assert!(bench.judge(&either, &bundle.material()).is_ok());
}

#[test]
fn every_kind_of_key_signs_bundles_with_its_hash_and_no_other() {
    let bench = Bench::new();
    for key in [bench.sigstore.key("p256"), FakeKey::ed25519(SEED, "ed25519"), FakeKey::rsa()] {
        let material = bench.sigstore.bundle_keyed(&key, &bench.subject).unlogged().build().material();
        for hash in [KeyHash::Sha256, KeyHash::Sha384, KeyHash::Sha512] {
            let trust = keys(&[&key], hash, LogRule::NotAsked, TimestampRule::NotAsked);
            let good = hash == KeyHash::Sha256 || format!("{:?}", key.public()).contains("Ed25519");
            assert_eq!(bench.judge(&trust, &material).is_ok(), good, "{key:?} {hash:?}");
        }
    }
}

/// cosign 3 signs with P-384 over SHA-384, and a policy that names no hash means SHA-256.
#[test]
fn a_logged_envelope_is_signed_with_the_hash_of_the_keys_kind() {
    let bench = Bench::new();
    let (p384, rsa) = (FakeKey::p384(), FakeKey::rsa_sha512());
    let judge = |key: &FakeKey, hash, log: LogRule| {
        let bundle = bench.sigstore.bundle_keyed(key, &bench.subject).build();
        bench.judge(&keys(&[key], hash, log, TimestampRule::NotAsked), &bundle.material()).map(drop)
    };
    for log in [LogRule::NotAsked, LogRule::Required(bench.root())] {
        assert_eq!(judge(&p384, KeyHash::Sha256, log.clone()), Ok(()));
        assert_eq!(judge(&p384, KeyHash::Sha384, log.clone()), Ok(()));
        assert_eq!(judge(&p384, KeyHash::Sha512, log.clone()), Err(E::Signature));
        assert_eq!(judge(&rsa, KeyHash::Sha256, log), Err(E::Signature));
    }
    assert_eq!(judge(&rsa, KeyHash::Sha512, LogRule::NotAsked), Ok(()));
    assert_eq!(judge(&rsa, KeyHash::Sha512, LogRule::Required(bench.root())), Err(E::EnvelopeHash));

    // The legacy format knows one hash, the policy's.
    let legacy = bench.sigstore.sign_unlogged(&p384, "a/b", &bench.subject, Flaw::None).material();
    for (hash, good) in [(KeyHash::Sha256, false), (KeyHash::Sha384, true), (KeyHash::Sha512, false)] {
        let trust = keys(&[&p384], hash, LogRule::NotAsked, TimestampRule::NotAsked);
        assert_eq!(bench.judge(&trust, &legacy).is_ok(), good, "{hash:?}");
    }
}

#[test]
fn any_of_the_identities_may_have_signed_and_nobody_else() {
    let bench = Bench::new();
    let root = bench.root();
    let trust = |identities: Vec<IdentityPattern>| {
        let signers = Signers::Keyless { root: root.clone(), identities, sct: SctRule::Required };
        AuthorityTrust::new(signers, LogRule::Required(root.clone()), TimestampRule::NotAsked)
    };
    let identity = |issuer: &str, subject: &str| IdentityPattern {
        issuer: TextPattern::Exactly(issuer.to_owned()),
        subject: TextPattern::matches(subject).unwrap(),
    };
    let material = bench.bundle(Kind::Keyless).build().material();
    let accepted = |identities| bench.judge(&trust(identities), &material);
    assert!(accepted(vec![identity(ISSUER, "other@corp\\.com"), identity(ISSUER, ".*@corp\\.com")]).is_ok());
    let refused = [
        vec![identity(ISSUER, "ev@corp\\.co")],
        vec![identity("https://accounts.example.com/", ".*")],
        // Issuer of one and subject of another make no identity.
        vec![identity("https://other.example", ".*"), identity(ISSUER, "other@corp\\.com")],
        vec![],
    ];
    for identities in refused {
        let error = accepted(identities).unwrap_err();
        let expected = E::OtherIdentity { issuer: ISSUER.to_owned(), subjects: vec![EMAIL.to_owned()] };
        assert_eq!(error, expected);
    }
}

#[test]
fn a_workflows_claims_are_kept_for_rego_and_evidence() {
    let bench = Bench::new();
    let root = bench.root();
    let sha = "a".repeat(40);
    let workflow = Identity::github("octo/app", "release.yml", "refs/heads/main", "push", &sha);
    let identified = root.identify(
        &bench.sigstore.bundle_by(&workflow, &bench.subject).build().material(),
        &bench.subject,
        bench.now,
    );
    let Identified::Signature(verified) = identified.unwrap() else { panic!("a plain signature") };
    let Signer::Certificate { issuer, workflow: claims, .. } = verified.signer else { panic!("a certificate") };
    assert_eq!(issuer.as_deref(), Some("https://token.actions.githubusercontent.com"));
    assert_eq!(claims.repository.as_deref(), Some("octo/app"));
    assert_eq!(claims.reference.as_deref(), Some("refs/heads/main"));
    assert_eq!(claims.trigger.as_deref(), Some("push"));
    assert_eq!(claims.sha.as_deref(), Some(sha.as_str()));
    assert_eq!(claims.extensions["sourceRepositoryURI"], "https://github.com/octo/app");
}

/// Each is good in all other ways, so that nothing else refuses it.
#[test]
fn v15_a_certificate_with_two_issuers_or_a_name_that_is_no_text_is_nobodys() {
    let bench = Bench::new();
    let root = bench.root();
    let trust = bench.trust(Kind::Keyless, &root);
    let rows: [(Flaw, Expected); 2] = [
        (Flaw::IssuerTwice, |error| matches!(error, E::IssuerMalformed { .. })),
        (Flaw::NameOfOtherKind, |error| matches!(error, E::NameKind)),
    ];
    for (flaw, is_expected) in rows {
        let legacy = bench.sigstore.sign_keyless("a/b", &bench.subject, EMAIL, ISSUER, flaw).material();
        let v2 = bench.bundle(Kind::KeylessV2).flaw(flaw).build().material();
        for material in [bench.bundle(Kind::Keyless).flaw(flaw).build().material(), v2, legacy] {
            let error = bench.judge(&trust, &material).unwrap_err();
            assert!(is_expected(&error), "{flaw:?}: {error:?}");
            let error = root.identify(&material, &bench.subject, bench.now).unwrap_err();
            assert!(is_expected(&error), "{flaw:?}: {error:?}");
        }
    }
}

#[test]
fn a_root_identifies_whoever_signed_and_nobody_by_a_key() {
    let bench = Bench::new();
    let root = bench.root();
    let identify = |material| root.identify(&material, &bench.subject, bench.now);
    let signature = identify(bench.bundle(Kind::KeylessV2).build().material()).unwrap();
    assert!(matches!(signature, Identified::Signature(_)));
    let bundle = bench.bundle(Kind::Keyless).predicate("https://p.test/v1", json!({})).build();
    assert!(matches!(identify(bundle.material()).unwrap(), Identified::Attestation(_)));
    let layer = bench.bundle(Kind::Keyless).predicate("https://p.test/v1", json!({})).build_attestation();
    assert!(matches!(identify(layer.attestation_material()).unwrap(), Identified::Attestation(_)));
    let legacy = bench.sigstore.sign_keyless("a/b", &bench.subject, EMAIL, ISSUER, Flaw::None);
    assert!(matches!(identify(legacy.material()).unwrap(), Identified::Signature(_)));
    assert_eq!(identify(bench.bundle(Kind::Keyed).build().material()).unwrap_err(), E::KeyNotCertificate);
    assert!(matches!(identify(bench.bundle(Kind::Keyless).flaw(Flaw::NoSct).build().material()), Err(E::Sct { .. })));
}

#[test]
fn the_sct_is_checked_unless_the_policy_says_insecure_ignore_sct() {
    let bench = Bench::new();
    let root = bench.root();
    let Signers::Keyless { identities, .. } = bench.signers(&root) else { panic!("keyless") };
    let ignoring = Signers::Keyless { root: root.clone(), identities, sct: SctRule::UnsafeIgnored };
    let ignoring = AuthorityTrust::new(ignoring, LogRule::Required(root.clone()), TimestampRule::NotAsked);
    let material = bench.bundle(Kind::Keyless).flaw(Flaw::NoSct).build().material();
    assert!(matches!(bench.judge(&bench.trust(Kind::Keyless, &root), &material), Err(E::Sct { .. })));
    let verified = bench.judge(&ignoring, &material).unwrap();
    assert_eq!(verified.notes, ["sct: not checked, the policy says insecureIgnoreSCT"]);
    // Nothing else is left out.
    let other = bench.bundle(Kind::Keyless).flaw(Flaw::OtherCa).build().material();
    assert!(matches!(bench.judge(&ignoring, &other), Err(E::ChainUntrusted { .. })));
}

#[test]
fn a_timestamp_that_is_asked_for_must_be_there_and_does_not_switch_the_log_off() {
    let bench = Bench::new();
    let root = bench.root();
    let required = || TimestampRule::Required(root.clone());
    let keyless = AuthorityTrust::new(bench.signers(&root), LogRule::NotAsked, required());
    let bare = AuthorityTrust::new(bench.keys(), LogRule::NotAsked, required());
    let logged = AuthorityTrust::new(bench.keys(), LogRule::Required(root.clone()), required());

    for (kind, trust) in [(Kind::Keyless, &keyless), (Kind::Keyed, &logged), (Kind::Keyed, &bare)] {
        let stamped = bench.judge(trust, &bench.bundle(kind).timestamped().build().material()).unwrap();
        assert_eq!(stamped.timestamps.len(), 1, "{kind:?}");
        let error = bench.judge(trust, &bench.bundle(kind).build().material()).unwrap_err();
        assert_eq!(error, E::TimestampMissing, "{kind:?}");
        for flaw in [Flaw::TimestampOfOtherSignature, Flaw::TimestampByOtherAuthority, Flaw::TimestampCorrupt] {
            let error = bench.judge(trust, &bench.bundle(kind).timestamped().flaw(flaw).build().material());
            assert!(matches!(error, Err(E::TimestampInvalid { .. })), "{kind:?} {flaw:?}: {error:?}");
        }
    }
    let unlogged = |kind| bench.bundle(kind).unlogged().timestamped().build().material();
    assert_eq!(bench.judge(&keyless, &unlogged(Kind::Keyless)).unwrap_err(), E::LogEntryMissing);
    assert_eq!(bench.judge(&logged, &unlogged(Kind::Keyed)).unwrap_err(), E::LogEntryMissing);
    assert_eq!(bench.judge(&bare, &unlogged(Kind::Keyed)).unwrap().timestamps.len(), 1);
    // Where no log is asked for nobody else has looked at the time.
    let stamped = unlogged(Kind::Keyed);
    let at = bench.judge(&bare, &stamped).unwrap().timestamps[0];
    assert!(bare.verify_signature(&stamped, &bench.subject, at).is_ok());
    let now = at.minus(std::time::Duration::from_secs(1));
    assert_eq!(bare.verify_signature(&stamped, &bench.subject, now).unwrap_err(), E::TimestampInFuture { at, now });
    let ended = TimestampRule::Required(bench.root_but(RootFlaw::TimestampAuthorityEnded));
    let ended = AuthorityTrust::new(bench.keys(), LogRule::NotAsked, ended);
    let error = bench.judge(&ended, &unlogged(Kind::Keyed));
    assert!(matches!(error, Err(E::TimestampAuthorityTime { .. })), "{error:?}");
}

#[test]
fn a_root_may_have_other_authorities_and_an_authority_another_log() {
    let bench = Bench::new();
    let material = bench.bundle(Kind::Keyless).build().material();
    // A v0.3 bundle brings no intermediate, so the root alone vouches for no leaf below one.
    let (ca, intermediate) = (bench.sigstore.fulcio_ca_pem(), bench.sigstore.fulcio_intermediate_pem());
    let alone = bench.root().with_authorities(ca.as_bytes()).unwrap();
    let error = bench.judge(&bench.trust(Kind::Keyless, &alone), &material).unwrap_err();
    assert!(matches!(error, E::ChainUntrusted { .. }), "{error:?}");
    let both = bench.root().with_authorities((ca + &intermediate).as_bytes()).unwrap();
    assert!(bench.judge(&bench.trust(Kind::Keyless, &both), &material).is_ok());
    let pki = bench.root().with_authorities(bench.sigstore.pki_root_pem().as_bytes()).unwrap();
    let error = bench.judge(&bench.trust(Kind::Keyless, &pki), &material).unwrap_err();
    assert!(matches!(error, E::ChainUntrusted { .. }), "{error:?}");
    assert_ne!(pki.fingerprint(), bench.root().fingerprint());
    assert!(bench.root().with_authorities(b"").is_err());

    let without = bench.root_but(RootFlaw::NoLog);
    let trust = AuthorityTrust::new(bench.signers(&without), LogRule::Required(bench.root()), TimestampRule::NotAsked);
    assert!(bench.judge(&trust, &material).is_ok(), "the log is another root's");
    let trust = AuthorityTrust::new(bench.signers(&bench.root()), LogRule::Required(without), TimestampRule::NotAsked);
    assert!(matches!(bench.judge(&trust, &material), Err(E::LogUnknown { .. })));
    assert!(SigstoreRoot::from_json(b"{}").is_err());
}

#[test]
fn whatever_changes_an_answer_changes_the_fingerprint() {
    let bench = Bench::new();
    let (root, other) = (bench.root(), bench.root_but(RootFlaw::NoLog));
    let with = |root: &SigstoreRoot, sct, subject: &str| {
        let subject = TextPattern::matches(subject).unwrap();
        let identities = vec![IdentityPattern { issuer: TextPattern::Exactly(ISSUER.to_owned()), subject }];
        Signers::Keyless { root: root.clone(), identities, sct }
    };
    let (no_log, no_stamp) = (LogRule::NotAsked, TimestampRule::NotAsked);
    let key = |hash| Signers::Keys { keys: vec![bench.key.public()], hash };
    let new = AuthorityTrust::new;
    let trusts = [
        new(key(KeyHash::Sha256), no_log.clone(), no_stamp.clone()),
        new(key(KeyHash::Sha512), no_log.clone(), no_stamp.clone()),
        new(Signers::Keys { keys: vec![], hash: KeyHash::Sha256 }, no_log.clone(), no_stamp.clone()),
        new(key(KeyHash::Sha256), LogRule::Required(root.clone()), no_stamp.clone()),
        new(key(KeyHash::Sha256), LogRule::Required(other.clone()), no_stamp.clone()),
        new(key(KeyHash::Sha256), no_log.clone(), TimestampRule::Required(root.clone())),
        new(with(&root, SctRule::Required, "a"), no_log.clone(), no_stamp.clone()),
        new(with(&root, SctRule::Required, "b"), no_log.clone(), no_stamp.clone()),
        new(with(&root, SctRule::UnsafeIgnored, "a"), no_log.clone(), no_stamp.clone()),
        new(with(&other, SctRule::Required, "a"), no_log.clone(), no_stamp.clone()),
    ];
    let prints: std::collections::BTreeSet<_> = trusts.iter().map(AuthorityTrust::fingerprint).collect();
    assert_eq!(prints.len(), trusts.len());
    let again = new(key(KeyHash::Sha256), no_log, no_stamp);
    assert_eq!(again.fingerprint(), trusts[0].fingerprint());
}
