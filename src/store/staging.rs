//! Files that are being written: hashed on the way, bounded, renamed into the cache when whole, else removed.
//!
//! A blob that is whole can be read at once; that it is also synced, and cached, nobody waits for. Should the process be killed
//! in between, the file's name says what it is, and the next process puts it into place: but only while the machine runs on,
//! since a power cut may have left a part of the content.
//!
//! Hashing takes longer than writing, so a thread of its own does it: what is written can be read at once, and the hash is
//! one write behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::blobs::{Blobs, read_chunk};
use super::ledger::InUse;
use super::{StoreError, disk, lock, mapped, off_thread};
use crate::limits::FREE_SPACE_CHECK_BYTES;
use crate::oci::{Algorithm, Digest, Hasher};

/// A file in `staging/`, hashed while it is written; dropping it removes the file.
///
/// A write that was cancelled has an unknown end, so later ones fail.
#[derive(Debug)]
pub struct Staged {
    size_max: u64,
    hashing: Hashing,
    inner: Arc<Inner>,
}

/// The hash of what was written, or the thread that goes on with it.
#[derive(Debug)]
enum Hashing {
    Here(Box<Hasher>),
    There(JoinHandle<Box<Hasher>>),
    /// A write was cancelled or failed, or the process ends.
    Lost,
}

impl Hashing {
    /// Hashes the pieces in the background.
    fn begin(mut hasher: Box<Hasher>, pieces: Vec<Bytes>) -> Self {
        Self::There(tokio::task::spawn_blocking(move || {
            for piece in pieces {
                hasher.update(&piece);
            }
            hasher
        }))
    }

    /// Waits until all has been hashed, and leaves it [`Self::Lost`].
    async fn take(&mut self) -> io::Result<Box<Hasher>> {
        match std::mem::replace(self, Self::Lost) {
            Self::Here(hasher) => Ok(hasher),
            Self::There(thread) => thread.await.map_err(io::Error::other),
            Self::Lost => Err(io::Error::other("an earlier write was cancelled or failed")),
        }
    }
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
    /// Bytes at which the free space is looked at again.
    next_check: u64,
}

/// The file's name; dropping it removes the file unless it was put into place.
#[derive(Debug)]
struct Slot {
    /// The one that it was created with.
    path: PathBuf,
    /// The one that it has now; `None` when it is in place, or removed already.
    now: Mutex<Option<PathBuf>>,
    blobs: Arc<Blobs>,
}

impl Staged {
    /// Creates the file. Blocks.
    pub(super) fn create(blobs: &Arc<Blobs>, algorithm: Algorithm, size_max: u64) -> Result<Self, StoreError> {
        // What will not be kept needs no disk on its way.
        if size_max > lock(&blobs.ledger).limit_bytes() {
            return Err(StoreError::NoSpace);
        }
        let path = blobs.layout.staging_slot();
        let file = blobs.layout.create_staged(&path).map_err(|error| refused(blobs, &path, error))?;
        let slot = Slot { now: Mutex::new(Some(path.clone())), path, blobs: Arc::clone(blobs) };
        blobs.keep_space_free(size_max)?;
        let progress = Progress { written: 0, next_check: FREE_SPACE_CHECK_BYTES };
        Ok(Self {
            size_max,
            hashing: Hashing::Here(Box::new(Hasher::new(algorithm))),
            inner: Arc::new(Inner {
                file: Arc::new(file),
                reader: InUse::default(),
                progress: Mutex::new(progress),
                slot,
            }),
        })
    }

    /// Puts content into the cache, each under its digest; the caller has hashed it. What is there already stays. All files
    /// are synced one after the other, and each directory once, which a journal does together. What cannot be written is
    /// counted. Blocks.
    pub(super) fn store_all(blobs: &Arc<Blobs>, contents: &[(Digest, Bytes)]) {
        let mut staged = Vec::new();
        for (digest, content) in contents {
            // The file itself is asked, not what is believed to lie there; and who keeps it anew still uses it.
            if blobs.open(digest).is_none_or(|blob| blob.size() != length(content)) {
                let file = kept(digest, Self::of_content(blobs, digest, content));
                staged.extend(file.map(|file| (digest, file)));
            }
        }
        staged.retain(|(digest, file)| kept(digest, file.inner.sync()).is_some());
        let mut directories = BTreeMap::new();
        for (digest, file) in &staged {
            let directory = kept(digest, file.inner.place(digest));
            directories.extend(directory.map(|directory| (directory, *digest)));
        }
        for (directory, digest) in &directories {
            kept(digest, sync_directory(blobs, directory));
        }
    }

