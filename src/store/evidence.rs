//! Evidence files: content-addressed JSON, one a verdict, for people. Never read to decide anything.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;

use super::layout::open_below;
use super::{Layout, disk, lock};
use crate::limits::{EVIDENCE_BYTES_MAX, EVIDENCE_FILES_MAX, VERDICT_HISTORY_MAX};
use crate::oci::Digest;

/// Where evidence is kept.
#[derive(Debug)]
pub(super) enum EvidenceFiles {
    /// Under `evidence/`.
    Disk {
        /// The directory.
        directory: PathBuf,
        /// Files there are, as far as counted.
        files: AtomicU64,
        /// One write at a time: two of the same content must not share a name. Until the sweep: what was written since
        /// the start, which no verdict may point at yet.
        fresh: Mutex<Option<HashSet<Digest>>>,
    },
    /// In memory, for a store that leaves nothing.
    Memory(Cache<Digest, Vec<u8>>),
}

impl EvidenceFiles {
    pub(super) fn new(layout: &Layout) -> Self {
        if layout.is_kept() {
            Self::Disk {
                directory: layout.evidence(),
                files: AtomicU64::new(0),
                fresh: Mutex::new(Some(HashSet::new())),
            }
        } else {
            Self::Memory(Cache::new(u64::try_from(VERDICT_HISTORY_MAX).unwrap_or(u64::MAX)))
        }
    }

    /// Keeps a document; its digest, or `None` when there is no room for it. Blocks.
    pub(super) fn put(&self, content: Vec<u8>) -> Option<Digest> {
        let digest = Digest::sha256(&content);
        if content.len() > EVIDENCE_BYTES_MAX {
            tracing::warn!(bytes = content.len(), "evidence is too large to be kept");
            return None;
        }
        match self {
            Self::Memory(cache) => {
                cache.insert(digest, content);
                Some(digest)
            }
            Self::Disk { directory, files, fresh } => {
                let mut fresh = lock(fresh);
                let (shard, name) = Layout::place(&digest);
                let path = directory.join(shard).join(name);
                // A power cut can leave a name without its content.
                let is_there = read(directory, &digest).is_some();
                if !is_there && files.load(Ordering::Relaxed) >= EVIDENCE_FILES_MAX {
                    tracing::warn!(files = EVIDENCE_FILES_MAX, "evidence is not kept: too many files");
                    return None;
                }
                if !is_there {
                    if let Err(error) = write(&path, &content) {
                        tracing::warn!(%error, "evidence is not kept");
                        return None;
                    }
                    files.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(fresh) = fresh.as_mut() {
                    fresh.insert(digest);
                }
                Some(digest)
            }
        }
    }

    /// The document with that digest; what has another digest is none. Blocks.
    pub(super) fn find(&self, digest: &Digest) -> Option<Vec<u8>> {
        match self {
            Self::Memory(cache) => cache.get(digest),
            Self::Disk { directory, .. } => read(directory, digest),
        }
    }

    /// Removes documents. Blocks.
    pub(super) fn remove(&self, digests: &[Digest]) {
        match self {
            Self::Memory(cache) => digests.iter().for_each(|digest| cache.invalidate(digest)),
            Self::Disk { directory, files, fresh } => {
                let mut fresh = lock(fresh);
                for digest in digests {
                    if let Some(fresh) = fresh.as_mut() {
                        fresh.remove(digest);
                    }
                    unlink(directory, files, digest);
                }
            }
        }
    }

    /// Counts the files and removes those that `wanted` does not want; once, after the start. Blocks.
    pub(super) fn sweep(&self, wanted: impl Fn(&Digest) -> bool) -> io::Result<()> {
        let Self::Disk { directory, files, fresh } = self else { return Ok(()) };
        let mut fresh = lock(fresh);
        let Some(young) = fresh.take() else { return Ok(()) };
        files.store(0, Ordering::Relaxed);
        for shard in disk::list(directory)? {
            let shard = shard?;
            if !shard.file_type()?.is_dir() {
                continue;
            }
            for entry in disk::list(&shard.path())? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_str().unwrap_or_default();
                let parse = |name| format!("sha256:{name}").parse::<Digest>().ok();
                // Left by a process that was killed while it wrote.
                if name.strip_suffix(".new").and_then(parse).is_some() {
                    disk::remove_file(&entry.path())?;
                }
                let digest = parse(name);
                if let Some(digest) = digest {
                    files.fetch_add(1, Ordering::Relaxed);
                    if !wanted(&digest) && !young.contains(&digest) {
                        unlink(directory, files, &digest);
                    }
                }
            }
        }
        Ok(())
    }
}

