//! The use cases: what a request for a manifest, blob, tag list or referrers list needs, in which order.
//!
//! The only module that knows the order of steps, and the only one that can make an [`AdmittedManifest`]:
//! `resolve` (tag → digest) → `manifest` (digest → bytes, hashed and parsed) → `admit` (bytes → admitted, by a verdict, a
//! grant or the artefact rule). Verdicts are reached in `verdict`, from the material that `discover` finds and, for indexes,
//! from their `children`. May import: `upstream`, `store`, `net`, `telemetry`, `policy`, `verify`, `oci`, `limits`, `clock`.

mod admit;
mod artefact;
mod blob;
mod children;
mod cold;
mod discover;
mod error;
mod fair;
mod fill;
mod filling;
mod flight;
mod freshness;
mod grants;
mod held_back;
mod hot;
mod lookaside;
mod manifest;
mod reading;
mod referrers;
mod report;
mod resolve;
mod room;
mod size;
mod tags;
mod transfer;
mod turns;
mod verdict;
mod workers;
mod worth;

pub use admit::AdmittedManifest;
pub use blob::{AdmittedBlob, BlobHead, Delivery};
pub use cold::{ColdRules, ColdWork};
pub use discover::{restore_material, stored_material};
pub use error::{Denial, Hindrance, PullError, UpstreamError};
pub use freshness::{TagLife, TagPattern, TagPatternError, TagRules, TagTtl, Withdrawn};
pub use referrers::ReferrersDocument;
pub use tags::TagList;
pub use turns::TurnRules;
pub use worth::Patience;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use self::blob::Blobs;
use self::cold::{Asker, Novelty};
use self::fair::FairQueue;
use self::flight::Flights;
use self::hot::Hot;
use self::manifest::UnverifiedManifest;
use self::referrers::Listed;
use self::report::Reports;
use self::resolve::Asked;
use self::room::Rooms;
use self::verdict::{Depth, Unreached};
use self::workers::Workers;
use crate::clock::Clock;
use crate::limits::REVALIDATIONS_MAX;
use crate::oci::{Digest, Host, Reference, Repository, Tag};
use crate::policy::PolicySet;
use crate::store::{Store, StoredVerdict, VerdictKey};
use crate::telemetry::Telemetry;
pub use crate::upstream::BreakerStanding;
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

/// How blobs are fetched.
#[derive(Debug, Clone, Copy, Default)]
pub struct TransferRules {
    /// How many at once.
    pub turns: TurnRules,
    /// How long for nobody.
    pub patience: Patience,
}

/// One upstream with its freshness rules.
#[derive(Debug, Clone)]
pub struct Source {
    /// Canonical name.
    pub host: Host,
    /// The client.
    pub upstream: Upstream,
    /// How long what it said about a tag counts.
    pub tags: TagRules,
}

/// The use cases; clones share everything, and are on nobody's behalf.
#[derive(Debug)]
pub struct Puller {
    parts: Arc<Parts>,
    asker: Option<Asker>,
}

impl Clone for Puller {
    fn clone(&self) -> Self {
        Self { parts: Arc::clone(&self.parts), asker: None }
    }
}

#[derive(Debug)]
struct Parts {
    sources: HashMap<Host, Source>,
    store: Store,
    snapshot: Arc<ArcSwap<Snapshot>>,
    clock: Clock,
    telemetry: Telemetry,
    tasks: TaskTracker,
    hot: Hot,
    blobs: Blobs,
    reports: Reports,
    workers: Workers,
    /// Questions that nobody waits for from the start.
    revalidating: Arc<Semaphore>,
    resolving: Flights<(Repository, Tag), Result<Asked, PullError>>,
    fetching: Flights<(Repository, Reference), Result<Arc<UnverifiedManifest>, PullError>>,
    deciding: Flights<(VerdictKey, Depth), Result<Arc<StoredVerdict>, Unreached>>,
    checking: Flights<(Repository, Digest), Result<bool, PullError>>,
    listing: Flights<(Repository, Digest), Result<Listed, PullError>>,
    /// One place for each artefact blob that is held in memory while it is looked at.
    artefacts: FairQueue,
    rooms: Rooms,
}

impl Puller {
    /// Wires the parts. Work goes into `tasks`, which shutdown waits for.
    pub fn new(
        sources: Vec<Source>,
        store: Store,
        snapshot: Arc<ArcSwap<Snapshot>>,
        clock: Clock,
        telemetry: Telemetry,
        tasks: TaskTracker,
    ) -> Self {
        Self::with_transfers(sources, store, snapshot, clock, telemetry, tasks, TransferRules::default())
    }

