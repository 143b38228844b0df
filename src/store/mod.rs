//! What we keep, on disk and in memory: blobs, verdicts, grants, tags, evidence.
//!
//! Bytes are files named by their digest ([`BlobFile`], [`Staged`]); everything else is small, can be derived again, and
//! lies in memory above a database that may lose it: a lost record may cost time, it never grants access. May import:
//! `telemetry`, `policy`, `verify`, `oci`, `limits`, `clock`.

mod blobs;
mod buffers;
mod content;
mod decisions;
mod disk;
mod error;
mod evidence;
#[cfg(not(any(test, feature = "testing")))]
mod faults;
#[cfg(any(test, feature = "testing"))]
pub mod faults;
mod grants;
mod history;
mod layout;
mod ledger;
mod mapped;
mod mark;
mod offline;
mod quarantine;
mod reading;
mod record;
mod records;
mod scrub;
mod staging;
mod sweep;
mod tags;
#[cfg(test)]
mod testing;
mod unwritten;
mod verdict;
mod verdicts;
mod worker;

pub use blobs::BlobFile;
pub use error::StoreError;
pub use grants::{Grant, GrantKind};
pub use mapped::FileRegion;
pub use offline::OfflineCache;
pub use reading::{read_content, read_verdicts};
pub use scrub::{Scrub, ScrubStats};
pub use staging::{Staged, StagedReader, Whole};
pub use tags::{TagPointer, TagQuestion};
pub use verdict::{StoredVerdict, VerdictFilter, VerdictId, VerdictIdError, VerdictKey};

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::blobs::Blobs;
use self::content::Contents;
use self::decisions::Decisions;
use self::grants::Grants;
use self::layout::{Layout, Leftovers, Lock};
use self::mark::SeenTime;
use self::records::Records;
use self::scrub::Scrubber;
use self::tags::Tags;
use crate::clock::{Clock, Timestamp};
use crate::limits::{RESCUE_WAIT, STORE_UPKEEP, VERDICT_STORE_CLOSE, VERDICT_SWEEP};
use crate::oci::{Algorithm, Digest, ImageReference, MediaType, Repository};
use crate::policy::Evidence;
use crate::telemetry::Telemetry;

/// Where and how much.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `None`: everything in memory, nothing touches the disk but blobs in a temporary directory that is never shared.
    pub data_dir: Option<PathBuf>,
    /// Bound of the blob cache in bytes.
    pub max_bytes: u64,
    /// Free space to leave on the file system, in bytes.
    pub min_free_bytes: u64,
}

/// Size and bound of the blob cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStats {
    /// Bytes on disk; below the truth until the scan after a start has ended.
    pub bytes: u64,
    /// The bound.
    pub limit_bytes: u64,
    /// Files.
    pub entries: u64,
    /// Whether verdicts are on disk (`false`: memory only).
    pub verdicts_on_disk: bool,
}

/// What an operator wants removed from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// This blob.
    Blob(Digest),
    /// The least recently used, until so many bytes are free.
    Bytes(u64),
    /// Everything.
    All,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evicted {
    /// So much is gone; what is being read is not.
    Gone {
        /// Files.
        files: u64,
        /// Bytes.
        bytes: u64,
    },
    /// The blob is being read.
    InUse,
    /// The blob is not there.
    Unknown,
}

/// What became of a verdict that was to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// It is gone.
    Gone,
    /// It is gone from memory; the database gave no answer, and may bring it back with the next start.
    NoAnswer,
    /// There is none.
    Unknown,
}

/// Everything; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    blobs: Arc<Blobs>,
    contents: Contents,
    decisions: Arc<Decisions>,
    grants: Grants,
    tags: Tags,
    records: Records,
    seen_time: Arc<SeenTime>,
    scrubber: Arc<Scrubber>,
    /// Held until the store is closed.
    lock: Mutex<Option<Lock>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends the tasks when nobody closed the store.
    _stop_on_drop: DropGuard,
}