fn read(directory: &Path, digest: &Digest) -> Option<Vec<u8>> {
    let (shard, name) = Layout::place(digest);
    let file = open_below(directory, &[&shard], &name).ok().flatten()?;
    let mut content = Vec::new();
    let bytes_max = u64::try_from(EVIDENCE_BYTES_MAX).unwrap_or(u64::MAX);
    io::Read::read_to_end(&mut io::Read::take(file, bytes_max.saturating_add(1)), &mut content).ok()?;
    digest.matches(&content).then_some(content)
}

fn unlink(directory: &Path, files: &AtomicU64, digest: &Digest) {
    let (shard, name) = Layout::place(digest);
    if disk::remove_file(&directory.join(shard).join(name)).is_ok() {
        let less = |count: u64| Some(count.saturating_sub(1));
        let _counted = files.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// Writes a file under its final name only when it is whole. Not synced: a torn one fails its digest and is none.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(shard) = path.parent() {
        disk::create_directory(shard)?;
    }
    let beside = path.with_extension("new");
    match disk::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk::create_file(&beside)?;
    disk::write_at(&beside, &file, content, 0).and_then(|()| disk::rename(&beside, path)).inspect_err(|_| {
        // Every document has a name of its own: what a full disk cut short would stay.
        drop(disk::remove_file(&beside));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> EvidenceFiles {
        let layout = Layout::kept(directory.to_owned());
        layout.create().unwrap();
        EvidenceFiles::new(&layout)
    }

    #[test]
    fn a_document_is_found_by_its_digest_unless_its_file_was_changed() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let digest = files.put(b"{}".to_vec()).unwrap();
        assert_eq!(files.put(b"{}".to_vec()), Some(digest));
        assert_eq!(files.find(&digest), Some(b"{}".to_vec()));
        let (shard, name) = Layout::place(&digest);
        std::fs::write(directory.path().join("evidence").join(shard).join(name), "[]").unwrap();
        assert_eq!(files.find(&digest), None);
    }

    #[test]
    fn documents_and_their_number_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        assert!(files.put(vec![b' '; EVIDENCE_BYTES_MAX]).is_some());
        assert!(files.put(vec![b' '; EVIDENCE_BYTES_MAX + 1]).is_none());
        let EvidenceFiles::Disk { files: count, .. } = &files else { panic!("on disk") };
        count.store(EVIDENCE_FILES_MAX - 1, Ordering::Relaxed);
        let last = files.put(b"last".to_vec()).unwrap();
        assert_eq!(files.put(b"one more".to_vec()), None);
        assert_eq!(files.put(b"last".to_vec()), Some(last));
        files.remove(&[last]);
        assert!(files.put(b"one more".to_vec()).is_some());
    }

    #[test]
    fn what_no_verdict_points_at_goes_after_a_start_but_not_what_is_new() {
        let directory = tempfile::tempdir().unwrap();
        let before = files(directory.path());
        let [old, wanted] = [b"old", b"one"].map(|content| before.put(content.to_vec()).unwrap());
        let after = files(directory.path());
        let new = after.put(b"new".to_vec()).unwrap();
        after.sweep(|digest| *digest == wanted).unwrap();
        assert_eq!([old, wanted, new].map(|digest| after.find(&digest).is_some()), [false, true, true]);
        // Only once: later, verdicts themselves say what is not needed any more.
        after.sweep(|_| false).unwrap();
        assert!(after.find(&new).is_some());
    }
    #[test]
    fn a_disk_that_is_full_or_a_kill_leaves_no_half_written_documents() {
        let directory = tempfile::tempdir().unwrap();
        let full = files(directory.path());
        let observed = crate::store::faults::observe(directory.path(), |step| {
            let is_write = matches!(step, crate::store::faults::Step::Write { .. });
            if is_write { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
        });
        assert_eq!((0..20_u8).find_map(|number| full.put(vec![number; 100])), None);
        drop(observed);
        assert_eq!(count(&directory.path().join("evidence")), 0, "a full disk gets no fuller");

        let kept = full.put(b"kept".to_vec()).unwrap();
        let (shard, name) = Layout::place(&Digest::sha256(b"never finished"));
        let shard = directory.path().join("evidence").join(shard);
        std::fs::create_dir_all(&shard).unwrap();
        std::fs::write(shard.join(name).with_extension("new"), "never f").unwrap();
        std::fs::write(shard.join("notes.new"), "somebody's").unwrap();
        files(directory.path()).sweep(|digest| *digest == kept).unwrap();
        assert_eq!(count(&directory.path().join("evidence")), 2, "what is kept, and what is not ours");
    }

    fn count(directory: &Path) -> usize {
        let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
    }
}