    fn of_content(blobs: &Arc<Blobs>, digest: &Digest, content: &Bytes) -> Result<Self, StoreError> {
        let staged = Self::create(blobs, digest.algorithm(), length(content))?;
        staged.inner.append(std::slice::from_ref(content))?;
        Ok(staged)
    }

    /// Appends; see [`Self::write_pieces`].
    ///
    /// # Errors
    /// As there.
    pub async fn write(&mut self, bytes: &Bytes) -> Result<(), StoreError> {
        self.write_pieces(vec![bytes.clone()]).await
    }

    /// Appends all pieces with one hop off the async threads and without copying them. They are hashed beside, and the next
    /// write waits for that.
    ///
    /// # Errors
    /// [`StoreError::TooLong`] when the bound is passed, and then nothing of them was written; [`StoreError::NoSpace`]
    /// when the disk is full: what [`Self::written`] says stays readable; [`StoreError::Io`] else.
    pub async fn write_pieces(&mut self, pieces: Vec<Bytes>) -> Result<(), StoreError> {
        let incoming = pieces.iter().fold(self.written(), |sum: u64, piece| sum.saturating_add(length(piece)));
        if incoming > self.size_max {
            return Err(StoreError::TooLong { allowed: self.size_max });
        }
        let path = &self.inner.slot.path;
        let hasher = self.hashing.take().await.map_err(|error| StoreError::of(path, error))?;
        // The bytes are shared.
        let (inner, same) = (Arc::clone(&self.inner), pieces.clone());
        let writing = tokio::task::spawn_blocking(move || inner.append(&pieces));
        let hashing = Hashing::begin(hasher, same);
        // A write that is cancelled here leaves the hash lost.
        writing.await.map_err(|error| StoreError::of(path, io::Error::other(error)))??;
        self.hashing = hashing;
        Ok(())
    }

    /// Bytes so far; all of them can be read.
    pub fn written(&self) -> u64 {
        lock(&self.inner.progress).written
    }

    /// Another handle that reads what was written so far.
    pub fn reader(&self) -> StagedReader {
        let (file, blobs) = (Arc::clone(&self.inner.file), Arc::clone(&self.inner.slot.blobs));
        StagedReader { file, blobs, reader: InUse::clone(&self.inner.reader) }
    }

    /// Ends the writing, if the content has that digest. From now on a process that is killed leaves the blob to the next one.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`], and [`StoreError::Io`] when an earlier write failed; the file is gone then, and
    /// readers keep what they have.
    pub async fn whole(mut self, digest: &Digest) -> Result<Whole, StoreError> {
        let inner = self.inner;
        let path = inner.slot.path.clone();
        let hasher = self.hashing.take().await.map_err(|error| StoreError::of(&path, error))?;
        let found = hasher.finish();
        if found != *digest {
            return Err(StoreError::DigestMismatch { wanted: Box::new(*digest), found: Box::new(found) });
        }
        off_thread(move || {
            inner.name_whole(&found);
            Whole { inner, digest: found }
        })
        .await
        .map_err(|error| StoreError::of(&path, error))
    }
}

/// A staged file that is all of a blob, hashed, and not in the cache yet.
#[derive(Debug)]
pub struct Whole {
    inner: Arc<Inner>,
    digest: Digest,
}

