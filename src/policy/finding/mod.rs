//! What a candidate that does not count turned out to be: told apart for people and metrics, never for the decision.
//!
//! containers/image's texts say that a signature is not accepted; what they do not say is added here: which key made it, whether
//! the policy knows that key elsewhere ("rotated"), who signed instead of the one wanted. Everything that is called found was
//! verified; the names of unverified certificates are never repeated.

mod openpgp;

use std::cell::Cell;

use serde_json::{Value, json};

use super::Reason;
use super::containers_policy::signer;
use super::evidence::{CandidateRecord, bounded, set};
use crate::clock::Timestamp;
use crate::limits::FINDING_CHECKS_MAX;
use crate::oci::Digest;
use crate::verify::{
    Cause, Identified, IdentityPattern, OpenPgpKeys, PublicKey, SignatureMaterial, Signer, SigstoreRoot,
    VerifiedStatement, VerifyError, made_by, named_key,
};

/// Every key that a policy lists, with where it does.
#[derive(Debug, Default)]
pub(super) struct KnownKeys {
    keys: Vec<(PublicKey, Vec<String>)>,
    /// Those of each `signedBy` requirement, which are asked together.
    openpgp: Vec<(OpenPgpKeys, Vec<String>)>,
}

impl KnownKeys {
    /// With the keys listed at `place`.
    pub(super) fn add(&mut self, keys: &[PublicKey], place: &str) {
        for key in keys {
            add(&mut self.keys, key, place, |known| known == key);
        }
    }

    /// With the OpenPGP keys listed at `place`.
    pub(super) fn add_openpgp(&mut self, keys: &OpenPgpKeys, place: &str) {
        add(&mut self.openpgp, keys, place, |known| known.fingerprint() == keys.fingerprint());
    }
}

fn add<T: Clone>(list: &mut Vec<(T, Vec<String>)>, new: &T, place: &str, is_it: impl Fn(&T) -> bool) {
    match list.iter_mut().find(|(known, _)| is_it(known)) {
        Some((_, places)) if places.iter().any(|known| known == place) => {}
        Some((_, places)) => places.push(place.to_owned()),
        None => list.push((new.clone(), vec![place.to_owned()])),
    }
}

/// What was wanted of the candidates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// Any of these keys; none: certificates are wanted.
    pub(super) keys: &'a [PublicKey],
    /// Where certificates are wanted, whose; none: [`Self::signer`] names the subject.
    pub(super) identities: &'a [IdentityPattern],
    /// Whose signature, for people.
    pub(super) signer: &'a str,
    /// The scope or policy that wants it, as [`KnownKeys::add`] was told.
    pub(super) place: &'a str,
}

impl Expected<'_> {
    /// Whether it is the wanted name, whoever vouches for it.
    fn accepts(&self, found: &Signer) -> bool {
        let is_named =
            matches!(found, Signer::Certificate { subjects, .. } if subjects.iter().any(|name| name == self.signer));
        is_named || self.identities.iter().any(|identity| identity.accepts(found))
    }
}

/// One way in which a candidate is not what was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Made by a key that no part of the policy lists.
    WrongKey { found: String, expected: Vec<String> },
    /// Names as its maker a key that the policy does not list, so that nothing of it can be verified.
    UnknownKey { claimed: String, expected: Vec<String> },
    /// Made by a key that another part of the policy lists.
    RotatedKey { found: String, listed: Vec<String>, expected: Vec<String> },
    /// Made by somebody else.
    WrongIdentity { found: String, expected: Vec<String> },
    /// Without the log entry that is asked for.
    LogMissing,
    /// Nothing that is trusted says when it was made.
    NoTrustedTime,
    /// Times do not fit.
    Expired,
}

impl Finding {
    pub(super) const fn reason(&self) -> Reason {
        match self {
            Self::WrongKey { .. } | Self::UnknownKey { .. } => Reason::WrongKey,
            Self::RotatedKey { .. } => Reason::RotatedKey,
            Self::WrongIdentity { .. } => Reason::IdentityMismatch,
            Self::LogMissing => Reason::NoLogEntry,
            Self::NoTrustedTime | Self::Expired => Reason::Expired,
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::WrongKey { .. } | Self::UnknownKey { .. } => "wrong_key",
            Self::RotatedKey { .. } => "rotated_key",
            Self::WrongIdentity { .. } => "wrong_identity",
            Self::LogMissing => "log_missing",
            Self::NoTrustedTime => "no_trusted_time",
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
            other @ (Self::UnknownKey { .. }
            | Self::WrongIdentity { .. }
            | Self::LogMissing
            | Self::NoTrustedTime
            | Self::Expired) => other.text(),
        }
    }

