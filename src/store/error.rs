//! What can go wrong in the store, by what the caller does next.

use std::io;
use std::path::{Path, PathBuf};

use crate::oci::Digest;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the directory. Nothing in it was touched.
    #[error("{path} is in use by another sealgate process (lock held); stop it or set another server.data_dir")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// No mirror has kept anything under that directory.
    #[error("there is no cache at {path} yet")]
    NoCache {
        /// The directory.
        path: PathBuf,
    },
    /// No space left: on the disk, above `min_free_bytes`, or because the blob is larger than the whole cache. What was
    /// written so far stays readable through [`super::StagedReader`]; pass the rest through without caching.
    #[error("no space left in the cache")]
    NoSpace,
    /// More bytes than allowed.
    #[error("more than {allowed} bytes")]
    TooLong {
        /// The bound.
        allowed: u64,
    },
    /// The content has another digest.
    #[error("the content is {found}, not {wanted}")]
    DigestMismatch {
        /// Wanted.
        wanted: Box<Digest>,
        /// Found.
        found: Box<Digest>,
    },
    /// The file system says no.
    #[error("the file system refuses {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// The error for what the file system said about `path`; a full disk or quota is [`StoreError::NoSpace`].
    pub(super) fn of(path: &Path, source: io::Error) -> Self {
        if is_no_space(&source) { Self::NoSpace } else { Self::Io { path: path.to_owned(), source } }
    }
}

/// Whether the disk or a quota is full.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the disk does not give back what was written: bad sectors, and no want of descriptors or rights that will pass.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_its_own_variant() {
        for code in [libc::ENOSPC, libc::EDQUOT] {
            let error = StoreError::of(Path::new("x"), io::Error::from_raw_os_error(code));
            assert!(matches!(error, StoreError::NoSpace), "{error:?}");
        }
        let error = StoreError::of(Path::new("x"), io::Error::from_raw_os_error(libc::EIO));
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    }
}
