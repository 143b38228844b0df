//! Content-addressed files, and the one place where their bytes leave.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use moka::sync::Cache;
use tokio_util::task::TaskTracker;

use super::buffers::Buffers;
use super::error::is_unreadable;
use super::layout::Layout;
use super::ledger::{InUse, Ledger};
use super::{CacheStats, Evicted, Settings, StoreError, disk, lock, mapped};
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
    pub(super) buffers: Arc<Buffers>,
    /// Files that this process hashed whole, as they were then.
    pub(super) verified: Cache<Digest, FileIdentity>,
    /// Files that were found wrong and could not be taken away.
    shunned: Cache<Digest, FileIdentity>,
    /// Whether there ever was one of those.
    shuns: AtomicBool,
    /// Held while a file is put into its place or taken away, so that nobody takes away what has just come. Locked before
    /// the ledger, never after it.
    places: [Mutex<()>; PLACES],
    /// Staged files that nobody needs and that could not be removed.
    pub(super) leftovers: Mutex<Vec<PathBuf>>,
    /// What closing the store waits for.
    pub(super) tasks: TaskTracker,
}

/// Tells a file from one that was put in its place or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    modified: (i64, i64),
}

impl FileIdentity {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    /// Whether it is the same file, even if it was changed.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
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
            shunned: Cache::new(VERIFIED_BLOBS_MAX),
            shuns: AtomicBool::new(false),
            places: std::array::from_fn(|_| Mutex::default()),
            leftovers: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Opens a cached blob, and counts that as a use. Blocks.
    pub(super) fn open(self: &Arc<Self>, digest: &Digest) -> Option<BlobFile> {
        match self.open_unused(digest) {
            Ok(Some((_, identity))) if self.is_shunned(digest, &identity) => None,
            Ok(Some((file, identity))) => {
                let reader = self.used(digest, identity.size);
                let (file, blobs) = (Arc::new(file), Arc::clone(self));
                Some(BlobFile { file, digest: *digest, identity, reader, blobs })
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

    /// Whether that file was found wrong before, and is still there because the disk would not let it go.
    fn is_shunned(&self, digest: &Digest, found: &FileIdentity) -> bool {
        self.shuns.load(Ordering::Relaxed) && self.shunned.get(digest).is_some_and(|wrong| wrong.is_same_file(found))
    }

    /// Opens a cached blob, which is no use of it. Blocks.
    pub(super) fn open_unused(&self, digest: &Digest) -> io::Result<Option<(File, FileIdentity)>> {
        let Some(file) = self.layout.open_blob(digest)? else { return Ok(None) };
        let identity = FileIdentity::of(&file)?;
        Ok(Some((file, identity)))
    }

    /// Records a use of a blob that is on disk; it stays there for as long as the result lives.
    fn used(&self, digest: &Digest, size: u64) -> InUse {
        let now = self.clock.now();
        let mut ledger = lock(&self.ledger);
        let is_known = ledger.contains(digest);
        // Known late when it was put there while the scan at start had not come to it yet.
        if is_known {
            ledger.touch(digest, now);
        } else {
            ledger.insert(*digest, size, now);
        }
        let reader = ledger.hold(digest).unwrap_or_default();
        drop(ledger);
        if !is_known {
            // Evicted since it was opened?
            self.strike_out(digest);
        }
        reader
    }

    /// Takes over a staged file that is synced and whose content has that digest: makes room and renames. Blocks. The file
    /// does not go while `reader` lives. Returns its directory, which is to be synced before the blob counts as kept.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when it is larger than the whole cache, or than what nobody reads of it: nothing is evicted
    /// for it then.
    pub(super) fn adopt(
        &self,
        staged: &Path,
        file: &File,
        digest: &Digest,
        reader: &InUse,
    ) -> Result<PathBuf, StoreError> {
        let target = self.layout.blob(digest);
        let refused = |error| {
            self.telemetry.cache_write_failed(&error);
            StoreError::of(&target, error)
        };
        let identity = FileIdentity::of(file).map_err(refused)?;
        let (victims, reserved) = {
            let mut ledger = lock(&self.ledger);
            if identity.size > ledger.limit_bytes() {
                return Err(StoreError::NoSpace);
            }
            // It may take the place of one that is counted.
            let reserved = identity.size.saturating_sub(ledger.size(digest).unwrap_or(0));
            (ledger.reserve(reserved).ok_or(StoreError::NoSpace)?, reserved)
        };
        self.unlink(&victims, EvictionReason::Size);
        let placed = {
            let _place = lock(self.place(digest));
            let placed = put_in_place(staged, &target);
            let mut ledger = lock(&self.ledger);
            ledger.release(reserved);
            if placed.is_ok() {
                ledger.insert(*digest, identity.size, self.clock.now());
                ledger.held_by(digest, reader);
            } else if let Ok(metadata) = std::fs::symlink_metadata(&target) {
                // The one that was there.
                ledger.insert(*digest, metadata.len(), self.clock.now());
            }
            placed
        };
        // Several that arrive at once may each have found room, and together have none.
        self.trim();
        placed.map_err(refused)
    }

    /// Records that this very file has been hashed whole and is what its name says.
    pub(super) fn verified(&self, digest: &Digest, file: &File) {
        if let Ok(identity) = FileIdentity::of(file) {
            self.verified.insert(*digest, identity);
        }
    }

    /// The lock for who puts a file into that place or takes it away. Files of one directory share it, so that nobody takes a
    /// directory for safe that somebody else has just made and not synced yet.
    pub(super) fn place(&self, digest: &Digest) -> &Mutex<()> {
        let number = digest.as_bytes().first().map_or(0, |byte| usize::from(*byte) % PLACES);
        self.places.get(number).unwrap_or(&self.places[0])
    }

    /// Removes files that the ledger has struck out, unless they came back or are being read; says how many. Blocks.
    pub(super) fn unlink(&self, victims: &[(Digest, u64)], reason: EvictionReason) -> Evicted {
        let (mut files, mut bytes) = (0_u64, 0_u64);
        for (digest, size) in victims {
            let _place = lock(self.place(digest));
            if lock(&self.ledger).contains(digest) {
                continue;
            }
            self.verified.invalidate(digest);
            match disk::remove_file(&self.layout.blob(digest)) {
                Ok(()) => {
                    (files, bytes) = (files.saturating_add(1), bytes.saturating_add(*size));
                    self.telemetry.evicted(reason, *size);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%digest, %error, "a cached blob cannot be removed");
                    // It takes its room as long as it is there; others go before it is tried again.
                    lock(&self.ledger).insert(*digest, *size, self.clock.now());
                }
            }
            // The scan at start, or who opened it just before, may have entered it meanwhile.
            self.strike_out(digest);
        }
        Evicted::Gone { files, bytes }
    }

    /// Takes away a file that was found wrong, unless another one has taken its place. Blocks.
    pub(super) fn condemn(&self, digest: &Digest, wrong: &FileIdentity) {
        {
            let _place = lock(self.place(digest));
            let is_it = self.open_unused(digest);
            if !is_it.is_ok_and(|found| found.is_some_and(|(_, found)| found.is_same_file(wrong))) {
                return;
            }
            self.verified.invalidate(digest);
            match self.set_aside(digest, wrong.size) {
                Ok(()) => self.telemetry.evicted(EvictionReason::Corrupt, wrong.size),
                Err(error) => {
                    tracing::warn!(%digest, %error, "a wrong file cannot be removed; it is not served again");
                    self.shunned.insert(*digest, *wrong);
                    self.shuns.store(true, Ordering::Relaxed);
                }
            }
            self.strike_out(digest);
        }
        self.report();
    }

    /// Strikes out a file that is not there. Looked at under the lock that whoever puts it into place needs last, so that
    /// a file that arrives just now stays counted.
    pub(super) fn strike_out(&self, digest: &Digest) {
        let path = self.layout.blob(digest);
        let mut ledger = lock(&self.ledger);
        if ledger.contains(digest)
            && std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
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

/// Renames; returns the directory.
fn put_in_place(staged: &Path, target: &Path) -> io::Result<PathBuf> {
    let shard = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    match disk::look(shard) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk::create_directory(shard)?;
            shard.parent().map_or(Ok(()), disk::sync_directory)?;
        }
        Err(error) => return Err(error),
    }
    disk::rename(staged, target)?;
    Ok(shard.to_owned())
}

/// Locks for places: enough that two files that come at once seldom share one.
const PLACES: usize = 64;

/// A cached blob, open for reading. It is not evicted as long as this or a mapping of it lives, and stays readable even when
/// somebody else takes it away.
#[derive(Debug)]
pub struct BlobFile {
    file: Arc<File>,
    digest: Digest,
    identity: FileIdentity,
    reader: InUse,
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
    /// What the file system says. What the disk does not give back is taken away as a wrong file is.
    pub async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let read = read_chunk(&self.blobs, &self.file, offset, length).await;
        if let Err(error) = &read {
            tracing::warn!(digest = %self.digest, %error, "a cached blob cannot be read");
            if is_unreadable(error) {
                self.condemn().await;
            }
        }
        read
    }

    /// All of it as memory that names the file to who sends it ([`super::FileRegion`]). Must not be read: should the file be cut
    /// by somebody else, reading would end the process.
    ///
    /// # Errors
    /// What the file system says.
    pub fn map(&self) -> io::Result<Bytes> {
        mapped::map(&self.file, self.size(), InUse::clone(&self.reader))
    }

    /// All of it, or `None` when it is longer than `bytes_max`. Blocks.
    pub(super) fn read_whole(&self, bytes_max: usize) -> io::Result<Option<Bytes>> {
        let Some(length) = usize::try_from(self.size()).ok().filter(|length| *length <= bytes_max) else {
            return Ok(None);
        };
        let mut buffer = Vec::with_capacity(length);
        pread_full(&self.blobs, &self.file, 0, length, &mut buffer)?;
        Ok(Some(Bytes::from(buffer)))
    }

    /// Whether these bytes can be sent by `sendfile` without waiting for the disk, as far as a few looks can tell. Does not block.
    pub fn is_in_memory(&self, offset: u64, length: u64) -> bool {
        mapped::is_in_memory(&self.file, offset, length)
    }

    /// Records that a whole service hashed it and it matched.
    pub fn mark_verified(&self) {
        self.blobs.verified.insert(self.digest, self.identity);
    }

    /// Records that it is not what its name says: it is taken away, unless another file has taken its place meanwhile.
    pub async fn condemn(&self) {
        let (blobs, digest, identity) = (Arc::clone(&self.blobs), self.digest, self.identity);
        if let Err(error) = super::off_thread(move || blobs.condemn(&digest, &identity)).await {
            tracing::warn!(%digest, %error, "a wrong file could not be dropped");
        }
    }

    /// As [`Self::condemn`], and blocks.
    pub(super) fn condemn_now(&self) {
        self.blobs.condemn(&self.digest, &self.identity);
    }
}

/// How bytes leave the disk: one `pread`, off the async threads, into a buffer that is used again.
pub(super) async fn read_chunk(blobs: &Arc<Blobs>, file: &Arc<File>, offset: u64, length: usize) -> io::Result<Bytes> {
    let (blobs, file) = (Arc::clone(blobs), Arc::clone(file));
    let length = length.min(BLOB_CHUNK_BYTES);
    super::off_thread(move || {
        let mut buffer = blobs.buffers.take(length);
        pread_full(&blobs, &file, offset, length, buffer.as_mut())?;
        Ok(Bytes::from_owner(buffer))
    })
    .await?
}

/// Fills an empty buffer, at most to its capacity, up to `length` bytes or the file's end. Nothing is zeroed first.
pub(super) fn pread_full(
    blobs: &Blobs,
    file: &File,
    offset: u64,
    length: usize,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    let mut at = offset;
    while buffer.len() < length {
        match disk::read_at(blobs.layout.root(), file, at, buffer)? {
            0 => break,
            read => at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX)),
        }
    }
    // A buffer that is used again may hold more than was asked.
    buffer.truncate(length);
    Ok(())
}
