//! Upkeep of the cache: what lay there at start, free space, times of last use. Which file goes next is `ledger`'s.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
use tokio_util::sync::CancellationToken;

use super::blobs::{Blobs, pread_full};
use super::ledger::InUse;
use super::staging::remove;
use super::{Evicted, Eviction, StoreError, disk, lock};
use crate::clock::Timestamp;
use crate::limits::{BLOB_CHUNK_BYTES, STORE_UPKEEP_FILES_MAX};
use crate::oci::{Algorithm, Digest, Hasher};
use crate::telemetry::EvictionReason;

impl Blobs {
    /// Puts blobs into place that a killed process had whole. Blocks until the disk has them, or until `stop`.
    pub(super) fn rescue(&self, whole: &[(PathBuf, Digest)], stop: &CancellationToken) {
        for (path, digest) in whole.iter().take_while(|_| !stop.is_cancelled()) {
            if let Err(error) = self.rescue_one(path, digest) {
                tracing::debug!(%digest, %error, "a blob that was whole is fetched again");
                remove(self, path);
            }
        }
    }

    /// Its name alone is not believed: a file system that was lost and mounted again under the same kernel may have lost some
    /// of it.
    fn rescue_one(&self, path: &Path, digest: &Digest) -> Result<(), StoreError> {
        let refused = |error| {
            self.telemetry.cache_write_failed(&error);
            StoreError::of(path, error)
        };
        let file = self.layout.open_staged(path).map_err(refused)?;
        let file = file.ok_or_else(|| StoreError::of(path, io::ErrorKind::NotFound.into()))?;
        let found = self.hash(&file, digest.algorithm()).map_err(refused)?;
        if found != *digest {
            return Err(StoreError::DigestMismatch { wanted: Box::new(*digest), found: Box::new(found) });
        }
        if self.open_unused(digest).is_ok_and(|there| there.is_some()) {
            return Err(StoreError::of(path, io::ErrorKind::AlreadyExists.into()));
        }
        disk::sync_file(path, &file).map_err(refused)?;
        let directory = self.adopt(path, &file, digest, &InUse::default())?;
        self.verified(digest, &file);
        disk::sync_directory(&directory).map_err(refused)
    }

    fn hash(&self, file: &File, algorithm: Algorithm) -> io::Result<Digest> {
        let (mut hasher, mut at) = (Hasher::new(algorithm), 0_u64);
        let mut buffer = Vec::with_capacity(BLOB_CHUNK_BYTES);
        loop {
            buffer.clear();
            pread_full(self, file, at, BLOB_CHUNK_BYTES, &mut buffer)?;
            if buffer.is_empty() {
                return Ok(hasher.finish());
            }
            hasher.update(&buffer);
            at = at.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        }
    }