impl Store {
    /// Opens everything under `settings.data_dir`, or in memory. Does not look at the cache's files: their number and
    /// size are counted in the background.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process uses the directory; [`StoreError::Io`] and [`StoreError::NoSpace`]
    /// when its directories cannot be created.
    pub async fn open(settings: Settings, clock: Clock, telemetry: Telemetry) -> Result<Self, StoreError> {
        let layout = settings.data_dir.clone().map_or_else(Layout::temporary, Layout::kept);
        let root = layout.root().to_owned();
        let (own_clock, own_telemetry) = (clock.clone(), telemetry.clone());
        let prepared = off_thread(move || prepare(layout, own_clock, own_telemetry)).await;
        let Prepared { layout, lock, left, records, seen_time } =
            prepared.map_err(|error| StoreError::of(&root, error))??;
        records.report();
        let decisions = Arc::new(Decisions::new(&layout, records.clone(), clock.clone()));
        let grants = Grants::new(records.clone(), clock.clone());
        let tags = Tags::new(records.clone(), clock.clone());
        let blobs = Arc::new(Blobs::new(layout, &settings, clock, telemetry));
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            contents: Contents::new(Arc::clone(&blobs)),
            tasks: blobs.tasks.clone(),
            blobs,
            decisions,
            grants,
            tags,
            records,
            seen_time: Arc::new(seen_time),
            scrubber: Arc::default(),
            lock: Mutex::new(lock),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        });
        inner.blobs.report();
        inner.blobs.remove_later(left.stuck);
        if !left.whole.is_empty() {
            let (blobs, stop) = (Arc::clone(&inner.blobs), inner.stop.clone());
            let rescued = inner.tasks.spawn_blocking(move || blobs.rescue(&left.whole, &stop));
            if tokio::time::timeout(RESCUE_WAIT, rescued).await.is_err() {
                tracing::info!("the last process left blobs that are put into the cache beside the service");
            }
        }
        if inner.blobs.layout.is_kept() {
            inner.tasks.spawn(upkeep(Arc::downgrade(&inner), inner.stop.clone()));
        }
        Ok(Self { inner })
    }

    /// Flushes and closes; bounded by twice `limits::VERDICT_STORE_CLOSE`. What is asked afterwards is answered from memory.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        let ended = async {
            self.inner.contents.settle(None).await;
            self.inner.tasks.wait().await;
        };
        if tokio::time::timeout(VERDICT_STORE_CLOSE, ended).await.is_err() {
            tracing::warn!("the store's upkeep did not end in time");
        }
        self.inner.persist().await;
        self.inner.records.close().await;
        lock(&self.inner.lock).take();
    }

    // ---- small content: manifests and signature payloads, whole, verified against their digest when read ----

    /// The bytes of that digest, from memory or disk; hashed when read from disk; a wrong file is dropped and is a miss.
    pub async fn content(&self, digest: &Digest) -> Option<Bytes> {
        self.inner.contents.find(digest).await
    }

    /// Keeps them, on disk within moments; failure to write is counted, never fatal. The caller has hashed them. More than
    /// `limits::CONTENT_BYTES_MAX` are not kept.
    pub async fn keep_content(&self, digest: &Digest, bytes: Bytes) {
        self.inner.contents.keep(digest, bytes).await;
    }

    // ---- blobs ----

    /// Opens a cached blob.
    pub async fn blob(&self, digest: &Digest) -> Option<BlobFile> {
        self.inner.contents.settle(Some(digest)).await;
        let (blobs, digest) = (Arc::clone(&self.inner.blobs), *digest);
        off_thread(move || blobs.open(&digest)).await.ok().flatten()
    }

    /// Whether that blob has come into the cache since the process began, or was found there; says nothing about its file.
    pub fn has_entry(&self, digest: &Digest) -> bool {
        lock(&self.inner.blobs.ledger).contains(digest)
    }

    /// Begins to write a blob of at most `size_max` bytes.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when the disk is full; [`StoreError::Io`] else.
    pub async fn stage(&self, algorithm: Algorithm, size_max: u64) -> Result<Staged, StoreError> {
        let blobs = Arc::clone(&self.inner.blobs);
        let staged = off_thread(move || Staged::create(&blobs, algorithm, size_max)).await;
        staged.map_err(|error| StoreError::of(self.inner.blobs.layout.root(), error))?
    }

    /// Removes what an operator wants removed, but nothing that is being read.
    pub async fn evict(&self, what: Eviction) -> Evicted {
        self.inner.contents.settle(None).await;
        let blobs = Arc::clone(&self.inner.blobs);
        let (evicted, victims) = off_thread(move || blobs.evict(what)).await.unwrap_or((Evicted::Unknown, Vec::new()));
        for digest in &victims {
            self.inner.contents.forget(digest);
        }
        evicted
    }

    /// Begins to hash all cached files again, as often as `scrub` says and whenever [`Self::verify_cache`] asks; once.
    pub fn scrub(&self, scrub: Scrub) {
        let (inner, stop) = (Arc::downgrade(&self.inner), self.inner.stop.clone());
        self.inner.tasks.spawn(scrub::run(inner, scrub, stop));
    }

    /// Asks for all cached files to be hashed again now; `false` when that is under way.
    pub fn verify_cache(&self) -> bool {
        self.inner.scrubber.ask()
    }

    /// How far that is.
    pub fn scrub_stats(&self) -> ScrubStats {
        self.inner.scrubber.stats()
    }

    /// Size and bound.
    pub fn cache_stats(&self) -> CacheStats {
        self.inner.blobs.stats(self.inner.records.on_disk())
    }

    // ---- verdicts ----

    /// The verdict of that key, if it is current at `now`: not past its `not_after`, and, when the clock was ahead as it was
    /// reached, not further before `issued` than it was to live.
    pub async fn verdict(&self, key: &VerdictKey, now: Timestamp) -> Option<Arc<StoredVerdict>> {
        self.verdict_any_age(key).await.filter(|verdict| {
            now <= verdict.not_after && verdict.issued.since(now) <= verdict.not_after.since(verdict.issued)
        })
    }

    /// Also the expired one, to find stored material for verifying again offline.
    pub async fn verdict_any_age(&self, key: &VerdictKey) -> Option<Arc<StoredVerdict>> {
        self.inner.decisions.find(key).await
    }

    /// Keeps a verdict with its evidence.
    pub async fn put_verdict(&self, verdict: StoredVerdict, evidence: &Evidence) {
        self.inner.decisions.put(verdict, evidence).await;
    }

    /// Replaces evidence and material of a verdict, if that very verdict is still there: not forgotten, not reached anew.
    pub async fn amend_verdict(&self, verdict: StoredVerdict, evidence: &Evidence) {
        self.inner.decisions.amend(verdict, evidence).await;
    }

    /// Verdicts by the filter, newest first; also expired ones from the bounded history. Those of the processes before this
    /// one are read in the background after a start: until then they are missing. See [`read_verdicts`].
    pub async fn verdicts(&self, filter: &VerdictFilter) -> Vec<Arc<StoredVerdict>> {
        let (decisions, filter) = (Arc::clone(&self.inner.decisions), filter.clone());
        off_thread(move || decisions.list(&filter)).await.unwrap_or_default()
    }

    /// One verdict by id, with its evidence.
    pub async fn verdict_by_id(&self, id: &VerdictId) -> Option<(Arc<StoredVerdict>, Option<serde_json::Value>)> {
        self.inner.decisions.find_by_id(id).await
    }

    /// Forgets a verdict: the next request decides again.
    pub async fn forget_verdict(&self, id: &VerdictId) -> Forgotten {
        self.inner.decisions.forget(id).await
    }

    // ---- grants ----

    /// The grants of that digest in that repository, newest first.
    pub async fn grants(&self, repository: &Repository, digest: &Digest) -> Arc<[Grant]> {
        self.find_grants(repository, digest).await.unwrap_or_default()
    }

    /// As [`Self::grants`], but `None` when the database gave no answer in time, so that "don't know" need not be taken
    /// for "no".
    pub async fn find_grants(&self, repository: &Repository, digest: &Digest) -> Option<Arc<[Grant]>> {
        self.inner.grants.find(repository, digest).await
    }

    /// Keeps grants that one admission gives, all at once.
    pub async fn put_grants(&self, repository: &Repository, grants: Vec<(Digest, Grant)>) {
        self.inner.grants.put(repository, grants).await;
    }

    /// Takes away every grant on that digest that stems from `image`.
    pub async fn revoke_grants(&self, repository: &Repository, digest: &Digest, image: &ImageReference) {
        self.inner.grants.revoke(repository, digest, image).await;
    }

    // ---- time ----

    /// Whether `now` lies more than `limits::TIME_STEP_BACK` behind the largest time this method ever saw, also in the
    /// processes before this one. Then what is judged by time, such as a new keyless signature, is undecided.
    pub fn time_went_back(&self, now: Timestamp) -> bool {
        self.inner.seen_time.went_back(now)
    }

    // ---- tags and media types ----

    /// Where the list of those referrers of `subject` lies (in the content) that a verdict rests on, and when upstream named
    /// them.
    pub async fn referrers_list(&self, repository: &Repository, subject: &Digest) -> Option<TagPointer> {
        self.inner.tags.find_list(repository, subject).await
    }

    /// Remembers such a list.
    #[expect(clippy::unused_async, reason = "what it costs is this module's to change")]
    pub async fn put_referrers_list(&self, repository: &Repository, subject: &Digest, pointer: TagPointer) {
        self.inner.tags.put_list(repository, subject, pointer);
    }

    /// Where the list of the lookaside signatures of a digest is kept that an allow rests on.
    pub async fn lookaside_list(&self, repository: &Repository, subject: &Digest) -> Option<TagPointer> {
        self.inner.tags.find_lookaside(repository, subject).await
    }

    /// Remembers such a list.
    #[expect(clippy::unused_async, reason = "what it costs is this module's to change")]
    pub async fn put_lookaside_list(&self, repository: &Repository, subject: &Digest, pointer: &TagPointer) {
        self.inner.tags.put_lookaside(repository, subject, pointer);
    }

    /// The media type a manifest was first served with; fixed for ever.
    pub async fn media_type(&self, digest: &Digest) -> Option<MediaType> {
        self.inner.tags.media_type(digest).await
    }

    /// Fixes the media type of a manifest.
    pub async fn put_media_type(&self, digest: &Digest, media_type: MediaType) {
        self.inner.tags.put_media_type(digest, media_type).await;
    }
}

