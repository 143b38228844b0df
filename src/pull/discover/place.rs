//! The places where signature material lies, and what it looks like there.

use std::collections::HashSet;
use std::fmt;

use crate::oci::{Descriptor, Digest, MediaType, Repository, Tag};
use crate::policy::{MaterialKind, Skipped, Wanted};
use crate::upstream::Interest;

/// The media type of cosign's simple signing payloads.
pub(in crate::pull) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The media type of DSSE envelopes, cosign's legacy attestations.
pub(super) const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
/// The media types of sigstore bundles v0.3; no older version counts among referrers.
pub(super) const BUNDLES: [&str; 2] =
    ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.sigstore.bundle+json;version=0.3"];
/// How the type of any version of a bundle begins.
const BUNDLE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";
/// What tools write that know no artifact type.
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// One place that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) repository: Repository,
    /// It is not the image's own repository.
    pub(super) is_alternate: bool,
    pub(super) at: At,
}

/// How it is found in its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// cosign's `.sig`: the layers are simple signing payloads.
    Signatures(Tag),
    /// cosign's `.att`: the layers are DSSE envelopes.
    Attestations(Tag),
    /// Manifests whose subject is the digest: the layers are bundles.
    Referrers,
}

impl Spot {
    /// What a layer there is.
    pub(super) fn layer(&self, layer: &Descriptor) -> Layer {
        let wanted = match self.at {
            At::Signatures(_) => layer.media_type == SIMPLE_SIGNING,
            At::Attestations(_) => layer.media_type == DSSE,
            At::Referrers => BUNDLES.contains(&layer.media_type.as_str()),
        };
        if wanted { Layer::Candidate } else { Layer::Other }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::Signatures(tag) => write!(formatter, "the signature tag {tag}")?,
            At::Attestations(tag) => write!(formatter, "the attestation tag {tag}")?,
            At::Referrers => formatter.write_str("the list of referrers")?,
        }
        if self.is_alternate { write!(formatter, " in {}", self.repository) } else { Ok(()) }
    }
}

/// What a layer is at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Candidate,
    Other,
}

/// All places that `wanted` names, each once: the image's own repository first.
pub(super) fn spots(
    repository: &Repository,
    digest: &Digest,
    wanted: &Wanted,
    skipped: &mut Vec<Skipped>,
) -> Vec<Spot> {
    let own = wanted.kinds.iter().map(|kind| (repository, None, *kind));
    let others = wanted
        .sources
        .iter()
        .flat_map(|source| source.kinds.iter().map(|kind| (&source.repository, source.tag_prefix.as_ref(), *kind)));
    let mut spots: Vec<Spot> = Vec::new();
    for (place, prefix, kind) in own.chain(others) {
        match at(digest, prefix, kind) {
            Ok(at) => {
                let spot = Spot { repository: place.clone(), is_alternate: place != repository, at };
                // A source may name the image's own repository.
                if !spots.contains(&spot) {
                    spots.push(spot);
                }
            }
            Err(tag) => skipped.push(Skipped { place: tag, why: "it is too long to be a tag".to_owned() }),
        }
    }
    spots
}

/// Where that kind lies; the text that is no tag else.
fn at(digest: &Digest, prefix: Option<&Tag>, kind: MaterialKind) -> Result<At, String> {
    let prefix = prefix.map(Tag::as_str).unwrap_or_default();
    let tag = |suffix: &str| {
        let text = format!("{prefix}{}-{}{suffix}", digest.algorithm().as_str(), digest.hex());
        text.parse::<Tag>().map_err(|_| text)
    };
    match kind {
        MaterialKind::Signatures => tag(".sig").map(At::Signatures),
        MaterialKind::Attestations => tag(".att").map(At::Attestations),
        MaterialKind::Bundles => Ok(At::Referrers),
    }
}

/// How much a referrer matters, by its descriptor: those that an allow rested on, then sign-typed ones, then those that do not
/// say what they are.
pub(super) fn interest(referrer: &Descriptor, good: &HashSet<Digest>) -> Interest {
    let is_manifest = referrer.media_type.is_empty() || referrer.media_type.parse() == Ok(MediaType::OciManifest);
    match referrer.artifact_type.as_deref() {
        _ if !is_manifest => Interest::None,
        _ if good.contains(&referrer.digest) => Interest::Known,
        None | Some("" | EMPTY_TYPE) => Interest::Perhaps,
        Some(stated) if is_bundle_of_any_version(stated) => Interest::First,
        Some(_) => Interest::None,
    }
}

