//! One transfer per blob: a tracked task that no request owns writes it into the cache, and all readers follow behind.
//!
//! A client that leaves does not stop a fill, a slow one does not slow it. A broken transfer resumes by `Range` and the
//! hash goes on. When the disk cannot take the blob, readers fetch it for themselves instead.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::PullError;
use crate::limits::FILL_RESUMES_MAX;
use crate::oci::{Digest, Host, Repository};
use crate::store::{Staged, StagedReader, Store, StoreError};
use crate::telemetry::{FillOutcome, Telemetry};
use crate::upstream::{BlobBody, BlobRange, Upstream, UpstreamError};

/// Pieces of a body that are written with one hop off the async threads.
const PIECES_AT_ONCE: usize = 16;

/// How far a fill is. All but the first two are final.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    /// Upstream has not answered yet.
    Starting,
    /// That many bytes can be read; nothing is known about their digest.
    Streaming {
        /// Bytes in the staged file.
        written: u64,
    },
    /// All bytes can be read and have the right digest.
    Verified,
    /// Another fill had committed the blob before this one began.
    Cached,
    /// The cache cannot take it.
    Unstorable,
    /// There will be no more bytes.
    Failed(PullError),
}

/// A blob on its way into the cache.
#[derive(Debug)]
pub(super) struct Fill {
    /// The repository it is fetched from.
    repository: Repository,
    progress: watch::Receiver<Progress>,
    staged: OnceLock<StagedReader>,
}

impl Fill {
    /// The repository it is fetched from.
    pub(super) const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// A view of its progress that can be waited on.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// The bytes so far; there from [`Progress::Streaming`] on.
    pub(super) fn staged(&self) -> Option<&StagedReader> {
        self.staged.get()
    }
}

/// Whether a caller started a fill or found one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    /// It runs because of this caller.
    Started,
    /// It was under way.
    Found,
}

/// A fill's key. Upstreams do not share fills, so that a slow one cannot hold another's clients up; nor do manifests that
/// state different sizes, so that one that lies spoils nobody else's transfer and takes no part of another's for the whole.
type Key = (Host, Digest, u64);
type Running = Arc<Mutex<HashMap<Key, Arc<Fill>>>>;

/// The fills that run; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Fills {
    running: Running,
    store: Store,
    telemetry: Telemetry,
    tasks: TaskTracker,
}

impl Fills {
    /// No fill yet; each becomes a task in `tasks`.
    pub(super) fn new(store: Store, telemetry: Telemetry, tasks: TaskTracker) -> Self {
        Self { running: Running::default(), store, telemetry, tasks }
    }

    /// The fill under way for that blob of that size, if there is one.
    pub(super) fn find(&self, host: &Host, digest: &Digest, size: u64) -> Option<Arc<Fill>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&(host.clone(), *digest, size)).map(Arc::clone)
    }

    /// The fill for the blob `digest` of `size` bytes: the one under way, else a new one from `repository`.
    pub(super) fn join(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        digest: Digest,
        size: u64,
    ) -> (Arc<Fill>, Joined) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.entry((repository.host().clone(), digest, size)) {
            Entry::Occupied(entry) => (Arc::clone(entry.get()), Joined::Found),
            Entry::Vacant(entry) => {
                let (sender, progress) = watch::channel(Progress::Starting);
                let fill = Arc::new(Fill { repository: repository.clone(), progress, staged: OnceLock::new() });
                let seat = Seat {
                    running: Arc::clone(&self.running),
                    key: entry.key().clone(),
                    sender,
                    telemetry: self.telemetry.clone(),
                    began: Instant::now(),
                    outcome: FillOutcome::Cancelled,
                    bytes: 0,
                };
                let transfer = Transfer {
                    upstream: upstream.clone(),
                    store: self.store.clone(),
                    telemetry: self.telemetry.clone(),
                    fill: Arc::clone(&fill),
                    digest,
                    size,
                };
                self.telemetry.fill_began();
                self.tasks.spawn(transfer.run(seat));
                (Arc::clone(entry.insert(fill)), Joined::Started)
            }
        }
    }
}

/// A fill's place in the map, and what is counted of it. Dropping it, also by a panic, ends the fill for its readers.
#[derive(Debug)]
struct Seat {
    running: Running,
    key: Key,
    sender: watch::Sender<Progress>,
    telemetry: Telemetry,
    began: Instant,
    outcome: FillOutcome,
    bytes: u64,
}

impl Seat {
    fn end(mut self, progress: Progress, outcome: FillOutcome) {
        self.outcome = outcome;
        self.sender.send_replace(progress);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.sender.send_if_modified(|progress| {
            let running = matches!(progress, Progress::Starting | Progress::Streaming { .. });
            if running {
                *progress = Progress::Failed(PullError::Lost);
            }
            running
        });
        self.telemetry.fill_ended(self.outcome, self.bytes, self.began.elapsed());
    }
}

/// Why a transfer ended without the blob in the cache.
#[derive(Debug)]
enum Stop {
    /// The cache cannot take it.
    Unstorable,
    /// Upstream did not give it.
    Upstream(UpstreamError),
}

