//! The verdict database, and the only file that names its engine (decision 0002).
//!
//! sled may panic, hang or lose records without a word. So: it is opened on a thread of its own with a deadline, and what
//! cannot be opened is moved aside and begun anew; every record is sealed ([`super::record`]); and nothing that lies here
//! is needed to refuse. Everything here blocks, and runs on the worker's thread ([`super::records`]) alone.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::disk::create_directory;
use super::error::is_no_space;
use super::record::{Codec, Found, Kind, Record, RecordKey};
use super::{StoreError, VerdictId, mark};
use crate::clock::Timestamp;
use crate::limits::{VERDICT_RECORDS_MAX, VERDICT_STORE_OPEN};
use crate::telemetry::{StoreOp, StoreOutcome, Telemetry};

/// An open database.
pub(super) struct Database {
    db: sled::Db,
    codec: Codec,
    telemetry: Telemetry,
    /// Records there are; right once [`Self::page`] has been through all of them.
    records: Arc<AtomicU64>,
}

/// The database failed: whatever it says from now on is not to be trusted.
#[derive(Debug, thiserror::Error)]
#[error("the verdict database failed: {0}")]
pub(super) struct DatabaseError(String);

#[cfg(test)]
impl DatabaseError {
    pub(super) fn from_fault() -> Self {
        Self("a test's fault".to_owned())
    }
}

impl From<sled::Error> for DatabaseError {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}

/// What became of an attempt to open it.
#[derive(Debug)]
pub(super) enum Opened {
    /// It is open.
    Ready(Box<Database>),
    /// The disk does not let us; nothing was moved. Worth another attempt later.
    NotNow(io::Error),
}

/// Records in the order of their places.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) found: Vec<Found>,
    /// Whole records there were, those removed too.
    pub(super) seen: usize,
    /// Where the next page begins; `None` at the end.
    pub(super) next: Option<Vec<u8>>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Database").field("records", &self.records).finish_non_exhaustive()
    }
}

impl Database {
    /// The record of that key; one that is corrupt is counted and removed.
    pub(super) fn find(&self, key: &RecordKey) -> Result<Option<Record>, DatabaseError> {
        let Some(sealed) = self.db.get(key.place())? else { return Ok(None) };
        match self.codec.open(key, &sealed) {
            Ok(record) => Ok(Some(record)),
            Err(_) => self.drop_corrupt(key.place()).map(|()| None),
        }
    }

    /// The verdict whose id that is.
    pub(super) fn find_verdict(&self, id: VerdictId) -> Result<Option<Found>, DatabaseError> {
        let prefix: Vec<u8> = std::iter::once(Kind::Verdict.prefix()).chain(id.0).collect();
        for entry in self.db.scan_prefix(prefix) {
            let (place, sealed) = entry?;
            match self.codec.open_any(&place, &sealed) {
                Ok(found) => return Ok(Some(found)),
                Err(_) => self.drop_corrupt(&place)?,
            }
        }
        Ok(None)
    }

    /// Puts records, all or none of them. New ones are dropped while there are `limits::VERDICT_RECORDS_MAX`.
    pub(super) fn put(&self, records: &[(RecordKey, Record)]) -> Result<(), DatabaseError> {
        let mut batch = sled::Batch::default();
        let mut count = self.records.load(Ordering::Relaxed);
        let most = u64::try_from(VERDICT_RECORDS_MAX).unwrap_or(u64::MAX);
        for (key, record) in records {
            let is_new = !self.db.contains_key(key.place())?;
            match self.codec.seal(key, record) {
                Some(sealed) if !is_new || count < most => {
                    batch.insert(key.place(), sealed);
                    count = count.saturating_add(u64::from(is_new));
                }
                _ => self.telemetry.verdict_store(StoreOp::Put, StoreOutcome::Dropped),
            }
        }
        self.db.apply_batch(batch)?;
        self.records.store(count, Ordering::Relaxed);
        Ok(())
    }

    /// Removes a record; whether there was one.
    pub(super) fn remove(&self, key: &RecordKey) -> Result<bool, DatabaseError> {
        self.remove_place(key.place())
    }

    /// Up to `count` records from `from` on. Those that `keep` does not want are removed, corrupt ones too.
    pub(super) fn page(&self, from: &[u8], count: usize, keep: impl Fn(&Found) -> bool) -> Result<Page, DatabaseError> {
        let mut page = Page::default();
        for (number, entry) in self.db.range(from..).enumerate() {
            let (place, sealed) = entry?;
            if number == count {
                page.next = Some(place.to_vec());
                break;
            }
            match self.codec.open_any(&place, &sealed) {
                Ok(found) if keep(&found) => {
                    page.seen = page.seen.saturating_add(1);
                    page.found.push(found);
                }
                Ok(_) => {
                    page.seen = page.seen.saturating_add(1);
                    self.remove_place(&place)?;
                    self.telemetry.verdict_store(StoreOp::Delete, StoreOutcome::Ok);
                }
                Err(_) => self.drop_corrupt(&place)?,
            }
        }
        Ok(page)
    }