impl Whole {
    /// Syncs and renames into place. Once begun it ends, also when the caller leaves.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when the blob is larger than the whole cache or the disk has no room for its name: readers keep
    /// what they have. [`StoreError::Io`]: what they have not read yet may be lost. The file is gone then.
    pub async fn commit(self) -> Result<(), StoreError> {
        let path = self.inner.slot.path.clone();
        off_thread(move || self.inner.commit(&self.digest)).await.map_err(|error| StoreError::of(&path, error))?
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
                return Err(refused(&self.slot.blobs, &self.slot.path, error));
            }
            progress.written = progress.written.saturating_add(length(piece));
        }
        Ok(())
    }

    fn commit(&self, digest: &Digest) -> Result<(), StoreError> {
        self.sync()?;
        sync_directory(&self.slot.blobs, &self.place(digest)?)
    }

    /// Makes the content survive a power cut.
    fn sync(&self) -> Result<(), StoreError> {
        let path = lock(&self.slot.now).clone().unwrap_or_else(|| self.slot.path.clone());
        disk::sync_file(&path, &self.file).map_err(|source| {
            self.slot.blobs.telemetry.cache_write_failed(&source);
            // Also on a full disk: some of what was written is lost.
            StoreError::Io { path, source }
        })
    }

    /// Gives the file a name that says what it is to a process that finds it. Without it, that one fetches the blob again.
    fn name_whole(&self, digest: &Digest) {
        let Some(path) = self.slot.blobs.layout.whole(&self.slot.path, digest) else { return };
        let mut now = lock(&self.slot.now);
        if let Some(now) = now.as_mut()
            && disk::rename(now, &path).is_ok()
        {
            *now = path;
        }
    }

    /// Gives the file its name in the cache; the directory, which is to be synced.
    fn place(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        // From here on the name is nobody's.
        let Some(path) = lock(&self.slot.now).take() else {
            return Err(StoreError::of(&self.slot.path, io::ErrorKind::NotFound.into()));
        };
        let adopted = self.slot.blobs.adopt(&path, &self.file, digest, &self.reader);
        if adopted.is_ok() {
            self.slot.blobs.verified(digest, &self.file);
        } else {
            remove(&self.slot.blobs, &path);
        }
        adopted
    }
}

/// Makes names in a directory of the cache survive a power cut.
fn sync_directory(blobs: &Blobs, directory: &Path) -> Result<(), StoreError> {
    disk::sync_directory(directory).map_err(|error| refused(blobs, directory, error))
}

/// What came of writing content.
fn kept<T>(digest: &Digest, outcome: Result<T, StoreError>) -> Option<T> {
    outcome.inspect_err(|error| tracing::debug!(%digest, %error, "content is kept in memory only")).ok()
}

fn refused(blobs: &Blobs, path: &Path, error: io::Error) -> StoreError {
    blobs.telemetry.cache_write_failed(&error);
    StoreError::of(path, error)
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(path) = lock(&self.now).take() else { return };
        // Removing a long file takes its time, and this may be an async thread.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let blobs = Arc::clone(&self.blobs);
                drop(self.blobs.tasks.spawn_blocking_on(move || remove(&blobs, &path), &runtime));
            }
            Err(_) => remove(&self.blobs, &path),
        }
    }
}

/// Removes a staged file, now or later. Blocks.
pub(super) fn remove(blobs: &Blobs, path: &Path) {
    if let Err(error) = disk::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a staged file could not be removed; that is tried again");
        lock(&blobs.leftovers).push(path.to_owned());
    }
}

impl Blobs {
    /// Has staged files removed by [`Self::remove_leftovers`].
    pub(super) fn remove_later(&self, paths: Vec<PathBuf>) {
        lock(&self.leftovers).extend(paths);
    }

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
    reader: InUse,
}

impl StagedReader {
    /// Bytes from `offset`, up to `length`; the caller knows how far the writer is. Cancel safe.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        read_chunk(&self.blobs, &self.file, offset, length).await
    }

    /// A blob of that many bytes as memory that names the file to who sends it, as [`super::BlobFile::map`]. Slices must
    /// end where the writer is.
    ///
    /// # Errors
    /// What the file system says.
    pub fn map(&self, size: u64) -> io::Result<Bytes> {
        mapped::map(&self.file, size, InUse::clone(&self.reader))
    }

    /// As [`super::BlobFile::is_in_memory`].
    pub fn is_in_memory(&self, offset: u64, length: u64) -> bool {
        mapped::is_in_memory(&self.file, offset, length)
    }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