impl From<UpstreamError> for Stop {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

#[derive(Debug)]
struct Transfer {
    upstream: Upstream,
    store: Store,
    telemetry: Telemetry,
    fill: Arc<Fill>,
    digest: Digest,
    size: u64,
}

impl Transfer {
    async fn run(self, mut seat: Seat) {
        match self.transfer(&mut seat).await {
            Ok(progress) => seat.end(progress, FillOutcome::Committed),
            Err(Stop::Unstorable) => seat.end(Progress::Unstorable, FillOutcome::NoSpace),
            Err(Stop::Upstream(UpstreamError::NotFound { .. })) => {
                seat.end(Progress::Failed(PullError::BlobUnknown), FillOutcome::UpstreamError);
            }
            Err(Stop::Upstream(error)) => {
                let outcome = outcome(&error);
                seat.end(Progress::Failed(PullError::Upstream(error)), outcome);
            }
        }
    }

    async fn transfer(&self, seat: &mut Seat) -> Result<Progress, Stop> {
        // A fill may have committed the blob between our caller's look into the cache and this task's start.
        if self.store.blob(&self.digest).await.is_some_and(|file| file.size() == self.size) {
            return Ok(Progress::Cached);
        }
        let mut body = self.request(0).await?;
        let mut staged =
            self.store.stage(self.digest.algorithm(), self.size).await.map_err(|error| self.unstorable(&error))?;
        let reader = staged.reader().map_err(|error| {
            self.telemetry.cache_write_failed(&error);
            Stop::Unstorable
        })?;
        if self.fill.staged.set(reader).is_err() {
            return Err(Stop::Unstorable);
        }
        let mut resumes = 0;
        while let Err(broken) = self.copy(body, &mut staged, seat).await? {
            if resumes == FILL_RESUMES_MAX || !is_resumable(&broken) {
                return Err(broken.into());
            }
            resumes += 1;
            self.telemetry.upstream_resumed(self.fill.repository.host());
            body = self.request(staged.written()).await?;
        }
        if staged.digest() != self.digest {
            return Err(self.bad("digest_mismatch").into());
        }
        if let Err(error) = staged.commit(&self.digest).await {
            // The bytes are right and readers have them open; only the cache goes without.
            self.unstorable(&error);
        }
        Ok(Progress::Verified)
    }

    /// Asks for the blob from byte `written` on; the length upstream announces must be the rest.
    async fn request(&self, written: u64) -> Result<BlobBody, UpstreamError> {
        let range = match written {
            0 => BlobRange::Whole,
            start => BlobRange::From { start, end: None },
        };
        let body = self.upstream.blob(self.fill.repository.name(), &self.digest, range).await?;
        match body.length {
            Some(length) if length != self.size.saturating_sub(written) => Err(self.bad("size_mismatch")),
            _ => Ok(body),
        }
    }

    /// Writes what comes, as much as is there at once; the inner error says how the transfer broke before the blob was whole.
    async fn copy(
        &self,
        body: BlobBody,
        staged: &mut Staged,
        seat: &mut Seat,
    ) -> Result<Result<(), UpstreamError>, Stop> {
        let mut arrivals = body.stream.ready_chunks(PIECES_AT_ONCE);
        while let Some(arrived) = arrivals.next().await {
            let mut broken = Ok(());
            let mut pieces = Vec::with_capacity(arrived.len());
            for piece in arrived {
                match piece {
                    Ok(piece) => pieces.push(piece),
                    Err(error) => broken = Err(error),
                }
            }
            match staged.write_pieces(pieces).await {
                Ok(()) => {}
                Err(StoreError::TooLong { .. }) => return Err(self.bad("too_large").into()),
                Err(error) => return Err(self.unstorable(&error)),
            }
            let written = staged.written();
            seat.bytes = written;
            seat.sender.send_replace(Progress::Streaming { written });
            if broken.is_err() {
                return Ok(broken);
            }
        }
        if staged.written() < self.size { Ok(Err(self.bad("truncated"))) } else { Ok(Ok(())) }
    }

    fn bad(&self, reason: &'static str) -> UpstreamError {
        UpstreamError::Bad { upstream: self.fill.repository.host().clone(), reason }
    }

    fn unstorable(&self, error: &StoreError) -> Stop {
        let kind = match error {
            StoreError::Io { source, .. } => source.kind(),
            StoreError::NoSpace | StoreError::TooLong { .. } | StoreError::DigestMismatch { .. } => {
                std::io::ErrorKind::StorageFull
            }
            StoreError::Locked { .. } => std::io::ErrorKind::ResourceBusy,
        };
        self.telemetry.cache_write_failed(&kind.into());
        Stop::Unstorable
    }
}

fn outcome(error: &UpstreamError) -> FillOutcome {
    match error {
        UpstreamError::Bad { reason: "digest_mismatch", .. } => FillOutcome::DigestMismatch,
        UpstreamError::Bad { reason: "truncated", .. } => FillOutcome::Truncated,
        UpstreamError::Bad { .. }
        | UpstreamError::NotFound { .. }
        | UpstreamError::Refused { .. }
        | UpstreamError::RateLimited { .. }
        | UpstreamError::Resting { .. }
        | UpstreamError::Timeout { .. }
        | UpstreamError::Failed { .. }
        | UpstreamError::Connect { .. } => FillOutcome::UpstreamError,
    }
}

/// Whether asking for the rest can help: the transfer broke, but nothing that came was wrong.
fn is_resumable(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::Timeout { .. } | UpstreamError::Connect { .. } => true,
        UpstreamError::Bad { reason, .. } => *reason == "truncated",
        UpstreamError::NotFound { .. }
        | UpstreamError::Refused { .. }
        | UpstreamError::RateLimited { .. }
        | UpstreamError::Resting { .. }
        | UpstreamError::Failed { .. } => false,
    }
}
