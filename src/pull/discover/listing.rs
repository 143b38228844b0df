//! What one place lists: the manifests whose layers may be signatures.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::choose::in_order;
use super::place::{self, At, Layer, Spot};
use super::{NoEvidence, by, has_size, is_about_the_content, not_configured, stored};
use crate::limits::{CANDIDATES_MAX, MATERIAL_CONCURRENCY, REFERRER_BYTES_MAX};
use crate::oci::{Descriptor, Digest, ManifestError, ManifestKind, MediaType, Reference, Repository, Tag};
use crate::policy::Skipped;
use crate::pull::Puller;
use crate::pull::manifest::{UnverifiedManifest, stored_manifest};
use crate::upstream::{Interest, SelectedReferrers, Upstream, UpstreamError};

/// What was found at one place.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) spot: Spot,
    pub(super) manifests: Vec<Listed>,
    /// There is more than is looked at.
    pub(super) more: bool,
    /// Why something that is listed was not read, though it may be good.
    pub(super) unread: Option<NoEvidence>,
    pub(super) skipped: Vec<Skipped>,
    /// Why it may not be all that lies there.
    pub(super) missing: Option<NoEvidence>,
    /// Some of it upstream did not say now: it is what the store kept.
    pub(super) from_store: bool,
}

/// A manifest that was found there.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) manifest: Arc<UnverifiedManifest>,
    pub(super) rank: Rank,
}

/// Which manifests come first, where there are more than are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// An allow rested on it.
    Known,
    /// Its place or its type says that it is about signatures.
    Sure,
    /// Nothing says what it is.
    Unsure,
}

impl Listing {
    pub(super) fn empty(spot: Spot) -> Self {
        Self {
            spot,
            manifests: Vec::new(),
            more: false,
            unread: None,
            skipped: Vec::new(),
            missing: None,
            from_store: false,
        }
    }

    fn skip(&mut self, place: &impl ToString, why: &(impl ToString + ?Sized)) {
        if self.skipped.len() < CANDIDATES_MAX {
            self.skipped.push(Skipped { place: place.to_string(), why: why.to_string() });
        }
    }

    fn miss(&mut self, cause: UpstreamError) {
        let looked_for = self.spot.to_string();
        self.missing.get_or_insert(NoEvidence { looked_for, cause });
    }

    /// Something that is listed is not what it says it is, or longer than it may be.
    fn pass_over(&mut self, cause: UpstreamError) {
        let looked_for = self.spot.to_string();
        self.unread.get_or_insert(NoEvidence { looked_for, cause });
    }

    fn pass_over_long(&mut self) {
        let upstream = self.spot.repository.host().clone();
        self.pass_over(UpstreamError::Bad { upstream, reason: "too_large" });
    }

    /// Takes in the manifest at a signature tag.
    pub(super) fn add_tagged(&mut self, tag: &Tag, manifest: Arc<UnverifiedManifest>) {
        match manifest.parsed().kind {
            ManifestKind::Image(_) => self.manifests.push(Listed { manifest, rank: Rank::Sure }),
            ManifestKind::Index(_) => self.skip(tag, "it is an index, not an image manifest"),
        }
    }

    /// What sits at the tag is no manifest: skipped and reported, unless the answer was none to our question.
    fn skip_tagged(&mut self, tag: &Tag, error: &ManifestError) {
        match error {
            // Such as a login page with status 200.
            ManifestError::MediaType { .. } => {
                let upstream = self.spot.repository.host().clone();
                return self.miss(UpstreamError::Bad { upstream, reason: "media_type" });
            }
            ManifestError::TooMany { .. } => self.more = true,
            ManifestError::TooLong => self.pass_over_long(),
            ManifestError::Json(_)
            | ManifestError::Shape(_)
            | ManifestError::Digest(_)
            | ManifestError::SizeTooLarge { .. }
            | ManifestError::EmbeddedData
            | ManifestError::IndexAndImage { .. }
            | ManifestError::SchemaVersion
            | ManifestError::MediaTypeMismatch { .. } => {}
        }
        self.skip(tag, error);
    }

