//! `[[policy.override]]` and `[[policy.exemption]]`: what holds for a part of the names, or for one digest.

use std::fmt;
use std::str::FromStr;

use super::containers_policy::{Trap, candidates, trap};
use super::{Mode, MultiArch};
use crate::clock::Timestamp;
use crate::oci::{Digest, ImageReference, Reference};

/// What an override or exemption is for: a scope as in policy.json, or the digest of a manifest in any repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

impl Scope {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Why it may not mean what it looks like.
    pub(super) fn trap(&self) -> Option<Trap> {
        if self.0.parse::<Digest>().is_ok() { None } else { trap(&self.0) }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The text can never be the scope of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ScopeError {
    why: String,
}

impl FromStr for Scope {
    type Err = ScopeError;

    /// Parses a scope. Unlike policy.json's own, one that can never match is refused, and so is the empty one.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            let why = "an empty scope would cover every image: name a registry, or set the key for all in [policy]";
            return Err(ScopeError { why: why.to_owned() });
        }
        let scope = Self(text.to_owned());
        match scope.trap() {
            Some(Trap::NeverMatches(why)) => Err(ScopeError { why: format!("this scope never matches: {why}") }),
            Some(Trap::Suspicious(_)) | None => Ok(scope),
        }
    }
}

/// A `[[policy.override]]`: keys that are absent are not overridden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// For what.
    pub scope: Scope,
    /// Serve or only record.
    pub mode: Option<Mode>,
    /// How indexes and their children relate.
    pub multi_arch: Option<MultiArch>,
    /// Whether a bundle satisfies a `signedIdentity`.
    pub bundles_without_identity: Option<BundlesWithoutIdentity>,
    /// Most bytes that an image may have, config and layers, compressed; 0: no bound.
    pub max_image_bytes: Option<u64>,
}

impl Override {
    /// For `scope`, with no key set.
    pub const fn of(scope: Scope) -> Self {
        Self { scope, mode: None, multi_arch: None, bundles_without_identity: None, max_image_bytes: None }
    }
}

/// Whether a sigstore bundle, whose statement names a digest and no reference, satisfies a `signedIdentity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BundlesWithoutIdentity {
    /// It does not: the reference cannot be checked.
    #[default]
    Refused,
    /// The digest alone is enough.
    DigestIsEnough,
}

/// A `[[policy.exemption]]`: an image that is served although policy denies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemption {
    /// For what.
    pub scope: Scope,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// From this moment on it is inert.
    pub expires: Timestamp,
}

impl Exemption {
    /// Whether it is inert at `now`; at the very moment it expires, it is.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires <= now
    }
}

/// The scopes that an image has here, most specific first: its digest in its repository, its digest anywhere, the
/// reference asked for, repository, namespaces, registry, domains. Unlike in policy.json the digest counts also when a tag
/// was asked for: what is meant for a manifest holds however one comes to it.
fn scopes_of(image: &ImageReference, digest: Option<&Digest>) -> Vec<String> {
    let digest = digest.or(match &image.reference {
        Reference::Digest(digest) => Some(digest),
        Reference::Tag(_) => None,
    });
    let mut scopes: Vec<String> =
        digest.into_iter().flat_map(|digest| [image.with_digest(*digest).to_string(), digest.to_string()]).collect();
    scopes.extend(candidates(image));
    scopes
}

/// The value of one key for an image: that of the most specific override that has the key.
pub(super) fn overridden<T>(
    overrides: &[Override],
    image: &ImageReference,
    digest: Option<&Digest>,
    key: impl Fn(&Override) -> Option<T>,
) -> Option<T> {
    // Asked for every manifest that is served, so nothing is built where nobody has set the key.
    if overrides.iter().all(|over| key(over).is_none()) {
        return None;
    }
    scopes_of(image, digest)
        .iter()
        .find_map(|scope| overrides.iter().find(|over| over.scope.as_str() == scope).and_then(&key))
}

