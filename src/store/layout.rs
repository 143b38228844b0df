//! Where things lie under `data_dir`, and the only ways to open them.
//!
//! Directories are 0700 and files 0600. Below the directories named here no symbolic link is followed, and what is
//! opened must be a regular file that has no second name, so that whoever can write into the cache cannot make us read
//! a file from elsewhere or wait on a pipe.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::StoreError;
use super::disk::{self, FILE_MODE};
use crate::limits::RESCUED_FILES_MAX;
use crate::oci::{Algorithm, Digest};

/// The directories of one store.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    lifetime: Lifetime,
    /// Makes names in `staging/` unique: a random start, and a count.
    run: u64,
    count: AtomicU64,
    /// Changes whenever the machine is started; `None` where the system does not say, or nothing is kept.
    boot: Option<String>,
}

/// What a killed process left in `staging/`.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Blobs that were whole.
    pub(super) whole: Vec<(PathBuf, Digest)>,
    /// What could not be removed.
    pub(super) stuck: Vec<PathBuf>,
}

/// Whether the directory outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Kept,
    /// A private directory that comes into being with its first file and goes with the store.
    Temporary,
}

impl Layout {
    /// A store that is kept under `data_dir`.
    pub(super) fn kept(data_dir: PathBuf) -> Self {
        let (run, count) = (random(), AtomicU64::new(0));
        Self { root: data_dir, lifetime: Lifetime::Kept, run, count, boot: boot() }
    }

