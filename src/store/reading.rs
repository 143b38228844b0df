//! What lies in a mirror's data directory, read by another process without changing anything in it.
//!
//! Opening a store is no reading: it makes what is missing, moves a broken database aside, sweeps old records and evicts
//! blobs, and the engine itself writes whenever it opens. So the database is copied, and the copy is opened.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{create_directory, create_file};
use super::evidence::EvidenceFiles;
use super::history::History;
use super::layout::open_below;
use super::record::{Found, Kind};
use super::{Layout, StoreError, StoredVerdict, VerdictFilter, decisions, off_thread, verdicts};
use crate::clock::Timestamp;
use crate::limits::{CONTENT_BYTES_MAX, VERDICT_STORE_PAGE_RECORDS, VERDICTS_PAGE_MAX};
use crate::oci::Digest;

/// The verdicts kept under `data_dir`, newest first: those that a mirror started at `now` would list, at most
/// `limits::VERDICT_HISTORY_MAX`. A directory in which no verdict was ever kept has none.
///
/// Nothing there is changed. The directory is locked only while the database is copied, into a temporary directory.
///
/// # Errors
/// [`StoreError::Locked`] while a mirror uses the directory; [`StoreError::Io`] when the database cannot be copied or does
/// not open.
pub async fn read_verdicts(data_dir: &Path, now: Timestamp) -> Result<Vec<Arc<StoredVerdict>>, StoreError> {
    let (kept, root) = (Layout::kept(data_dir.to_owned()), data_dir.to_owned());
    let read = off_thread(move || read(&kept, now)).await;
    read.map_err(|error| StoreError::of(&root, error))?
}

/// The bytes of that digest under `data_dir`, also while a mirror uses it; `None` when they are not there, have another digest
/// or are more than `limits::CONTENT_BYTES_MAX`.
pub async fn read_content(data_dir: &Path, digest: &Digest) -> Option<Bytes> {
    let (kept, digest) = (Layout::kept(data_dir.to_owned()), *digest);
    let read = move || {
        let mut bytes = Vec::new();
        let file = kept.open_blob(&digest).ok()??;
        let bytes_max = u64::try_from(CONTENT_BYTES_MAX).unwrap_or(u64::MAX);
        file.take(bytes_max).read_to_end(&mut bytes).ok()?;
        digest.matches(&bytes).then(|| bytes.into())
    };
    off_thread(read).await.ok().flatten()
}

fn read(kept: &Layout, now: Timestamp) -> Result<Vec<Arc<StoredVerdict>>, StoreError> {
    let refused = |error| StoreError::of(kept.root(), error);
    // It goes with this value, whatever happens.
    let copy = Layout::temporary();
    {
        let _lock = kept.lock_for_reading()?;
        if !kept.root().join(verdicts::DIRECTORY).is_dir() {
            return Ok(Vec::new());
        }
        copy_database(kept.root(), copy.root()).map_err(refused)?;
    }
    let database = verdicts::open_copy(copy.root(), kept.root()).map_err(refused)?;
    let evidence = EvidenceFiles::new(kept);
    let (mut history, mut from) = (History::default(), Vec::new());
    loop {
        let page = database.page(&from, VERDICT_STORE_PAGE_RECORDS, |found| {
            found.kind == Kind::Verdict && decisions::is_kept(found, now)
        });
        let page = page.map_err(|error| refused(io::Error::other(error)))?;
        for verdict in page.found.iter().filter_map(|found| whole(found, &evidence)) {
            history.insert(Arc::new(verdict));
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(all(&history)),
        }
    }
}

fn all(history: &History) -> Vec<Arc<StoredVerdict>> {
    let (mut verdicts, mut filter) = (Vec::new(), VerdictFilter::default());
    loop {
        let page = history.list(&filter);
        filter.after = page.last().filter(|_| page.len() >= VERDICTS_PAGE_MAX).map(|last| last.key.id());
        verdicts.extend(page);
        if filter.after.is_none() {
            return verdicts;
        }
    }
}

fn whole(found: &Found, evidence: &EvidenceFiles) -> Option<StoredVerdict> {
    let (verdict, place) = StoredVerdict::of_record(super::record::verdict_key(&found.echo)?, &found.record)?;
    let document = verdict.evidence.filter(|_| place == super::verdict::Place::Evidence);
    let document = document.and_then(|digest| serde_json::from_slice(&evidence.find(&digest)?).ok());
    Some(match document {
        Some(document) => decisions::with_listed_material(verdict, &document),
        None => verdict,
    })
}

