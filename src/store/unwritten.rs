//! Content on its way to the disk. Whoever keeps it does not wait; one writer takes what lies here together, so that many
//! small files cost the disk hardly more than one.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

use super::blobs::Blobs;
use super::{Staged, lock, off_thread};
use crate::limits::{UNWRITTEN_BYTES_MAX, UNWRITTEN_FILES_AT_ONCE, UNWRITTEN_FILES_MAX};
use crate::oci::Digest;

/// What waits to be written, and can be read meanwhile.
#[derive(Debug)]
pub(super) struct Unwritten {
    waiting: Mutex<Waiting>,
    /// Held by who writes, so that what was written is not evicted between its file and its entry.
    writing: Arc<tokio::sync::Mutex<()>>,
    blobs: Arc<Blobs>,
}

#[derive(Debug, Default)]
struct Waiting {
    content: BTreeMap<Digest, Bytes>,
    /// Of all content, with what an entry takes beside it.
    bytes: usize,
    has_writer: bool,
}

impl Unwritten {
    pub(super) fn new(blobs: Arc<Blobs>) -> Self {
        Self { waiting: Mutex::default(), writing: Arc::default(), blobs }
    }

    /// Takes content in, to be written soon; `false` when so much waits that the caller must write it.
    pub(super) fn add(self: &Arc<Self>, digest: &Digest, bytes: &Bytes) -> bool {
        let mut waiting = lock(&self.waiting);
        if waiting.content.contains_key(digest) {
            return true;
        }
        let sum = waiting.bytes.saturating_add(cost(bytes));
        if sum > UNWRITTEN_BYTES_MAX || waiting.content.len() >= UNWRITTEN_FILES_MAX {
            return false;
        }
        waiting.bytes = sum;
        waiting.content.insert(*digest, bytes.clone());
        let has_writer = std::mem::replace(&mut waiting.has_writer, true);
        // A runtime that ends drops the writer at once and here.
        drop(waiting);
        if !has_writer {
            let writer = Writer { unwritten: Arc::clone(self), has_ended: false };
            drop(self.blobs.tasks.spawn_blocking(move || writer.run()));
        }
        true
    }

    /// What waits under that digest.
    pub(super) fn find(&self, digest: &Digest) -> Option<Bytes> {
        lock(&self.waiting).content.get(digest).cloned()
    }

    /// Whether that content waits, or any at all.
    fn is_waiting(&self, digest: Option<&Digest>) -> bool {
        let waiting = lock(&self.waiting);
        digest.map_or(!waiting.content.is_empty(), |digest| waiting.content.contains_key(digest))
    }

    /// Writes all that waits, if that content does, or any at all. Whoever comes while another writes waits for that without a
    /// thread, and looks again.
    pub(super) async fn settle(self: &Arc<Self>, digest: Option<&Digest>) -> io::Result<()> {
        if !self.is_waiting(digest) {
            return Ok(());
        }
        let writing = Arc::clone(&self.writing).lock_owned().await;
        if !self.is_waiting(digest) {
            return Ok(());
        }
        let unwritten = Arc::clone(self);
        off_thread(move || unwritten.flush(&writing)).await
    }

    /// Writes all that waits now. Blocks.
    fn flush(&self, _writing: &OwnedMutexGuard<()>) {
        let mut after = None;
        loop {
            let batch = self.next_batch(after.as_ref());
            let Some((last, _)) = batch.last() else { return };
            after = Some(*last);
            Staged::store_all(&self.blobs, &batch);
            self.remove(&batch);
        }
    }

    /// In the order of the directories, so that neighbours share the sync of one.
    fn next_batch(&self, after: Option<&Digest>) -> Vec<(Digest, Bytes)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let waiting = lock(&self.waiting);
        let rest = waiting.content.range::<Digest, _>((from, Bound::Unbounded));
        rest.take(UNWRITTEN_FILES_AT_ONCE).map(|(digest, bytes)| (*digest, bytes.clone())).collect()
    }

    fn remove(&self, written: &[(Digest, Bytes)]) {
        let mut waiting = lock(&self.waiting);
        for (digest, bytes) in written {
            if waiting.content.remove(digest).is_some() {
                waiting.bytes = waiting.bytes.saturating_sub(cost(bytes));
            }
        }
    }
}

/// The one that writes. When it did not end by itself (it panicked, or the runtime went), the next content brings another.
struct Writer {
    unwritten: Arc<Unwritten>,
    has_ended: bool,
}

impl Writer {
    fn run(mut self) {
        while !self.has_ended {
            self.unwritten.flush(&Arc::clone(&self.unwritten.writing).blocking_lock_owned());
            let mut waiting = lock(&self.unwritten.waiting);
            self.has_ended = waiting.content.is_empty();
            waiting.has_writer = !self.has_ended;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.has_ended {
            lock(&self.unwritten.waiting).has_writer = false;
        }
    }
}

fn cost(bytes: &Bytes) -> usize {
    bytes.len().saturating_add(ENTRY_BYTES)
}

/// Memory that an entry takes beside its bytes.
const ENTRY_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::Settings;
    use crate::store::layout::Layout;
    use crate::telemetry::Telemetry;