impl Inner {
    /// Writes what the next process should know and losing of which is no harm.
    async fn persist(&self) {
        self.records.report();
        let (blobs, seen_time) = (Arc::clone(&self.blobs), Arc::clone(&self.seen_time));
        let written = off_thread(move || {
            blobs.remove_leftovers();
            // What was read when it was too much may go now, and others may have filled the disk meanwhile.
            blobs.trim();
            blobs.make_space();
            blobs.write_times();
            seen_time.persist();
        });
        if let Err(error) = written.await {
            tracing::warn!(%error, "the store's upkeep failed");
        }
    }
}

/// What must be there before the first request.
struct Prepared {
    layout: Layout,
    lock: Option<Lock>,
    left: Leftovers,
    records: Records,
    seen_time: SeenTime,
}

/// Creates the directories, takes the lock and only then touches what lies there. Blocks.
fn prepare(layout: Layout, clock: Clock, telemetry: Telemetry) -> Result<Prepared, StoreError> {
    if !layout.is_kept() {
        let (records, seen_time) = (Records::none(telemetry), SeenTime::open(None));
        return Ok(Prepared { layout, lock: None, left: Leftovers::default(), records, seen_time });
    }
    let root = layout.root().to_owned();
    let refused = |error| StoreError::of(&root, error);
    layout.create_root().map_err(refused)?;
    let lock = layout.lock()?;
    let left = layout.create().and_then(|()| layout.leftovers()).map_err(refused)?;
    let records = Records::open(root.clone(), clock, telemetry)?;
    Ok(Prepared { layout, lock: Some(lock), left, records, seen_time: SeenTime::open(Some(root)) })
}

/// Counts blobs and records once, then keeps house until `stop`. Holds no handle while it waits.
async fn upkeep(inner: Weak<Inner>, stop: CancellationToken) {
    let mut is_counted = false;
    let mut next_sweep = tokio::time::Instant::now();
    loop {
        if !is_counted && let Some(blobs) = inner.upgrade().map(|inner| Arc::clone(&inner.blobs)) {
            let stop = stop.clone();
            is_counted = off_thread(move || blobs.scan(&stop)).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the cache could not be counted");
                false
            });
        }
        if tokio::time::Instant::now() >= next_sweep
            && let Some(decisions) = inner.upgrade().map(|inner| Arc::clone(&inner.decisions))
        {
            decisions.sweep(&stop).await;
            next_sweep = tokio::time::Instant::now() + VERDICT_SWEEP;
        }
        // Losing the sleep is all that stopping loses.
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(STORE_UPKEEP) => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        inner.persist().await;
    }
}

/// Runs blocking work off the async threads. It runs to its end, also when the caller leaves.
///
/// # Errors
/// When the work panicked or the runtime is ending.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Locks; what a panicking holder left is still consistent, since every holder's changes are single calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
