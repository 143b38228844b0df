//! Buffers for reading files, used again: a fresh one costs a system call and a page fault for every 4 KiB.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use crate::limits::{BLOB_BUFFERS_KEPT, BLOB_CHUNK_BYTES};

/// Buffers of `limits::BLOB_CHUNK_BYTES` that nobody uses now.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
    /// Those that somebody uses.
    taken: AtomicUsize,
}

/// A buffer that goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    home: Option<Arc<Buffers>>,
}

impl Buffers {
    /// An empty buffer with room for `length` bytes. A small one is not worth keeping.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> Buffer {
        if length < BLOB_CHUNK_BYTES / 2 {
            return Buffer { bytes: Vec::with_capacity(length), home: None };
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        let bytes = lock(&self.free).pop().unwrap_or_else(|| Vec::with_capacity(BLOB_CHUNK_BYTES));
        Buffer { bytes, home: Some(Arc::clone(self)) }
    }
}

#[cfg(any(test, feature = "testing"))]
impl super::Store {
    /// Buffers for reading that are in use now; small ones are left out.
    pub fn buffers_taken(&self) -> usize {
        self.inner.blobs.buffers.taken.load(Ordering::Relaxed)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<Vec<u8>> for Buffer {
    fn as_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            home.taken.fetch_sub(1, Ordering::Relaxed);
            let mut kept = lock(&home.free);
            if kept.len() < BLOB_BUFFERS_KEPT {
                kept.push(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_nobody_reads_it() {
        let buffers: Arc<Buffers> = Arc::default();
        let mut buffer = buffers.take(BLOB_CHUNK_BYTES);
        buffer.as_mut().extend_from_slice(b"secret");
        let place = buffer.as_ref().as_ptr();
        let bytes = Bytes::from_owner(buffer);
        let slice = bytes.slice(1..3);
        drop(bytes);
        assert_ne!(buffers.take(BLOB_CHUNK_BYTES).as_ref().as_ptr(), place, "it is being read");
        drop(slice);
        let again = buffers.take(BLOB_CHUNK_BYTES);
        assert_eq!((again.as_ref().as_ptr(), again.as_ref().len()), (place, 0));
    }

    #[test]
    fn no_more_are_kept_than_said_and_no_small_ones() {
        let buffers: Arc<Buffers> = Arc::default();
        let taken: Vec<Buffer> = (0..=BLOB_BUFFERS_KEPT).map(|_| buffers.take(BLOB_CHUNK_BYTES)).collect();
        drop(taken);
        assert_eq!((lock(&buffers.free).len(), buffers.taken.load(Ordering::Relaxed)), (BLOB_BUFFERS_KEPT, 0));
        lock(&buffers.free).clear();
        drop(buffers.take(1000));
        assert_eq!(lock(&buffers.free).len(), 0);
    }
}
