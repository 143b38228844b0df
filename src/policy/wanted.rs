//! What discovery has to look for, as the policy that asks for it knows.

use std::collections::BTreeSet;

use crate::oci::{Repository, Tag};

/// Which signature material a decision can use. Nothing else is looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wanted {
    /// In the image's own repository.
    pub kinds: BTreeSet<MaterialKind>,
    /// In other repositories (ClusterImagePolicy `source`); their candidates count only for the authorities that name them.
    pub sources: BTreeSet<AlternateSource>,
    /// The address below which the image's OpenPGP signatures lie (containers-registries.d `lookaside`), when a
    /// `signedBy` requirement asks for them.
    pub lookaside: Option<LookasideBase>,
}

/// A kind of signature material in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MaterialKind {
    /// The manifest at `sha256-<hex>.sig`.
    Signatures,
    /// The manifest at `sha256-<hex>.att`.
    Attestations,
    /// Sigstore bundles among the referrers.
    Bundles,
}

/// Another repository in which signature material lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlternateSource {
    /// The repository; its host is a configured upstream.
    pub repository: Repository,
    /// Put before `sha256-<hex>.sig` and `.att` (ClusterImagePolicy `tagPrefix`) as it is: cosign adds no dash.
    pub tag_prefix: Option<Tag>,
    /// What is looked for there.
    pub kinds: BTreeSet<MaterialKind>,
}

/// The base of an image's lookaside signatures: `http`, `https` or `file`, as a registries.d file states it, with the
/// image's path (without host) still to be added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookasideBase(pub String);

impl Wanted {
    /// Whether there is anything to look for.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.sources.is_empty() && self.lookaside.is_none()
    }

    /// All that either wants.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.kinds.extend(other.kinds);
        self.sources.extend(other.sources);
        self.lookaside = self.lookaside.or(other.lookaside);
        self
    }
}
