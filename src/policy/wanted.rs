//! What discovery has to look for, as the policy that asks for it knows.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use crate::oci::{Digest, Repository, RepositoryName, Tag};

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

/// The base of an image's lookaside signatures, as a registries.d file states it: `http`, `https` or `file`, without user,
/// query and fragment. The image's path (without host) is still to be added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookasideBase(Url);

/// The text is no address below which signatures can lie.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct LookasideBaseError {
    why: &'static str,
}

impl FromStr for LookasideBase {
    type Err = LookasideBaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |why| LookasideBaseError { why };
        let url = Url::parse(text).map_err(|_| error("it is no URL; write https://..., http://... or file:///..."))?;
        match url.scheme() {
            "http" | "https" => {}
            // A relative path would depend on where the program was started.
            "file" if url.host().is_none() && text.starts_with("file:///") => {}
            "file" => return Err(error("a file URL has three slashes and an absolute path")),
            _ => return Err(error("only https, http and file are supported")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(error("it must not hold a user or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(error("it must not have a query or fragment"));
        }
        Ok(Self(url))
    }
}

impl LookasideBase {
    /// As text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Where the signature with that number, from 1, of a manifest lies:
    /// `<base>/<path-without-host>@<alg>=<hex>/signature-<number>`.
    pub fn signature(&self, name: &RepositoryName, digest: &Digest, number: usize) -> Url {
        let mut url = self.0.clone();
        let (base, algorithm, hex) = (url.path().trim_end_matches('/'), digest.algorithm().as_str(), digest.hex());
        let path = format!("{base}/{name}@{algorithm}={hex}/signature-{number}");
        url.set_path(&path);
        url
    }

    /// The directory, when it is one.
    pub fn directory(&self) -> Option<PathBuf> {
        if self.0.scheme() == "file" { self.0.to_file_path().ok() } else { None }
    }
}

impl Wanted {
    /// Whether there is anything to look for.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.sources.is_empty() && self.lookaside.is_none()
    }

    /// What is not wanted by `planned` already, for an image of `repository`.
    #[must_use]
    pub fn beyond(mut self, planned: &Self, repository: &Repository) -> Self {
        let is_own = |source: &&AlternateSource| source.repository == *repository && source.tag_prefix.is_none();
        let own = planned.sources.iter().filter(is_own).flat_map(|source| &source.kinds);
        let planned_kinds: BTreeSet<MaterialKind> = planned.kinds.iter().chain(own).copied().collect();
        self.kinds.retain(|kind| !planned_kinds.contains(kind));
        self.sources.retain(|source| !planned.sources.contains(source));
        self.lookaside = self.lookaside.filter(|base| planned.lookaside.as_ref() != Some(base));
        self
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
