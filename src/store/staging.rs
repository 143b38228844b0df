//! Files that are being written: hashed on the way, bounded, renamed into the cache when whole, else removed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::blobs::{Blobs, read_chunk};
use super::ledger::InUse;
use super::{StoreError, disk, lock, off_thread};
use crate::limits::FREE_SPACE_CHECK_BYTES;
use crate::oci::{Algorithm, Digest, Hasher};

/// A file in `staging/`, hashed while it is written; dropping it removes the file.
///
/// A write that was cancelled has an unknown end, so later ones fail.
#[derive(Debug)]
pub struct Staged {
    size_max: u64,
    state: State,
    inner: Arc<Inner>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Writing,
}

#[derive(Debug)]
struct Inner {
    file: Arc<File>,
    /// Who reads it while it grows still reads it when it has become a blob.
    reader: InUse,
    progress: Mutex<Progress>,
    slot: Slot,
}

#[derive(Debug)]
struct Progress {
    written: u64,
    hasher: Hasher,
    /// Bytes at which the free space is looked at again.
    next_check: u64,
}

/// The file's name; dropping it removes the file unless it was renamed.
#[derive(Debug)]
struct Slot {
    path: PathBuf,
    fate: Mutex<Fate>,
    blobs: Arc<Blobs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Remove,
    /// Renamed, or removed already.
    Gone,
}

impl Staged {
    /// Creates the file. Blocks.
    pub(super) fn create(blobs: &Arc<Blobs>, algorithm: Algorithm, size_max: u64) -> Result<Self, StoreError> {
        // What will not be kept needs no disk on its way.
        if size_max > lock(&blobs.ledger).limit_bytes() {
            return Err(StoreError::NoSpace);
        }
        let path = blobs.layout.staging_slot();
        let written = |error: io::Error| {
            blobs.telemetry.cache_write_failed(&error);
            StoreError::of(&path, error)
        };
        let file = Arc::new(blobs.layout.create_staged(&path).map_err(written)?);
        let slot = Slot { path, fate: Mutex::new(Fate::Remove), blobs: Arc::clone(blobs) };
        blobs.keep_space_free(size_max)?;
        let progress = Progress { written: 0, hasher: Hasher::new(algorithm), next_check: FREE_SPACE_CHECK_BYTES };
        Ok(Self {
            size_max,
            state: State::Ready,
            inner: Arc::new(Inner { file, reader: InUse::default(), progress: Mutex::new(progress), slot }),
        })
    }

    /// Puts content into the cache in one go; the caller has hashed it. Blocks.
    pub(super) fn store_whole(blobs: &Arc<Blobs>, digest: &Digest, content: &Bytes) -> Result<(), StoreError> {
        let staged = Self::create(blobs, digest.algorithm(), length(content))?;
        staged.inner.append(std::slice::from_ref(content))?;
        staged.inner.commit(digest)
    }

    /// Appends; see [`Self::write_pieces`].
    ///
    /// # Errors
    /// As there.
    pub async fn write(&mut self, bytes: &Bytes) -> Result<(), StoreError> {
        self.write_pieces(vec![bytes.clone()]).await
    }

    /// Appends all pieces with one hop off the async threads and without copying them.
    ///
    /// # Errors
    /// [`StoreError::TooLong`] when the bound is passed, and then nothing of them was written; [`StoreError::NoSpace`]
    /// when the disk is full: what [`Self::written`] says stays readable; [`StoreError::Io`] else.
    pub async fn write_pieces(&mut self, pieces: Vec<Bytes>) -> Result<(), StoreError> {
        if self.state == State::Writing {
            let source = io::Error::other("an earlier write was cancelled");
            return Err(StoreError::Io { path: self.inner.slot.path.clone(), source });
        }
        let incoming = pieces.iter().fold(self.written(), |sum: u64, piece| sum.saturating_add(length(piece)));
        if incoming > self.size_max {
            return Err(StoreError::TooLong { allowed: self.size_max });
        }
        self.state = State::Writing;
        let inner = Arc::clone(&self.inner);
        let outcome = off_thread(move || inner.append(&pieces)).await;
        self.state = State::Ready;
        outcome.map_err(|error| StoreError::of(&self.inner.slot.path, error))?
    }

