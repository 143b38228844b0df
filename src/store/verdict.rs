//! Verdicts as they are kept: what they depend on, their short name, and how they are listed.

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::oci::{Digest, ImageReference};
use crate::policy::{Decision, Reason};

/// What one verdict depends on. There is no look-up by tag alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VerdictKey {
    /// The reference as requested.
    pub image: ImageReference,
    /// The digest of the manifest's bytes.
    pub digest: Digest,
    /// Fingerprint of the policy.
    pub policy: Digest,
    /// Fingerprint of the trust root.
    pub trust_root: Digest,
}

impl VerdictKey {
    /// A short name for people: the first 8 bytes of the SHA-256 of the key and the verifier's version.
    pub fn id(&self) -> VerdictId {
        let text = format!(
            "{}\n{}\n{}\n{}\n{}",
            self.image,
            self.digest,
            self.policy,
            self.trust_root,
            crate::verify::VERIFIER_VERSION
        );
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(Digest::sha256(text.as_bytes()).as_bytes()) {
            *to = *from;
        }
        VerdictId(id)
    }
}

/// The short name of a verdict: 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerdictId(pub [u8; 8]);

impl fmt::Display for VerdictId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

/// The text is not 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a verdict id: 16 hexadecimal digits")]
pub struct VerdictIdError;

impl FromStr for VerdictId {
    type Err = VerdictIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = hex::decode(text).map_err(|_| VerdictIdError)?;
        Ok(Self(bytes.try_into().map_err(|_| VerdictIdError)?))
    }
}

/// A verdict as it is kept: the raw policy answer, before audit mode and exemptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVerdict {
    /// What it depends on.
    pub key: VerdictKey,
    /// The answer.
    pub decision: Decision,
    /// Its kind.
    pub reason: Reason,
    /// One line for a human, at most 250 bytes.
    pub text: String,
    /// Whether the image was admitted by itself (its own signature or an accepting policy) rather than through its children:
    /// only then does an index grant all its children.
    pub own: bool,
    /// When it was reached.
    pub issued: Timestamp,
    /// When it must be reached again.
    pub not_after: Timestamp,
    /// The evidence file, if it was kept.
    pub evidence: Option<Digest>,
    /// Signature manifests whose bytes (and whose layers' bytes) are in the store, for verifying again offline; empty
    /// when the answer needed none, or when discovery found none.
    pub material: Vec<Digest>,
    /// Whether the stored material is all there was, so that it can be verified again offline.
    pub material_complete: bool,
}

/// Which verdicts to list.
#[derive(Debug, Clone, Default)]
pub struct VerdictFilter {
    /// Only this answer.
    pub decision: Option<Decision>,
    /// Only this repository (canonical name).
    pub repository: Option<String>,
    /// At most so many, up to `limits::VERDICTS_PAGE_MAX`.
    pub limit: Option<usize>,
    /// Only those after this one in the listing.
    pub after: Option<VerdictId>,
}
