//! Content-addressed files, and the one place where their bytes leave.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use moka::sync::Cache;

use super::buffers::Buffers;
use super::layout::{self, Layout};
use super::ledger::Ledger;
use super::mapped;
use super::{CacheStats, Settings, StoreError, lock};
use crate::clock::Clock;
use crate::limits::{BLOB_CHUNK_BYTES, CACHE_FILES_MAX, VERIFIED_BLOBS_MAX};
use crate::oci::Digest;
use crate::telemetry::{EvictionReason, Telemetry};

/// The blob cache: files on disk, and what is known about them in memory.
#[derive(Debug)]
pub(super) struct Blobs {
    pub(super) layout: Layout,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) min_free_bytes: u64,
    pub(super) clock: Clock,
    pub(super) telemetry: Telemetry,
    buffers: Arc<Buffers>,
    /// Files that this process hashed whole, as they were then.
    verified: Cache<Digest, FileIdentity>,
}

/// Tells a file from one that was put in its place or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileIdentity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl Blobs {
    pub(super) fn new(layout: Layout, settings: &Settings, clock: Clock, telemetry: Telemetry) -> Self {
        Self {
            layout,
            ledger: Mutex::new(Ledger::new(settings.max_bytes, CACHE_FILES_MAX)),
            min_free_bytes: settings.min_free_bytes,
            clock,
            telemetry,
            buffers: Arc::default(),
            verified: Cache::new(VERIFIED_BLOBS_MAX),
        }
    }

    /// Opens a cached blob, and counts that as a use. Blocks.
    pub(super) fn open(self: &Arc<Self>, digest: &Digest) -> Option<BlobFile> {
        match self.layout.open_blob(digest).and_then(|file| file.map(|file| self.opened(digest, file)).transpose()) {
            Ok(Some(blob)) => {
                self.used(digest, blob.identity.size);
                Some(blob)
            }
            Ok(None) => {
                self.strike_out(digest);
                None
            }
            Err(error) => {
                tracing::warn!(%digest, %error, "a cached blob cannot be opened; it will be fetched again");
                None
            }
        }
    }

    fn opened(self: &Arc<Self>, digest: &Digest, file: File) -> io::Result<BlobFile> {
        let identity = FileIdentity::of(&file)?;
        Ok(BlobFile { file: Arc::new(file), digest: *digest, identity, blobs: Arc::clone(self) })
    }

    /// Records a use of a blob that is on disk.
    pub(super) fn used(&self, digest: &Digest, size: u64) {
        let now = self.clock.now();
        let mut ledger = lock(&self.ledger);
        // Known late when it was put there while the scan at start had not come to it yet.
        if ledger.contains(digest) { ledger.touch(digest, now) } else { ledger.insert(*digest, size, now) }
    }

    /// Takes over a staged file whose content has that digest: makes room, renames, syncs. Blocks.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when it is larger than the whole cache: nothing is evicted for it.
    pub(super) fn adopt(&self, staged: &Path, file: &File, digest: &Digest) -> Result<(), StoreError> {
        let target = self.layout.blob(digest);
        let refused = |error| StoreError::of(&target, error);
        let identity = FileIdentity::of(file).map_err(refused)?;
        let victims = {
            let mut ledger = lock(&self.ledger);
            if identity.size > ledger.limit_bytes() {
                return Err(StoreError::NoSpace);
            }
            // Not twice, should it be there already.
            ledger.remove(digest);
            ledger.reserve(identity.size)
        };
        self.unlink(&victims, EvictionReason::Size);
        let renamed = file.sync_data().and_then(|()| Self::rename(staged, &target));
        let victims = {
            let mut ledger = lock(&self.ledger);
            ledger.release(identity.size);
            if renamed.is_ok() {
                ledger.insert(*digest, identity.size, self.clock.now());
                self.verified.insert(*digest, identity);
            }
            // Several that arrive at once may each have found room, and together have none.
            ledger.trim()
        };
        self.unlink(&victims, EvictionReason::Size);
        self.report();
        renamed.map_err(refused)
    }

    fn rename(staged: &Path, target: &Path) -> io::Result<()> {
        let shard = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
        match std::fs::symlink_metadata(shard) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                layout::create_directory(shard)?;
                shard.parent().map_or(Ok(()), layout::sync_directory)?;
            }
            Err(error) => return Err(error),
        }
        std::fs::rename(staged, target)?;
        layout::sync_directory(shard)
    }

    /// Removes a blob, whoever reads it: an open file stays readable. Blocks.
    pub(super) fn drop_file(&self, digest: &Digest, reason: EvictionReason) {
        let size = lock(&self.ledger).remove(digest).unwrap_or(0);
        self.unlink(&[(*digest, size)], reason);
        self.report();
    }

    /// Removes files that the ledger has struck out. Blocks.
    pub(super) fn unlink(&self, victims: &[(Digest, u64)], reason: EvictionReason) {
        for (digest, size) in victims {
            self.verified.invalidate(digest);
            match std::fs::remove_file(self.layout.blob(digest)) {
                Ok(()) => self.telemetry.evicted(reason, *size),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%digest, %error, "a cached blob cannot be removed"),
            }
            // Again: the scan at start may have entered it meanwhile.
            self.strike_out(digest);
        }
    }

    /// Strikes out a file that is not there. Looked at under the lock that whoever puts it into place needs last, so that
    /// a file that arrives just now stays counted.
    pub(super) fn strike_out(&self, digest: &Digest) {
        let path = self.layout.blob(digest);
        let mut ledger = lock(&self.ledger);
        if ledger.contains(digest) && std::fs::symlink_metadata(path).is_err() {
            ledger.remove(digest);
        }
    }

    /// Tells the metrics the cache's size.
    pub(super) fn report(&self) {
        let (bytes, limit_bytes, files) = {
            let ledger = lock(&self.ledger);
            (ledger.bytes(), ledger.limit_bytes(), ledger.files())
        };
        self.telemetry.cache_sized(bytes, limit_bytes, files);
    }

    /// Buffers for reading that are in use.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn buffers_taken(&self) -> usize {
        self.buffers.taken()
    }

    pub(super) fn stats(&self, verdicts_on_disk: bool) -> CacheStats {
        let ledger = lock(&self.ledger);
        CacheStats {
            bytes: ledger.bytes(),
            limit_bytes: ledger.limit_bytes(),
            entries: ledger.files(),
            verdicts_on_disk,
        }
    }
}

