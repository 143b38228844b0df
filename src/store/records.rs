//! The way to ask the database: a bounded queue to the thread that owns it ([`super::worker`]).
//!
//! A full queue drops writes and makes reads a "don't know", and so does an answer that does not come in time.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::StoreError;
use super::verdicts::{Database, DatabaseError, less_urgent};
use super::worker::{Worker, take_clean_count};
use crate::clock::Clock;
use crate::limits::{VERDICT_STORE_CLOSE, VERDICT_STORE_QUEUE, VERDICT_STORE_READ};
use crate::telemetry::{StoreOp, StoreOutcome, Telemetry};

/// A handle to the records; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Records {
    /// `None`: there is no database and never was.
    queue: Option<SyncSender<Message>>,
    state: Arc<State>,
    telemetry: Telemetry,
}

/// What both sides of the queue know.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether records reach the disk.
    pub(super) on_disk: AtomicBool,
    pub(super) records: Arc<AtomicU64>,
    /// Set when every record was counted since the start.
    pub(super) counted: AtomicBool,
    /// Records there were when the process before this one ended well.
    clean_count: OnceLock<u64>,
}

/// What a look-up says. "Not there" and "don't know" are different answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup<T> {
    Found(T),
    Absent,
    /// No answer in time, or no database.
    Unknown,
}

impl<T> Lookup<T> {
    pub(super) fn found(self) -> Option<T> {
        match self {
            Self::Found(value) => Some(value),
            Self::Absent | Self::Unknown => None,
        }
    }
}

/// Something to do with the database. Dropped undone when there is none.
pub(super) type Work = Box<dyn FnOnce(&Database) -> Result<(), DatabaseError> + Send>;

/// What the queue carries.
pub(super) enum Message {
    Work(StoreOp, Work),
    Close(oneshot::Sender<()>),
}

impl Records {
    /// No database: nothing is found, and writes go nowhere.
    pub(super) fn none(telemetry: Telemetry) -> Self {
        Self { queue: None, state: Arc::default(), telemetry }
    }

    /// Opens the database and starts the thread that owns it. Blocks, bounded by `verdicts::open`.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has the database open.
    pub(super) fn open(data_dir: PathBuf, clock: Clock, telemetry: Telemetry) -> Result<Self, StoreError> {
        let state = Arc::new(State::default());
        if let Some(count) = take_clean_count(&data_dir) {
            // Nobody else has set it.
            let _first = state.clean_count.set(count);
        }
        let (queue, messages) = mpsc::sync_channel(VERDICT_STORE_QUEUE);
        let mut worker = Worker::new(data_dir, clock, telemetry.clone(), Arc::clone(&state), messages);
        worker.open_first()?;
        let thread = std::thread::Builder::new().name("verdicts".to_owned()).spawn(move || {
            less_urgent();
            worker.run();
        });
        match thread {
            Ok(_) => Ok(Self { queue: Some(queue), state, telemetry }),
            Err(error) => {
                tracing::error!(%error, "verdicts are kept in memory only");
                Ok(Self::none(telemetry))
            }
        }
    }

    /// Whether there is a database, be it one that does not answer now.
    pub(super) fn is_kept(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether records reach the disk.
    pub(super) fn on_disk(&self) -> bool {
        self.state.on_disk.load(Ordering::Relaxed)
    }

    /// Records that are missing although the process before this one ended well, once `found` old ones were counted.
    pub(super) fn count_ended(&self, found: u64) -> Option<u64> {
        let first = !self.state.counted.swap(true, Ordering::Relaxed);
        let lost = self.state.clean_count.get().map(|clean| clean.saturating_sub(found));
        lost.filter(|lost| first && *lost > 0)
    }

    /// Tells the metrics where records are kept and how many.
    pub(super) fn report(&self) {
        self.telemetry.verdict_store_state(self.on_disk(), self.state.records.load(Ordering::Relaxed));
    }

    /// Looks something up; waits at most `limits::VERDICT_STORE_READ`. Cancel safe.
    pub(super) async fn find<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<Option<T>, DatabaseError> + Send + 'static,
    ) -> Lookup<T> {
        match self.ask(StoreOp::Get, VERDICT_STORE_READ, work).await {
            Some(Some(found)) => {
                self.telemetry.verdict_store(StoreOp::Get, StoreOutcome::Ok);
                Lookup::Found(found)
            }
            Some(None) => {
                self.telemetry.verdict_store(StoreOp::Get, StoreOutcome::Miss);
                Lookup::Absent
            }
            None if self.queue.is_none() => Lookup::Absent,
            None => Lookup::Unknown,
        }
    }