    /// A store that no other process sees and that is removed when it is dropped.
    pub(super) fn temporary() -> Self {
        let name = format!("sealgate-{:016x}{:016x}", random(), random());
        let root = std::env::temp_dir().join(name);
        let (run, count) = (random(), AtomicU64::new(0));
        Self { root, lifetime: Lifetime::Temporary, run, count, boot: None }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn is_kept(&self) -> bool {
        self.lifetime == Lifetime::Kept
    }

    /// The directory of all blobs of one algorithm, by shard.
    pub(super) fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    /// The shard and the file name of a blob below [`Self::blobs`].
    pub(super) fn place(digest: &Digest) -> (String, String) {
        let name = digest.hex();
        (name.chars().take(2).collect(), name)
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let (shard, name) = Self::place(digest);
        self.blobs(digest.algorithm()).join(shard).join(name)
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Files that were found wrong.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(super) fn evidence(&self) -> PathBuf {
        self.root.join("evidence")
    }

    /// A path in `staging/` that no other file has or had.
    pub(super) fn staging_slot(&self) -> PathBuf {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        self.staging().join(format!("{STAGED_PREFIX}{:016x}-{count:x}", self.run))
    }

    /// Creates `data_dir` where it is missing, and makes sure that it stays.
    pub(super) fn create_root(&self) -> io::Result<()> {
        let above = self.root.ancestors().take_while(|path| !path.as_os_str().is_empty());
        let missing: Vec<&Path> = above.take_while(|path| !path.is_dir()).collect();
        disk::create_directory(&self.root)?;
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // Not every directory that we may make another in lets us open it.
            if let Err(error) = disk::sync_directory(parent) {
                tracing::warn!(path = %parent.display(), %error, "a new directory may not survive a power cut");
            }
        }
        Ok(())
    }

    /// Creates the directories that are missing, and makes sure that they stay.
    pub(super) fn create(&self) -> io::Result<()> {
        let mut wanted = vec![self.staging(), self.blobs(Algorithm::Sha256), self.blobs(Algorithm::Sha512)];
        wanted.extend(self.is_kept().then(|| self.evidence()));
        wanted.retain(|directory| !directory.is_dir());
        for directory in &wanted {
            disk::create_directory(directory)?;
        }
        // What is synced into a directory that itself is lost is lost with it.
        if !wanted.is_empty() && self.is_kept() {
            disk::sync_directory(&self.root.join("blobs"))?;
            disk::sync_directory(&self.root)?;
        }
        Ok(())
    }

    /// Locks the directory for this process until the result is dropped.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process holds it.
    pub(super) fn lock(&self) -> Result<Lock, StoreError> {
        let directory = self.lock_directory(File::try_lock)?;
        let path = self.root.join(LOCK);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| StoreError::of(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: Some(file), _directory: directory }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: self.root.clone() }),
            Err(TryLockError::Error(error)) => Err(StoreError::of(&path, error)),
        }
    }

    /// Keeps a mirror from starting, and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while a mirror uses the directory.
    pub(super) fn lock_for_reading(&self) -> Result<Lock, StoreError> {
        let directory = self.lock_directory(File::try_lock_shared)?;
        let path = self.root.join(LOCK);
        let file = open_below(&self.root, &[], LOCK).map_err(|error| StoreError::of(&path, error))?;
        // Without that file no mirror ever ran here, or somebody took it away.
        match file.as_ref().map_or(Ok(()), File::try_lock_shared) {
            Ok(()) => Ok(Lock { _file: file, _directory: directory }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: self.root.clone() }),
            Err(TryLockError::Error(error)) => Err(StoreError::of(&path, error)),
        }
    }

    /// `None` where the file system does not lock directories, or there is none.
    fn lock_directory(&self, lock: fn(&File) -> Result<(), TryLockError>) -> Result<Option<File>, StoreError> {
        let Ok(directory) = File::open(&self.root) else { return Ok(None) };
        match lock(&directory) {
            Ok(()) => Ok(Some(directory)),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: self.root.clone() }),
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// Removes what a killed process left in `staging/`; only files of our own making, and only under the lock. Blobs that
    /// were whole stay, if the machine has not been started since.
    pub(super) fn leftovers(&self) -> io::Result<Leftovers> {
        let mut left = Leftovers::default();
        for entry in disk::list(&self.staging())? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with(STAGED_PREFIX)) else { continue };
            if !entry.file_type()?.is_file() {
                continue;
            }
            match self.whole_of(name) {
                Some(digest) if left.whole.len() < RESCUED_FILES_MAX => left.whole.push((entry.path(), digest)),
                Some(_) | None => {
                    if let Err(error) = disk::remove_file(&entry.path()) {
                        tracing::warn!(path = %entry.path().display(), %error, "a staged file could not be removed; that is tried again");
                        left.stuck.push(entry.path());
                    }
                }
            }
        }
        Ok(left)
    }

    /// The name in `staging/` that says that the file is all of a blob; `None` where nobody would know how long that holds.
    pub(super) fn whole(&self, slot: &Path, digest: &Digest) -> Option<PathBuf> {
        let (boot, mut name) = (self.boot.as_ref()?, slot.file_name()?.to_owned());
        name.push(format!(".{boot}.{}-{}", digest.algorithm().as_str(), digest.hex()));
        Some(slot.with_file_name(name))
    }

    /// The blob that a file of that name is, if nothing of it can have been lost since.
    fn whole_of(&self, name: &str) -> Option<Digest> {
        let (_, rest) = name.split_once('.')?;
        let (boot, digest) = rest.split_once('.')?;
        let (algorithm, hex) = digest.split_once('-')?;
        let digest = format!("{algorithm}:{hex}").parse().ok()?;
        (self.boot.as_deref() == Some(boot)).then_some(digest)
    }

    /// Opens one of [`Self::leftovers`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when something else than our own file lies there.
    pub(super) fn open_staged(&self, path: &Path) -> io::Result<Option<File>> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        open_below(&self.staging(), &[], name)
    }

    /// Creates a file in `staging/` for reading and writing, and the directory if somebody took it away.
    pub(super) fn create_staged(&self, path: &Path) -> io::Result<File> {
        match disk::create_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create()?;
                disk::create_file(path)
            }
            other => other,
        }
    }

    /// Opens a blob's file; `None` when there is none.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when something else than our own file lies there.
    pub(super) fn open_blob(&self, digest: &Digest) -> io::Result<Option<File>> {
        let (shard, name) = Self::place(digest);
        open_below(&self.blobs(digest.algorithm()), &[&shard], &name)
    }
}

/// Held by the process that uses a directory.
#[derive(Debug)]
pub(super) struct Lock {
    /// What every file system locks.
    _file: Option<File>,
    /// The directory itself, so that taking the file away lets nobody in.
    _directory: Option<File>,
}