/// A cached blob, open for reading: it stays readable when it is evicted meanwhile.
#[derive(Debug)]
pub struct BlobFile {
    file: Arc<File>,
    digest: Digest,
    identity: FileIdentity,
    blobs: Arc<Blobs>,
}

impl BlobFile {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.identity.size
    }

    /// Whether this process has hashed this very file whole before (then it may be served without hashing).
    pub fn is_verified(&self) -> bool {
        self.blobs.verified.get(&self.digest) == Some(self.identity)
    }

    /// Up to `length` and at most `limits::BLOB_CHUNK_BYTES` bytes from `offset`; empty at the end. Cancel safe.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        read_chunk(&self.blobs, &self.file, offset, length).await
    }

    /// All of it as memory that names the file to who sends it ([`super::FileRegion`]). Must not be read: should the file be cut
    /// by somebody else, reading would end the process.
    ///
    /// # Errors
    /// What the file system says.
    pub fn map(&self) -> io::Result<Bytes> {
        mapped::map(&self.file, self.size())
    }

    /// All of it, or `None` when it is longer than `bytes_max`. Blocks.
    pub(super) fn read_whole(&self, bytes_max: usize) -> io::Result<Option<Bytes>> {
        let Some(length) = usize::try_from(self.size()).ok().filter(|length| *length <= bytes_max) else {
            return Ok(None);
        };
        let mut buffer = Vec::with_capacity(length);
        pread_full(&self.file, 0, length, &mut buffer)?;
        Ok(Some(Bytes::from(buffer)))
    }

    /// Records that a whole service hashed it and it matched.
    pub fn mark_verified(&self) {
        self.blobs.verified.insert(self.digest, self.identity);
    }
}

/// How bytes leave the disk: one `pread`, off the async threads, into a buffer that is used again.
pub(super) async fn read_chunk(blobs: &Blobs, file: &Arc<File>, offset: u64, length: usize) -> io::Result<Bytes> {
    let (buffers, file) = (Arc::clone(&blobs.buffers), Arc::clone(file));
    let length = length.min(BLOB_CHUNK_BYTES);
    super::off_thread(move || {
        let mut buffer = buffers.take(length);
        pread_full(&file, offset, length, buffer.as_mut())?;
        Ok(Bytes::from_owner(buffer))
    })
    .await?
}

/// Fills an empty buffer, at most to its capacity, up to `length` bytes or the file's end. Nothing is zeroed first.
fn pread_full(file: &File, offset: u64, length: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut at = offset;
    while buffer.len() < length {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(buffer), at) {
            Ok(0) => break,
            Ok(read) => at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // A buffer that is used again may hold more than was asked.
    buffer.truncate(length);
    Ok(())
}