    /// One line for people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::WrongKey { found, expected } => format!("wrong key: found {found}, expected {}", any(expected)),
            Self::UnknownKey { claimed, expected } => {
                format!("wrong key: found {claimed} (as the signature says), expected {}", any(expected))
            }
            Self::RotatedKey { found, listed, expected } => {
                let listed = places(listed);
                format!("rotated key: found {found}, listed at {listed}; expected here {}", any(expected))
            }
            Self::WrongIdentity { found, expected } => {
                format!("wrong identity: found {found}, expected {}", any(expected))
            }
            Self::LogMissing => {
                "log missing: an entry in a transparency log is asked for, and there is none".to_owned()
            }
            Self::NoTrustedTime => {
                "no trusted time: no promise of a log and no timestamp that is trusted here says when it was made"
                    .to_owned()
            }
            Self::Expired => "expired: the times of signature, certificate and log do not fit".to_owned(),
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut value = json!({ "kind": self.kind(), "text": bounded(&self.text()) });
        match self {
            Self::WrongKey { found, expected } | Self::WrongIdentity { found, expected } => {
                set(&mut value, "found", json!(bounded(found)));
                set_expected(&mut value, expected);
            }
            Self::UnknownKey { claimed, expected } => {
                set(&mut value, "found", json!(bounded(claimed)));
                set(&mut value, "verified", json!(false));
                set_expected(&mut value, expected);
            }
            Self::RotatedKey { found, listed, expected } => {
                set(&mut value, "found", json!(found));
                set(&mut value, "listed", json!(listed.iter().take(EXPECTED_MAX).collect::<Vec<_>>()));
                set_expected(&mut value, expected);
            }
            Self::LogMissing | Self::NoTrustedTime | Self::Expired => {}
        }
        value
    }
}

/// A key ring may hold thousands, and each refused candidate says what was expected.
fn set_expected(value: &mut Value, expected: &[String]) {
    set(value, "expected", json!(expected.iter().take(EXPECTED_MAX).collect::<Vec<_>>()));
    if expected.len() > EXPECTED_MAX {
        set(value, "expected_count", json!(expected.len()));
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
        if matches!(error, VerifyError::NoTrustedTime) {
            return Some(Finding::NoTrustedTime);
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
        match expected.keys {
            // By the one who is wanted, but under another trust than is asked for here: the error says what it lacks.
            [] if expected.accepts(&signature.signer) => None,
            [] => Some(Finding::WrongIdentity { found, expected: wanted() }),
            _ => Some(Finding::WrongKey { found: format!("a certificate of {found}"), expected: wanted() }),
        }
    }

    /// The key that made it, of those that the policy lists and that are not wanted here.
    fn known_maker(
        &self,
        material: &SignatureMaterial,
        expected: &[PublicKey],
    ) -> Result<Option<(&PublicKey, &[String])>, OutOfChecks> {
        for (key, places) in self.known.keys.iter().filter(|(key, _)| !expected.contains(key)) {
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
    matches!(error, VerifyError::LogEntryMissing)
        || matches!(error, VerifyError::MissingAnnotation { .. } if error.cause() == Cause::Log)
}

fn places(listed: &[String]) -> String {
    match listed {
        [first, second, more @ ..] if !more.is_empty() => format!("{first}, {second} and {} others", more.len()),
        few => few.join(" and "),
    }
}

/// A fingerprint's first digits; another text as it is.
fn brief(text: &str) -> String {
    match text.strip_prefix("sha256:").and_then(|hex| hex.get(..FINGERPRINT_SHOWN)) {
        Some(start) => format!("sha256:{start}"),
        None => text.to_owned(),
    }
}

/// Keys and places that one finding names.
const EXPECTED_MAX: usize = 16;
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
mod tests;