    /// Sets the number of records, after all pages were read.
    pub(super) fn counted(&self, records: u64) {
        self.records.store(records, Ordering::Relaxed);
    }

    /// Begins to flush, and does not wait for it.
    pub(super) fn begin_flush(&self) {
        // Polled once, it hands the work to the engine's own threads; its answer comes with the next call.
        drop(self.db.flush_async().now_or_never());
    }

    /// Flushes and waits for it.
    pub(super) fn flush(&self) -> Result<(), DatabaseError> {
        self.db.flush()?;
        Ok(())
    }

    fn remove_place(&self, place: &[u8]) -> Result<bool, DatabaseError> {
        let was_there = self.db.remove(place)?.is_some();
        if was_there {
            let less = |count: u64| Some(count.saturating_sub(1));
            let _counted = self.records.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
        Ok(was_there)
    }

    fn drop_corrupt(&self, place: &[u8]) -> Result<(), DatabaseError> {
        self.telemetry.verdict_mac_failed();
        self.telemetry.verdict_store(StoreOp::Get, StoreOutcome::Corrupt);
        self.remove_place(place).map(|_| ())
    }
}

/// Opens the database of that data directory; one that does not open is moved aside and begun anew.
///
/// Ends within `limits::VERDICT_STORE_OPEN` and a few seconds.
///
/// # Errors
/// [`StoreError::Locked`] when another process has it open.
pub(super) fn open(
    data_dir: &Path,
    telemetry: &Telemetry,
    records: &Arc<AtomicU64>,
    now: Timestamp,
) -> Result<Opened, StoreError> {
    let path = data_dir.join(DIRECTORY);
    let ready = |db, codec| {
        let (telemetry, records) = (telemetry.clone(), Arc::clone(records));
        telemetry.verdict_store(StoreOp::Open, StoreOutcome::Ok);
        Ok(Opened::Ready(Box::new(Database { db, codec, telemetry, records })))
    };
    let codec = match mark::mac_key(data_dir) {
        Ok(key) => Codec::new(&key),
        Err(error) => return Ok(Opened::NotNow(error)),
    };
    let why = match open_engine(&path, VERDICT_STORE_OPEN) {
        Ok(db) => return ready(db, codec),
        Err(Failure::Locked) => return Err(StoreError::Locked { path: data_dir.to_owned() }),
        Err(Failure::NotNow(error)) => return Ok(Opened::NotNow(error)),
        Err(Failure::Broken(why)) => why,
    };
    telemetry.verdict_store(StoreOp::Open, StoreOutcome::Corrupt);
    // An engine that breaks because it cannot write is not a broken database.
    if let Err(error) = probe(data_dir) {
        return Ok(Opened::NotNow(error));
    }
    match quarantine(data_dir, &path, now) {
        Ok(aside) => tracing::error!(%why, aside = %aside.display(),
            "the verdict database does not open; it is moved aside and begun anew, verdicts are reached again"),
        Err(error) => return Ok(Opened::NotNow(error)),
    }
    match open_engine(&path, OPEN_ANEW) {
        Ok(db) => ready(db, codec),
        Err(Failure::Locked) => Ok(Opened::NotNow(io::ErrorKind::WouldBlock.into())),
        Err(Failure::NotNow(error)) => Ok(Opened::NotNow(error)),
        Err(Failure::Broken(why)) => Ok(Opened::NotNow(io::Error::other(why))),
    }
}

/// Opens the copy, below `copied`, of the database of `data_dir`; nothing is moved or begun anew.
pub(super) fn open_copy(copied: &Path, data_dir: &Path) -> io::Result<Database> {
    let codec = Codec::new(&mark::known_mac_key(data_dir)?);
    match open_engine(&copied.join(DIRECTORY), VERDICT_STORE_OPEN) {
        Ok(db) => Ok(Database { db, codec, telemetry: Telemetry::default(), records: Arc::default() }),
        Err(Failure::Locked) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(Failure::NotNow(error)) => Err(error),
        Err(Failure::Broken(why)) => Err(io::Error::other(format!("the verdict database does not open: {why}"))),
    }
}

/// Why the engine did not open.
#[derive(Debug)]
enum Failure {
    Locked,
    NotNow(io::Error),
    Broken(String),
}

/// Opens the engine on a thread of its own; after the deadline nobody waits for that thread any more.
fn open_engine(path: &Path, deadline: Duration) -> Result<sled::Db, Failure> {
    create_directory(path).and_then(|()| remove_unfinished(path)).map_err(Failure::NotNow)?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
    let thread = std::thread::Builder::new().name("verdicts-open".to_owned()).spawn(move || {
        less_urgent();
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        // Nobody listens any more after the deadline: then the database closes here.
        let _unheard = sender.send(opened);
    });
    thread.map_err(Failure::NotNow)?;
    match receiver.recv_timeout(deadline) {
        Ok(Ok(Ok(db))) => Ok(db),
        Ok(Ok(Err(error))) => Err(classify(error)),
        Ok(Err(_)) => Err(Failure::Broken("the engine panicked".to_owned())),
        Err(_) => Err(Failure::Broken(format!("it did not open within {deadline:?}"))),
    }
}

/// Removes a snapshot that a full disk or a kill left half written. sled gives it a name that it then takes for the newest
/// snapshot, and would call the whole database corrupt.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn classify(error: sled::Error) -> Failure {
    let sled::Error::Io(error) = error else { return Failure::Broken(error.to_string()) };
    let text = error.to_string();
    if error.kind() == io::ErrorKind::WouldBlock || text.contains("could not acquire lock") {
        return Failure::Locked;
    }
    let kinds = [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied, io::ErrorKind::OutOfMemory];
    // The process is short of files, not the database broken.
    let short_of_files = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    if is_no_space(&error) || kinds.contains(&error.kind()) || short_of_files {
        return Failure::NotNow(error);
    }
    Failure::Broken(text)
}

