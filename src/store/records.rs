//! One thread that does all database work, and the way to ask it.
//!
//! The queue is bounded: a full one drops writes and makes reads a "don't know". Each call is caught when it panics. The
//! first failure opens the breaker: everything goes on in memory, and the database is opened again every minute.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::verdicts::{self, Database, DatabaseError, Opened};
use super::{StoreError, mark};
use crate::clock::Clock;
use crate::limits::{VERDICT_STORE_CLOSE, VERDICT_STORE_QUEUE, VERDICT_STORE_READ, VERDICT_STORE_RETRY};
use crate::telemetry::{StoreOp, StoreOutcome, Telemetry};

/// A handle to the records; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Records {
    /// `None`: there is no database and never was.
    queue: Option<SyncSender<Message>>,
    state: Arc<State>,
    telemetry: Telemetry,
}

#[derive(Debug, Default)]
struct State {
    on_disk: AtomicBool,
    records: Arc<AtomicU64>,
    /// Set when every record was counted since the start.
    counted: AtomicBool,
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

type Work = Box<dyn FnOnce(&Database) -> Result<(), DatabaseError> + Send>;

enum Message {
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
        let thread = std::thread::Builder::new().name("verdicts".to_owned()).spawn(move || worker.run());
        match thread {
            Ok(_) => Ok(Self { queue: Some(queue), state, telemetry }),
            Err(error) => {
                tracing::error!(%error, "verdicts are kept in memory only");
                Ok(Self::none(telemetry))
            }
        }
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

struct Worker {
    data_dir: PathBuf,
    clock: Clock,
    telemetry: Telemetry,
    state: Arc<State>,
    messages: Receiver<Message>,
    database: Option<Box<Database>>,
    /// When to open the database again; set while there is none.
    retry_at: Option<Instant>,
    /// Writes since the last flush was begun.
    dirty: usize,
}

impl Worker {
    fn new(
        data_dir: PathBuf,
        clock: Clock,
        telemetry: Telemetry,
        state: Arc<State>,
        messages: Receiver<Message>,
    ) -> Self {
        Self { data_dir, clock, telemetry, state, messages, database: None, retry_at: None, dirty: 0 }
    }

    /// Opens at start. A handle of this very process may still be closing: it is waited for.
    fn open_first(&mut self) -> Result<(), StoreError> {
        for _ in 0..LINGERING_ATTEMPTS {
            match self.open() {
                Err(StoreError::Locked { .. }) => std::thread::sleep(LINGERING_PAUSE),
                other => return other,
            }
        }
        self.open()
    }