    /// Takes in a referrer, if it is one of `subject` and has a bundle.
    pub(super) fn add_referrer(&mut self, subject: &Digest, manifest: Arc<UnverifiedManifest>, rank: Rank) {
        let name = format!("referrer {}", manifest.digest());
        let ManifestKind::Image(image) = &manifest.parsed().kind else {
            return self.skip(&name, "it is an index, not an image manifest");
        };
        let has_bundle = image.layers.iter().any(|layer| self.spot.layer(layer) == Layer::Candidate);
        let has_old_bundle = image.layers.iter().any(|layer| place::is_bundle_of_any_version(&layer.media_type));
        if !has_bundle {
            match (rank == Rank::Unsure, has_old_bundle) {
                (_, true) => self.skip(&name, "it holds a bundle of another version than v0.3"),
                (false, false) => self.skip(&name, "it holds no sigstore bundle, though its type says so"),
                // Something else that somebody attached.
                (true, false) => {}
            }
        } else if manifest.parsed().subject.as_ref().is_some_and(|stated| stated.digest != *subject) {
            // One without a subject is about the image by the list alone; what is signed binds it in any case (V-21).
            self.skip(&name, "its subject is another manifest");
        } else {
            self.manifests.push(Listed { manifest, rank });
        }
    }

    /// The referrers whose manifests are read, each once: those that were good before and those that say what they are first, of
    /// too many some of the oldest, some of the newest and some from between.
    fn look_into(&mut self, selected: &SelectedReferrers) -> Vec<LookedInto> {
        let SelectedReferrers { known, first, perhaps, .. } = selected;
        let mut seen = HashSet::new();
        let mut all: Vec<LookedInto> = Vec::new();
        for (descriptors, rank) in [(known, Rank::Known), (first, Rank::Sure), (perhaps, Rank::Unsure)] {
            for descriptor in descriptors.iter().filter(|descriptor| seen.insert(descriptor.digest)) {
                if descriptor.size > REFERRER_BYTES_MAX {
                    self.pass_over_long();
                    self.skip(&format!("referrer {}", descriptor.digest), "its manifest is longer than 256 KiB");
                } else {
                    all.push(LookedInto { descriptor: descriptor.clone(), rank });
                }
            }
        }
        let order = in_order(all.iter().map(|referrer| referrer.rank));
        let kept: HashSet<usize> = order.into_iter().take(CANDIDATES_MAX).collect();
        self.more |= kept.len() < all.len();
        let all = all.into_iter().enumerate();
        all.filter(|(index, _)| kept.contains(index)).map(|(_, referrer)| referrer).collect()
    }
}

impl Puller {
    /// What lies at that place, by upstream; where it does not say, by the store.
    pub(super) async fn list_spot(&self, spot: Spot, subject: &Digest, deadline: Instant) -> Listing {
        let mut listing = Listing::empty(spot);
        let repository = listing.spot.repository.clone();
        let Ok(source) = self.source(&repository) else {
            listing.miss(not_configured(&repository));
            return listing;
        };
        match listing.spot.at.clone() {
            At::Signatures(tag) | At::Attestations(tag) => {
                self.list_tag(&mut listing, &source.upstream, &tag, deadline).await;
            }
            At::Referrers => self.list_referrers(&mut listing, &source.upstream, subject, deadline).await,
        }
        if listing.missing.is_some() {
            let before = listing.manifests.len();
            stored::add_to(&self.parts.store, &mut listing, subject).await;
            listing.from_store = listing.manifests.len() > before;
        }
        listing
    }

    /// cosign's legacy places: the image manifest at the tag.
    async fn list_tag(&self, listing: &mut Listing, upstream: &Upstream, tag: &Tag, deadline: Instant) {
        let repository = listing.spot.repository.clone();
        // By tag, and never again by digest: some registries lose the manifest under the one and keep it under the other.
        let reference = Reference::Tag(tag.clone());
        let fetched = by(deadline, repository.host(), upstream.manifest(repository.name(), &reference)).await;
        match fetched {
            Ok(fetched) => {
                self.forget_tag(&listing.spot, tag, Some(fetched.digest)).await;
                match self.parse_fetched(fetched).await {
                    Ok(manifest) => listing.add_tagged(tag, Arc::new(manifest)),
                    Err(error) => listing.skip_tagged(tag, &error),
                }
            }
            Err(UpstreamError::NotFound { .. }) => {
                self.forget_tag(&listing.spot, tag, None).await;
            }
            Err(cause) => listing.miss(cause),
        }
    }