/// Whether files can be created and written here at all.
fn probe(data_dir: &Path) -> io::Result<()> {
    let name = data_dir.join("probe");
    super::layout::replace_file(&name, &vec![0; PROBE_BYTES])?;
    std::fs::remove_file(&name)
}

/// Moves the database aside and removes those moved aside before, so that there is at most one.
fn quarantine(data_dir: &Path, path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let older = quarantined(data_dir)?;
    let mut aside = data_dir.join(format!("{QUARANTINE}{}", now.unix_seconds()));
    while aside.exists() {
        aside.as_mut_os_string().push("x");
    }
    std::fs::rename(path, &aside)?;
    for directory in older {
        std::fs::remove_dir_all(directory)?;
    }
    Ok(aside)
}

fn quarantined(data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data_dir)? {
        let entry = entry?;
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(QUARANTINE));
        if ours && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Carries the form of its records: another form gets another directory, and this one is left alone.
pub(super) const DIRECTORY: &str = "verdicts-v1";
/// Where the engine puts values that do not fit into its log, below [`DIRECTORY`].
pub(super) const LARGE_VALUES: &str = "blobs";
const QUARANTINE: &str = "verdicts.quarantine-";
/// Memory for the engine's pages; the hot values have their own.
const CACHE_BYTES: u64 = 16 * crate::limits::MIB;
const FLUSH_EVERY_MS: u64 = 1000;
/// More than a file system keeps in a directory entry.
const PROBE_BYTES: usize = 64 * 1024;
/// Time for an empty database to open.
const OPEN_ANEW: Duration = Duration::from_secs(3);

/// Makes this thread, and those that it starts, less urgent than serving, in steps of `nice(2)`: the engine writes to the disk by
/// many of them. Still more urgent than verifying, for which somebody may wait. That it cannot be done is no reason to go without.
pub(super) fn less_urgent() {
    let _without = rustix::process::nice(NICE);
}

const NICE: i32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn io_error(kind: io::ErrorKind, text: &str) -> Failure {
        classify(sled::Error::Io(io::Error::new(kind, text)))
    }

    #[test]
    fn a_lock_is_not_corruption() {
        let text = "could not acquire lock on \"x\": Os { code: 11 }";
        assert!(matches!(io_error(io::ErrorKind::Other, text), Failure::Locked));
        assert!(matches!(io_error(io::ErrorKind::WouldBlock, "x"), Failure::Locked));
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_not_corruption() {
        for code in [libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::EACCES, libc::EMFILE, libc::ENFILE] {
            let failure = classify(sled::Error::Io(io::Error::from_raw_os_error(code)));
            assert!(matches!(failure, Failure::NotNow(_)), "{code}: {failure:?}");
        }
    }

    #[test]
    fn anything_else_is_broken() {
        assert!(matches!(io_error(io::ErrorKind::InvalidData, "x"), Failure::Broken(_)));
        assert!(matches!(classify(sled::Error::Corruption { at: None, bt: () }), Failure::Broken(_)));
        assert!(matches!(classify(sled::Error::ReportableBug("x".to_owned())), Failure::Broken(_)));
    }

    #[test]
    fn one_quarantined_database_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DIRECTORY);
        for round in 0..3 {
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("round"), round.to_string()).unwrap();
            quarantine(directory.path(), &path, Timestamp::from_unix_seconds(100)).unwrap();
        }
        let kept = quarantined(directory.path()).unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(std::fs::read_to_string(kept[0].join("round")).unwrap(), "2");
        assert!(!path.exists());
    }
}