    /// Enters what lay in the cache at start, then evicts what does not fit; `false` when a part could not be listed. Blocks
    /// for as long as it takes; runs beside the service and stops at `stop`.
    pub(super) fn scan(&self, stop: &CancellationToken) -> bool {
        let mut is_whole = true;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            if let Err(error) = self.scan_algorithm(algorithm, stop) {
                tracing::warn!(%error, algorithm = algorithm.as_str(), "the cache's size is known in part only");
                is_whole = false;
            }
        }
        self.trim();
        is_whole
    }

    /// All shards that can be listed, then the first error.
    fn scan_algorithm(&self, algorithm: Algorithm, stop: &CancellationToken) -> io::Result<()> {
        let mut outcome = Ok(());
        for shard in disk::list(&self.layout.blobs(algorithm))? {
            let shard = shard?;
            if stop.is_cancelled() {
                return Ok(());
            }
            if shard.file_type()?.is_dir() {
                outcome = outcome.and(self.scan_shard(algorithm, &shard.path()));
            }
        }
        outcome
    }

    fn scan_shard(&self, algorithm: Algorithm, shard: &Path) -> io::Result<()> {
        let now = self.clock.now();
        for entry in disk::list(shard)? {
            let entry = entry?;
            let digest = entry
                .file_name()
                .to_str()
                .and_then(|name| format!("{}:{name}", algorithm.as_str()).parse::<Digest>().ok());
            // Evicted between the two calls: nothing to enter.
            let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) else { continue };
            if metadata.is_file() && self.layout.blob(&digest) == entry.path() {
                let used = last_use(metadata.atime(), metadata.atime_nsec()).min(now);
                self.enter(digest, metadata.len(), used);
                // Removed since it was looked at? Whoever removes a file strikes it out afterwards, or we do.
                self.strike_out(&digest);
            }
        }
        Ok(())
    }

    fn enter(&self, digest: Digest, size: u64, used: Timestamp) {
        let mut ledger = lock(&self.ledger);
        if !ledger.contains(&digest) {
            ledger.insert(digest, size, used);
        }
    }

    /// Evicts until the file system has `min_free_bytes` free; `coming` more bytes must find room in what is free or cached.
    /// Blocks.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when evicting what nobody reads is not enough: then nothing is given up, and what is cached
    /// stays servable.
    pub(super) fn keep_space_free(&self, coming: u64) -> Result<(), StoreError> {
        if self.missing_bytes(coming) <= lock(&self.ledger).bytes() && self.make_space() {
            return Ok(());
        }
        self.telemetry.cache_write_failed(&io::Error::from_raw_os_error(libc::ENOSPC));
        Err(StoreError::NoSpace)
    }

    /// Evicts until the file system has `min_free_bytes` free, if that is to be had. Blocks.
    pub(super) fn make_space(&self) -> bool {
        if self.missing_bytes(0) == 0 {
            return true;
        }
        self.empty_quarantine();
        let victims = lock(&self.ledger).shed_all_of(self.missing_bytes(0)).unwrap_or_default();
        self.unlink(&victims, EvictionReason::FreeSpace);
        self.report();
        self.missing_bytes(0) == 0
    }

    /// Evicts what is more than the cache may hold, as far as nobody reads it. Blocks.
    pub(super) fn trim(&self) {
        let victims = lock(&self.ledger).trim();
        self.unlink(&victims, EvictionReason::Size);
        self.report();
    }

    /// Removes what an operator wants removed, but nothing that is being read; says which. Blocks.
    pub(super) fn evict(&self, what: Eviction) -> (Evicted, Vec<Digest>) {
        let victims = match what {
            Eviction::Bytes(bytes) => lock(&self.ledger).shed(bytes),
            Eviction::All => lock(&self.ledger).shed(u64::MAX),
            Eviction::Blob(digest) => {
                let Ok(Some((_, found))) = self.open_unused(&digest) else { return (Evicted::Unknown, Vec::new()) };
                let mut ledger = lock(&self.ledger);
                if ledger.is_in_use(&digest) {
                    return (Evicted::InUse, Vec::new());
                }
                ledger.remove(&digest);
                vec![(digest, found.size)]
            }
        };
        let gone = self.unlink(&victims, EvictionReason::Admin);
        self.report();
        (gone, victims.into_iter().map(|(digest, _)| digest).collect())
    }

    /// Bytes that are too few on the file system for `min_free_bytes` and `coming` more; what cannot be measured is left to
    /// the write itself.
    fn missing_bytes(&self, coming: u64) -> u64 {
        let free = disk::free_bytes(&self.layout.staging()).unwrap_or(u64::MAX);
        self.min_free_bytes.saturating_add(coming).saturating_sub(free)
    }

    /// Writes times of last use to the files, so that a restart keeps the order. Blocks.
    pub(super) fn write_times(&self) {
        let touched = lock(&self.ledger).take_touched(STORE_UPKEEP_FILES_MAX);
        for (digest, used) in touched {
            let times = Timestamps {
                last_access: Timespec {
                    tv_sec: used.unix_seconds(),
                    tv_nsec: used.unix_millis().rem_euclid(1000).saturating_mul(1_000_000),
                },
                // The time of modification tells a changed file from the one that was hashed.
                last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            };
            let path = self.layout.blob(&digest);
            if let Err(error) = disk::set_times(&path, &times) {
                tracing::debug!(%digest, %error, "the time of last use is not kept");
            }
        }
    }
}

