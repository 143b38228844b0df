//! One transfer per blob: a tracked task that no request owns writes it into the cache, and all readers follow behind.
//!
//! A client that leaves does not stop a fill while another reads it, or while its end is worth its cost (`worth`); a slow one
//! does not slow it. What the task does is in `filling`; here is who takes part.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::PullError;
use super::cold::Place;
use super::filling::Filling;
use super::transfer::Wanted;
use super::turns::Turns;
use super::worth::{Deserted, Patience};
use crate::limits::{FILL_ALONE_LOOK, UNSYNCED_FILLS_MAX};
use crate::oci::{Digest, Host, Repository};
use crate::store::{StagedReader, Store};
use crate::telemetry::{FillOutcome, Telemetry};

/// How far a fill is. All but the first two are final, but a disk that then fails makes [`Self::Unstorable`] of
/// [`Self::Verified`].
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
    progress: watch::Sender<Progress>,
    /// Bytes written, whatever became of them.
    written: AtomicU64,
    staged: OnceLock<StagedReader>,
    /// When upstream began to send.
    began: OnceLock<Instant>,
    /// How many follow it.
    followers: watch::Sender<usize>,
    telemetry: Telemetry,
}

impl Fill {
    /// Upstream begins to send; followers can read what is staged from now on. Called once.
    pub(super) fn begin(&self, reader: StagedReader) {
        self.began.get_or_init(Instant::now);
        self.staged.get_or_init(|| reader);
    }

    /// So many bytes can be read.
    pub(super) fn wrote(&self, written: u64) {
        self.written.store(written, Ordering::Relaxed);
        self.progress.send_replace(Progress::Streaming { written });
    }

    /// Ends when going on for nobody is not worth it, nobody having been there `since` then.
    async fn loses_its_worth(&self, size: u64, since: Instant, patience: &Patience, tasks: &TaskTracker) {
        loop {
            let done = match *self.progress.borrow() {
                Progress::Streaming { written } => written,
                Progress::Starting
                | Progress::Verified
                | Progress::Cached
                | Progress::Unstorable
                | Progress::Failed(_) => 0,
            };
            let took = self.began.get().map_or(Duration::ZERO, Instant::elapsed);
            let deserted = Deserted { done, size, took, alone: since.elapsed() };
            // Once the mirror is about to end, nobody comes back.
            let goes_on =
                if tasks.is_closed() { deserted.is_worth_its_end(patience) } else { deserted.goes_on(patience) };
            if !goes_on {
                return;
            }
            tokio::time::sleep(FILL_ALONE_LOOK).await;
        }
    }
}

/// Somebody who waits for a fill or reads it; while there is one, the fill goes on.
#[derive(Debug)]
pub(super) struct Follower {
    fill: Arc<Fill>,
}

impl Follower {
    /// The caller follows it already, or holds the lock on the running fills, so that it is not given up just now.
    fn of(fill: &Arc<Fill>) -> Self {
        fill.followers.send_modify(|followers| *followers += 1);
        fill.telemetry.fill_joined();
        Self { fill: Arc::clone(fill) }
    }

    /// The repository it is fetched from.
    pub(super) fn repository(&self) -> &Repository {
        &self.fill.repository
    }

    /// A view of its progress that can be waited on.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.fill.progress.subscribe()
    }

    /// The bytes so far; there from [`Progress::Streaming`] on.
    pub(super) fn staged(&self) -> Option<&StagedReader> {
        self.fill.staged.get()
    }

    /// As if the disk were full from now on.
    #[cfg(test)]
    pub(super) fn break_off(&self) {
        self.fill.progress.send_replace(Progress::Unstorable);
    }
}