/// Copies the engine's files: those of its directory, and of the one below it that holds its large values.
fn copy_database(from: &Path, to: &Path) -> io::Result<()> {
    for directories in [&[verdicts::DIRECTORY][..], &[verdicts::DIRECTORY, verdicts::LARGE_VALUES]] {
        let (mut source, mut target) = (from.to_owned(), to.to_owned());
        for directory in directories {
            source.push(directory);
            target.push(directory);
        }
        create_directory(&target)?;
        let entries = match std::fs::read_dir(&source) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if entry.file_type()?.is_file()
                && let Some(mut file) = open_below(from, directories, &name)?
            {
                io::copy(&mut file, &mut create_file(&target.join(&name))?)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;
    use crate::clock::Clock;
    use crate::limits::VERDICT_MATERIAL_MAX;
    use crate::policy::{Decision, Evidence};
    use crate::store::testing::verdict;
    use crate::store::{Settings, Store};
    use crate::telemetry::Telemetry;

    /// Every file with its content and its time of change.
    fn everything(directory: &Path) -> BTreeMap<PathBuf, Option<(Vec<u8>, std::time::SystemTime)>> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                found.extend(everything(&path));
                found.insert(path, None);
            } else {
                found.insert(path.clone(), Some((std::fs::read(&path).unwrap(), metadata.modified().unwrap())));
            }
        }
        found
    }

    async fn open(directory: &Path) -> Store {
        let settings = Settings { data_dir: Some(directory.to_owned()), max_bytes: u64::MAX, min_free_bytes: 0 };
        Store::open(settings, Clock::System, Telemetry::default()).await.unwrap()
    }

    fn now() -> Timestamp {
        Clock::System.now()
    }

    fn images(verdicts: &[Arc<StoredVerdict>]) -> Vec<String> {
        verdicts.iter().map(|verdict| verdict.key.image.to_string()).collect()
    }

    /// A directory with the verdicts of a mirror that is down; the second one's material does not fit into its record.
    async fn left_by_a_mirror() -> (tempfile::TempDir, Vec<Digest>) {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        let material: Vec<Digest> = (0..VERDICT_MATERIAL_MAX).map(|one| Digest::sha256(&one.to_be_bytes())).collect();
        let seconds = now().unix_seconds();
        let denied = verdict("quay.io/a/b:1", Decision::Deny, seconds - 1);
        let allowed =
            StoredVerdict { material: material.clone(), ..verdict("quay.io/a/b:2", Decision::Allow, seconds) };
        for verdict in [denied, allowed] {
            store.put_verdict(verdict, &Evidence(json!({}))).await;
        }
        assert!(matches!(read_verdicts(directory.path(), now()).await, Err(StoreError::Locked { .. })));
        store.close().await;
        (directory, material)
    }

    #[tokio::test]
    async fn reading_finds_every_verdict_each_time_and_changes_nothing() {
        let (directory, material) = left_by_a_mirror().await;
        let before = everything(directory.path());
        for _ in 0..3 {
            let read = read_verdicts(directory.path(), now()).await.unwrap();
            assert_eq!(images(&read), ["quay.io/a/b:2", "quay.io/a/b:1"]);
            assert_eq!((&read[0].material, read[0].material_complete), (&material, true));
            assert!(everything(directory.path()) == before, "something was changed");
        }
        // The mirror finds them too when it starts again.
        let store = open(directory.path()).await;
        while store.verdicts(&VerdictFilter::default()).await.len() < 2 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_store_that_is_closed_before_it_has_listed_its_verdicts_loses_none() {
        let (directory, _) = left_by_a_mirror().await;
        for _ in 0..3 {
            open(directory.path()).await.close().await;
        }
        assert_eq!(read_verdicts(directory.path(), now()).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn content_is_read_beside_the_mirror_unless_it_is_something_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        let content = Bytes::from_static(b"a signature");
        let digest = Digest::sha256(&content);
        assert_eq!(read_content(directory.path(), &digest).await, None);
        store.keep_content(&digest, content.clone()).await;
        assert!(store.blob(&digest).await.is_some(), "now it is on disk");
        assert_eq!(read_content(directory.path(), &digest).await, Some(content));
        let path = Layout::kept(directory.path().to_owned()).blob(&digest);
        std::fs::write(&path, "another one").unwrap();
        assert_eq!(read_content(directory.path(), &digest).await, None);
        assert!(path.exists(), "it is the mirror's to drop");
    }

    #[tokio::test]
    async fn a_broken_database_is_an_error_and_stays_where_it_is() {
        let (directory, _) = left_by_a_mirror().await;
        let database = directory.path().join(verdicts::DIRECTORY);
        std::fs::write(database.join("conf"), "not a configuration of the engine").unwrap();
        let before = everything(directory.path());
        let read = read_verdicts(directory.path(), now()).await;
        assert!(matches!(read, Err(StoreError::Io { .. })), "{read:?}");
        assert!(everything(directory.path()) == before, "something was changed");
    }

    #[tokio::test]
    async fn a_lost_key_is_an_error_and_not_no_verdicts() {
        let (directory, _) = left_by_a_mirror().await;
        std::fs::remove_file(directory.path().join("verdict.key")).unwrap();
        let read = read_verdicts(directory.path(), now()).await;
        assert!(matches!(read, Err(StoreError::Io { .. })), "{read:?}");
        assert!(!directory.path().join("verdict.key").exists());
    }

    #[tokio::test]
    async fn a_directory_without_a_mirror_has_no_verdicts_and_stays_empty() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read_verdicts(directory.path(), now()).await.unwrap().is_empty());
        assert!(everything(directory.path()).is_empty());
    }

    #[tokio::test]
    async fn more_verdicts_than_a_page_are_all_read() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        let seconds = now().unix_seconds();
        for one in 0..=VERDICTS_PAGE_MAX {
            let verdict = verdict(&format!("quay.io/a/b:{one}"), Decision::Allow, seconds);
            store.put_verdict(verdict, &Evidence(json!({}))).await;
        }
        store.close().await;
        assert_eq!(read_verdicts(directory.path(), now()).await.unwrap().len(), VERDICTS_PAGE_MAX + 1);
    }
}