    /// Bytes so far; all of them can be read.
    pub fn written(&self) -> u64 {
        lock(&self.inner.progress).written
    }

    /// Another handle that reads what was written so far.
    ///
    /// # Errors
    /// None today.
    pub fn reader(&self) -> io::Result<StagedReader> {
        let (file, blobs) = (Arc::clone(&self.inner.file), Arc::clone(&self.inner.slot.blobs));
        Ok(StagedReader { file, blobs, _reader: InUse::clone(&self.inner.reader) })
    }

    /// The digest of what was written so far.
    pub fn digest(&self) -> Digest {
        lock(&self.inner.progress).hasher.clone().finish()
    }

    /// Syncs and renames into place if the content has that digest. Once begun it ends, also when the caller leaves.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`]; [`StoreError::NoSpace`] when the blob is larger than the whole cache or the disk
    /// is full; [`StoreError::Io`]. The file is gone then, and readers keep what they have.
    pub async fn commit(self, digest: &Digest) -> Result<(), StoreError> {
        let found = self.digest();
        if found != *digest || self.state == State::Writing {
            return Err(StoreError::DigestMismatch { wanted: Box::new(*digest), found: Box::new(found) });
        }
        let path = self.inner.slot.path.clone();
        off_thread(move || self.inner.commit(&found)).await.map_err(|error| StoreError::of(&path, error))?
    }
}

impl Inner {
    fn append(&self, pieces: &[Bytes]) -> Result<(), StoreError> {
        let mut progress = lock(&self.progress);
        if progress.written >= progress.next_check {
            self.slot.blobs.keep_space_free(0)?;
            progress.next_check = progress.written.saturating_add(FREE_SPACE_CHECK_BYTES);
        }
        for piece in pieces {
            if let Err(error) = disk::write_at(&self.slot.path, &self.file, piece, progress.written) {
                self.slot.blobs.telemetry.cache_write_failed(&error);
                return Err(StoreError::of(&self.slot.path, error));
            }
            progress.hasher.update(piece);
            progress.written = progress.written.saturating_add(length(piece));
        }
        Ok(())
    }

    fn commit(&self, digest: &Digest) -> Result<(), StoreError> {
        let adopted = self.slot.blobs.adopt(&self.slot.path, &self.file, digest, &self.reader);
        if adopted.is_err() {
            remove(&self.slot.blobs, &self.slot.path);
        }
        // From here on the name is nobody's.
        *lock(&self.slot.fate) = Fate::Gone;
        adopted
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if *lock(&self.fate) == Fate::Gone {
            return;
        }
        // Removing a long file takes its time, and this may be an async thread.
        let path = std::mem::take(&mut self.path);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let blobs = Arc::clone(&self.blobs);
                drop(self.blobs.tasks.spawn_blocking_on(move || remove(&blobs, &path), &runtime));
            }
            Err(_) => remove(&self.blobs, &path),
        }
    }
}

fn remove(blobs: &Blobs, path: &Path) {
    if let Err(error) = disk::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a staged file could not be removed; that is tried again");
        lock(&blobs.leftovers).push(path.to_owned());
    }
}

impl Blobs {
    /// Removes staged files that could not be removed before. Blocks.
    pub(super) fn remove_leftovers(&self) {
        let leftovers = std::mem::take(&mut *lock(&self.leftovers));
        for path in leftovers {
            remove(self, &path);
        }
    }
}

/// Reads a staged file while it grows, and after it was committed or removed.
#[derive(Debug, Clone)]
pub struct StagedReader {
    file: Arc<File>,
    blobs: Arc<Blobs>,
    _reader: InUse,
}

impl StagedReader {
    /// Bytes from `offset`, up to `length`; the caller knows how far the writer is. Cancel safe.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        read_chunk(&self.blobs, &self.file, offset, length).await
    }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
