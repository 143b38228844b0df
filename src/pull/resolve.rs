//! Tag → digest: the pointer that is remembered, else one question to upstream (distribution-spec v1.1, "Pulling manifests").

use std::sync::Arc;

use super::cold::Novelty;
use super::freshness::{Freshness, WITHDRAWN, Withdrawn};
use super::manifest::{UnverifiedManifest, unknown_manifest};
use super::{PullError, Puller, Source};
use crate::clock::Timestamp;
use crate::limits::STALE_SOFT_DEADLINE;
use crate::oci::{Algorithm, Digest, MediaType, Reference, Repository, Tag};
use crate::store::{TagPointer, TagQuestion};
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

/// A question about a tag. Whatever comes says how the tag was at some time after this.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    order: TagQuestion,
    at: Timestamp,
}

/// What upstream said just now.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    digest: Digest,
    manifest: Option<Arc<UnverifiedManifest>>,
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
        let known = |cache| Ok(Resolution { digest: pointer.digest, cache, manifest: None });
        match self.freshness(source, repository, tag, &pointer) {
            Freshness::Fresh => known(CacheResult::Hit),
            Freshness::Meanwhile => {
                self.ask_in_background(source, repository, tag);
                known(CacheResult::Stale)
            }
            Freshness::Stale => self.ask_or_stay(source, repository, tag, pointer.digest).await,
            Freshness::Useless => self.ask_first(source, repository, tag).await,
        }
    }

    fn freshness(&self, source: &Source, repository: &Repository, tag: &Tag, pointer: &TagPointer) -> Freshness {
        source.tags.freshness(repository.name(), tag, pointer.checked, self.parts.clock.now())
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
                Ok(Err(PullError::ManifestUnknown)) if source.tags.on_upstream_404 == Withdrawn::ServeStale => {
                    StaleCause::NotFound
                }
                Ok(Err(PullError::Overloaded)) => StaleCause::Overloaded,
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => StaleCause::Timeout,
            };
        self.parts.telemetry.stale_served(&source.host, cause);
        Ok(Resolution { digest: known, cache: CacheResult::Stale, manifest: None })
    }

    /// Asks without anybody waiting, unless so many do already; then who comes next asks.
    fn ask_in_background(&self, source: &Source, repository: &Repository, tag: &Tag) {
        let Ok(permit) = Arc::clone(&self.parts.revalidating).try_acquire_owned() else { return };
        if self.parts.hot.is_missing(repository, &Reference::Tag(tag.clone()), self.parts.clock.now()) {
            return;
        }
        let work = || {
            let (puller, source, repository, tag) = (self.clone(), source.clone(), repository.clone(), tag.clone());
            async move {
                let _permit = permit;
                puller.ask_upstream(&source, &repository, &tag).await
            }
        };
        self.parts.resolving.start((repository.clone(), tag.clone()), work);
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
        if let Some(pointer) = self.parts.store.tag(repository, tag).await
            && self.freshness(source, repository, tag, &pointer) == Freshness::Fresh
        {
            return Ok(Asked { digest: pointer.digest, manifest: None });
        }
        let reference = Reference::Tag(tag.clone());
        let question = self.question();
        match source.upstream.manifest_head(repository.name(), &reference).await {
            Ok(head) => {
                // Signatures bind sha256, so a tag that is named by another digest is hashed by us.
                let Some(digest) = head.digest.filter(|digest| digest.algorithm() == Algorithm::Sha256) else {
                    return self.ask_for_bytes(repository, &reference).await;
                };
                let media_type = head.content_type.and_then(|text| text.parse().ok());
                self.tag_is(repository, tag, question, digest, media_type).await;
                Ok(Asked { digest, manifest: None })
            }
            // Some registries answer HEAD badly; what GET says decides.
            Err(UpstreamError::Bad { .. }) => self.ask_for_bytes(repository, &reference).await,
            Err(error) => {
                self.tag_is_not(source, repository, tag, question, &error).await;
                Err(unknown_manifest(error))
            }
        }
    }

    async fn ask_for_bytes(&self, repository: &Repository, reference: &Reference) -> Result<Asked, PullError> {
        let manifest = self.fetch(repository, reference).await?;
        Ok(Asked { digest: *manifest.digest(), manifest: Some(manifest) })
    }

    /// A question about a tag, which is put now.
    pub(super) fn question(&self) -> Question {
        Question { order: self.parts.store.tag_question(), at: self.parts.clock.now() }
    }

    /// Upstream has answered that question with a manifest. A tag that goes back to an older, well-signed image cannot be told
    /// from one that moves on, so each move is logged.
    pub(super) async fn tag_is(
        &self,
        repository: &Repository,
        tag: &Tag,
        question: Question,
        digest: Digest,
        media_type: Option<MediaType>,
    ) {
        let before = self.parts.store.tag(repository, tag).await;
        let pointer = TagPointer { digest, media_type, checked: question.at };
        let is_news = self.parts.store.answer_tag(repository, tag, question.order, Some(pointer)).await;
        if let Some(before) = before.filter(|before| is_news && before.digest != digest) {
            tracing::info!(%repository, %tag, from = %before.digest, to = %digest, "the tag has moved");
        }
    }

    /// Upstream has answered that question with an error. When it says that it does not have the tag, or not for us, nothing
    /// older may stand in for it when upstream is down later, unless what is gone is to be served all the same.
    pub(super) async fn tag_is_not(
        &self,
        source: &Source,
        repository: &Repository,
        tag: &Tag,
        question: Question,
        error: &UpstreamError,
    ) {
        let is_missing =
            || self.parts.hot.keep_missing(repository, Reference::Tag(tag.clone()), self.parts.clock.now());
        let why = match error {
            UpstreamError::NotFound { .. } if source.tags.on_upstream_404 == Withdrawn::ServeStale => {
                is_missing();
                tracing::info!(%repository, %tag, "upstream does not have the tag; on_upstream_404 serves what is remembered");
                return;
            }
            UpstreamError::NotFound { .. } => "upstream no longer has the tag",
            UpstreamError::Refused { .. } => "upstream no longer lets us have the tag",
            UpstreamError::RateLimited { .. }
            | UpstreamError::Resting { .. }
            | UpstreamError::Timeout { .. }
            | UpstreamError::Connect { .. }
            | UpstreamError::Failed { .. }
            | UpstreamError::Bad { .. } => return,
        };
        let known = self.parts.store.tag(repository, tag).await;
        let withdrawn = known.clone().map(|pointer| TagPointer { checked: WITHDRAWN, ..pointer });
        let is_news = self.parts.store.answer_tag(repository, tag, question.order, withdrawn).await;
        if is_news && matches!(error, UpstreamError::NotFound { .. }) {
            is_missing();
        }
        if let Some(pointer) = known.filter(|pointer| is_news && pointer.checked != WITHDRAWN) {
            tracing::info!(%repository, %tag, digest = %pointer.digest, "{why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stale_is_served_when_upstream_has_answered() {
        let upstream: crate::oci::Host = "quay.io".parse().unwrap();
        assert_eq!(stale_cause(&UpstreamError::NotFound { upstream: upstream.clone() }), None);
        assert_eq!(stale_cause(&UpstreamError::Refused { upstream: upstream.clone(), status: 403 }), None);
        assert_eq!(stale_cause(&UpstreamError::Timeout { upstream }), Some(StaleCause::Timeout));
    }
}
