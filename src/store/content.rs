//! Small things kept whole: manifests, indexes, signature payloads. Files of the cache, with a copy in memory.

use std::sync::Arc;

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::blobs::Blobs;
use super::error::is_unreadable;
use super::unwritten::Unwritten;
use super::{Staged, off_thread};
use crate::limits::{CONTENT_BYTES_MAX, HOT_BYTES_MAX};
use crate::oci::Digest;

/// Content by digest, in memory and, unless the store is temporary, on disk.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    hot: Cache<Digest, Bytes>,
    unwritten: Arc<Unwritten>,
    blobs: Arc<Blobs>,
}

impl Contents {
    pub(super) fn new(blobs: Arc<Blobs>) -> Self {
        let hot = Cache::builder()
            .max_capacity(HOT_BYTES_MAX)
            .weigher(|_, bytes: &Bytes| u32::try_from(bytes.len().saturating_add(ENTRY_BYTES)).unwrap_or(u32::MAX))
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { hot, unwritten: Arc::new(Unwritten::new(Arc::clone(&blobs))), blobs }
    }

    /// The bytes of that digest; hashed whenever they come from disk, and a wrong file is dropped.
    pub(super) async fn find(&self, digest: &Digest) -> Option<Bytes> {
        if let Some(bytes) = self.hot.get(digest) {
            // So that the file's time of last use is right although nobody reads it.
            super::lock(&self.blobs.ledger).touch(digest, self.blobs.clock.now());
            return Some(bytes);
        }
        if !self.blobs.layout.is_kept() {
            return None;
        }
        if let Some(bytes) = self.unwritten.find(digest) {
            self.hot.insert(*digest, bytes.clone());
            return Some(bytes);
        }
        let (this, digest) = (self.clone(), *digest);
        off_thread(move || this.read(&digest)).await.ok().flatten()
    }

    /// Keeps bytes that the caller has hashed. They are written soon: who keeps them waits only when much is to be written
    /// already. What cannot be written is counted and kept in memory.
    pub(super) async fn keep(&self, digest: &Digest, bytes: Bytes) {
        if bytes.len() > CONTENT_BYTES_MAX {
            tracing::debug!(%digest, bytes = bytes.len(), "too large to be kept whole");
            return;
        }
        self.hot.insert(*digest, bytes.clone());
        if !self.blobs.layout.is_kept() || self.unwritten.add(digest, &bytes) {
            return;
        }
        let (blobs, digest) = (Arc::clone(&self.blobs), *digest);
        if let Err(error) = off_thread(move || Staged::store_all(&blobs, &[(digest, bytes)])).await {
            tracing::warn!(%digest, %error, "content is kept in memory only");
        }
    }

    /// Writes what is not written yet, if that content is; or all of it.
    pub(super) async fn settle(&self, digest: Option<&Digest>) {
        if let Err(error) = self.unwritten.settle(digest).await {
            tracing::warn!(%error, "content is kept in memory only");
        }
    }

    /// Forgets the copy in memory.
    pub(super) fn forget(&self, digest: &Digest) {
        self.hot.invalidate(digest);
    }

    fn read(&self, digest: &Digest) -> Option<Bytes> {
        let blob = self.blobs.open(digest)?;
        let bytes = match blob.read_whole(CONTENT_BYTES_MAX) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!(%digest, %error, "cached content cannot be read; it will be fetched again");
                if is_unreadable(&error) {
                    blob.condemn_now();
                }
                return None;
            }
        };
        if digest.matches(&bytes) {
            blob.mark_verified();
            self.hot.insert(*digest, bytes.clone());
            return Some(bytes);
        }
        tracing::warn!(%digest, "a cached file has other content than its name says; it is dropped");
        blob.condemn_now();
        None
    }
}

/// Memory that an entry takes beside its bytes.
const ENTRY_BYTES: usize = 200;
