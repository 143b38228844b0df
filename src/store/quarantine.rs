//! Files that were found wrong: kept aside for a while, so that an operator can see what the disk made of them.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::blobs::Blobs;
use super::disk;
use crate::limits::{QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX};
use crate::oci::Digest;

impl Blobs {
    /// Takes a wrong file of `size` bytes out of the cache, whole. Blocks; the place is locked by the caller.
    pub(super) fn set_aside(&self, digest: &Digest, size: u64) -> io::Result<()> {
        let path = self.layout.blob(digest);
        if !self.layout.is_kept() || size > QUARANTINE_BYTES_MAX {
            return disk::remove_file(&path);
        }
        let directory = self.layout.quarantine();
        let name = format!("{}-{}", digest.algorithm().as_str(), digest.hex());
        let moved = disk::create_directory(&directory).and_then(|()| disk::rename(&path, &directory.join(name)));
        match moved {
            Ok(()) => tracing::warn!(%digest, directory = %directory.display(), "a wrong file is set aside"),
            Err(error) => {
                tracing::warn!(%digest, %error, "a wrong file cannot be set aside; it is removed");
                disk::remove_file(&path)?;
            }
        }
        self.bound_quarantine(QUARANTINE_FILES_MAX, QUARANTINE_BYTES_MAX);
        Ok(())
    }

    /// Removes all of them. Blocks.
    pub(super) fn empty_quarantine(&self) {
        self.bound_quarantine(0, 0);
    }

    /// The newest stay.
    fn bound_quarantine(&self, files_max: usize, bytes_max: u64) {
        let mut files = match self.quarantined() {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return tracing::warn!(%error, "the quarantine cannot be listed"),
        };
        files.sort_unstable_by_key(|file| std::cmp::Reverse(file.since));
        let mut bytes: u64 = 0;
        for (number, Quarantined { size, path, .. }) in files.into_iter().enumerate() {
            bytes = bytes.saturating_add(size);
            if (number >= files_max || bytes > bytes_max)
                && let Err(error) = disk::remove_file(&path)
            {
                tracing::warn!(%error, path = %path.display(), "a file in quarantine cannot be removed");
            }
        }
    }

    fn quarantined(&self) -> io::Result<Vec<Quarantined>> {
        let mut files = Vec::new();
        for entry in disk::list(&self.layout.quarantine())? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            // Nothing that somebody else put there.
            let is_ours = entry.file_name().to_str().is_some_and(|name| {
                name.split_once('-')
                    .is_some_and(|(algorithm, hex)| format!("{algorithm}:{hex}").parse::<Digest>().is_ok())
            });
            if is_ours && metadata.is_file() {
                let since = (metadata.ctime(), metadata.ctime_nsec());
                files.push(Quarantined { since, size: metadata.len(), path: entry.path() });
            }
        }
        Ok(files)
    }
}

/// A file that was set aside.
struct Quarantined {
    /// When, in seconds and nanoseconds.
    since: (i64, i64),
    size: u64,
    path: PathBuf,
}
