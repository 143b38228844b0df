//! The cache of a mirror that is down, for an operator.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::blobs::Blobs;
use super::layout::Lock;
use super::scrub::Scrubber;
use super::{CacheStats, Evicted, Eviction, Layout, ScrubStats, Settings, StoreError, off_thread};
use crate::clock::Clock;
use crate::oci::Algorithm;
use crate::telemetry::Telemetry;

/// The blobs under a data directory that no mirror uses; none starts there as long as this lives.
#[derive(Debug)]
pub struct OfflineCache {
    blobs: Arc<Blobs>,
    _lock: Lock,
}

impl OfflineCache {
    /// Locks the directory and counts what is there. Nothing is evicted.
    ///
    /// # Errors
    /// [`StoreError::NoCache`] when no mirror ever had one there; [`StoreError::Locked`] while a mirror uses it;
    /// [`StoreError::Io`] else.
    pub async fn open(settings: &Settings, clock: Clock) -> Result<Self, StoreError> {
        let Some(root) = settings.data_dir.clone() else {
            return Err(StoreError::of("data_dir".as_ref(), std::io::ErrorKind::NotFound.into()));
        };
        let unbounded = Settings { max_bytes: u64::MAX, min_free_bytes: 0, ..settings.clone() };
        let limit_bytes = settings.max_bytes;
        let opened = off_thread({
            let root = root.clone();
            move || {
                let layout = Layout::kept(root);
                // A directory that is something else gets nothing from us, not even a lock.
                if !layout.blobs(Algorithm::Sha256).is_dir() {
                    let path = std::path::absolute(layout.root()).unwrap_or_else(|_| layout.root().to_owned());
                    return Err(StoreError::NoCache { path });
                }
                let lock = layout.lock()?;
                let blobs = Arc::new(Blobs::new(layout, &unbounded, clock, Telemetry::default()));
                blobs.scan(&CancellationToken::new());
                super::lock(&blobs.ledger).set_limit_bytes(limit_bytes);
                Ok(Self { blobs, _lock: lock })
            }
        });
        opened.await.map_err(|error| StoreError::of(&root, error))?
    }

    /// Size and bound.
    pub fn stats(&self) -> CacheStats {
        self.blobs.stats(true)
    }

    /// Hashes every file, as fast as the disk gives them; what is wrong is set aside.
    pub async fn verify(&self) -> ScrubStats {
        let scrubber = Scrubber::default();
        scrubber.pass(&self.blobs, 0, u64::MAX, &CancellationToken::new()).await;
        scrubber.stats()
    }

    /// As [`super::Store::evict`].
    pub async fn evict(&self, what: Eviction) -> Evicted {
        let blobs = Arc::clone(&self.blobs);
        off_thread(move || blobs.evict(what).0).await.unwrap_or(Evicted::Unknown)
    }
}
