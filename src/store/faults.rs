//! Tests look on at the file operations below a directory, and make them fail. In a release nobody looks, and nothing is left
//! of it.
#![cfg_attr(not(any(test, feature = "testing")), expect(unreachable_pub, dead_code, reason = "only tests look on"))]

use std::path::Path;

#[cfg(any(test, feature = "testing"))]
pub use looking_on::{Observed, observe};

#[cfg(any(test, feature = "testing"))]
pub(super) use looking_on::step;

/// One file operation, before it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A file is created.
    Create(&'a Path),
    /// A directory is created, with its parents.
    CreateDirectory(&'a Path),
    /// A file or directory is opened for reading.
    Open(&'a Path),
    /// Bytes are written.
    Write {
        /// Where the file lies.
        path: &'a Path,
        /// All of them.
        bytes: &'a [u8],
        /// Where in the file.
        offset: u64,
    },
    /// A file below it is read.
    Read(&'a Path),
    /// The content of a file is synced.
    SyncFile(&'a Path),
    /// The entries of a directory are synced.
    SyncDirectory(&'a Path),
    /// A file is renamed.
    Rename {
        /// Its old name.
        from: &'a Path,
        /// Its new name.
        to: &'a Path,
    },
    /// A file is removed.
    Remove(&'a Path),
    /// A directory is listed.
    List(&'a Path),
    /// It is asked what lies there.
    Look(&'a Path),
    /// The times of a file are set.
    SetTimes(&'a Path),
    /// It is asked how much is free.
    FreeSpace(&'a Path),
}

impl Step<'_> {
    /// The path it is about; of a rename, the old one.
    pub const fn path(&self) -> &Path {
        match self {
            Self::Create(path)
            | Self::CreateDirectory(path)
            | Self::Open(path)
            | Self::Write { path, .. }
            | Self::Read(path)
            | Self::SyncFile(path)
            | Self::SyncDirectory(path)
            | Self::Rename { from: path, .. }
            | Self::Remove(path)
            | Self::List(path)
            | Self::Look(path)
            | Self::SetTimes(path)
            | Self::FreeSpace(path) => path,
        }
    }
}

/// Nobody looks on.
#[cfg(not(any(test, feature = "testing")))]
#[inline]
pub(super) const fn step(_: &Step<'_>) -> std::io::Result<()> {
    Ok(())
}

#[cfg(any(test, feature = "testing"))]
mod looking_on {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, PoisonError, RwLock};

    use super::Step;

    type Observer = dyn Fn(&Step<'_>) -> io::Result<()> + Send + Sync;

    static OBSERVED: RwLock<Vec<(u64, PathBuf, Arc<Observer>)>> = RwLock::new(Vec::new());
    static COUNT: AtomicU64 = AtomicU64::new(0);

    /// Ends the observation when it is dropped.
    #[derive(Debug)]
    pub struct Observed(u64);

    /// Calls `observer` before each file operation below `root`; its error is what the operation says instead of happening.
    pub fn observe(root: &Path, observer: impl Fn(&Step<'_>) -> io::Result<()> + Send + Sync + 'static) -> Observed {
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        let observer: Arc<Observer> = Arc::new(observer);
        OBSERVED.write().unwrap_or_else(PoisonError::into_inner).push((id, root.to_owned(), observer));
        Observed(id)
    }

    impl Drop for Observed {
        fn drop(&mut self) {
            OBSERVED.write().unwrap_or_else(PoisonError::into_inner).retain(|(id, ..)| *id != self.0);
        }
    }

    /// Tells who looks on.
    pub(in crate::store) fn step(step: &Step<'_>) -> io::Result<()> {
        let observers: Vec<Arc<Observer>> = {
            let observed = OBSERVED.read().unwrap_or_else(PoisonError::into_inner);
            let below = observed.iter().filter(|(_, root, _)| step.path().starts_with(root));
            below.map(|(_, _, observer)| Arc::clone(observer)).collect()
        };
        observers.iter().try_for_each(|observer| observer(step))
    }
}
