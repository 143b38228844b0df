//! Threads that verify: few, at low priority, apart from those that serve.
//!
//! Verifying is computing, and there is no end of it while a fleet starts. On threads of its own it takes what serving
//! leaves: there are fewer of them than cores, and the system prefers all others. What waits is bounded in number here
//! and in time by whoever waits; work whose asker has left is not begun, and a panic is the end of its own work alone.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::limits::{VERIFY_QUEUE, VERIFY_WORKERS_MAX, VERIFY_WORKERS_NICE};

/// The threads, and what waits for one. They start when there is work, and end with the last handle.
#[derive(Debug)]
pub(super) struct Workers {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// Why work gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unjudged {
    /// It panicked.
    Panicked,
    /// It was not done by its deadline.
    TooLate,
    /// Too much waits already, or the system gives no thread.
    Full,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something waits, or nothing will any more.
    changed: Condvar,
    threads_max: usize,
    waiting_max: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

type Job = Box<dyn FnOnce() + Send>;

impl std::fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (waiting, threads) = (self.waiting.len(), self.threads);
        formatter.debug_struct("Queue").field("waiting", &waiting).field("threads", &threads).finish_non_exhaustive()
    }
}

impl Workers {
    /// As many as the machine has cores to spare. Work that has begun is tracked in `tasks`.
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self::with(tasks, threads_for(thread::available_parallelism().ok()), VERIFY_QUEUE)
    }

    fn with(tasks: TaskTracker, threads_max: usize, waiting_max: usize) -> Self {
        let shared = Shared { queue: Mutex::default(), changed: Condvar::new(), threads_max, waiting_max };
        Self { shared: Arc::new(shared), tasks }
    }

    /// What `work` answers by `deadline`. Work that has begun is finished, also when nobody waits for it any more, and
    /// keeps its thread until then. Cancel safe: work that has not begun is then never begun.
    ///
    /// # Errors
    /// [`Unjudged`] when there is no answer.
    pub(super) async fn judge<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unjudged> {
        #[cfg(test)]
        let _held = hold_paused_time();
        let (reply, answer) = oneshot::channel();
        let tracked = self.tasks.token();
        let job = Box::new(move || {
            let _tracked = tracked;
            if !reply.is_closed() {
                // Who asked may have left in the meantime.
                drop(reply.send(work()));
            }
        });
        self.shared.add(job)?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_dropped_by_a_panic)) => Err(Unjudged::Panicked),
            Err(_elapsed) => Err(Unjudged::TooLate),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, job: Job) -> Result<(), Unjudged> {
        let mut queue = self.lock();
        if queue.waiting.len() >= self.waiting_max {
            return Err(Unjudged::Full);
        }
        if queue.idle <= queue.waiting.len() && queue.threads < self.threads_max {
            match self.start_thread() {
                Ok(()) => queue.threads += 1,
                Err(error) if queue.threads == 0 => {
                    tracing::warn!(%error, "the system gives no thread to verify on");
                    return Err(Unjudged::Full);
                }
                // The others do it.
                Err(_) => {}
            }
        }
        queue.waiting.push_back(job);
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    fn start_thread(self: &Arc<Self>) -> std::io::Result<()> {
        let shared = Arc::clone(self);
        let run = move || {
            // That it cannot be done is no reason not to verify.
            let _without = rustix::process::nice(VERIFY_WORKERS_NICE);
            while let Some(job) = shared.next() {
                // The asker learns of a panic by losing its reply.
                drop(std::panic::catch_unwind(AssertUnwindSafe(job)));
            }
        };
        thread::Builder::new().name("verify".to_owned()).spawn(run).map(drop)
    }

    /// The next work; `None` when there will be none.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.waiting.pop_front() {
                return Some(job);
            }
            if queue.closed {
                queue.threads = queue.threads.saturating_sub(1);
                return None;
            }
            queue.idle += 1;
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle = queue.idle.saturating_sub(1);
        }
    }
}

/// Time that a test has paused leaps to the next deadline while only threads work of which tokio does not know; this is work that
/// it knows of, for as long as the sender lives.
#[cfg(test)]
fn hold_paused_time() -> std::sync::mpsc::Sender<()> {
    let (held, released) = std::sync::mpsc::channel();
    drop(tokio::task::spawn_blocking(move || released.recv().is_ok()));
    held
}

