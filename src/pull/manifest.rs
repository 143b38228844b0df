//! Digest → bytes: from memory, from the store, else from upstream; hashed, bounded and parsed, not yet verified.

use std::sync::Arc;

use bytes::Bytes;

use super::cold::Novelty;
use super::{PullError, Puller};
use crate::oci::{Digest, Manifest, ManifestError, MediaType, Reference, Repository};
use crate::store::{Grant, GrantKind, Store};
use crate::telemetry::{CacheKind, CacheResult};
use crate::upstream::{FetchedManifest, UpstreamError};

/// A manifest that was hashed and parsed. Nothing can serve it: `admit` alone turns it into something that can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnverifiedManifest {
    bytes: Bytes,
    digest: Digest,
    manifest: Manifest,
}

impl UnverifiedManifest {
    /// Parses under the type that was `fixed` at first sight, else under upstream's.
    pub(super) fn parse(fetched: FetchedManifest, fixed: Option<MediaType>) -> Result<Self, ManifestError> {
        let FetchedManifest { bytes, digest, content_type } = fetched;
        let media_type = match fixed {
            Some(fixed) => fixed.as_str(),
            None => &content_type,
        };
        let manifest = Manifest::parse(&bytes, Some(media_type))?;
        Ok(Self { bytes, digest, manifest })
    }

    /// The bytes as they came; everything later is done with this buffer.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(super) const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What they say.
    pub(super) const fn parsed(&self) -> &Manifest {
        &self.manifest
    }

    /// Their number.
    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    /// What it costs to keep in memory, roughly: the bytes, and their parsed form, which is larger.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.len().saturating_mul(4).saturating_add(512)
    }
}

impl Puller {
    /// The manifest of that digest in that repository, and whether it was here.
    ///
    /// The content store is asked only where a grant shows that this repository has it: content is stored once for all
    /// repositories, and what one of them holds must not be visible through another. Cancel safe.
    ///
    /// # Errors
    /// [`PullError::ManifestUnknown`] on upstream's clean 404, remembered for at most 10 s; [`PullError::Manifest`] when
    /// the bytes are no manifest that passes; [`PullError::Upstream`] when there was no usable answer.
    pub(super) async fn unverified(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(Arc<UnverifiedManifest>, CacheResult), PullError> {
        if let Some(manifest) = self.held(repository, digest).await {
            return Ok((manifest, CacheResult::Hit));
        }
        Ok((self.fetch(repository, &Reference::Digest(*digest)).await?, CacheResult::Miss))
    }

    /// The manifest of that digest in that repository when it is here; upstream is not asked.
    pub(super) async fn held(&self, repository: &Repository, digest: &Digest) -> Option<Arc<UnverifiedManifest>> {
        if let Some(manifest) = self.parts.hot.manifest(repository, digest) {
            return Some(manifest);
        }
        let grants = self.parts.store.grants(repository, digest).await;
        if !grants.iter().any(|grant| is_for_manifest(grant, digest)) {
            return None;
        }
        self.stored(repository, digest).await
    }

    /// From the content store, under the media type that was fixed when it was first admitted.
    pub(super) async fn stored(&self, repository: &Repository, digest: &Digest) -> Option<Arc<UnverifiedManifest>> {
        let manifest = Arc::new(stored_manifest(&self.parts.store, digest).await?);
        self.parts.hot.keep_manifest(repository, &manifest);
        Some(manifest)
    }

    /// From upstream; one transfer for all who ask. What it says about a tag is remembered.
    pub(super) async fn fetch(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Arc<UnverifiedManifest>, PullError> {
        if self.parts.hot.is_missing(repository, reference, self.parts.clock.now()) {
            self.parts.telemetry.cache_asked(CacheKind::ManifestDigest, CacheResult::NegativeHit);
            return Err(PullError::ManifestUnknown);
        }
        let work = || {
            let (puller, repository, reference) = (self.clone(), repository.clone(), reference.clone());
            async move { puller.fetch_upstream(&repository, &reference).await }
        };
        let at = (repository.host(), Novelty::New);
        self.run(&self.parts.fetching, at, (repository.clone(), reference.clone()), work).await?
    }

    async fn fetch_upstream(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Arc<UnverifiedManifest>, PullError> {
        // Another run may have ended between the caller's look and this one's start. A tag is asked for what it is now.
        if let Reference::Digest(digest) = reference
            && let Some(manifest) = self.parts.hot.manifest(repository, digest)
        {
            return Ok(manifest);
        }
        let source = self.source(repository)?;
        let question = self.question();
        let fetched = match source.upstream.manifest(repository.name(), reference).await {
            Ok(fetched) => fetched,
            Err(error) => {
                match reference {
                    Reference::Tag(tag) => self.tag_is_not(source, repository, tag, question, &error).await,
                    Reference::Digest(_) if matches!(error, UpstreamError::NotFound { .. }) => {
                        self.parts.hot.keep_missing(repository, reference.clone(), self.parts.clock.now());
                    }
                    Reference::Digest(_) => {}
                }
                return Err(unknown_manifest(error));
            }
        };
        let manifest = Arc::new(self.parse_fetched(fetched).await?);
        self.parts.hot.keep_manifest(repository, &manifest);
        if let Reference::Tag(tag) = reference {
            let media_type = Some(manifest.parsed().media_type);
            self.tag_is(repository, tag, question, *manifest.digest(), media_type).await;
        }
        Ok(manifest)
    }

    /// Parses under the type that was fixed at first sight, whatever upstream calls the same bytes now (V-06).
    pub(super) async fn parse_fetched(&self, fetched: FetchedManifest) -> Result<UnverifiedManifest, ManifestError> {
        let fixed = self.parts.store.media_type(&fetched.digest).await;
        UnverifiedManifest::parse(fetched, fixed)
    }
}

/// What a client is told when upstream gave no manifest.
pub(super) fn unknown_manifest(error: UpstreamError) -> PullError {
    if matches!(error, UpstreamError::NotFound { .. }) { PullError::ManifestUnknown } else { error.into() }
}

/// A manifest out of the content store, under the media type that was fixed when it was first admitted.
pub(super) async fn stored_manifest(store: &Store, digest: &Digest) -> Option<UnverifiedManifest> {
    let bytes = store.content(digest).await?;
    let media_type = store.media_type(digest).await;
    let manifest = Manifest::parse(&bytes, media_type.map(MediaType::as_str)).ok()?;
    Some(UnverifiedManifest { bytes, digest: *digest, manifest })
}

/// Whether a grant on `digest` is for a manifest: one on a blob whose bytes happen to be a manifest is not.
pub(super) fn is_for_manifest(grant: &Grant, digest: &Digest) -> bool {
    match grant.kind {
        GrantKind::Manifest | GrantKind::Child => true,
        GrantKind::Artefact => grant.admitting == *digest,
        GrantKind::Blob => false,
    }
}
