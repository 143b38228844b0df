//! Tag → digest: the pointer that is remembered, else one question to upstream (distribution-spec v1.1, "Pulling manifests").

use std::sync::Arc;
use std::time::Duration;

use super::cold::Novelty;
use super::manifest::UnverifiedManifest;
use super::{PullError, Puller, Source};
use crate::clock::Timestamp;
use crate::limits::STALE_SOFT_DEADLINE;
use crate::oci::{Algorithm, Digest, MediaType, Reference, Repository, Tag};
use crate::store::TagPointer;
use crate::telemetry::{CacheKind, CacheResult, StaleCause};
use crate::upstream::UpstreamError;

/// What a tag points at.
#[derive(Debug, Clone)]
pub(super) struct Resolution {
    pub(super) digest: Digest,
    /// Hit, revalidated, stale or miss.
    pub(super) cache: CacheResult,
    /// The bytes, when they had to be fetched to know the digest.
    pub(super) manifest: Option<Arc<UnverifiedManifest>>,
}

/// What upstream said just now.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    digest: Digest,
    manifest: Option<Arc<UnverifiedManifest>>,
}

/// What a remembered pointer is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// It is the answer.
    Fresh,
    /// Upstream is asked; while it is down or slow the pointer is the answer.
    Stale,
    /// Upstream is asked, and only its answer counts.
    Revalidate,
}

/// Decides by age. A pointer from the future (the clock stepped back) is checked again, and good enough meanwhile.
fn freshness(checked: Timestamp, now: Timestamp, tag_ttl: Duration, stale_if_error: Duration) -> Freshness {
    let age = now.since(checked);
    if checked <= now && age < tag_ttl {
        Freshness::Fresh
    } else if age < tag_ttl.saturating_add(stale_if_error) {
        Freshness::Stale
    } else {
        Freshness::Revalidate
    }
}

/// The label under which a stale answer is counted; `None`: upstream has answered, so nothing stale is served.
fn stale_cause(error: &UpstreamError) -> Option<StaleCause> {
    match error {
        UpstreamError::NotFound { .. } | UpstreamError::Refused { .. } => None,
        UpstreamError::RateLimited { .. } => Some(StaleCause::RateLimited),
        UpstreamError::Resting { .. } => Some(StaleCause::BreakerOpen),
        UpstreamError::Timeout { .. } => Some(StaleCause::Timeout),
        UpstreamError::Connect { .. } => Some(StaleCause::Connect),
        UpstreamError::Failed { .. } | UpstreamError::Bad { .. } => Some(StaleCause::Server),
    }
}

impl Puller {
    /// Resolves a tag. Costs no call while the pointer is younger than `tag_ttl`, else one HEAD, shared by all who ask.
    ///
    /// While upstream fails, or has not answered within the soft deadline, a pointer younger than `stale_if_error` is
    /// the answer; the question goes on without this caller. Cancel safe.
    ///
    /// # Errors
    /// [`PullError::ManifestUnknown`] on upstream's clean 404; [`PullError::Upstream`] when it gave no usable answer and
    /// nothing remembered may stand in.
    pub(super) async fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Resolution, PullError> {
        let source = self.source(repository)?;
        let Some(pointer) = self.parts.store.tag(repository, tag).await else {
            return self.ask_first(source, repository, tag).await;
        };
        match freshness(pointer.checked, self.parts.clock.now(), source.tag_ttl, source.stale_if_error) {
            Freshness::Fresh => Ok(Resolution { digest: pointer.digest, cache: CacheResult::Hit, manifest: None }),
            Freshness::Stale => self.ask_or_stay(source, repository, tag, pointer.digest).await,
            Freshness::Revalidate => self.ask_first(source, repository, tag).await,
        }
    }