fn last_use(seconds: i64, nanoseconds: i64) -> Timestamp {
    Timestamp::from_unix_millis(seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::store::layout::Layout;
    use crate::store::{Settings, Staged};
    use crate::telemetry::Telemetry;

    fn blobs(directory: &Path, max_bytes: u64, min_free_bytes: u64, clock: &ManualClock) -> Arc<Blobs> {
        let layout = Layout::kept(directory.to_owned());
        layout.create().unwrap();
        let settings = Settings { data_dir: Some(directory.to_owned()), max_bytes, min_free_bytes };
        Arc::new(Blobs::new(layout, &settings, Clock::Manual(clock.clone()), Telemetry::default()))
    }

    fn put(blobs: &Arc<Blobs>, content: &[u8]) -> Digest {
        let digest = Digest::sha256(content);
        Staged::store_all(blobs, &[(digest, Bytes::copy_from_slice(content))]);
        assert!(blobs.open(&digest).is_some());
        digest
    }

    fn clock() -> ManualClock {
        ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000))
    }

    #[test]
    fn a_restart_keeps_size_and_order_of_use() {
        let directory = tempfile::tempdir().unwrap();
        let clock = clock();
        let before = blobs(directory.path(), 1000, 0, &clock);
        let [one, two, three] = [b"1", b"2", b"3"].map(|content| {
            clock.advance(Duration::from_secs(10));
            put(&before, &content.repeat(100))
        });
        clock.advance(Duration::from_secs(10));
        before.open(&one).unwrap();
        before.write_times();
        // Those that nobody used have the time of their creation, which is real and not the test's.
        for digest in [two, three] {
            let times = Timestamps {
                last_access: Timespec { tv_sec: 1_000, tv_nsec: 0 },
                last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            };
            disk::set_times(&before.layout.blob(&digest), &times).unwrap();
        }
        let after = blobs(directory.path(), 150, 0, &clock);
        after.scan(&CancellationToken::new());
        assert!(after.open(&one).is_some());
        assert!(after.open(&two).is_none() && after.open(&three).is_none());
        assert_eq!((after.stats(false).bytes, after.stats(false).entries), (100, 1));
    }

    #[test]
    fn only_files_that_are_blobs_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = blobs(directory.path(), 1000, 0, &clock());
        let digest = put(&blobs, b"blob");
        let shard = blobs.layout.blob(&digest).parent().unwrap().to_owned();
        std::fs::write(shard.join("notes.txt"), "mine").unwrap();
        std::fs::write(shard.join(Digest::sha256(b"elsewhere").hex()), "in the wrong shard").unwrap();
        std::fs::write(blobs.layout.blobs(Algorithm::Sha256).join("notes.txt"), "mine").unwrap();
        let again = super::tests::blobs(directory.path(), 1000, 0, &clock());
        again.scan(&CancellationToken::new());
        assert_eq!((again.stats(false).bytes, again.stats(false).entries), (4, 1));
    }

    #[test]
    fn nothing_is_given_up_for_a_disk_that_stays_full_anyway() {
        let directory = tempfile::tempdir().unwrap();
        let cached = blobs(directory.path(), u64::MAX, 0, &clock());
        let digest = put(&cached, b"blob");
        let full = blobs(directory.path(), u64::MAX, u64::MAX, &clock());
        full.scan(&CancellationToken::new());
        let refused = Staged::create(&full, Algorithm::Sha256, 5);
        assert!(matches!(refused, Err(StoreError::NoSpace)), "{refused:?}");
        assert!(full.open(&digest).is_some());
        assert_eq!(std::fs::read_dir(full.layout.staging()).unwrap().count(), 0);
    }
    #[test]
    fn what_was_too_much_under_a_reader_goes_when_the_reader_has_left() {
        let directory = tempfile::tempdir().unwrap();
        let digest = put(&blobs(directory.path(), 1000, 0, &clock()), &[7; 900]);
        let smaller = blobs(directory.path(), 500, 0, &clock());
        let reader = smaller.open(&digest).unwrap();
        smaller.scan(&CancellationToken::new());
        smaller.trim();
        assert_eq!(smaller.stats(false).bytes, 900);
        drop(reader);
        smaller.trim();
        assert_eq!((smaller.stats(false).bytes, smaller.layout.blob(&digest).exists()), (0, false));
    }
}