    fn open(&mut self) -> Result<(), StoreError> {
        let opened = verdicts::open(&self.data_dir, &self.telemetry, &self.state.records, self.clock.now())?;
        match opened {
            Opened::Ready(database) => {
                self.database = Some(database);
                self.retry_at = None;
                self.state.on_disk.store(true, Ordering::Relaxed);
            }
            Opened::NotNow(error) => {
                self.telemetry.verdict_store(StoreOp::Open, StoreOutcome::Error);
                tracing::error!(%error, "the verdict database cannot be used; verdicts are kept in memory only");
                self.retry_at = Some(Instant::now() + VERDICT_STORE_RETRY);
                self.state.on_disk.store(false, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Until it is closed or nobody holds a handle any more.
    fn run(mut self) {
        loop {
            match self.next_message() {
                Ok(Message::Work(op, work)) => self.work(op, work),
                Ok(Message::Close(closed)) => {
                    self.close();
                    // Who asked may be gone.
                    let _unheard = closed.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => self.reopen(),
                Err(RecvTimeoutError::Disconnected) => return self.close(),
            }
        }
    }

    fn next_message(&mut self) -> Result<Message, RecvTimeoutError> {
        match self.messages.try_recv() {
            Ok(message) => return Ok(message),
            Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) => self.burst_ended(),
        }
        match self.retry_at {
            Some(at) => self.messages.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn work(&mut self, op: StoreOp, work: Work) {
        let Some(database) = &self.database else {
            // Dropping the work tells who waits for it that there is no answer.
            drop(work);
            if matches!(op, StoreOp::Put | StoreOp::Delete) {
                self.telemetry.verdict_store(op, StoreOutcome::Dropped);
            }
            if self.retry_at.is_some_and(|at| at <= Instant::now()) {
                self.reopen();
            }
            return;
        };
        match catch_unwind(AssertUnwindSafe(|| work(database))) {
            Ok(Ok(())) => {
                if matches!(op, StoreOp::Put | StoreOp::Delete) {
                    self.telemetry.verdict_store(op, StoreOutcome::Ok);
                    self.dirty = self.dirty.saturating_add(1);
                }
            }
            Ok(Err(error)) => self.trip(op, &error.to_string()),
            Err(_) => {
                self.telemetry.panicked("verdict_store");
                self.trip(op, "it panicked");
            }
        }
    }

    fn burst_ended(&mut self) {
        if self.dirty >= BURST
            && let Some(database) = &self.database
        {
            self.dirty = 0;
            self.telemetry.verdict_store(StoreOp::Flush, StoreOutcome::Ok);
            if catch_unwind(AssertUnwindSafe(|| database.begin_flush())).is_err() {
                self.trip(StoreOp::Flush, "it panicked");
            }
        }
    }

    /// Opens the breaker: a database that failed once fails many reads after that.
    fn trip(&mut self, op: StoreOp, why: &str) {
        self.telemetry.verdict_store(op, StoreOutcome::Error);
        tracing::error!(
            why,
            retry_seconds = VERDICT_STORE_RETRY.as_secs(),
            "the verdict database failed; verdicts are kept in memory only"
        );
        self.state.on_disk.store(false, Ordering::Relaxed);
        self.telemetry.verdict_store_state(false, self.state.records.load(Ordering::Relaxed));
        self.retry_at = Some(Instant::now() + VERDICT_STORE_RETRY);
        if let Some(database) = self.database.take() {
            drop_bounded(database);
        }
    }

    fn reopen(&mut self) {
        // Whatever holds the lock now is an old handle of ours that does not end: a later attempt may find it gone.
        if let Err(error) = self.open() {
            tracing::error!(%error, "the verdict database cannot be opened again");
            self.retry_at = Some(Instant::now() + VERDICT_STORE_RETRY);
        }
        self.telemetry.verdict_store_state(
            self.state.on_disk.load(Ordering::Relaxed),
            self.state.records.load(Ordering::Relaxed),
        );
    }

    fn close(&mut self) {
        let Some(database) = self.database.take() else { return };
        let flushed = catch_unwind(AssertUnwindSafe(|| database.flush()));
        drop_bounded(database);
        self.state.on_disk.store(false, Ordering::Relaxed);
        if matches!(flushed, Ok(Ok(()))) {
            self.telemetry.verdict_store(StoreOp::Flush, StoreOutcome::Ok);
            self.keep_clean_count();
        } else {
            self.telemetry.verdict_store(StoreOp::Flush, StoreOutcome::Error);
        }
    }

    fn keep_clean_count(&self) {
        if !self.state.counted.load(Ordering::Relaxed) {
            return;
        }
        let count = i64::try_from(self.state.records.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        if let Err(error) = mark::write_mark(&self.data_dir, CLEAN_COUNT, count) {
            tracing::warn!(%error, "the number of verdict records is not kept");
        }
    }
}

/// Closing may hang or panic like everything else in the engine.
fn drop_bounded(database: Box<Database>) {
    let (sender, done) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("verdicts-close".to_owned()).spawn(move || {
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(database)));
        // Nobody listens any more after the deadline.
        let _unheard = sender.send(dropped.is_ok());
    });
    match thread {
        Ok(_) if done.recv_timeout(VERDICT_STORE_CLOSE).is_ok() => {}
        Ok(_) => tracing::warn!("the verdict database does not close"),
        Err(error) => tracing::warn!(%error, "the verdict database cannot be closed"),
    }
}

/// The count is taken away, so that a process that ends badly leaves none.
fn take_clean_count(data_dir: &Path) -> Option<u64> {
    let count = mark::read_mark(data_dir, CLEAN_COUNT).ok().flatten()?;
    std::fs::remove_file(data_dir.join(CLEAN_COUNT)).ok()?;
    u64::try_from(count).ok()
}

const CLEAN_COUNT: &str = "verdict-count";
/// Writes after which an idle queue begins a flush; fewer are left to the engine's own second.
const BURST: usize = 64;
const LINGERING_ATTEMPTS: usize = 20;
const LINGERING_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
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
    async fn a_panic_opens_the_breaker_and_the_next_attempt_closes_it() {
        let directory = tempfile::tempdir().unwrap();
        let (queue, messages) = mpsc::sync_channel(VERDICT_STORE_QUEUE);
        let state: Arc<State> = Arc::default();
        let telemetry = Telemetry::default();
        let mut worker =
            Worker::new(directory.path().to_owned(), Clock::System, telemetry, Arc::clone(&state), messages);
        worker.open_first().unwrap();
        for fault in [(|| panic!("fault")) as fn() -> Result<(), DatabaseError>, || Err(DatabaseError::from_fault())] {
            assert!(state.on_disk.load(Ordering::Relaxed));
            worker.work(StoreOp::Put, Box::new(move |_| fault()));
            assert!(worker.database.is_none() && worker.retry_at.is_some());
            assert!(!state.on_disk.load(Ordering::Relaxed));
            worker.reopen();
            assert!(worker.database.is_some() && worker.retry_at.is_none());
        }
        drop(queue);
        worker.run();
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
        assert_eq!(find(&records, "a").await, Lookup::Unknown);
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
        records.ask(StoreOp::Get, Duration::from_secs(60), |_| Ok(())).await
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
