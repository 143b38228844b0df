//! Noticing that a file changed, also when it was swapped behind a symbolic link.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Notices that one of some files was changed, replaced, removed, or swapped behind a symbolic link.
#[derive(Debug)]
pub(super) struct Watch {
    files: BTreeMap<PathBuf, Option<Signature>>,
    unsettled: bool,
}

/// A file as it was just before it was read, so that a change while it was read is noticed afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    path: PathBuf,
    signature: Option<Signature>,
}

impl Seen {
    /// The file at that path, as it is now; it may be missing.
    pub(super) fn now(path: &Path) -> Self {
        Self { path: path.to_owned(), signature: Signature::of(path) }
    }
}

/// What differs when a file does. Links are followed, so a link that leads elsewhere shows another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// Watches files from how they were seen on.
    pub(super) fn over(seen: Vec<Seen>) -> Self {
        Self { files: seen.into_iter().map(|seen| (seen.path, seen.signature)).collect(), unsettled: false }
    }

    /// Whether there was a change that has come to rest: true once, at the first look that finds the files as the look
    /// before did, after one that found them different.
    pub(super) fn look(&mut self) -> bool {
        let mut moved = false;
        for (path, known) in &mut self.files {
            let now = Signature::of(path);
            moved |= now != *known;
            *known = now;
        }
        let settled = self.unsettled && !moved;
        self.unsettled = moved;
        settled
    }
}

impl Signature {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_when_it_has_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.json");
        std::fs::write(&path, "1").unwrap();
        let mut watch = Watch::over(vec![Seen::now(&path)]);
        assert!(!watch.look());
        std::fs::write(&path, "22").unwrap();
        assert!(!watch.look(), "it may still be written");
        std::fs::write(&path, "333").unwrap();
        assert!(!watch.look(), "it was still written");
        assert!(watch.look());
        assert!(!watch.look());
    }

    #[test]
    fn a_swap_behind_a_link_is_noticed_as_kubernetes_does_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (version, content) in [("v1", "same"), ("v2", "same")] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("policy.json"), content).unwrap();
        }
        std::os::unix::fs::symlink("v1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/policy.json", at("policy.json")).unwrap();
        let mut watch = Watch::over(vec![Seen::now(&at("policy.json"))]);
        std::os::unix::fs::symlink("v2", at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(!watch.look());
        assert!(watch.look());
    }

    #[test]
    fn a_file_that_vanishes_or_appears_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let mut watch = Watch::over(vec![Seen::now(&path)]);
        std::fs::write(&path, "x").unwrap();
        assert_eq!([watch.look(), watch.look(), watch.look()], [false, true, false]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!([watch.look(), watch.look(), watch.look()], [false, true, false]);
    }
}