    /// Fetches what the tag names now, bytes and all: when the digest it was said to point at is not there.
    pub(super) async fn resolve_by_bytes(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Arc<UnverifiedManifest>, PullError> {
        let manifest = self.fetch(repository, &Reference::Tag(tag.clone())).await?;
        self.remember_tag(repository, tag, &manifest).await;
        Ok(manifest)
    }

    async fn ask_first(&self, source: &Source, repository: &Repository, tag: &Tag) -> Result<Resolution, PullError> {
        let asked = self.ask(source, repository, tag, Novelty::New).await?;
        Ok(Resolution { digest: asked.digest, cache: CacheResult::Miss, manifest: asked.manifest })
    }

    async fn ask_or_stay(
        &self,
        source: &Source,
        repository: &Repository,
        tag: &Tag,
        known: Digest,
    ) -> Result<Resolution, PullError> {
        // Losing the race is safe: the question is a task of its own, which remembers the answer for the next caller.
        let cause =
            match tokio::time::timeout(STALE_SOFT_DEADLINE, self.ask(source, repository, tag, Novelty::Known)).await {
                Ok(Ok(asked)) => {
                    let cache = if asked.digest == known { CacheResult::Revalidated } else { CacheResult::Miss };
                    return Ok(Resolution { digest: asked.digest, cache, manifest: asked.manifest });
                }
                Ok(Err(PullError::Upstream(error))) => match stale_cause(&error) {
                    Some(cause) => cause,
                    None => return Err(error.into()),
                },
                Ok(Err(PullError::Overloaded)) => StaleCause::Overloaded,
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => StaleCause::Timeout,
            };
        self.parts.telemetry.stale_served(&source.host, cause);
        Ok(Resolution { digest: known, cache: CacheResult::Stale, manifest: None })
    }

    /// One question at a time for each tag.
    async fn ask(
        &self,
        source: &Source,
        repository: &Repository,
        tag: &Tag,
        novelty: Novelty,
    ) -> Result<Asked, PullError> {
        let reference = Reference::Tag(tag.clone());
        if self.parts.hot.is_missing(repository, &reference, self.parts.clock.now()) {
            self.parts.telemetry.cache_asked(CacheKind::ManifestTag, CacheResult::NegativeHit);
            return Err(PullError::ManifestUnknown);
        }
        let work = || {
            let (puller, source, repository, tag) = (self.clone(), source.clone(), repository.clone(), tag.clone());
            async move { puller.ask_upstream(&source, &repository, &tag).await }
        };
        let at = (&source.host, novelty);
        self.run(&self.parts.resolving, at, (repository.clone(), tag.clone()), work).await?
    }

    async fn ask_upstream(&self, source: &Source, repository: &Repository, tag: &Tag) -> Result<Asked, PullError> {
        // Another run may have ended between the caller's look and this one's start.
        if let Some(pointer) = self.parts.store.tag(repository, tag).await {
            let freshness = freshness(pointer.checked, self.parts.clock.now(), source.tag_ttl, source.stale_if_error);
            if freshness == Freshness::Fresh {
                return Ok(Asked { digest: pointer.digest, manifest: None });
            }
        }
        let reference = Reference::Tag(tag.clone());
        match source.upstream.manifest_head(repository.name(), &reference).await {
            Ok(head) => {
                // Signatures bind sha256, so a tag that is named by another digest is hashed by us.
                let Some(digest) = head.digest.filter(|digest| digest.algorithm() == Algorithm::Sha256) else {
                    return self.ask_for_bytes(repository, tag).await;
                };
                let media_type = head.content_type.and_then(|text| text.parse().ok());
                self.keep_pointer(repository, tag, digest, media_type).await;
                Ok(Asked { digest, manifest: None })
            }
            Err(UpstreamError::NotFound { .. }) => Err(self.tag_is_gone(repository, tag).await),
            // Some registries answer HEAD badly; what GET says decides.
            Err(UpstreamError::Bad { .. }) => self.ask_for_bytes(repository, tag).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn ask_for_bytes(&self, repository: &Repository, tag: &Tag) -> Result<Asked, PullError> {
        match self.fetch(repository, &Reference::Tag(tag.clone())).await {
            Ok(manifest) => {
                self.remember_tag(repository, tag, &manifest).await;
                Ok(Asked { digest: *manifest.digest(), manifest: Some(manifest) })
            }
            Err(PullError::ManifestUnknown) => Err(self.tag_is_gone(repository, tag).await),
            Err(error) => Err(error),
        }
    }

    async fn remember_tag(&self, repository: &Repository, tag: &Tag, manifest: &UnverifiedManifest) {
        self.keep_pointer(repository, tag, *manifest.digest(), Some(manifest.parsed().media_type)).await;
    }

    /// A tag that goes back to an older, well-signed image cannot be told from one that moves on, so each move is logged.
    async fn keep_pointer(&self, repository: &Repository, tag: &Tag, digest: Digest, media_type: Option<MediaType>) {
        if let Some(before) = self.parts.store.tag(repository, tag).await
            && before.digest != digest
        {
            tracing::info!(%repository, %tag, from = %before.digest, to = %digest, "the tag has moved");
        }
        let pointer = TagPointer { digest, media_type, checked: self.parts.clock.now() };
        self.parts.store.put_tag(repository, tag, pointer).await;
    }

    /// Upstream has removed the tag: an older pointer must not stand in for it when upstream is down later.
    async fn tag_is_gone(&self, repository: &Repository, tag: &Tag) -> PullError {
        self.parts.hot.keep_missing(repository, Reference::Tag(tag.clone()), self.parts.clock.now());
        if let Some(pointer) = self.parts.store.tag(repository, tag).await {
            let pointer = TagPointer { checked: Timestamp::MIN, ..pointer };
            self.parts.store.put_tag(repository, tag, pointer).await;
        }
        PullError::ManifestUnknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_mins(1);
    const STALE: Duration = Duration::from_hours(1);

    fn at(seconds: i64) -> Freshness {
        freshness(Timestamp::from_unix_seconds(0), Timestamp::from_unix_seconds(seconds), TTL, STALE)
    }

    #[test]
    fn a_pointer_ages_from_fresh_over_stale_to_useless() {
        assert_eq!(at(0), Freshness::Fresh);
        assert_eq!(at(59), Freshness::Fresh);
        assert_eq!(at(60), Freshness::Stale);
        assert_eq!(at(3659), Freshness::Stale);
        assert_eq!(at(3660), Freshness::Revalidate);
    }

    #[test]
    fn a_pointer_from_the_future_is_checked_again() {
        assert_eq!(at(-1), Freshness::Stale);
        let now = Timestamp::from_unix_seconds(1_000);
        assert_eq!(freshness(Timestamp::MIN, now, TTL, STALE), Freshness::Revalidate);
        assert_eq!(freshness(now, now, Duration::ZERO, STALE), Freshness::Stale);
        assert_eq!(freshness(now, now, Duration::ZERO, Duration::ZERO), Freshness::Revalidate);
    }

    #[test]
    fn nothing_stale_is_served_when_upstream_has_answered() {
        let upstream: crate::oci::Host = "quay.io".parse().unwrap();
        assert_eq!(stale_cause(&UpstreamError::NotFound { upstream: upstream.clone() }), None);
        assert_eq!(stale_cause(&UpstreamError::Refused { upstream: upstream.clone(), status: 403 }), None);
        assert_eq!(stale_cause(&UpstreamError::Timeout { upstream }), Some(StaleCause::Timeout));
    }
}
