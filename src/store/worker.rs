//! The one thread that does all database work.
//!
//! Each call is caught when it panics. The first failure opens the breaker: everything goes on in memory, and the database
//! is opened again every minute.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::time::Instant;

use super::records::{Message, State, Work};
use super::verdicts::{self, Database, Opened};
use super::{StoreError, mark};
use crate::clock::Clock;
use crate::limits::{VERDICT_STORE_CLOSE, VERDICT_STORE_RETRY};
use crate::telemetry::{StoreOp, StoreOutcome, Telemetry};

/// Owns the database.
pub(super) struct Worker {
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
    pub(super) fn new(
        data_dir: PathBuf,
        clock: Clock,
        telemetry: Telemetry,
        state: Arc<State>,
        messages: Receiver<Message>,
    ) -> Self {
        Self { data_dir, clock, telemetry, state, messages, database: None, retry_at: None, dirty: 0 }
    }

    /// Opens at start. A handle of this very process may still be closing: it is waited for.
    pub(super) fn open_first(&mut self) -> Result<(), StoreError> {
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
    pub(super) fn run(mut self) {
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
pub(super) fn take_clean_count(data_dir: &Path) -> Option<u64> {
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
    use crate::store::verdicts::DatabaseError;

    #[test]
    fn a_panic_opens_the_breaker_and_the_next_attempt_closes_it() {
        let directory = tempfile::tempdir().unwrap();
        let (queue, messages) = mpsc::sync_channel(1);
        let state: Arc<State> = Arc::default();
        let telemetry = Telemetry::default();
        let mut worker =
            Worker::new(directory.path().to_owned(), Clock::System, telemetry, Arc::clone(&state), messages);
        worker.open_first().unwrap();
        let faults: [fn() -> Result<(), DatabaseError>; 2] = [|| panic!("fault"), || Err(DatabaseError::from_fault())];
        for fault in faults {
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
}
