//! Joins callers onto one run of the same work.
//!
//! The work is a task of its own that no caller owns: a caller that leaves does not stop it, and its result reaches all
//! who still wait. A run that panics is reported to them as [`Lost`] and forgotten, so that the next caller starts anew.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// The run ended without a result: it panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task that did the work was lost")]
pub(super) struct Lost;

/// Running work by key; clones share it.
///
/// Runs outlive their callers, so whoever begins one bounds their number: see `cold`.
#[derive(Debug)]
pub(super) struct Flights<K, V> {
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
    tasks: TaskTracker,
}

impl<K, V> Clone for Flights<K, V> {
    fn clone(&self) -> Self {
        Self { running: Arc::clone(&self.running), tasks: self.tasks.clone() }
    }
}

impl<K, V> Flights<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// No work yet; runs are tracked in `tasks`.
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { running: Arc::default(), tasks }
    }

    /// The result of the run for `key`: of the one that is under way, else of `work`, which starts now.
    ///
    /// Cancel safe: the run goes on without this caller.
    ///
    /// # Errors
    /// [`Lost`] when the run panicked.
    pub(super) async fn join<W, F>(&self, key: K, work: W) -> Result<V, Lost>
    where
        W: FnOnce() -> F,
        F: Future<Output = V> + Send + 'static,
    {
        result_of(self.enter(key, work)).await
    }

    /// The result of the run for `key` that is under way; `None`: there is none, and none was begun. Whether there is one is
    /// settled when this returns: one that ends meanwhile still gives its result. Cancel safe.
    pub(super) fn join_running(&self, key: &K) -> Option<impl Future<Output = Result<V, Lost>> + use<K, V>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(key).cloned().map(result_of)
    }

    /// Starts the run for `key`, unless one is under way; nobody waits for it.
    pub(super) fn start<W, F>(&self, key: K, work: W)
    where
        W: FnOnce() -> F,
        F: Future<Output = V> + Send + 'static,
    {
        drop(self.enter(key, work));
    }

    fn enter<W, F>(&self, key: K, work: W) -> watch::Receiver<Option<V>>
    where
        W: FnOnce() -> F,
        F: Future<Output = V> + Send + 'static,
    {
        let (sender, receiver) = watch::channel(None);
        let (seat, work) = match self.running.lock().unwrap_or_else(PoisonError::into_inner).entry(key) {
            Entry::Occupied(entry) => return entry.get().clone(),
            Entry::Vacant(entry) => {
                let seat = Seat { running: Arc::clone(&self.running), key: Some(entry.key().clone()) };
                let work = work();
                entry.insert(receiver.clone());
                (seat, work)
            }
        };
        // Without the lock: a runtime that ends drops the task here, and with it the seat.
        self.tasks.spawn(async move {
            let seat = seat;
            let value = work.await;
            // The key goes first: who comes after the result was made starts a new run rather than reading an old answer.
            drop(seat);
            sender.send_replace(Some(value));
        });
        receiver
    }
}

async fn result_of<V: Clone>(mut run: watch::Receiver<Option<V>>) -> Result<V, Lost> {
    let done = run.wait_for(Option::is_some).await.map_err(|_| Lost)?;
    done.clone().ok_or(Lost)
}

/// A key's place in the map; dropping it, also by a panic, frees the key.
#[derive(Debug)]
struct Seat<K: Eq + Hash, V> {
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
    key: Option<K>,
}

impl<K: Eq + Hash, V> Drop for Seat<K, V> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    fn flights() -> Flights<&'static str, usize> {
        Flights::new(TaskTracker::new())
    }

    #[tokio::test]
    async fn all_callers_share_one_run() {
        let (flights, runs, gate) = (flights(), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let calls = (0..50).map(|_| {
            let (flights, runs, gate) = (flights.clone(), Arc::clone(&runs), Arc::clone(&gate));
            async move {
                flights
                    .join("key", || async move {
                        gate.notified().await;
                        runs.fetch_add(1, Ordering::SeqCst) + 1
                    })
                    .await
            }
        });
        let all = futures_util::future::join_all(calls);
        tokio::pin!(all);
        assert!(futures_util::poll!(&mut all).is_pending());
        gate.notify_one();
        assert!(all.await.into_iter().all(|result| result == Ok(1)));
        assert_eq!(flights.join("key", || async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_stop_the_run() {
        let (flights, gate) = (flights(), Arc::new(Notify::new()));
        {
            let gate = Arc::clone(&gate);
            let first = flights.join("key", || async move {
                gate.notified().await;
                1
            });
            tokio::pin!(first);
            assert!(futures_util::poll!(&mut first).is_pending());
        }
        let second = flights.join("key", || async { 2 });
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
        gate.notify_one();
        assert_eq!(second.await, Ok(1));
    }

    #[tokio::test]
    async fn a_run_that_was_found_gives_its_result_though_it_ends_before_anybody_waits_and_none_is_begun() {
        let (flights, gate) = (flights(), Arc::new(Notify::new()));
        assert!(flights.join_running(&"key").is_none());
        let run = Arc::clone(&gate);
        flights.start("key", || async move {
            run.notified().await;
            1
        });
        let found = flights.join_running(&"key").unwrap();
        gate.notify_one();
        flights.tasks.close();
        flights.tasks.wait().await;
        assert!(flights.join_running(&"key").is_none(), "it has ended");
        assert_eq!(found.await, Ok(1));
    }

    #[tokio::test]
    async fn a_panic_reaches_the_waiters_and_frees_the_key() {
        let flights = flights();
        let lost = flights.join("key", || async { panic!("as the test wants") }).await;
        assert_eq!(lost, Err(Lost));
        assert_eq!(flights.join("key", || async { 3 }).await, Ok(3));
    }
}