    fn unwritten(directory: &std::path::Path) -> Arc<Unwritten> {
        let layout = Layout::kept(directory.to_owned());
        layout.create().unwrap();
        let settings = Settings { data_dir: Some(directory.to_owned()), max_bytes: u64::MAX, min_free_bytes: 0 };
        Arc::new(Unwritten::new(Arc::new(Blobs::new(layout, &settings, Clock::System, Telemetry::default()))))
    }

    fn content(number: usize, length: usize) -> (Digest, Bytes) {
        let mut bytes = number.to_string().into_bytes();
        bytes.resize(length, b' ');
        let bytes = Bytes::from(bytes);
        (Digest::sha256(&bytes), bytes)
    }

    async fn settled(unwritten: &Arc<Unwritten>) {
        unwritten.settle(None).await.unwrap();
    }

    #[tokio::test]
    async fn what_waits_can_be_read_and_comes_to_lie_on_disk_with_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let unwritten = unwritten(directory.path());
        let all: Vec<_> = (0..=2 * UNWRITTEN_FILES_AT_ONCE).map(|number| content(number, 100)).collect();
        {
            let _writer = unwritten.writing.lock().await;
            for (digest, bytes) in &all {
                assert!(unwritten.add(digest, bytes));
            }
            assert!(all.iter().all(|(digest, bytes)| unwritten.find(digest).as_ref() == Some(bytes)));
            assert!(unwritten.is_waiting(None) && unwritten.is_waiting(Some(&all[0].0)));
            assert!(unwritten.blobs.open(&all[0].0).is_none());
        }
        settled(&unwritten).await;
        assert!(!unwritten.is_waiting(None) && unwritten.find(&all[0].0).is_none());
        for (digest, bytes) in &all {
            let file = unwritten.blobs.open(digest).unwrap();
            assert_eq!(file.read_whole(1000).unwrap().as_ref(), Some(bytes));
            assert!(file.is_verified());
        }
        assert_eq!(std::fs::read_dir(unwritten.blobs.layout.staging()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn so_much_waits_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let unwritten = unwritten(directory.path());
        let half = UNWRITTEN_BYTES_MAX / 2 - ENTRY_BYTES;
        let (one, other, more) = (content(1, half), content(2, half), content(3, 10));
        {
            let _writer = unwritten.writing.lock().await;
            assert!(unwritten.add(&one.0, &one.1) && unwritten.add(&other.0, &other.1));
            assert!(unwritten.add(&one.0, &one.1), "it waits already");
            assert!(!unwritten.add(&more.0, &more.1));
        }
        settled(&unwritten).await;
        {
            let _writer = unwritten.writing.lock().await;
            for number in 0..UNWRITTEN_FILES_MAX {
                let (digest, bytes) = content(10 + number, 10);
                assert!(unwritten.add(&digest, &bytes));
            }
            assert!(!unwritten.add(&more.0, &more.1));
        }
        settled(&unwritten).await;
        assert!(unwritten.add(&more.0, &more.1));
        settled(&unwritten).await;
        assert!([one, other, more].iter().all(|(digest, _)| unwritten.blobs.open(digest).is_some()));
    }

    #[tokio::test]
    async fn who_waits_for_one_thing_does_not_write_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let unwritten = unwritten(directory.path());
        let (one, other) = (content(1, 10), content(2, 10));
        let writer = unwritten.writing.lock().await;
        assert!(unwritten.add(&one.0, &one.1));
        let mut waiter = Box::pin(unwritten.settle(Some(&one.0)));
        assert!(futures_util::poll!(&mut waiter).is_pending());
        // Whoever holds the lock writes it; something else comes meanwhile.
        unwritten.remove(std::slice::from_ref(&one));
        assert!(unwritten.add(&other.0, &other.1));
        drop(writer);
        waiter.await.unwrap();
        settled(&unwritten).await;
    }

    #[test]
    fn a_runtime_that_ends_while_content_comes_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let unwritten = unwritten(directory.path());
        let (digest, bytes) = content(1, 10);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let _entered = handle.enter();
        assert!(unwritten.add(&digest, &bytes));
        assert!(!lock(&unwritten.waiting).has_writer, "the next content brings another");
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_is_no_reason_to_wait() {
        let directory = tempfile::tempdir().unwrap();
        let unwritten = unwritten(directory.path());
        let (digest, bytes) = content(1, 100);
        let failing = crate::store::faults::observe(directory.path(), |_| Err(std::io::ErrorKind::StorageFull.into()));
        assert!(unwritten.add(&digest, &bytes));
        settled(&unwritten).await;
        assert!(!unwritten.is_waiting(None));
        drop(failing);
        assert!(unwritten.blobs.open(&digest).is_none());
        assert!(unwritten.add(&digest, &bytes));
        settled(&unwritten).await;
        assert!(unwritten.blobs.open(&digest).is_some());
    }
}
