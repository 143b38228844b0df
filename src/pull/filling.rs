//! What a fill's task does: wait for its turn, write what upstream sends into the cache, hash it, put it into place.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::PullError;
use super::cold::Place;
use super::fill::{Progress, Seat};
use super::transfer::{Transfer, Wanted};
use super::turns::{Busy, Pace, Turns};
use crate::store::{Staged, Store, StoreError};
use crate::telemetry::FillOutcome;
use crate::upstream::UpstreamError;

/// The work of one fill.
#[derive(Debug)]
pub(super) struct Filling {
    pub(super) wanted: Wanted,
    pub(super) store: Store,
    pub(super) turns: Turns,
    /// How many blobs may be read to their end before the disk has them.
    pub(super) unsynced: Arc<Semaphore>,
    /// Its place among the transfers of the client that it was begun for.
    pub(super) place: Option<Arc<Place>>,
}

/// Why a fill ended without the blob in the cache.
#[derive(Debug)]
enum Stop {
    /// The cache cannot take it.
    Unstorable,
    /// Upstream did not give it.
    Upstream(UpstreamError),
    /// Too many transfers wait for the same upstream.
    Busy,
    /// Nobody reads it, and its end is not worth its cost.
    Deserted,
}

impl From<UpstreamError> for Stop {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

impl Filling {
    pub(super) async fn run(mut self, mut seat: Seat) {
        match self.fill(&mut seat).await {
            Ok((progress, outcome)) => seat.end(progress, outcome),
            Err(Stop::Unstorable) => seat.end(Progress::Unstorable, FillOutcome::NoSpace),
            Err(Stop::Upstream(UpstreamError::NotFound { .. })) => {
                seat.end(Progress::Failed(PullError::BlobUnknown), FillOutcome::UpstreamError);
            }
            Err(Stop::Upstream(error)) => {
                let outcome = outcome(&error);
                seat.end(Progress::Failed(PullError::Upstream(error)), outcome);
            }
            Err(Stop::Busy) => seat.end(Progress::Failed(PullError::Overloaded), FillOutcome::Cancelled),
            // Nobody is there to be told.
            Err(Stop::Deserted) => drop(seat),
        }
    }

    async fn fill(&mut self, seat: &mut Seat) -> Result<(Progress, FillOutcome), Stop> {
        let mut company = Company { desertion: seat.desertion(self.wanted.size), size: self.wanted.size };
        // A fill may have committed the blob between our caller's look into the cache and this task's start. Then it has an
        // entry, and without one the disk need not be asked.
        if self.store.has_entry(&self.wanted.digest) && self.is_cached().await {
            return Ok((Progress::Cached, FillOutcome::Committed));
        }
        // What is larger than the whole cache passes through it: no transfer is begun for a file that will not be.
        if self.wanted.size > self.store.cache_stats().limit_bytes {
            return Err(Stop::Unstorable);
        }
        let turn = self.turns.take(self.wanted.repository.host(), Pace::Full);
        let turn = company.keep(seat, turn).await?.map_err(|Busy| Stop::Busy)?;
        let begin = async { Transfer::begin(self.wanted.clone(), turn).await.map_err(Stop::from) };
        let both = async { tokio::try_join!(begin, self.stage()) };
        let (mut transfer, mut staged) = company.keep(seat, both).await??;
        seat.fill().begin(staged.reader());
        let mut pieces = company.keep(seat, transfer.next(None)).await??;
        while !pieces.is_empty() {
            // What comes next is received while this is written; a disk that fails need not wait for it.
            let (reading, idle) = (Arc::clone(seat.fill()), CancellationToken::new());
            let write = async {
                staged.write_pieces(pieces).await.map_err(|_| Stop::Unstorable)?;
                reading.wrote(staged.written());
                idle.cancel();
                Ok::<(), Stop>(())
            };
            let receive = async { Ok::<_, Stop>(transfer.next(Some(&idle)).await) };
            let ((), next) = company.keep(seat, async { tokio::try_join!(write, receive) }).await??;
            pieces = next?;
        }
        let whole = match staged.whole(&self.wanted.digest).await {
            Ok(whole) => whole,
            Err(StoreError::DigestMismatch { .. }) => return Err(self.wanted.bad("digest_mismatch").into()),
            // The process ends.
            Err(_) => return Err(Stop::Unstorable),
        };
        // Nobody waits for the disk, unless it falls behind: then all do who bring it more.
        let _unsynced = self.unsynced.acquire().await;
        drop((transfer, self.place.take()));
        // Who comes from now on still finds the fill.
        seat.verified();
        match whole.commit().await {
            Ok(()) => Ok((Progress::Verified, FillOutcome::Committed)),
            // Readers have the bytes open; only the cache goes without.
            Err(StoreError::NoSpace) => Ok((Progress::Verified, FillOutcome::NoSpace)),
            // What the disk did not take it may not give back either.
            Err(_) => Err(Stop::Unstorable),
        }
    }

    async fn is_cached(&self) -> bool {
        self.store.blob(&self.wanted.digest).await.is_some_and(|file| file.size() == self.wanted.size)
    }

    async fn stage(&self) -> Result<Staged, Stop> {
        let staged = self.store.stage(self.wanted.digest.algorithm(), self.wanted.size).await;
        // The store has counted why.
        staged.map_err(|_| Stop::Unstorable)
    }
}

/// Watches whether somebody follows the fill.
struct Company {
    desertion: BoxFuture<'static, ()>,
    size: u64,
}

impl Company {
    /// Does `work` to its end, unless nobody waits for it any more.
    async fn keep<T>(&mut self, seat: &Seat, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut work = pin!(work);
        loop {
            // Losing the work is what giving up means; the desertion goes on where it was with the next piece of work.
            tokio::select! {
                biased;
                outcome = &mut work => return Ok(outcome),
                () = &mut self.desertion => {
                    if seat.give_up() {
                        return Err(Stop::Deserted);
                    }
                    self.desertion = seat.desertion(self.size);
                }
            }
        }
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