/// Whether a type is that of a bundle, perhaps of a version that does not count.
pub(super) fn is_bundle_of_any_version(media_type: &str) -> bool {
    media_type.get(..BUNDLE_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(BUNDLE_PREFIX))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::policy::AlternateSource;

    fn repository(name: &str) -> Repository {
        Repository::new("quay.io".parse().unwrap(), name.parse().unwrap()).unwrap()
    }

    fn kinds(kinds: &[MaterialKind]) -> BTreeSet<MaterialKind> {
        kinds.iter().copied().collect()
    }

    fn referrer(media_type: &str, artifact_type: Option<&str>) -> Interest {
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::sha256(b"x"),
            size: 1,
            artifact_type: artifact_type.map(str::to_owned),
            platform: None,
            annotations: BTreeMap::new(),
        };
        interest(&descriptor, &HashSet::new())
    }

    #[test]
    fn nothing_is_looked_for_that_is_not_wanted() {
        let (own, digest) = (repository("a/b"), Digest::sha256(b"image"));
        let mut skipped = Vec::new();
        let mut places = |wanted: &Wanted| {
            let spots = spots(&own, &digest, wanted, &mut skipped);
            spots.iter().map(|spot| spot.to_string().replace(&digest.hex(), "HEX")).collect::<Vec<_>>()
        };
        assert!(places(&Wanted::default()).is_empty());
        let wanted = Wanted { kinds: kinds(&[MaterialKind::Bundles]), ..Wanted::default() };
        assert_eq!(places(&wanted), ["the list of referrers"]);
        let source = AlternateSource {
            repository: repository("signatures"),
            tag_prefix: Some("v1-".parse().unwrap()),
            kinds: kinds(&[MaterialKind::Signatures, MaterialKind::Attestations, MaterialKind::Bundles]),
        };
        let same =
            AlternateSource { repository: own.clone(), tag_prefix: None, kinds: kinds(&[MaterialKind::Signatures]) };
        let wanted =
            Wanted { kinds: kinds(&[MaterialKind::Signatures]), sources: [source, same].into(), ..Wanted::default() };
        assert_eq!(
            places(&wanted),
            [
                "the signature tag sha256-HEX.sig",
                "the signature tag v1-sha256-HEX.sig in quay.io/signatures",
                "the attestation tag v1-sha256-HEX.att in quay.io/signatures",
                "the list of referrers in quay.io/signatures",
            ]
        );
        assert!(skipped.is_empty());
    }

    #[test]
    fn a_prefix_that_leaves_no_room_for_the_tag_is_reported() {
        let mut skipped = Vec::new();
        let source = |prefix: usize| AlternateSource {
            repository: repository("signatures"),
            tag_prefix: Some("p".repeat(prefix).parse().unwrap()),
            kinds: kinds(&[MaterialKind::Signatures]),
        };
        let wanted = |prefix| Wanted { sources: [source(prefix)].into(), ..Wanted::default() };
        let digest = Digest::sha256(b"image");
        assert_eq!(spots(&repository("a"), &digest, &wanted(53), &mut skipped).len(), 1);
        assert!(skipped.is_empty());
        assert!(spots(&repository("a"), &digest, &wanted(54), &mut skipped).is_empty());
        assert_eq!(skipped.len(), 1);
    }

    #[test]
    fn referrers_that_say_what_they_are_come_first_and_those_that_say_nothing_next() {
        let manifest = MediaType::OciManifest.as_str();
        for bundle in BUNDLES.into_iter().chain(["application/vnd.dev.sigstore.bundle+json;version=0.1"]) {
            assert_eq!(referrer(manifest, Some(bundle)), Interest::First, "{bundle}");
            assert_eq!(referrer(MediaType::OciIndex.as_str(), Some(bundle)), Interest::None, "{bundle}");
        }
        for unclear in [None, Some(""), Some(EMPTY_TYPE)] {
            assert_eq!(referrer(manifest, unclear), Interest::Perhaps, "{unclear:?}");
        }
        for other in ["application/spdx+json", "application/vnd.dev.sigstor", "ä"] {
            assert_eq!(referrer(manifest, Some(other)), Interest::None, "{other}");
        }
    }
}