    /// The referrers that hold bundles, or may.
    async fn list_referrers(&self, listing: &mut Listing, upstream: &Upstream, subject: &Digest, deadline: Instant) {
        let repository = listing.spot.repository.clone();
        let selected = self.select_referrers(listing, upstream, subject, deadline).await;
        listing.more |= selected.more;
        if selected.skipped > 0 {
            let spot = listing.spot.to_string();
            listing.skip(&spot, &format!("entries that are no descriptors: {}", selected.skipped));
        }
        if let Some(cause) = &selected.missing {
            listing.miss(cause.clone());
        } else if !selected.more {
            // Of a list that was cut nobody knows what is not on it.
            let all = [&selected.known, &selected.first, &selected.perhaps].into_iter().flatten();
            let listed = all.map(|listed| listed.digest).collect();
            self.forget_unlisted(&listing.spot, subject, listed).await;
        }
        let reading = listing.look_into(&selected).into_iter().map(|referrer| async {
            let manifest = self.referrer(&repository, upstream, &referrer.descriptor, deadline).await;
            (referrer, manifest)
        });
        let mut read = stream::iter(reading.collect::<Vec<_>>()).buffered(MATERIAL_CONCURRENCY);
        while let Some((referrer, manifest)) = read.next().await {
            let name = format!("referrer {}", referrer.descriptor.digest);
            match manifest {
                Ok(Ok(manifest)) => listing.add_referrer(subject, manifest, referrer.rank),
                Ok(Err(error)) => {
                    if matches!(error, ManifestError::TooMany { .. } | ManifestError::TooLong) {
                        listing.pass_over_long();
                    }
                    listing.skip(&name, &error);
                }
                Err(cause) => {
                    listing.skip(&name, &cause);
                    if is_about_the_content(&cause) {
                        listing.pass_over(cause);
                    } else {
                        listing.miss(cause);
                    }
                }
            }
        }
    }

    /// By the API; where upstream has none, by the index at the fallback tag.
    async fn select_referrers(
        &self,
        listing: &mut Listing,
        upstream: &Upstream,
        subject: &Digest,
        deadline: Instant,
    ) -> SelectedReferrers {
        let name = listing.spot.repository.name().clone();
        // What an allow rested on is looked at again, whatever stands around it by now.
        let good = stored::good_list(&self.parts.store, &listing.spot.repository, subject).await;
        let interest = |referrer: &Descriptor| place::interest(referrer, &good);
        match upstream.select_referrers(&name, subject, place::BUNDLES[0], &interest, deadline).await {
            Ok(Some(selected)) => selected,
            Ok(None) => self.select_of_fallback(listing, upstream, subject, &interest, deadline).await,
            // Such as the web page that older registries send for a path they do not know. The tag may hold something, but
            // that it holds nothing is then no answer.
            Err(cause @ UpstreamError::Bad { reason: "protocol" | "media_type", .. }) => {
                let selected = self.select_of_fallback(listing, upstream, subject, &interest, deadline).await;
                SelectedReferrers { missing: selected.missing.or(Some(cause)), ..selected }
            }
            Err(cause) => SelectedReferrers { missing: Some(cause), ..SelectedReferrers::default() },
        }
    }

    async fn select_of_fallback(
        &self,
        listing: &mut Listing,
        upstream: &Upstream,
        subject: &Digest,
        interest: &(dyn Fn(&Descriptor) -> Interest + Send + Sync),
        deadline: Instant,
    ) -> SelectedReferrers {
        let repository = listing.spot.repository.clone();
        // Only sha256 digests are looked for; their tag fits the grammar.
        let Ok(tag) = format!("{}-{}", subject.algorithm().as_str(), subject.hex()).parse::<Tag>() else {
            return SelectedReferrers::default();
        };
        let reference = Reference::Tag(tag.clone());
        let fetched = by(deadline, repository.host(), upstream.manifest(repository.name(), &reference)).await;
        match fetched {
            Ok(fetched) if fetched.content_type.parse() == Ok(MediaType::OciIndex) => {
                SelectedReferrers::of_index(&fetched.bytes, interest).unwrap_or_else(|_| {
                    listing.pass_over_long();
                    listing.skip(&tag, "it is no OCI index that can be read");
                    SelectedReferrers::default()
                })
            }
            Ok(_) => {
                listing.skip(&tag, "it is no OCI index");
                SelectedReferrers::default()
            }
            Err(UpstreamError::NotFound { .. }) => SelectedReferrers::default(),
            Err(cause) => SelectedReferrers { missing: Some(cause), ..SelectedReferrers::default() },
        }
    }