impl Clone for Follower {
    fn clone(&self) -> Self {
        Self::of(&self.fill)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.fill.followers.send_modify(|followers| *followers = followers.saturating_sub(1));
        self.fill.telemetry.fill_left();
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

/// The fills that run.
#[derive(Debug)]
pub(super) struct Fills {
    running: Running,
    store: Store,
    turns: Turns,
    unsynced: Arc<Semaphore>,
    patience: Patience,
    tasks: TaskTracker,
}

impl Fills {
    /// No fill yet; each becomes a task in `tasks`.
    pub(super) fn new(store: Store, turns: Turns, patience: Patience, tasks: TaskTracker) -> Self {
        let unsynced = Arc::new(Semaphore::new(UNSYNCED_FILLS_MAX));
        Self { running: Running::default(), store, turns, unsynced, patience, tasks }
    }

    /// The turns that transfers take.
    pub(super) const fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Whether a fill for that blob of that size is under way.
    pub(super) fn is_running(&self, host: &Host, digest: &Digest, size: u64) -> bool {
        lock(&self.running).contains_key(&(host.clone(), *digest, size))
    }

    /// Follows the fill for a blob: the one under way, else a new one, which keeps its client's `place` until it has all of
    /// the blob.
    pub(super) fn join(&self, wanted: &Wanted, place: Option<&Arc<Place>>) -> (Follower, Joined) {
        let mut running = lock(&self.running);
        match running.entry((wanted.repository.host().clone(), wanted.digest, wanted.size)) {
            Entry::Occupied(entry) => (Follower::of(entry.get()), Joined::Found),
            Entry::Vacant(entry) => {
                let fill = Arc::new(Fill {
                    repository: wanted.repository.clone(),
                    progress: watch::Sender::new(Progress::Starting),
                    written: AtomicU64::new(0),
                    staged: OnceLock::new(),
                    began: OnceLock::new(),
                    followers: watch::Sender::new(0),
                    telemetry: wanted.telemetry.clone(),
                });
                let seat = Seat {
                    running: Arc::clone(&self.running),
                    key: entry.key().clone(),
                    fill: Arc::clone(&fill),
                    patience: self.patience,
                    tasks: self.tasks.clone(),
                    began: Instant::now(),
                    outcome: FillOutcome::Cancelled,
                };
                let follower = Follower::of(&fill);
                entry.insert(fill);
                wanted.telemetry.fill_began();
                let filling = Filling {
                    wanted: wanted.clone(),
                    store: self.store.clone(),
                    turns: self.turns.clone(),
                    unsynced: Arc::clone(&self.unsynced),
                    place: place.cloned(),
                };
                // Without the lock: a runtime that ends drops the task here, and with it the seat.
                drop(running);
                self.tasks.spawn(filling.run(seat));
                (follower, Joined::Started)
            }
        }
    }
}

/// A fill's place in the map, and what is counted of it. Dropping it, also by a panic, ends the fill for its followers.
#[derive(Debug)]
pub(super) struct Seat {
    running: Running,
    key: Key,
    fill: Arc<Fill>,
    patience: Patience,
    tasks: TaskTracker,
    began: Instant,
    outcome: FillOutcome,
}

impl Seat {
    pub(super) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// All bytes can be read and are right; the fill goes on.
    pub(super) fn verified(&self) {
        self.fill.progress.send_replace(Progress::Verified);
    }

    /// Ends the fill. Its place goes first: who is told that it failed, and tries again, starts a new one.
    pub(super) fn end(mut self, progress: Progress, outcome: FillOutcome) {
        self.outcome = outcome;
        self.leave();
        self.fill.progress.send_replace(progress);
    }

    /// Frees the fill's place if nobody follows it; somebody may have come just now.
    pub(super) fn give_up(&self) -> bool {
        let mut running = lock(&self.running);
        let alone = *self.fill.followers.borrow() == 0;
        if alone {
            running.remove(&self.key);
        }
        alone
    }

    /// Ends when nobody has followed the fill for so long that it is not worth its end.
    pub(super) fn desertion(&self, size: u64) -> BoxFuture<'static, ()> {
        let (fill, patience, tasks) = (Arc::clone(&self.fill), self.patience, self.tasks.clone());
        async move {
            let mut followers = fill.followers.subscribe();
            // It cannot fail: the sender lives as long as the fill, which this holds.
            while followers.wait_for(|followers| *followers == 0).await.is_ok() {
                let since = Instant::now();
                let came_back = async { followers.wait_for(|followers| *followers > 0).await.is_ok() };
                // Losing a look, or the wait for somebody to come, loses nothing.
                tokio::select! {
                    _ = came_back => {}
                    () = fill.loses_its_worth(size, since, &patience, &tasks) => return,
                }
            }
        }
        .boxed()
    }

    /// Its place is another's from now on.
    fn leave(&self) {
        let mut running = lock(&self.running);
        if running.get(&self.key).is_some_and(|fill| Arc::ptr_eq(fill, &self.fill)) {
            running.remove(&self.key);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
        self.fill.progress.send_if_modified(|progress| {
            let running = matches!(progress, Progress::Starting | Progress::Streaming { .. });
            if running {
                *progress = Progress::Failed(PullError::Lost);
            }
            running
        });
        let written = self.fill.written.load(Ordering::Relaxed);
        self.fill.telemetry.fill_ended(self.outcome, written, self.began.elapsed());
    }
}

fn lock(running: &Running) -> MutexGuard<'_, HashMap<Key, Arc<Fill>>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fill that runs, with one follower and without a task.
    fn running() -> (Running, Seat, Follower) {
        let (host, telemetry): (Host, _) = ("registry.test".parse().unwrap(), Telemetry::default());
        let fill = Arc::new(Fill {
            repository: Repository::new(host.clone(), "team/app".parse().unwrap()).unwrap(),
            progress: watch::Sender::new(Progress::Starting),
            written: AtomicU64::new(0),
            staged: OnceLock::new(),
            began: OnceLock::new(),
            followers: watch::Sender::new(0),
            telemetry: telemetry.clone(),
        });
        let (running, key) = (Running::default(), (host, Digest::sha256(b""), 100));
        lock(&running).insert(key.clone(), Arc::clone(&fill));
        telemetry.fill_began();
        let seat = Seat {
            running: Arc::clone(&running),
            key,
            fill: Arc::clone(&fill),
            patience: Patience::default(),
            tasks: TaskTracker::new(),
            began: Instant::now(),
            outcome: FillOutcome::Cancelled,
        };
        (running, seat, Follower::of(&fill))
    }

    #[tokio::test]
    async fn f_06_a_fill_whose_task_is_lost_ends_for_its_followers_and_frees_its_place() {
        let (running, seat, follower) = running();
        seat.fill().wrote(50);
        let mut progress = follower.progress();
        let task = tokio::task::spawn_blocking(move || {
            let _seat = seat;
            panic!("as the test wants");
        });
        let ended = progress.wait_for(|progress| matches!(progress, Progress::Failed(_))).await.unwrap().clone();
        assert!(matches!(ended, Progress::Failed(PullError::Lost)));
        assert!(task.await.is_err() && lock(&running).is_empty());
    }

    #[tokio::test]
    async fn a_fill_is_given_up_only_while_nobody_follows_it() {
        let (running, seat, follower) = running();
        assert!(!seat.give_up() && lock(&running).len() == 1);
        drop(follower);
        assert!(seat.give_up() && lock(&running).is_empty());
        // Another fill has its place by now, which its end does not touch.
        let (_, other, _follower) = self::running();
        lock(&running).insert(seat.key.clone(), Arc::clone(&other.fill));
        drop(seat);
        assert_eq!(lock(&running).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fill_is_deserted_once_its_grace_is_over_and_not_while_somebody_follows() {
        let (_running, seat, follower) = running();
        let deserted = seat.desertion(100);
        tokio::pin!(deserted);
        let day = Duration::from_hours(24);
        assert!(tokio::time::timeout(day, &mut deserted).await.is_err());
        let (left, grace) = (Instant::now(), seat.patience.grace);
        let again = follower.clone();
        drop(follower);
        assert!(tokio::time::timeout(day, &mut deserted).await.is_err(), "one is left");
        drop(again);
        let gone = Instant::now();
        deserted.await;
        assert!(gone.duration_since(left) >= day && gone.elapsed() >= grace);
        assert!(gone.elapsed() <= grace + FILL_ALONE_LOOK);
    }
}