    /// As [`Self::new`], with other rules for transfers: for tests.
    pub fn with_transfers(
        sources: Vec<Source>,
        store: Store,
        snapshot: Arc<ArcSwap<Snapshot>>,
        clock: Clock,
        telemetry: Telemetry,
        tasks: TaskTracker,
        transfers: TransferRules,
    ) -> Self {
        let parts = Parts {
            blobs: Blobs::new(store.clone(), telemetry.clone(), transfers, tasks.clone()),
            sources: sources.into_iter().map(|source| (source.host.clone(), source)).collect(),
            store,
            snapshot,
            clock,
            telemetry,
            hot: Hot::new(),
            reports: Reports::new(),
            workers: Workers::new(tasks.clone()),
            revalidating: Arc::new(Semaphore::new(REVALIDATIONS_MAX)),
            resolving: Flights::new(tasks.clone()),
            fetching: Flights::new(tasks.clone()),
            deciding: Flights::new(tasks.clone()),
            checking: Flights::new(tasks.clone()),
            listing: Flights::new(tasks.clone()),
            artefacts: FairQueue::new(artefact::PLACES),
            rooms: Rooms::new(),
            tasks,
        };
        Self { parts: Arc::new(parts), asker: None }
    }

    /// Each endpoint of an upstream in its order, and how its breakers stand; none of one that is not configured.
    pub fn standings(&self, host: &Host) -> Vec<(url::Url, BreakerStanding)> {
        self.parts.sources.get(host).map(|source| source.upstream.standings()).unwrap_or_default()
    }

    /// A blob for which there is a grant.
    ///
    /// # Errors
    /// [`PullError::BlobUnknown`] when no admitted manifest of this repository lists it, or upstream does not have it;
    /// [`PullError::Undecided`] when what the grant rests on cannot be decided now; [`PullError::Upstream`] when the
    /// bytes cannot be had; [`PullError::Overloaded`] when they are not here and too much is under way.
    pub async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<AdmittedBlob, PullError> {
        let source = self.source(repository)?;
        self.of_granted_size(repository, digest, |size| {
            self.parts.blobs.open(source, repository, digest, size, self.transfer_place(repository.host()))
        })
        .await
    }

    /// Size and cache state of a blob for which there is a grant; moves no body.
    ///
    /// # Errors
    /// As [`Self::blob`].
    pub async fn blob_head(&self, repository: &Repository, digest: &Digest) -> Result<BlobHead, PullError> {
        let source = self.source(repository)?;
        self.of_granted_size(repository, digest, |size| {
            let place = self.cold_place(repository.host(), Novelty::Known);
            self.parts.blobs.head(source, repository, digest, size, place)
        })
        .await
    }

    /// What `with` makes of the size that a grant states. A manifest that lies about a size must cost no other one the blob: a
    /// size that turns out wrong is passed over for those of other grants, of which there are few; and when upstream is away,
    /// for the size that the cached file has, if a grant states it.
    async fn of_granted_size<T, F>(
        &self,
        repository: &Repository,
        digest: &Digest,
        with: impl Fn(u64) -> F,
    ) -> Result<T, PullError>
    where
        F: Future<Output = Result<T, PullError>>,
    {
        let mut wrong = Vec::new();
        let mut size = self.blob_grant(repository, digest, |_| true).await?.size;
        loop {
            let error = match with(size).await {
                Err(error) if is_wrong_size(&error) => error,
                Err(error @ PullError::Upstream(_)) => {
                    let cached = self.parts.store.blob(digest).await.map(|file| file.size());
                    let Some(cached) = cached.filter(|cached| *cached != size) else { return Err(error) };
                    return match self.blob_grant(repository, digest, |stated| stated == cached).await {
                        Ok(grant) => with(grant.size).await,
                        Err(_) => Err(error),
                    };
                }
                outcome => return outcome,
            };
            wrong.push(size);
            size = match self.blob_grant(repository, digest, |stated| !wrong.contains(&stated)).await {
                Ok(grant) => grant.size,
                Err(_) => return Err(error),
            };
        }
    }

    /// The upstream of that repository. The router names configured ones only.
    fn source(&self, repository: &Repository) -> Result<&Source, PullError> {
        self.parts.sources.get(repository.host()).ok_or(PullError::RepositoryUnknown)
    }
}

fn is_wrong_size(error: &PullError) -> bool {
    matches!(error, PullError::Upstream(UpstreamError::Bad { reason: "size_mismatch", .. }))
}