impl Drop for Layout {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Temporary
            && let Err(error) = std::fs::remove_dir_all(&self.root)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.root.display(), %error, "a temporary directory could not be removed");
        }
    }
}

/// Opens `base/directories…/name` for reading without following a link below `base`; `None` when it is not there.
///
/// `base` itself may be a link: operators put caches on other disks.
pub(super) fn open_below(base: &Path, directories: &[&str], name: &str) -> io::Result<Option<File>> {
    let file = match open_plain(base, directories, name, OFlags::NOATIME) {
        // Only the owner may ask that the time of last use is left alone.
        Err(Errno::PERM) => open_plain(base, directories, name, OFlags::empty()),
        opened => opened,
    };
    let file = match file {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => return Err(foreign("a symbolic link")),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    match (metadata.is_file(), metadata.nlink()) {
        (true, 0 | 1) => Ok(Some(file)),
        (true, _) => Err(foreign("a file with several names")),
        (false, _) => Err(foreign("not a regular file")),
    }
}

fn open_plain(base: &Path, directories: &[&str], name: &str, more: OFlags) -> Result<OwnedFd, Errno> {
    let directory_flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = disk::open_at(base, None, base, directory_flags)?;
    for component in directories {
        let flags = directory_flags | OFlags::NOFOLLOW;
        directory = disk::open_at(base, Some(&directory), Path::new(component), flags)?;
    }
    // Without NONBLOCK, opening a pipe would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
    disk::open_at(base, Some(&directory), Path::new(name), flags)
}

fn foreign(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} lies where a file of the cache belongs"))
}

/// Replaces a small file as a whole: written beside it, synced, renamed.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    match disk::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk::create_file(&beside)?;
    disk::write_at(&beside, &file, content, 0)?;
    disk::sync_file(&beside, &file)?;
    disk::rename(&beside, path)?;
    path.parent().map_or(Ok(()), disk::sync_directory)
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Names only have to differ; without randomness the process id and the count still make them so.
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_be_bytes(bytes),
        Err(_) => u64::from(std::process::id()),
    }
}

/// The kernel's name for the time since the machine was started.
fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = id.trim();
    let is_plain = id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_plain.then(|| id.to_owned())
}

/// Locked by the process that uses the directory.
const LOCK: &str = "lock";
const STAGED_PREFIX: &str = "fill-";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::create_file;

    #[test]
    fn only_our_own_files_are_removed_from_staging() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::kept(directory.path().to_owned());
        layout.create().unwrap();
        create_file(&layout.staging_slot()).unwrap();
        std::fs::write(layout.staging().join("notes.txt"), "mine").unwrap();
        std::fs::create_dir(layout.staging().join("fill-directory")).unwrap();
        let found = layout.leftovers().unwrap();
        assert_eq!((found.whole.len(), found.stuck.len()), (0, 0));
        let mut left: Vec<_> =
            std::fs::read_dir(layout.staging()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["fill-directory", "notes.txt"]);
    }

    #[test]
    fn a_directory_is_locked_once() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::kept(directory.path().to_owned());
        let held = layout.lock().unwrap();
        assert!(matches!(layout.lock(), Err(StoreError::Locked { path }) if path == directory.path()));
        drop(held);
        assert!(layout.lock().is_ok());
    }

    #[test]
    fn nobody_else_may_read_what_is_created() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::kept(directory.path().join("data"));
        layout.create().unwrap();
        let file = layout.create_staged(&layout.staging_slot()).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        for path in [layout.root().to_owned(), layout.staging(), layout.blobs(Algorithm::Sha256)] {
            assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_temporary_store_leaves_nothing() {
        let layout = Layout::temporary();
        let root = layout.root().to_owned();
        assert!(!root.exists());
        layout.create_staged(&layout.staging_slot()).unwrap();
        assert!(root.exists());
        drop(layout);
        assert!(!root.exists());
    }

    #[test]
    fn a_small_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mark");
        std::fs::write(directory.path().join("mark.new"), "left by a killed process").unwrap();
        replace_file(&path, b"one").unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