    /// Writes something, some time; dropped and counted when there is no room in the queue.
    pub(super) fn write(
        &self,
        op: StoreOp,
        work: impl FnOnce(&Database) -> Result<(), DatabaseError> + Send + 'static,
    ) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(Message::Work(op, Box::new(work))).is_err() {
            self.telemetry.verdict_store(op, StoreOutcome::Dropped);
        }
    }

    /// Has something done and waits for it at most `wait`; `None` when it was not done in time, or failed.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        op: StoreOp,
        wait: Duration,
        work: impl FnOnce(&Database) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Option<T> {
        let queue = self.queue.as_ref()?;
        let (sender, answer) = oneshot::channel();
        let work = move |database: &Database| {
            // Who asked may be gone.
            let _unheard = sender.send(work(database)?);
            Ok(())
        };
        if queue.try_send(Message::Work(op, Box::new(work))).is_err() {
            self.telemetry.verdict_store(op, StoreOutcome::Dropped);
            return None;
        }
        let answer = tokio::time::timeout(wait, answer).await;
        if answer.is_err() {
            self.telemetry.verdict_store(op, StoreOutcome::Timeout);
        }
        answer.ok()?.ok()
    }

    /// Flushes and closes, at most `limits::VERDICT_STORE_CLOSE`.
    pub(super) async fn close(&self) {
        let Some(queue) = self.queue.clone() else { return };
        let (sender, closed) = oneshot::channel();
        let deadline = Instant::now() + VERDICT_STORE_CLOSE;
        // The queue may be full for a moment.
        let mut message = Message::Close(sender);
        while let Err(refused) = queue.try_send(message) {
            match refused {
                mpsc::TrySendError::Full(back) if Instant::now() < deadline => message = back,
                mpsc::TrySendError::Full(_) | mpsc::TrySendError::Disconnected(_) => return,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if tokio::time::timeout_at(deadline, closed).await.is_err() {
            tracing::warn!(
                "the verdict database was not flushed in time; newest verdicts may have to be reached again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::Timestamp;
    use crate::oci::Digest;
    use crate::store::record::{Record, RecordKey};

    fn key(name: &str) -> RecordKey {
        RecordKey::media_type(&Digest::sha256(name.as_bytes()))
    }

    fn record() -> Record {
        Record { issued: Timestamp::MIN, not_after: Timestamp::MAX, body: b"body".to_vec() }
    }

    fn open(directory: &Path) -> Records {
        Records::open(directory.to_owned(), Clock::System, Telemetry::default()).unwrap()
    }

    async fn find(records: &Records, name: &str) -> Lookup<Record> {
        let key = key(name);
        records.find(move |database| database.find(&key)).await
    }

    fn put(records: &Records, name: &str) {
        let key = key(name);
        records.write(StoreOp::Put, move |database| database.put(&[(key, record())]));
    }

    #[tokio::test]
    async fn what_was_written_is_found_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let records = open(directory.path());
        put(&records, "a");
        assert_eq!(find(&records, "a").await, Lookup::Found(record()));
        assert_eq!(find(&records, "b").await, Lookup::Absent);
        records.close().await;
        assert_eq!(find(&records, "a").await, Lookup::Unknown);
        assert_eq!(find(&open(directory.path()), "a").await, Lookup::Found(record()));
    }

    #[tokio::test]
    async fn a_store_dropped_without_closing_can_be_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        put(&open(directory.path()), "a");
        assert_eq!(find(&open(directory.path()), "a").await, Lookup::Found(record()));
    }

    #[tokio::test]
    async fn without_a_database_nothing_is_there_and_nothing_waits() {
        let records = Records::none(Telemetry::default());
        put(&records, "a");
        assert_eq!(find(&records, "a").await, Lookup::Absent);
        records.close().await;
    }

    #[tokio::test]
    async fn a_busy_database_is_a_dont_know_and_a_full_queue_drops_writes() {
        let directory = tempfile::tempdir().unwrap();
        let records = open(directory.path());
        let (go_on, blocked) = mpsc::channel::<()>();
        records.write(StoreOp::Put, move |_| {
            let _released = blocked.recv();
            Ok(())
        });
        // A clock that nobody moves jumps to the next deadline while the worker is blocked.
        tokio::time::pause();
        assert_eq!(find(&records, "a").await, Lookup::Unknown);
        tokio::time::resume();
        for _ in 0..VERDICT_STORE_QUEUE {
            put(&records, "a");
        }
        put(&records, "dropped");
        assert_eq!(find(&records, "a").await, Lookup::Unknown);
        drop(go_on);
        while done_or_full(&records).await.is_none() {}
        assert_eq!(find(&records, "a").await, Lookup::Found(record()));
        assert_eq!(find(&records, "dropped").await, Lookup::Absent);
    }

    async fn done_or_full(records: &Records) -> Option<()> {
        tokio::task::yield_now().await;
        records.ask(StoreOp::Get, Duration::from_mins(1), |_| Ok(())).await
    }

    #[tokio::test]
    async fn new_records_are_dropped_while_there_are_too_many_and_old_ones_still_change() {
        let directory = tempfile::tempdir().unwrap();
        let records = open(directory.path());
        let most = u64::try_from(crate::limits::VERDICT_RECORDS_MAX).unwrap();
        records.write(StoreOp::Put, move |database| {
            database.counted(most - 1);
            Ok(())
        });
        put(&records, "fits");
        put(&records, "dropped");
        put(&records, "fits");
        assert_eq!(find(&records, "fits").await, Lookup::Found(record()));
        assert_eq!(find(&records, "dropped").await, Lookup::Absent);
    }

    #[tokio::test]
    async fn records_that_are_gone_after_a_clean_end_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let records = open(directory.path());
        put(&records, "a");
        put(&records, "b");
        assert_eq!(records.count_ended(0), None);
        records.close().await;
        let records = open(directory.path());
        assert_eq!(records.count_ended(1), Some(1));
        assert_eq!(records.count_ended(1), None);
        drop(records);
        // That one did not end well: nothing is known about how many there should be.
        assert_eq!(open(directory.path()).count_ended(0), None);
    }
}