/// The exemption in force for an image: that of the most specific scope, of several there the one that lasts longest.
pub(super) fn exempted<'a>(
    exemptions: &'a [Exemption],
    image: &ImageReference,
    digest: Option<&Digest>,
    now: Timestamp,
) -> Option<&'a Exemption> {
    let in_force: Vec<&Exemption> = exemptions.iter().filter(|exemption| !exemption.is_expired(now)).collect();
    if in_force.is_empty() {
        return None;
    }
    scopes_of(image, digest).iter().find_map(|scope| {
        let here = in_force.iter().filter(|exemption| exemption.scope.as_str() == scope);
        here.max_by_key(|exemption| exemption.expires).copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA512: &str = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    fn over(scope: &str, mode: Option<Mode>, multi_arch: Option<MultiArch>) -> Override {
        Override { mode, multi_arch, ..Override::of(scope.parse().unwrap()) }
    }

    fn exemption(scope: &str, expires: i64) -> Exemption {
        let expires = Timestamp::from_unix_seconds(expires);
        Exemption { scope: scope.parse().unwrap(), reason: "r".to_owned(), owner: "o".to_owned(), expires }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn c_10_the_most_specific_override_wins_key_by_key_in_any_order() {
        let digest = Digest::sha256(b"m");
        let in_repository = format!("quay.io/a/b@{digest}");
        let mut overrides = vec![
            over("quay.io", Some(Mode::Audit), Some(MultiArch::LeafOnly)),
            over("quay.io/a", Some(Mode::Enforce), None),
            over("quay.io/a/b:1", Some(Mode::Audit), None),
            over(&digest.to_string(), Some(Mode::Enforce), None),
        ];
        let mode = |overrides: &[Override], image: &str, digest: &Digest| {
            overridden(overrides, &image.parse().unwrap(), Some(digest), |over| over.mode)
        };
        let other = Digest::sha256(b"other");
        for _ in 0..2 {
            assert_eq!(mode(&overrides, "quay.io/x:1", &other), Some(Mode::Audit));
            assert_eq!(mode(&overrides, "quay.io/a/c:1", &other), Some(Mode::Enforce));
            assert_eq!(mode(&overrides, "quay.io/a/b:1", &other), Some(Mode::Audit));
            assert_eq!(mode(&overrides, "quay.io/a/b:1", &digest), Some(Mode::Enforce), "digest beats tag");
            assert_eq!(mode(&overrides, "gcr.io/a:1", &other), None);
            let image = "quay.io/a/b:1".parse().unwrap();
            let multi_arch = overridden(&overrides, &image, None, |over| over.multi_arch);
            assert_eq!(multi_arch, Some(MultiArch::LeafOnly), "keys are resolved one by one");
            overrides.reverse();
        }
        overrides.push(over(&in_repository, Some(Mode::Audit), None));
        assert_eq!(mode(&overrides, "quay.io/a/b:1", &digest), Some(Mode::Audit));
        assert_eq!(mode(&overrides, "quay.io/x:1", &digest), Some(Mode::Enforce), "a bare digest is of any repository");
    }

    #[test]
    fn an_exemption_ends_at_its_expiry() {
        let exemptions = [exemption("quay.io/legacy/app:1.2", 100)];
        let digest = Digest::sha256(b"m");
        let image = "quay.io/legacy/app:1.2".parse().unwrap();
        assert!(exempted(&exemptions, &image, Some(&digest), at(99)).is_some());
        assert!(exempted(&exemptions, &image, Some(&digest), at(100)).is_none());
        assert!(exempted(&exemptions, &image, Some(&digest), at(101)).is_none());
        assert!(exempted(&exemptions, &"quay.io/legacy/app:1.3".parse().unwrap(), Some(&digest), at(99)).is_none());
    }

    /// CVE-2024-48921, GHSA-gg4x-fgg2-h9w9.
    #[test]
    fn an_expired_exemption_does_not_hide_another() {
        let digest = Digest::sha256(b"m");
        let mut exemptions = vec![
            exemption(&digest.to_string(), 50),
            exemption("quay.io/a", 60),
            exemption("quay.io/a", 200),
            exemption("quay.io", 300),
        ];
        let image = "quay.io/a:1".parse().unwrap();
        for _ in 0..2 {
            let expires =
                |now| exempted(&exemptions, &image, Some(&digest), at(now)).map(|found| found.expires.unix_seconds());
            assert_eq!((expires(10), expires(55), expires(250), expires(300)), (Some(50), Some(200), Some(300), None));
            exemptions.reverse();
        }
    }

    #[test]
    fn scopes_that_can_never_match_are_refused() {
        for bad in ["", "*", "quay.io/*", "docker.io/alpine:3", "https://quay.io", "sha256:00", "Quay.io"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
        let digest = Digest::sha256(b"").to_string();
        for good in ["docker.io", "*.example.com", "quay.io/a:1", "localhost:5000/a", &digest, SHA512] {
            assert_eq!(good.parse::<Scope>().unwrap().as_str(), good);
        }
    }
}
