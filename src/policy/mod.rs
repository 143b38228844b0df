//! CORE. What must be true for an image to be admitted.
//!
//! [`PolicySet`] is all that was configured under `[policy]`, with the key files read in. It answers what it needs
//! ([`PolicySet::plan`]) and what it decides ([`PolicySet::evaluate`]); both are pure. May import: `verify`, `oci`, `limits`, `clock`.

mod verdict;

pub use verdict::{Decision, Evidence, Material, Reason, RestsOn, Skipped, Verdict};

use crate::clock::Timestamp;
use crate::oci::{Digest, ImageReference};

/// Serve or only record (design §3, `mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A denial refuses.
    Enforce,
    /// A denial is recorded and the image served.
    Audit,
}

/// How indexes and their children relate (design §6, "Multi-arch").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MultiArch {
    /// The index itself, or every platform child.
    IndexOrEveryLeaf,
    /// The index itself, or at least one platform child.
    IndexOrAnyLeaf,
    /// Indexes pass ungated; each child needs its own verdict.
    LeafOnly,
}

/// What deciding about an image will need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The decision needs no signature material.
    WithoutMaterial,
    /// Signature material must be discovered first.
    NeedsMaterial,
}

/// All that was configured under `[policy]`. Immutable; a reload makes a new one.
#[derive(Debug)]
pub struct PolicySet {}

impl PolicySet {
    /// Digest over everything that can change an answer: policies, key bytes, overrides, multi_arch, limits. Not exemptions and
    /// modes, which are applied when a verdict is read.
    pub fn fingerprint(&self) -> Digest {
        todo!()
    }
    /// What deciding about `image` needs.
    pub fn plan(&self, _image: &ImageReference) -> Plan {
        todo!()
    }
    /// Decides. `digest` is the digest of the manifest's bytes.
    pub fn evaluate(
        &self,
        _image: &ImageReference,
        _digest: &Digest,
        _material: &Material,
        _now: Timestamp,
    ) -> Verdict {
        todo!()
    }
    /// Whether a policy scope names this very digest (design §2, "Tag, then digest").
    pub fn has_digest_scope(&self, _image: &ImageReference) -> bool {
        todo!()
    }
    /// The mode for that image, after overrides (digest beats tag beats repository beats namespace).
    pub fn mode(&self, _image: &ImageReference, _digest: &Digest) -> Mode {
        todo!()
    }
    /// How the image's index relates to its children, after overrides.
    pub fn multi_arch(&self, _image: &ImageReference) -> MultiArch {
        todo!()
    }
    /// The exemption in force for that image at `now`, if any.
    pub fn exemption(&self, _image: &ImageReference, _digest: &Digest, _now: Timestamp) -> Option<&Exemption> {
        todo!()
    }
}

/// A `[[policy.exemption]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemption {
    /// Scope as in policy.json, or a digest.
    pub scope: String,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// When it becomes inert.
    pub expires: Timestamp,
}
