//! The use cases: what a request for a manifest, blob, tag list or referrers list needs, in which order.
//!
//! The only module that knows the order of steps, and the only one that can make an [`AdmittedManifest`].

mod blob;
mod error;
mod fill;
mod flight;
mod held_back;
mod reading;

pub use blob::{AdmittedBlob, BlobHead};
pub use error::{Denial, PullError};

use std::sync::Arc;

use bytes::Bytes;

use crate::oci::{Digest, Host, ImageReference, MediaType, Repository, Tag};
use crate::policy::PolicySet;
use crate::store::{Store, VerdictId};
use crate::telemetry::{CacheResult, DecisionLabel, Telemetry};
use crate::upstream::Upstream;

/// What may change while we run; swapped whole on reload, taken once a request.
#[derive(Debug)]
pub struct Snapshot {
    /// The policy.
    pub policy: PolicySet,
    /// Fingerprint of the trust root.
    pub trust_root: Digest,
    /// Life of verdicts.
    pub verdict_ttl: VerdictTtl,
}

/// Life of verdicts (design §3, `[verdicts]`).
#[derive(Debug, Clone, Copy)]
pub struct VerdictTtl {
    /// Of an allow.
    pub allow: std::time::Duration,
    /// Of a deny.
    pub deny: std::time::Duration,
}

/// One upstream with its freshness rules.
#[derive(Debug, Clone)]
pub struct Source {
    /// Canonical name.
    pub host: Host,
    /// The client.
    pub upstream: Upstream,
    /// Life of a tag without asking upstream.
    pub tag_ttl: std::time::Duration,
    /// How long a stale tag may be served when upstream is down.
    pub stale_if_error: std::time::Duration,
}

/// The use cases; clones share everything.
#[derive(Debug, Clone)]
pub struct Puller {}

impl Puller {
    /// Wires the parts. Work goes into `tasks`, which shutdown waits for.
    pub fn new(
        _sources: Vec<Source>,
        _store: Store,
        _snapshot: Arc<arc_swap::ArcSwap<Snapshot>>,
        _clock: crate::clock::Clock,
        _telemetry: Telemetry,
        _tasks: tokio_util::task::TaskTracker,
    ) -> Self {
        Self {}
    }
    /// A manifest by tag or digest, decided.
    pub async fn manifest(&self, _image: &ImageReference) -> Result<AdmittedManifest, PullError> {
        todo!()
    }
    /// A blob for which there is a grant.
    pub async fn blob(&self, _repository: &Repository, _digest: &Digest) -> Result<AdmittedBlob, PullError> {
        todo!()
    }
    /// Size and cache state of a blob for which there is a grant; moves no body.
    pub async fn blob_head(&self, _repository: &Repository, _digest: &Digest) -> Result<BlobHead, PullError> {
        todo!()
    }
    /// A page of tags: at most `n`, after `last`.
    pub async fn tags(&self, _repository: &Repository, _n: usize, _last: Option<&Tag>) -> Result<TagList, PullError> {
        todo!()
    }
    /// The referrers of a digest as an OCI index document, filtered.
    pub async fn referrers(
        &self,
        _repository: &Repository,
        _digest: &Digest,
        _artifact_type: Option<&str>,
    ) -> Result<ReferrersDocument, PullError> {
        todo!()
    }
}

/// A manifest that may be served: it has a current verdict, grant, exemption, audit mode or artefact rule behind it.
#[derive(Debug, Clone)]
pub struct AdmittedManifest {
    bytes: Bytes,
    digest: Digest,
    media_type: MediaType,
    /// Why it may be served, for the header.
    decision: DecisionLabel,
    verdict: Option<VerdictId>,
    cache: CacheResult,
}

impl AdmittedManifest {
    /// The bytes that were hashed and verified.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// Their digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
    /// The type under which they are served.
    pub fn media_type(&self) -> MediaType {
        self.media_type
    }
    /// Allow, audit-deny, audit-undecided or exempt.
    pub fn decision(&self) -> DecisionLabel {
        self.decision
    }
    /// The verdict behind it; artefacts have none.
    pub fn verdict(&self) -> Option<VerdictId> {
        self.verdict
    }
    /// Hit, miss, revalidated or stale.
    pub fn cache(&self) -> CacheResult {
        self.cache
    }
}

/// A page of tags.
#[derive(Debug, Clone)]
pub struct TagList {
    /// Sorted bytewise.
    pub tags: Vec<Tag>,
    /// There are more.
    pub more: bool,
}

/// Referrers as an OCI index.
#[derive(Debug, Clone)]
pub struct ReferrersDocument {
    /// The JSON.
    pub bytes: Bytes,
    /// Whether a filter by artifact type was applied.
    pub filtered: bool,
}
