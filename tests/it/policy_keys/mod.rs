//! T15: every key of both policy formats is enforced, or refused when the policy is loaded.
//!
//! The readers accept keys from tables, and these tests walk the same tables: a key that is added there without a case here
//! fails the build. A case is two policies, or two signatures under one policy, that differ in that key alone, with real
//! signatures; its two answers must differ, each in the way that is stated.

mod cluster_image_policy;
mod containers_policy;
mod trust_root;

pub(crate) use trust_root::{authorities_pem, trust_root};

use std::collections::BTreeSet;

use sealgate::clock::{Clock, Timestamp};
use sealgate::oci::{Digest, ImageReference};
use sealgate::policy::{Decision, FormatKey, Material, PolicySet};
use sealgate::verify::{Place, SignatureMaterial, Source};

/// What came of a policy and signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Allow,
    /// With the verdict's text.
    Deny(String),
    /// The policy does not load, and why.
    Unloadable(String),
}

/// What should come of it; the text is a part of the one that is given.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Allow,
    Deny(&'static str),
    Unloadable(&'static str),
}

/// One key, shown by two outcomes.
struct Case {
    key: &'static str,
    first: (Expected, Outcome),
    second: (Expected, Outcome),
}

/// The usual case: it is allowed with the key as it should be, and not with another value, or another signature.
fn case(key: &'static str, good: Outcome, expected: Expected, bad: Outcome) -> Case {
    Case { key, first: (Expected::Allow, good), second: (expected, bad) }
}

/// Every key has a case, every case a key, and both outcomes of each are as expected.
fn all_hold(keys: impl Iterator<Item = FormatKey>, cases: &[Case]) {
    let enforced: BTreeSet<String> = keys.filter(|key| key.refused.is_none()).map(|key| key.to_string()).collect();
    let shown: BTreeSet<String> = cases.iter().map(|case| case.key.to_owned()).collect();
    let untested: Vec<_> = enforced.difference(&shown).collect();
    assert!(untested.is_empty(), "keys without a case that shows their effect: {untested:#?}");
    let unknown: Vec<_> = shown.difference(&enforced).collect();
    assert!(unknown.is_empty(), "cases of keys that no table lists: {unknown:#?}");
    for case in cases {
        assert_ne!(case.first.1, case.second.1, "{}: both are the same", case.key);
        for (expected, outcome) in [&case.first, &case.second] {
            let holds = match (expected, outcome) {
                (Expected::Allow, Outcome::Allow) => true,
                (Expected::Deny(part), Outcome::Deny(text))
                | (Expected::Unloadable(part), Outcome::Unloadable(text)) => text.contains(part),
                (Expected::Allow | Expected::Deny(_) | Expected::Unloadable(_), _) => false,
            };
            assert!(holds, "{}: expected {expected:?}, found {outcome:?}", case.key);
        }
    }
    println!("{} keys are enforced", enforced.len());
}

/// Decides about one image with these signatures.
fn decide(policy: &PolicySet, image: &ImageReference, digest: &Digest, candidates: Vec<SignatureMaterial>) -> Outcome {
    let material = Material { candidates, ..Material::default() };
    match policy.evaluate(image, digest, &material, now()) {
        Ok(verdict) if verdict.decision == Decision::Allow => Outcome::Allow,
        Ok(verdict) => Outcome::Deny(verdict.text),
        Err(error) => Outcome::Deny(format!("undecided: {error}")),
    }
}

/// The same candidate, found somewhere else.
fn found(mut material: SignatureMaterial, repository: Option<&str>, place: Place) -> SignatureMaterial {
    let source = match &mut material {
        SignatureMaterial::Legacy(signature) => &mut signature.source,
        SignatureMaterial::Attestation(attestation) => &mut attestation.source,
        SignatureMaterial::Bundle(bundle) => &mut bundle.source,
        SignatureMaterial::OpenPgp(signature) => &mut signature.source,
    };
    let repository = repository.map(|repository| repository.parse::<ImageReference>().unwrap().repository);
    *source = Source { repository, place, ..source.clone() };
    material
}

/// The library compares log times with the clock on the wall.
fn now() -> Timestamp {
    Clock::System.now()
}

/// The documentation names every key that is refused.
#[test]
fn every_unsupported_key_is_documented() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md");
    let text = std::fs::read_to_string(path).unwrap();
    let section =
        text.split("## ClusterImagePolicy: what is not supported").nth(1).unwrap().split("\n## ").next().unwrap();
    let keys = sealgate::policy::cluster_image_policy_keys().chain(sealgate::policy::trust_root_keys());
    for key in keys.filter(|key| key.refused.is_some()) {
        let documented = section.contains(&format!("`{}`", key.name)) || section.contains(&format!("`{key}`"));
        assert!(documented, "docs/policy.md does not say what becomes of {key}");
    }
}