    /// A referrer by its digest: what is here already is what its digest says, wherever it came from.
    async fn referrer(
        &self,
        repository: &Repository,
        upstream: &Upstream,
        descriptor: &Descriptor,
        deadline: Instant,
    ) -> Result<Result<Arc<UnverifiedManifest>, ManifestError>, UpstreamError> {
        let known = match self.parts.hot.manifest(repository, &descriptor.digest) {
            Some(manifest) => Some(manifest),
            None => stored_manifest(&self.parts.store, &descriptor.digest).await.map(Arc::new),
        };
        let manifest = if let Some(manifest) = known {
            manifest
        } else {
            let reference = Reference::Digest(descriptor.digest);
            let fetched = by(deadline, repository.host(), upstream.manifest(repository.name(), &reference)).await?;
            match self.parse_fetched(fetched).await {
                Ok(manifest) => Arc::new(manifest),
                Err(error) => return Ok(Err(error)),
            }
        };
        has_size(manifest.bytes(), descriptor, repository.host())?;
        Ok(Ok(manifest))
    }
}

/// A referrer whose manifest is read.
#[derive(Debug)]
struct LookedInto {
    descriptor: Descriptor,
    rank: Rank,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn referrers(from: usize, count: usize, size: u64) -> Vec<Descriptor> {
        let referrer = |number: usize| Descriptor {
            media_type: MediaType::OciManifest.as_str().to_owned(),
            digest: Digest::sha256(number.to_string().as_bytes()),
            size,
            artifact_type: None,
            platform: None,
            annotations: BTreeMap::new(),
        };
        (from..from + count).map(referrer).collect()
    }

    fn looked_into(first: &[Descriptor], perhaps: &[Descriptor]) -> (Vec<LookedInto>, Listing) {
        let repository = "quay.io/a/b:1".parse::<crate::oci::ImageReference>().unwrap().repository;
        let mut listing = Listing::empty(Spot { repository, is_alternate: false, at: At::Referrers });
        let selected = SelectedReferrers { first: first.to_vec(), perhaps: perhaps.to_vec(), ..Default::default() };
        (listing.look_into(&selected), listing)
    }

    #[test]
    fn as_many_referrers_as_allowed_are_looked_into_and_the_sure_ones_first() {
        let (all, listing) = looked_into(&referrers(0, 60, 1), &referrers(100, CANDIDATES_MAX - 60, 1));
        assert!(all.len() == CANDIDATES_MAX && !listing.more);
        let (some, listing) = looked_into(&referrers(0, 60, 1), &referrers(100, CANDIDATES_MAX - 59, 1));
        assert!(some.len() == CANDIDATES_MAX && listing.more);
        assert_eq!(some.iter().filter(|referrer| referrer.rank == Rank::Sure).count(), 60);
    }

    #[test]
    fn a_referrer_listed_twice_is_looked_into_once() {
        let (once, listing) = looked_into(&referrers(0, 3, 1), &referrers(0, 3, 1));
        assert!(once.len() == 3 && once.iter().all(|referrer| referrer.rank == Rank::Sure) && !listing.more);
    }

    #[test]
    fn a_manifest_of_a_referrer_is_bounded_on_both_sides() {
        let (one, listing) = looked_into(&referrers(0, 1, REFERRER_BYTES_MAX), &[]);
        assert!(one.len() == 1 && listing.skipped.is_empty());
        let (none, listing) = looked_into(&referrers(0, 1, REFERRER_BYTES_MAX + 1), &[]);
        assert!(none.is_empty() && listing.skipped.len() == 1 && !listing.more);
    }
}