/// One core is left to those who serve, where there is more than one.
fn threads_for(cores: Option<NonZeroUsize>) -> usize {
    cores.map_or(1, NonZeroUsize::get).saturating_sub(1).clamp(1, VERIFY_WORKERS_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn workers(threads: usize, waiting: usize) -> Arc<Workers> {
        Arc::new(Workers::with(TaskTracker::new(), threads, waiting))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    /// Work that has begun and ends when the sender is dropped.
    async fn occupied(workers: &Arc<Workers>) -> mpsc::Sender<()> {
        let (end, ended) = mpsc::channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let workers = Arc::clone(workers);
        workers.tasks.clone().spawn(async move {
            let work = move || {
                begun.send(()).unwrap();
                ended.recv().unwrap_err();
            };
            workers.judge(soon(), work).await.unwrap();
        });
        has_begun.await.unwrap();
        end
    }

    #[test]
    fn one_core_is_left_to_serving_where_there_is_more_than_one() {
        let of = |cores| threads_for(NonZeroUsize::new(cores));
        assert_eq!([of(0), of(1), of(2), of(3), of(5), of(6), of(64)], [1, 1, 1, 2, 4, 4, 4]);
    }

    /// V-29: nothing that happens while verifying is an answer, and it takes no room from the next.
    /// CVE-2026-44310.
    #[tokio::test]
    async fn v29_a_verification_that_panics_or_does_not_end_gives_no_answer_and_gives_its_place_back() {
        let workers = workers(1, 8);
        for _ in 0..3 {
            let panicked = workers.judge(soon(), || -> usize { panic!("a bug in the verifier") }).await;
            assert_eq!(panicked, Err(Unjudged::Panicked));
            assert_eq!(workers.judge(soon(), || 1).await, Ok(1), "the thread goes on");
        }
        let (end, ended) = mpsc::channel::<()>();
        let late = workers.judge(Instant::now(), move || ended.recv().is_ok()).await;
        assert_eq!(late, Err(Unjudged::TooLate));
        drop(end);
        assert_eq!(workers.judge(soon(), || 2).await, Ok(2));
        workers.tasks.close();
        workers.tasks.wait().await;
    }

    #[tokio::test]
    async fn r_02_no_more_work_runs_at_once_than_there_are_threads() {
        let (workers, running, most) = (workers(2, 100), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all = (0..40).map(|_| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            workers.judge(soon(), move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(1));
                running.fetch_sub(1, Ordering::SeqCst);
            })
        });
        assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));
        assert_eq!(most.load(Ordering::SeqCst), 2, "and both are used");
    }

    #[tokio::test]
    async fn as_much_waits_as_may_and_no_more() {
        let workers = workers(1, 2);
        let end = occupied(&workers).await;
        let mut waiting: Vec<_> = (0..3).map(|number| Box::pin(workers.judge(soon(), move || number))).collect();
        let refused = waiting.pop().unwrap();
        for work in &mut waiting {
            assert!(futures_util::poll!(work).is_pending());
        }
        assert_eq!(refused.await, Err(Unjudged::Full));
        drop(end);
        for (number, work) in waiting.into_iter().enumerate() {
            assert_eq!(work.await, Ok(number));
        }
    }

    #[tokio::test]
    async fn work_whose_asker_has_left_or_whose_time_has_passed_is_never_begun() {
        let workers = workers(1, 8);
        let (end, begun) = (occupied(&workers).await, Arc::new(AtomicUsize::new(0)));
        let work = || {
            let begun = Arc::clone(&begun);
            move || begun.fetch_add(1, Ordering::SeqCst)
        };
        {
            let mut left = Box::pin(workers.judge(soon(), work()));
            assert!(futures_util::poll!(&mut left).is_pending());
        }
        assert_eq!(workers.judge(Instant::now(), work()).await, Err(Unjudged::TooLate));
        drop(end);
        assert_eq!(workers.judge(soon(), || 7).await, Ok(7));
        assert_eq!(begun.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn the_threads_end_with_the_last_handle_and_not_before_their_work() {
        let workers = workers(2, 8);
        let end = occupied(&workers).await;
        let shared = Arc::downgrade(&workers.shared);
        let tasks = workers.tasks.clone();
        drop(workers);
        assert!(shared.strong_count() > 0, "its work runs");
        drop(end);
        tasks.close();
        tasks.wait().await;
        while shared.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn they_are_less_urgent_than_those_who_serve() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let (ours, theirs) = (nice(), workers(1, 1).judge(soon(), nice).await.unwrap());
        assert!(theirs > ours || ours == 19, "{theirs} against {ours}");
    }
}
